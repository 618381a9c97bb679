"""Arrays: what can be made one, of which dtype, and whether all of its numbers are finite."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.checks.foreign import as_array, hint_for, refuse_masked

Array = NDArray[Any]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

# What the arguments are called that may be classes.
TARGETS = ("Y", "y_true", "validation_data[1]")
# Numbers of an array that are looked at one by one, with temporary arrays of this size.
LOOKED_AT_ONCE = 1 << 20


def as_numbers(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """`value` as an ndarray of real numbers, which can be converted to `dtype`."""
    array = as_array(name, value)
    if array.dtype != dtype and array.dtype.kind not in "biuf":
        hint = hint_for(array, of_targets=name in TARGETS)
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers ({dtype}){hint}")
    return array


def as_floats(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """`value` as an ndarray of `dtype`: itself where it is one already, else a converted copy."""
    array = as_numbers(name, value, dtype)
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):  # what overflows becomes infinite, which is reported by require_finite
        return array.astype(dtype)


def common_dtype(arguments: Iterable[tuple[str, object]]) -> np.dtype[Any]:
    """The one floating dtype of the arguments that are arrays of floats; float64 if there is none.

    Lists and integer arrays have no say: they are converted to what the others are.
    """
    names: dict[np.dtype[Any], str] = {}
    for name, value in arguments:
        refuse_masked(name, value)
        dtype = getattr(value, "dtype", None)
        if not isinstance(dtype, np.dtype):
            continue
        if dtype.kind not in "biuf":
            raise TypeError(f"{name} has dtype {dtype}, expected float32 or float64")
        if dtype.kind == "f":
            dtype = dtype.newbyteorder("=")
            if dtype not in (FLOAT32, FLOAT64):
                raise TypeError(f"{name} has dtype {dtype}, expected float32 or float64")
            names.setdefault(dtype, name)
    if len(names) > 1:
        both = " and ".join(f"{name} is {dtype}" for dtype, name in names.items())
        raise TypeError(f"{both}: all must have the same dtype, float32 or float64")
    return next(iter(names), FLOAT64)


def require_finite(name: str, array: Array) -> None:
    """Raise ValueError if the array holds NaN or infinity.

    The sum of finite numbers is finite unless it overflows, and a sum needs no temporary array: only where
    it is not finite is every element looked at, in blocks, since the array may be larger than memory.
    """
    with np.errstate(all="ignore"):
        if math.isfinite(array.sum()):
            return
    if not array.ndim:
        raise ValueError(f"{name} is {array}, expected a finite number")
    bad, first = 0, (0,) * array.ndim
    rows = max(1, LOOKED_AT_ONCE * len(array) // array.size)
    for start in range(0, len(array), rows):
        here = np.argwhere(~np.isfinite(array[start : start + rows]))
        if len(here) and not bad:
            first = (start + int(here[0][0]), *map(int, here[0][1:]))
        bad += len(here)
    if bad:
        index = ", ".join(map(str, first))
        raise ValueError(
            f"{name} holds NaN or infinity ({bad} of {array.size} values, the first is "
            f"{name}[{index}] = {array[first]}){_cause(array[first], array.dtype)}"
        )


def _cause(value: Any, dtype: np.dtype[Any]) -> str:
    """What to do about it."""
    if math.isnan(value):
        return ": fill in what is missing, or leave such rows out"
    return f": numbers beyond {np.finfo(dtype).max:.2g} are infinite in {dtype}"


def require_matrix(name: str, array: Array, meaning: str) -> None:
    """Raise ValueError unless the array has two dimensions, as `meaning` says, and is not empty."""
    if array.ndim != 2:
        hint = ""
        if array.ndim == 1:
            hint = f"; for a single row use {name}.reshape(1, -1), for a single column {name}.reshape(-1, 1)"
        raise ValueError(f"{name} has shape {array.shape}, expected two dimensions {meaning}{hint}")
    if array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape} and is empty, expected {meaning} with at least one row"
        )


def require_inputs(X: Array, weights_name: str, fan_in: int) -> None:
    """X must be (batch, fan_in), with at least one row."""
    require_matrix("X", X, f"(batch, {fan_in})")
    if X.shape[1] != fan_in:
        raise ValueError(
            f"X has {X.shape[1]} columns, {weights_name} has {fan_in} rows: X must be (batch, {fan_in})"
        )


def require_targets(name: str, Y: Array, rows: int, outputs: int, *, labels: bool = False) -> None:
    """Y must be (rows, outputs). labels: or class labels (rows,), which are not looked for here."""
    if Y.shape == (rows, outputs):
        return
    hint = f"; or ({rows},), a class label 0..{outputs - 1} for each row" if labels else ""
    if Y.ndim == 1 and outputs == 1:
        hint = f"; {name}.reshape(-1, 1) makes a column of it"
    elif Y.ndim == 1 and not labels:
        hint = "; for class labels use output='softmax' and loss='categorical_crossentropy'"
    raise ValueError(
        f"{name} has shape {Y.shape}, expected ({rows}, {outputs}): one row for each of the {rows} rows of X "
        f"and one column for each of the {outputs} outputs{hint}"
    )


def require_updatable(name: str, array: object) -> None:
    """Raise unless `array` is a writable float32 or float64 ndarray, which can be updated in place."""
    refuse_masked(name, array)
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name} is updated in place and must be a NumPy array, got {type(array).__name__}: nothing "
            "of an update would be seen outside"
        )
    if array.dtype not in (FLOAT32, FLOAT64):
        raise TypeError(
            f"{name} has dtype {array.dtype}, but is updated in place and must be float32 or float64"
        )
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but would be updated in place")
