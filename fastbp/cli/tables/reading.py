"""Tables for the command line: a CSV, .npy or .npz file in, a `Table` out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fastbp.cli.errors import DataError
from fastbp.cli.tables import array_table, csv_table
from fastbp.cli.tables.table import Columns, Table
from fastbp.storage import atomic

TABLES = (".csv", ".tsv", ".txt", ".npy", ".npz")
PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}


def read_for_training(path: str, target: str, drop: Sequence[str] = (), weights: str | None = None) -> Table:
    """Read every column as a feature, except `target`, `weights` and those to `drop`."""
    kind = _kind(path)
    if kind == ".npy":
        return array_table.read_npy_for_training(path, target, drop, weights)
    if kind == ".npz":
        return array_table.read_npz_for_training(path, target, drop, weights)
    return csv_table.read_for_training(path, target, drop, weights)


def read_for_prediction(path: str, columns: Columns) -> Table:
    """Read the columns that a model was trained on, and the target too where the file has it."""
    if _kind(path) in (".npy", ".npz"):
        return array_table.read_for_prediction(path, columns)
    return csv_table.read_for_prediction(path, columns)


def is_packed(path: str) -> bool:
    """Whether it is a packed table by its name, such as iris.csv.gz."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes[-2:]]
    return len(suffixes) == 2 and suffixes[1] in PACKED and suffixes[0] in TABLES


def _kind(path: str) -> str:
    suffix = Path(path).suffix.lower()
    if not Path(path).exists():
        raise DataError(f"no such file: {path}")
    if Path(path).is_dir():
        raise DataError(f"{path} is a directory: a file with a table or with images is expected")
    atomic.check_regular(path)
    if suffix in PACKED:
        raise DataError(f"{path} is a packed file: unpack it first ({PACKED[suffix]} {Path(path).name})")
    if suffix not in TABLES:
        raise DataError(
            f"{path}: unknown kind of file {suffix!r}: {', '.join(TABLES)} or an IDX file is expected"
        )
    return suffix
