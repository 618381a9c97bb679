"""The samples of one call, as the network takes them, and as a score compares them; labels, and back."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_array
from sklearn.utils.multiclass import unique_labels

from fastbp.engine.kernels.finite import is_finite
from fastbp.engine.kernels.reductions import largest_columns

Array = NDArray[Any]

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
# What scikit-learn's `validate_data` takes where there are no targets.
NOT_GIVEN = "no_validation"
MULTILABEL = "multilabel-indicator"
# Outputs from which it pays to have where the largest of a row stands found in compiled code.
LARGE = 100_000


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


def are_plain(X: Any, y: Any) -> bool:
    """Whether scikit-learn's checks of X, and of labels or targets (samples,) if there are any, would find
    nothing to say and return the arrays as they are."""
    if type(X) is not np.ndarray or X.dtype not in FLOATS or X.ndim != 2 or not X.size:
        return False
    if not (X.flags.c_contiguous and X.flags.aligned and is_finite(X)):
        return False
    if y is NOT_GIVEN:
        return True
    if type(y) is not np.ndarray or y.shape != (len(X),):
        return False
    return y.dtype.kind in "iub" or (y.dtype in FLOATS and bool(np.isfinite(y).all()))


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


# ---- labels ------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """What a classifier tells apart.

    kind : "binary", "multiclass" or "multilabel-indicator". classes : (classes,), sorted. as_sparse : whether
        sets of labels were given, and are predicted, as a sparse matrix.
    """

    kind: str
    classes: Array
    as_sparse: bool

    def numbers(self, y: Array) -> Array:
        """(samples,) the places in `classes` of labels (samples,) that are in it; ValueError for sets."""
        self._require_shape(y)
        numbers: Array = np.searchsorted(self.classes, y)
        return numbers

    def ones(self, y: Any) -> Array:
        """(samples, outputs) zeros and ones of float32: a column for each class, or the second of two, or
        sets of labels as they are. ValueError for sets of other labels, and for sets where none were."""
        self._require_shape(y)
        if y.ndim == 2:
            ones = y.toarray() if sparse.issparse(y) else y
        elif self.kind == "binary":
            ones = y[:, None] == self.classes[1:2] if len(self.classes) > 1 else np.zeros((len(y), 1))
        else:
            ones = self.numbers(y)[:, None] == np.arange(len(self.classes))
        floats: Array = ones.astype(np.float32)
        return floats

    def _require_shape(self, y: Any) -> None:
        expected = (y.shape[0], len(self.classes))[: 2 if self.kind == MULTILABEL else 1]
        if y.shape != expected:
            raise ValueError(f"y has shape {y.shape}, expected {expected} as in the first call of fit")

    def predicted(self, out: Array, threshold: float) -> Any:
        """Of outputs (samples, outputs), the labels (samples,), or sets (samples, labels) of 0 and 1; outputs
        above the threshold say yes."""
        if self.kind == "multiclass":
            large = out.size >= LARGE and out.flags.c_contiguous
            return self.classes.take(largest_columns(out) if large else out.argmax(axis=1))
        yes = (out > threshold).astype(np.int64)
        if self.kind == "binary":
            return self.classes.take(yes[:, 0], mode="clip")  # there may be one class only
        return sparse.csr_matrix(yes) if self.as_sparse else yes


def labels_of(y: Any) -> Labels:
    """Whatever these labels are, (samples,) or sets (samples, labels); ValueError as scikit-learn has it."""
    classes = _integers(y)
    if classes is not None:
        return Labels("binary" if len(classes) <= 2 else "multiclass", classes, False)
    found = LabelBinarizer().fit(y)
    return Labels(str(found.y_type_), found.classes_, bool(found.sparse_input_))


def classes_of(y: Any) -> Array:
    """The classes that there are, sorted; ValueError as scikit-learn has it."""
    classes = _integers(y)
    found: Array = unique_labels(y) if classes is None else classes
    return found


def _integers(y: Any) -> Array | None:
    """What there is among integers or bools that are certainly classes, so that scikit-learn need not be
    asked, whose many looks take longer than short trainings; else None. It warns where they are many."""
    if not are_integers(y):
        return None
    classes = np.unique(y)
    return classes if 2 * len(classes) < len(y) else None


def are_integers(y: Any) -> bool:
    """Whether y is an array (samples,) of integers or bools, and not empty."""
    return type(y) is np.ndarray and y.ndim == 1 and y.dtype.kind in "iub" and len(y) > 0
