"""Activation functions in plain NumPy: the value and, right under it, the derivative.

These are the definitions: `fastbp.reference` computes with them, the engine has the same formulas as vector
code (engine/kernels). `derivative(z, a)` takes the pre-activation z and the value a = value(z), both
(batch, units), so that nothing is computed twice. Nothing but exp overflows, however large |z|; NaN
stays NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks

Array = NDArray[Any]

LEAK = 0.01  # leaky_relu's slope below zero: PyTorch's default
# selu's factors, from section 2 of its paper: they keep mean 0 and variance 1 from layer to layer
SELU_SCALE, SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848
# gelu_tanh is z sigmoid(2 u) with u = GELU_C (z + GELU_CUBIC z³). Beyond |z| = GELU_BOUND that sigmoid is 1
# or below 1e-37, and z³ need not be computed.
GELU_C, GELU_CUBIC, GELU_BOUND = math.sqrt(2 / math.pi), 0.044715, 10.0


def relu(z: Array) -> Array:
    """max(0, z)."""
    a: Array = np.maximum(0, z)
    return a


def relu_derivative(z: Array, a: Array) -> Array:
    """1 where z > 0, else 0 (also at z = 0, where the function has a kink)."""
    return (z > 0).astype(z.dtype)


def leaky_relu(z: Array) -> Array:
    """z where z > 0, else 0.01 z. Maas, Hannun and Ng, ICML 2013."""
    return np.where(z > 0, z, LEAK * z)


def leaky_relu_derivative(z: Array, a: Array) -> Array:
    """1 where z > 0, else 0.01."""
    return np.where(z > 0, 1, LEAK).astype(z.dtype)


def elu(z: Array) -> Array:
    """z where z > 0, else exp(z) - 1. Clevert, Unterthiner and Hochreiter, ICLR 2016, with alpha = 1."""
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0)))


def elu_derivative(z: Array, a: Array) -> Array:
    """1 where z > 0, else exp(z)."""
    slope: Array = np.exp(np.minimum(z, 0))
    return slope


def selu(z: Array) -> Array:
    """1.0507 z where z > 0, else 1.0507 * 1.6733 (exp(z) - 1). Klambauer et al., NeurIPS 2017."""
    return SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(np.minimum(z, 0)))


def selu_derivative(z: Array, a: Array) -> Array:
    """1.0507 where z > 0, else 1.0507 * 1.6733 exp(z)."""
    return SELU_SCALE * np.where(z > 0, 1, SELU_ALPHA * np.exp(np.minimum(z, 0)))


def _normal_cdf(z: Array) -> Array:
    """1/2 erfc(-z / sqrt(2)): the standard normal distribution, exact in both tails."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    p: Array = np.asarray(erfc(z.astype(np.float64) * -math.sqrt(0.5)), np.float64) * 0.5
    return p.astype(z.dtype)


def gelu(z: Array) -> Array:
    """z P(Z <= z) for a standard normal Z. Hendrycks and Gimpel, arXiv 1606.08415."""
    a: Array = z * _normal_cdf(z)
    return a


def gelu_derivative(z: Array, a: Array) -> Array:
    """P(Z <= z) + z exp(-z² / 2) / sqrt(2 pi)."""
    bound = np.clip(z, -40, 40)  # beyond, exp is 0 in both dtypes
    slope: Array = _normal_cdf(z) + bound * np.exp(-0.5 * bound * bound) * (1 / math.sqrt(2 * math.pi))
    return slope


def gelu_tanh(z: Array) -> Array:
    """z/2 (1 + tanh(u)) = z sigmoid(2 u) with u = sqrt(2 / pi) (z + 0.044715 z³): close to gelu, cheaper."""
    bound = np.clip(z, -GELU_BOUND, GELU_BOUND)
    a: Array = np.maximum(z, -GELU_BOUND) * sigmoid(2 * GELU_C * (bound + GELU_CUBIC * bound**3))
    return a


def gelu_tanh_derivative(z: Array, a: Array) -> Array:
    """s + z s (1 - s) 2 u' with s = sigmoid(2 u)."""
    bound = np.clip(z, -GELU_BOUND, GELU_BOUND)
    s = sigmoid(2 * GELU_C * (bound + GELU_CUBIC * bound**3))
    slope: Array = s + bound * s * (1 - s) * (2 * GELU_C * (1 + 3 * GELU_CUBIC * bound**2))
    return slope


def silu(z: Array) -> Array:
    """z sigmoid(z). Elfwing, Uchibe and Doya, Neural Networks 107 (2018)."""
    a: Array = z * sigmoid(z)
    return a


def silu_derivative(z: Array, a: Array) -> Array:
    """s (1 + z (1 - s)) with s = sigmoid(z)."""
    s = sigmoid(z)
    slope: Array = s * (1 + z * (1 - s))
    return slope


def _mish_parts(z: Array) -> tuple[Array, Array, Array]:
    """t = exp(-|z|), then numerator and denominator of tanh(log(1 + exp(z))), both without overflow."""
    t = np.exp(-np.abs(z))
    numerator = np.where(z > 0, 1 + 2 * t, t * (t + 2))
    return t, numerator, numerator + np.where(z > 0, 2 * t * t, 2)


def mish(z: Array) -> Array:
    """z tanh(log(1 + exp(z))). Misra, BMVC 2020, arXiv 1908.08681."""
    _, numerator, denominator = _mish_parts(z)
    a: Array = z * (numerator / denominator)
    return a


