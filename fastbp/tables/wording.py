"""The error for data that cannot be used, and how lists of names are worded."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Sequence


class DataError(ValueError):
    """Data that cannot be used, with the reason in one line."""


class LeftOut(UserWarning):
    """Columns from which there is nothing to learn."""


def listed(names: Sequence[str], at_most: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def instead(name: str, known: Sequence[str]) -> str:
    """What might have been meant by an unknown name."""
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; it has {listed(known)}"


def quoted(names: Sequence[str]) -> str:
    """As a shell takes them for one option."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    line = text.getvalue()
    return line if re.fullmatch(r"[\w.,:+-]+", line) else "'" + line.replace("'", "'\\''") + "'"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out columns: figures flush right, text flush left."""
    columns = []
    for name, *cells in zip(header, *rows, strict=True):
        width = max(map(len, [name, *cells]))
        figures = all(cell[:1] in "-0123456789" for cell in cells)
        columns.append([cell.rjust(width) if figures else cell.ljust(width) for cell in [name, *cells]])
    return "\n".join("   ".join(line).rstrip() for line in zip(*columns, strict=True))
