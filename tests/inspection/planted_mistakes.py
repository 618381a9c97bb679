"""Backward functions of the tutorial's network with a mistake in each, and the data to try them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastbp.activations import sigmoid

_rng = np.random.default_rng(3)
X = _rng.standard_normal((6, 4))
Y = _rng.random((6, 5))
# As many hidden units as outputs: nothing can be told from the shape of W2, or of its gradient.
PARAMS = [
    _rng.standard_normal((4, 5)),
    0.1 * _rng.standard_normal(5),
    _rng.standard_normal((5, 5)),
    0.1 * _rng.standard_normal(5),
]
Gradients = tuple[Any, ...]


def output_error(y_pred: np.ndarray, y_true: np.ndarray) -> np.ndarray:
    return (y_pred - y_true) * y_pred * (1 - y_pred)


def gradients(X: np.ndarray, a1: np.ndarray, dz1: np.ndarray, dz2: np.ndarray) -> Gradients:
    """What follows from the two error terms, without a mistake."""
    return X.T @ dz1, dz1.sum(axis=0), a1.T @ dz2, dz2.sum(axis=0)


# ---- the mistakes; the name of each is what it leaves out or does wrong ----------------------------------


def no_hidden_derivative(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, a1, dz2 @ W2.T, dz2)


def no_output_derivative(X, y_true, z1, a1, y_pred, W2):
    dz2 = y_pred - y_true
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def sigmoid_applied_twice(X, y_true, z1, a1, y_pred, W2):
    s = sigmoid(y_pred)
    dz2 = (y_pred - y_true) * s * (1 - s)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def derivative_written_with_z(X, y_true, z1, a1, z2, y_pred, W2):
    dz2 = (y_pred - y_true) * z2 * (1 - z2)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def half_of_the_sigmoid_derivative(X, y_true, z1, a1, y_pred, W2):
    dz2 = (y_pred - y_true) * y_pred
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def relu_value_for_its_derivative(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, a1, (dz2 @ W2.T) * np.maximum(0, z1), dz2)


def relu_the_wrong_way_round(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 <= 0), dz2)


def bias_not_summed(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1, a1.T @ dz2, dz2


def bias_summed_over_units(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1.sum(axis=1), a1.T @ dz2, dz2.sum(axis=0)


def bias_summed_over_everything(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1.sum(axis=0), a1.T @ dz2, dz2.sum()


def bias_with_keepdims(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1.sum(axis=0, keepdims=True), a1.T @ dz2, dz2.sum(axis=0)


def bias_averaged(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1.mean(axis=0), a1.T @ dz2, dz2.mean(axis=0)


def divided_by_the_batch_size(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true) / len(X)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def gradient_of_np_mean(X, y_true, z1, a1, y_pred, W2):
    dz2 = 2 * output_error(y_pred, y_true) / y_true.size
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def factor_two(X, y_true, z1, a1, y_pred, W2):
    dz2 = 2 * output_error(y_pred, y_true)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def wrong_sign(X, y_true, z1, a1, y_pred, W2):
    dz2 = (y_true - y_pred) * y_pred * (1 - y_pred)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def weights_not_transposed(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, a1, (dz2 @ W2) * (z1 > 0), dz2)


def gradient_transposed(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return (X.T @ dz1).T, dz1.sum(axis=0), dz2.T @ a1, dz2.sum(axis=0)


def weights_after_their_update(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    W2 = W2 - 0.3 * a1.T @ dz2
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def weights_updated_in_place(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dW2 = a1.T @ dz2
    W2 -= 0.1 * dW2
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


def made_from_z(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, z1, (dz2 @ W2.T) * (z1 > 0), dz2)


def in_another_order(X, y_true, z1, a1, y_pred, W2):
    dW1, db1, dW2, db2 = no_mistake(X, y_true, z1, a1, y_pred, W2)
    return dW1, db2, dW2, db1


def last_row_only(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, dz1[-1], a1.T @ dz2, dz2[-1]


def forgotten(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    return X.T @ dz1, np.zeros(z1.shape[1]), a1.T @ dz2, dz2.sum(axis=0)


def no_mistake(X, y_true, z1, a1, y_pred, W2):
    dz2 = output_error(y_pred, y_true)
    return gradients(X, a1, (dz2 @ W2.T) * (z1 > 0), dz2)


MISTAKES: list[tuple[Callable[..., Gradients], str, str]] = [
    (
        no_hidden_derivative,
        "dW1 db1",
        r"derivative of the activation missing: dz1 = \(dz2 @ W2.T\) \* \(z1 > 0\)",
    ),
    (no_output_derivative, "dW1 db1 dW2 db2", "derivative of the output's activation missing"),
    (sigmoid_applied_twice, "dW1 db1 dW2 db2", "sigmoid applied twice"),
    (derivative_written_with_z, "dW1 db1 dW2 db2", "written with z instead of its value"),
    (half_of_the_sigmoid_derivative, "dW1 db1 dW2 db2", "without the factor 1 - a"),
    (relu_value_for_its_derivative, "dW1 db1", "the ReLU's value instead of its derivative"),
    (relu_the_wrong_way_round, "dW1 db1", "the wrong way round"),
    (bias_not_summed, "db1 db2", r"not summed over the batch: sum\(axis=0\)"),
    (bias_summed_over_units, "db1", "summed over the units"),
    (bias_summed_over_everything, "db2", "summed over batch and units"),
    (bias_with_keepdims, "db1", "keepdims"),
    (bias_averaged, "db1 db2", "divided by the batch size"),
    (divided_by_the_batch_size, "dW1 db1 dW2 db2", "divided by the batch size, but the loss is not"),
    (gradient_of_np_mean, "dW1 db1 dW2 db2", "the gradient of the mean of squares"),
    (factor_two, "dW1 db1 dW2 db2", "twice as large"),
    (wrong_sign, "dW1 db1 dW2 db2", "of the wrong sign"),
    (weights_not_transposed, "dW1 db1", "W2 not transposed"),
    (gradient_transposed, "dW1 dW2", "transposed"),
    (weights_after_their_update, "dW1 db1", r"W2 was used after its update \(a step with lr 0.3\)"),
    (weights_updated_in_place, "dW1 db1", r"W2 was used after its update \(a step with lr 0.1\)"),
    (made_from_z, "dW2", "made from z, before the activation"),
    (in_another_order, "db1 db2", "this is the gradient of b"),
    (last_row_only, "db1 db2", "of the last row only"),
    (forgotten, "db1", "zero everywhere"),
]
