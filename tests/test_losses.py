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


@pytest.mark.parametrize("loss", NAMES)
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


def test_refused(module):
    with pytest.raises(ValueError, match="unknown loss 'mea', expected one of 'mse', 'mae', 'huber'"):
        module.MLP([1, 1], loss="mea")
    with pytest.raises(ValueError, match="Y holds 0, loss='hinge' needs targets -1 and 1"):
        module.MLP([1, 1], loss="hinge").loss([[1.0], [2.0]], [[1.0], [0.0]])
