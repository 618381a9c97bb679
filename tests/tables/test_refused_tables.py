"""What `fastbp train` refuses of a table: in one sentence, with exit code 2, and nothing is written."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fastbp.cli.main import main
from fastbp.tables import parts

ROWS = 60


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys):
    """The sentence in which `fastbp train` refuses this file."""

    def refused(path, options=""):
        before = {file: file.read_bytes() for file in Path().iterdir()}
        command = ["train", path, "--target", "y", "--epochs", "1", "--out", "m", *options.split()]
        assert main([*command, "--plot", "p.svg"]) == 2
        assert {file: file.read_bytes() for file in Path().iterdir()} == before
        output = capsys.readouterr()
        assert not output.out
        (line,) = output.err.splitlines()
        assert line.startswith("fastbp: error: ")
        return line

    return refused


def table(**columns):
    numbers = np.arange(ROWS)
    return pd.DataFrame({"a": numbers % 7, "b": numbers / 8, "y": numbers % 3 / 2, **columns})


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"y": ["u"] * 59 + ["v"]}, "", "class 'v' of the target 'y' has a single row, two are needed"),
        ({"y": 3.25}, "", "the target 'y' is 3.25 in every row to train on: there is nothing to learn"),
        ({"y": "u"}, "", "the target 'y' has one class only: 'u'"),
        (
            {"t": [f"t{i % 24}" for i in range(ROWS)]},
            "--max-columns 20",
            ", more than --max-columns 20: leave",
        ),
        ({"d": "2024-01-31"}, "", "column 'd' holds dates: --dates makes year, month, weekday and hour"),
        ({"d": "1/2/24"}, "--dates", "d.csv row 1 (line 2), column 'd': '1/2/24' is a date or a time"),
        ({"y": [0.5, 1.5, None] * 20}, "", "row 3, column 'y' (the target) is empty: leave out rows whose"),
        ({"a": [*range(59), "x"]}, "", "d.csv row 60 (line 61), column 'a': 'x' is not a number"),
        ({}, "--separator |", "d.csv has a single column, 'a,b,y': what stands between its cells is not '|'"),
        ({}, "--drop c", "d.csv has no column 'c' (--drop)"),
        ({}, "--folds 61", "--folds 61 is more than there are rows, 60"),
        ({}, "--weights b --test-size 1e-9", "leaves nothing to test on"),
    ],
)
def test_one_sentence_and_nothing_is_written(refused, columns, options, message):
    table(**columns).to_csv("d.csv", index=False)
    assert message in refused("d.csv", options)


def test_a_missing_target_is_one_in_whatever_file(refused):
    frame = table(y=[0.5, 1.5, None] * 20)
    frame.to_parquet("d.parquet")
    frame.to_json("d.jsonl", orient="records", lines=True)
    frame.to_excel("d.xlsx", index=False)
    for path in ("d.parquet", "d.jsonl", "d.xlsx"):
        for task in ("auto", "regression"):
            assert "row 3, column 'y' (the target)" in (line := refused(path, f"--task {task}"))
            assert "--missing-target drop" in line


def test_a_million_different_texts(refused):
    """Of a column of text as many are read as it takes to find out."""
    rows = 150_000
    frame = pd.DataFrame({"id": np.arange(rows), "y": np.arange(rows) % 3})
    frame["id"] = "user" + frame["id"].astype(str)
    frame.to_csv("d.csv", index=False)
    line = refused("d.csv")
    assert "column 'id' has more than 100,000 different texts, too many for categories: leave it out" in line
    assert "--drop id" in line


def test_a_file_that_changes_while_it_is_read(capsys, monkeypatch):
    """A row is added between the first time through the file and the second."""
    table().to_csv("d.csv", index=False)
    look = parts.look

    def look_and_add(source, choices):
        found = look(source, choices)
        with open("d.csv", "a") as file:
            file.write("1,2,0.5\n")
        return found

    monkeypatch.setattr(parts, "look", look_and_add)
    assert main(["train", "d.csv", "--target", "y", "--out", "m"]) == 2
    assert capsys.readouterr().err == (
        "fastbp: error: d.csv has been changed while it was read: start again\n"
    )
    assert [file.name for file in Path().iterdir()] == ["d.csv"]


@pytest.mark.parametrize("option", ["--separator ;", "--decimal ,", "--encoding latin-1"])
def test_options_of_text_are_not_for_other_tables(refused, option):
    table().to_parquet("d.parquet")
    expected = f"{option.split()[0]} is for text such as CSV, which d.parquet is not"
    assert expected in refused("d.parquet", option)


@pytest.mark.parametrize(
    "option",
    ["--separator ;", "--decimal ,", "--dates", "--rare 3", "--max-columns 9", "--missing-target drop"],
)
def test_options_of_named_columns_are_not_for_arrays(refused, option):
    np.savez("d.npz", X=table()[["a", "b"]].to_numpy(), y=table()["y"].to_numpy())
    assert f"{option.split()[0]} is not for d.npz, which holds numbers without names" in refused(
        "d.npz", option
    )
