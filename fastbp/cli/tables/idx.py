"""IDX files, in which MNIST and its relatives come: big-endian arrays of one of six dtypes, often gzipped.

0, 0, dtype, number of dimensions (a byte each); the dimensions (4 bytes each); the values in C order
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.cli.tables.array_table import one_each, require_finite
from fastbp.cli.tables.reading import TABLES, is_packed
from fastbp.cli.tables.table import Columns, Table

DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"
TARGET = "label"  # what the target is called; IDX files have no names
READ_AT_ONCE = 1 << 22


def is_idx(path: str) -> bool:
    """Whether this is to be read as IDX: no table by its name, and by name or content such a file."""
    file = Path(path)
    if file.suffix.lower() in TABLES or is_packed(path) or not file.is_file():
        return False
    with open(file, "rb") as opened:
        return "idx" in file.name.lower() or opened.read(2) in (GZIP, b"\0\0")


def read(path: str) -> NDArray[Any]:
    """The array in an IDX file, plain or gzipped, in this machine's byte order. DataError if damaged."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == GZIP
        raw.seek(0)
        try:
            values = _array(path, gzip.GzipFile(fileobj=raw) if zipped else raw)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is a damaged gzip file: {error}") from None
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _array(path: str, file: Any) -> NDArray[Any]:
    head = file.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES or not head[3]:
        raise DataError(f"{path} is no IDX file: it begins with {head.hex(' ') or 'nothing'}")
    sizes = file.read(4 * head[3])
    if len(sizes) < 4 * head[3]:
        raise DataError(f"{path} ends within its header")
    shape, dtype = struct.unpack(f">{head[3]}I", sizes), np.dtype(DTYPES[head[2]])
    expected = math.prod(shape) * dtype.itemsize
    content = _read_up_to(file, expected)
    if len(content) < expected or file.read(1):
        found = f"{len(content):,}" if len(content) < expected else "more"
        raise DataError(
            f"{path} should hold {expected:,} bytes for shape {shape} of {dtype.name}, it has {found}"
        )
    if not expected:
        raise DataError(f"{path} is empty, its shape is {shape}")
    return np.frombuffer(content, dtype).reshape(shape)


def _read_up_to(file: IO[bytes], size: int) -> bytearray:
    """In pieces: the size stands in the file, and may be a lie that is larger than the memory."""
    content = bytearray()
    while len(content) < size and (piece := file.read(min(size - len(content), READ_AT_ONCE))):
        content += piece
    return content


def read_table(images: str, labels: str | None) -> Table:
    """One row an image, and its label: features are left as they are stored, if they are images.

    A file of two dimensions is a table of columns like any other.
    """
    values = read(images)
    if values.ndim < 2:
        raise DataError(f"{images} has shape {values.shape}, one value a row: those are labels, not images")
    rows, width = len(values), math.prod(values.shape[1:])
    features = values.reshape(rows, width)
    if values.ndim == 2:
        features = features.astype(np.float64)
    require_finite(images, features)
    target = None
    if labels is not None:
        found = read(labels)
        if found.shape != (rows,):
            raise DataError(
                f"{labels} has shape {found.shape}, ({rows},) is expected: a label for each row of {images}"
            )
        target = one_each(labels, TARGET, found, rows)
    columns = Columns([str(i) for i in range(width)], TARGET, named=False, width=width)
    return Table(columns, features, target, image=values.shape[1:] if values.ndim > 2 else None)


def find(folder: str) -> list[tuple[str, str]]:
    """(images, labels) to train on and to test with, of a folder that has them by their usual names."""
    pairs = []
    for part in ("train", "t10k"):
        names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
        found = []
        for name in names:
            there = [p for p in (Path(folder, name), Path(folder, name + ".gz")) if p.is_file()]
            if not there:
                raise DataError(
                    f"{folder} has no {name} or {name}.gz: a folder must hold train-images-idx3-ubyte, "
                    "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
                )
            found.append(str(there[0]))
        pairs.append((found[0], found[1]))
    return pairs
