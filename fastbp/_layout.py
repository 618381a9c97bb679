"""Where a model's parameters lie in one flat array: W1, b1, W2, b2, ..., WL, bL.

With layer normalisation the gain of each hidden layer stands behind its bias: W1, b1, g1, W2, b2, g2, ...
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]


def shapes(layer_sizes: Sequence[int], layer_norm: bool) -> dict[str, tuple[int, ...]]:
    """The arrays in their order: {"W1": (fan_in, fan_out), "b1": (fan_out,), ...}."""
    arrays: dict[str, tuple[int, ...]] = {}
    last = len(layer_sizes) - 1
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(layer_sizes), 1):
        arrays[f"W{layer}"], arrays[f"b{layer}"] = (fan_in, fan_out), (fan_out,)
        if layer_norm and layer < last:
            arrays[f"g{layer}"] = (fan_out,)
    return arrays


def size(layer_sizes: Sequence[int], layer_norm: bool) -> int:
    """How many numbers that are."""
    return sum(map(math.prod, shapes(layer_sizes, layer_norm).values()))


def views(flat: Array, layer_sizes: Sequence[int], layer_norm: bool) -> dict[str, Array]:
    """The arrays by their names, as views of the flat one."""
    found, at = {}, 0
    for name, shape in shapes(layer_sizes, layer_norm).items():
        end = at + math.prod(shape)
        found[name] = flat[at:end].reshape(shape)
        at = end
    return found
