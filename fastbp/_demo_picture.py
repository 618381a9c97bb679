"""The picture of `fastbp demo`: loss curves, confusion matrix, and the digits that were misread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbp.data import Split

if TYPE_CHECKING:
    from fastbp.demo import Run

SHOWN = 10  # misclassified digits

INK = "#22313f"
FAINT = "#8795a1"
TRAIN = "#1f77b4"
TEST = "#d9622b"


def draw(path: str, data: Split, reference: Run, fast: Run, ratio: float) -> None:
    """Write a PNG. Raises ModuleNotFoundError without matplotlib."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    settings = {
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "font.size": 10,
    }
    # "default": the picture looks the same whatever the user's own matplotlibrc says. Agg: needs no display.
    with matplotlib.style.context(["default", settings]):
        figure = Figure(figsize=(12, 8.2), dpi=130, facecolor="white")
        FigureCanvasAgg(figure)
        sides = {"left": 0.065, "right": 0.965}
        upper = figure.add_gridspec(1, 2, top=0.85, bottom=0.315, width_ratios=[1.3, 1], wspace=0.16, **sides)
        lower = figure.add_gridspec(1, SHOWN, top=0.165, bottom=0.03, wspace=0.25, **sides)
        _title(figure, data, fast, ratio)
        _loss_curves(figure.add_subplot(upper[0]), reference, fast)
        _confusion(figure.add_subplot(upper[1]), data.y_test, fast.predicted)
        _mistakes(figure, lower, data, fast)
        figure.savefig(path, format="png")


def _title(figure: Any, data: Split, fast: Run, ratio: float) -> None:
    wrong = int(np.sum(fast.predicted != data.y_test))
    figure.text(
        0.065, 0.95, "fastbp demo: a 64-128-10 network on handwritten digits", fontsize=17, weight="bold"
    )
    figure.text(
        0.065,
        0.917,
        f"test accuracy {fast.accuracy:.1%} ({wrong} of {len(data.y_test)} digits wrong); "
        f"one training step is {ratio:.1f} times as fast as in NumPy on this machine",
        fontsize=11,
        color=FAINT,
    )


def _loss_curves(axes: Any, reference: Run, fast: Run) -> None:
    epochs = np.arange(1, len(fast.history.loss) + 1)
    for name, color, of_reference, of_fast in (
        ("training", TRAIN, reference.history.loss, fast.history.loss),
        ("test", TEST, reference.history.val_loss, fast.history.val_loss),
    ):
        # The reference broad and pale, fastbp a fine line on top: where they agree, it runs down the middle.
        axes.plot(epochs, of_reference, color=color, alpha=0.3, linewidth=6, label=f"{name}, NumPy reference")
        axes.plot(epochs, of_fast, color=color, linewidth=1.4, label=f"{name}, fastbp")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.set_xlim(1, max(2, len(epochs)))
    axes.set_xlabel("epoch")
    axes.set_title("Loss: half squared error per digit", loc="left", fontsize=12, weight="bold")
    axes.grid(which="major", color="#e3e8ec", linewidth=0.8)
    axes.grid(which="minor", axis="y", color="#f0f3f5", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.legend(frameon=False, loc="upper right")


def _confusion(axes: Any, true: NDArray[np.int64], predicted: NDArray[np.intp]) -> None:
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (true, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(10, dtype=bool)
    # Orange for what is wrong, so that a single mistake is not lost beside the blue diagonal.
    shade = np.ones((10, 10, 3))
    blue, orange = np.array([31, 119, 180]) / 255, np.array([217, 98, 43]) / 255
    strength = np.where(right, 0.85 * shares, np.where(counts > 0, np.minimum(0.25 + 3 * shares, 0.9), 0))
    shade -= strength[:, :, None] * (1 - np.where(right[:, :, None], blue, orange))
    axes.imshow(shade)
    axes.set_anchor("N")  # level with the loss curves' upper edge
    for i in range(10):
        for j in range(10):
            if counts[i, j]:
                color = "white" if strength[i, j] > 0.5 else INK
                axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=9, color=color)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.set_xticks(np.arange(9) + 0.5, minor=True)
    axes.set_yticks(np.arange(9) + 0.5, minor=True)
    axes.grid(which="minor", color="#e3e8ec", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color(FAINT)
    axes.set_xlabel("predicted digit")
    axes.set_ylabel("true digit")
    axes.set_title("Confusion matrix of the test digits", loc="left", fontsize=12, weight="bold")


def _mistakes(figure: Any, cells: Any, data: Split, fast: Run) -> None:
    wrong = np.flatnonzero(fast.predicted != data.y_test)
    outputs = fast.model.predict(data.X_test[wrong]) if len(wrong) else np.empty((0, 10))
    surest = np.argsort(-outputs.max(axis=1), kind="stable")[:SHOWN]
    shown = f"the {len(surest)} it was surest of" if len(wrong) > SHOWN else f"all {len(wrong)}"
    title = f"Misclassified test digits ({shown})" if len(wrong) else "Misclassified test digits: none"
    figure.text(0.065, 0.212, title, fontsize=12, weight="bold")
    if len(wrong):
        figure.text(0.965, 0.212, "the true digit \u2192 what it was taken for", color=FAINT, ha="right")
    for column, i in enumerate(surest):
        axes = figure.add_subplot(cells[column])
        axes.imshow(data.X_test[wrong[i]].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(FAINT)
        axes.set_title(f"{data.y_test[wrong[i]]}", fontsize=11, color=TRAIN, loc="left", pad=4)
        axes.set_title(f"\u2192 {fast.predicted[wrong[i]]}", fontsize=11, color=TEST, loc="right", pad=4)
