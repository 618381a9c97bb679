"""Reading tables: what is accepted, and that every refusal names the place that has to be repaired."""

import gzip

import numpy as np
import pytest

from fastbp.cli.errors import DataError
from fastbp.cli.main import main
from fastbp.cli.tables.reading import read_for_prediction, read_for_training
from fastbp.cli.tables.table import Columns


@pytest.fixture
def write(tmp_path):
    def write(text, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return str(path)

    return write


# ---- CSV ----


@pytest.mark.parametrize(
    "text",
    [
        "a,b,y\n1,2.5,u\n-3e2,.5,v\n",
        "a;b;y\n1;2.5;u\n-3e2;.5;v\n",
        "a\tb\ty\n1\t2.5\tu\n-3e2\t.5\tv\n",
        '"a","b","y"\r\n"1","2.5","u"\r\n\r\n -3e2 , .5 , v \r\n',
        "\ufeffa,b,y\n1,2.5,u\n-3e2,.5,v",  # byte order mark, no line end at the end
    ],
    ids=["plain", "semicolons", "tabs", "quoted-crlf-blank-line-spaces", "bom"],
)
def test_csv_dialects(write, text):
    table = read_for_training(write(text), "y")
    assert table.columns.features == ["a", "b"]
    np.testing.assert_array_equal(table.features, [[1, 2.5], [-300, 0.5]])
    assert table.target == ["u", "v"]


def test_target_may_stand_anywhere_and_columns_can_be_dropped(write):
    table = read_for_training(write("id,y,a\nx1,5,1\nx2,6,2\n"), "y", drop=["id"])
    assert table.columns == Columns(["a"], "y", named=True, width=3)
    np.testing.assert_array_equal(table.features, [[1], [2]])


def test_header_of_column_numbers(write):
    table = read_for_training(write("0,1,2\n5,6,7\n"), "2")
    assert table.columns.features == ["0", "1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b,y\n", "a header and no rows"),
        ("1,2,3\n4,5,6\n", "no header"),
        ("a,a,y\n1,2,3\n", "two columns are called 'a'"),
        ("a,,y\n1,2,3\n", "column 2 of the header has no name"),
        ("a,b,y\n1,2,3\n1,2\n", r"row 2 \(line 3\) has 2 cells, the header has 3"),
        ("a,b,y\n1,2,3,4\n", r"row 1 \(line 2\) has 4 cells"),
        ("a,b,y\n1,2,3\n\n1,red,3\n", r"row 2 \(line 4\), column 'b': 'red' is not a number .*--drop"),
        ("a,b,y\n1,,3\n", r"row 1 \(line 2\), column 'b' is empty"),
        ("a,b,y\n1,nan,3\n", "column 'b': 'nan' is not a finite number"),
        ("a,b,y\n1,1e999,3\n", "column 'b': '1e999' is not a finite number"),
        ("a,b,y\n1,1_000,3\n", "column 'b': '1_000' is not a number"),
        ('a,b,y\n1,"2,3\n', "line 2"),  # a quote that is never closed
        ("a,b,Y\n1,2,3\n", "no column 'y' .--target.; it has 'a', 'b', 'Y'"),
        ("a,b,yy\n1,2,3\n", "did you mean 'yy'"),
        ("y\n1\n", "no column is left"),
    ],
)
def test_csv_refusals(write, text, message):
    with pytest.raises(DataError, match=message):
        read_for_training(write(text), "y")


def test_csv_in_another_encoding(write):
    with pytest.raises(DataError, match="not UTF-8 text"):
        read_for_training(write("größe,y\n1,2\n", encoding="latin-1"), "y")


def test_drop_of_an_unknown_column_and_of_the_target(write):
    path = write("a,b,y\n1,2,3\n")
    with pytest.raises(DataError, match=r"no column 'c' .--drop."):
        read_for_training(path, "y", drop=["c"])
    with pytest.raises(DataError, match="both --target and in --drop"):
        read_for_training(path, "y", drop=["y"])


