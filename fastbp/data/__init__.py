"""The data set that ships with fastbp: small, real, and the same on every machine.

Source and licence (UCI optical digits, CC BY 4.0) are in README.md beside this file.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Split", "load_digits", "split_digits"]


class Split(NamedTuple):
    """Rows to train on and rows to test with; X in [0, 1], labels 0 to 9."""

    X_train: NDArray[np.float32]  # (rows, 64)
    y_train: NDArray[np.int64]  # (rows,)
    X_test: NDArray[np.float32]  # (other rows, 64)
    y_test: NDArray[np.int64]  # (other rows,)


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the digits as (X, y).

    X : (1797, 64) uint8, images of 8x8 pixels row by row, 0 (white) to 16 (black)
    y : (1797,) uint8, the digit that was written
    """
    with (files(__name__) / "digits.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return archive["X"], archive["y"]


def split_digits(test_size: int = 360, seed: int = 0) -> Split:
    """Return the digits shuffled and cut in two, scaled to [0, 1].

    A random cut puts digits of every writer into both parts, as the accuracies that are usually quoted for
    this set do; it says little about the handwriting of a person whom the network has not seen.
    """
    X, y = load_digits()
    if not 0 < test_size < len(X):
        raise ValueError(f"test_size is {test_size}: it must be between 1 and {len(X) - 1}")
    order = np.random.default_rng(seed).permutation(len(X))
    test, train = order[:test_size], order[test_size:]
    scaled = X.astype(np.float32) / np.float32(16)
    labels = y.astype(np.int64)
    return Split(scaled[train], labels[train], scaled[test], labels[test])
