"""The columns of the table that a model was trained on are the ones that it takes."""

import copy
import pickle

import numpy as np
import pytest
from tables import Column, Table

rng = np.random.default_rng(0)
AGE, WEIGHT, SIZE = rng.standard_normal((3, 8))
Y = rng.random(8)


def table(*names):
    columns = {"age": AGE, "weight": WEIGHT, "size": SIZE, "more": SIZE}
    return Table(**{name: Column(columns[name]) for name in names})


GOOD = table("age", "weight", "size")


def trained(module, X=GOOD):
    model = module.MLP([3, 4, 1], output="identity", seed=0)
    model.fit(X, Y, epochs=2, optimizer=module.SGD(0.01), progress=False)
    return model


def ways(model, module, X):
    sgd = module.SGD(0.01)
    return [
        lambda: model.predict(X),
        lambda: model.forward(X),
        lambda: model.loss(X, Y),
        lambda: model.train_step(X, Y, sgd),
        lambda: model.fit(X, Y, epochs=1, optimizer=sgd, progress=False),
        lambda: model.fit([(X, Y)], epochs=1, optimizer=sgd, progress=False),
        lambda: model.fit(GOOD, Y, epochs=1, optimizer=sgd, progress=False, validation_data=(X, Y)),
        lambda: model.diagnose(X, Y),
        lambda: model.check_gradients(X, Y, max_entries=2),
    ]


def test_the_same_columns_are_taken_anywhere(module):
    model = trained(module)
    assert model.feature_names == ("age", "weight", "size")
    for call in (*ways(model, module, GOOD), *ways(model, module, np.stack([AGE, WEIGHT, SIZE], axis=1))):
        call()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("weight", "age", "size"), r"columns in another order .*: column 0 is 'weight', expected 'age'; .*"),
        (("age", "size"), "misses 'weight'; the model was trained on the columns 'age', 'weight', 'size'"),
        (("age", "weight", "more"), "misses 'size' and has 'more'; the model was trained on"),
        (("age", "weight", "size", "more"), "has 'more'; the model was trained on"),
    ],
)
def test_others_are_refused(module, names, message):
    model = trained(module)
    before = model.weights[0].copy()
    for call in ways(model, module, table(*names)):
        with pytest.raises(ValueError, match=message):
            call()
    assert np.array_equal(model.weights[0], before)


def test_an_array_or_other_names_are_not_remembered(module):
    model = trained(module, np.stack([AGE, WEIGHT, SIZE], axis=1))
    assert model.feature_names is None
    model.predict(table("weight", "age", "size"))
    numbered = Table()
    numbered.contents = {0: Column(AGE), "b": Column(WEIGHT), "c": Column(SIZE)}
    assert trained(module, numbered).feature_names is None


def test_a_refused_call_remembers_nothing(module):
    model = module.MLP([3, 4, 1], output="identity", seed=0)
    with pytest.raises(ValueError, match="Y has shape"):
        model.fit(GOOD, Y[:5], epochs=1, optimizer=module.SGD(0.1))
    assert model.feature_names is None


def test_files_pickles_and_copies(module, tmp_path):
    model = trained(module)
    model.metadata = {"mine": 1}
    model.save(tmp_path / "m")
    loaded = module.MLP.load(tmp_path / "m")
    assert loaded.metadata == {"mine": 1}
    for other in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.feature_names == ("age", "weight", "size")
        with pytest.raises(ValueError, match="in another order"):
            other.predict(table("weight", "age", "size"))
    model.reset()
    assert model.feature_names is None
    model.predict(table("weight", "age", "size"))


def test_a_checkpoint_is_a_model_with_names(module, tmp_path):
    model = module.MLP([3, 4, 1], output="identity", seed=0)
    options = {"epochs": 2, "optimizer": module.SGD(0.01), "progress": False}
    model.fit(GOOD, Y, checkpoint=tmp_path / "c", **options)
    assert module.MLP.load(tmp_path / "c").feature_names == ("age", "weight", "size")


def test_pandas(module):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"age": AGE, "weight": WEIGHT, "size": SIZE})
    model = trained(module, frame)
    shuffled = frame[["size", "age", "weight"]]
    with pytest.raises(ValueError, match="in another order"):
        model.predict(shuffled)
    assert np.array_equal(model.predict(shuffled[list(model.feature_names)]), model.predict(frame))
