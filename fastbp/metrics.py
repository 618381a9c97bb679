"""How good predictions are, in plain NumPy; `fit(metrics=...)` takes their names, or functions like these.

All are called as metric(y_true, y_pred) and return a float. y_pred is (rows, outputs), y_true of the same
shape; classes may also come as labels 0 .. outputs - 1 in an integer y_true of shape (rows,) or (rows, 1),
and a single output or target as (rows,). Arrays of other shapes are refused with ValueError.

Where there is one class for each row: with one output, y_true is 0 or 1 (or -1 or 1, with hinge), and the
class is 1 where y_pred is above 0.5 (above 0); with several, y_true is rows with a single 1, the rest 0 or
-1, and the class is the largest output, the first one of equals.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks, losses

Array = NDArray[Any]
Function = Callable[[Any, Any], float]


def accuracy(y_true: ArrayLike, y_pred: ArrayLike, threshold: float | None = None) -> float:
    """The share of rows whose class is the one predicted. ValueError unless y_true has one class a row.

    threshold: of a single output; None: 0.5, and 0 if y_true holds -1.
    """
    targets, predictions = _arrays(y_true, y_pred)
    if predictions.shape[1] > 1:
        return float((predictions.argmax(axis=1) == _labels(targets, predictions.shape[1])).mean())
    positive, middle = _positive(targets)
    return float(((predictions[:, 0] > (middle if threshold is None else threshold)) == positive).mean())


def top_k(y_true: ArrayLike, y_pred: ArrayLike, k: int) -> float:
    """The share of rows whose class is among the k largest outputs; of equals the first ones count as larger.

    y_pred is (rows, classes), 1 <= k <= classes. With k = 1 it is the accuracy. "top_k(3)" in `fit`.
    """
    targets, predictions = _arrays(y_true, y_pred)
    rows, classes = predictions.shape
    if not 1 <= checks.count("k", k) <= classes:
        raise ValueError(f"k is {k}, but y_pred has {classes} columns")
    labels = _labels(targets, classes)
    own = predictions[np.arange(rows), labels][:, None]
    before = (predictions > own) | ((predictions == own) & (np.arange(classes) < labels[:, None]))
    return float((before.sum(axis=1) < k).mean())


def r2(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The coefficient of determination, 1 - sum (y_true - y_pred)² / sum (y_true - mean)², the outputs' mean.

    1 is perfect, 0 what the mean of y_true would reach; a worse prediction is negative. An output whose
    targets are all the same counts 1 if it is predicted exactly, else 0. ValueError for less than two rows.
    """
    targets, predictions = _quantities(y_true, y_pred)
    if len(targets) < 2:
        raise ValueError("r2 needs two rows or more, got 1")
    with np.errstate(all="ignore"):  # what is not finite gives NaN
        residual = np.square(targets - predictions).sum(axis=0)
        spread = np.square(targets - targets.mean(axis=0)).sum(axis=0)
    spread[(targets == targets[0]).all(axis=0)] = 0  # the mean of equal numbers may be off by a rounding
    varies = spread > 0
    with np.errstate(all="ignore"):
        share = np.divide(residual, spread, out=np.where(residual > 0, 1.0, 0.0), where=varies)
        return float((1 - share).mean())