def test_a_path_that_is_no_table(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_for_training(str(tmp_path / "absent.csv"), "y")
    with pytest.raises(DataError, match="is a directory"):
        read_for_training(str(tmp_path), "y")
    (tmp_path / "data.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"unknown kind of file '\.xlsx'"):
        read_for_training(str(tmp_path / "data.xlsx"), "y")


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


def test_prediction_finds_columns_by_name(write):
    columns = Columns(["a", "b"], "y", named=True, width=3)
    table = read_for_prediction(write("note,b,a\nhello,2,1\n"), columns)
    np.testing.assert_array_equal(table.features, [[1, 2]])
    assert table.target is None
    with pytest.raises(DataError, match=r"lacks 1 of the 2 columns .* 'b'"):
        read_for_prediction(write("a,c\n1,2\n"), columns)


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


# ---- weights of rows ----


def test_weights_are_no_feature(write, tmp_path):
    rows = np.array([[1.0, 2, 0.5, 7], [3, 4, 1.5, 8]])  # features, weight, target
    path = str(tmp_path / "a")
    np.save(path + ".npy", rows)
    np.savez(path + ".npz", X=rows[:, :2], w=rows[:, 2], y=rows[:, 3])
    for table in (
        read_for_training(write("a,b,w,y\n1,2,.5,7\n3,4,1.5,8\n"), "y", weights="w"),
        read_for_training(path + ".npy", "3", weights="2"),
        read_for_training(path + ".npz", "y", weights="w"),
    ):
        np.testing.assert_array_equal(table.features, rows[:, :2])
        np.testing.assert_array_equal(table.weights, rows[:, 2])
    later = read_for_prediction(path + ".npy", Columns(["0", "1"], "3", named=False, width=4))
    np.testing.assert_array_equal(later.features, rows[:, :2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,w,y\n1,1,7\n3,-2,8\n", r"row 2, column 'w' \(--weights\): -2 is below 0"),
        ("a,w,y\n1,1,7\n3,much,8\n", r"row 2 \(line 3\), column 'w': 'much' is not a number"),
        ("a,w,y\n1,0,7\n3,0,8\n", r"column 'w' \(--weights\) is 0 in every row"),
        ("a,y\n1,7\n3,8\n", r"no column 'w' \(--weights\)"),
    ],
)
def test_weights_that_cannot_be_used(write, text, message):
    with pytest.raises(DataError, match=message):
        read_for_training(write(text), "y", weights="w")


# ---- columns that nobody uses ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cells_that_nobody_uses_may_hold_anything(tmp_path, write, bad):
    """A dropped column in training; that and the target in prediction: CSV, .npy and .npz alike."""
    path = str(tmp_path / "d")
    matrix = np.array([[1.0, bad, 5], [2, bad, 6], [3, 0, 7]])
    np.save(path + ".npy", matrix)
    np.savez(path + ".npz", X=matrix[:, :2], y=matrix[:, 2])
    csv = write("0,1,2\n1,nan,5\n2,inf,6\n3,0,7\n")
    for table in (
        read_for_training(path + ".npy", "2", drop=["1"]),
        read_for_training(path + ".npz", "y", drop=["1"]),
        read_for_training(csv, "2", drop=["1"]),
    ):
        np.testing.assert_array_equal(table.features, [[1], [2], [3]])
    matrix[1, 2] = bad
    np.save(path + ".npy", matrix)
    np.savez(path + ".npz", X=matrix[:, :2], y=matrix[:, 2])
    for name, target in ((".npy", "2"), (".npz", "y")):
        columns = Columns(["0"], target, named=False, width=3 if name == ".npy" else 2)
        np.testing.assert_array_equal(read_for_prediction(path + name, columns).features, [[1], [2], [3]])
    for name, target in ((".npy", "2"), (".npz", "y")):  # where they are used they are refused
        with pytest.raises(DataError, match="is not a finite number"):
            read_for_training(path + name, target, drop=["1"])
    with pytest.raises(DataError, match=r"row 0, column 1 .counted from 0.: .* is not a finite number"):
        read_for_training(path + ".npy", "0")


def test_arrays_of_an_archive_that_nobody_uses_may_be_anything(tmp_path):
    path = str(tmp_path / "d.npz")
    names = np.array([None, "a", {}], dtype=object)
    np.savez(path, X=np.ones((3, 2)), y=np.arange(3), names=names, times=np.zeros(9, "M8[s]"))
    assert read_for_training(path, "y").features.shape == (3, 2)
    assert read_for_prediction(path, Columns(["0", "1"], "y", named=False, width=2)).features.shape == (3, 2)
    with pytest.raises(DataError, match=r"cannot be read as \.npz: Object arrays"):
        read_for_training(path, "names")


# ---- headers and cells -------------------------------------------------------------------------------------


def test_a_header_of_more_than_131072_letters(write):
    names = [f"column_{i}" for i in range(20_000)]
    table = read_for_training(write(f"{','.join(names)},y\n" + "1," * 20_000 + "2\n"), "y")
    assert table.columns.features == names
    with pytest.raises(DataError, match=r"data\.csv line 1: field larger than field limit"):
        read_for_training(write("a" * 200_000 + ",y\n1,2\n"), "y")


def test_delimiters_in_quotes_do_not_count(write):
    table = read_for_training(write('"a,b,c,d";y\n1;2\n'), "y")
    assert table.columns.features == ["a,b,c,d"]


def test_a_column_without_a_name_can_be_dropped(write):
    """As pandas writes its index."""
    path = write(",a,y\n0,1,2\n1,3,4\n")
    with pytest.raises(DataError, match=r"column 1 of the header has no name: .*--drop 'Unnamed: 0'"):
        read_for_training(path, "y")
    table = read_for_training(path, "y", drop=["Unnamed: 0"])
    assert table.columns.features == ["a"]
    np.testing.assert_array_equal(read_for_prediction(path, table.columns).features, [[1], [3]])


def test_all_columns_that_cannot_be_used_are_named_at_once(write):
    path = write('a,"b, c",d,e,y\n1,2,3,4,5\n1,red,3,4,5\n1,2,blue,,5\n')
    with pytest.raises(DataError) as refused:
        read_for_training(path, "y")
    said = str(refused.value)
    assert "row 2 (line 3), column 'b, c': 'red' is not a number" in said
    assert """--drop '"b, c",d,e')""" in said and "so have columns 'd', 'e'" in said
    with pytest.raises(DataError) as refused:
        read_for_prediction(path, Columns(["a", "d"], "y", named=True, width=5))
    assert "row 3 (line 4), column 'd': 'blue' is not a number" in str(refused.value)
    assert "--drop" not in str(refused.value)  # predict has no such option


def test_a_column_of_weights_is_not_to_be_left_out(write):
    path = write("a,b,w,y\n1,2,much,4\nred,2,3,5\n")
    with pytest.raises(DataError) as refused:
        read_for_training(path, "y", weights="w")
    said = str(refused.value)
    assert "column 'w': 'much' is not a number; so have column 'a'" in said and "--drop" not in said


def test_true_and_false_are_one_and_zero(write):
    table = read_for_training(write("a,b,y\nTrue,1,u\nfalse,2,v\nFALSE,True,u\n"), "y")
    np.testing.assert_array_equal(table.features, [[1, 1], [0, 2], [0, 1]])


def test_years_are_names_of_columns(write):
    table = read_for_training(write("2001,2002,2003\n5,6,7\n"), "2003")
    assert table.columns.features == ["2001", "2002"]
    found = read_for_prediction(write("2002,2001\n6,5\n"), table.columns)
    np.testing.assert_array_equal(found.features, [[5, 6]])
    with pytest.raises(DataError, match="no header"):
        read_for_training(write("5.1,3.5,1.4\n4.9,3,1.4\n"), "3.5")


@pytest.mark.parametrize("name", ["iris.csv.gz", "iris.tsv.bz2", "iris.zip", "iris.npz.xz"])
def test_packed_tables_are_called_packed(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"a,y\n1,2\n"))
    with pytest.raises(DataError, match=rf"{name} is a packed file: unpack it first .*un.* {name}"):
        read_for_training(str(tmp_path / name), "y")
    assert main(["train", str(tmp_path / name), "--target", "y", "--out", str(tmp_path / "m")]) == 2
