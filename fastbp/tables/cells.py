"""What stands in one cell of a table: a number, a number in a form that is no plain one, or no value."""

from __future__ import annotations

import math
import re

# As spreadsheets, R, pandas and the UCI archive write it. Not "none", "-" and the like, which may be classes.
MISSING = frozenset(
    [
        *("NaN", "nan", "NAN", "-NaN", "-nan", "NA", "N/A", "n/a", "<NA>", "#N/A", "#NA", "NULL", "null"),
        *("None", "?", "1.#QNAN", "-1.#IND", "#VALUE!", "#DIV/0!"),
    ]
)
TRUTH = {"True": 1.0, "False": 0.0, "true": 1.0, "false": 0.0, "TRUE": 1.0, "FALSE": 0.0}

_NUMBER = r"\d[\d.,' \u2019\u00a0\u202f]*"
_PLAIN = r"(?:\d+\.?\d*|\.\d+)"
# The first that fits says what is not plain about a number; a sign may stand in front of each.
_FORMS = {
    "a percent sign": rf"{_NUMBER}\s*%",
    "a currency sign": rf"[$\u20ac\u00a3\u00a5]\s*{_NUMBER}|{_NUMBER}\s*[$\u20ac\u00a3\u00a5]",
    "a thousands mark": r"[1-9]\d{0,2}(?P<mark>[,' \u2019\u00a0\u202f])\d{3}(?:(?P=mark)\d{3})*(?:\.\d+)?"
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}",
    "a decimal comma": r"\d*,\d+(?:[eE][+-]?\d+)?|[1-9]\d{0,2}(?:[. '\u00a0\u202f]\d{3})+,\d+",
    "an underscore": r"\d+(?:_\d+)+(?:\.\d*)?",
}
_COMPILED = {name: re.compile(rf"[+-]?\s*(?:{form})") for name, form in _FORMS.items()}
_DASH = re.compile(rf"[\u2212\u2013]\s*{_PLAIN}(?:[eE][+-]?\d+)?")

_PADDED = re.compile(r"[+-]?0\d+(?:\.0*)?")


def number(cell: str) -> float | None:
    """The finite number that is written there, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number; in data it is more likely an identifier.
    return value if math.isfinite(value) and "_" not in cell else None


def feature(cell: str) -> float | None:
    """A finite number, also of True and False; or None."""
    value = number(cell)
    return TRUTH.get(cell.strip()) if value is None else value


def is_missing(cell: str) -> bool:
    return not cell or cell in MISSING


def is_whole(cell: str) -> bool:
    """Whether it is a whole number, such as 3, -1, 3.0, 3e0 (as NumPy writes it) or 007."""
    value = number(cell)
    return value is not None and value.is_integer()


def is_padded(cell: str) -> bool:
    """Whether zeros stand in front of it, as of 007: a name made of digits rather than a number."""
    return _PADDED.fullmatch(cell) is not None


def unusual_form(cell: str) -> str | None:
    """What keeps it from being read as the number that it is meant to be ("a decimal comma"), or None."""
    if _DASH.fullmatch(cell):
        return "a dash for a minus sign"
    return next((name for name, form in _COMPILED.items() if form.fullmatch(cell)), None)


def shown(cell: str) -> str:
    """In quotes, and not too long."""
    return repr(cell if len(cell) <= 40 else cell[:37] + "...")
