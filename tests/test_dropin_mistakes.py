"""The two-layer functions name the usual mistakes: what is transposed, not summed, or all zero."""

from __future__ import annotations

import re
import warnings
from types import ModuleType

import numpy as np
import pytest

rng = np.random.default_rng(5)
X, Y = rng.standard_normal((6, 4)), rng.random((6, 2))


def parameters(dtype: np.dtype | str = "float64") -> list[np.ndarray]:
    shapes = (4, 8), (8,), (8, 2), (2,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


# C-ordered arrays go straight to compiled code, others through Python's checks.
ORDERS = pytest.mark.parametrize("order", ["C", "F"])


@ORDERS
def test_a_transposed_matrix_is_named(module: ModuleType, order: str) -> None:
    W1, b1, W2, b2 = parameters()
    turned1, turned2 = np.array(W1.T, order=order), np.array(W2.T, order=order)
    first = "W1 is (8, 4): it must be (inputs, hidden) = (4, 8); transposed?"
    with pytest.raises(ValueError, match=re.escape(first)):
        module.forward(X, turned1, b1, W2, b2)
    with pytest.raises(ValueError, match=re.escape(first)):
        module.train_step(X, Y, turned1, b1, W2, b2, 0.1)
    with pytest.raises(ValueError, match=re.escape(first)):
        module.forward(X, turned1, b1, turned2, b2)  # both: the first is named
    with pytest.raises(ValueError, match=re.escape("W2 is (2, 8): it must be (hidden, outputs) = (8, 2)")):
        module.forward(X, W1, b1, turned2, b2)


def test_a_bias_with_two_dimensions(module: ModuleType) -> None:
    W1, b1, W2, b2 = parameters()
    for row in (b1[None], b1[:, None]):
        with pytest.raises(ValueError, match=r"b1 must be \(8,\); b1.reshape\(-1\) makes it so"):
            module.forward(X, W1, row, W2, b2)
    with pytest.raises(ValueError, match=r"b2 must be \(2,\); b2.reshape\(-1\) makes it so"):
        module.train_step(X, Y, W1, b1, W2, b2[None].copy(), 0.1)
    with pytest.raises(ValueError, match=r"b1 must be \(8,\)$"):
        module.forward(X, W1, b1[:7], W2, b2)


def test_a_gradient_that_is_not_summed_or_transposed(module: ModuleType) -> None:
    W1, b1, _, _ = parameters()
    for grad in (np.ones((6, 8)), np.ones((1, 8))):
        with pytest.raises(
            ValueError, match=re.escape("they must be equal; sum over the batch: sum(axis=0)")
        ):
            module.sgd_update([W1, b1], [W1, grad], 0.1)
    with pytest.raises(
        ValueError, match=re.escape("(8, 4), params[0] has (4, 8): they must be equal; transposed?")
    ):
        module.sgd_update([W1, b1], [W1.T, b1], 0.1)
    with pytest.raises(ValueError, match=r"they must be equal$"):
        module.sgd_update([W1, b1], [W1[:3], b1], 0.1)


@ORDERS
def test_backward_refuses_what_forward_cannot_return(module: ModuleType, dtype: np.dtype, order: str) -> None:
    params = parameters(dtype)
    x, y = X.astype(dtype), Y.astype(dtype)
    z1, a1, z2, y_pred = (np.array(r, order=order) for r in module.forward(x, *params))
    module.backward(x, y, z1, a1, y_pred, params[2])
    z2[0, 1] = -1.5
    with pytest.raises(ValueError, match=r"y_pred\[0, 1\] is -1.5, outside \[0, 1\].*not z2 itself") as error:
        z2[0, 0] = 0.5
        module.backward(x, y, z1, a1, z2, params[2])
    j = int(np.flatnonzero(z1[0] < 0)[0])
    with pytest.raises(ValueError, match=rf"a1\[0, {j}\] is -.*, but max\(0, z1\[0, {j}\]\) is 0: "):
        module.backward(x, y, z1, z1, y_pred, params[2])
    with pytest.raises(ValueError, match="what forward returned for this X"):
        module.backward(x, y, a1 + 1, a1, y_pred, params[2])
    # Whoever knows better says so.
    skipped = module.backward(x, y, z1, z1, y_pred, params[2], check_finite=False)
    assert "check_finite=False skips" in str(error.value) and len(skipped) == 4


def test_backward_takes_what_forward_returns_at_the_ends(module: ModuleType, dtype: np.dtype) -> None:
    """Saturated outputs, units that are all off, results that overflowed to NaN: all of that may be."""
    params = [1e4 * p for p in parameters(dtype)]
    x, y = X.astype(dtype), Y.astype(dtype)
    z1, a1, _, y_pred = module.forward(x, *params)
    assert ((y_pred == 0) | (y_pred == 1)).any()
    module.backward(x, y, z1, a1, y_pred, params[2])
    nan = np.full_like(z1, np.nan)
    gradients = module.backward(x, y, nan, nan, np.full_like(y_pred, np.nan), params[2])
    assert np.isnan(gradients[2]).all()


# ---- weights that are all zero ---------------------------------------------------------------------------


@ORDERS
def test_all_weights_zero_are_warned_about(module: ModuleType, order: str) -> None:
    W1, b1, W2, b2 = (np.zeros_like(p, order=order) for p in parameters())
    with pytest.warns(UserWarning, match="W1 and W2 are all zero: .*symmetry.*random weights") as caught:
        loss = module.train_step(X, Y, W1, b1, W2, b2, 0.1)
    assert caught[0].filename == __file__
    assert loss == pytest.approx(0.5 * np.sum((0.5 - Y) ** 2))
    assert b2.any() and not W1.any() and not W2.any()  # the step was done
    with pytest.warns(UserWarning, match="matrices of params are all zero") as caught:
        module.sgd_update((W1, b1, W2, b2), (W1, b1, W2, b2), 0.1)
    assert caught[0].filename == __file__


def test_a_loop_warns_once(module: ModuleType) -> None:
    params = [np.zeros_like(p) for p in parameters()]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")  # Python's own: once for a line of code
        for _ in range(5):
            module.train_step(X, Y, *params, 0.1)
    assert len(caught) == 1


def test_no_warning_where_something_can_be_learned(module: ModuleType) -> None:
    W1, b1, W2, b2 = parameters()
    zero = np.zeros_like
    last_only = np.zeros_like(W1)
    last_only[-1, -1] = 1e-3
    module.train_step(X, Y, W1.copy(), b1, zero(W2), b2, 0.1)
    module.train_step(X, Y, last_only, b1, zero(W2), b2, 0.1)
    module.sgd_update([zero(W1)], [W1], 0.1)  # a single layer may start at zero: there is no symmetry in it
    module.sgd_update([zero(b1), zero(b2)], [b1, b2], 0.1)
    module.train_step(X, Y, zero(W1), zero(b1), zero(W2), zero(b2), 0.1, check_finite=False)
