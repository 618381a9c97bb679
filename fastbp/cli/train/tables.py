"""Tables for the command line: a CSV, .npy or .npz file in, named numeric columns and one target column out.

Every message names the file and, where one cell is at fault, its row and column, because that is what its
reader has to go and repair.
"""

from __future__ import annotations

import csv
import difflib
import math
import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError

DELIMITERS = ",;\t"
TABLES = (".csv", ".tsv", ".txt", ".npy", ".npz")
ARRAY_FEATURES = "X"  # the array that holds the features in an .npz file, unless it has only one candidate


@dataclass(frozen=True)
class Columns:
    """What a model was trained on, so that later files can be matched with it."""

    features: list[str]  # one name a feature; where columns have no names, their positions
    target: str
    named: bool  # True for CSV; the columns of an array have only their positions
    width: (
        int  # columns of the file or array that was trained on, dropped ones and an array's target included
    )


Target = list[str] | NDArray[np.float64]  # of each row: text as it was read, or numbers


@dataclass(frozen=True)
class Table:
    columns: Columns
    features: NDArray[Any]  # (rows, features), finite; float64, but of images as they are stored
    target: Target | None  # (rows,)
    weights: NDArray[np.float64] | None = None  # (rows,), each at least 0
    image: tuple[int, ...] | None = None  # the shape of a row that is an image

    def __len__(self) -> int:
        return len(self.features)

    def pick(self, rows: NDArray[np.intp]) -> Table:
        """A table of these rows, in ascending order; itself where that is all of them."""
        if len(rows) == len(self):
            return self
        target, weights = self.target, self.weights
        if target is not None:
            target = target[rows] if isinstance(target, np.ndarray) else [target[i] for i in rows]
        return replace(
            self,
            features=self.features[rows],
            target=target,
            weights=None if weights is None else weights[rows],
        )


def read_for_training(path: str, target: str, drop: Sequence[str] = (), weights: str | None = None) -> Table:
    """Read every column as a feature, except `target`, `weights` and those to `drop`."""
    kind = _kind(path)
    if kind == "csv":
        with _open_csv(path) as (header, rows):
            target_at = _position(path, header, target, "--target")
            weights_at = None if weights is None else _position(path, header, weights, "--weights")
            dropped = {_position(path, header, name, "--drop") for name in drop}
            wanted = _remaining(path, len(header), header, target_at, weights_at, dropped)
            columns = Columns([header[i] for i in wanted], target, named=True, width=len(header))
            return _collect(path, header, rows, columns, wanted, target_at, weights_at)
    if kind == "npy":
        matrix = _matrix(path, "the array", _load_npy(path))
        names = [str(i) for i in range(matrix.shape[1])]
        target_at = _array_position(path, matrix, target, "--target")
        weights_at = None if weights is None else _array_position(path, matrix, weights, "--weights")
        dropped = {_array_position(path, matrix, name, "--drop") for name in drop}
        wanted = _remaining(path, matrix.shape[1], names, target_at, weights_at, dropped)
        numbers = _finite(path, matrix)
        columns = Columns([names[i] for i in wanted], str(target_at), named=False, width=matrix.shape[1])
        of_rows = None if weights_at is None else _weights(path, names[weights_at], numbers[:, weights_at])
        return Table(columns, numbers[:, wanted], numbers[:, target_at], of_rows)
    archive = _load_npz(path)
    for name, option in ((target, "--target"), (weights, "--weights")):
        if name is not None and name not in archive:
            raise DataError(f"{path} has no array {name!r} ({option}){_instead(name, list(archive))}")
    if weights == target:
        raise DataError(f"array {target!r} is both --target and --weights")
    matrix = _matrix(path, *_features_of(path, archive, [target, weights]))
    dropped = {_array_position(path, matrix, name, "--drop") for name in drop}
    wanted = [i for i in range(matrix.shape[1]) if i not in dropped]
    if not wanted:
        raise DataError(f"{path}: --drop leaves no column as a feature")
    columns = Columns([str(i) for i in wanted], target, named=False, width=matrix.shape[1])
    values = array_target(path, target, archive[target], len(matrix))
    of_rows = None
    if weights is not None:
        found = array_target(path, weights, archive[weights], len(matrix))
        if not isinstance(found, np.ndarray):
            raise DataError(f"{path}: array {weights!r} (--weights) holds text, numbers are expected")
        of_rows = _weights(path, weights, found)
    return Table(columns, _finite(path, matrix)[:, wanted], values, of_rows)


