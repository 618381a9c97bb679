"""What a network's two passes return: the trace of the forward pass, the gradients of the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

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


@dataclass
class Gradients:
    """Gradients of the loss, shaped like the model's `weights`, `biases` and `gains`."""

    weights: list[Array]
    biases: list[Array]
    gains: list[Array] = field(default_factory=list)
