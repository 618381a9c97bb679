"""Losses: their formulas, PyTorch where it is installed, large errors, and targets that are refused."""

import re

import numpy as np
import pytest
from definitions import LOSS_NAMES as NAMES
from definitions import LOSSES as DEFINED
from definitions import kind_and_number, loss_terms, outputs_for, smoothed, targets

import fastbp
from fastbp.losses import get


def model_and_data(module, loss, dtype="float64", outputs=3):
    rng = np.random.default_rng(0)
    output, outputs = get(loss).output or "identity", outputs_for(loss, outputs)
    model = module.MLP([4, 6, outputs], hidden="tanh", output=output, loss=loss, dtype=dtype, seed=0)
    return model, rng.standard_normal((11, 4)), targets(loss, rng.random((11, outputs)))


@pytest.mark.parametrize("loss", NAMES)
def test_value(module, loss, dtype):
    model, X, Y = model_and_data(module, loss, dtype)
    expected = loss_terms(loss, model.predict(X).astype(np.float64), smoothed(loss, Y))[0].sum() / len(X)
    assert model.loss(X, Y) == pytest.approx(expected, rel=20 * float(np.finfo(dtype).eps))
    assert model.train_step(X, Y, fastbp.SGD(0.0)) == pytest.approx(
        expected, rel=20 * float(np.finfo(dtype).eps)
    )


@pytest.mark.parametrize("loss", NAMES)
def test_like_torch(module, loss):
    """Value and gradient; sums over outputs, means over samples. PyTorch's mse has no 1/2."""
    torch = pytest.importorskip("torch")
    model, X, Y = model_and_data(module, loss)
    trace = model.forward(X)
    z, y = torch.tensor(trace.z[-1], requires_grad=True), torch.tensor(Y)
    kind, number = kind_and_number(loss)
    value = DEFINED[kind].torch(torch, z, y, number) / len(X)
    value.backward()
    assert model.loss(X, Y) == pytest.approx(value.item(), rel=1e-13)
    gradient = model.backward(trace, Y).biases[-1]
    np.testing.assert_allclose(gradient, z.grad.numpy().sum(axis=0), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("loss", [name for name in NAMES if get(name).output != "exp"])
def test_large_outputs(module, loss, dtype):
    """Predictions of ±1e4: the right loss, finite gradients, no warning (they are errors here)."""
    model, X, Y = model_and_data(module, loss, dtype)
    model.weights[0][...], model.weights[1][...] = 10, 2e3
    trace = model.forward(X)
    assert np.abs(trace.z[-1]).min() > 1e3
    if not get(loss).output:
        expected = loss_terms(loss, trace.y_pred.astype(np.float64), Y)[0].sum() / len(X)
        assert model.loss(X, Y) == pytest.approx(expected, rel=1e-5)
    gradients = model.backward(trace, Y)
    assert all(np.isfinite(g).all() for g in (*gradients.weights, *gradients.biases))


def test_training_stops_at_nan(module):
    for loss in NAMES:
        model, X, Y = model_and_data(module, loss)
        X[3, 1] = np.nan
        with pytest.raises(FloatingPointError, match="the loss became nan"):
            model.fit(X, Y, epochs=1, optimizer=fastbp.SGD(0.1), check_finite=False)


@pytest.mark.parametrize("loss", NAMES)
def test_files_and_names(loss, tmp_path):
    model, X, Y = model_and_data(fastbp, loss)
    model.save(tmp_path / "m")
    again = fastbp.MLP.load(tmp_path / "m")
    assert again.architecture.loss.name == model.architecture.loss.name == loss
    assert again.loss(X, Y) == model.loss(X, Y)
    assert eval(repr(model), {"MLP": fastbp.MLP}).architecture.loss.name == loss


@pytest.mark.parametrize("name", ["huber()", "huber(0)", "huber(-1)", "huber(nan)", "huber(inf)", "huber(x)"])
def test_hubers_number(module, name):
    with pytest.raises(ValueError, match=re.escape(f"loss is {name!r}, expected a number above 0")):
        module.MLP([1, 1], loss=name)


@pytest.mark.parametrize("outputs", [1, 3, 17])
def test_counts(module, dtype, outputs):
    """Poisson's loss where targets are 0, and where exp(z) is 0, infinite, or as large as a count."""
    rng = np.random.default_rng(2)
    Y = rng.choice([0, 0, 1, 2, 1000, 0.25], (29, outputs)).astype(dtype)
    model = module.MLP([4, 6, outputs], output="exp", loss="poisson", dtype=dtype, seed=0)
    X = rng.standard_normal((29, 4))
    z = model.forward(X).z[-1].astype(np.float64)
    logs = np.log(Y, out=np.zeros_like(z), where=Y > 0)
    expected = (np.exp(z) - Y + Y * (logs - z)).sum() / len(X)
    tolerance = {"rel": 50 * float(np.finfo(dtype).eps)}
    assert model.loss(X, Y) == pytest.approx(expected, **tolerance)
    assert model.train_step(X, Y, fastbp.SGD(0.0)) == pytest.approx(expected, **tolerance)
    assert model.check_gradients(X, Y).passed
    for bias, loss in ((-1e4, Y.sum() * 1e4), (1e4, np.inf)):
        model.weights[-1][...], model.biases[-1][...] = 0, bias
        found = model.train_step(X, Y, fastbp.SGD(0.0)) if bias < 0 else model.loss(X, Y)
        assert found == pytest.approx(loss / len(X), rel=1e-2)


def test_a_model_of_counts_learns(module):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    Y = rng.poisson(np.exp(X[:, 0] + 0.5 * X[:, 1]))
    model = module.MLP([3, 16, 1], hidden="tanh", output="exp", loss="poisson", seed=0)
    history = model.fit(X, Y, epochs=30, optimizer=module.Adam(0.01))
    assert history.loss[-1] < 0.7 * history.loss[0]
    with pytest.raises(ValueError, match="Y holds -1, loss='poisson' needs targets of at least 0"):
        model.fit(X, Y - 1, epochs=1, optimizer=module.SGD(0.1))


def test_refused(module):
    with pytest.raises(ValueError, match="unknown loss 'mea', expected one of 'mse', 'mae', 'huber'"):
        module.MLP([1, 1], loss="mea")
    with pytest.raises(ValueError, match="Y holds 0, loss='hinge' needs targets -1 and 1"):
        module.MLP([1, 1], loss="hinge").loss([[1.0], [2.0]], [[1.0], [0.0]])
