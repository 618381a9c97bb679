"""Losses in plain NumPy: the value per sample and, right under it, the error of the output layer.

`value(z, y_pred, y_true)` is (batch,), summed over the outputs. `delta(z, y_pred, y_true, activation)` is its
derivative with respect to the output layer's pre-activation z, (batch, outputs): where nothing cancels, the
derivative with respect to y_pred goes through `activation.chain`. z, y_pred and y_true are (batch, outputs);
y_pred = activation(z).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.activations import Activation

Array = NDArray[Any]


def _held(values: Array, in_dtype: Array) -> Array:
    """(batch,): the sums of these float64 values, infinite where the network's own dtype cannot hold one.

    So float32 networks have an infinite loss from errors of 2.6e19 on, in training and wherever else it is
    computed.
    """
    total: Array = np.where(np.isinf(in_dtype), np.inf, values).sum(axis=1)
    return total


def mse(z: Array, y_pred: Array, y_true: Array) -> Array:
    """1/2 sum over outputs of (y_pred - y_true)²."""
    e = y_pred - y_true
    with np.errstate(over="ignore"):
        return 0.5 * _held(np.square(e, dtype=np.float64), 0.5 * e * e)


def mse_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """(y_pred - y_true) * activation'(z)."""
    return activation.chain(z, y_pred, y_pred - y_true)


def binary_crossentropy(z: Array, y_pred: Array, y_true: Array) -> Array:
    """Sum over outputs of -t log(y) - (1 - t) log(1 - y), y = sigmoid(z), t = y_true in [0, 1].

    Written in z it is max(0, z) - t z + log(1 + exp(-|z|)): no exp that overflows, no log(0).
    """
    z = z.astype(np.float64)
    values = np.maximum(0, z) - y_true * z + np.log1p(np.exp(-np.abs(z)))
    total: Array = values.sum(axis=1)
    return total


def binary_crossentropy_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """y_pred - y_true: the sigmoid's derivative y(1 - y) cancels against the loss's."""
    delta: Array = y_pred - y_true
    return delta


def smoothed(y_true: Array, smoothing: float) -> Array:
    """(1 - smoothing) y_true + smoothing / outputs: all classes get the same share, the true one, too.

    Label smoothing, Szegedy et al., CVPR 2016, section 7.
    """
    if not smoothing:
        return y_true
    rows: Array = y_true * y_true.dtype.type(1 - smoothing) + y_true.dtype.type(smoothing / y_true.shape[1])
    return rows


def categorical_crossentropy(z: Array, y_pred: Array, y_true: Array, smoothing: float) -> Array:
    """Sum over outputs of -t log(y), y = softmax(z), t = y_true >= 0 (smoothed), whose sum is 1 in each row.

    Written in z it is the sum of t (log(sum exp(z - m)) - (z - m)), m = the row's largest z: no exp that
    overflows, no log(0), and all terms are positive.
    """
    z = z.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    values = smoothed(y_true, smoothing) * (np.log(np.exp(z).sum(axis=1, keepdims=True)) - z)
    total: Array = values.sum(axis=1)
    return total


def categorical_crossentropy_delta(
    z: Array, y_pred: Array, y_true: Array, activation: Activation, smoothing: float
) -> Array:
    """y_pred - t: softmax's derivative cancels against the loss's, as the sum of t is 1."""
    delta: Array = y_pred - smoothed(y_true, smoothing)
    return delta


def mae(z: Array, y_pred: Array, y_true: Array) -> Array:
    """Sum over outputs of |y_pred - y_true|."""
    total: Array = np.abs(y_pred - y_true).sum(axis=1, dtype=np.float64)
    return total


def mae_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """sign(y_pred - y_true) * activation'(z); the sign of 0 is 0."""
    sign: Array = np.sign(y_pred - y_true)
    return activation.chain(z, y_pred, sign)


def mae_kinks(y_pred: Array, y_true: Array) -> list[Array]:
    """Which outputs are too high: where that changes, there is a kink."""
    return [y_pred > y_true]


def huber(z: Array, y_pred: Array, y_true: Array, delta: float) -> Array:
    """Sum over outputs of 1/2 e² where |e| <= delta, else delta (|e| - delta / 2), with e = y_pred - y_true.

    Huber, Annals of Mathematical Statistics 35 (1964) 73. With c = e within ±delta, it is c (e - c / 2).
    """

    def of(e: Array) -> Array:
        c = np.clip(e, -delta, delta)
        values: Array = c * (e - 0.5 * c)
        return values

    e = y_pred - y_true
    with np.errstate(over="ignore"):
        return _held(of(e.astype(np.float64)), of(e))


def huber_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation, delta: float) -> Array:
    """e, but not beyond ±delta, times activation'(z)."""
    c: Array = np.clip(y_pred - y_true, -delta, delta)
    return activation.chain(z, y_pred, c)


