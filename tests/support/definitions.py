"""Activations as the textbooks write them, with first and second derivative, for tests to compare with.

For float64 or longdouble of moderate size: these overflow and cancel where the library's do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SCALE, ALPHA = 1.0507009873554804934, 1.6732632423543772848
C = math.sqrt(2 / math.pi)


@dataclass
class Definition:
    value: Callable
    slope: Callable
    bend: Callable  # the second derivative, or a bound of it around a kink
    jump: float = 0.0  # of the slope, at 0


def sigmoid(z):
    return 1 / (1 + np.exp(-np.maximum(z, -700)))


def normal_cdf(z):
    """1/2 erfc(-z / sqrt(2)); what the division loses in float64 is put back by erfc's derivative."""
    x = -np.asarray(z) / np.sqrt(np.longdouble(2))
    rounded = x.astype(np.float64)
    erfc = np.frompyfunc(math.erfc, 1, 1)(rounded)
    correction = 2 / np.sqrt(np.pi) * np.exp(-np.minimum(rounded**2, 1e4)) * (x - rounded)
    return ((erfc - correction) / 2).astype(np.asarray(z).dtype)


def density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gated(w, w1, w2):
    """z sigmoid(w(z)), from w and its derivatives."""

    def slope(z):
        s = sigmoid(w(z))
        return s + z * s * (1 - s) * w1(z)

    def bend(z):
        s = sigmoid(w(z))
        return s * (1 - s) * (2 * w1(z) + z * ((1 - 2 * s) * w1(z) ** 2 + w2(z)))

    return Definition(lambda z: z * sigmoid(w(z)), slope, bend)


def _exponential(scale, alpha):
    return Definition(
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(z)),
        lambda z: scale * np.where(z > 0, 1, alpha * np.exp(z)),
        lambda z: scale * alpha * np.exp(np.minimum(z, 0)),
        jump=scale * abs(alpha - 1),
    )


DEFINITIONS = {
    "relu": Definition(lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0, np.zeros_like, 1.0),
    "sigmoid": Definition(
        sigmoid,
        lambda z: sigmoid(z) * (1 - sigmoid(z)),
        lambda z: sigmoid(z) * (1 - sigmoid(z)) * (1 - 2 * sigmoid(z)),
    ),
    "tanh": Definition(
        np.tanh, lambda z: 1 - np.tanh(z) ** 2, lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2)
    ),
    "identity": Definition(lambda z: z, np.ones_like, np.zeros_like),
    "leaky_relu": Definition(
        lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1, 0.01), np.zeros_like, 0.99
    ),
    "elu": _exponential(1.0, 1.0),
    "selu": _exponential(SCALE, ALPHA),
    "gelu": Definition(
        lambda z: z * normal_cdf(z),
        lambda z: normal_cdf(z) + z * density(z),
        lambda z: (2 - z * z) * density(z),
    ),
    "gelu_tanh": _gated(
        lambda z: 2 * C * (z + 0.044715 * z**3),
        lambda z: 2 * C * (1 + 3 * 0.044715 * z**2),
        lambda z: 2 * C * 6 * 0.044715 * z,
    ),
    "silu": _gated(lambda z: z, np.ones_like, np.zeros_like),
    "softplus": Definition(lambda z: np.log1p(np.exp(z)), sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z))),
}


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_jacobian(a):
    """(rows, units, units): da[j]/dz[k] of each row."""
    return a[:, :, None] * (np.eye(a.shape[1]) - a[:, None, :])


def clipped(e, delta):
    return np.minimum(np.maximum(e, -delta), delta)


def loss_terms(name, a, y):
    """Each output's loss and its derivative with respect to a = y_pred."""
    e = a - y
    if name == "mse":
        return e**2 / 2, e
    if name == "mae":
        return np.abs(e), np.sign(e)
    if name == "hinge":
        return np.maximum(0, 1 - y * a), -y * (y * a < 1)
    if name == "binary_crossentropy":
        return -y * np.log(a) - (1 - y) * np.log(1 - a), e / (a * (1 - a))
    if name.startswith("categorical_crossentropy"):  # smoothing is part of y
        return -y * np.log(a), -y / a
    delta = 1.0 if name == "huber" else float(name.removeprefix("huber(").removesuffix(")"))
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2)), clipped(e, delta)


def targets(loss, Y):
    """Such as the loss needs, from Y in [0, 1]: itself, -1 and 1, or rows of sum 1."""
    if loss == "hinge":
        return np.where(Y < 0.5, -1, 1).astype(Y.dtype)
    return Y / Y.sum(axis=1, keepdims=True) if loss.startswith("categorical") else Y


def smoothed(loss, Y):
    """Rows of probabilities as label smoothing leaves them."""
    smoothing = float(loss.partition("(")[2].rstrip(")") or 0) if loss.startswith("categorical") else 0
    return Y * (1 - smoothing) + smoothing / Y.shape[1] if smoothing else Y
