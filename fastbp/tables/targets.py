"""The target column: whether it names classes or measures a quantity, and its values as either."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastbp.tables import cells, series
from fastbp.tables.wording import DataError

MANY_CLASSES = 20  # whole numbers with more distinct values than this are taken as a quantity, not as classes
EXACT = 2**53  # from here on, float64 has no longer every whole number: long identifiers would fall together
LEAVE_OUT = "leave out rows whose target is not known (of a table, --missing-target drop does that)"
INTERNED = 100_000  # different texts of a target that are kept as they are written

Label = int | str


@dataclass(frozen=True, eq=False)
class Texts:
    """A text for each row, in four bytes: every distinct one is kept once."""

    codes: NDArray[np.int32]  # (rows,): positions in `distinct`
    distinct: list[str]  # no two are the same; among a part of the rows there may be some that none has

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        position: dict[str, int] = {}
        codes = (position.setdefault(text, len(position)) for text in texts)
        return cls(np.fromiter(codes, np.int32, len(texts)), [*position])

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, row: int) -> str:
        text: str = self.distinct[self.codes[row]]
        return text

    def present(self) -> set[str]:
        """Those that stand in any row."""
        counts = np.bincount(self.codes, minlength=len(self.distinct))
        return {self.distinct[code] for code in np.flatnonzero(counts)}

    def first_row(self, wanted: Collection[str]) -> int:
        """The first in which one of these stands."""
        among = np.array([text in wanted for text in self.distinct])
        return int(among[self.codes].argmax())

    def mapped(self, values: Mapping[str, float], dtype: type[np.generic]) -> NDArray[Any]:
        """(rows,): the value of each row's text; of texts that no row has it may be missing."""
        return np.array([values.get(text, 0) for text in self.distinct], dtype)[self.codes]


Target = Texts | list[str] | NDArray[np.float64]  # of each row: text as it was read, or numbers


