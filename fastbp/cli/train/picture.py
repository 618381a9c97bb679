"""The picture of `fastbp train --plot`: loss curves, predictions, and misclassified images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.cli import pictures
from fastbp.cli.output import duration
from fastbp.plot import FAINT, TRAINING, VALIDATION
from fastbp.tables.answer import Answer
from fastbp.tables.parts import Data, Part
from fastbp.tables.targets import quantities

LONGEST = 12  # characters of a class's name
SHOWN = 10  # misclassified images
BINS = 10  # of scores, in the calibration
DOTS = 5000  # at most, of predictions


def draw(
    path: str, source: str, model: fastbp.MLP, history: fastbp.History, data: Data, y_pred: NDArray[Any]
) -> None:
    """source: where the data came from; y_pred: (rows, outputs) of the last part of the data."""
    answer, part = data.answer, data.parts[-1]
    has_images = answer.classes is not None and data.image is not None and len(data.image) == 2
    size = (12, 8.2) if has_images else (17, 6.4)
    with pictures.page(path, figsize=size, dpi=100) as figure:
        names = [_short(str(label)) for label in answer.classes or []]
        longest = max(map(len, names), default=0)  # they stand between the panels, and slanted below
        sides = {"left": 0.065, "right": 0.965, "top": 0.85, "bottom": 0.315 if has_images else 0.16}
        panels = [1.3, 1] if has_images else [1.3, 1, 1]
        space = 0.16 + 0.014 * longest
        cells = figure.add_gridspec(1, len(panels), width_ratios=panels, wspace=space, **sides)
        layers = "-".join(map(str, model.layer_sizes))
        title = f"fastbp train: a {layers} network on {Path(source).resolve().name}"
        pictures.heading(figure, title, _result(answer, part, history, y_pred))
        _loss_curves(figure.add_subplot(cells[0]), history)
        axes = figure.add_subplot(cells[1])
        if answer.classes is None:
            _values(axes, answer, part, y_pred)
            _residuals(figure.add_subplot(cells[2]), answer, part, y_pred)
            return
        true, predicted = answer.codes(part.target), answer.decide(y_pred, standardised=True).astype(np.intp)
        pictures.confusion(axes, true, predicted, names, "class", f"Confusion matrix: {part.name}")
        if has_images:
            assert data.image is not None
            lower = figure.add_gridspec(
                1, SHOWN, left=0.065, right=0.965, top=0.165, bottom=0.03, wspace=0.25
            )
            images = part.X.reshape(-1, *data.image)
            scores = answer.scores(y_pred)
            pictures.mistakes(figure, lower, images, true, predicted, scores, names, f"images, {part.name}")
        else:
            _calibration(figure.add_subplot(cells[2]), answer.scores(y_pred).max(axis=1), true == predicted)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "\u2026"


def _result(answer: Answer, part: Part, history: fastbp.History, y_pred: NDArray[Any]) -> str:
    name, value = next(iter(answer.quality(y_pred, part.target, standardised=True).items()))
    trained = f"{history.epochs} epochs in {duration(history.seconds)}"
    return f"{name} {value:.4f} on {len(part):,} rows ({part.name}); {trained}"


def _loss_curves(axes: Any, history: fastbp.History) -> None:
    epochs = np.arange(1, history.epochs + 1)
    marker = "o" if history.epochs < 20 else None
    axes.plot(epochs, history.loss, color=TRAINING, marker=marker, markersize=4, label="training")
    if history.val_loss.size:
        axes.plot(epochs, history.val_loss, color=VALIDATION, marker=marker, markersize=4, label="validation")
    if history.best_epoch is not None:
        axes.axvline(
            history.best_epoch, color=FAINT, linestyle=":", label=f"best: epoch {history.best_epoch}"
        )
    pictures.loss_axes(axes, [history.loss, history.val_loss], "Loss")


def _values(axes: Any, answer: Answer, part: Part, y_pred: NDArray[Any]) -> None:
    """Dots of true and predicted values; on the line they are equal."""
    every = -(-len(part) // DOTS)
    true = quantities(part.target, answer.name)[::every]
    predicted = answer.decide(y_pred, standardised=True)[::every]
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    axes.plot([low, high], [low, high], color=FAINT, linewidth=1)
    axes.scatter(true, predicted, s=12, color=TRAINING, alpha=0.5, linewidths=0)
    axes.set_xlabel(f"true {answer.name}")
    axes.set_ylabel("predicted")
    axes.set_title(f"Predicted and true: {part.name}", **pictures.HEADING)
    axes.spines[["top", "right"]].set_visible(False)


def _residuals(axes: Any, answer: Answer, part: Part, y_pred: NDArray[Any]) -> None:
    """What is left of the target where the prediction is taken off: a pattern is what was not learnt."""
    every = -(-len(part) // DOTS)
    predicted = answer.decide(y_pred, standardised=True)[::every]
    axes.scatter(
        predicted,
        quantities(part.target, answer.name)[::every] - predicted,
        s=12,
        color=TRAINING,
        alpha=0.5,
        linewidths=0,
    )
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.set_xlabel(f"predicted {answer.name}")
    axes.set_ylabel("true minus predicted")
    axes.set_title(f"Residuals: {part.name}", **pictures.HEADING)
    axes.spines[["top", "right"]].set_visible(False)


def _calibration(axes: Any, scores: NDArray[np.float64], right: NDArray[np.bool_]) -> None:
    """How often the class with the highest score is the true one, by that score; on the line it is as often.

    scores, right: (rows,) of that class. A dot has an area by its rows.
    """
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    rows = np.bincount(bins, minlength=BINS)
    used = rows > 0
    mean = np.bincount(bins, scores, BINS)[used] / rows[used]
    share = np.bincount(bins, right, BINS)[used] / rows[used]
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.plot(mean, share, color=TRAINING, linewidth=1)
    axes.scatter(mean, share, s=20 + 200 * rows[used] / rows.max(), color=TRAINING, alpha=0.7)
    axes.set_xlabel("score of the predicted class")
    axes.set_ylabel("share of these rows in which it is right")
    axes.set_title("Calibration", **pictures.HEADING)
    axes.spines[["top", "right"]].set_visible(False)