def huber_kinks(y_pred: Array, y_true: Array, delta: float) -> list[Array]:
    """Which errors are within delta: there the second derivative jumps."""
    e = y_pred - y_true
    return [e > delta, e < -delta]


def pinball(z: Array, y_pred: Array, y_true: Array, quantile: float) -> Array:
    """Sum over outputs of max(quantile u, (quantile - 1) u), with u = y_true - y_pred.

    It is least where a share `quantile` of the targets lies below y_pred. Koenker and Bassett, Econometrica
    46 (1978) 33; sklearn.metrics.mean_pinball_loss with alpha = quantile, which divides by the outputs.
    """
    u = (y_true - y_pred).astype(np.float64)
    total: Array = np.maximum(quantile * u, (quantile - 1) * u).sum(axis=1)
    return total


def pinball_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation, quantile: float) -> Array:
    """activation'(z) times 1 - quantile where y_pred is too high, -quantile where it is too low, else 0."""
    e = y_pred - y_true
    slope = np.where(e > 0, e.dtype.type(1 - quantile), np.where(e < 0, -e.dtype.type(quantile), e))
    return activation.chain(z, y_pred, slope)


def pinball_kinks(y_pred: Array, y_true: Array, quantile: float) -> list[Array]:
    """Which outputs are too high: where that changes, there is a kink."""
    return [y_pred > y_true]


def poisson(z: Array, y_pred: Array, y_true: Array) -> Array:
    """Sum over outputs of y_pred - t + t log(t / y_pred), y_pred = exp(z), t = y_true >= 0; 0 log(0) is 0.

    Half of the deviance of counts with the mean y_pred, 0 where y_pred is t: as in scikit-learn. The terms
    without y_pred are not in torch.nn.PoissonNLLLoss. log(y_pred) is z: no log(0).
    """
    log_t = np.log(np.where(y_true > 0, y_true, 1).astype(np.float64))
    total: Array = (y_pred.astype(np.float64) - y_true + y_true * (log_t - z)).sum(axis=1)
    return total


def poisson_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """y_pred - y_true: the derivative of exp cancels against the loss's."""
    delta: Array = y_pred - y_true
    return delta


def hinge(z: Array, y_pred: Array, y_true: Array) -> Array:
    """Sum over outputs of max(0, 1 - y_true * y_pred), y_true -1 or 1."""
    total: Array = np.maximum(0, 1 - y_true * y_pred).sum(axis=1, dtype=np.float64)
    return total


def hinge_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """-y_true * activation'(z) where the margin y_true * y_pred is below 1, else 0."""
    return activation.chain(z, y_pred, np.where(y_true * y_pred < 1, -y_true, 0))


def hinge_kinks(y_pred: Array, y_true: Array) -> list[Array]:
    """Which margins are below 1: where that changes, there is a kink."""
    return [y_true * y_pred < 1]


def _no_kinks(y_pred: Array, y_true: Array) -> list[Array]:
    return []


# The least variance: of a network that is sure, the loss would be infinite.
LEAST_VARIANCE = 1e-6


def gaussian(y_pred: Array) -> tuple[Array, Array]:
    """(rows, pairs) means and variances, from outputs (rows, 2 pairs) that stand in turn: mean, spread, ...

    The variance is softplus(spread) + 1e-6. Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017, section
    2.2.1.
    """
    spread = y_pred[:, 1::2]
    softplus = np.maximum(spread, 0) + np.log1p(np.exp(-np.abs(spread)))
    return y_pred[:, ::2], softplus + softplus.dtype.type(LEAST_VARIANCE)


def gaussian_nll(z: Array, y_pred: Array, y_true: Array) -> Array:
    """Sum over pairs of outputs of 1/2 (log v + (m - t)² / v), m and v as `gaussian` reads them.

    The negative log likelihood of a normal distribution, less 1/2 log(2 pi). Nix and Weigend, ICNN 1994;
    torch.nn.GaussianNLLLoss. y_true has each target twice, so that it is as wide as the outputs.
    """
    mean, variance = gaussian(y_pred.astype(np.float64))
    with np.errstate(over="ignore"):
        e = mean - y_true[:, ::2]
        total: Array = 0.5 * (np.log(variance) + e * e / variance).sum(axis=1)
    return total


def gaussian_nll_delta(z: Array, y_pred: Array, y_true: Array, activation: Activation) -> Array:
    """e / v and 1/2 (1 / v - (e / v)²) sigmoid(spread), with e = m - t; the outputs are z itself."""
    mean, variance = gaussian(y_pred)
    w = (mean - y_true[:, ::2]) / variance
    sigmoid = 0.5 + 0.5 * np.tanh(0.5 * y_pred[:, 1::2])
    delta = np.empty_like(y_pred)
    delta[:, ::2], delta[:, 1::2] = w, 0.5 * (1 / variance - w * w) * sigmoid
    return delta


