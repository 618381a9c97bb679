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
Shapes = dict[str, tuple[int, ...]]


def shapes(layer_sizes: Sequence[int], layer_norm: bool) -> Shapes:
    """The arrays in their order: {"W1": (fan_in, fan_out), "b1": (fan_out,), ...}."""
    arrays: Shapes = {}
    last = len(layer_sizes) - 1
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(layer_sizes), 1):
        arrays[f"W{layer}"], arrays[f"b{layer}"] = (fan_in, fan_out), (fan_out,)
        if layer_norm and layer < last:
            arrays[f"g{layer}"] = (fan_out,)
    return arrays


def size(shapes: Shapes) -> int:
    """How many numbers these arrays have."""
    return sum(map(math.prod, shapes.values()))


def views(flat: Array, shapes: Shapes) -> dict[str, Array]:
    """The arrays by their names, as views of the flat one."""
    found, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape)
        found[name] = flat[at:end].reshape(shape)
        at = end
    return found
