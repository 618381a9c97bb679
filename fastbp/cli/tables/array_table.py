"""Tables in .npy files, whose columns have numbers from 0, and in .npz files, which hold arrays by names."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.cli.tables.table import Columns, Table, instead, listed, remaining, weights, wrong_width
from fastbp.tables.targets import Target

ARRAY_FEATURES = "X"  # the array that holds the features in an .npz file, unless it has only one candidate

Stored = NDArray[np.generic]


def read_npy_for_training(path: str, target: str, drop: Sequence[str], weights_of: str | None) -> Table:
    """Every column is a feature, except `target`, `weights_of` and those to `drop`."""
    matrix = _matrix(path, "the array", _load_npy(path))
    names = [str(i) for i in range(matrix.shape[1])]
    target_at = _position(path, matrix, target, "--target")
    weights_at = None if weights_of is None else _position(path, matrix, weights_of, "--weights")
    dropped = {_position(path, matrix, name, "--drop") for name in drop}
    wanted = remaining(path, names, target_at, weights_at, dropped)
    columns = Columns([names[i] for i in wanted], str(target_at), named=False, width=matrix.shape[1])
    target_values = _finite(path, matrix, [target_at])[:, 0]
    of_rows = None
    if weights_at is not None:
        of_rows = weights(path, names[weights_at], _finite(path, matrix, [weights_at])[:, 0])
    return Table(columns, _finite(path, matrix, wanted), target_values, of_rows)


def read_npz_for_training(path: str, target: str, drop: Sequence[str], weights_of: str | None) -> Table:
    """Every column of the features is one, except those to `drop`."""
    archive = _load_npz(path)
    for name, option in ((target, "--target"), (weights_of, "--weights")):
        if name is not None and name not in archive:
            raise DataError(f"{path} has no array {name!r} ({option}){instead(name, list(archive))}")
    if weights_of == target:
        raise DataError(f"array {target!r} is both --target and --weights")
    matrix = _matrix(path, *_features_of(path, archive, [target, weights_of]))
    dropped = {_position(path, matrix, name, "--drop") for name in drop}
    wanted = [i for i in range(matrix.shape[1]) if i not in dropped]
    if not wanted:
        raise DataError(f"{path}: --drop leaves no column as a feature")
    columns = Columns([str(i) for i in wanted], target, named=False, width=matrix.shape[1])
    values = one_each(path, target, archive[target], len(matrix))
    _require_finite_values(path, target, values)
    of_rows = None
    if weights_of is not None:
        found = one_each(path, weights_of, archive[weights_of], len(matrix))
        if not isinstance(found, np.ndarray):
            raise DataError(f"{path}: array {weights_of!r} (--weights) holds text, numbers are expected")
        _require_finite_values(path, weights_of, found)
        of_rows = weights(path, weights_of, found)
    return Table(columns, _finite(path, matrix, wanted), values, of_rows)


def read_for_prediction(path: str, columns: Columns) -> Table:
    """The columns that a model was trained on, and the target too where the file has it.

    What nobody needs for a prediction, dropped columns and the target, may hold anything.
    """
    values: Target | None = None
    if Path(path).suffix.lower() == ".npz":
        archive = _load_npz(path)
        matrix = _matrix(path, *_features_of(path, archive, [columns.target]))
        if columns.target in archive:
            values = one_each(path, columns.target, archive[columns.target], len(matrix))
    else:
        matrix = _matrix(path, "the array", _load_npy(path))
    if matrix.shape[1] == len(columns.features):  # the features alone, in their order
        return Table(columns, _finite(path, matrix, range(matrix.shape[1])), values)
    if columns.named or matrix.shape[1] != columns.width:
        raise wrong_width(path, matrix.shape[1], columns)
    if values is None and columns.target.isdigit() and int(columns.target) < matrix.shape[1]:
        values = matrix[:, int(columns.target)].astype(np.float64)  # laid out like the training array
    return Table(columns, _finite(path, matrix, [int(name) for name in columns.features]), values)


# ---- files -------------------------------------------------------------------------------------------------


class Archive(Mapping[str, Stored]):
    """The arrays of an .npz file, each read when it is asked for: those that nobody needs may be anything."""

    def __init__(self, path: str, names: list[str]) -> None:
        self._path, self._names = path, names

    def __getitem__(self, name: str) -> Stored:
        array = _load(self._path, name)
        assert isinstance(array, np.ndarray)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


def _load(path: str, name: str | None = None) -> Stored | Archive:
    """The array of a .npy file, or the archive in an .npz file (the content decides which it is), or of that
    the array of this name.
    """
    # The file is opened here because np.load leaves its own open when the content is damaged.
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            with loaded:
                return Archive(path, loaded.files) if name is None else loaded[name]
        except (ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
            kind = Path(path).suffix.lower()
            raise DataError(f"{path} cannot be read as {kind}: {' '.join(str(error).split())}") from error


def _load_npy(path: str) -> Stored:
    loaded = _load(path)
    if isinstance(loaded, Archive):
        raise DataError(f"{path} is an archive of arrays: name it .npz")
    return loaded


def _load_npz(path: str) -> Archive:
    loaded = _load(path)
    if not isinstance(loaded, Archive):
        raise DataError(f"{path} is a single array: name it .npy")
    if not loaded:
        raise DataError(f"{path} holds no arrays")
    return loaded


# ---- arrays ------------------------------------------------------------------------------------------------


def _features_of(path: str, archive: Archive, taken: Sequence[str | None]) -> tuple[str, Stored]:
    """The array with the features, which is none of those."""
    others = [name for name in archive if name not in taken]
    if ARRAY_FEATURES in others:
        name = ARRAY_FEATURES
    elif len(others) == 1:
        name = others[0]
    else:
        raise DataError(
            f"{path} needs an array {ARRAY_FEATURES!r} with the features; it holds {listed(list(archive))}"
        )
    return f"array {name!r}", archive[name]


def _matrix(path: str, label: str, values: Stored) -> Stored:
    if values.ndim != 2:
        raise DataError(f"{path}: {label} has shape {values.shape}, (rows, columns) is expected")
    if not len(values) or not values.shape[1]:
        raise DataError(f"{path}: {label} is empty, its shape is {values.shape}")
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: {label} has dtype {values.dtype}, numbers are expected")
    return values


def _finite(path: str, matrix: Stored, columns: Sequence[int]) -> NDArray[np.float64]:
    """These columns as numbers; DataError unless all are finite."""
    with np.errstate(over="ignore"):
        numbers = matrix[:, list(columns)].astype(np.float64)
    require_finite(path, numbers, columns)
    return numbers


def require_finite(path: str, matrix: NDArray[Any], columns: Sequence[int] | None = None) -> None:
    """DataError unless all numbers are finite; columns: what those of `matrix` are called."""
    if matrix.dtype.kind != "f":
        return
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = bad[0]
        raise DataError(
            f"{path} row {row}, column {column if columns is None else columns[column]} (counted from 0): "
            f"{matrix[row, column]} is not a finite number"
        )


def _position(path: str, matrix: Stored, name: str, option: str) -> int:
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


def one_each(path: str, name: str, values: Stored, rows: int) -> Target:
    """One value for each row, as text or as numbers, which may be NaN."""
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
    return values.astype(np.float64)


def _require_finite_values(path: str, name: str, values: Target) -> None:
    if isinstance(values, np.ndarray):
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise DataError(
                f"{path}: array {name!r} row {bad[0]} (counted from 0): {values[bad[0]]} is not a finite "
                "number"
            )
