"""The target of a table: encoded for the network, and the way back from its outputs; how good they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastbp import metrics
from fastbp.tables import targets
from fastbp.tables.kinds import Scale
from fastbp.tables.targets import Label, Target
from fastbp.tables.wording import DataError

ROWS_AT_ONCE = 1 << 16  # that are measured


@dataclass(frozen=True)
class Answer:
    """What a network is to find out: one of some classes, or a quantity.

    name : the target column's.
    classes : int or str, in the order of the network's outputs; None: a quantity.
    scale : of the quantity, as it was standardised for training; None: classes.
    """

    name: str
    classes: list[Label] | None
    scale: Scale | None

    # ---- before training ----

    @classmethod
    def of_classes(cls, target: Target, name: str) -> Self:
        found = {*targets.labels(target, name).values()}
        classes = sorted(found, key=lambda label: (isinstance(label, str), label))
        if len(classes) < 2:
            raise DataError(f"the target {name!r} has one class only: {classes[0]!r}")
        return cls(name, classes, None)

    @classmethod
    def of_quantity(cls, values: NDArray[np.float64], name: str) -> Self:
        """values: (rows,), those of the training rows."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean, spread = float(values.mean()), float(values.std())
        if not (math.isfinite(mean) and math.isfinite(spread)):
            raise DataError(f"the values of the target {name!r} are too large to be standardised in float64")
        if max(abs(mean), spread) > 1e300:
            raise DataError(f"the values of the target {name!r} are too large for the network's outputs")
        if spread <= 1e-12 * abs(mean):
            raise DataError(
                f"the target {name!r} is {values[0]:g} in every row to train on: there is nothing to learn"
            )
        return cls(name, None, Scale(mean, spread))

    @property
    def outputs(self) -> int:
        """One output a class; two classes share one output, a quantity has one."""
        return 1 if self.classes is None or len(self.classes) == 2 else len(self.classes)

    @property
    def activations(self) -> tuple[str, ...]:
        """Of the output: those that fit, the usual one first."""
        if self.classes is None:
            return ("identity",)
        return ("sigmoid",) if self.outputs == 1 else ("softmax", "sigmoid")

    def encode(self, target: Target, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """(rows, outputs): what the network is to put out in training.

        Raises DataError for an unknown class or text.
        """
        if self.scale is not None:
            apart = targets.quantities(target, self.name)[:, None] - self.scale.mean
            apart /= self.scale.spread
            return apart.astype(dtype, copy=False)
        codes = self.codes(target)
        if self.outputs == 1:
            return codes[:, None].astype(dtype)
        one_hot = np.zeros((len(codes), self.outputs), dtype)
        one_hot[np.arange(len(codes)), codes] = 1
        return one_hot

    def codes(self, target: Target) -> NDArray[np.intp]:
        """(rows,): the position of each label in `classes`."""
        assert self.classes is not None
        texts = targets.as_texts(target)
        found = targets.labels(texts, self.name, self.classes)
        position = {label: i for i, label in enumerate(self.classes)}
        unknown = {text for text, label in found.items() if label not in position}
        if unknown:
            label = found[texts[texts.first_row(unknown)]]
            raise DataError(f"class {label!r} of the target was not in the training data")
        return texts.mapped({text: position[label] for text, label in found.items()}, np.intp)

    # ---- after training ----

    def scores(self, y_pred: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """(rows, classes): the outputs as one number in 0..1 a class."""
        wide = y_pred.astype(np.float64)
        return np.hstack([1 - wide, wide]) if self.outputs == 1 else wide

    def decide(
        self, y_pred: NDArray[np.floating[Any]], *, standardised: bool
    ) -> NDArray[np.intp] | NDArray[np.float64]:
        """(rows,): class positions, or the target's values in its own units.

        standardised: whether the outputs are a standardised quantity, rather than one in its own units.
        """
        if self.scale is not None:
            values: NDArray[np.float64] = y_pred[:, 0].astype(np.float64)
            if standardised:
                values *= self.scale.spread
                values += self.scale.mean
            return values
        if self.outputs == 1:
            return (y_pred[:, 0] > 0.5).astype(np.intp)
        best: NDArray[np.intp] = y_pred.argmax(axis=1)
        return best

    def quality(
        self, y_pred: NDArray[np.floating[Any]], target: Target, *, standardised: bool
    ) -> dict[str, float]:
        """Name the measures and give their values."""
        decided = self.decide(y_pred, standardised=standardised)
        if self.scale is not None:
            return regression_quality(decided, targets.quantities(target, self.name))
        codes = self.codes(target)
        quality = classification_quality(decided, codes)
        if self.outputs == 1:
            both = 0 < codes.sum() < len(codes)
            quality["AUC"] = metrics.auc(codes, y_pred) if both else math.nan
        elif self.outputs > 3:
            quality["top 3"] = metrics.top_k(codes, y_pred, 3)
        return quality

    def baseline(self, training: Target, held: Target) -> tuple[str, dict[str, float]]:
        """The best constant answer, learnt from one part, and what it reaches on another."""
        if self.classes is None:
            mean = targets.quantities(training, self.name).mean()
            values = targets.quantities(held, self.name)
            return f"always {mean:.4g}", regression_quality(np.full(len(held), mean), values)
        most = int(np.bincount(self.codes(training)).argmax())
        quality = classification_quality(np.full(len(held), most), self.codes(held))
        return f"always {self.classes[most]!r}", quality

    # ---- in the model file ----

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "classes": self.classes,
            "scale": None if self.scale is None else self.scale.to_json(),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """KeyError, TypeError or ValueError for what `to_json` cannot have written."""
        name, classes = values["name"], values["classes"]
        if type(name) is not str:
            raise ValueError
        if classes is None:
            return cls(name, None, Scale.from_json(values["scale"]))
        if (
            not isinstance(classes, list)
            or len(classes) < 2
            or len({*classes}) != len(classes)
            or {*map(type, classes)} not in ({int}, {str})
            or any(isinstance(label, int) and abs(label) >= targets.EXACT for label in classes)
        ):
            raise ValueError
        return cls(name, classes, None)


def classification_quality(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """predicted, true: (rows,) class positions.

    Balanced accuracy is the mean over the classes of the share that was found.
    """
    found = [float(np.mean(predicted[true == label] == label)) for label in np.unique(true)]
    return {"accuracy": float(np.mean(predicted == true)), "balanced accuracy": float(np.mean(found))}


def regression_quality(predicted: NDArray[Any], true: NDArray[Any]) -> dict[str, float]:
    """predicted, true: (rows,) in the target's units. R2 is nan where the true values are all the same."""
    rows, mean = len(true), true.mean()
    squared = absolute = spread = 0.0
    for start in range(0, rows, ROWS_AT_ONCE):  # beside millions of rows there shall be no copies of them
        here = true[start : start + ROWS_AT_ONCE]
        error = predicted[start : start + ROWS_AT_ONCE] - here
        squared += float(np.sum(error**2))
        absolute += float(np.sum(np.abs(error)))
        spread += float(np.sum((here - mean) ** 2))
    return {
        "RMSE": math.sqrt(squared / rows),
        "MAE": absolute / rows,
        "R2": 1 - squared / spread if spread > 0 else math.nan,
    }
