"""The samples of one call, as the network takes them, and as a score compares them."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

Array = NDArray[Any]


@dataclass(slots=True)
class Data:
    """X (samples, features), a C-ordered array or a CSR matrix; y, what the network's loss takes: class
    labels (samples,) or floats (samples, outputs); weights (samples,) or None."""

    X: Any
    y: Array
    weights: Array | None = None

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def picked(self, rows: Array) -> Data:
        """Copies of these rows."""
        return Data(self.X[rows], self.y[rows], None if self.weights is None else self.weights[rows])


def sample_weights(given: Any, X: Any) -> Array | None:
    """(samples,) of X's dtype; ValueError for weights that do not fit."""
    if given is None:
        return None
    samples = X.shape[0]
    if isinstance(given, Real):
        return np.full(samples, given, X.dtype)
    weights: Array = check_array(given, ensure_2d=False, dtype=X.dtype, input_name="sample_weight")
    if weights.ndim != 1:
        raise ValueError("Sample weights must be 1D array or scalar")
    if weights.shape != (samples,):
        raise ValueError(f"sample_weight.shape == {weights.shape}, expected ({samples},)!")
    if (weights < 0).any():
        first = int(np.argmax(weights < 0))
        raise ValueError(f"sample_weight[{first}] is {weights[first]:g}, expected at least 0")
    if not weights.any():
        raise ValueError(f"sample_weight is zero for all {samples} samples, expected one above zero")
    return weights
