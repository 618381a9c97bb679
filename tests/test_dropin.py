"""The drop-in functions: the same tests over fastbp and fastbp.reference.

What is right is computed here once more, in float64 and with nothing but NumPy, so that the reference is
judged as well.
"""

import inspect
from fractions import Fraction

import numpy as np
import pytest
from two_layer_cases import FUNCTIONS, SHAPES, assert_close, expected_step, network, terms

import fastbp
import fastbp.reference

# ---- signatures and results ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_same_signature(name):
    assert inspect.signature(getattr(fastbp, name)) == inspect.signature(getattr(fastbp.reference, name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward(module, dtype, shape):
    X, y_true, params = network(shape, dtype)
    expected, _, _ = expected_step(X, y_true, params)
    actual = module.forward(X, *params)
    for name, a, e in zip(["z1", "a1", "z2", "y_pred"], actual, expected, strict=True):
        assert a.dtype == dtype
        assert_close(a, e, terms(shape), name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(module, dtype, shape):
    X, y_true, params = network(shape, dtype)
    _, expected, _ = expected_step(X, y_true, params)
    z1, a1, _z2, y_pred = module.forward(X, *params)
    actual = module.backward(X, y_true, z1, a1, y_pred, params[2])
    for name, a, e in zip(["dW1", "db1", "dW2", "db2"], actual, expected, strict=True):
        assert a.dtype == dtype
        assert_close(a, e, terms(shape), name)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_train_step(module, dtype, shape):
    X, y_true, params = network(shape, dtype)
    _, grads, expected_loss = expected_step(X, y_true, params)
    before = [p.copy() for p in params]
    loss = module.train_step(X, y_true, *params, 0.5)
    assert type(loss) is float
    assert loss == pytest.approx(expected_loss, rel=8 * terms(shape) * float(np.finfo(dtype).eps))
    for p, b, g in zip(params, before, grads, strict=True):
        assert p.dtype == dtype
        assert_close(p, b - 0.5 * g, terms(shape))


def test_a_wrong_result_is_rejected(dtype):
    """A test of the tests: a gradient that is wrong by a thousandth in one place does not pass."""
    shape = (32, 64, 130, 10)
    X, y_true, params = network(shape, dtype)
    _, (dW1, *_), _ = expected_step(X, y_true, params)
    wrong = dW1.astype(dtype)
    wrong[5, 7] += 1e-2 * np.max(np.abs(dW1))
    with pytest.raises(AssertionError, match="largest error"):
        assert_close(wrong, dW1, terms(shape))


def test_modules_agree_over_many_steps(dtype):
    X, y_true, params = network((64, 5, 9, 2), dtype)
    ours, theirs = [p.copy() for p in params], [p.copy() for p in params]
    for start in list(range(0, 64, 10)) * 5:  # the last batch is smaller
        batch = slice(start, start + 10)
        loss = fastbp.train_step(X[batch], y_true[batch], *ours, 0.1)
        assert loss == pytest.approx(
            fastbp.reference.train_step(X[batch], y_true[batch], *theirs, 0.1), rel=1e-4
        )
    for ours_p, theirs_p in zip(ours, theirs, strict=True):
        assert_close(ours_p, theirs_p, 35 * 10)


def test_sgd_update_is_in_place_and_exact(module, dtype):
    param = np.array([[1.0, 2.0], [3.0, 4.0]], dtype)
    scalar_like = np.array(1.5, dtype)
    same, same_scalar = param, scalar_like
    result = module.sgd_update([param, scalar_like], [np.ones((2, 2), dtype), np.array(1, dtype)], 0.5)
    assert result is None
    assert np.array_equal(same, [[0.5, 1.5], [2.5, 3.5]])
    assert same_scalar == 1.0


def test_learning_rate_zero_changes_nothing(module, dtype):
    X, y_true, params = network((4, 2, 3, 1), dtype)
    before = [p.copy() for p in params]
    module.train_step(X, y_true, *params, 0)
    assert all(np.array_equal(p, b) for p, b in zip(params, before, strict=True))


# ---- sigmoid ------------------------------------------------------------------------------------------


def test_sigmoid_is_stable_and_accurate(module, dtype):
    """|z| up to 1e4 without a warning (pytest makes them errors), against exp in exact arithmetic's reach."""
    z = np.concatenate([[-1e4, -1e3, -104.0, -88.0, -0.0, 0.0, 88.0, 1e3, 1e4], np.linspace(-40, 40, 801)])
    z = z.astype(dtype)
    one, zero = np.ones((1, 1), dtype), np.zeros(1, dtype)
    # a1 = z + 1e4 through the ReLU would round; two hidden units carry max(0, z) and max(0, -z) instead
    W1, W2 = np.array([[1, -1]], dtype), np.array([[1], [-1]], dtype)
    _, _, z2, y = module.forward(z[:, None], W1, np.zeros(2, dtype), W2, zero)
    assert np.array_equal(z2[:, 0], z)
    exact = np.array(
        [
            float(1 / (1 + Fraction(np.exp(-v))))
            if v >= 0
            else float(Fraction(np.exp(v)) / (1 + Fraction(np.exp(v))))
            for v in z.astype(np.float64)
        ]
    )
    tiny = np.finfo(dtype).tiny
    assert np.all(np.abs(y[:, 0] - exact) <= 4 * np.finfo(dtype).eps * exact + tiny)
    assert y[0, 0] == 0.0
    assert y[8, 0] == 1.0
    dW1, db1, dW2, db2 = module.backward(
        z[:, None], y, *module.forward(z[:, None], W1, np.zeros(2, dtype), W2, zero)[:2], y, W2
    )
    assert all(np.isfinite(g).all() for g in (dW1, db1, dW2, db2, one))
