"""Hidden layers with activations of their own."""

import pickle

import numpy as np
import pytest

import fastbp
import fastbp.reference

SIZES, HIDDEN = [5, 17, 9, 33, 3], ["gelu", "relu", "tanh"]


def data(dtype):
    rng = np.random.default_rng(0)
    return rng.standard_normal((40, 5)).astype(dtype), rng.random((40, 3)).astype(dtype)


def test_forward_training_and_predictions_are_the_references(dtype):
    X, Y = data(dtype)
    models = [
        m.MLP(SIZES, hidden=HIDDEN, layer_norm=True, dtype=dtype, seed=1) for m in (fastbp, fastbp.reference)
    ]
    for model, module in zip(models, (fastbp, fastbp.reference), strict=True):
        model.fit(X, Y, epochs=3, batch_size=16, optimizer=module.SGD(0.1), progress=False)
    mine, theirs = models
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for rows in (40, 3):  # on a plan, and in place
        np.testing.assert_allclose(mine.predict(X[:rows]), theirs.predict(X[:rows]), rtol=tolerance)
    alike = module.MLP(SIZES, hidden="gelu", layer_norm=True, dtype=dtype, seed=1)
    assert not np.allclose(alike.forward(X).a[1], theirs.forward(X).a[1], atol=1e-2)


def test_gradients(module):
    X, Y = data("float64")
    model = module.MLP(SIZES, hidden=HIDDEN, dtype="float64", seed=1)
    assert max(model.check_gradients(X, Y).errors.values()) < 1e-6


def test_files_pickles_and_init(tmp_path, module):
    model = module.MLP(SIZES, hidden=tuple(HIDDEN), seed=1)
    model.save(tmp_path / "model.fastbp")
    for twin in (module.MLP.load(tmp_path / "model.fastbp"), pickle.loads(pickle.dumps(model))):
        assert twin.architecture.activation_names == [*HIDDEN, "sigmoid"]
        assert "hidden=['gelu', 'relu', 'tanh']" in repr(twin)
    X, _ = data("float32")
    assert np.array_equal(twin.predict(X), model.predict(X))


def test_what_does_not_fit_is_refused(module):
    with pytest.raises(
        ValueError, match=r"hidden has 1 names, layer_sizes \[2, 3, 3, 1\] has 2 hidden layers"
    ):
        module.MLP([2, 3, 3, 1], hidden=["relu"])
    with pytest.raises(ValueError, match="unknown hidden 'rely'"):
        module.MLP([2, 3, 1], hidden=["rely"])
    with pytest.raises(ValueError, match="hidden='softmax' is not supported"):
        module.MLP([2, 3, 1], hidden=["softmax"])
    with pytest.raises(TypeError, match="hidden must be a name"):
        module.MLP([2, 3, 1], hidden=3)
