"""Generated tables and options: a command does its work, or refuses it in one line."""

import csv
import io
import os
import random

import numpy as np
import pytest

from fastbp.cli.main import main

CELLS = [
    "1",
    "-4",
    "1e308",
    "5e-324",
    "nan",
    "",
    "NA",
    "12,9",
    "15%",
    "True",
    "x",
    "é",
    '"q"',
    "007",
    "1_000",
]
NAMES = ["a", "", "2001", "1.5", "x,y", "é", '"', "y "]
TARGETS = {
    "quantity": lambda rng: f"{rng.gauss(0, 1):.4f}",
    "text": lambda rng: rng.choice("uvw"),
    "numbers": lambda rng: str(rng.randint(0, 3)),
    "names": lambda rng: f"name {rng.random()}",
    "anything": lambda rng: rng.choice(CELLS),
    "one": lambda rng: "1",
}
OPTIONS = {
    "--hidden": ["8", "4,4", "0", ""],
    "--activation": ["ReLU", "tanh", "none"],
    "--loss": ["mse", "huber(0.5)", "huber(x)", "categorical_crossentropy(0.1)", "binary_crossentropy"],
    "--output": ["softmax", "sigmoid", "identity"],
    "--optimizer": ["adam", "SGD"],
    "--lr": ["0.1", "1e30", "-1"],
    "--batch-size": ["1", "7", "99999999999999999999"],
    "--steps": ["3"],
    "--validation": ["0.2", "0.99"],
    "--metrics": ["accuracy", "auc", "top_k(99)"],
    "--dropout": ["0.5", "0.1,0.2"],
    "--class-weights": ["balanced", "u=2", "-1=2", "u=0,v=0,w=0"],
    "--weights": ["c0", "y"],
    "--drop": ["c0", "y", '"x,y"', "Unnamed: 0", "c0,c1,c2,c3"],
    "--test-size": ["0", "0.5", "0.01"],
    "--test": ["later.csv"],
    "--task": ["classification", "regression"],
    "--schedule": ["cosine", "plateau"],
    "--seed": ["7", "1" * 60],
    "--checkpoint": ["run", "d.csv", "."],
    "--no-shuffle": [None],
}


def table(rng):
    """The bytes of a table of up to four features and a target y; sometimes something is wrong with it."""
    columns = rng.randint(1, 5)
    names = [rng.choice(NAMES) if rng.random() < 0.04 else f"c{i}" for i in range(columns)]
    names[-1] = "y" if rng.random() < 0.97 else names[-1]
    target = TARGETS[rng.choice(["quantity", "text", "numbers", *TARGETS])]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=rng.choice(",,;\t"), lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerow(names)
    for _ in range(rng.choice([0, 1, 5, 20, 40, 60])):
        row = [f"{rng.uniform(-3, 3):.3f}" for _ in range(columns - 1)]
        if row and rng.random() < 0.004:
            row[rng.randrange(len(row))] = rng.choice(CELLS)
        writer.writerow([*row, target(rng)])
    content = text.getvalue().encode(
        rng.choice(["utf-8"] * 20 + ["utf-8-sig", "latin-1", "utf-16"]), "replace"
    )
    if rng.random() < 0.05:
        at = rng.randrange(len(content))
        content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    return content


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_generated_commands_work_or_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = random.Random(0)
    codes = {0: 0, 2: 0}
    for _ in range(150):
        for name in os.listdir():
            os.unlink(name)
        for name in ("d.csv", "later.csv"):
            (tmp_path / name).write_bytes(table(rng))
        given = ["train", "d.csv", "--target", "y", "--out", "m", "--hidden", "4"]
        for option in rng.sample(list(OPTIONS), rng.randint(0, 2)):
            value = rng.choice(OPTIONS[option])
            given += [option] if value is None else [option, value]
        given += [] if "--steps" in given else ["--epochs", "1"]
        predict = ["predict", "m", rng.choice(["d.csv", "later.csv"])]
        out = rng.choice(["p.csv", "p.npy", "p.npz"])
        for command in (given, [*predict, "--out", out]):
            code = main(command)
            said = capsys.readouterr()
            codes[code] += 1  # KeyError for any other
            lines = said.err.splitlines()
            if code == 2:
                assert len(lines) == 1 and len(lines[0]) < 1500, (command, said.err)
            else:
                assert all(line.startswith("fastbp: warning: ") for line in lines), (command, said.err)
                assert os.path.getsize("m") and (command is given or os.path.getsize(out))
        assert not [name for name in os.listdir() if name.startswith(".")]
    assert min(codes.values()) > 30, codes


def test_generated_arrays_work_or_are_refused_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng, numbers = random.Random(0), np.random.default_rng(0)
    dtypes = ["f4", "f8", "f8", "f2", "g", "i1", "u8", "?", ">f4", "U3", "S2", "c8", "M8[s]"]

    def array(shape):
        made = (3 * numbers.standard_normal(shape)).astype("i8" if rng.random() < 0.3 else "f8")
        dtype = rng.choice(dtypes)
        with np.errstate(all="ignore"):
            made = np.abs(made).astype(dtype) if dtype == "u8" else made.astype("i8").astype(dtype)
        if made.dtype.kind == "f" and made.size and rng.random() < 0.1:
            made.flat[rng.randrange(made.size)] = rng.choice([np.nan, np.inf])
        return made

    codes = {0: 0, 2: 0}
    for _ in range(150):
        rows = rng.choice([0, 1, 20, 40])
        X = array(rng.choice([(rows, 3)] * 6 + [(rows, 0), (rows,), (rows, 2, 3), ()]))
        y = array(rng.choice([(rows,)] * 4 + [(rows, 1), (rows + 1,)]))
        if rng.random() < 0.5:
            np.save("d.npy", X)
            given = ["train", "d.npy", "--target", rng.choice(["0", "-1", "7", "y"])]
        else:
            np.savez("d.npz", X=X, y=y)
            given = ["train", "d.npz", "--target", rng.choice(["y", "y", "X", "z"])]
        for command in (
            [*given, "--epochs", "1", "--out", "m"],
            ["predict", "m", given[1], "--out", "p.csv"],
        ):
            code = main(command)
            lines = capsys.readouterr().err.splitlines()
            codes[code] += 1
            assert len(lines) == (code == 2), lines
    assert min(codes.values()) > 20, codes


def test_a_pipe_in_the_place_of_a_table_is_refused_in_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("d.csv")
    os.mkfifo("m")
    for command in ("train d.csv --target y --out n", "predict m d.csv"):
        assert main(command.split()) == 2
        assert "is a named pipe, not a regular file" in capsys.readouterr().err


def test_a_file_of_options_that_is_nested_without_end_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for text, message in (
        ("a = " + "[" * 100_000, "t.toml is nested too deeply"),
        ("seed = " + "1" * 5000, "t.toml is not TOML"),
        ("\0", "t.toml is not TOML"),
        ("epochs = [1]", "t.toml: epochs: [1] is neither a number nor text"),
    ):
        (tmp_path / "t.toml").write_text(text)
        assert main(["train", "d.csv", "--config", "t.toml"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_a_row_of_the_test_file_is_said_to_be_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,y\n" + "1,u\n2,v\n" * 10)
    (tmp_path / "t.csv").write_text("a,y\n1,u\n2,?\n")
    assert main(["train", "d.csv", "--target", "y", "--test", "t.csv", "--out", "m"]) == 2
    assert "error: t.csv: row 2, column 'y' (the target): '?' marks" in capsys.readouterr().err
