"""What a network's two passes return: the trace of the forward pass, the gradients of the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.network.architecture import Architecture

Array = NDArray[Any]


@dataclass
class Trace:
    """What the forward pass computed, layer by layer; `backward` re-uses it.

    X is (batch, inputs); z[i] and a[i] are (batch, fan_out) of layer i + 1: pre-activation and activation.
    With layer_norm, n[i] (batch, fan_out) and inverse_std[i] (batch,) are what normalisation made of the
    products inputs @ W of hidden layer i + 1, and 1 / sqrt(variance + eps) of each row; else empty.
    """

    X: Array
    z: list[Array]
    a: list[Array]
    n: list[Array] = field(default_factory=list)
    inverse_std: list[Array] = field(default_factory=list)

    @property
    def y_pred(self) -> Array:
        """(batch, outputs): the last activation."""
        return self.a[-1]


def checked_trace(trace: object, architecture: Architecture) -> Trace:
    """The trace, as C-ordered arrays of the network's dtype and shapes, or an error that says what is not.

    Compiled code takes addresses from these arrays, and the extents from the network.
    """
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be what forward returned, got {type(trace).__name__}")
    rows, widths = np.shape(trace.X)[0] if np.ndim(trace.X) else 0, architecture.layer_sizes[1:]
    normalised = widths[:-1] if architecture.layer_norm else ()
    X = _checked_array("X", trace.X, (max(rows, 1), architecture.inputs), architecture)
    z, a, n = (
        _checked_arrays(name, values, [(rows, units) for units in of], architecture)
        for name, values, of in (("z", trace.z, widths), ("a", trace.a, widths), ("n", trace.n, normalised))
    )
    stds = _checked_arrays("inverse_std", trace.inverse_std, [(rows,)] * len(normalised), architecture)
    return Trace(X, z, a, n, stds)


def _checked_arrays(
    name: str, values: Any, shapes: Sequence[tuple[int, ...]], architecture: Architecture
) -> list[Array]:
    if not isinstance(values, (list, tuple)) or len(values) != len(shapes):
        found = f"{len(values)} arrays" if isinstance(values, (list, tuple)) else type(values).__name__
        raise ValueError(f"trace is not of this model: trace.{name} has {found}, expected {len(shapes)}")
    return [
        _checked_array(f"{name}[{i}]", value, shape, architecture)
        for i, (value, shape) in enumerate(zip(values, shapes, strict=True))
    ]


def _checked_array(name: str, value: Any, shape: tuple[int, ...], architecture: Architecture) -> Array:
    array = checks.as_floats(f"trace.{name}", value, architecture.dtype)
    if array.shape != shape:
        raise ValueError(
            f"trace is not of this model: trace.{name} has shape {array.shape}, expected {shape}"
        )
    return np.require(array, requirements=("C", "A", "E"))


@dataclass
class Gradients:
    """Gradients of the loss, shaped like the model's `weights`, `biases` and `gains`."""

    weights: list[Array]
    biases: list[Array]
    gains: list[Array] = field(default_factory=list)
