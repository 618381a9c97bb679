"""The target column: whether it names classes or measures a quantity, and its values as either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.cli.tables import cells
from fastbp.cli.tables.table import Target

MANY_CLASSES = 20  # whole numbers with more distinct values than this are taken as a quantity, not as classes
EXACT = 2**53  # from here on, float64 has no longer every whole number: long identifiers would fall together

Label = int | str


def choose_kind(target: Target, name: str) -> str:
    """Text and few distinct whole numbers are classes, everything else is a quantity.

    DataError for numbers that are not written plainly: each would become a class.
    """
    of_rows = labels(target, name)
    texts = _texts(target)
    text = [row for row, cell in enumerate(texts) if cells.number(cell) is None]
    many = len(set(of_rows)) > min(MANY_CLASSES, len(of_rows) // 2)
    _refuse_unusual_forms(texts, text, name)
    if many and 0 < len(text) < len(texts):  # a mark for a missing value, most likely
        raise DataError(
            f"{_place(text[0], name)}: {cells.shown(texts[text[0]])} is not a number, "
            "others are; --task classification would take each value as a class"
        )
    if text:
        return "classification"
    return "classification" if not many and all(map(cells.is_whole, texts)) else "regression"


def _refuse_unusual_forms(texts: Sequence[str], text: Sequence[int], name: str) -> None:
    """text: the rows whose cells are no plain numbers; DataError if all of them are meant to be numbers."""
    forms = {row: cells.unusual_form(texts[row]) for row in text}
    if not forms or None in forms.values():
        return
    # 46,451 may be either; where another row has 3,5 it is a decimal comma.
    told = "a decimal comma" if "a decimal comma" in forms.values() else forms[text[0]]
    row = next(row for row, form in forms.items() if form == told)
    raise DataError(
        f"{_place(row, name)}: {cells.shown(texts[row])} is a number with {told}, numbers like 1234.5 are "
        "expected (--task classification takes each value as a class)"
    )


def check_classes(target: Target, name: str) -> None:
    """DataError where nearly every row would have a class of its own."""
    texts, of_rows = _texts(target), labels(target, name)
    classes = len(set(of_rows))
    numbers = all(cells.number(cell) is not None for cell in texts)
    few = 2 if numbers and not all(map(cells.is_whole, texts)) else MANY_CLASSES
    if classes <= max(few, len(texts) // 2):
        return
    form = next(filter(None, map(cells.unusual_form, texts)), None)
    hint = "it is a quantity: --task regression" if numbers else "text of that kind cannot be predicted"
    if form is not None:
        hint = f"they are numbers with {form}, write them like 1234.5"
    raise DataError(
        f"the target {name!r} has {classes:,} different values in {len(texts):,} rows, too many for classes: "
        + hint
    )


def quantities(target: Target, name: str) -> NDArray[np.float64]:
    """(rows,) numbers. DataError names the first that is none."""
    if isinstance(target, np.ndarray):
        bad = np.flatnonzero(~np.isfinite(target))
        if len(bad):
            raise DataError(f"{_place(bad[0], name)}: {target[bad[0]]} is not a finite number")
        return target
    found = [cells.number(cell) for cell in target]
    for row, value in enumerate(found):
        if value is None:
            _refuse_missing(target[row], row, name)
            form = cells.unusual_form(target[row])
            more = "" if form is None else f", but one with {form}: numbers like 1234.5 are expected"
            raise DataError(f"{_place(row, name)}: {cells.shown(target[row])} is not a number{more}")
    return np.array(found, dtype=np.float64)


def labels(target: Target, name: str, known: Sequence[Label] = ()) -> list[Label]:
    """Whole numbers as int ("3", "3.0" and 3.0 are one class), anything else as text, as it is written.

    One label of text, or one with zeros in front, makes all of them text, so that "1" and "1.0" stay apart
    beside "1a", and "1" and "01"; with `known` labels, theirs decide. DataError for what marks a missing one.
    """
    texts = _texts(target)
    for row, cell in enumerate(texts):
        if cell not in known:
            _refuse_missing(cell, row, name)
    if any(isinstance(label, str) for label in known):
        return [*texts]
    if all(cells.is_whole(cell) and not cells.is_padded(cell) for cell in texts):
        numbers = [int(cell.partition(".")[0]) for cell in texts]
        if all(abs(value) < EXACT for value in numbers):
            return [*numbers]
    return [*texts]


def _texts(target: Target) -> list[str]:
    """As written; numbers of an array as Python writes them."""
    if not isinstance(target, np.ndarray):
        return target
    return [str(int(v)) if v.is_integer() and abs(v) < EXACT else repr(v) for v in target.tolist()]


def _refuse_missing(cell: str, row: int, name: str) -> None:
    if not cell:
        raise DataError(f"{_place(row, name)} is empty: leave out rows whose target is not known")
    if cells.is_missing(cell):
        raise DataError(
            f"{_place(row, name)}: {cell!r} marks a missing value: leave out rows whose target is not known "
            "(or give that class another name)"
        )


def _place(row: int, name: str) -> str:
    return f"row {row + 1}, column {name!r} (the target)"
