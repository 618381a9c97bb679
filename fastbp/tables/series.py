"""One column of a DataFrame as NumPy arrays: as numbers, as texts, as moments in time.

pandas has a dozen dtypes for what is one thing here. Nothing in this module decides what a column means.
"""

from __future__ import annotations

import datetime
import numbers as numeric
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.tables import cells

Floats = NDArray[np.float64]

# A date as ISO 8601 has it, perhaps with a time; and dates and times in other forms, which are refused.
_CLOCK, _ZONE = r"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?", r"(?:Z|[+-]\d\d:?\d\d)?"
ISO_MOMENT = re.compile(rf"\d{{4}}-\d{{1,2}}-\d{{1,2}}(?:[T ]{_CLOCK}{_ZONE})?")
OTHER_MOMENT = re.compile(
    r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?:[T ]\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp][Mm])?)?"
    r"|\d{1,2}:\d{2}(?::\d{2})?(?: ?[AaPp][Mm])?"
)


@dataclass(frozen=True)
class Coded:
    """A column in which each distinct value stands once."""

    codes: NDArray[np.intp]  # (rows,): positions in `distinct`; -1 where the cell is missing
    distinct: list[str]  # no two are the same

    def first_rows(self) -> dict[str, int]:
        """Where each of them occurs first."""
        found, rows = np.unique(self.codes, return_index=True)
        return {self.distinct[code]: int(row) for code, row in zip(found, rows, strict=True) if code >= 0}


def is_number(series: Any) -> bool:
    """Whether its dtype is one of numbers (of True and False too)."""
    from pandas.api import types

    return bool(types.is_numeric_dtype(series.dtype)) and not types.is_complex_dtype(series.dtype)


def is_boolean(series: Any) -> bool:
    from pandas.api import types

    return bool(types.is_bool_dtype(series.dtype)) and not isinstance(series.dtype, _categorical())


def is_moment(series: Any) -> bool:
    """Whether its dtype is one of dates with times, with or without a time zone."""
    from pandas.api import types

    return bool(types.is_datetime64_any_dtype(series.dtype))


def is_duration(series: Any) -> bool:
    from pandas.api import types

    return bool(types.is_timedelta64_dtype(series.dtype)) or "period" in str(series.dtype)


def floats(series: Any) -> Floats:
    """(rows,) of a column of numbers; NaN where a value is missing."""
    return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))


def objects(series: Any) -> list[Any]:
    """The distinct values of a column that are no missing ones."""
    known = series.dropna()
    try:
        return [*known.unique()]
    except TypeError:  # a list has no hash
        return [known.iloc[0]]


def coded(series: Any) -> Coded:
    """The column as texts. What is no text is written as Python does; of whole numbers without a point.

    An empty text is a missing value, as are None, NaN and NaT; a mark such as "NA" is a text like others.
    """
    import pandas

    codes, distinct = pandas.factorize(series, use_na_sentinel=True)
    written = [as_text(value) for value in distinct.tolist()]
    position: dict[str, int] = {}
    place = np.empty(len(written) + 1, dtype=np.intp)
    for i, text in enumerate(written):
        place[i] = position.setdefault(text, len(position)) if text else -1
    place[-1] = -1
    return Coded(place[codes], list(position))


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, numeric.Integral):
        return str(int(value))
    if isinstance(value, numeric.Real):
        number = float(value)
        return f"{value:.0f}" if number.is_integer() else repr(number)
    return str(value)


def numbers(series: Any) -> tuple[Floats, dict[int, str]]:
    """(rows,) numbers, NaN where a value is missing or is none; and the rows with what is no finite number.

    Of each distinct cell that is none the first row is given. Text is read as in a file. `series` may be an
    array of numbers, too.
    """
    if isinstance(series, np.ndarray) or is_number(series):
        values = series.astype(np.float64) if isinstance(series, np.ndarray) else floats(series)
        infinite = np.flatnonzero(np.isinf(values))
        return values, {int(row): str(values[row]) for row in infinite[:1]}
    found = coded(series)
    read = [None if cells.is_missing(text) else cells.feature(text) for text in found.distinct]
    table = np.array([np.nan if value is None else value for value in [*read, None]])
    bad = {
        row: text
        for text, row in found.first_rows().items()
        if not cells.is_missing(text) and cells.feature(text) is None
    }
    return table[found.codes], bad


def date_parts(index: Any) -> dict[str, Floats]:
    """Year, month (1 to 12), weekday (0 is Monday) and hour of a DatetimeIndex; NaN where it has no date."""
    parts = {"year": index.year, "month": index.month, "weekday": index.day_of_week, "hour": index.hour}
    return {name: np.asarray(values, dtype=np.float64) for name, values in parts.items()}


def moments(series: Any) -> tuple[Any, dict[int, str]]:
    """A DatetimeIndex of the rows, NaT where there is none; and the first rows of what is no date.

    The hour is that which the cell shows, whatever its time zone is.
    """
    import pandas

    if is_moment(series):
        index = pandas.DatetimeIndex(series)
        return (index if index.tz is None else index.tz_localize(None)), {}
    found = coded(series)
    bad = {
        row: text
        for text, row in found.first_rows().items()
        if not cells.is_missing(text) and _moment(text) is None
    }
    read = [_moment(text) for text in found.distinct]
    distinct = pandas.DatetimeIndex([pandas.NaT if value is None else value for value in [*read, None]])
    return distinct[found.codes], bad


def _moment(text: str) -> datetime.datetime | None:
    if ISO_MOMENT.fullmatch(text) is None:
        return None
    try:
        padded = re.sub(r"-(\d)(?!\d)", r"-0\1", text[:10]) + text[10:]
        return datetime.datetime.fromisoformat(padded.replace(" ", "T", 1)).replace(tzinfo=None)
    except ValueError:
        return None


def _categorical() -> type:
    import pandas

    kind: type = pandas.CategoricalDtype
    return kind