def mish_derivative(z: Array, a: Array) -> Array:
    """T + z (1 - T²) sigmoid(z) with T = tanh(log(1 + exp(z)))."""
    t, numerator, denominator = _mish_parts(z)
    rest = 4 * t * (1 + t) * np.where(z > 0, t, 1) / (denominator * denominator)
    slope: Array = numerator / denominator + z * rest
    return slope


def softplus(z: Array) -> Array:
    """log(1 + exp(z)) as max(0, z) + log(1 + exp(-|z|))."""
    a: Array = np.maximum(0, z) + np.log1p(np.exp(-np.abs(z)))
    return a


def softplus_derivative(z: Array, a: Array) -> Array:
    """sigmoid(z)."""
    return sigmoid(z)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)); for negative z as exp(z) / (1 + exp(z)), so that exp never overflows."""
    e = np.exp(-np.abs(z))
    a: Array = np.where(z >= 0, 1 / (1 + e), e / (1 + e))
    return a


def sigmoid_derivative(z: Array, a: Array) -> Array:
    """a (1 - a)."""
    slope: Array = a * (1 - a)
    return slope


def tanh(z: Array) -> Array:
    """tanh(z)."""
    a: Array = np.tanh(z)
    return a


def tanh_derivative(z: Array, a: Array) -> Array:
    """1 - a²."""
    return 1 - a * a


def identity(z: Array) -> Array:
    """z itself, as an array of its own."""
    return z.copy()


def identity_derivative(z: Array, a: Array) -> Array:
    """1."""
    return np.ones_like(z)


def exp(z: Array) -> Array:
    """exp(z), infinite beyond z = 88 in float32 and 709 in float64: the mean of what is counted."""
    a: Array = np.exp(z)
    return a


def exp_derivative(z: Array, a: Array) -> Array:
    """exp(z)."""
    return a.copy()


def softmax(z: Array) -> Array:
    """exp(z) over the sum of the row's: (batch, units), at least 0, each row of sum 1.

    A constant cancels, so the row's largest z is taken off first: no exp overflows. Bridle, Training
    stochastic model recognition algorithms as networks, NeurIPS 1989.
    """
    e: Array = np.exp(z - z.max(axis=1, keepdims=True))
    a: Array = e / e.sum(axis=1, keepdims=True)
    return a


def softmax_derivative(z: Array, a: Array) -> Array:
    """a (1 - a): of each unit with respect to its own z alone."""
    return sigmoid_derivative(z, a)


def softmax_chain(z: Array, a: Array, d: Array) -> Array:
    """a (d - sum over the row of d a), since da[j]/dz[k] = a[j] ((1 if j is k else 0) - a[k])."""
    dz: Array = a * (d - (d * a).sum(axis=1, keepdims=True))
    return dz


@dataclass(frozen=True)
class Activation:
    """An entry of the registry."""

    name: str
    value: Callable[[Array], Array]
    derivative: Callable[[Array, Array], Array]
    low: float = -math.inf  # all values are between these two, or as close to them as one likes
    high: float = math.inf
    kink: bool = False  # at z = 0 the first or second derivative jumps
    init: str = "glorot"  # what init="auto" means for a layer of it, see fastbp.initializers
    of_rows: Callable[[Array, Array, Array], Array] | None = None  # where a unit depends on the others, too

    def chain(self, z: Array, a: Array, d: Array) -> Array:
        """The loss's derivative with respect to z, from that with respect to a: d (batch, units)."""
        return self.of_rows(z, a, d) if self.of_rows else d * self.derivative(z, a)


ACTIVATIONS: dict[str, Activation] = {
    entry.name: entry
    for entry in (
        Activation("relu", relu, relu_derivative, low=0, kink=True, init="he"),
        Activation("sigmoid", sigmoid, sigmoid_derivative, low=0, high=1),
        Activation("tanh", tanh, tanh_derivative, low=-1, high=1),
        Activation("identity", identity, identity_derivative),
        Activation("leaky_relu", leaky_relu, leaky_relu_derivative, kink=True, init="he"),
        Activation("elu", elu, elu_derivative, low=-1, kink=True, init="he"),
        Activation("selu", selu, selu_derivative, low=-SELU_SCALE * SELU_ALPHA, kink=True, init="lecun"),
        Activation("gelu", gelu, gelu_derivative, low=-0.16997121, init="he"),  # at z = -0.7518
        Activation("gelu_tanh", gelu_tanh, gelu_tanh_derivative, low=-0.17004076, init="he"),  # at -0.7525
        Activation("silu", silu, silu_derivative, low=-0.27846455, init="he"),  # at z = -1.2785
        Activation("mish", mish, mish_derivative, low=-0.30884342, init="he"),  # at z = -1.1924
        Activation("softplus", softplus, softplus_derivative, low=0),
    )
}

# Of the last layer: all of these, one that looks at whole rows, and one that would overflow within a network.
OUTPUTS = ACTIVATIONS | {
    "softmax": Activation("softmax", softmax, softmax_derivative, low=0, high=1, of_rows=softmax_chain),
    "exp": Activation("exp", exp, exp_derivative, low=0),
}


def hidden(name: str) -> Activation:
    """The hidden activation of that name; ValueError lists the known ones."""
    if isinstance(name, str) and name in OUTPUTS and name not in ACTIVATIONS:
        raise ValueError(
            f"hidden={name!r} is not supported, {name} is an output activation (output={name!r}); "
            f"expected one of {', '.join(map(repr, ACTIVATIONS))}"
        )
    return ACTIVATIONS[checks.known_name("hidden", name, ACTIVATIONS)]


def output(name: str) -> Activation:
    """The output activation of that name; ValueError lists the known ones."""
    return OUTPUTS[checks.known_name("output", name, OUTPUTS)]
