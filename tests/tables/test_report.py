"""The report of `fastbp train` on tables of all kinds: columns, importance, folds, pictures."""

import os

import numpy as np
import pandas as pd
import pytest
from made import passengers, prices

import fastbp
from fastbp.cli.main import main
from fastbp.cli.train import report
from fastbp.tables import parts
from fastbp.tables.parts import Choices


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def rows_of(said, header):
    """The lines of the table that begins with this header, each as a list of words."""
    lines = said.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(header))
    end = next(i for i in range(start, len(lines)) if not lines[i])
    return [line.split() for line in lines[start + 1 : end]]


def test_a_line_for_each_column_with_what_it_is_worth(capsys):
    passengers(600).to_csv("d.csv", index=False)
    command = "train d.csv --target survived --dates --hidden 16 --epochs 15 --out m"
    assert main(command.split()) == 0
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("fastbp: warning: left out: 'name' (nearly every row has a text of its own)")
    rows = {row[0]: row for row in rows_of(captured.out, "column ")}
    assert [*rows] == [*passengers().columns[:-1]]
    assert rows["name"][3:5] == ["-", "left"] and int(rows["age"][2]) > 50
    assert 90 < int(rows["boarded"][1]) <= 96  # hours of four days: dates, not the parts of them
    worth = {name: float(row[3]) for name, row in rows.items() if row[3] != "-"}
    assert max(worth, key=worth.get) == "sex" and worth["sex"] > 0.1 and abs(worth["alone"]) < 0.1


def test_command_line_and_train_table_and_load_predict_the_same(capsys):
    frame = prices(300)
    frame.to_csv("d.csv", index=False)
    prices(50, seed=1).to_csv("later.csv", index=False)
    assert main(["train", "d.csv", "--target", "price", "--hidden", "16", "--epochs", "5", "--out", "m"]) == 0
    assert main(["predict", "m", "later.csv", "--out", "p.npy"]) == 0
    later, predicted = pd.read_csv("later.csv"), np.load("p.npy")
    np.testing.assert_array_equal(fastbp.load("m").predict(later), predicted)
    again = fastbp.train_table(frame, target="price", hidden=[16], epochs=5, progress=False)
    np.testing.assert_array_equal(again.predict(later), predicted)
    assert f"{again.quality['held out']['RMSE']:,.4g}" in capsys.readouterr().out


@pytest.mark.parametrize("target", ["survived", "fare"])
def test_all_kinds_of_columns_predict_the_same_from_files_and_frames(target):
    """Texts, truth, dates and missing values, read as text from a CSV or with their dtypes from parquet."""
    left_out = ["name", "ship", "class"]  # the last is of numbers in a CSV, of categories in the frame
    frame, later = (passengers(300, seed=seed).drop(columns=left_out) for seed in (0, 1))
    frame.to_csv("d.csv", index=False)
    later.to_csv("later.csv", index=False)
    later.to_parquet("later.parquet")
    options = ["--dates", "--hidden", "16", "--epochs", "5", "--out", "m"]
    assert main(["train", "d.csv", "--target", target, *options]) == 0
    again = fastbp.train_table(frame, target=target, dates=True, hidden=[16], epochs=5, progress=False)
    loaded, expected = fastbp.load("m"), again.predict(later)
    assert len({*expected}) > 1
    for path, read in (("later.csv", pd.read_csv), ("later.parquet", pd.read_parquet)):
        assert main(["predict", "m", path, "--out", "p.npy"]) == 0
        np.testing.assert_array_equal(np.load("p.npy"), expected)
        np.testing.assert_array_equal(loaded.predict(read(path)), expected)
        if target == "survived":
            np.testing.assert_array_equal(loaded.predict_proba(read(path)), again.predict_proba(later))


def test_a_mark_of_a_missing_text_is_no_text():
    """What pandas reads as missing is missing on the command line."""
    frame = passengers(300)[["age", "deck", "fare"]]
    frame.fillna({"deck": "NA"}).to_csv("d.csv", index=False)
    assert main(["train", "d.csv", "--target", "fare", "--hidden", "4", "--epochs", "2", "--out", "m"]) == 0
    assert main(["predict", "m", "d.csv", "--out", "p.npy"]) == 0
    model = fastbp.load("m")
    assert "deck=(missing)" in model.columns.outputs and "deck=NA" not in model.columns.outputs
    np.testing.assert_array_equal(model.predict(pd.read_csv("d.csv")), np.load("p.npy"))


def test_importance_is_what_shuffling_does():
    """A column that is not looked at has none; of the only one that is, everything is lost."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.standard_normal(500), "b": rng.standard_normal(500)})
    frame["y"] = 2 * frame.a
    source, chosen = parts.FrameSource(frame), Choices("y")
    looked = parts.look(source, chosen)
    data = parts.assemble(source, chosen, looked, parts.divide(None, 500, chosen))
    model = fastbp.MLP([2, 1], output="identity", seed=0)
    model.weights[0][:] = [[1], [0]]
    before = data.parts[-1].X.copy()
    worth = report.importance(data, model, seed=0)
    assert worth["b"] == 0 and 1.5 < worth["a"] < 2.5  # R2 falls from 1 to about -1
    np.testing.assert_array_equal(data.parts[-1].X, before)


def test_folds_hold_each_row_out_once():
    for strata in (None, np.repeat([0, 1, 2], [70, 28, 5])):
        number = parts.fold_of_rows(strata, 103, 5, seed=0)
        assert sorted(np.bincount(number)) == [20, 20, 21, 21, 21]
        if strata is not None:
            assert len({*number[strata == 2]}) == 5
            assert set(np.bincount(number[strata == 0])) == {14}
    assert not np.array_equal(number, parts.fold_of_rows(strata, 103, 5, seed=1))


def test_cross_validation(capsys):
    prices(300).to_csv("d.csv", index=False)
    assert (
        main(
            [
                "train",
                "d.csv",
                "--target",
                "price",
                "--hidden",
                "16",
                "--epochs",
                "20",
                "--folds",
                "3",
                "--out",
                "m",
            ]
        )
        == 0
    )
    rows = {row[0]: row[1:] for row in rows_of(capsys.readouterr().out, "3 folds")}
    assert [*rows] == ["RMSE", "MAE", "R2"]
    mean, spread, least, most = map(float, rows["R2"])
    assert 0.7 < least < mean < most < 1 and 0 < spread < 0.1
    assert (
        main(["train", "d.csv", "--target", "price", "--folds", "3", "--test", "d.csv", "--out", "m2"]) == 2
    )
    assert main(["train", "d.csv", "--target", "price", "--folds", "301", "--out", "m2"]) == 2
    assert not os.path.exists("m2")


@pytest.mark.parametrize("target", ["survived", "fare", "class"])
def test_pictures_of_tables(target, capsys):
    pytest.importorskip("matplotlib")
    passengers(200).to_csv("d.csv", index=False)
    options = "--drop boarded,name,ship --missing-target drop --hidden 4 --epochs 2 --out m --plot p.svg"
    code = main(f"train d.csv --target {target} {options}".split())
    assert code == 0, capsys.readouterr().err
    with open("p.svg", encoding="utf-8") as file:
        assert "<svg" in file.read(1000)