def choose_kind(target: Target, name: str) -> str:
    """Text and few distinct whole numbers are classes, everything else is a quantity.

    DataError for numbers that are not written plainly: each would become a class.
    """
    if isinstance(target, np.ndarray):
        many = min(MANY_CLASSES, len(target) // 2)
        if not np.isnan(target).any() and len(np.unique(target)) > many:
            return "regression"  # without a text for each of perhaps millions of different numbers
    texts = as_texts(target)
    classes, distinct = {*labels(texts, name).values()}, texts.present()
    many = len(classes) > min(MANY_CLASSES, len(texts) // 2)
    text = {cell for cell in distinct if cells.number(cell) is None}
    _refuse_unusual_forms(texts, text, name)
    if many and text and text != distinct:
        row = texts.first_row(text)
        raise DataError(
            f"{_place(row, name)}: {cells.shown(texts[row])} is not a number, others are; "
            "--task classification would take each value as a class"
        )
    if text:
        return "classification"
    return "classification" if not many and all(map(cells.is_whole, distinct)) else "regression"


def _refuse_unusual_forms(texts: Texts, text: set[str], name: str) -> None:
    """text: the cells that are no plain numbers; DataError if all of them are meant to be numbers."""
    forms = {cell: cells.unusual_form(cell) for cell in text}
    if not forms or None in forms.values():
        return
    # 46,451 may be either; where another row has 3,5 it is a decimal comma.
    comma = {cell for cell, form in forms.items() if form == "a decimal comma"}
    row = texts.first_row(comma or text)
    raise DataError(
        f"{_place(row, name)}: {cells.shown(texts[row])} is a number with {forms[texts[row]]}, numbers like "
        "1234.5 are expected (--task classification takes each value as a class)"
    )


def check_classes(target: Target, name: str) -> None:
    """DataError where nearly every row would have a class of its own."""
    texts = as_texts(target)
    classes, distinct = len({*labels(texts, name).values()}), texts.present()
    numbers = all(cells.number(cell) is not None for cell in distinct)
    few = 2 if numbers and not all(map(cells.is_whole, distinct)) else MANY_CLASSES
    if classes <= max(few, len(texts) // 2):
        return
    form = next(filter(None, map(cells.unusual_form, sorted(distinct))), None)
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
            _refuse_missing("" if np.isnan(target[bad[0]]) else "inf", int(bad[0]), name)
            raise DataError(f"{_place(bad[0], name)}: {target[bad[0]]} is not a finite number")
        return target
    texts = as_texts(target)
    found: dict[str, float] = {}
    wrong = set()
    for cell in texts.present():
        value = cells.number(cell)
        if value is None:
            wrong.add(cell)
        else:
            found[cell] = value
    if wrong:
        row = texts.first_row(wrong)
        _refuse_missing(texts[row], row, name)
        form = cells.unusual_form(texts[row])
        more = "" if form is None else f", but one with {form}: numbers like 1234.5 are expected"
        raise DataError(f"{_place(row, name)}: {cells.shown(texts[row])} is not a number{more}")
    return texts.mapped(found, np.float64)


def labels(target: Target, name: str, known: Sequence[Label] = ()) -> dict[str, Label]:
    """The label of each text: whole numbers as int ("3", "3.0" and 3.0 are one class), others as written.

    One label of text, or one with zeros in front, makes all of them text, so that "1" and "1.0" stay apart
    beside "1a", and "1" and "01"; with `known` labels, theirs decide. DataError for what marks a missing one.
    """
    texts = as_texts(target)
    distinct = texts.present()
    missing = {cell for cell in distinct - {*known} if cells.is_missing(cell)}
    if missing:
        row = texts.first_row(missing)
        _refuse_missing(texts[row], row, name)
    as_written: dict[str, Label] = {cell: cell for cell in distinct}
    if any(isinstance(label, str) for label in known):
        return as_written
    if all(cells.is_whole(cell) and not cells.is_padded(cell) for cell in distinct):
        numbers = {cell: int(float(cell)) for cell in distinct}
        if all(abs(value) < EXACT for value in numbers.values()):
            return {**numbers}
    return as_written


def as_texts(target: Target) -> Texts:
    """As written; numbers of an array as Python writes them."""
    if isinstance(target, Texts):
        return target
    if not isinstance(target, np.ndarray):
        return Texts.of(target)
    values, at = np.unique(target, return_inverse=True)
    written = [str(int(v)) if v.is_integer() and abs(v) < EXACT else repr(v) for v in values.tolist()]
    return Texts(at.astype(np.int32), written)


def _refuse_missing(cell: str, row: int, name: str) -> None:
    if not cell:
        raise DataError(f"{_place(row, name)} is empty: {LEAVE_OUT}")
    if cells.is_missing(cell):
        raise DataError(
            f"{_place(row, name)}: {cell!r} marks a missing value: {LEAVE_OUT}; or give that class another "
            "name"
        )


def _place(row: int, name: str) -> str:
    return f"row {row + 1}, column {name!r} (the target)"


# ---- from a table --------------------------------------------------------------------------------------


class Collector:
    """The target column of a table that comes piece by piece, as text as it is written, or as numbers.

    Each distinct text is kept once; of more than INTERNED, which are numbers, only their values are kept.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._codes: dict[str, int] = {}
        self._pieces: list[NDArray[Any]] = []  # of numbers, or of positions among the texts
        self._only_values = False

    def add(self, column: Any) -> None:
        """column: a Series. DataError for what can be no target."""
        if series.is_moment(column) or series.is_duration(column):
            raise DataError(
                f"the target {self._name!r} is of dates or times: a number, text, or True and False "
                "can be predicted"
            )
        if series.is_number(column) and not series.is_boolean(column):
            self._pieces.append(series.floats(column))
            return
        found = series.coded(column)
        distinct = [*found.distinct, ""] if (found.codes < 0).any() else found.distinct
        table = self._values(distinct) if self._only_values else self._coded(distinct)
        self._pieces.append(table[found.codes])
        if len(self._codes) > INTERNED:
            table = self._values([*self._codes])
            self._pieces = [piece if piece.dtype == np.float64 else table[piece] for piece in self._pieces]
            self._codes, self._only_values = {}, True

    def _coded(self, texts: Sequence[str]) -> NDArray[np.int32]:
        return np.array([self._codes.setdefault(text, len(self._codes)) for text in texts], dtype=np.int32)

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
        if all(piece.dtype == np.float64 for piece in self._pieces):
            return np.concatenate(self._pieces) if self._pieces else np.empty(0)
        for i, piece in enumerate(self._pieces):
            if piece.dtype == np.float64:
                texts = as_texts(piece)
                self._pieces[i] = self._coded(texts.distinct)[texts.codes]
        return Texts(np.concatenate(self._pieces), [*self._codes])


def known_rows(target: Target) -> NDArray[np.intp]:
    """The rows whose target is not missing."""
    if isinstance(target, np.ndarray):
        return np.flatnonzero(~np.isnan(target))
    texts = as_texts(target)
    known = {text: not cells.is_missing(text) for text in texts.distinct}
    return np.flatnonzero(texts.mapped(known, np.bool_))


def picked(target: Target, rows: NDArray[np.integer[Any]]) -> Target:
    """The target of these rows."""
    if isinstance(target, np.ndarray):
        numbers: NDArray[np.float64] = target[rows]
        return numbers
    texts = as_texts(target)
    return Texts(texts.codes[rows], texts.distinct)
