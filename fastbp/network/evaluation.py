"""The loss of samples, and its derivative at the output: the definitions applied to a trace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.inputs.samples import Samples, split_weights
from fastbp.network.architecture import Architecture
from fastbp.network.backend import Backend
from fastbp.network.results import Trace

Array = NDArray[Any]


@np.errstate(all="ignore")
def sample_losses(architecture: Architecture, trace: Trace, Y: Array) -> NDArray[np.float64]:
    """(batch,): the loss of each sample, times its weight."""
    y, weights = split_weights(Y, architecture.outputs)
    losses = architecture.loss.value(trace.z[-1], trace.a[-1], y)
    return losses if weights is None else losses * weights


@np.errstate(all="ignore")
def output_delta(architecture: Architecture, trace: Trace, Y: Array) -> Array:
    """(batch, outputs): the derivative of these losses with respect to the last z."""
    y, weights = split_weights(Y, architecture.outputs)
    delta = architecture.loss.delta(trace.z[-1], trace.a[-1], y, architecture.activations[-1])
    return delta if weights is None else delta * weights[:, None]


@np.errstate(all="ignore")
def penalty(architecture: Architecture, weights: Sequence[Array]) -> float:
    """l2 / 2 * the sum of squared weights, which is added to a batch's sum of losses."""
    if not architecture.l2:
        return 0.0
    return architecture.l2 / 2 * sum(float(np.square(W, dtype=np.float64).sum()) for W in weights)


def evaluate(backend: Backend, samples: Samples, y_pred: Array | None = None) -> float:
    """The loss, as `reduction` says; the output goes into y_pred (samples, outputs), if there is one."""
    architecture, total = backend.architecture, 0.0
    for rows in architecture.row_blocks(len(samples)):
        trace = backend.forward(samples.X[rows])
        total += float(sample_losses(architecture, trace, samples.Y[rows]).sum())
        if y_pred is not None:
            y_pred[rows] = trace.y_pred
    total += penalty(architecture, backend.parameters.weights)
    divisor = architecture.divisor(len(samples), samples.stored_weights)
    return total / divisor if divisor else 0.0
