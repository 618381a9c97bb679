"""Targets that are classes, what values a loss takes, and the weights of samples.

Where samples are weighted, their weights stand in one more column behind the targets, so that whatever picks,
copies or shuffles rows takes the weight along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.activations import Activation
from fastbp.inputs.sources import Labels, Rows
from fastbp.losses import Loss

Array = NDArray[Any]

# How far a row of probabilities may be from a sum of 1: float32 rows are off by 1e-6 at most.
SUM_TOLERANCE = 1e-5


# Rows whose targets are compared with what the output can reach: enough to notice units that differ.
LOOKED_AT = 1024
# So far beyond what the output reaches it comes near enough: targets were scaled, with some rounding.
NEAR = 0.01


# ---- values ---------------------------------------------------------------------------------------------


def is_within_reach(
    targets: Array | Rows, output: Activation, loss: Loss, is_within: Callable[[Array, float, float], bool]
) -> bool:
    """A quick look: False if the output may not reach these targets, see `warn_if_out_of_reach`."""
    if not loss.of_quantities or (output.low == -math.inf and output.high == math.inf):
        return True
    return is_within(np.asarray(targets[:LOOKED_AT]), output.low - NEAR, output.high + NEAR)


def warn_if_out_of_reach(
    targets: Array | Rows, output: Activation, loss: Loss, is_within: Callable[[Array, float, float], bool]
) -> None:
    """Warn the caller of `fit` about targets that no value of the output's activation comes near.

    The first rows of `targets` (rows, outputs) are looked at. Losses with targets of their own kind (classes,
    signs, probabilities) have refused wrong ones by now. is_within : a quick look, see `Backend`.
    """
    if is_within_reach(targets, output, loss, is_within):
        return
    seen = np.asarray(targets[:LOOKED_AT])
    low, high = float(seen.min()), float(seen.max())
    if not (low < output.low - NEAR or high > output.high + NEAR):  # NaN is none of its business
        return
    reach = f"{output.low:.4g} to {output.high:g}" if output.high < math.inf else f"{output.low:.4g} up"
    checks.warn(
        f"Y has values from {low:.4g} to {high:.4g}, but output={output.name!r} only reaches {reach}: the "
        "network cannot learn these targets; scale them, or use output='identity'"
    )


def labels_of(name: str, Y: object, rows: int, outputs: int, dtype: np.dtype[Any]) -> Labels | None:
    """Labels 0 .. outputs - 1, one for each row; None if Y is not a list or column of labels."""
    labels = checks.as_array(name, Y)
    if labels.ndim != 1 and not (labels.ndim == 2 and labels.shape[1] == 1):
        return None
    expected = f"class labels 0..{outputs - 1} (the model has {outputs} outputs)"
    if len(labels) != rows:
        raise ValueError(
            f"{name} has {len(labels)} labels, X has {rows} rows: {name} must be ({rows},) {expected}, "
            f"or ({rows}, {outputs}), one column a class"
        )
    if labels.dtype.kind not in "biuf":
        hint = checks.hint_for(labels, of_targets=True)
        raise TypeError(f"{name} has dtype {labels.dtype}, expected {expected}{hint}")
    labels = labels.reshape(-1)
    if labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    bad = ~((labels >= 0) & (labels < outputs) & (labels == np.floor(labels)))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(f"{name}[{first}] is {labels[first]:g}, expected {expected}")
    return Labels(labels, outputs, dtype)


def require_values(name: str, array: Array, loss: Loss) -> None:
    if loss.targets_in_unit_interval and not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(
            f"{name} has values from {array.min():g} to {array.max():g}, "
            f"loss={loss.name!r} needs targets in [0, 1]"
        )
    if loss.targets_are_counts and not array.min() >= 0:
        raise ValueError(f"{name} holds {array.min():g}, loss={loss.name!r} needs targets of at least 0")
    if loss.targets_are_signs and not (np.abs(array) == 1).all():
        wrong = array[np.abs(array) != 1][0]
        raise ValueError(f"{name} holds {wrong:g}, loss={loss.name!r} needs targets -1 and 1")
    if loss.of_classes:
        needed = f"loss={loss.name!r} needs rows of probabilities"
        if not array.min() >= 0:
            row, column = np.argwhere(array < 0)[0]
            raise ValueError(f"{name}[{row}, {column}] is {array[row, column]:g}, {needed}, or class labels")
        sums = array.sum(axis=1, dtype=np.float64)
        wrong_rows = np.abs(sums - 1) > SUM_TOLERANCE
        if wrong_rows.any():
            row = int(np.argmax(wrong_rows))
            raise ValueError(f"row {row} of {name} has the sum {sums[row]:.7g}, {needed}, whose sum is 1")


# ---- weights --------------------------------------------------------------------------------------------


def _weights(name: str, value: object, keys: Sequence[int], meaning: str) -> NDArray[np.float64]:
    """`value` as float64, one finite number of at least 0 for each of the keys, by which errors call it."""
    weights = checks.as_floats(name, value, checks.FLOAT64)
    if weights.shape != (len(keys),):
        raise ValueError(f"{name} has shape {weights.shape}, expected ({len(keys)},): {meaning}")
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(f"{name}[{keys[first]}] is {weights[first]:g}, expected a finite number, at least 0")
    return weights


def sample_weights(name: str, value: object, rows: int) -> NDArray[np.float64]:
    return _weights(name, value, range(rows), f"one weight for each of the {rows} rows of X")


def class_weights(value: object, Y: Array | Labels, loss: Loss) -> NDArray[np.float64]:
    """(rows,): the weight of each row's class; of a row of probabilities, the weight to be expected."""
    outputs = Y.shape[1]
    shares: Array = np.empty((0, 0))  # (rows, classes): how much of each row is of each class
    if isinstance(Y, Labels):
        outputs = Y.classes
        names: list[int] = list(range(outputs))
    elif loss.of_classes:
        names = list(range(outputs))
        shares = Y.astype(np.float64)
    elif outputs == 1 and (loss.targets_are_signs or loss.targets_in_unit_interval):
        names = [-1, 1] if loss.targets_are_signs else [0, 1]
        positive = ((Y + 1) / 2 if loss.targets_are_signs else Y).astype(np.float64)
        shares = np.hstack([1 - positive, positive])
    else:
        raise ValueError(
            "class_weight is for classes: loss='categorical_crossentropy', or 'binary_crossentropy' or "
            f"'hinge' with one output; this model has loss={loss.name!r} and {outputs} "
            f"output{'s' if outputs > 1 else ''} (sample_weight works with every loss)"
        )
    known = f"classes are {', '.join(map(str, names[:10]))}{', ...' if len(names) > 10 else ''}"
    if isinstance(value, str):
        if value != "balanced":
            raise ValueError(
                f"unknown class_weight {value!r}, expected 'balanced', a dict {{class: weight}} or an array"
            )
        counts = np.bincount(Y.labels, minlength=outputs) if isinstance(Y, Labels) else shares.sum(axis=0)
        there = counts > 0  # as in scikit-learn, classes that do not occur have no part
        of_class = np.divide(len(Y), there.sum() * counts, out=np.zeros(len(names)), where=there)
    elif isinstance(value, Mapping) or (hasattr(value, "index") and hasattr(value, "items")):
        value = dict(value.items())  # of a column of a table by its index, which names the classes
        for key in value:
            if key not in names:
                raise ValueError(f"class_weight has the key {checks.shown(key)}, {known}")
        of_class = _weights("class_weight", [value.get(name, 1.0) for name in names], names, known)
    else:
        of_class = _weights("class_weight", value, names, f"one weight for each class; {known}")
    row_weights: NDArray[np.float64] = of_class[Y.labels] if isinstance(Y, Labels) else shares @ of_class
    return row_weights


def weighted(Y: Array | Labels, weights: NDArray[np.float64]) -> Array | Labels:
    """(rows, outputs + 1): the weights behind the targets. ValueError for what their dtype cannot hold."""
    if weights.max() > float(np.finfo(Y.dtype).max):
        raise ValueError(f"weights go up to {weights.max():g}, which is infinite in {Y.dtype}")
    of_dtype = weights.astype(Y.dtype)
    return Y.with_weights(of_dtype) if isinstance(Y, Labels) else np.column_stack([Y, of_dtype])
