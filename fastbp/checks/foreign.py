"""What callers have instead of arrays: lists, tables with named columns, sparse and masked arrays, tensors.

What converts without loss is converted. All else is refused, with the name of the argument, and of the column
where there is one, and with what to do.
"""

from __future__ import annotations

import datetime
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.checks.names import shown

Array = NDArray[Any]


def as_array(name: str, value: Any) -> Array:
    """`value` as an ndarray of whatever dtype; TypeError or ValueError that names it if it cannot be one."""
    if type(value) is np.ndarray:
        return _with_proper_booleans(value)
    refuse_masked(name, value)
    _refuse_sparse(name, value)
    if is_table(value):
        return _of_table(name, value)
    if hasattr(value, "to_numpy") and hasattr(value, "dtype"):  # one column of a table
        return _of_column(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers: {error}") from None
    except Exception as error:  # whatever __array__ of somebody else's class raises
        raise TypeError(f"{name} is a {type(value).__name__}, which gives no array: {error}") from error
    return _with_proper_booleans(array)


def refuse_masked(name: str, value: object) -> None:
    """TypeError if this is a masked array, or rows of them, whose masked numbers would be taken for data."""
    if isinstance(value, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in value):
        raise TypeError(
            f"{name} is a list of masked arrays, and what lies behind their masks is no data: leave those "
            "rows out, or fill each with filled(value)"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array, and what lies behind its mask is no data: leave those rows out, or "
            f"fill them with {name}.filled(value)"
        )


def _refuse_sparse(name: str, value: Any) -> None:
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(
            f"{name} is a sparse matrix ({type(value).__name__} of shape {value.shape}), which is taken as X "
            f"of a model only: {name}.toarray() makes an array of it"
        )


def _with_proper_booleans(array: Array) -> Array:
    """Booleans with the bytes 0 and 1, as compiled code reads them; a view of bytes may have others."""
    if array.dtype.kind != "b" or array.size == 0:
        return array
    stored = array.view(np.uint8)
    return array if stored.max() <= 1 else stored != 0


# ---- tables -----------------------------------------------------------------------------------------------


def is_table(value: Any) -> bool:
    """Whether it is a DataFrame: of pandas, polars or whoever else has such columns."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy")


def column_names(value: Any) -> tuple[str, ...] | None:
    """The names of a table's columns where all of them are text; else None, also for what is no table."""
    if type(value) is np.ndarray or not is_table(value):
        return None
    names = tuple(value.columns)
    return names if all(isinstance(name, str) for name in names) else None


def _columns(table: Any) -> Iterator[tuple[Any, Any]]:
    if hasattr(table, "items"):
        yield from table.items()
    else:
        yield from zip(table.columns, table.iter_columns(), strict=True)


def _of_table(name: str, table: Any) -> Array:
    """(rows, columns), of the dtype that holds the numbers of all columns."""
    columns = [_of_column(f"column {title!r} of {name}", column) for title, column in _columns(table)]
    if not columns:
        return np.empty((len(table), 0))
    if len({column.dtype for column in columns}) == 1:
        array = np.asarray(table.to_numpy())  # without a copy, where the table holds one block of numbers
        if array.dtype == columns[0].dtype:
            return _with_proper_booleans(array)
    return np.column_stack(columns)


def _of_column(name: str, column: Any) -> Array:
    """(rows,), of numbers."""
    values = np.asarray(column.to_numpy())
    if values.dtype.kind in "biuf":
        return _with_proper_booleans(values)
    if values.dtype.kind in "Mm":
        raise TypeError(
            f"{name} holds dates or times ({values.dtype}), expected real numbers: make columns of what "
            "matters about them, such as the hour, the weekday or the days since the first one"
        )
    if values.dtype.kind == "O":
        return _of_objects(name, values)
    raise TypeError(f"{name} has dtype {values.dtype}, expected real numbers")


def _of_objects(name: str, values: Array) -> Array:
    """Python's numbers, as columns of mixed or nullable dtypes give them."""
    for row, value in enumerate(values.reshape(-1)):
        if isinstance(value, (bool, numbers.Real, np.bool_)):
            continue
        if isinstance(value, str):
            raise TypeError(f"{name} holds text, {shown(value)} in row {row}: {TEXT_TO_NUMBERS}")
        if isinstance(value, (datetime.date, datetime.time, datetime.timedelta)):
            raise TypeError(
                f"{name} holds dates or times, {shown(value)} in row {row}, expected real numbers"
            )
        if value is None or type(value).__name__ in ("NAType", "NaTType"):
            raise ValueError(
                f"{name} has no value in row {row} ({value!r}): fill such rows, or leave them out"
            )
        raise TypeError(f"{name} holds {shown(value)} in row {row}, expected real numbers")
    converted = np.array(values.tolist())
    return converted if converted.dtype.kind in "biuf" else converted.astype(np.float64)


TEXT_TO_NUMBERS = (
    "expected real numbers; make a column of 0 and 1 for each of a few values (pandas.get_dummies), or, if "
    "they have an order, number them"
)


def hint_for(array: Array, *, of_targets: bool = False) -> str:
    """What to do about an array of another kind than numbers; begins with a semicolon, or is empty."""
    kind = array.dtype.kind
    first = array.reshape(-1)[0] if array.size else None
    if kind in "US" or (kind == "O" and isinstance(first, (str, bytes))):
        if of_targets:
            return (
                "; number the classes: names, labels = np.unique(Y, return_inverse=True), then names[labels] "
                "are the classes again"
            )
        return f"; it holds text ({first!r}): numbers in quotes become numbers with astype(float)"
    if kind == "O" and all(isinstance(v, (bool, numbers.Real)) for v in array.reshape(-1)[:1000].tolist()):
        return "; these are Python's numbers: astype(float) makes an array of numbers"
    if kind == "c":
        return "; of complex numbers give the real and the imaginary part as two columns"
    if kind in "Mm":
        return "; make numbers of the dates or times, such as days since the first one"
    return ""
