"""Tables in files, read by pandas piece by piece: CSV, parquet, JSON lines and Excel."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import lzma
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from fastbp.tables import cells
from fastbp.tables.columns import ROWS_AT_ONCE, named_frame, range_of
from fastbp.tables.files import others
from fastbp.tables.wording import DataError, listed

TEXT = (".csv", ".tsv", ".txt")
LINES = (".jsonl", ".ndjson")
EXCEL = (".xlsx", ".xlsm")
PARQUET = (".parquet", ".pq")
KINDS = (*TEXT, *PARQUET, *LINES, *EXCEL)
PACKED: dict[str, Callable[..., IO[Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DELIMITERS = ",;\t"
CELLS_AT_ONCE = 500_000  # of a text file; pandas holds a cell of text in some 60 bytes
YEARS = range(1000, 2200)  # a header of nothing but such numbers is one of years
DAMAGED = (
    ValueError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    LookupError,
    NotImplementedError,
)


def is_table(path: str) -> bool:
    """Whether it is the name of a table that is read here, packed or not."""
    return _kind(path) in KINDS


def _kind(path: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    if len(suffixes) == 2 and suffixes[1] in PACKED and suffixes[0] in (*TEXT, *LINES):
        return suffixes[0]
    return suffixes[-1] if suffixes else ""


class FileSource:
    """A table in a file; see `parts.Source`. The content decides how far it can be read in pieces.

    separator, decimal, encoding : of text; None: found out, a point, UTF-8.
    Raises DataError for what is no such table, and if the file is changed while it is read.
    """

    def __init__(
        self,
        path: str,
        *,
        separator: str | None = None,
        decimal: str | None = None,
        encoding: str | None = None,
    ) -> None:
        require_pandas(path)
        self.label, self._kind = path, _kind(path)
        self.text_may_be_numbers = self._kind in TEXT
        self._as_text: set[str] = set()
        self._as_written: set[str] = set()
        self._decimal = decimal
        self._state = _state(path)
        self._whole: Any = None
        if self.text_may_be_numbers:
            self._encoding = encoding or _encoding(path)
            self._separator = separator or _separator(path, self._encoding)
            self.names = self._header()
        elif self._kind in PARQUET:
            with _worded(path):
                self.names = others.parquet_names(path)
        else:
            self.names = [*next(iter(self._unread()))[1].columns]
        if not self.text_may_be_numbers:
            of_text = {"separator": separator, "decimal": decimal, "encoding": encoding}
            given = [f"--{name}" for name, value in of_text.items() if value is not None]
            if given:
                raise DataError(f"{' and '.join(given)} is for text such as CSV, which {path} is not")

    def frames(self, names: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """(first row, DataFrame) of each piece; names: of the columns that are enough.

        Whether all rows are as long as the header is found out where all columns are read.
        """
        rows = 0
        for start, frame in self._unread(names):
            rows = start + len(frame)
            yield start, frame
        if _state(self.label) != self._state:
            raise DataError(f"{self.label} has been changed while it was read: start again")
        if not rows:
            raise DataError(f"{self.label} has a header and no rows")

    def read_as_text(self, names: Sequence[str]) -> None:
        self._as_text |= {*names}

    def read_as_written(self, name: str) -> None:
        self._as_written.add(name)

    def place(self, row: int, name: str) -> str:
        return f"{self.label} row {row + 1}{self._line(row)}, column {name!r}"

    def check_header(self, target: str) -> None:
        """DataError if the first line is one of data: numbers alone, and neither positions nor years."""
        names = self.names
        numbered = names == [str(i) for i in range(len(names))]  # as pandas names columns that have no names
        years = target in names and all(name.isdigit() and int(name) in YEARS for name in names)
        if all(cells.number(name) is not None for name in names) and not numbered and not years:
            raise DataError(
                f"{self.label} has no header: its first line is all numbers ({listed(names)}); "
                "put a line with the columns' names on top"
            )

    def check_names(self, left_out: Sequence[str]) -> None:
        """DataError for columns without a name, as an index has none, unless they are left out.

        And for a single column of text, whose cells are separated by something else.
        """
        if self.text_may_be_numbers and len(self.names) == 1 and self.names[0] not in left_out:
            raise DataError(
                f"{self.label} has a single column, {self.names[0]!r}: what stands between its cells is not "
                f"{self._separator!r}, give their --separator"
            )
        for i, name in enumerate(self.names):
            if name == f"Unnamed: {i}" and name not in left_out:
                raise DataError(
                    f"{self.label}: column {i + 1} of the header has no name: give it one, or leave "
                    f"it out, as an index should be: --drop 'Unnamed: {i}'"
                )

    # ---- of each kind ---------------------------------------------------------------------------------

    def _unread(self, names: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        with _worded(self.label):
            if self._kind in TEXT:
                yield from self._text(names)
            elif self._kind in PARQUET:
                yield from others.parquet_pieces(self.label, names)
            elif self._kind in LINES:
                yield from others.line_pieces(self.label)
            else:
                if self._whole is None:
                    self._whole = named_frame(others.excel_sheet(self.label))
                for start in range_of(len(self._whole)):
                    yield start, self._whole.iloc[start : start + ROWS_AT_ONCE]

    def _header(self) -> list[str]:
        with _worded(self.label), _opened(self.label, self._encoding) as file:
            reader = csv.reader(file, delimiter=self._separator, strict=True)
            given = next((row for row in reader if row), [])
        given = [cell.strip() for cell in given]
        if not any(given):
            raise DataError(
                f"{self.label} is empty: a header with the columns' names and at least one row are expected"
            )
        # A name for columns without one, which is what pandas calls them, so that they can be left out.
        names = [name or f"Unnamed: {i}" for i, name in enumerate(given)]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise DataError(f"{self.label}: two columns are called {name!r}")
        return names

    def _text(self, enough: Sequence[str] | None) -> Iterator[tuple[int, Any]]:
        import pandas

        names = [name for name in self.names if enough is None or name in enough]
        text, start = {name: object for name in names if name in self._as_text | self._as_written}, 0
        exact = {"float_precision": "round_trip"} if pandas.__version__.startswith("2.") else {}
        reader = pandas.read_csv(
            self.label,
            sep=self._separator,
            encoding=self._encoding,
            header=0,
            names=self.names,
            usecols=None if enough is None else names,  # which would let longer rows pass
            index_col=False,
            dtype=text,
            keep_default_na=False,
            na_values={name: ["", *cells.MISSING] for name in names if name not in self._as_written},
            decimal=self._decimal or ".",
            low_memory=False,
            chunksize=max(1, CELLS_AT_ONCE // len(self.names)),
            **exact,  # from pandas 3 on, numbers are always read to the last digit
        )
        with reader:
            while (frame := self._next(reader)) is not None:
                last = frame[names[-1]]
                if enough is None and (last.isna().any() or (last == "").any()):
                    self._require_whole_rows()
                yield start, self._plain_numbers(frame, text)
                start += len(frame)

    def _next(self, reader: Any) -> Any:
        """The next piece of a text file, or None."""
        from pandas.errors import ParserError, ParserWarning

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ParserWarning)
                return next(reader, None)
        except (ParserError, ParserWarning) as error:
            self._require_whole_rows()
            raise DataError(f"{self.label} cannot be read: {' '.join(str(error).split())}") from error

    def _plain_numbers(self, frame: Any, text: Any) -> Any:
        """With a point in the numbers among the texts, too, where another mark was said to be used."""
        if self._decimal is None or not text:
            return frame
        mark = re.escape(self._decimal)
        return frame.assign(
            **{
                name: frame[name].str.replace(rf"^(\s*[+-]?\d*){mark}(\d+\s*)$", r"\1.\2", regex=True)
                for name in text
            }
        )

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        """(row, line, cells) of each row of a text file."""
        with _opened(self.label, self._encoding) as file:
            reader = csv.reader(file, delimiter=self._separator, strict=True)
            rows = (len(row) for row in reader if row)
            next(rows, None)
            for i, length in enumerate(rows):
                yield i, reader.line_num, length

    def _require_whole_rows(self) -> None:
        """DataError for rows that have not as many cells as the header; pandas fills them up."""
        for row, line, length in self._rows():
            if length != len(self.names):
                raise DataError(
                    f"{self.label} row {row + 1} (line {line}) has {length} cells, the header has "
                    f"{len(self.names)}: every row must be as long as the header"
                )

    def _line(self, row: int) -> str:
        """Where the row stands in a text file; "" where that is not known."""
        if not self.text_may_be_numbers:
            return ""
        with contextlib.suppress(csv.Error, *DAMAGED):
            return next((f" (line {line})" for i, line, _ in self._rows() if i == row), "")
        return ""


def require_pandas(path: str) -> None:
    """DataError, with what to install, where pandas is missing."""
    try:
        import pandas  # noqa: F401
    except ModuleNotFoundError:
        raise DataError(
            f"{path} needs pandas to be read: pip install 'fastbp[table]' (.npy, .npz and IDX files do not)"
        ) from None


def _state(path: str) -> tuple[int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ino


@contextlib.contextmanager
def _worded(path: str) -> Iterator[None]:
    """Within, what the libraries say about a file that they cannot read becomes one sentence."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; give its --encoding, such as "
            "latin-1"
        ) from error
    except ImportError as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    except (csv.Error, *DAMAGED) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


# ---- text ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: str, encoding: str) -> Iterator[IO[str]]:
    open_packed = PACKED.get(Path(path).suffix.lower(), open)
    with open_packed(path, "rt", newline="", encoding=encoding) as file:
        yield file


def _encoding(path: str) -> str:
    """UTF-8, unless a byte order mark says otherwise; utf-8-sig leaves that of UTF-8 out."""
    with PACKED.get(Path(path).suffix.lower(), open)(path, "rb") as file, _worded(path):
        start = file.read(2)
    return "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _separator(path: str, encoding: str) -> str:
    """The one that occurs most in the first line. What stands in quotes does not count."""
    with _worded(path), _opened(path, encoding) as file:
        first = re.sub(r'"[^"]*"', "", next((line for line in file if line.strip()), ""))
    return max(DELIMITERS, key=first.count)
