"""Which mistake makes a gradient wrong: what the usual ones would give is computed, and compared.

`explain` is told of a point (data, parameters, what forward returned there) and of the gradients that a
backward function gave, and puts a reason in front of what is known to be wrong. Where forward returns every z
and a of dense layers, the chain rule is walked down once as it should be and once for each mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.activations import OUTPUTS, sigmoid

Array = NDArray[Any]

# Two arrays are taken for the same if they differ by so much of the larger one: candidates are computed
# exactly, up to the derivative of the loss, which is a central difference.
ALIKE = 1e-5
DERIVATIVE_STEP = 1e-6
# Elements of y_pred up to which the loss's derivative is taken by differences, two losses each.
MAX_OUTPUTS = 20_000
TARGET_NAMES = ("y_true", "y", "Y", "target", "targets")
# Activations that are told from their z and a, and their derivative as one writes it.
DERIVATIVES = {
    "sigmoid": "{a} * (1 - {a})",
    "tanh": "(1 - {a}**2)",
    "relu": "({z} > 0)",
    "leaky_relu": "np.where({z} > 0, 1, 0.01)",
}


def alike(a: Array, b: Array) -> bool:
    """Whether two arrays have one shape, and the same numbers but for rounding."""
    if a.shape != b.shape:
        return False
    scale = max(float(np.abs(a).max(initial=0)), float(np.abs(b).max(initial=0)))
    return float(np.abs(a - b).max(initial=0)) <= ALIKE * scale


@dataclass
class ArrayCheck:
    """One gradient.

    `error`: the largest difference from the central differences over the array's largest entry (infinite if
    the shape is wrong). `entries`: so many were compared. `mistakes`: what is wrong with it, if anything.
    `silent`: the gradient is 0 at all of them, so that it says little: a layer of dead units, for example.
    """

    name: str  # "dW1"
    error: float
    entries: int
    mistakes: list[str] = field(default_factory=list)
    silent: bool = False

    @property
    def passed(self) -> bool:
        return not self.mistakes


@dataclass
class Point:
    """Where a backward function is looked at, all in float64; `results`: what forward returned."""

    X: Array
    y_true: Array
    params: list[Array]
    names: list[str]
    results: tuple[Array, ...]
    loss: Callable[[Array, Array], float]

    def known_names(self) -> dict[str, Any]:
        """What a backward function may ask for, by its name."""
        known: dict[str, Any] = {"X": self.X, **dict.fromkeys(TARGET_NAMES, self.y_true)}
        if self.depth:
            for layer in range(self.depth):
                known[f"z{layer + 1}"] = self.results[2 * layer]
                known[f"a{layer + 1}"] = self.results[2 * layer + 1]
        known["y_pred"] = self.results[-1]
        known |= dict(zip(self.names, self.params, strict=True))
        return {**known, "results": self.results, "params": self.params}

    @property
    def depth(self) -> int:
        """The number of layers if forward returned a z and an a for each W and b, else 0."""
        pairs = len(self.params) == len(self.results) and len(self.params) % 2 == 0
        return len(self.params) // 2 if pairs else 0

    @cached_property
    def is_dense(self) -> bool:
        """Whether every z is below @ W + b, with an activation that is known."""
        if not self.depth:
            return False
        below = self.X
        for layer in range(self.depth):
            W, b = self.params[2 * layer : 2 * layer + 2]
            z, a = self.results[2 * layer : 2 * layer + 2]
            if W.ndim != 2 or below.shape[1] != W.shape[0] or b.size != W.shape[1]:
                return False
            if not alike(below @ W + b, z) or self.activation(layer) is None:
                return False
            below = a
        return self.y_true.shape == self.results[-1].shape and self.results[-1].size <= MAX_OUTPUTS

    def activation(self, layer: int) -> str | None:
        z, a = self.results[2 * layer : 2 * layer + 2]
        for name in (*DERIVATIVES, "identity"):
            if alike(OUTPUTS[name].value(z), a):
                return name
        return None

    def derivative(self, layer: int) -> Array:
        z, a = self.results[2 * layer : 2 * layer + 2]
        name = self.activation(layer)
        assert name is not None
        slope: Array = OUTPUTS[name].derivative(z, a)
        return slope

    def written(self, layer: int) -> str:
        """The derivative of a layer's activation as code."""
        a = "y_pred" if layer == self.depth - 1 else f"a{layer + 1}"
        return DERIVATIVES.get(self.activation(layer) or "", "1").format(z=f"z{layer + 1}", a=a)

    @cached_property
    def loss_derivative(self) -> Array:
        """dE/dy_pred (batch, outputs), by central differences."""
        y_pred = self.results[-1].copy()
        derivative = np.empty_like(y_pred)
        for index in np.ndindex(y_pred.shape):
            value, sides = y_pred[index], []
            for changed in (value + DERIVATIVE_STEP, value - DERIVATIVE_STEP):
                y_pred[index] = changed
                sides.append(float(self.loss(y_pred, self.y_true)))
            y_pred[index] = value
            derivative[index] = (sides[0] - sides[1]) / (2 * DERIVATIVE_STEP)
        return derivative


