"""Sparse matrices in compressed rows, as scipy.sparse has them: rows become dense as they are read.

A matrix of 100 000 columns and some dozens of numbers a row would be a thousand times as large as an array.
Here only what a step, or a block of predictions, takes at a time is one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.inputs.sources import Rows

Array = NDArray[Any]
Scaling = tuple[Array, Array] | None


class Sparse(Rows):
    """A matrix (samples, columns) in compressed rows (CSR).

    values : (samples, 2) int64, where each row begins and ends in numbers and indices: rows that are picked
        share these with all others.
    numbers : what is stored, in the dtype in which it is scaled; else in that of the network.
    indices : int32, the column of each. A copy, in which no column is twice in a row and none is beyond
        `columns`: engine code trusts them.
    addresses : of numbers and indices, for compiled code.
    """

    def __init__(
        self,
        values: NDArray[np.int64],
        numbers: Array,
        indices: NDArray[np.int32],
        columns: int,
        dtype: np.dtype[Any],
        scaling: Scaling = None,
    ) -> None:
        super().__init__(values, dtype, scaling)
        self.numbers, self.indices, self.columns = numbers, indices, columns
        self.addresses = np.array([numbers.ctypes.data, indices.ctypes.data], np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self.values), self.columns

    @property
    def nbytes(self) -> int:
        """Of all rows as floats."""
        return len(self.values) * self.columns * self.dtype.itemsize

    def __getitem__(self, rows: Any) -> Array:
        begin, end = self.values[rows].reshape(-1, 2).T
        counts = end - begin
        row = np.repeat(np.arange(len(counts)), counts)
        at = np.arange(counts.sum()) + np.repeat(begin - (np.cumsum(counts) - counts), counts)
        with np.errstate(all="ignore"):  # as in Rows
            floats = np.zeros((len(counts), self.columns), self.numbers.dtype)
            floats[row, self.indices[at]] = self.numbers[at]
            if self.scaling is not None:
                floats *= self.scaling[0]
                floats += self.scaling[1]
            return floats.astype(self.dtype, copy=False)

    def with_values(self, values: Array) -> Sparse:
        return Sparse(values, self.numbers, self.indices, self.columns, self.dtype, self.scaling)


def is_sparse(X: object) -> bool:
    """Whether it is a sparse matrix or array of scipy.sparse, or what looks like one."""
    return hasattr(X, "tocsr") and hasattr(X, "nnz")


def compressed(name: str, X: Any, inputs: int) -> tuple[NDArray[np.int64], Array, NDArray[np.int32]]:
    """Where each row begins and ends, (rows, 2), the numbers as they are stored, and their columns.

    Other formats are converted to CSR, and columns that are twice in a row added up. ValueError or TypeError
    for a matrix that is none of (rows, inputs) real numbers.
    """
    if len(X.shape) != 2 or not X.shape[0]:
        raise ValueError(f"{name} has shape {X.shape}, expected (batch, {inputs}) with at least one row")
    if X.shape[1] != inputs:
        raise ValueError(
            f"{name} has {X.shape[1]} columns, the model has {inputs} inputs: "
            f"{name} must be (batch, {inputs})"
        )
    matrix = X.tocsr()
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    numbers = np.ascontiguousarray(matrix.data)
    if numbers.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {numbers.dtype}, expected real numbers")
    indptr = np.array(matrix.indptr, np.int64)
    indices = np.array(matrix.indices, np.int32)
    fits = len(indptr) == X.shape[0] + 1 and indptr[0] >= 0 and (np.diff(indptr) >= 0).all()
    stored = min(len(numbers), len(indices))
    if not fits or indptr[-1] > stored or (len(indices) and not 0 <= indices.min() <= indices.max() < inputs):
        raise ValueError(f"{name} is a sparse matrix whose indptr, indices and data do not fit together")
    return np.column_stack([indptr[:-1], indptr[1:]]), numbers, indices


def read(
    name: str, X: Any, inputs: int, dtype: np.dtype[Any], scaling: Scaling, *, check_finite: bool
) -> Sparse:
    """A sparse matrix as the network sees it; errors as `compressed`, or for NaN and infinity."""
    spans, stored, indices = compressed(name, X, inputs)
    numbers = checks.as_floats(name, stored, dtype if scaling is None else scaling[0].dtype)
    if check_finite and not np.isfinite(numbers).all():
        at = int(np.argmin(np.isfinite(numbers)))
        row = int(np.searchsorted(spans[:, 1], at, side="right"))
        raise ValueError(
            f"{name} holds NaN or infinity, the first is {name}[{row}, {indices[at]}] = {numbers[at]}"
        )
    return Sparse(spans, np.ascontiguousarray(numbers), indices, inputs, dtype, scaling)
