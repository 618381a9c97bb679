"""What the exit codes mean, and errors as one line."""

from __future__ import annotations

from fastbp.tables.wording import DataError

__all__ = ["INTERRUPTED", "NOT_AS_EXPECTED", "OK", "REFUSED", "DataError", "one_line"]

OK = 0
NOT_AS_EXPECTED = 1  # all was done and written, but the outcome is not what it should be: it is said why
REFUSED = 2  # it could not be done; one line on standard error says why
INTERRUPTED = 130  # by Ctrl-C; `train` has written what it had reached


def one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory"
    return " ".join(str(error).split()) or type(error).__name__
