"""The target column: whether it names classes or measures a quantity, and its values as either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.tables import cells, series
from fastbp.tables.wording import DataError

MANY_CLASSES = 20  # whole numbers with more distinct values than this are taken as a quantity, not as classes
EXACT = 2**53  # from here on, float64 has no longer every whole number: long identifiers would fall together
INTERNED = 100_000  # different texts of a target that are kept as they are written

Label = int | str
Target = list[str] | NDArray[np.float64]  # of each row: text as it was read, or numbers


def choose_kind(target: Target, name: str) -> str:
    """Text and few distinct whole numbers are classes, everything else is a quantity.

    DataError for numbers that are not written plainly: each would become a class.
    """
    if isinstance(target, np.ndarray):
        many = min(MANY_CLASSES, len(target) // 2)
        if not np.isnan(target).any() and len(np.unique(target)) > many:
            return "regression"  # without a text for each of perhaps millions of different numbers
    texts = _texts(target)
    classes, distinct = {*labels(target, name)}, {*texts}
    many = len(classes) > min(MANY_CLASSES, len(texts) // 2)
    text = {cell for cell in distinct if cells.number(cell) is None}
    _refuse_unusual_forms(texts, text, name)
    if many and text and text != distinct:
        row = next(row for row, cell in enumerate(texts) if cell in text)
        raise DataError(
            f"{_place(row, name)}: {cells.shown(texts[row])} is not a number, others are; "
            "--task classification would take each value as a class"
        )
    if text:
        return "classification"
    return "classification" if not many and all(map(cells.is_whole, distinct)) else "regression"


def _refuse_unusual_forms(texts: Sequence[str], text: set[str], name: str) -> None:
    """text: the cells that are no plain numbers; DataError if all of them are meant to be numbers."""
    forms = {cell: cells.unusual_form(cell) for cell in text}
    if not forms or None in forms.values():
        return
    # 46,451 may be either; where another row has 3,5 it is a decimal comma.
    comma = {cell for cell, form in forms.items() if form == "a decimal comma"}
    row = next(row for row, cell in enumerate(texts) if cell in (comma or text))
    raise DataError(
        f"{_place(row, name)}: {cells.shown(texts[row])} is a number with {forms[texts[row]]}, numbers like "
        "1234.5 are expected (--task classification takes each value as a class)"
    )


def check_classes(target: Target, name: str) -> None:
    """DataError where nearly every row would have a class of its own."""
    texts = _texts(target)
    classes, distinct = len({*labels(target, name)}), {*texts}
    numbers = all(cells.number(cell) is not None for cell in distinct)
    few = 2 if numbers and not all(map(cells.is_whole, distinct)) else MANY_CLASSES
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
    found = {cell: cells.number(cell) for cell in {*target}}
    if None in found.values():
        row = next(row for row, cell in enumerate(target) if found[cell] is None)
        _refuse_missing(target[row], row, name)
        form = cells.unusual_form(target[row])
        more = "" if form is None else f", but one with {form}: numbers like 1234.5 are expected"
        raise DataError(f"{_place(row, name)}: {cells.shown(target[row])} is not a number{more}")
    return np.fromiter((found[cell] for cell in target), np.float64, len(target))


def labels(target: Target, name: str, known: Sequence[Label] = ()) -> list[Label]:
    """Whole numbers as int ("3", "3.0" and 3.0 are one class), anything else as text, as it is written.

    One label of text, or one with zeros in front, makes all of them text, so that "1" and "1.0" stay apart
    beside "1a", and "1" and "01"; with `known` labels, theirs decide. DataError for what marks a missing one.
    """
    texts = _texts(target)
    if not cells.MISSING.isdisjoint(missing := {*texts} - {*known}) or "" in missing:
        row = next(i for i, cell in enumerate(texts) if cell in missing and cells.is_missing(cell))
        _refuse_missing(texts[row], row, name)
    if any(isinstance(label, str) for label in known):
        return [*texts]
    distinct = {*texts}
    if all(cells.is_whole(cell) and not cells.is_padded(cell) for cell in distinct):
        numbers = {cell: int(float(cell)) for cell in distinct}
        if all(abs(value) < EXACT for value in numbers.values()):
            return [numbers[cell] for cell in texts]
    return [*texts]


def _texts(target: Target) -> list[str]:
    """As written; numbers of an array as Python writes them."""
    if not isinstance(target, np.ndarray):
        return target
    values, at = np.unique(target, return_inverse=True)
    written = [str(int(v)) if v.is_integer() and abs(v) < EXACT else repr(v) for v in values.tolist()]
    return [written[i] for i in at.tolist()]


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


# ---- from a table --------------------------------------------------------------------------------------


class Collector:
    """The target column of a table that comes piece by piece, as text as it is written, or as numbers.

    Each distinct text is kept once; of more than INTERNED, which are numbers, only their values are kept.
    """

    def __init__(self, name: str) -> None:
        self._name, self._rows = name, 0
        self._known: dict[str, str] = {}
        self._pieces: list[Target] = []
        self._only_values = False

    def add(self, column: Any) -> None:
        """column: a Series. DataError for what can be no target."""
        if series.is_moment(column) or series.is_duration(column):
            raise DataError(
                f"the target {self._name!r} is of dates or times: a number, text, or True and False "
                "can be predicted"
            )
        piece: Target
        if series.is_number(column) and not series.is_boolean(column):
            piece = series.floats(column)
        else:
            piece = self._texts(series.coded(column))
        self._pieces.append(piece)
        self._rows += len(column)
        if len(self._known) > INTERNED:
            self._keep_values()

    def _texts(self, found: series.Coded) -> Target:
        if self._only_values:
            return self._values([*found.distinct, ""])[found.codes]
        table = [self._known.setdefault(text, text) for text in found.distinct] + [""]
        return [table[code] for code in found.codes.tolist()]

    def _keep_values(self) -> None:
        self._only_values = True
        for i, piece in enumerate(self._pieces):
            if isinstance(piece, list):
                self._pieces[i] = self._values(piece)
        self._known = {}

    def _values(self, texts: Sequence[str]) -> NDArray[np.float64]:
        found = [np.nan if cells.is_missing(text) else cells.number(text) for text in texts]
        if None in found:
            text = texts[found.index(None)]
            raise DataError(
                f"the target {self._name!r} has more than {INTERNED:,} different values, among them "
                f"{cells.shown(text)}, which is not a number: text of that kind cannot be predicted"
            )
        return np.array(found, dtype=np.float64)

    def collected(self) -> Target:
        if all(isinstance(piece, np.ndarray) for piece in self._pieces):
            return np.concatenate(self._pieces) if self._pieces else np.empty(0)
        return [text for piece in self._pieces for text in _texts(piece)]


def known_rows(target: Target) -> NDArray[np.intp]:
    """The rows whose target is not missing."""
    if isinstance(target, np.ndarray):
        return np.flatnonzero(~np.isnan(target))
    missing = {text for text in {*target} if cells.is_missing(text)}
    return np.flatnonzero([text not in missing for text in target])


def picked(target: Target, rows: NDArray[np.intp]) -> Target:
    """The target of these rows."""
    return target[rows] if isinstance(target, np.ndarray) else [target[i] for i in rows.tolist()]
