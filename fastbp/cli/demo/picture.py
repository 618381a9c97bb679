"""The picture of `fastbp demo`: loss curves, confusion matrix, and the digits that were misread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli import pictures
from fastbp.data import Split
from fastbp.plot import TRAINING, VALIDATION

SHOWN = 10  # misclassified digits
NAMES = [str(digit) for digit in range(10)]


@dataclass(frozen=True)
class Run:
    model: Any
    history: Any
    predicted: NDArray[np.intp]  # (test rows,)
    accuracy: float


def draw(path: str, data: Split, reference: Run, fast: Run, ratio: float) -> None:
    """Write a picture. Raises ModuleNotFoundError without matplotlib."""
    with pictures.page(path, figsize=(12, 8.2), dpi=130) as figure:
        sides = {"left": 0.065, "right": 0.965}
        upper = figure.add_gridspec(1, 2, top=0.85, bottom=0.315, width_ratios=[1.3, 1], wspace=0.16, **sides)
        lower = figure.add_gridspec(1, SHOWN, top=0.165, bottom=0.03, wspace=0.25, **sides)
        wrong = int(np.sum(fast.predicted != data.y_test))
        pictures.heading(
            figure,
            "fastbp demo: a 64-128-10 network on handwritten digits",
            f"test accuracy {fast.accuracy:.1%} ({wrong} of {len(data.y_test)} digits wrong); "
            f"one training step is {ratio:.1f} times as fast as in NumPy on this machine",
        )
        _loss_curves(figure.add_subplot(upper[0]), reference, fast)
        pictures.confusion(
            figure.add_subplot(upper[1]),
            data.y_test,
            fast.predicted,
            NAMES,
            "digit",
            "Confusion matrix of the test digits",
        )
        pictures.mistakes(
            figure,
            lower,
            data.X_test.reshape(-1, 8, 8),
            data.y_test,
            fast.predicted,
            fast.model.predict(data.X_test),
            NAMES,
            "test digits",
        )


def _loss_curves(axes: Any, reference: Run, fast: Run) -> None:
    epochs = np.arange(1, len(fast.history.loss) + 1)
    for name, color, of_reference, of_fast in (
        ("training", TRAINING, reference.history.loss, fast.history.loss),
        ("test", VALIDATION, reference.history.val_loss, fast.history.val_loss),
    ):
        # The reference broad and pale, fastbp a fine line on top: where they agree, it runs down the middle.
        axes.plot(epochs, of_reference, color=color, alpha=0.3, linewidth=6, label=f"{name}, NumPy reference")
        axes.plot(epochs, of_fast, color=color, linewidth=1.4, label=f"{name}, fastbp")
    curves = [getattr(run.history, name) for run in (reference, fast) for name in ("loss", "val_loss")]
    pictures.loss_axes(axes, curves, "Loss: half squared error per digit")
