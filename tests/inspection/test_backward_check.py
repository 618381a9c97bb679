"""check_backward: mistakes that people make, each planted, each named; and right functions that pass."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from planted_mistakes import (
    MISTAKES,
    PARAMS,
    Gradients,
    X,
    Y,
    no_hidden_derivative,
    no_mistake,
    weights_updated_in_place,
)

import fastbp
import fastbp.reference as reference

rng = np.random.default_rng(4)


@pytest.mark.parametrize(("backward", "arrays", "reason"), MISTAKES, ids=[m[0].__name__ for m in MISTAKES])
def test_a_planted_mistake_is_named(backward: Callable[..., Gradients], arrays: str, reason: str) -> None:
    check = fastbp.check_backward(reference.forward, backward, X, Y, PARAMS)
    assert not check.passed
    assert check.wrong == arrays.split()
    for array in check.arrays:
        if not array.passed:
            (first, *_) = array.mistakes
            assert re.search(reason, first), first
            assert f"{array.name}: {first}" in str(check)


def test_there_are_at_least_twenty_mistakes() -> None:
    assert len({function.__name__ for function, _, _ in MISTAKES}) >= 20


def test_a_change_of_its_arguments_is_named() -> None:
    check = fastbp.check_backward(reference.forward, weights_updated_in_place, X, Y, PARAMS)
    assert check.notes == ["backward changes W2 in place: it must leave its arguments as they are"]


# ---- what is right passes, and is seen to be right ------------------------------------------------------


def test_right_functions_pass(module: ModuleType) -> None:
    before = [p.copy() for p in (X, Y, *PARAMS)]
    check = module.check_backward(module.forward, module.backward, X, Y, PARAMS)
    assert check.passed and check.wrong == []
    assert str(check).endswith("passed")
    assert max(array.error for array in check.arrays) < 1e-7
    assert all(map(np.array_equal, before, (X, Y, *PARAMS)))
    assert module.check_backward(module.forward, no_mistake, X, Y, PARAMS).passed


def test_at_a_kink_and_with_weights_of_zero(module: ModuleType) -> None:
    xor = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])  # its first row is on the kink of every unit
    target = np.array([[0.0], [1], [1], [0]])
    for W1, W2 in (
        (rng.standard_normal((2, 8)), rng.standard_normal((8, 1))),
        (np.zeros((2, 8)), np.zeros((8, 1))),
    ):
        params = (W1, np.zeros(8), W2, np.zeros(1))
        assert module.check_backward(module.forward, module.backward, xor, target, params).passed
        assert module.check_backward(module.forward, no_hidden_derivative, xor, target, params).wrong == [
            "dW1",
            "db1",
        ]


def forward_of_three(X, W1, b1, W2, b2, W3, b3):
    z1 = X @ W1 + b1
    a1 = np.tanh(z1)
    z2 = a1 @ W2 + b2
    a2 = np.maximum(0, z2)
    z3 = a2 @ W3 + b3
    return z1, a1, z2, a2, z3, z3


def backward_of_three(X, y, results, params, *, tanh_derivative=True, batch=1):
    _, a1, z2, a2, _, y_pred = results
    _, _, W2, _, W3, _ = params
    dz3 = (y_pred - y) / batch
    dz2 = (dz3 @ W3.T) * (z2 > 0)
    dz1 = dz2 @ W2.T
    if tanh_derivative:
        dz1 = dz1 * (1 - a1**2)
    return [X.T @ dz1, dz1.sum(0), a1.T @ dz2, dz2.sum(0), a2.T @ dz3, dz3.sum(0)]


def params_of_three() -> list[np.ndarray]:
    sizes = (4, 7, 6, 5)
    return [
        array
        for fan_in, fan_out in itertools.pairwise(sizes)
        for array in (rng.standard_normal((fan_in, fan_out)), rng.standard_normal(fan_out))
    ]


def test_a_network_of_three_layers_and_a_loss_of_ones_own() -> None:
    params = params_of_three()
    assert fastbp.check_backward(forward_of_three, backward_of_three, X, Y, params).passed

    def without(X, y, results, params):
        return backward_of_three(X, y, results, params, tanh_derivative=False)

    check = fastbp.check_backward(forward_of_three, without, X, Y, params)
    assert check.wrong == ["dW1", "db1"]
    assert check.arrays[0].mistakes[0] == (
        "derivative of the activation missing: dz1 = (dz2 @ W2.T) * (1 - a1**2)"
    )

    def mean(y_pred: np.ndarray, y_true: np.ndarray) -> float:
        return float(0.5 * np.sum((y_pred - y_true) ** 2) / len(y_true))

    def divided(X, y, results, params):
        return backward_of_three(X, y, results, params, batch=len(X))

    assert fastbp.check_backward(forward_of_three, divided, X, Y, params, loss=mean).passed
    check = fastbp.check_backward(forward_of_three, backward_of_three, X, Y, params, loss=mean)
    assert len(check.wrong) == 6
    assert "not divided by the batch size, but the loss is a mean over the batch" in str(check)


def test_parameters_in_one_list_and_results_of_unknown_layers() -> None:
    labels = np.eye(5)[[0, 1, 2, 3, 4, 0]]

    def forward(X, params):
        W, b = params
        e = np.exp(X @ W + b)
        return e / e.sum(axis=1, keepdims=True)

    def cross_entropy(y_pred, y_true):
        return -float(np.sum(y_true * np.log(y_pred)))

    def backward(X, y_true, y_pred):
        dz = y_pred - y_true
        return X.T @ dz, dz.sum(axis=0)

    def mistaken(X, y_true, y_pred):
        dz = y_pred - y_true
        return X.T @ dz, (y_pred * y_true).sum(axis=0)

    params = PARAMS[:2]
    assert fastbp.check_backward(forward, backward, X, labels, params, loss=cross_entropy).passed
    check = fastbp.check_backward(forward, mistaken, X, labels, params, loss=cross_entropy)
    assert check.wrong == ["db1"]  # no reason is known, but where, and by how much
    assert re.fullmatch(r"db1\[\d\] is \S+, differences of the loss give \S+", check.arrays[1].mistakes[0])


def test_a_kink_within_the_step_is_no_mistake(module: ModuleType) -> None:
    """Many rows and units: some z1 lies within the step of the differences."""
    for seed in range(40):
        of_seed = np.random.default_rng(seed)
        X, Y = of_seed.standard_normal((39, 6)), of_seed.random((39, 6))
        W1, W2 = 0.02 * of_seed.standard_normal((6, 12)), of_seed.standard_normal((12, 6))
        params = W1, np.zeros(12), W2, np.zeros(6)
        assert module.check_backward(module.forward, module.backward, X, Y, params).passed


def test_a_gradient_that_is_zero_says_so(module: ModuleType) -> None:
    W1, _, W2, b2 = PARAMS
    dead = W1, np.full(5, -50.0), W2, b2
    check = module.check_backward(module.forward, no_hidden_derivative, X, Y, dead)
    assert check.wrong == ["dW1", "db1"]  # what comes through all the same
    check = module.check_backward(module.forward, module.backward, X, Y, dead)
    assert check.passed and [array.silent for array in check.arrays] == [True, True, True, False]
    assert str(check).count("(0 here, whatever is computed)") == 3


def test_a_large_array_is_checked_at_some_entries() -> None:
    wide = [rng.standard_normal((4, 300)), np.zeros(300), rng.standard_normal((300, 5)), np.zeros(5)]
    check = fastbp.check_backward(reference.forward, reference.backward, X, Y, wide)
    assert check.passed and check.arrays[0].entries == 400


# ---- what cannot be checked -----------------------------------------------------------------------------


def float32(X: np.ndarray, *params: np.ndarray) -> Sequence[np.ndarray]:
    return tuple(r.astype(np.float32) for r in reference.forward(X, *params))


def with_dropout(X: np.ndarray, *params: np.ndarray) -> Sequence[np.ndarray]:
    return tuple(r * rng.random(r.shape) for r in reference.forward(X, *params))


def overflowing(X: np.ndarray, *params: np.ndarray) -> np.ndarray:
    return np.full(Y.shape, np.inf)


@pytest.mark.parametrize(
    ("forward", "backward", "error", "message"),
    [
        (float32, no_mistake, ValueError, "forward returned float32 for float64 arguments"),
        (with_dropout, no_mistake, ValueError, "different results for the same arguments"),
        (overflowing, no_mistake, ValueError, "NaN or infinity"),
        (lambda X, W1, b1: X, no_mistake, TypeError, r"forward has the arguments \(X, W1, b1\)"),
        (lambda X, *p: None, no_mistake, TypeError, "forward must return y_pred"),
        (
            reference.forward,
            lambda X, hidden: X,
            TypeError,
            "an argument 'hidden', which is none of X, y_true",
        ),
        (reference.forward, lambda *given: given, TypeError, "backward must name its arguments"),
        (reference.forward, lambda X: (X, X), ValueError, r"2 values, expected .* \(dW1, db1, dW2, db2\)"),
        (reference.forward, lambda X: None, ValueError, "backward returned NoneType"),
    ],
)
def test_what_cannot_be_called_is_refused(
    forward: Callable[..., Any], backward: Callable[..., Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fastbp.check_backward(forward, backward, X, Y, PARAMS)


def test_targets_that_would_be_broadcast_are_refused() -> None:
    W1, b1, W2, b2 = PARAMS
    params = W1, b1, W2[:, :1], b2[:1]
    with pytest.raises(ValueError, match=r"y_true has shape \(6,\), .* \(6, 1\): .*y_true.reshape\(-1, 1\)"):
        fastbp.check_backward(reference.forward, no_mistake, X, Y[:, 0], params)
    with pytest.raises(ValueError, match=r"y_true has shape \(6, 5\), .* \(6, 1\): they must be equal$"):
        fastbp.check_backward(reference.forward, no_mistake, X, Y, params)


def test_none_and_nan_are_named() -> None:
    def backward(X, y_true, z1, a1, y_pred, W2):
        dW1, _, dW2, db2 = no_mistake(X, y_true, z1, a1, y_pred, W2)
        return dW1, None, dW2 * np.nan, db2

    check = fastbp.check_backward(reference.forward, backward, X, Y, PARAMS)
    assert [array.mistakes for array in check.arrays] == [[], ["is None"], ["holds NaN or infinity"], []]
