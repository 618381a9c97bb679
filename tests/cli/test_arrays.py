"""Tables in .npy and .npz files: what is accepted, refusals, and later files for a model."""

import numpy as np
import pytest

from fastbp.cli.errors import DataError
from fastbp.cli.tables.reading import read_for_prediction, read_for_training
from fastbp.cli.tables.table import Columns

# ---- arrays ----


def test_npy_columns_are_numbered(tmp_path):
    path = str(tmp_path / "data.npy")
    matrix = np.arange(12).reshape(3, 4)
    np.save(path, matrix)
    table = read_for_training(path, "-1", drop=["1"])
    assert table.columns == Columns(["0", "2"], "3", named=False, width=4)
    np.testing.assert_array_equal(table.features, matrix[:, [0, 2]])
    np.testing.assert_array_equal(table.target, matrix[:, 3])


def test_npz_needs_no_name_for_a_single_array_of_features(tmp_path):
    path = str(tmp_path / "data.npz")
    np.savez(path, pixels=np.ones((3, 2)), label=np.array(["u", "v", "u"]))
    table = read_for_training(path, "label")
    assert table.features.shape == (3, 2)
    assert table.target == ["u", "v", "u"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.ones((3, 2))}, "no array 'y'"),
        ({"X": np.ones(3), "y": np.ones(3)}, r"array 'X' has shape \(3,\), \(rows, columns\) is expected"),
        ({"X": np.ones((3, 2)), "y": np.ones(4)}, r"array 'y' has shape \(4,\), \(3,\) is expected"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "is empty"),
        ({"X": np.array([["a"]]), "y": np.ones(1)}, "array 'X' has dtype <U1"),
        ({"X": np.ones((1, 2), complex), "y": np.ones(1)}, "dtype complex128"),
        ({"X": np.array([[1, np.nan]]), "y": np.ones(1)}, "row 0, column 1 .*nan is not a finite number"),
        ({"X": np.ones((1, 2)), "y": np.array([np.inf])}, "array 'y' row 0 .*inf is not a finite number"),
        ({"a": np.ones((1, 2)), "b": np.ones((1, 2)), "y": np.ones(1)}, "needs an array 'X'"),
    ],
)
def test_npz_refusals(tmp_path, arrays, message):
    path = str(tmp_path / "data.npz")
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message):
        read_for_training(path, "y")


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04broken", b"hello"])
def test_damaged_arrays(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as"):
        read_for_training(str(tmp_path / name), "0")


def test_pickled_objects_are_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code from a data file was run",))

    path = str(tmp_path / "data.npy")
    np.save(path, np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as \.npy"):
        read_for_training(path, "0")


# ---- matching a later file with a model's columns ----


def test_prediction_from_arrays(tmp_path):
    path = str(tmp_path / "data.npy")
    columns = Columns(["0", "2"], "3", named=False, width=4)
    matrix = np.arange(8.0).reshape(2, 4)
    np.save(path, matrix)  # laid out like the training array
    table = read_for_prediction(path, columns)
    np.testing.assert_array_equal(table.features, matrix[:, [0, 2]])
    np.testing.assert_array_equal(table.target, matrix[:, 3])
    np.save(path, matrix[:, [0, 2]])  # the features alone
    np.testing.assert_array_equal(read_for_prediction(path, columns).features, matrix[:, [0, 2]])
    for width in (1, 3, 5):
        np.save(path, np.ones((2, width)))
        with pytest.raises(DataError, match=f"has {width} columns, the model was trained on 2 features"):
            read_for_prediction(path, columns)


def test_arrays_of_an_archive_that_nobody_uses_may_be_anything(tmp_path):
    path = str(tmp_path / "d.npz")
    names = np.array([None, "a", {}], dtype=object)
    np.savez(path, X=np.ones((3, 2)), y=np.arange(3), names=names, times=np.zeros(9, "M8[s]"))
    assert read_for_training(path, "y").features.shape == (3, 2)
    assert read_for_prediction(path, Columns(["0", "1"], "y", named=False, width=2)).features.shape == (3, 2)
    with pytest.raises(DataError, match=r"cannot be read as \.npz: Object arrays"):
        read_for_training(path, "names")
