"""What the columns of a table hold, found out by looking at every row once: numbers, text, truth, dates.

Only the kind of a column is decided by all rows; what a network learns about it (means, medians, categories)
comes from the training part alone, see `columns.py`. Memory stays small however many rows there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastbp.tables import cells, series
from fastbp.tables.wording import DataError, listed, quoted

MANY = 20  # distinct values of which some are numbers: with more, the text among them is a mistake
DISTINCT_TEXTS = 100_000  # a column that has more is refused
REPAIR = "of numbers, of text, or of True and False"


@dataclass
class Seen:
    """What one column has been found to hold."""

    name: str
    rows: int = 0
    has_numbers: bool = False
    is_typed: bool = True  # the values have a dtype, rather than being written as text
    numbers: set[float] = field(default_factory=set)  # some of the distinct ones, up to MANY + 1
    truth: set[str] = field(default_factory=set)
    texts: dict[str, int] = field(default_factory=dict)  # distinct -> the row in which it stands first
    infinite: tuple[int, str] | None = None
    has_missing: bool = False
    is_moment: bool = False
    strange: str = ""  # what the column holds that nobody can use

    def add(self, column: Any, start: int, text_may_be_numbers: bool) -> None:
        """column: a Series, whose first row is row `start` of the table."""
        self.rows = start + len(column)
        if series.is_moment(column):
            self.is_moment = True
        elif series.is_duration(column) or column.dtype.kind == "c":
            self.strange = f"values of dtype {column.dtype}"
        elif series.is_boolean(column):
            self.truth |= {"True", "False"}
            self.has_missing |= bool(column.isna().any())
        elif series.is_number(column):
            self._add_numbers(series.floats(column), start)
        else:
            self._add_texts(column, start, text_may_be_numbers)

    def _add_numbers(self, values: Any, start: int) -> None:
        known = ~np.isnan(values)
        self.has_missing |= not known.all()
        self.has_numbers |= bool(known.any())
        if self.infinite is None and np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0])
            self.infinite = start + row, str(values[row])
        if len(self.numbers) <= MANY:
            self.numbers |= {*np.unique(values[known])[: MANY + 1].tolist()}

    def _add_texts(self, column: Any, start: int, text_may_be_numbers: bool) -> None:
        unusual = [v for v in series.objects(column) if not _is_plain(v)] if column.dtype == object else []
        if unusual:
            self.strange = f"values of type {type(unusual[0]).__name__}"
            return
        found = series.coded(column)
        self.has_missing |= bool((found.codes < 0).any())
        typed = [*map(_is_real, series.objects(column))] if column.dtype == object else []
        may_be_numbers = text_may_be_numbers or (bool(typed) and all(typed))
        self.is_typed &= not text_may_be_numbers
        for text, row in found.first_rows().items():
            if may_be_numbers and cells.is_missing(text):
                self.has_missing = True
            elif may_be_numbers and text in cells.TRUTH:
                self.truth.add(text)
            elif may_be_numbers and (value := cells.number(text)) is not None:
                self.has_numbers = True
                if len(self.numbers) <= MANY:
                    self.numbers.add(value)
            elif self.is_moment and series.ISO_MOMENT.fullmatch(text):
                continue
            elif len(self.texts) <= DISTINCT_TEXTS:
                self.texts.setdefault(text, start + row)
        if len(self.texts) > DISTINCT_TEXTS:
            if self.kind() == "date":
                self.is_moment = True
                self.texts.clear()
            elif not self.has_numbers:
                raise DataError(
                    f"column {self.name!r} has more than {DISTINCT_TEXTS:,} different texts, too many for "
                    f"categories: leave it out (--drop {quoted([self.name])})"
                )

    # ---- what it is -----------------------------------------------------------------------------------

    def kind(self) -> str:
        """One of "number", "boolean", "text", "date", "other date", "mixed", "strange" and "empty"."""
        if self.strange:
            return "strange"
        if self.texts:
            if not self.has_numbers and not self.truth:
                moments = [series.ISO_MOMENT, series.OTHER_MOMENT]
                for pattern, kind in zip(moments, ("date", "other date"), strict=True):
                    if all(pattern.fullmatch(t) or cells.is_missing(t) for t in self.texts):
                        return kind
            if self.is_moment:
                return "mixed"
            return "mixed" if self._text_is_a_mistake() else "text"
        if self.is_moment:
            return "date"
        if self.has_numbers:
            return "number"
        return "boolean" if self.truth else "empty"

    def _text_is_a_mistake(self) -> bool:
        """Whether the cells are meant to be numbers: in another form, or many of them beside some text."""
        if self.is_typed and not self.has_numbers:
            return False
        if not self.is_typed and all(cells.unusual_form(text) for text in self.texts):
            return True
        distinct = len(self.numbers) + len(self.truth) + len(self.texts)
        many = distinct > min(MANY, max(2, self.rows // 2))
        return self.has_numbers and (many or all(map(_is_infinite, self.texts)))

    def first_mistake(self) -> tuple[int, str]:
        """(row, cell) of the first that is no number where numbers are meant."""
        text, row = min(self.texts.items(), key=lambda item: item[1])
        return row, text


def _is_plain(value: Any) -> bool:
    return isinstance(value, (str, bytes, bool, np.bool_)) or _is_real(value)


def _is_real(value: Any) -> bool:
    import numbers
    from decimal import Decimal

    return isinstance(value, (numbers.Real, Decimal))


def _is_infinite(text: str) -> bool:
    try:
        return not np.isfinite(float(text))
    except ValueError:
        return False


def survey(
    frames: Iterable[tuple[int, Any]], names: list[str], *, text_may_be_numbers: bool
) -> dict[str, Seen]:
    """frames: (first row, DataFrame) of all rows in their order; names: of the columns to look at."""
    seen = {name: Seen(name) for name in names}
    for start, frame in frames:
        for name, found in seen.items():
            found.add(frame[name], start, text_may_be_numbers)
    return seen


def kinds(seen: dict[str, Seen], place: Any, *, dates: bool) -> dict[str, str]:
    """The kind of each column, by its name. DataError names all that cannot be used.

    place: a function of a row's position and a column's name which says where that is; dates: whether dates
    are taken apart into year, month, weekday and hour.
    """
    found = {name: column.kind() for name, column in seen.items()}
    _refuse_mistakes(seen, found, place)
    others = [name for name, kind in found.items() if kind == "other date"]
    if others:
        row, text = seen[others[0]].first_mistake()
        raise DataError(
            f"{place(row, others[0])}: {text!r} is a date or a time, which a network cannot read"
            f"{_so_have(others)}; write dates like 2024-12-31 and give --dates, or leave them out: "
            f"--drop {quoted(others)}"
        )
    days = [name for name, kind in found.items() if kind == "date"]
    if days and not dates:
        hold, them = (f"column {listed(days)} holds", "it")
        if len(days) > 1:
            hold, them = f"columns {listed(days)} hold", "them"
        raise DataError(
            f"{hold} dates: --dates makes year, month, weekday and hour of each, "
            f"--drop {quoted(days)} leaves {them} out"
        )
    return found


def _so_have(names: list[str]) -> str:
    others = names[1:]
    return f"; so have {'columns' if len(others) > 1 else 'column'} {listed(others)}" if others else ""


def _refuse_mistakes(seen: dict[str, Seen], kinds: dict[str, str], place: Any) -> None:
    bad: list[tuple[int, str, str]] = []
    for name, kind in kinds.items():
        if kind == "mixed":
            bad.append((*seen[name].first_mistake(), name))
        elif seen[name].infinite is not None:
            bad.append((*seen[name].infinite, name))  # type: ignore[misc]
    strange = [name for name, kind in kinds.items() if kind == "strange"]
    if not bad and strange:
        raise DataError(
            f"column {strange[0]!r} holds {seen[strange[0]].strange}; columns {REPAIR} are expected"
            f"{_so_have(strange)} (they can be left out: --drop {quoted(strange)})"
        )
    if bad:
        bad.sort(key=lambda mistake: mistake[0])
        raise not_a_number(bad, place, [name for _, _, name in bad] + strange)


def not_a_number(bad: list[tuple[int, str, str]], place: Any, droppable: list[str]) -> DataError:
    """bad: (row, cell, column) of the first mistake in each column; droppable: what can be left out."""
    row, cell, name = bad[0]
    names = list(dict.fromkeys([*(column for _, _, column in bad), *droppable]))
    also, form = _so_have(names), cells.unusual_form(cell)
    if _is_infinite(cell):
        return DataError(f"{place(row, name)}: {cells.shown(cell)} is not a finite number{also}")
    if form is not None:
        return DataError(
            f"{place(row, name)}: {cells.shown(cell)} is not a number, but one with {form}: numbers like "
            f"1234.5 are expected{also}"
        )
    hint = f" (columns can be left out: --drop {quoted(names)})" if droppable else ""
    return DataError(f"{place(row, name)}: {cells.shown(cell)} is not a number{hint}{also}")
