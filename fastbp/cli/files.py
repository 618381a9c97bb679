"""The files that a command is to write: looked at before the work begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from fastbp.cli.errors import DataError
from fastbp.storage import atomic


def check_outputs(outputs: Mapping[str, str | None], inputs: Iterable[str | None] = ()) -> None:
    """Raise now, rather than after minutes of work, if a file cannot be written, or would replace another.

    outputs: option -> path, None where it is not given; inputs: the files that are read.
    """
    read = {os.path.realpath(path) for path in inputs if path is not None}
    written: set[str] = set()
    for option, path in outputs.items():
        if path is None:
            continue
        target = str(atomic.check_writable(path, option))
        if target in read:
            raise DataError(f"{option} {path} would overwrite an input")
        if target in written:
            raise DataError(f"{option} {path} is the name of another file that is to be written")
        written.add(target)