def read_for_prediction(path: str, columns: Columns) -> Table:
    """Read the columns that a model was trained on, and the target too where the file has it."""
    kind = _kind(path)
    if kind == "csv":
        with _open_csv(path) as (header, rows):
            wanted = _wanted(path, header, columns)
            target_at = header.index(columns.target) if columns.named and columns.target in header else None
            return _collect(path, header, rows, columns, wanted, target_at, None)
    values: Target | None = None
    if kind == "npz":
        archive = _load_npz(path)
        matrix = _matrix(path, *_features_of(path, archive, [columns.target]))
        if columns.target in archive:
            values = array_target(path, columns.target, archive[columns.target], len(matrix))
    else:
        matrix = _matrix(path, "the array", _load_npy(path))
    numbers = _finite(path, matrix)
    if matrix.shape[1] == len(columns.features):  # the features alone, in their order
        return Table(columns, numbers, values)
    if columns.named or matrix.shape[1] != columns.width:
        raise _wrong_width(path, matrix.shape[1], columns)
    if kind == "npy" and columns.target.isdigit():  # laid out like the training array, target included
        values = numbers[:, int(columns.target)]
    return Table(columns, numbers[:, [int(name) for name in columns.features]], values)


def _remaining(
    path: str, width: int, names: Sequence[str], target_at: int, weights_at: int | None, dropped: set[int]
) -> list[int]:
    """The columns that are features."""
    used = {"--target": target_at} | ({} if weights_at is None else {"--weights": weights_at})
    if target_at == weights_at:
        raise DataError(f"column {names[target_at]!r} is both --target and --weights")
    for option, column in used.items():
        if column in dropped:
            raise DataError(f"column {names[column]!r} is both {option} and in --drop")
    wanted = [i for i in range(width) if i not in used.values() and i not in dropped]
    if not wanted:
        besides = " and ".join(repr(names[column]) for column in used.values())
        raise DataError(f"{path}: no column is left as a feature besides {besides}")
    return wanted


def _weights(path: str, name: str, values: NDArray[np.float64], first_row: int = 0) -> NDArray[np.float64]:
    negative = np.flatnonzero(values < 0)
    if len(negative):
        place = f"row {negative[0] + first_row}" + ("" if first_row else " (counted from 0)")
        raise DataError(f"{path} {place}, column {name!r} (--weights): {values[negative[0]]:g} is below 0")
    if not values.any():
        raise DataError(f"{path}: column {name!r} (--weights) is 0 in every row")
    return values


def _wrong_width(path: str, width: int, columns: Columns) -> DataError:
    trained_on = _listed(columns.features) if columns.named else f"columns of an array {columns.width} wide"
    return DataError(
        f"{path} has {width} columns, the model was trained on {len(columns.features)} features: {trained_on}"
    )


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if not Path(path).exists():
        raise DataError(f"no such file: {path}")
    if Path(path).is_dir():
        raise DataError(f"{path} is a directory: a file with a table or with images is expected")
    if suffix in (".npy", ".npz"):
        return suffix[1:]
    if suffix in (".csv", ".tsv", ".txt"):
        return "csv"
    raise DataError(
        f"{path}: unknown kind of file {suffix!r}: {', '.join(TABLES)} or an IDX file is expected"
    )


# ---- CSV ----


