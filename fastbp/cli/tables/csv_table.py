"""CSV files: the delimiter is found out, the first line has the columns' names, every cell used is a number.

A message names the file, row and column, because that is what its reader has to go and repair; of columns
that cannot be used it names all, so that one round of repairing is enough.
"""

from __future__ import annotations

import csv
import io
import math
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fastbp.cli.errors import DataError
from fastbp.cli.tables.table import Columns, Table, instead, listed, remaining, weights, wrong_width
from fastbp.tables import cells

DELIMITERS = ",;\t"
YEARS = range(1000, 2200)  # a header of nothing but such numbers is one of years


def read_for_training(path: str, target: str, drop: Sequence[str], weights: str | None) -> Table:
    """Every column is a feature, except `target`, `weights` and those to `drop`."""
    with _opened(path) as file:
        file.check_header(target)
        target_at = file.position(target, "--target")
        weights_at = None if weights is None else file.position(weights, "--weights")
        dropped = {file.position(name, "--drop") for name in drop}
        wanted = remaining(path, file.header, target_at, weights_at, dropped)
        columns = Columns([file.header[i] for i in wanted], target, named=True, width=len(file.header))
        return file.collect(columns, wanted, target_at, weights_at, training=True)


def read_for_prediction(path: str, columns: Columns) -> Table:
    """The columns that a model was trained on, and the target too where the file has it."""
    with _opened(path) as file:
        header = file.header
        if not set(columns.features) <= set(header):
            file.check_header(columns.target)
        if not columns.named:  # trained on an array: only the order of the columns can be matched
            if len(header) != len(columns.features):
                raise wrong_width(path, len(header), columns)
            return file.collect(columns, list(range(len(header))), None, None, training=False)
        missing = [name for name in columns.features if file.find(name) is None]
        if missing:
            raise DataError(
                f"{path} lacks {len(missing)} of the {len(columns.features)} columns that the model was "
                f"trained on: {listed(missing)}"
            )
        wanted = [file.position(name, "a feature") for name in columns.features]
        return file.collect(columns, wanted, file.find(columns.target), None, training=False)


@contextmanager
def _opened(path: str) -> Iterator[_Csv]:
    reader: _Csv | None = None
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front, which would end up in the first name
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = _Csv(path, file)
            reader.read_header()
            yield reader
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        line = 1 if reader is None else reader.line
        raise DataError(f"{path} line {line}: {error}") from error


