"""Which rows are trained on, and which judge: folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks

Rows = NDArray[np.int64]


def folds(
    cv: Any, X: Any, Y: Any, rows: int, classes: NDArray[Any] | None, seed: int
) -> list[tuple[Rows, Rows]]:
    """Pairs (rows to train on, rows that judge).

    cv : a number of folds, drawn from the seed, in each of which every class has its share; pairs of
        indices; or an object with scikit-learn's method split(X, Y).
    classes : (rows,) the class of each row; None: there are none.
    """
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        count = checks.count("cv", cv, low=2)
        if count > rows:
            raise ValueError(f"cv is {count}, but there are {rows} rows")
        return drawn(count, rows, classes, seed)
    splits = hasattr(cv, "split") and not isinstance(cv, str)
    given: Iterable[Any] = cv.split(X, Y) if splits else cv
    try:
        pairs = [(np.asarray(train), np.asarray(test)) for train, test in given]
    except (TypeError, ValueError):
        raise TypeError(
            f"cv must be a number of folds, pairs (rows to train on, rows that judge) or an object with a "
            f"method split, got {checks.shown(cv)}"
        ) from None
    if not pairs:
        raise ValueError("cv has no folds, expected at least one")
    for i, pair in enumerate(pairs):
        for name, part in zip(("train", "judge"), pair, strict=True):
            if part.ndim != 1 or part.dtype.kind not in "iu" or not part.size:
                raise ValueError(f"cv: the rows to {name} of fold {i} must be (n,) integers, at least one")
            if part.min() < 0 or part.max() >= rows:
                raise ValueError(f"cv: the rows to {name} of fold {i} go beyond 0 to {rows - 1}")
    return [(train.astype(np.int64), test.astype(np.int64)) for train, test in pairs]


def drawn(count: int, rows: int, classes: NDArray[Any] | None, seed: int) -> list[tuple[Rows, Rows]]:
    """As many folds, of sizes that differ by 1 at most; rows of a class go to the folds in turn."""
    order = np.random.default_rng(seed).permutation(rows)
    if classes is not None:
        order = order[np.argsort(classes[order], kind="stable")]
    fold = np.empty(rows, np.int64)
    fold[order] = np.arange(rows) % count
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count)]