@dataclass(frozen=True)
class Parameter:
    """The number in brackets behind a loss's name: the delta in "huber(0.5)".

    The loss's functions take it as an argument of that name.
    """

    name: str
    default: float  # where there are no brackets
    low: float
    high: float
    expected: str  # what a number that is refused should have been
    example: float
    low_is_allowed: bool = False

    def of_text(self, loss: str, text: str) -> float:
        """The number; ValueError says what is expected of it."""
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (self.low < number < self.high or (self.low_is_allowed and number == self.low)):
            raise ValueError(
                f"loss is '{loss}({text})', expected {self.expected} in brackets, as in "
                f"'{loss}({self.example:g})'"
            )
        return number


@dataclass(frozen=True)
class Loss:
    """An entry of the registry, or one of its entries with a number in brackets."""

    name: str
    value: Callable[..., Array]
    delta: Callable[..., Array]
    kinks: Callable[..., list[Array]] = _no_kinks  # what changes where a derivative jumps
    output: str | None = None  # the output activation that it is defined for, if only one
    targets_in_unit_interval: bool = False
    targets_are_signs: bool = False  # -1 or 1
    of_pairs: bool = False  # outputs are pairs, mean and spread, of which each has one target
    targets_are_counts: bool = False  # at least 0
    of_classes: bool = False  # targets are rows of probabilities, or labels that stand for such rows
    takes: Parameter | None = None  # what may stand in brackets
    parameter: float | None = None  # what does stand there, or the default

    @property
    def kind(self) -> str:
        """The name without brackets, under which it is registered."""
        return self.name.partition("(")[0]

    @property
    def of_quantities(self) -> bool:
        """Whether targets may be any numbers, one for each output."""
        of_a_kind = self.targets_are_signs or self.targets_in_unit_interval or self.targets_are_counts
        return not (self.of_classes or self.of_pairs or of_a_kind)

    def with_parameter(self, number: float, name: str) -> Loss:
        """The same loss with this number in its functions."""
        assert self.takes is not None
        more = {self.takes.name: number}
        value, delta, kinks = partial(self.value, **more), partial(self.delta, **more), self.kinks
        if kinks is not _no_kinks:
            kinks = partial(kinks, **more)
        return replace(self, name=name, value=value, delta=delta, kinks=kinks, parameter=number)


# The formulas as they stand above; those that take a number do not have it yet.
_FORMULAS = (
    Loss("mse", mse, mse_delta),
    Loss(
        "binary_crossentropy",
        binary_crossentropy,
        binary_crossentropy_delta,
        output="sigmoid",
        targets_in_unit_interval=True,
    ),
    Loss(
        "categorical_crossentropy",
        categorical_crossentropy,
        categorical_crossentropy_delta,
        output="softmax",
        of_classes=True,
        takes=Parameter(
            "smoothing", 0.0, 0, 1, "the label smoothing, at least 0 and below 1,", 0.1, low_is_allowed=True
        ),
    ),
    Loss("mae", mae, mae_delta, mae_kinks),
    Loss(
        "huber",
        huber,
        huber_delta,
        huber_kinks,
        takes=Parameter("delta", 1.0, 0, math.inf, "a number above 0", 0.5),
    ),
    Loss(
        "pinball",
        pinball,
        pinball_delta,
        pinball_kinks,
        takes=Parameter("quantile", 0.5, 0, 1, "a quantile between 0 and 1", 0.9),
    ),
    Loss("gaussian_nll", gaussian_nll, gaussian_nll_delta, output="identity", of_pairs=True),
    Loss("poisson", poisson, poisson_delta, output="exp", targets_are_counts=True),
    Loss("hinge", hinge, hinge_delta, hinge_kinks, targets_are_signs=True),
)
_BY_NAME = {loss.name: loss for loss in _FORMULAS}

LOSSES: dict[str, Loss] = {
    loss.name: loss.with_parameter(loss.takes.default, loss.name) if loss.takes else loss
    for loss in _FORMULAS
}


def get(name: str) -> Loss:
    """The loss of that name; ValueError lists the known ones.

    "huber(0.5)" is huber with delta 0.5, "categorical_crossentropy(0.1)" has label smoothing 0.1.
    """
    if isinstance(name, str) and (match := re.fullmatch(r"(\w+)\((.*)\)", name)):
        loss = _BY_NAME.get(match[1])
        if loss is not None and loss.takes is not None:
            number = loss.takes.of_text(*match.groups())
            return loss.with_parameter(number, f"{loss.name}({number!r})")
    return LOSSES[checks.known_name("loss", name, LOSSES)]
