"""Data that is converted row by row as it is read: integers, files larger than memory, scaled inputs.

What is a C-ordered array of the model's dtype already is used where it lies. Of anything else a copy as
floats could be eight times as large as the data, or larger than memory; `Rows` stands for that copy.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib import array_utils
from numpy.typing import NDArray

Array = NDArray[Any]

# Numbers that are converted or checked at a time where nothing else bounds it.
BLOCK_NUMBERS = 1 << 20


class Rows:
    """A matrix (samples, columns) of stored numbers, of which rows become floats when they are asked for.

    rows[slice or indices] is a new C-ordered array of `dtype`: the values, or with scaling = (scale, offset),
    both (columns,), values * scale + offset, where product and sum are rounded each. That is computed in the
    dtype of scale and offset: of timestamps float32 keeps too few digits for what the offset leaves.
    """

    def __init__(
        self, values: Array, dtype: np.dtype[Any], scaling: tuple[Array, Array] | None = None
    ) -> None:
        self.values, self.dtype, self.scaling = values, dtype, scaling

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Array:
        computed = self.dtype if self.scaling is None else self.scaling[0].dtype
        with np.errstate(all="ignore"):  # as in as_floats: what overflows becomes infinite
            floats = np.array(self.values[rows], computed, order="C", ndmin=2)
            if self.scaling is not None:
                floats *= self.scaling[0]
                floats += self.scaling[1]
            return floats.astype(self.dtype, copy=False)

    def with_values(self, values: Array) -> Rows:
        """Other rows that are stored like these."""
        return Rows(values, self.dtype, self.scaling)


class Labels(Rows):
    """Class labels, each of which stands for a row of zeros with a single one.

    rows[slice or indices] is (rows, classes) of `dtype`, or with weights (rows, classes + 1), the weight in
    the last column. A row takes 8 or 16 bytes, however many classes there are. The labels are a copy: engine
    code trusts them to be below `classes`.
    """

    def __init__(self, labels: Array, classes: int, dtype: np.dtype[Any], weights: Array | None = None):
        fields = [("label", np.int64)] + ([] if weights is None else [("weight", dtype)])
        values = np.empty(len(labels), np.dtype(fields, align=True))
        values["label"] = labels
        if weights is not None:
            values["weight"] = weights
        super().__init__(values, dtype)
        self.classes = classes

    @property
    def labels(self) -> NDArray[np.int64]:
        """(rows,)"""
        labels: NDArray[np.int64] = self.values["label"]
        return labels

    @property
    def weights(self) -> Array | None:
        """(rows,) of `dtype`, or None."""
        return self.values["weight"] if "weight" in (self.values.dtype.names or ()) else None

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.values), self.classes + (self.weights is not None)

    @property
    def nbytes(self) -> int:
        """Of all rows as floats."""
        rows, columns = self.shape
        return rows * columns * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> Array:
        picked = self.values[rows].reshape(-1)
        floats = np.zeros((len(picked), self.shape[1]), self.dtype)
        floats[np.arange(len(picked)), picked["label"]] = 1
        if self.weights is not None:
            floats[:, self.classes] = picked["weight"]
        return floats

    def with_values(self, values: Array) -> Labels:
        weights = values["weight"] if self.weights is not None else None
        return Labels(values["label"], self.classes, self.dtype, weights)

    def with_weights(self, weights: Array | None) -> Labels:
        """The same labels with these weights (rows,), or with none."""
        return Labels(self.labels, self.classes, self.dtype, weights)


def picked(data: Array | Rows, rows: NDArray[np.int64]) -> Array | Rows:
    """These rows of the data, as a copy in memory that is stored like them."""
    return data.with_values(data.values[rows]) if isinstance(data, Rows) else data[rows]


def opened(name: str, value: Any) -> Any:
    """A path of a .npy file as an array mapped from it, read-only; anything else as it is.

    OSError if an array is mapped from a file that was cut short.
    """
    if not isinstance(value, (str, os.PathLike)):
        require_whole(name, value)
        return value
    path = os.fspath(value)
    if not os.fsdecode(path).endswith(".npy"):
        raise ValueError(f"{name} is {path!r}, expected an array or the path of a .npy file")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise type(error)(error.errno, f"{name}: {error.strerror}", path) from None
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{name}: {path!r} is not a .npy file of numbers, or is truncated: {error}"
        ) from None


def is_on_disk(data: Array | Rows) -> bool:
    """Whether the numbers are mapped from a file."""
    base: Any = data.values if isinstance(data, Rows) else data
    while isinstance(base, np.ndarray):
        if type(base) is not np.ndarray and isinstance(base, np.memmap):
            return True
        base = base.base
    return base is not None and isinstance(base, mmap.mmap)


def own_view(data: Array | Rows) -> Array | Rows:
    """The same numbers under an array object of our own, whose shape nobody else can set."""
    if isinstance(data, Labels):  # which are a copy already
        return data
    if isinstance(data, Rows):
        return data.with_values(data.values.view(np.ndarray))
    return data.view(np.ndarray)


class MappedFile:
    """The file that data are mapped from, to be asked whether it still has all of them.

    To read what is mapped from a file that somebody has cut short ends the process (SIGBUS). So whoever is
    about to read asks first. What is cut off while compiled code reads, nobody can help.
    """

    def __init__(self, name: str, data: Array | Rows) -> None:
        self._name = name
        self._map: mmap.mmap | None = None  # None: it is no file, or the system cannot tell its size
        self._bytes = 0  # that it must have
        values = data.values if isinstance(data, Rows) else data
        root: Any = values
        while isinstance(root.base, np.ndarray):
            root = root.base
        if isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap) and values.size:
            self._map = root.base
            self._bytes = root.offset + array_utils.byte_bounds(values)[1] - root.ctypes.data

    def require_whole(self) -> None:
        """OSError if the file is too short by now. (Not where nobody knows.)"""
        if self._map is None:
            return
        size = self._map.size()
        if size < self._bytes:
            raise OSError(
                f"the file that {self._name} is mapped from has been cut to {size} bytes since, "
                f"expected at least {self._bytes}"
            )


def require_whole(name: str, value: Any) -> None:
    """OSError if it is an array that is mapped from a file that was cut short."""
    if isinstance(value, np.ndarray) and value.base is not None and is_on_disk(value):
        MappedFile(name, value).require_whole()


def is_ready(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether it is an array in memory as compiled code takes it: what most callers give, seen quickly. Of
    anything else nothing is said."""
    if type(value) is not np.ndarray or value.dtype != dtype or not value.flags.carray:
        return False
    base = value.base
    while type(base) is np.ndarray:
        base = base.base
    return base is None  # else it may be mapped from a file


def is_plain(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether compiled code can read the array where it lies."""
    return array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned


def is_read_as_stored(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether to convert rows when they are read, rather than all of them now.

    Floats in memory are copied once: reading the copy again and again is faster. (Extended precision is
    always copied.)
    """
    if is_plain(array, dtype) or array.itemsize > 8:
        return False
    return array.dtype.kind in "biu" or array.itemsize < 4 or is_on_disk(array)


def row_blocks(array: Array | Rows, numbers: int | None = None) -> Iterator[slice]:
    """The rows in blocks of about so many numbers."""
    rows = len(array)
    block = max(1, (numbers or BLOCK_NUMBERS) // max(1, array.shape[1]))
    return (slice(start, min(start + block, rows)) for start in range(0, rows, block))