class _Csv:
    """An open file: its header, and its rows one after another."""

    def __init__(self, path: str, file: io.TextIOBase | io.TextIOWrapper) -> None:
        # What stands in quotes does not count. (csv would refuse a wide line taken for a single cell.)
        first = re.sub(r'"[^"]*"', "", file.readline())
        file.seek(0)
        self.path, self.row = path, 0
        self._reader = csv.reader(file, delimiter=max(DELIMITERS, key=first.count), strict=True)
        self.header: list[str] = []
        self._at: dict[str, int] = {}  # where each of its names stands

    @property
    def line(self) -> int:
        return self._reader.line_num

    def read_header(self) -> None:
        given = [cell.strip() for cell in next(self._reader, [])]
        if not any(given):
            raise DataError(
                f"{self.path} is empty: a header with the columns' names and at least one row are expected"
            )
        # A name for columns without one, which is what pandas calls them, so that they can be left out.
        self.header = [name or f"Unnamed: {i}" for i, name in enumerate(given)]
        self._at = {name: i for i, name in enumerate(self.header)}
        for i, name in enumerate(self.header):
            if self._at[name] != i:
                raise DataError(f"{self.path}: two columns are called {name!r}")

    def check_header(self, target: str) -> None:
        """DataError if the first line is one of data: numbers alone, and neither positions nor years."""
        names = self.header
        numbered = names == [str(i) for i in range(len(names))]  # as pandas names columns that have no names
        years = target in names and all(name.isdigit() and int(name) in YEARS for name in names)
        if all(cells.number(name) is not None for name in names) and not numbered and not years:
            raise DataError(
                f"{self.path} has no header: its first line is all numbers ({listed(names)}); "
                "put a line with the columns' names on top"
            )

    def position(self, name: str, option: str) -> int:
        if name not in self._at:
            hint = instead(name, self.header)
            with_comma = [known for known in self.header if name in map(str.strip, known.split(","))]
            if option == "--drop" and with_comma:
                hint = f""": is {with_comma[0]!r} meant? Then put it in quotes: --drop '"{with_comma[0]}"'"""
            raise DataError(f"{self.path} has no column {name!r} ({option}){hint}")
        return self._at[name]

    def find(self, name: str) -> int | None:
        """Where the column of this name is, if there is one."""
        return self._at.get(name)

    def rows(self) -> Iterator[list[str]]:
        for row in self._reader:
            if not row:  # an empty line, often the last one
                continue
            self.row += 1
            if len(row) != len(self.header):
                raise DataError(
                    f"{self.path} row {self.row} (line {self.line}) has {len(row)} cells, the header has "
                    f"{len(self.header)}: every row must be as long as the header"
                )
            yield row

    def collect(
        self,
        columns: Columns,
        wanted: list[int],
        target_at: int | None,
        weights_at: int | None,
        *,
        training: bool,
    ) -> Table:
        """Read all rows: the features, and target and weights where they are."""
        for i in wanted:
            if self.header[i] == f"Unnamed: {i}" and training:
                raise DataError(
                    f"{self.path}: column {i + 1} of the header has no name: give it one, or leave "
                    f"it out, as an index should be: --drop 'Unnamed: {i}'"
                )
        numeric = wanted if weights_at is None else [*wanted, weights_at]
        numbers = array("d")  # row by row: 8 bytes a cell, where lists of floats would take 32
        target: list[str] = []
        for row in self.rows():
            try:
                values = [float(row[i]) for i in numeric]
                usable = all(map(math.isfinite, values)) and not any("_" in row[i] for i in numeric)
            except ValueError:
                usable = False
            if not usable:
                values = [value for i in numeric if (value := cells.feature(row[i])) is not None]
                if len(values) < len(numeric):
                    raise self._unusable(row, numeric, wanted if training else [])
            numbers.extend(values)
            if target_at is not None:
                target.append(row[target_at].strip())
        if not self.row:
            raise DataError(f"{self.path} has a header and no rows")
        table = np.frombuffer(numbers, dtype=np.float64).reshape(self.row, len(numeric))
        of_rows = None
        if weights_at is not None:
            of_rows = weights(self.path, self.header[weights_at], table[:, -1].copy(), first_row=1)
        features = table[:, : len(wanted)].copy()
        return Table(columns, features, None if target_at is None else target, of_rows)

    def _unusable(self, row: list[str], numeric: list[int], features: list[int]) -> DataError:
        """What is wrong with the first cell that is no number, and which other columns have such cells.

        features: those of the columns that can be left out, if any can.
        """
        bad = [i for i in numeric if cells.feature(row[i]) is None]
        column, cell = bad[0], row[bad[0]].strip()
        place = f"{self.path} row {self.row} (line {self.line}), column {self.header[column]!r}"
        good = set(numeric) - set(bad)
        try:
            for later in self.rows():
                found = sorted(i for i in good if cells.feature(later[i]) is None)
                bad += found
                good -= set(found)
        except (DataError, csv.Error, UnicodeDecodeError):
            pass  # one thing after the other
        others = [self.header[i] for i in bad[1:]]
        also = f"; so have {'columns' if len(others) > 1 else 'column'} {listed(others)}" if others else ""
        droppable = set(features)
        drop = f"--drop {_quoted([self.header[i] for i in bad if i in droppable])}"
        drop = drop if column in droppable else ""
        form = cells.unusual_form(cell)
        if not cell:
            hint = f" (or leave the column out: {drop})" if drop else ""
            return DataError(f"{place} is empty: every cell needs a number{hint}{also}")
        if _is_infinite(cell):
            return DataError(f"{place}: {cells.shown(cell)} is not a finite number{also}")
        if form is not None:
            return DataError(
                f"{place}: {cells.shown(cell)} is not a number, but one with {form}: numbers like 1234.5 are "
                f"expected{also}"
            )
        hint = f" (columns of text can be left out: {drop})" if drop else ""
        return DataError(f"{place}: {cells.shown(cell)} is not a number{hint}{also}")


def _is_infinite(cell: str) -> bool:
    """Or NaN."""
    try:
        return not math.isfinite(float(cell))
    except ValueError:
        return False


def _quoted(names: Sequence[str]) -> str:
    """As a shell takes them for one option."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    line = text.getvalue()
    return line if re.fullmatch(r"[\w.,:+-]+", line) else "'" + line.replace("'", "'\\''") + "'"