def explain(point: Point, gradients: Sequence[Any], checks: Sequence[ArrayCheck]) -> None:
    """Put the mistake that explains it before what is known of each wrong array."""
    walk = list(_mistaken_walks(point)) if point.is_dense else []
    right = walk[0][1] if walk else None
    for i, check in enumerate(checks):
        if check.passed or gradients[i] is None:
            continue
        given = np.asarray(gradients[i], np.float64)
        reason = None
        if given.shape != point.params[i].shape:
            reason = _of_shape(point, i, given)
        elif np.isfinite(given).all():
            reason = _of_values(point, i, given, walk, right)
        if reason is not None:
            check.mistakes.insert(0, reason)


def _of_shape(point: Point, i: int, given: Array) -> str | None:
    expected, batch = point.params[i].shape, len(point.X)
    if len(expected) == 2 and given.shape == expected[::-1]:
        return "transposed: the gradient of a (fan_in, fan_out) matrix is below.T @ dz"
    if len(expected) > 1:
        return None
    if given.shape == (batch, *expected):
        return "not summed over the batch: sum(axis=0)"
    if given.shape == (1, *expected):
        return "summed with keepdims: sum(axis=0) gives the shape of the bias"
    if given.shape in ((batch,), (batch, 1)):
        return "summed over the units: sum over the batch, sum(axis=0)"
    if given.size == 1:
        return "summed over batch and units: sum over the batch only, sum(axis=0)"
    return None


def _of_values(
    point: Point, i: int, given: Array, walk: list[tuple[str, list[Array]]], right: list[Array] | None
) -> str | None:
    if not given.any():
        return "zero everywhere: it was not computed, or multiplied by 0"
    if right is None:
        return None
    factor = _factor(given, right[i])
    if factor is not None:
        return None if factor == 1 else _of_factor(factor, point)
    if given.ndim == 2 and given.shape[0] == given.shape[1] and alike(given.T, right[i]):
        return "transposed: below.T @ dz, not dz.T @ below"
    for j, other in enumerate(right):
        if j != i and alike(given, other):
            return f"this is the gradient of {point.names[j]}: return them in the order of the parameters"
    for reason, gradients in walk[1:]:
        factor = _factor(given, gradients[i])
        if factor is None:
            continue
        return reason if factor == 1 else f"{reason}; and {_of_factor(factor, point)}"
    return _of_updated_weights(point, i, given) or _of_one_row(point, i, given)


def _factor(given: Array, right: Array) -> float | None:
    """c if given = c * right, else None; 1 exactly where the two agree."""
    square = float(np.sum(right * right))
    if not square:
        return None
    c = float(np.sum(given * right)) / square
    if c == 0 or not alike(given, c * right):
        return None
    return 1.0 if abs(c - 1) <= ALIKE else c


def _of_factor(c: float, point: Point) -> str:
    batch, outputs = len(point.X), point.results[-1].shape[-1]
    known = (
        (-1.0, "of the wrong sign: the error is y_pred - y_true"),
        (1 / batch, "divided by the batch size, but the loss is not: it is a sum over the batch"),
        (float(batch), "not divided by the batch size, but the loss is a mean over the batch"),
        (1 / (batch * outputs), "divided by batch size times outputs, but the loss is not: it is a sum"),
        (2.0, "twice as large: the loss has a factor 1/2, whose derivative is not 2 (y_pred - y_true)"),
        (0.5, "half as large: the derivative of a square has a factor 2"),
        (
            2 / batch,
            "2 / batch size times what it should be: that is the mean of squares, not half their sum",
        ),
        (2 / (batch * outputs), "the gradient of the mean of squares (np.mean), not of half their sum"),
        (-1 / batch, "of the wrong sign (the error is y_pred - y_true), and divided by the batch size"),
    )
    for value, meaning in known:
        if abs(c - value) <= 10 * ALIKE * abs(value):
            return meaning
    return f"{c:.4g} times what it should be"


# ---- the chain rule, and what it gives with one mistake in it --------------------------------------------


# The derivative of a layer's activation, (batch, units).
Slope = Callable[[Point, int], Array]


@dataclass
class _Walk:
    """How the error goes down; the defaults are right."""

    at: int = -1  # the layer whose activation has another derivative
    slope: Slope | None = None  # that derivative
    untransposed: int = -1  # the layer whose W is used where W.T should be
    from_z: bool = False  # the gradient of W from the layer below's z rather than its a


