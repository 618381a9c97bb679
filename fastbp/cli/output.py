"""What commands say: results on standard output, errors and progress on standard error.

Whatever has become of the two (a pipe that nobody reads any more, a full disk, an encoding without some
letters, closed before the start), it costs no result: a command goes on, writes its files, and its exit code
tells what came of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from fastbp.cli import errors
from fastbp.tables.wording import LeftOut
from fastbp.tables.wording import text_table as text_table


class Results:
    """Takes the place of standard output: writing never fails, what failed is told at the end.

    Letters that its encoding lacks are written as escapes, such as \\xf6.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = None if stream is None or stream.closed else stream
        self._failure: OSError | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it was closed before the command began, so that nobody can want to read anything."""
        return self._stream is None

    def write(self, text: str) -> int:
        if self._writable is not None:
            with self._remembering():
                self._write(self._writable, text)
        return len(text)

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def write_file(self, content: bytes) -> None:
        """Write the content of a file of text in UTF-8: the same bytes, whatever the encoding is."""
        raw = getattr(self._stream, "buffer", None)
        if raw is None:  # a notebook, or another one who keeps text only
            self.write(content.decode())
            return
        self.flush()
        if self._writable is not None:
            with self._remembering():
                left = memoryview(content)
                while left:  # without a buffer (PYTHONUNBUFFERED), a pipe may take a part only
                    left = left[raw.write(left) or 0 :]

    def flush(self) -> None:
        if self._writable is not None:
            with self._remembering():
                self._writable.flush()

    def isatty(self) -> bool:
        return self._writable is not None and self._writable.isatty()

    @property
    def _writable(self) -> TextIO | None:
        return None if self._failure else self._stream

    @contextlib.contextmanager
    def _remembering(self) -> Iterator[None]:
        """Within, a failure is kept for the end."""
        try:
            yield
        except OSError as error:
            self._failure = error
        except ValueError as error:  # it has been closed
            self._failure = OSError(errno.EBADF, str(error))

    def finish(self, code: int) -> int:
        """The exit code of a command that has ended with this one.

        A reader that has left (`fastbp predict ... | head`) has what it wanted; anything else that keeps
        words from being read is an error, though not one that came before the command's files.
        """
        self.flush()
        if self._failure is None or self._stream is None:
            return code
        with contextlib.suppress(OSError, ValueError):  # Python would try, and complain, once more at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        if isinstance(self._failure, BrokenPipeError):
            return code
        complain(f"standard output: {self._failure.strerror or self._failure}")
        return code or errors.REFUSED


def complain(message: str, what: str = "error: ") -> None:
    """An error, or what else the message is, on standard error if there is one."""
    if sys.stderr is not None:
        progress("")  # what was being done has ended
        with contextlib.suppress(OSError, ValueError):
            print(f"fastbp: {what}{message}", file=sys.stderr)


@contextlib.contextmanager
def worded_warnings() -> Iterator[None]:
    """Within, a warning is a line like an error's, without the place in our code that it comes from."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        complain(" ".join(str(message).split()), what="warning: ")

    with warnings.catch_warnings():
        warnings.simplefilter("always", LeftOut)  # which is part of the report
        warnings.showwarning = show
        yield


def progress(text: str) -> None:
    """What is being done, in a line that the next one overwrites ("": none); only on a terminal."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Three digits, or whole seconds."""
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"
