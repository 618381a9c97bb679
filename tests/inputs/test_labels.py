"""Class labels stay labels: the same bits as rows of zeros and ones, without their memory."""

import tracemalloc

import numpy as np
import pytest

from fastbp.inputs.sources import Labels
from fastbp.training.settings import of_data

CLASSES = 7
rng = np.random.default_rng(0)
X = rng.standard_normal((60, 5)).astype(np.float32)
LABELS = rng.integers(0, CLASSES, 60)
LABELS[:CLASSES] = np.arange(CLASSES)
ONE_HOT = np.eye(CLASSES)[LABELS]
WEIGHTS = rng.random(60)


def net(module, dtype="float32", loss="categorical_crossentropy", classes=CLASSES):
    return module.MLP([5, 9, classes], output="softmax", loss=loss, dtype=dtype, seed=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False},
        {"sample_weight": WEIGHTS},
        {"class_weight": "balanced"},
        {"class_weight": {2: 3.0, 0: 0.5}, "sample_weight": WEIGHTS},
        {"accumulate": 3},
        {"validation_split": 0.3, "metrics": ["accuracy", "top_k(2)", lambda y, p: float((y * p).sum())]},
    ],
    ids=lambda options: " ".join(options) or "plain",
)
@pytest.mark.parametrize("loss", ["categorical_crossentropy", "categorical_crossentropy(0.1)"])
def test_fit_has_the_bits_of_one_hot_rows(module, dtype, loss, options):
    results = []
    for Y in (LABELS, LABELS[:, None].astype(np.uint8), list(LABELS), ONE_HOT):
        model = net(module, dtype, loss)
        more = {"validation_data": (X, Y)} if "validation_split" not in options else {}
        history = model.fit(
            X, Y, epochs=3, batch_size=8, optimizer=module.Adam(0.01), progress=False, **options, **more
        )
        columns = [history.loss, history.val_loss, *history.val_metrics.values()]
        results.append([*model.weights, *model.biases, *map(np.asarray, columns)])
    for other in results[:-1]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[-1], strict=True))


def test_all_other_calls(module, dtype):
    results = []
    for Y in (LABELS, ONE_HOT):
        model = net(module, dtype)
        results.append(
            [
                model.loss(X, Y),
                model.loss(X, Y, sample_weight=WEIGHTS),
                model.train_step(X, Y, module.SGD(0.1)),
                model.partial_fit(X, Y, optimizer=module.SGD(0.1)),
                *model.backward(model.forward(X), Y).weights,
                model.fit(
                    [(X[:7], Y[:7]), (X[7:], Y[7:])], epochs=2, optimizer=module.SGD(0.1), accumulate=2
                ).loss,
                str(model.diagnose(X, Y)),
                model.check_gradients(X, Y, max_entries=5).largest,
            ]
        )
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


def test_memory_and_many_classes(module):
    """A row for each of 20,000 classes would be 1.6 GB, 300,000 rows of 1,000 classes 1.2 GB."""
    few, many = np.arange(10) * 2000, 300_000
    model = module.MLP([5, 20_000], output="softmax", loss="categorical_crossentropy", seed=0)
    model.train_step(X[:10], few, module.SGD(0.1))
    tracemalloc.start()
    model.loss(X[:10], few)
    model.train_step(X[:10], few, module.SGD(0.1))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    reader = net(module, classes=1000).reader
    tracemalloc.reset_peak()
    samples = reader.samples(np.zeros((many, 5), np.float32), np.arange(many) % 1000, None, True)
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()
    assert samples.Y.shape == (many, 1000)
    assert samples.Y[[5, 1002]].argmax(axis=1).tolist() == [5, 2]


def test_whoever_changes_his_labels_later_changes_nothing(module):
    models, labels = [], LABELS.copy()

    def spoil(*_):
        labels[:] = 10**9

    for callbacks in ((), (spoil,)):
        model = net(module)
        model.fit(X, labels, epochs=3, batch_size=8, optimizer=module.SGD(0.1), callbacks=callbacks)
        models.append(model)
    assert np.array_equal(models[0].weights[0], models[1].weights[0])


def test_checkpoints_know_labels_by_the_rows_that_they_stand_for():
    """So that those written when labels became rows at once still go on."""
    for weights in (None, WEIGHTS.astype(np.float32)):
        labels = Labels(LABELS, CLASSES, np.dtype(np.float32), weights)
        assert of_data(labels) == of_data(labels[:])
    large = Labels(np.arange(9000) % 5000, 5000, np.dtype(np.float32))
    assert of_data(large) == of_data(large[:])


def test_an_offset_of_wide_numbers_is_applied_before_they_are_rounded(module, tmp_path):
    """Seconds since 1970: float32 knows multiples of 128 there."""
    seconds = (1_700_000_000 + np.arange(200)[:, None] * np.array([1, 3])).astype(np.int64)
    exact = (seconds - 1_700_000_000) / 100
    scaling = {"input_scale": 0.01, "input_offset": -17_000_000.0}
    Y = np.sin(exact[:, :1])
    np.save(tmp_path / "X.npy", seconds)
    results = []
    for given in (
        seconds,
        seconds.astype(np.uint32),
        seconds.astype(np.float64),
        seconds.astype(">i8"),
        tmp_path / "X.npy",
    ):
        model = module.MLP([2, 8, 1], output="identity", seed=0, **scaling)
        first = model.predict(given)
        model.fit(given, Y, epochs=3, optimizer=module.SGD(0.01), progress=False)
        x = given if not hasattr(given, "parent") else seconds
        trained = [first, model.forward(x).X, model.train_step(x, Y, module.SGD(0.01)), model.weights[0]]
        results.append(trained)
    np.testing.assert_allclose(results[0][1], exact, rtol=0, atol=1e-6)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[0], strict=True))


def test_engine_and_reference_read_wide_numbers_alike():
    import fastbp
    import fastbp.reference

    stored = rng.integers(-(2**40), 2**40, (50, 19))
    options = {"input_scale": 2.0**-38, "input_offset": rng.standard_normal(19)}
    results = []
    for module in (fastbp, fastbp.reference):
        model = module.MLP([19, 3], output="identity", seed=0, **options)
        rows = model.reader.input_rows(stored, True)
        results.append(rows[:])
        model.fit(
            stored, np.zeros((50, 3)), epochs=1, batch_size=50, shuffle=False, optimizer=module.SGD(0.0)
        )
    assert np.array_equal(*results)
    # what the compiled loop reads, seen through a layer that passes it on
    model = fastbp.MLP([19, 19], output="identity", seed=0, **options)
    model.weights[0][...], model.biases[0][...] = np.eye(19), 0
    losses = model.fit(stored, results[0], epochs=1, shuffle=False, optimizer=fastbp.SGD(0.0)).loss
    assert losses.tolist() == [0.0]
