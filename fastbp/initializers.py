"""Initial weights: distributed around zero, with a standard deviation by the layer's widths.

All but "torch" draw weights from the normal distribution and leave biases at zero.

What init="auto" means depends on the output. A network whose outputs are bounded, as probabilities are,
begins with what suits each layer's activation: He for ReLU and its relatives. Where the output is the
identity, as it is in regression, that is too much: the network begins as a function larger than the
standardised targets, which a few dozen epochs on some hundred rows do not unlearn. The hidden layers' scale
matters, more than that of the last one or the biases (asv_benchmarks/pages/INITIAL_WEIGHTS.md has the
table). So there all layers begin as PyTorch's do.
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


def torch(fan_in: int, fan_out: int) -> float:
    """sqrt(1 / (3 fan_in)), of numbers uniform in +-1 / sqrt(fan_in), biases too: as torch.nn.Linear."""
    return math.sqrt(1 / (3 * fan_in))


INITIALIZERS: dict[str, Callable[[int, int], float]] = {
    "normal": normal,
    "he": he,
    "glorot": glorot,
    "lecun": lecun,
    "torch": torch,
    "xavier": glorot,  # glorot's other name, after the first author's first name
}


def check(init: str) -> str:
    """`init` if it is "auto" or in the registry; ValueError lists the known names."""
    return checks.known_name("init", init, ["auto", *INITIALIZERS])


def chosen(init: str, activation: str, output: str) -> str:
    """What `init` means for a layer of this activation, in a network with this output activation."""
    if init != "auto":
        return init
    return "torch" if output == "identity" else OUTPUTS[activation].init


def standard_deviation(init: str, fan_in: int, fan_out: int) -> float:
    """Of one layer's weights; `init` is a name in the registry."""
    return INITIALIZERS[init](fan_in, fan_out)


def weights(init: str, fan_in: int, fan_out: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(fan_in, fan_out), in float64 for every dtype: float32 weights are the float64 ones, rounded."""
    if init == "torch":
        return rng.uniform(-1, 1, (fan_in, fan_out)) / math.sqrt(fan_in)
    return rng.standard_normal((fan_in, fan_out)) * standard_deviation(init, fan_in, fan_out)


def biases(init: str, fan_in: int, fan_out: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(fan_out,), in float64: zeros, but for "torch"."""
    if init == "torch":
        return rng.uniform(-1, 1, fan_out) / math.sqrt(fan_in)
    return np.zeros(fan_out)
