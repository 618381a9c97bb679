"""Writing files so that nobody ever finds half of one, and wording for the terminal."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def check_writable(path: str) -> None:
    """Raise OSError now, rather than after minutes of training, if `path` cannot be written."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a directory: give the name of a file")
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file")  # replacing a device or a pipe would remove it
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such directory: {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"the directory {target.parent} is not writable")


@contextmanager
def replacing(path: str) -> Iterator[Path]:
    """Give a temporary name beside `path`; what was written there replaces it when the block ends well."""
    check_writable(path)
    target = Path(os.path.realpath(path))  # of a symbolic link, the file it points to
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(4)}{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
