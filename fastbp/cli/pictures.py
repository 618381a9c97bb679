"""What the command line's pictures share: how they look, and panels that more than one of them has."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.plot import FAINT, GRID, INK, TRAINING, VALIDATION
from fastbp.storage import atomic

FORMATS = (".png", ".svg", ".pdf")
FINE_GRID = "#f0f3f5"
COUNTED = 20  # up to so many classes a confusion matrix has its counts written in it
HEADING = {"loc": "left", "fontsize": 12, "weight": "bold"}


def check(path: str) -> None:
    """Raise ValueError or ModuleNotFoundError now if `path` cannot become a picture."""
    if Path(path).suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a picture can be written as {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--plot needs matplotlib: pip install 'fastbp[plot]'") from error


@contextmanager
def page(path: str, **options: Any) -> Iterator[Any]:
    """A figure, written to `path` if the block ends well. Raises ModuleNotFoundError without matplotlib."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    # "default": the picture looks the same whatever the user's own matplotlibrc says. Agg: needs no display.
    with matplotlib.style.context(["default", {**ink, "svg.hashsalt": "fastbp"}]):
        figure = Figure(facecolor="white", **options)
        FigureCanvasAgg(figure)
        yield figure
        content, kind = io.BytesIO(), Path(path).suffix[1:].lower()
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    atomic.write(path, content.getvalue())


def heading(figure: Any, title: str, below: str) -> None:
    """At the top of a page that leaves 15% free there."""
    figure.text(0.065, 0.95, title, fontsize=17, weight="bold")
    figure.text(0.065, 0.917, below, fontsize=11, color=FAINT)


def loss_axes(axes: Any, losses: Sequence[NDArray[np.float64]], title: str) -> None:
    """Finish axes on which these curves over epochs (from 1) were drawn: logarithmic if they span a lot."""
    drawn = np.concatenate(losses)
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size and drawn.max() > 10 * drawn.min() > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(1, max(2, *map(len, losses)))
    axes.set_xlabel("epoch")
    axes.set_title(title, **HEADING)
    axes.grid(which="major", color=GRID, linewidth=0.8)
    axes.grid(which="minor", axis="y", color=FINE_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.legend(frameon=False, loc="upper right")


def confusion(
    axes: Any, true: NDArray[Any], predicted: NDArray[Any], names: Sequence[str], what: str, title: str
) -> None:
    """true, predicted: (rows,) positions in `names`; what: a row is, such as "digit"."""
    classes = len(names)
    counts = np.zeros((classes, classes), dtype=int)
    np.add.at(counts, (true, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(classes, dtype=bool)
    # Orange for what is wrong, so that a single mistake is not lost beside the blue diagonal.
    shade = np.ones((classes, classes, 3))
    blue, orange = np.array([31, 119, 180]) / 255, np.array([217, 98, 43]) / 255
    strength = np.where(right, 0.85 * shares, np.where(counts > 0, np.minimum(0.25 + 3 * shares, 0.9), 0))
    shade -= strength[:, :, None] * (1 - np.where(right[:, :, None], blue, orange))
    axes.imshow(shade)
    axes.set_anchor("N")  # level with the loss curves' upper edge
    if classes <= COUNTED:
        for i, j in zip(*np.nonzero(counts), strict=True):
            color = "white" if strength[i, j] > 0.5 else INK
            size = 9 if classes <= 10 else 6
            axes.text(j, i, counts[i, j], ha="center", va="center", fontsize=size, color=color)
        lengthy = max(map(len, names)) > 3
        axes.set_xticks(
            range(classes), names, rotation=45 if lengthy else 0, ha="right" if lengthy else "center"
        )
        axes.set_yticks(range(classes), names)
        axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.grid(which="minor", color=GRID, linewidth=0.8)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color(FAINT)
    axes.set_xlabel(f"predicted {what}")
    axes.set_ylabel(f"true {what}")
    axes.set_title(title, **HEADING)


def mistakes(
    figure: Any,
    cells: Any,
    images: NDArray[Any],
    true: NDArray[Any],
    predicted: NDArray[Any],
    scores: NDArray[Any],
    names: Sequence[str],
    what: str,
) -> None:
    """A row of misclassified images, those first whose wrong class had the highest score.

    images: (rows, height, width); true, predicted: (rows,) positions in `names`; scores: (rows, classes);
    what: they are, such as "test digits". cells: a grid of one row.
    """
    room = cells.ncols
    wrong = np.flatnonzero(true != predicted)
    surest = wrong[np.argsort(-scores[wrong].max(axis=1), kind="stable")[:room]] if len(wrong) else wrong
    shown = f"the {room} it was surest of" if len(wrong) > room else f"all {len(wrong)}"
    title = f"Misclassified {what} ({shown})" if len(wrong) else f"Misclassified {what}: none"
    figure.text(0.065, 0.212, title, fontsize=12, weight="bold")
    if len(wrong):
        figure.text(0.965, 0.212, "the true class \u2192 what it was taken for", color=FAINT, ha="right")
    for column, i in enumerate(surest):
        axes = figure.add_subplot(cells[column])
        axes.imshow(images[i], cmap="gray_r", vmin=images.min(), vmax=images.max())
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_color(FAINT)
        axes.set_title(names[true[i]], fontsize=11, color=TRAINING, loc="left", pad=4)
        axes.set_title(f"\u2192 {names[predicted[i]]}", fontsize=11, color=VALIDATION, loc="right", pad=4)