def _gradients(point: Point, walk: _Walk) -> list[Array]:
    """The gradients of all parameters, in their order."""

    def slope(layer: int) -> Array:
        return walk.slope(point, layer) if walk.slope and walk.at == layer else point.derivative(layer)

    delta = point.loss_derivative * slope(point.depth - 1)
    gradients: list[Array] = []
    for layer in range(point.depth - 1, -1, -1):
        below = point.X if layer == 0 else point.results[2 * layer - (2 if walk.from_z else 1)]
        db = delta.sum(axis=0).reshape(point.params[2 * layer + 1].shape)
        gradients = [below.T @ delta, db, *gradients]
        if layer:
            W = point.params[2 * layer]
            delta = (delta @ (W if walk.untransposed == layer else W.T)) * slope(layer - 1)
    return gradients


def _mistaken_walks(point: Point) -> Iterator[tuple[str, list[Array]]]:
    """(what is wrong, every gradient); nothing is wrong with the first."""
    yield "", _gradients(point, _Walk())
    for layer in range(point.depth - 1, -1, -1):
        is_output, above = layer == point.depth - 1, None
        if is_output:
            rule = f"dz{layer + 1} = dE/dy_pred * {point.written(layer)}"
        else:
            above = point.names[2 * layer + 2]
            rule = f"dz{layer + 1} = (dz{layer + 2} @ {above}.T) * {point.written(layer)}"
        if point.written(layer) != "1":
            whose = "output's activation" if is_output else "activation"
            yield f"derivative of the {whose} missing: {rule}", _gradients(point, _Walk(layer, _no_slope))
        for reason, wrong in _wrong_slopes(point, layer):
            yield f"{reason}: {rule}", _gradients(point, _Walk(layer, wrong))
        if above is not None:
            fan_in, fan_out = point.params[2 * layer + 2].shape
            if fan_in == fan_out:
                yield f"{above} not transposed: {rule}", _gradients(point, _Walk(untransposed=layer + 1))
    if point.depth > 1:
        yield (
            "made from z, before the activation: it takes the layer below's a, a.T @ dz",
            _gradients(point, _Walk(from_z=True)),
        )


def _no_slope(point: Point, layer: int) -> Array:
    return np.ones_like(point.results[2 * layer])


def _wrong_slopes(point: Point, layer: int) -> Iterator[tuple[str, Slope]]:
    """Derivatives of this layer's activation as they are often mistaken."""
    name = point.activation(layer)
    if name == "sigmoid":
        yield (
            "derivative of the sigmoid taken of its value instead of z (the sigmoid applied twice)",
            lambda p, i: sigmoid(p.results[2 * i + 1]) * (1 - sigmoid(p.results[2 * i + 1])),
        )
        yield (
            "derivative of the sigmoid written with z instead of its value",
            lambda p, i: p.results[2 * i] * (1 - p.results[2 * i]),
        )
        yield "derivative of the sigmoid without the factor 1 - a", lambda p, i: p.results[2 * i + 1]
    if name == "tanh":
        yield (
            "derivative of tanh written with z instead of its value",
            lambda p, i: 1 - p.results[2 * i] ** 2,
        )
    if name in ("relu", "leaky_relu"):
        yield (
            "multiplied by the ReLU's value instead of its derivative",
            lambda p, i: p.results[2 * i + 1],
        )
        yield (
            "the ReLU's derivative is the wrong way round",
            lambda p, i: (p.results[2 * i] <= 0).astype(float),
        )


def _of_updated_weights(point: Point, i: int, given: Array) -> str | None:
    """Whether the weights above have taken a step of gradient descent before the error went through them."""
    layer, is_bias = divmod(i, 2)
    if layer == point.depth - 1:
        return None
    right = _gradients(point, _Walk())
    W_above, dW_above = point.params[2 * layer + 2], right[2 * layer + 2]
    # The error is linear in the weights above: of a step of size lr, the gradient changes by -lr times this.
    moved = Point(point.X, point.y_true, list(point.params), point.names, point.results, point.loss)
    moved.params[2 * layer + 2] = dW_above
    change = _gradients(moved, _Walk())[2 * layer + is_bias]
    lr = _factor(right[i] - given, change)
    if lr is None or not lr > 0:
        return None
    name = point.names[2 * layer + 2]
    return (
        f"{name} was used after its update (a step with lr {lr:.3g}): all gradients must be computed before "
        f"any parameter changes; {name} is (fan_in, fan_out) = {W_above.shape}"
    )


def _of_one_row(point: Point, i: int, given: Array) -> str | None:
    rows = len(point.X)
    for row in (rows - 1, 0):
        part = slice(row, row + 1)
        one = Point(
            point.X[part],
            point.y_true[part],
            point.params,
            point.names,
            tuple(r[part] for r in point.results),
            point.loss,
        )
        if rows > 1 and alike(given, _gradients(one, _Walk())[i]):
            which = "last" if row else "first"
            return f"of the {which} row only: the batch's gradients add up"
    return None
