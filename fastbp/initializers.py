"""Initial weights: normally distributed around zero, with a standard deviation by the layer's widths.

Biases start at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.activations import OUTPUTS


def normal(fan_in: int, fan_out: int) -> float:
    """0.01, whatever the widths."""
    return 0.01


def he(fan_in: int, fan_out: int) -> float:
    """sqrt(2 / fan_in), for ReLU. He, Zhang, Ren and Sun, ICCV 2015, equation 10."""
    return math.sqrt(2 / fan_in)


def glorot(fan_in: int, fan_out: int) -> float:
    """sqrt(2 / (fan_in + fan_out)). Glorot and Bengio, AISTATS 2010, equation 12."""
    return math.sqrt(2 / (fan_in + fan_out))


def lecun(fan_in: int, fan_out: int) -> float:
    """sqrt(1 / fan_in), which selu is made for. LeCun et al., Efficient BackProp, 1998, section 4.6."""
    return math.sqrt(1 / fan_in)


INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    "normal": normal,
    "he": he,
    "glorot": glorot,
    "lecun": lecun,
    "xavier": glorot,  # glorot's other name, after the first author's first name
}


def check(init: str) -> str:
    """`init` if it is "auto" or in the registry; ValueError lists the known names."""
    return checks.known_name("init", init, ["auto", *INITIALIZERS])


def standard_deviation(init: str, fan_in: int, fan_out: int, activation: str) -> float:
    """Of one layer's weights. "auto" is what the activation's definition names."""
    if init == "auto":
        init = OUTPUTS[activation].init
    return INITIALIZERS[init](fan_in, fan_out)


def weights(
    init: str, fan_in: int, fan_out: int, activation: str, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(fan_in, fan_out), in float64 for every dtype: float32 weights are the float64 ones, rounded."""
    return rng.standard_normal((fan_in, fan_out)) * standard_deviation(init, fan_in, fan_out, activation)
