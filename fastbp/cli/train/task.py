"""What the columns of a table mean to a network: standardised features, encoded targets, and the way back.

A `Task` is made from the training rows alone, travels in the model file's metadata, and turns any later table
into the network's inputs and the network's outputs into predictions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import metrics
from fastbp.cli.errors import DataError
from fastbp.cli.tables.table import Columns, Table
from fastbp.network.architecture import Architecture
from fastbp.tables import targets
from fastbp.tables.targets import Label, Target

FORMAT = 1  # of the metadata below; raised when an older fastbp could misread it
ROWS_AT_ONCE = 4096  # of images whose spread is computed


@dataclass(frozen=True)
class Scaling:
    """Standardisation x -> (x - mean) / scale of each column; scale is 1 for a constant column."""

    mean: NDArray[np.float64]  # (columns,)
    scale: NDArray[np.float64]  # (columns,), positive

    @classmethod
    def fit(cls, values: NDArray[np.float64]) -> Scaling:
        """values: (rows, columns)"""
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = values.mean(axis=0), values.std(axis=0)
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            worst = int(np.argmax(np.abs(values).max(axis=0)))
            raise DataError(f"the values of feature {worst + 1} are too large to be standardised in float64")
        # The spread computed of a constant column may be rounding noise: dividing by that would blow it up.
        constant = spread <= 1e-12 * np.abs(mean)
        return cls(mean, np.where(constant | (spread == 0), 1.0, spread))

    @classmethod
    def none(cls, columns: int) -> Scaling:
        """That of values which stay as they are."""
        return cls(np.zeros(columns), np.ones(columns))

    def apply(self, values: NDArray[Any]) -> NDArray[Any]:
        """(rows, columns), in float64; of no scaling the values themselves."""
        if not self.mean.any() and (self.scale == 1).all():
            return values
        scaled: NDArray[np.float64] = (values - self.mean) / self.scale
        return scaled

    def undo(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        plain: NDArray[np.float64] = values * self.scale + self.mean
        return plain


@dataclass(frozen=True)
class Task:
    columns: Columns
    features: Scaling
    classes: list[Label] | None  # None: regression
    target: Scaling | None  # of the regression target

    # ---- before training ----

    @classmethod
    def fit(cls, table: Table, train: NDArray[np.intp], kind: str) -> Task:
        """Learn classes from all rows, means and spreads from the rows `train` alone.

        Images stay as they are stored; the network scales them (see `scaling_of_images`).
        """
        assert table.target is not None
        if table.image is None:
            features = Scaling.fit(table.features[train])
        else:
            features = Scaling.none(table.features.shape[1])
        if kind == "classification":
            classes = sorted(
                set(targets.labels(table.target, table.columns.target)),
                key=lambda label: (isinstance(label, str), label),
            )
            if len(classes) < 2:
                raise DataError(f"the target {table.columns.target!r} has one class only: {classes[0]!r}")
            return cls(table.columns, features, classes, None)
        values = targets.quantities(table.target, table.columns.target)
        return cls(table.columns, features, None, Scaling.fit(values[train, None]))

    @property
    def outputs(self) -> int:
        """One output a class; two classes share one output, regression has one."""
        return 1 if self.classes is None or len(self.classes) == 2 else len(self.classes)

    @property
    def activations(self) -> tuple[str, ...]:
        """Of the output: those that fit, the usual one first."""
        if self.classes is None:
            return ("identity",)
        return ("sigmoid",) if self.outputs == 1 else ("softmax", "sigmoid")

    def inputs(self, table: Table) -> NDArray[Any]:
        """(rows, features), standardised; of images as they are stored."""
        return self.features.apply(table.features)

    def encode(self, target: Target) -> NDArray[np.float64]:
        """(rows, outputs): what the network is to put out. Raises DataError for an unknown class or text."""
        if self.target is not None:
            return self.target.apply(targets.quantities(target, self.columns.target)[:, None])
        codes = self.codes(target)
        if self.outputs == 1:
            return codes[:, None].astype(np.float64)
        one_hot = np.zeros((len(codes), self.outputs))
        one_hot[np.arange(len(codes)), codes] = 1
        return one_hot

    def codes(self, target: Target) -> NDArray[np.intp]:
        """(rows,): the position of each label in `classes`."""
        assert self.classes is not None
        position = {label: i for i, label in enumerate(self.classes)}
        try:
            return np.array(
                [position[label] for label in targets.labels(target, self.columns.target, self.classes)],
                dtype=np.intp,
            )
        except KeyError as error:
            raise DataError(f"class {error.args[0]!r} of the target was not in the training data") from None

    # ---- after training ----

    def scores(self, y_pred: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(rows, classes): the outputs as one number in 0..1 a class."""
        wide = y_pred.astype(np.float64)
        return np.hstack([1 - wide, wide]) if self.outputs == 1 else wide

    def decide(self, y_pred: NDArray[np.floating[Any]]) -> NDArray[np.intp] | NDArray[np.float64]:
        """(rows,): class positions, or the target's values in its own units."""
        if self.target is not None:
            return self.target.undo(y_pred.astype(np.float64))[:, 0]
        best: NDArray[np.intp] = self.scores(y_pred).argmax(axis=1)
        return best

    def spread(self, std: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(rows, classes), or (rows, 1) in the target's units: the standard deviation of predictions, from
        that of the outputs (rows, outputs)."""
        wide = std.astype(np.float64)
        if self.target is not None:
            return wide * self.target.scale
        return np.hstack([wide, wide]) if self.outputs == 1 else wide

    def quality(self, y_pred: NDArray[np.floating[Any]], target: Target) -> dict[str, float]:
        """Name the measures and give their values."""
        if self.target is not None:
            return regression_quality(self.decide(y_pred), targets.quantities(target, self.columns.target))
        codes = self.codes(target)
        quality = classification_quality(self.decide(y_pred), codes)
        if self.outputs == 1:
            both = 0 < codes.sum() < len(codes)
            quality["AUC"] = metrics.auc(codes, y_pred) if both else math.nan
        elif self.outputs > 3:
            quality["top 3"] = metrics.top_k(codes, y_pred, 3)
        return quality

    # ---- in the model file ----

    def to_metadata(self) -> dict[str, Any]:
        return {
            "fastbp_table": FORMAT,
            "target": self.columns.target,
            "features": self.columns.features,
            "named": self.columns.named,
            "width": self.columns.width,
            "feature_mean": self.features.mean.tolist(),
            "feature_scale": self.features.scale.tolist(),
            "classes": self.classes,
            "target_mean": None if self.target is None else self.target.mean.tolist(),
            "target_scale": None if self.target is None else self.target.scale.tolist(),
        }

    @classmethod
    def from_metadata(cls, path: str, metadata: dict[str, Any], network: Architecture) -> Task:
        """Read `to_metadata` back; the file may come from anybody, so everything is checked."""
        if "fastbp_table" not in metadata:
            raise DataError(
                f"{path} says nothing about its columns: it was not written by `fastbp train` "
                "(a model saved from Python is used from Python: fastbp.MLP.load)"
            )
        if metadata["fastbp_table"] != FORMAT:
            raise DataError(
                f"{path} was written by another version of fastbp (table format {metadata['fastbp_table']})"
            )
        try:
            task = cls._read(metadata, network.inputs)
            fitting = task.outputs == network.outputs and network.output in task.activations
            fitting = fitting and (task.classes is not None or network.loss.of_quantities)
        except (KeyError, TypeError, ValueError, OverflowError):
            fitting = False
        if not fitting:
            raise DataError(f"{path} is damaged: what it says about its columns does not fit its network")
        return task

    @classmethod
    def _read(cls, metadata: dict[str, Any], inputs: int) -> Task:
        """KeyError, TypeError, ValueError or OverflowError for what `to_metadata` cannot have written."""
        features, target, named = metadata["features"], metadata["target"], metadata["named"]
        width, classes = metadata["width"], metadata["classes"]
        texts = isinstance(features, list) and all(isinstance(name, str) for name in [*features, target])
        if not texts or type(named) is not bool or type(width) is not int or len(features) != inputs:
            raise ValueError
        positions = [] if named else [int(name) for name in features]
        if len({*features}) != inputs or any(not 0 <= position < width for position in positions):
            raise ValueError
        scaling = None
        if classes is None:
            scaling = _scaling(metadata["target_mean"], metadata["target_scale"], 1)
        elif (
            not isinstance(classes, list)
            or len(classes) < 2
            or len({*classes}) != len(classes)
            or {*map(type, classes)} not in ({int}, {str})
            or any(isinstance(label, int) and abs(label) >= targets.EXACT for label in classes)
        ):
            raise ValueError
        columns = Columns(features, target, named, width)
        of_features = _scaling(metadata["feature_mean"], metadata["feature_scale"], inputs)
        return cls(columns, of_features, classes, scaling)


def classification_quality(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """predicted, true: (rows,) class positions.

    Balanced accuracy is the mean over the classes of the share that was found.
    """
    found = [float(np.mean(predicted[true == label] == label)) for label in np.unique(true)]
    return {"accuracy": float(np.mean(predicted == true)), "balanced accuracy": float(np.mean(found))}


def scaling_of_images(values: NDArray[Any]) -> tuple[float, float]:
    """(scale, offset) such that all of values * scale + offset together have mean 0 and spread 1.

    One for all pixels: a pixel that is nearly always dark would have a spread of nearly 0.
    """
    blocks = [values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE)]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / values.size
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks)
    scale = 1 / math.sqrt(squares / values.size) if squares else 1.0
    if not (math.isfinite(mean) and math.isfinite(squares)):
        raise DataError("the images' values are too large to be standardised in float64")
    return scale, -mean * scale


def regression_quality(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """predicted, true: (rows,) in the target's units. R2 is nan where the true values are all the same."""
    error = predicted - true
    spread = float(np.sum((true - true.mean()) ** 2))
    return {
        "RMSE": float(np.sqrt(np.mean(error**2))),
        "MAE": float(np.mean(np.abs(error))),
        "R2": 1 - float(np.sum(error**2)) / spread if spread > 0 else float("nan"),
    }


def split_rows(
    strata: NDArray[np.intp] | None,
    rows: int,
    share: float,
    seed: int | tuple[int, ...],
    option: str = "--test-size",
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose at random which rows to train on and which to hold out; (train, held out), both sorted.

    With `strata` (rows,), each class gives its share, and keeps at least one row for training.
    """
    rng = np.random.default_rng(seed)
    if strata is None:
        order = rng.permutation(rows)
        held = order[: round(rows * share)]
    else:
        parts = []
        for label in np.unique(strata):
            members = rng.permutation(np.flatnonzero(strata == label))
            parts.append(members[: min(round(len(members) * share), len(members) - 1)])
        held = np.concatenate(parts)
    mask = np.zeros(rows, dtype=bool)
    mask[held] = True
    train, held = np.flatnonzero(~mask), np.flatnonzero(mask)
    if share > 0 and not len(held):
        raise DataError(f"{option} {share:g} of {rows} rows leaves nothing to test on")
    if not len(train):
        raise DataError(f"{option} {share:g} of {rows} rows leaves nothing to train on")
    return train, held


def _scaling(mean: Any, scale: Any, columns: int) -> Scaling:
    made = Scaling(np.array(mean, dtype=np.float64), np.array(scale, dtype=np.float64))
    if made.mean.shape != (columns,) or made.scale.shape != (columns,):
        raise ValueError
    if not (np.isfinite(made.mean).all() and np.isfinite(made.scale).all() and (made.scale > 0).all()):
        raise ValueError
    return made
