"""Which files are tables of which kind, and arrays in .npy and .npz files as tables of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastbp.cli.errors import DataError
from fastbp.cli.tables import array_table
from fastbp.cli.tables.table import Columns, Table
from fastbp.storage import atomic
from fastbp.tables.files import reading

ARRAYS = (".npy", ".npz")
TABLES = (*reading.KINDS, *ARRAYS)
PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}


def is_array(path: str) -> bool:
    """Whether it is a .npy or .npz file by its name."""
    return Path(path).suffix.lower() in ARRAYS


def table_file(path: str) -> str:
    """The path, if there is a table that pandas reads; DataError otherwise."""
    suffix = Path(path).suffix.lower()
    if not Path(path).exists():
        raise DataError(f"no such file: {path}")
    if Path(path).is_dir():
        raise DataError(f"{path} is a directory: a file with a table or with images is expected")
    atomic.check_regular(path)
    if reading.is_table(path) or suffix in ARRAYS:
        return path
    if suffix in PACKED:
        raise DataError(f"{path} is a packed file: unpack it first ({PACKED[suffix]} {Path(path).name})")
    raise DataError(
        f"{path}: unknown kind of file {suffix!r}: {', '.join(TABLES)} or an IDX file is expected"
    )


def is_packed(path: str) -> bool:
    """Whether it is a packed table by its name, such as iris.csv.gz."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    return len(suffixes) == 2 and suffixes[1] in PACKED and suffixes[0] in TABLES


def read_for_training(path: str, target: str, drop: Sequence[str] = (), weights: str | None = None) -> Table:
    """Read every column of an array as a feature, except `target`, `weights` and those to `drop`."""
    if Path(table_file(path)).suffix.lower() == ".npy":
        return array_table.read_npy_for_training(path, target, drop, weights)
    return array_table.read_npz_for_training(path, target, drop, weights)


def read_for_prediction(path: str, columns: Columns) -> Table:
    """Read the columns of an array that a model was trained on, and the target too where the file has it."""
    return array_table.read_for_prediction(table_file(path), columns)
