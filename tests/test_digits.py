"""The digits that ship with fastbp."""

from importlib.resources import files

import numpy as np
import pytest

from fastbp.data import load_digits, split_digits


def test_digits_are_small_and_complete():
    X, y = load_digits()
    assert (X.shape, X.dtype, y.shape, y.dtype) == ((1797, 64), np.uint8, (1797,), np.uint8)
    assert (X.min(), X.max()) == (0, 16)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    package = files("fastbp.data")
    assert len((package / "digits.npz").read_bytes()) < 100_000
    assert "CC BY 4.0" in (package / "README.md").read_text(encoding="utf-8")


def test_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    original = datasets.load_digits()
    X, y = load_digits()
    np.testing.assert_array_equal(X, original.data)
    np.testing.assert_array_equal(y, original.target)


def test_split_parts_are_disjoint_and_scaled():
    X, y = load_digits()
    split = split_digits(test_size=360, seed=3)
    assert len(split.X_test) == len(split.y_test) == 360
    joined = np.vstack([split.X_train, split.X_test])
    assert joined.dtype == np.float32
    assert joined.max() == 1
    # Every row is in exactly one part: the sorted rows are those of the file.
    labelled = np.column_stack([joined * 16, np.concatenate([split.y_train, split.y_test])]).astype(np.uint8)
    assert sorted(map(bytes, labelled)) == sorted(map(bytes, np.column_stack([X, y])))
    with pytest.raises(ValueError, match="test_size is 1797"):
        split_digits(test_size=1797)
