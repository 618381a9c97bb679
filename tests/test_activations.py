"""Every activation: NumPy and vector code against the definition, and PyTorch where it is installed."""

import re

import numpy as np
import pytest
from definitions import DEFINITIONS

import fastbp
from fastbp.activations import ACTIVATIONS


def computed(module, name, z, dtype):
    """a, and da/dz of each element, through a network of one unit with weight 1 and a sum of squares."""
    model = module.MLP([1, 1], output=name, loss="mse", reduction="sum", init="he", dtype=dtype)
    model.weights[0][...] = 1
    z = np.asarray(z, dtype)
    a = model.predict(z[:, None])[:, 0]
    slopes = []
    for x, y in zip(z, a, strict=True):
        target = dtype.type(y - 1 if abs(y) < 100 else 0)  # so that the error y - target is not small
        slopes.append(model.backward(model.forward([[x]]), [[target]]).biases[0][0] / (y - target))
    return a, np.array(slopes)


def points():
    return np.concatenate([np.linspace(-12, 12, 97), [-1e-3, -1e-30, 1e-30, 1e-3, -25.5, 25.5, -80, 80]])


def assert_close(actual, expected, dtype):
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(actual, expected, rtol=40 * eps, atol=8 * eps)


def test_each_is_tested():
    assert set(DEFINITIONS) == {*ACTIVATIONS, "exp"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_value_and_derivative(module, name, dtype):
    z = points().astype(dtype)
    a, slopes = computed(module, name, z, dtype)
    exact = z.astype(np.float64)
    assert a.dtype == dtype
    assert_close(a, DEFINITIONS[name].value(exact), dtype)
    assert_close(slopes, DEFINITIONS[name].slope(exact), dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivative_is_that_of_the_value(name):
    """The definitions themselves, by central differences."""
    z = points()
    z = z[np.abs(z) > 1e-2]
    h = 1e-5
    value, slope, bend = DEFINITIONS[name].value, DEFINITIONS[name].slope, DEFINITIONS[name].bend
    np.testing.assert_allclose((value(z + h) - value(z - h)) / (2 * h), slope(z), rtol=1e-7, atol=1e-8)
    if name not in ("elu", "selu"):
        np.testing.assert_allclose((slope(z + h) - slope(z - h)) / (2 * h), bend(z), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_like_torch(module, name, dtype):
    torch = pytest.importorskip("torch")
    z = torch.tensor(points().astype(dtype), requires_grad=True)
    functional, theirs = torch.nn.functional, DEFINITIONS[name].torch
    value = theirs(functional, z) if theirs else getattr(functional, name)(z)
    value.sum().backward()
    a, slopes = computed(module, name, z.detach().numpy(), dtype)
    # PyTorch's gelu is 1 + erf, which cancels in the left tail: right to eps times |z|
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(a, value.detach().numpy(), rtol=40 * eps, atol=16 * eps)
    np.testing.assert_allclose(slopes, z.grad.numpy(), rtol=40 * eps, atol=16 * eps)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_range(name):
    """What is said of its values holds, and no more than that is said; inf where there is no bound."""
    activation = ACTIVATIONS[name]
    values = activation.value(np.linspace(-60, 60, 240_001)[:, None])
    for bound, extreme, outwards in ((activation.low, values.min(), -1), (activation.high, values.max(), 1)):
        if np.isinf(bound):
            assert abs(extreme) > 0.5
        else:
            assert outwards * (extreme - bound) <= 0
            assert abs(extreme - bound) < 1e-6


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nothing_overflows(module, name, dtype):
    """|z| up to 1e4: warnings are errors here, results finite and at the function's limits."""
    z = np.array([-1e4, -1e3, -100, 100, 1e3, 1e4])
    a, slopes = computed(module, name, z, dtype)
    assert np.isfinite(a).all()
    assert np.isfinite(slopes).all()
    left, right = DEFINITIONS[name].slopes
    np.testing.assert_allclose(slopes[:3], left, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(slopes[3:], right, rtol=1e-6, atol=1e-30)
    if left == 0:
        np.testing.assert_allclose(a[:3], DEFINITIONS[name].left, rtol=1e-6, atol=1e-30)
    if right == 1:
        np.testing.assert_allclose(a[3:], z[3:], rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(module, name, dtype):
    for sizes in ([1, 1], [1, 3, 1]):
        model = module.MLP(sizes, hidden=name, output=name, dtype=dtype, seed=0)
        trace = model.forward([[np.nan], [0.5]], check_finite=False)
        assert all(np.isnan(a[0]).all() and np.isfinite(a[1]).all() for a in trace.a)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("depth", [1, 3])
def test_training_agrees_with_the_reference(name, depth, dtype):
    """Whole epochs: thin and wide output layers, and steps that keep z apart from a or do not."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((26, 5))
    for outputs in (2, 17):
        Y = rng.random((26, outputs))
        trained = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP([5, *[19] * depth, outputs], hidden=name, output="tanh", dtype=dtype, seed=1)
            history = model.fit(X, Y, epochs=4, batch_size=8, optimizer=fastbp.SGD(0.01), shuffle=False)
            trained.append((model.parameters.flat, history.loss))
        for ours, theirs in zip(*trained, strict=True):
            np.testing.assert_allclose(
                ours, theirs, rtol=64 * np.finfo(dtype).eps, atol=64 * np.finfo(dtype).eps
            )


def test_unknown_names_list_the_known(module):
    with pytest.raises(ValueError, match=re.escape("unknown hidden 'gelu_erf', expected one of 'gelu'")):
        module.MLP([1, 1, 1], hidden="gelu_erf")
