"""Wording for the terminal: durations, and tables of text."""

from __future__ import annotations

from collections.abc import Sequence


def duration(seconds: float) -> str:
    """Three digits, or whole seconds."""
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out columns: figures flush right, text flush left."""
    columns = []
    for name, *cells in zip(header, *rows, strict=True):
        width = max(map(len, [name, *cells]))
        figures = all(cell[:1] in "-0123456789" for cell in cells)
        columns.append([cell.rjust(width) if figures else cell.ljust(width) for cell in [name, *cells]])
    return "\n".join("   ".join(line).rstrip() for line in zip(*columns, strict=True))
