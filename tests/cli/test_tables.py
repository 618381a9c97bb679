"""Reading tables: what is accepted, and that every refusal names the place that has to be repaired."""

import gzip
import os

import numpy as np
import pandas as pd
import pytest

from fastbp.cli import options
from fastbp.cli.errors import DataError
from fastbp.cli.main import main
from fastbp.cli.tables.reading import read_for_prediction, read_for_training, table_file
from fastbp.cli.tables.table import Columns
from fastbp.cli.train import data
from fastbp.cli.train.options import TRAIN
from fastbp.tables import parts
from fastbp.tables.files import reading


@pytest.fixture
def write(tmp_path):
    def write(text, name="data.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text.encode(encoding))
        return str(path)

    return write


def settings(path, target="y", **given):
    return options.gather(TRAIN, {"data": path, "target": target, **given}, None)


def looked(path, target="y", **given):
    """The source, and what is found out about its columns and its target."""
    chosen = settings(path, target, **given)
    source = data.source_of(path, chosen)
    source.check_header(target)
    source.check_names([*(chosen.drop or []), target, chosen.weights])
    return source, parts.look(source, data.choices(chosen))


def read(path, target="y", **given):
    """(features by their names, target) of a table: numbers as numbers, anything else as text."""
    source, found = looked(path, target, **given)
    frame = pd.concat([frame for _, frame in source.frames()], ignore_index=True)
    columns = {name: frame[name].tolist() for name in found.kinds}
    return columns, [*found.target]


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
    assert read(write(text)) == ({"a": [1, -300], "b": [2.5, 0.5]}, ["u", "v"])


@pytest.mark.parametrize("name", ["d.csv.gz", "d.csv.bz2", "d.tsv.xz"])
def test_packed_text(tmp_path, name):
    frame = pd.DataFrame({"a": [1.5, 2], "b": ["x, y", 'q"'], "y": ["01", "1"]})
    frame.to_csv(tmp_path / name, index=False)
    columns, target = read(str(tmp_path / name))
    assert columns == {"a": [1.5, 2], "b": ["x, y", 'q"']} and target == ["01", "1"]


def test_encodings_separators_and_decimal_marks(write):
    path = write("größe|y\n1,5|2,5\n-,25|3\n", encoding="latin-1")
    with pytest.raises(DataError, match=r"not UTF-8 text: .* give its --encoding, such as latin-1"):
        looked(path)
    columns, target = read(path, encoding="latin-1", separator="|", decimal=",")
    assert columns == {"größe": [1.5, -0.25]} and target == ["2.5", "3"]
    assert read(write("a,y\n1,ü\n2,v\n", encoding="utf-16")) == ({"a": [1, 2]}, ["ü", "v"])
    with pytest.raises(DataError, match="unknown encoding"):
        looked(path, encoding="klingon")


def test_parquet_json_lines_and_excel_have_the_dtypes_that_they_say(tmp_path):
    frame = pd.DataFrame(
        {"a": [1.5, None, 2], "b": ["1", "x", None], "c": [True, False, True], "y": [1, 2, 1]}
    )
    frame["d"] = pd.to_datetime(["2024-01-01", "2024-02-03", "2024-01-01"])
    frame.to_parquet(tmp_path / "d.parquet")
    frame.drop(columns="d").to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    frame.to_excel(tmp_path / "d.xlsx", index=False)
    for name in ("d.parquet", "d.jsonl", "d.xlsx"):
        drop = ["d"] if name != "d.jsonl" else None
        _, found = looked(str(tmp_path / name), drop=drop)
        assert found.kinds == {"a": "number", "b": "text", "c": "boolean"}, name
        np.testing.assert_array_equal(found.target, [1, 2, 1])
    with pytest.raises(DataError, match="column 'd' holds dates"):
        looked(str(tmp_path / "d.parquet"))


@pytest.mark.parametrize("name", ["d.parquet", "d.xlsx", "d.jsonl", "d.csv.gz", "d.csv.xz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"\x1f\x8b\x08\0hello", b"{]"])
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((DataError, OSError)) as refused:
        looked(str(tmp_path / name))
    assert name in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_that_changes_while_it_is_read(write):
    path = write("a,y\n1,u\n2,v\n")
    source, _ = looked(path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="has been changed while it was read"):
        [*source.frames()]


def test_without_pandas_one_sentence_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(DataError, match=r"data.csv needs pandas to be read: pip install 'fastbp\[table\]'"):
        looked(write("a,y\n1,2\n"))


def test_pieces_are_what_the_whole_is(write, monkeypatch):
    text = "a,b,y\n" + "".join(f"{i},{'t' if i == 90 else i % 5},{i % 2}\n" for i in range(100))
    monkeypatch.setattr(reading, "CELLS_AT_ONCE", 30)
    columns, target = read(write(text))
    assert columns["a"] == [*range(100)] and target == [str(i % 2) for i in range(100)]
    # One row of text makes a column of text of all pieces.
    assert columns["b"] == ["t" if i == 90 else str(i % 5) for i in range(100)]


def test_target_may_stand_anywhere_and_columns_can_be_dropped(write):
    path = write("id,y,a\nx1,5,1\nx2,6,2\n")
    assert read(path, drop=["id"]) == ({"a": [1, 2]}, ["5", "6"])


def test_header_of_column_numbers(write):
    assert read(write("0,1,2\n5,6,7\n"), "2")[0] == {"0": [5], "1": [6]}


MANY = "".join(f"{i},{i}.5,{i}\n" for i in range(30))


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
        ("a,b,y\n1,2,3\n1,2,3,4\n", r"row 2 \(line 3\) has 4 cells"),
        (f"a,b,y\n\n1,red,3\n{MANY}", r"row 1 \(line 3\), column 'b': 'red' is not a number .*--drop b"),
        ("a,b,y\n1,1e999,3\n", "column 'b': 'inf' is not a finite number"),
        (f"a,b,y\n{MANY}1,1_000,3\n", "column 'b': '1_000' is not a number"),
        ('a,b,y\n1,"2,3\n', "cannot be read: .*EOF inside string|line 2"),  # a quote that is never closed
        ("a,b,Y\n1,2,3\n", "no column 'y' .--target.; it has 'a', 'b', 'Y'"),
        ("a,b,yy\n1,2,3\n", "did you mean 'yy'"),
        ("y\n1\n", "no column is left"),
    ],
)
def test_csv_refusals(write, text, message):
    with pytest.raises(DataError, match=message):
        looked(write(text))


def test_drop_of_an_unknown_column_and_of_the_target(write):
    path = write("a,b,y\n1,2,3\n")
    with pytest.raises(DataError, match=r"no column 'c' .--drop."):
        looked(path, drop=["c"])
    with pytest.raises(DataError, match="both --target and in --drop"):
        looked(path, drop=["y"])


def test_a_path_that_is_no_table(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        table_file(str(tmp_path / "absent.csv"))
    with pytest.raises(DataError, match="is a directory"):
        table_file(str(tmp_path))
    (tmp_path / "data.xls").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"unknown kind of file '\.xls'"):
        table_file(str(tmp_path / "data.xls"))


# ---- weights of rows ----


def test_weights_are_no_feature(write, tmp_path):
    rows = np.array([[1.0, 2, 0.5, 7], [3, 4, 1.5, 8]])  # features, weight, target
    path = str(tmp_path / "a")
    np.save(path + ".npy", rows)
    np.savez(path + ".npz", X=rows[:, :2], w=rows[:, 2], y=rows[:, 3])
    for table in (
        read_for_training(path + ".npy", "3", weights="2"),
        read_for_training(path + ".npz", "y", weights="w"),
    ):
        np.testing.assert_array_equal(table.features, rows[:, :2])
        np.testing.assert_array_equal(table.weights, rows[:, 2])
    later = read_for_prediction(path + ".npy", Columns(["0", "1"], "3", named=False, width=4))
    np.testing.assert_array_equal(later.features, rows[:, :2])
    _, found = looked(write("a,b,w,y\n1,2,.5,7\n3,4,1.5,8\n"), weights="w")
    assert list(found.kinds) == ["a", "b"]
    np.testing.assert_array_equal(found.weights, rows[:, 2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,w,y\n1,1,7\n3,-2,8\n", r"row 2 \(line 3\), column 'w' \(--weights\): -2 is below 0"),
        ("a,w,y\n1,1,7\n3,much,8\n", r"row 2 \(line 3\), column 'w' \(--weights\): 'much' is not a number"),
        ("a,w,y\n1,0,7\n3,0,8\n", r"column 'w' \(--weights\) is 0 in every row"),
        ("a,y\n1,7\n3,8\n", r"no column 'w' \(--weights\)"),
    ],
)
def test_weights_that_cannot_be_used(write, text, message):
    with pytest.raises(DataError, match=message):
        looked(write(text), weights="w")


# ---- columns that nobody uses ------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_cells_that_nobody_uses_may_hold_anything(tmp_path, write, bad):
    """A dropped column in training; that and the target in prediction: CSV, .npy and .npz alike."""
    path = str(tmp_path / "d")
    matrix = np.array([[1.0, bad, 5], [2, bad, 6], [3, 0, 7]])
    np.save(path + ".npy", matrix)
    np.savez(path + ".npz", X=matrix[:, :2], y=matrix[:, 2])
    csv = write("0,1,2\n1,nan,5\n2,inf,6\n3,0,7\n")
    assert read(csv, "2", drop=["1"])[0] == {"0": [1, 2, 3]}
    for table in (
        read_for_training(path + ".npy", "2", drop=["1"]),
        read_for_training(path + ".npz", "y", drop=["1"]),
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


# ---- headers and cells -------------------------------------------------------------------------------------


def test_a_header_of_more_than_131072_letters(write):
    names = [f"column_{i}" for i in range(20_000)]
    path = write(f"{','.join(names)},y\n" + "1," * 20_000 + "2\n")
    assert data.source_of(path, settings(path)).names == [*names, "y"]
    with pytest.raises(DataError, match="field larger than field limit"):
        looked(write("a" * 200_000 + ",y\n1,2\n"))


def test_delimiters_in_quotes_do_not_count(write):
    assert read(write('"a,b,c,d";y\n1;2\n'))[0] == {"a,b,c,d": [1]}


def test_a_column_without_a_name_can_be_dropped(write):
    """As pandas writes its index."""
    path = write(",a,y\n0,1,2\n1,3,4\n")
    with pytest.raises(DataError, match=r"column 1 of the header has no name: .*--drop 'Unnamed: 0'"):
        looked(path)
    assert read(path, drop=["Unnamed: 0"])[0] == {"a": [1, 3]}


def test_all_columns_that_cannot_be_used_are_named_at_once(write):
    rows = "".join(f"1,{i},{i},{i},5\n" for i in range(30))
    path = write(f'a,"b, c",d,e,y\n1,2,3,4,5\n1,red,3,4,5\n1,2,blue,1e999,5\n{rows}')
    with pytest.raises(DataError) as refused:
        looked(path)
    said = str(refused.value)
    assert "row 2 (line 3), column 'b, c': 'red' is not a number" in said
    assert """--drop '"b, c",d,e')""" in said and "so have columns 'd', 'e'" in said


def test_true_and_false_are_one_and_zero(write):
    _, found = looked(write("a,b,y\nTrue,1,u\nfalse,2,v\nFALSE,True,u\n"))
    assert found.kinds == {"a": "boolean", "b": "number"}


def test_years_are_names_of_columns(write):
    assert read(write("2001,2002,2003\n5,6,7\n"), "2003")[0] == {"2001": [5], "2002": [6]}
    with pytest.raises(DataError, match="no header"):
        looked(write("5.1,3.5,1.4\n4.9,3,1.4\n"), "3.5")


@pytest.mark.parametrize("name", ["iris.zip", "iris.npz.xz", "iris.csv.zst"])
def test_packed_tables_are_called_packed(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"a,y\n1,2\n"))
    with pytest.raises(DataError, match=rf"{name} is a packed file: unpack it first .*un.* {name}"):
        table_file(str(tmp_path / name))
    assert main(["train", str(tmp_path / name), "--target", "y", "--out", str(tmp_path / "m")]) == 2


# ---- prediction --------------------------------------------------------------------------------------------


def test_prediction_finds_columns_by_name(write, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write("note,a,b,y\n" + "".join(f"hello,{i % 7},{i},{3 * i}\n" for i in range(60)))
    command = "train data.csv --target y --drop note --hidden 4 --epochs 1 --out m"
    assert main(command.split()) == 0
    write("a,b\n1,2\n3,4\n", "one.csv")
    write("b;y;a;more\n2;?;1;red\n4;7;3;\n", "two.csv")
    for name in ("one", "two"):
        assert main(["predict", "m", f"{name}.csv", "--out", f"{name}.npy"]) == 0
    np.testing.assert_array_equal(np.load("one.npy"), np.load("two.npy"))
    refused = {
        "a,c\n1,2\n": "refused.csv lacks 1 of the 2 columns that the model was trained on: 'b'",
        "a,b\n1,2\nred,blue\n": "row 2 (line 3), column 'a': 'red' is not a number; so have column 'b'",
        "1,2\n3,4\n": "refused.csv has no header",
    }
    for text, message in refused.items():
        write(text, "refused.csv")
        capsys.readouterr()
        assert main(["predict", "m", "refused.csv", "--out", "p.csv"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line and "--drop" not in line and not os.path.exists("p.csv")
