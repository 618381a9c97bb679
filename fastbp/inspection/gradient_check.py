"""`MLP.check_gradients`: backward against central differences of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks
from fastbp.inputs.samples import split_weights
from fastbp.network import layout
from fastbp.network.evaluation import evaluate, sample_losses
from fastbp.network.network import Network

Array = NDArray[Any]

TOLERANCE = 1e-6
# Relative step of the differences: its square is the truncation error, 2e-16 / step the rounding error.
STEP = 1e-5


@dataclass
class GradientCheck:
    """The outcome, per parameter array ("W1", "b1", with layer_norm "g1", "W2", ...).

    `errors`: largest difference between the two gradients over the array's largest gradient. (Where that is
    smaller than what differences of the loss can resolve to 1e-6, it is divided by this instead.)
    `checked`: entries compared. `skipped`: entries left out, since the step crossed a kink of an activation
    or of the loss, where there is no derivative. `largest`: the largest of the errors. `passed`: whether it
    is at most 1e-6.
    """

    errors: dict[str, float]
    checked: dict[str, int]
    skipped: dict[str, int]

    @property
    def largest(self) -> float:
        return max(self.errors.values())

    @property
    def passed(self) -> bool:
        return self.largest <= TOLERANCE

    def __str__(self) -> str:
        lines = ["array  relative error  entries"]
        for name, error in self.errors.items():
            skipped = f" ({self.skipped[name]} more at a kink)" if self.skipped[name] else ""
            lines.append(f"{name:5}  {error:14.2e}  {self.checked[name]}{skipped}")
        lines.append(
            f"largest {self.largest:.2e}: {'passed' if self.passed else 'FAILED'} (<= {TOLERANCE:g})"
        )
        return "\n".join(lines)


@np.errstate(all="ignore")  # losses that are infinite have no differences, and fail
def check_gradients(
    model: Network, X: ArrayLike, Y: ArrayLike, sample_weight: ArrayLike | None, max_entries: int | None
) -> GradientCheck:
    if max_entries is not None:
        max_entries = checks.count("max_entries", max_entries)
    model.parameters.adopt()
    # A copy in float64, with the same computation: float32 differences would be rounding and nothing else.
    twin = model.converted("float64")
    batch = twin.reader.batch(X, Y, sample_weight, check_finite=True)
    x, y = batch.X[:], batch.Y[:]
    trace = twin.backend.forward(x)
    gradients = layout.views(twin.backend.backward(trace, y), twin.architecture.arrays)
    loss = abs(evaluate(twin.backend, batch))
    resolvable = np.finfo(np.float64).eps * loss / STEP / TOLERANCE

    result = GradientCheck({}, {}, {})
    for name, values in twin.parameters.named().items():
        flat, gradient = values.reshape(-1), gradients[name].reshape(-1)
        entries = np.arange(flat.size)
        if max_entries is not None and flat.size > max_entries:
            entries = np.unique(np.linspace(0, flat.size - 1, max_entries).astype(int))
        l2 = twin.architecture.l2 if name.startswith("W") else 0.0
        numeric = np.array([_central_difference(twin, flat, int(i), x, y, l2) for i in entries])
        smooth = ~np.isnan(numeric)
        difference = np.abs(numeric - gradient[entries])[smooth]
        scale = max(float(np.abs(gradient).max()), float(np.abs(numeric[smooth]).max(initial=0)))
        error = float(difference.max(initial=0))
        result.errors[name] = error / max(scale, resolvable) if error else 0.0
        result.checked[name] = int(smooth.sum())
        result.skipped[name] = int((~smooth).sum())
    return result


def _central_difference(model: Network, flat: Array, i: int, X: Array, Y: Array, l2: float) -> float:
    """The loss's derivative with respect to flat[i], or NaN if a kink lies within the step.

    l2 : of the penalty on this number, half its square times l2.
    """
    value = flat[i]
    step = STEP * max(1.0, abs(float(value)))
    up, down = value + step, value - step
    values, active = [], []
    for changed in (up, down):
        flat[i] = changed
        trace = model.backend.forward(X)
        values.append(sample_losses(model.architecture, trace, Y))
        sides = [z > 0 for z, act in zip(trace.z, model.architecture.activations, strict=True) if act.kink]
        active.append(sides + model.architecture.loss.kinks(trace.y_pred, Y[:, : model.architecture.outputs]))
    flat[i] = value
    if not all(np.array_equal(p, q) for p, q in zip(*active, strict=True)):
        return float("nan")
    # sample by sample, so that the samples' losses do not swallow the difference
    difference = float((values[0] - values[1]).sum()) / float(up - down) + l2 / 2 * float(up + down)
    divisor = model.architecture.divisor(len(X), split_weights(Y, model.architecture.outputs)[1])
    return difference / divisor if divisor else 0.0