def mae(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The mean of |y_true - y_pred| over all rows and outputs. (The loss "mae" adds the outputs up.)"""
    targets, predictions = _quantities(y_true, y_pred)
    with np.errstate(all="ignore"):
        return float(np.abs(targets - predictions).mean())


def auc(y_true: ArrayLike, y_pred: ArrayLike) -> float:
    """The area under the ROC curve of one output; ValueError unless y_true has both classes.

    It is the share of pairs of a positive and a negative row in which the positive one has the larger
    output, equals counting half: the Mann-Whitney statistic, from the ranks of y_pred.
    """
    targets, predictions = _arrays(y_true, y_pred)
    if predictions.shape[1] > 1:
        raise ValueError(f"auc is for one output, y_pred has {predictions.shape[1]} columns")
    positive, _ = _positive(targets)
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        raise ValueError("auc needs rows of both classes, all of y_true are the same")
    _, place, counts = np.unique(predictions[:, 0], return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # equals share the mean of their ranks, which begin at 1
    above = ranks[place.ravel()][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


# ---- arguments ----------------------------------------------------------------------------------------


def _arrays(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
    """Both with two dimensions; y_true keeps its dtype, so that labels can be told from rows."""
    targets, predictions = checks.as_array("y_true", y_true), checks.as_array("y_pred", y_pred)
    for name, array in (("y_true", targets), ("y_pred", predictions)):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
        if array.ndim not in (1, 2):
            raise ValueError(f"{name} has shape {array.shape}, expected one or two dimensions")
    targets, predictions = (a[:, None] if a.ndim == 1 else a for a in (targets, predictions))
    rows, outputs = predictions.shape
    if predictions.size == 0:
        raise ValueError(f"y_pred has shape {predictions.shape} and is empty")
    if targets.shape != (rows, outputs) and not (targets.shape == (rows, 1) and targets.dtype.kind in "iu"):
        labels = f", or labels ({rows},) of integers" if outputs > 1 else ""
        raise ValueError(
            f"y_true has shape {np.shape(y_true)}, expected that of y_pred, {np.shape(y_pred)}{labels}"
        )
    return targets, predictions


def _quantities(y_true: ArrayLike, y_pred: ArrayLike) -> tuple[Array, Array]:
    targets, predictions = _arrays(y_true, y_pred)
    if targets.shape != predictions.shape:
        raise ValueError(
            f"y_true has shape {np.shape(y_true)}, labels, but quantities like those in y_pred, "
            f"{predictions.shape}, are expected"
        )
    return targets.astype(np.float64), predictions.astype(np.float64)


def _positive(targets: Array) -> tuple[Array, float]:
    """(rows,) whether the class is 1, and the threshold for predictions; targets (rows, 1)."""
    positive: Array = targets[:, 0] == 1
    rest = targets[:, 0][~positive]
    if (rest == 0).all():
        return positive, 0.5
    if (rest == -1).all():
        return positive, 0.0
    wrong = rest[(rest != 0) & (rest != -1)]
    found = f"holds {wrong[0]:g}" if len(wrong) else "holds 0 and -1"
    raise ValueError(f"y_true {found}, expected classes: 0 and 1, or -1 and 1")


def _labels(targets: Array, classes: int) -> NDArray[np.int64]:
    """(rows,) the class of each row, from labels (rows, 1) or rows with a single 1 (rows, classes)."""
    if targets.shape[1] == 1:
        wrong = targets[(targets < 0) | (targets >= classes)]
        if len(wrong):
            raise ValueError(f"y_true holds the label {wrong[0]}, expected 0 to {classes - 1}")
        return targets[:, 0].astype(np.int64)
    ones = targets == 1
    single = ones.sum(axis=1) == 1
    if not (single.all() and np.isin(targets[~ones], (0, -1)).all()):
        raise ValueError(
            "y_true does not name one class a row: expected rows with a single 1, the rest 0 (or -1)"
        )
    labels: NDArray[np.int64] = ones.argmax(axis=1).astype(np.int64)
    return labels


# ---- by name ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metric:
    """An entry of the registry, or a function of the caller's."""

    name: str
    function: Function
    more_is_better: bool | None  # None: not known
    of_classes: bool = False  # else of quantities


METRICS: dict[str, Metric] = {
    entry.name: entry
    for entry in (
        Metric("accuracy", accuracy, True, of_classes=True),
        Metric("r2", r2, True),
        Metric("mae", mae, False),
        Metric("auc", auc, True, of_classes=True),
    )
}
TOP_K = re.compile(r"top_k\((.*)\)")


def more_is_better(name: str) -> bool | None:
    """Whether more of the metric of that name is better; None if it is not known."""
    if TOP_K.fullmatch(name):
        return True
    return METRICS[name].more_is_better if name in METRICS else None


def get(metric: str | Function) -> Metric:
    """The metric of that name, or one that calls that function. ValueError lists the known ones."""
    if callable(metric):
        for entry in METRICS.values():
            if entry.function is metric:
                return entry
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric, None)
    if isinstance(metric, str) and (match := TOP_K.fullmatch(metric)):
        try:
            k = checks.count("k", int(match[1]))
        except ValueError:
            raise ValueError(
                f"metric is {metric!r}, expected a number of classes, as in 'top_k(3)'"
            ) from None
        return Metric(f"top_k({k})", partial(top_k, k=k), True, of_classes=True)
    name = checks.known_name("metric", metric, [*METRICS, "top_k(3)"])
    return METRICS[name]


def chosen(
    metrics: str | Function | Sequence[str | Function], Y: Array | None, outputs: int, loss: str
) -> list[Metric]:
    """The metrics of a training run. Y: the validation targets, or None; outputs, loss: the model's.

    ValueError or TypeError for what is unknown, asked for twice, or does not fit.
    """
    listed = [metrics] if isinstance(metrics, str) or callable(metrics) else metrics
    if not isinstance(listed, Iterable) or isinstance(listed, np.ndarray):
        raise TypeError(f"metrics must be a list of names or functions, got {checks.shown(metrics)}")
    entries = [get(metric) for metric in listed]
    if entries and Y is None:
        raise ValueError("metrics are computed on validation data: give validation_data or validation_split")
    names = [entry.name for entry in entries]
    for name in names:
        if name == "loss" or names.count(name) > 1:
            raise ValueError(
                f"metrics holds {name!r}, which {'is always there' if name == 'loss' else 'is there twice'}"
            )
    if Y is not None:
        for entry in entries:
            if entry.more_is_better is not None:
                _require_fit(entry, Y, outputs, loss)
    if loss == "hinge":  # also where all targets are 1
        signs = partial(accuracy, threshold=0.0)
        entries = [
            replace(entry, function=signs) if entry.function is accuracy else entry for entry in entries
        ]
    return entries


def _require_fit(metric: Metric, Y: Array, outputs: int, loss: str) -> None:
    of_loss = losses.get(loss)
    if not metric.of_classes and (of_loss.of_classes or of_loss.targets_are_signs):
        raise ValueError(f"metric {metric.name!r} is for quantities, loss={loss!r} is for classes")
    if isinstance(metric.function, partial) and metric.function.keywords["k"] >= max(outputs, 2):
        raise ValueError(f"metric {metric.name!r} is always 1 for a model with {outputs} outputs")
    try:
        metric.function(Y, np.zeros((len(Y), outputs)))  # it looks at the targets, whatever is predicted
    except ValueError as error:
        raise ValueError(f"metric {metric.name!r} does not fit the validation data: {error}") from None


def evaluate(metrics: Sequence[Metric], y_true: Array, y_pred: Array) -> dict[str, float]:
    """Each metric's value by its name. TypeError if a function of the caller's returns no number."""
    values = {}
    for metric in metrics:
        value: Any = metric.function(y_true, y_pred)
        try:
            values[metric.name] = float(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"metric {metric.name!r} must return a number, got {checks.shown(value)}"
            ) from None
    return values
