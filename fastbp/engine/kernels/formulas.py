"""The engine's formulas, on vectors: activations, losses and optimizer steps. fastbp.reference has each of them in NumPy.

`v` offers the operations (see vector.Vectors); everything else is a vector of one panel's columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastbp import losses
from fastbp.activations import GELU_BOUND, GELU_C, GELU_CUBIC, LEAK, SELU_ALPHA, SELU_SCALE
from fastbp.engine.simd.vector import Vec, Vectors


@dataclass(frozen=True)
class Activation:
    """value(v, z) is a; chain(v, z, a, d) is d * da/dz.

    keeps_zero: whether a = 0 at z = 0. needs_z: whether chain looks at z, which a training step keeps only then.
    """

    value: Callable[[Vectors, Vec], Vec] | None  # None: a is z
    chain: Callable[[Vectors, Vec, Vec, Vec], Vec] | None
    keeps_zero: bool = True
    needs_z: bool = False


def _gelu_chain(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    p, e = v.normal(z)
    return d * v.fma(z * e, 1 / math.sqrt(2 * math.pi), p)


def _gelu_sigmoid(v: Vectors, z: Vec) -> tuple[Vec, Vec, Vec]:
    """z within the bound, its square, and sigmoid(2 u)."""
    bound = v.minimum(v.maximum(z, -GELU_BOUND), GELU_BOUND)
    square = bound * bound
    return bound, square, v.sigmoid(bound * v.fma(square, 2 * GELU_C * GELU_CUBIC, 2 * GELU_C))


def _gelu_tanh_chain(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    bound, square, s = _gelu_sigmoid(v, z)
    return d * (s + bound * (s * (1.0 - s)) * v.fma(square, 6 * GELU_C * GELU_CUBIC, 2 * GELU_C))


def _silu_chain(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    s = v.sigmoid(z)
    return d * (s * v.fma(z, 1.0 - s, 1.0))


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda v, z: v.maximum(z, 0.0), lambda v, z, a, d: v.select(a > 0.0, d, 0.0)),
    "sigmoid": Activation(lambda v, z: v.sigmoid(z), lambda v, z, a, d: d * (a * (1.0 - a)), keeps_zero=False),
    "tanh": Activation(lambda v, z: v.tanh(z), lambda v, z, a, d: d * (1.0 - a * a)),
    "identity": Activation(None, None),
    "leaky_relu": Activation(lambda v, z: v.select(z > 0.0, z, LEAK * z), lambda v, z, a, d: v.select(a > 0.0, d, LEAK * d)),
    "elu": Activation(lambda v, z: v.select(z > 0.0, z, v.expm1(z)), lambda v, z, a, d: v.select(a > 0.0, d, d * (a + 1.0))),
    "selu": Activation(
        lambda v, z: v.select(z > 0.0, SELU_SCALE * z, SELU_SCALE * SELU_ALPHA * v.expm1(z)),
        lambda v, z, a, d: v.select(a > 0.0, SELU_SCALE * d, d * (a + SELU_SCALE * SELU_ALPHA)),
    ),
    "gelu": Activation(lambda v, z: z * v.normal(z)[0], _gelu_chain, needs_z=True),
    "gelu_tanh": Activation(lambda v, z: v.maximum(z, -GELU_BOUND) * _gelu_sigmoid(v, z)[2], _gelu_tanh_chain, needs_z=True),
    "silu": Activation(lambda v, z: z * v.sigmoid(z), _silu_chain, needs_z=True),
    # 1 - exp(-a) is sigmoid(z)
    "softplus": Activation(lambda v, z: v.maximum(z, 0.0) + v.log1p_of_unit(v.exp(-v.abs(z))), lambda v, z, a, d: -d * v.expm1(-a), keeps_zero=False),
}


def mse(v: Vectors, z: Vec, a: Vec, y: Vec, chain: Any) -> tuple[Vec, Vec]:
    """1/2 (a - y)^2 and (a - y) da/dz."""
    e = a - y
    return 0.5 * e * e, chain(v, z, a, e) if chain else e


def binary_crossentropy(v: Vectors, z: Vec, a: Vec, y: Vec, chain: Any) -> tuple[Vec, Vec]:
    """max(0, z) - y z + log(1 + exp(-|z|)) and a - y, with a = sigmoid(z)."""
    return v.maximum(z, 0.0) - y * z + v.log1p_of_unit(v.exp(-v.abs(z))), a - y


def categorical_crossentropy(v: Vectors, z: Vec, a: Vec, y: Vec, log_sum: Vec) -> tuple[Vec, Vec]:
    """y (log_sum - z) and a - y, with z less its row's largest, log_sum the logarithm of the row's sum of exp(z)."""
    return y * (log_sum - z), a - y


def mae(v: Vectors, z: Vec, a: Vec, y: Vec, chain: Any) -> tuple[Vec, Vec]:
    """|a - y| and sign(a - y) da/dz."""
    e = a - y
    sign = v.select(e > 0.0, 1.0, v.select(e < 0.0, -1.0, e))
    return v.abs(e), chain(v, z, a, sign) if chain else sign


def huber(delta: float, v: Vectors, z: Vec, a: Vec, y: Vec, chain: Any) -> tuple[Vec, Vec]:
    """c (e - c / 2) and c da/dz, with e = a - y and c the same, but not beyond delta."""
    e = a - y
    c = v.minimum(v.maximum(e, -delta), delta)
    return c * (e - 0.5 * c), chain(v, z, a, c) if chain else c


def hinge(v: Vectors, z: Vec, a: Vec, y: Vec, chain: Any) -> tuple[Vec, Vec]:
    """max(0, 1 - y a) and, where that is not 0, -y da/dz."""
    margin = y * a
    e = v.select(margin < 1.0, -y, 0.0)
    return v.maximum(1.0 - margin, 0.0), chain(v, z, a, e) if chain else e


def loss(name: str) -> Callable[..., tuple[Vec, Vec]]:
    """(v, z, a, y, chain) -> the loss of each output, and its derivative with respect to z; chain is the output activation's.

    categorical_crossentropy looks at whole rows: rows.py has it.
    """
    entry = losses.get(name)
    if entry.parameter is not None:
        return partial(huber, entry.parameter)
    return {"mse": mse, "binary_crossentropy": binary_crossentropy, "mae": mae, "hinge": hinge}[name]


@dataclass(frozen=True)
class Rule:
    """step(v, g, w, states, settings) is (new w, new states...)."""

    states: int
    settings: int
    step: Callable[[Vectors, Vec, Vec, Sequence[Vec], Sequence[Vec]], tuple[Vec, ...]]


def _sgd(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
    lr, decay = settings
    return (w - lr * v.fma(decay, w, g),)


def _momentum(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
    lr, decay, momentum, of_g, of_m = settings  # Nesterov: 1 and momentum; else 0 and 1
    g = v.fma(decay, w, g)
    m = v.fma(momentum, states[0], g)
    return w - lr * v.fma(of_g, g, of_m * m), m


def _adam(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
    beta1, rest1, beta2, rest2, lr, unbias, eps, decay, keep = settings
    g = v.fma(decay, w, g)
    m = v.fma(beta1, states[0], rest1 * g)
    s = v.fma(beta2, states[1], rest2 * (g * g))
    return w * keep - lr * m / v.fma(v.sqrt(s), unbias, eps), m, s


def _rmsprop(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
    alpha, rest, lr, eps, decay, momentum = settings
    g = v.fma(decay, w, g)
    s = v.fma(alpha, states[0], rest * (g * g))
    g = g / (v.sqrt(s) + eps)
    if len(states) == 1:
        return w - lr * g, s
    m = v.fma(momentum, states[1], g)
    return w - lr * m, s, m


def _adagrad(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
    lr, eps, decay = settings
    g = v.fma(decay, w, g)
    s = v.fma(g, g, states[0])
    return w - lr * (g / (v.sqrt(s) + eps)), s


RULES: dict[str, Rule] = {
    # deltas carry -lr, and whole tiles of the product are added without coming here: only biases do
    "add": Rule(0, 0, lambda v, g, w, states, settings: (w + g,)),
    # the gradient itself, kept where a state would be
    "gradient": Rule(1, 0, lambda v, g, w, states, settings: (w, g)),
    # added up over the batches of a step (Plan.step_with is the step)
    "sum": Rule(1, 0, lambda v, g, w, states, settings: (w, states[0] + g)),
    "sgd": Rule(0, 2, _sgd),
    "momentum": Rule(1, 5, _momentum),
    "adam": Rule(2, 9, _adam),
    "rmsprop": Rule(1, 6, _rmsprop),
    "rmsprop-momentum": Rule(2, 6, _rmsprop),
    "adagrad": Rule(1, 3, _adagrad),
}


def _with_limit_and_l1(rule: Rule) -> Rule:
    """The rule for a gradient cut at +- limit, to which then l1 * sign(w) was added; these are its last two settings."""

    def step(v: Vectors, g: Vec, w: Vec, states: Sequence[Vec], settings: Sequence[Vec]) -> tuple[Vec, ...]:
        *own, limit, l1 = settings
        g = v.minimum(v.maximum(g, -limit), limit)
        g = g + v.select(w > 0.0, l1, v.select(w < 0.0, -l1, 0.0))
        return rule.step(v, g, w, states, own)

    return Rule(rule.states, rule.settings + 2, step)


RULES |= {f"{name}-limit-l1": _with_limit_and_l1(rule) for name, rule in RULES.items() if name not in ("add", "gradient", "sum")}