@contextmanager
def _open_csv(path: str) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """Give the header and an iterator over (line number, cells) of rows that are as long as the header."""
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front, which would end up in the first name
        with open(path, newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            delimiter = max(DELIMITERS, key=lambda d: len(next(csv.reader([first], delimiter=d), [])))
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(path, header)
            yield header, _rows(path, reader, len(header))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except csv.Error as error:
        raise DataError(f"{path} line {reader.line_num}: {error}") from error


def _rows(path: str, reader: Iterator[list[str]], width: int) -> Iterator[tuple[int, list[str]]]:
    row = 0
    for cells in reader:
        if not cells:  # an empty line, often the last one
            continue
        row += 1
        if len(cells) != width:
            line = reader.line_num  # type: ignore[attr-defined]
            raise DataError(
                f"{path} row {row} (line {line}) has {len(cells)} cells, the header has {width}: "
                "every row must be as long as the header"
            )
        yield reader.line_num, cells  # type: ignore[attr-defined]


def _check_header(path: str, header: list[str]) -> None:
    if not any(header):
        raise DataError(
            f"{path} is empty: a header with the columns' names and at least one row are expected"
        )
    numbered = header == [str(i) for i in range(len(header))]  # as pandas names columns that have no names
    if all(_is_number(name) for name in header) and not numbered:
        raise DataError(
            f"{path} has no header: its first line is all numbers ({_listed(header)}); "
            "put a line with the columns' names on top"
        )
    for i, name in enumerate(header):
        if not name:
            raise DataError(f"{path}: column {i + 1} of the header has no name")
        if name in header[:i]:
            raise DataError(f"{path}: two columns are called {name!r}")


def _collect(
    path: str,
    header: list[str],
    rows: Iterator[tuple[int, list[str]]],
    columns: Columns,
    wanted: list[int],
    target_at: int | None,
    weights_at: int | None,
) -> Table:
    numeric = wanted if weights_at is None else [*wanted, weights_at]
    numbers = array("d")  # row by row: 8 bytes a cell, where lists of floats would take 32
    target: list[str] = []
    row = 0
    for line, cells in rows:
        row += 1
        try:
            values = [float(cells[i]) for i in numeric]
            usable = all(map(math.isfinite, values)) and not any("_" in cells[i] for i in numeric)
        except ValueError:
            usable = False
        if not usable:
            raise _bad_cell(path, row, line, header, cells, numeric)
        numbers.extend(values)
        if target_at is not None:
            target.append(cells[target_at].strip())
    if not row:
        raise DataError(f"{path} has a header and no rows")
    table = np.frombuffer(numbers, dtype=np.float64).reshape(row, len(numeric))
    weights = None
    if weights_at is not None:
        weights = _weights(path, header[weights_at], table[:, -1].copy(), first_row=1)
    return Table(columns, table[:, : len(wanted)].copy(), None if target_at is None else target, weights)


def _bad_cell(
    path: str, row: int, line: int, header: list[str], cells: list[str], wanted: list[int]
) -> DataError:
    column = next(i for i in wanted if not _is_number(cells[i]) or not math.isfinite(float(cells[i])))
    place = f"{path} row {row} (line {line}), column {header[column]!r}"
    cell = cells[column].strip()
    if not cell:
        return DataError(f"{place} is empty: every cell needs a number (or leave the column out: --drop)")
    shown = cell if len(cell) <= 40 else cell[:37] + "..."
    if _is_number(cell):
        return DataError(f"{place}: {shown!r} is not a finite number")
    return DataError(f"{place}: {shown!r} is not a number (columns of text can be left out: --drop)")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python reads 1_000 as a number; in data it is more likely an identifier


def _wanted(path: str, header: list[str], columns: Columns) -> list[int]:
    names = columns.features
    if not columns.named:  # trained on an array: only the order of the columns can be matched
        if len(header) == len(names):
            return list(range(len(header)))
        raise _wrong_width(path, len(header), columns)
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(
            f"{path} lacks {len(missing)} of the {len(names)} columns that the model was trained on: "
            f"{_listed(missing)}"
        )
    return [header.index(name) for name in names]


def _position(path: str, header: list[str], name: str, option: str) -> int:
    if name not in header:
        raise DataError(f"{path} has no column {name!r} ({option}){_instead(name, header)}")
    return header.index(name)


# ---- arrays ----


def _load(path: str) -> NDArray[np.generic] | dict[str, NDArray[np.generic]]:
    """The array of a .npy file, the arrays by name of an .npz file; the content decides which it is."""
    # The file is opened here because np.load leaves its own open when the content is damaged.
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return {name: loaded[name] for name in loaded.files}
        except (ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            kind = Path(path).suffix.lower()
            raise DataError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from error


def _load_npy(path: str) -> NDArray[np.generic]:
    loaded = _load(path)
    if isinstance(loaded, dict):
        raise DataError(f"{path} is an archive of arrays: name it .npz")
    return loaded


def _load_npz(path: str) -> dict[str, NDArray[np.generic]]:
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise DataError(f"{path} is a single array: name it .npy")
    if not loaded:
        raise DataError(f"{path} holds no arrays")
    return loaded


def _features_of(
    path: str, archive: dict[str, NDArray[np.generic]], taken: Sequence[str | None]
) -> tuple[str, NDArray[np.generic]]:
    """The array with the features, which is none of those."""
    others = [name for name in archive if name not in taken]
    if ARRAY_FEATURES in others:
        name = ARRAY_FEATURES
    elif len(others) == 1:
        name = others[0]
    else:
        raise DataError(
            f"{path} needs an array {ARRAY_FEATURES!r} with the features; it holds {_listed(list(archive))}"
        )
    return f"array {name!r}", archive[name]


def _matrix(path: str, label: str, values: NDArray[np.generic]) -> NDArray[np.generic]:
    if values.ndim != 2:
        raise DataError(f"{path}: {label} has shape {values.shape}, (rows, columns) is expected")
    if not len(values) or not values.shape[1]:
        raise DataError(f"{path}: {label} is empty, its shape is {values.shape}")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: {label} has dtype {values.dtype}, numbers are expected")
    return values


def _finite(path: str, matrix: NDArray[np.generic]) -> NDArray[np.float64]:
    numbers = matrix.astype(np.float64)
    require_finite(path, numbers)
    return numbers


def require_finite(path: str, matrix: NDArray[Any]) -> None:
    """DataError unless all numbers are finite."""
    if matrix.dtype.kind != "f":
        return
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{path} row {row}, column {column} (counted from 0): "
            f"{matrix[row, column]} is not a finite number"
        )


def _array_position(path: str, matrix: NDArray[np.generic], name: str, option: str) -> int:
    columns: int = matrix.shape[1]
    try:
        position = int(name)
    except ValueError:
        raise DataError(
            f"{option} {name}: the columns of an array have no names; give a number from 0 to {columns - 1}"
        ) from None
    if not -columns <= position < columns:
        raise DataError(f"{option} {name}: {path} has {columns} columns, 0 to {columns - 1}")
    return int(position % columns)


def array_target(path: str, name: str, values: NDArray[np.generic], rows: int) -> Target:
    """One value for each row, as text or as numbers."""
    if values.shape == (rows, 1):
        values = values[:, 0]
    if values.shape != (rows,):
        raise DataError(
            f"{path}: array {name!r} has shape {values.shape}, ({rows},) is expected: "
            "one value for each row of features"
        )
    if values.dtype.kind == "U":
        return [str(value) for value in values]
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: array {name!r} has dtype {values.dtype}, numbers or text are expected")
    numbers = values.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise DataError(
            f"{path}: array {name!r} row {bad[0]} (counted from 0): {numbers[bad[0]]} is not a finite number"
        )
    return numbers


# ---- wording ----


def _listed(names: Sequence[str], at_most: int = 6) -> str:
    shown = ", ".join(repr(name) for name in names[:at_most])
    return shown if len(names) <= at_most else f"{shown} and {len(names) - at_most} more"


def _instead(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]!r}?" if near else f"; it has {_listed(known)}"
