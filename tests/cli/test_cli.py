"""The command line: what it writes, and that every mistake is one line on stderr with exit code 2."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fastbp
from fastbp.cli import check
from fastbp.cli.arguments import parse
from fastbp.cli.main import main
from fastbp.training.run import Run

pytestmark = pytest.mark.usefixtures("in_tmp_path")


@pytest.fixture
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; return its one line on stderr."""

    def refused(line):
        assert call(line) == 2
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert "Traceback" not in captured.err
        return lines[0]

    return refused


def call(line):
    return main(line.split())


def run(line):
    """Run a command in a process of its own, as a pipe; return (code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "fastbp", *line.split()],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=900,
    )
    return done.returncode, done.stdout, done.stderr


def write_flowers(path, rows=150, seed=0):
    """Three classes around three centres, and a column of text."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 3
    centres = np.array([[0.0, 100.0], [3.0, 100.0], [0.0, 130.0]])
    points = centres[label] + rng.standard_normal((rows, 2)) * [0.4, 4]
    with open(path, "w", encoding="utf-8") as file:
        file.write("note,length,width,kind\n")
        for i, (a, b) in enumerate(points):
            file.write(f"n{i},{a:.4f},{b:.4f},{['rose', 'tulip', 'lily'][label[i]]}\n")
    return [["rose", "tulip", "lily"][i] for i in label]


def train_flowers(options=""):
    write_flowers("flowers.csv")
    arguments = "train flowers.csv --target kind --drop note --hidden 8 --epochs 40 --out m.safetensors"
    return call(f"{arguments} {options}")


# ---- what works ----


def test_version():
    code, out, err = run("--version")
    assert (code, out, err) == (0, f"fastbp {fastbp.__version__}\n", "")


def test_help_of_every_command(capsys):
    assert call("--help") == 0
    commands = re.search(r"\{(.*?)\}|commands:\n((?:.|\n)*)", capsys.readouterr().out)
    for command in ("demo", "train", "predict", "check", "bench", "data"):
        assert command in commands.group(0)
        assert call(f"{command} --help") == 0
        assert "usage" in capsys.readouterr().out


def test_train_and_predict_classes(capsys):
    assert train_flowers() == 0
    captured = capsys.readouterr()
    assert "3 classes (lily, rose, tulip)" in captured.out
    held_out = next(line for line in captured.out.splitlines() if line.startswith("held out")).split()
    assert float(held_out[4]) >= 0.9  # part (two words), rows, loss, accuracy
    assert captured.err == ""

    true = write_flowers("later.csv", seed=1)
    assert call("predict m.safetensors later.csv --out p.csv") == 0
    said = capsys.readouterr().out
    with open("p.csv", encoding="utf-8") as file:
        header, *rows = [line.rstrip("\n").split(",") for line in file]
    assert header == ["prediction", "score_lily", "score_rose", "score_tulip"]
    accuracy = np.mean([row[0] == label for row, label in zip(rows, true, strict=True)])
    assert accuracy >= 0.9
    assert f"accuracy {accuracy:.4g}" in said  # the file has the true class, so they are compared
    for row in rows:
        assert header[1 + int(np.argmax([float(score) for score in row[1:]]))] == f"score_{row[0]}"


def test_predictions_go_to_stdout_and_to_arrays(capsys):
    assert train_flowers() == 0
    capsys.readouterr()
    assert call("predict m.safetensors flowers.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 151
    assert call("predict m.safetensors flowers.csv --out p.npy") == 0
    labels = np.load("p.npy", allow_pickle=False)
    assert labels.tolist() == [line.split(",")[0] for line in lines[1:]]
    assert call("predict m.safetensors flowers.csv --out p.npz") == 0
    with np.load("p.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["classes"][archive["scores"].argmax(axis=1)], labels)


def test_standardisation_travels_with_the_model(capsys):
    """The features' means are far from 0: without the stored standardisation, predictions are useless."""
    assert train_flowers() == 0
    columns = fastbp.load("m.safetensors").columns
    assert columns.names == ["length", "width"]
    assert 100 < columns.scales[1].mean < 120
    # Columns in another order, only one row: nothing may be fitted on the new file.
    with open("one.csv", "w", encoding="utf-8") as file:
        file.write("width,length\n130,0\n")
    capsys.readouterr()
    assert call("predict m.safetensors one.csv") == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("lily,")


def test_regression_round_trip_in_the_targets_units(capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3)) * [1, 50, 0.01] + [0, 1000, 5]
    y = 20_000 + 3_000 * X[:, 0] - 40 * (X[:, 1] - 1000)
    np.savetxt("houses.csv", np.column_stack([X, y]), delimiter=",", header="a,b,c,price", comments="")
    assert call("train houses.csv --target price --hidden 16 --epochs 60 --out m.safetensors") == 0
    assert "(a quantity)" in capsys.readouterr().out
    assert call("predict m.safetensors houses.csv --out p.npy") == 0
    predicted = np.load("p.npy")
    assert 1 - np.sum((predicted - y) ** 2) / np.sum((y - y.mean()) ** 2) > 0.99


@pytest.mark.parametrize("classes", [2, 3])
def test_npz_round_trip(classes):
    rng = np.random.default_rng(0)
    y = np.arange(90) % classes
    X = rng.standard_normal((90, 4)) * 0.2 + y[:, None]
    np.savez("data.npz", X=X, y=y)
    np.savez("features.npz", X=X)
    np.save("features.npy", X)
    assert call("train data.npz --target y --hidden 8,8 --epochs 60 --out m.safetensors") == 0
    for source in ("data.npz", "features.npz", "features.npy"):
        assert call(f"predict m.safetensors {source} --out p.npy") == 0
        predicted = np.load("p.npy")
        assert predicted.dtype.kind == "i"
        assert np.mean(predicted == y) >= 0.95


def test_training_on_all_rows(capsys):
    assert train_flowers("--test-size 0") == 0
    out = capsys.readouterr().out
    assert "held out" not in out
    assert "150 rows, 40 epochs" in out


def test_same_seed_same_file():
    assert train_flowers() == 0
    first = fastbp.MLP.load("m.safetensors")
    assert train_flowers() == 0
    again = fastbp.MLP.load("m.safetensors")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first.weights, again.weights, strict=True))


def test_quiet_in_a_pipe():
    assert call("data digits.csv") == 0
    code, out, err = run("train digits.csv --target digit --epochs 2 --out m.safetensors")
    (line,) = err.splitlines()  # some pixels are always dark
    assert code == 0 and line.startswith("fastbp: warning: left out: 'pixel_0_0' (it is 0 in every row); ")
    assert "\r" not in out
    assert "wrote m.safetensors" in out
    code, out, err = run("predict m.safetensors digits.csv")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 1798


def test_reader_that_leaves_early():
    assert train_flowers() == 0
    command = f"{sys.executable} -m fastbp predict m.safetensors flowers.csv | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=900)
    assert done.stderr == ""
    assert done.stdout.startswith("prediction")


@pytest.mark.parametrize("words", ["--help", "data digits.csv"])
def test_reader_that_is_gone_before_anything_is_written(words):
    read, write = os.pipe()
    os.close(read)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "fastbp", *words.split()]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=env, timeout=900)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["demo", "check"])
def test_ctrl_c_ends_a_command_that_trains(monkeypatch, capsys, command):
    """Though to `fit` it is the end of training only."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_run", interrupted)
    monkeypatch.setattr(check, "_gradients", lambda seed: ("", True))
    assert call(command) == 130
    assert capsys.readouterr().err == "fastbp: interrupted\n"
    assert os.listdir() == []


def test_ctrl_c_keeps_what_train_has_reached():
    """A real one, in the middle of an endless training; the same command goes on."""
    write_flowers("flowers.csv")
    options = "--target kind --drop note --hidden 8 --validation 0.2 --checkpoint run.fastbp"
    command = f"train flowers.csv {options} --epochs 10000000 --out m.safetensors"
    process = subprocess.Popen(
        [sys.executable, "-m", "fastbp", *command.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while not os.path.exists("run.fastbp"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (130, b"")
    assert b"96 rows, " in out and b"interrupted; the same command goes on from run.fastbp" in out
    assert call("predict m.safetensors flowers.csv --out p.csv") == 0


def test_data_writes_the_digits():
    assert call("data digits.csv") == 0
    assert call("data digits.npz") == 0
    table = np.loadtxt("digits.csv", delimiter=",", skiprows=1)
    with np.load("digits.npz") as archive:
        np.testing.assert_array_equal(table[:, :64], archive["X"])
        np.testing.assert_array_equal(table[:, 64], archive["y"])


def test_check_passes_on_this_machine(capsys):
    assert call("check") == 0
    out = capsys.readouterr().out
    assert "FAIL" not in out
    for name in ("relu", "sigmoid", "tanh", "identity", "mse", "binary_crossentropy", "float32", "float64"):
        assert name in out


def test_bench_prints_a_row_a_shape(capsys):
    assert call("bench xor --rounds 2 --seconds 0.001 --threads 1") == 0
    captured = capsys.readouterr()
    header, *rows = captured.out.split("\n\n")[-2].splitlines()
    assert header.split("  ")[0] == "shape"
    assert [row.split()[0] for row in rows] == ["xor"]
    assert captured.err == ""


# ---- what is refused ----


def test_missing_files(refused):
    assert "no such file: absent.csv" in refused("train absent.csv --target y --out m.safetensors")
    assert "no such model file: m.safetensors" in refused("predict m.safetensors absent.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b,y\n1,2,3\n1,1e999,3\n", "row 2 (line 3), column 'b': 'inf' is not a finite number"),
        ("a,b,y\n1,2,3\n1,2\n", "row 2 (line 3) has 2 cells, the header has 3"),
        ("", "data.csv is empty"),
        ("a,b\n1,2\n", "no column 'y'"),
        ("a,b,y\n1,2,u\n1,2,u\n", "one class only"),
        ("a,b,y\n1,2,0.5\n", "leaves nothing to test on"),
    ],
)
def test_bad_tables(refused, text, message):
    with open("data.csv", "w", encoding="utf-8") as file:
        file.write(text)
    assert message in refused("train data.csv --target y --out m.safetensors")
    assert not os.path.exists("m.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--hiden 8", "unknown option --hiden: did you mean --hidden?"),
        ("--hid 8", "unknown option --hid"),
        ("surplus.csv", "unexpected argument 'surplus.csv'"),
        ("--hidden 8,x", "'x' is not a positive whole number"),
        ("--hidden 8,0", "'0' is not a positive whole number"),
        ("--epochs 0", "'0' is not a positive whole number"),
        ("--lr -1", "'-1' is not a positive number"),
        ("--lr nan", "'nan' is not a positive number"),
        ("--test-size 1", "'1' is not a share"),
        ("--optimizer Adamm", "unknown optimizer 'Adamm', expected one of 'Adam', 'AdamW'"),
        ("--activation rleu", "'relu'"),
        ("--epochs", "expected one argument"),
        ("--task regression", "'rose' is not a number"),
    ],
)
def test_bad_options(refused, options, message):
    write_flowers("flowers.csv")
    command = f"train flowers.csv --target kind --drop note --out m.safetensors {options}"
    assert message in refused(command)


def test_whole_numbers_of_any_size(refused):
    assert parse(["check", "--seed", 25 * "9"]).seed == 10**25 - 1
    assert "is not a whole number from 0 up" in refused(f"check --seed {400 * '9'}")  # larger than any float


def test_missing_options_and_commands(refused):
    assert "--target" in refused("train data.csv --out m")
    assert "a COMMAND is needed" in refused("")
    assert "unknown option --hlep: did you mean --help?" in refused("--hlep")
    assert "must end in .png" in refused("demo --out picture.jpg")
    assert "invalid choice: 'tarin'" in refused("tarin")
    assert "unknown shape 'tinny'; there are tiny" in refused("bench tinny")


def test_outputs_that_cannot_be_written_are_found_before_training(refused, monkeypatch):
    write_flowers("flowers.csv")
    monkeypatch.setattr(fastbp.MLP, "fit", lambda *a, **k: pytest.fail("trained first"))
    command = "train flowers.csv --target kind --drop note --out"
    assert "no such directory" in refused(f"{command} absent/m.safetensors")
    assert "is a directory" in refused(f"{command} .")
    assert "would overwrite an input" in refused(f"{command} flowers.csv")
    assert "not a regular file" in refused(f"{command} {os.devnull}")


def test_model_that_does_not_fit_the_data(refused):
    assert train_flowers() == 0
    with open("other.csv", "w", encoding="utf-8") as file:
        file.write("length,depth\n1,2\n")
    assert "lacks 1 of the 2 columns" in refused("predict m.safetensors other.csv")
    np.save("other.npy", np.ones((2, 5)))
    assert "has 5 columns, the model was trained on 2 features" in refused("predict m.safetensors other.npy")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}      "])
def test_files_that_are_no_model(refused, content):
    write_flowers("flowers.csv")
    with open("m.safetensors", "wb") as file:
        file.write(content)
    assert "m.safetensors" in refused("predict m.safetensors flowers.csv")


def test_model_saved_from_python(refused):
    write_flowers("flowers.csv")
    fastbp.MLP([2, 4, 1], seed=0).save("m.safetensors")
    assert "not written by `fastbp train`" in refused("predict m.safetensors flowers.csv")


def test_a_model_and_data_that_are_swapped_are_called_that(refused):
    assert train_flowers() == 0
    np.save("flowers.npy", np.ones((3, 2)))
    with open("images.idx", "wb") as file:
        file.write(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 5, 6]))
    for data in ("flowers.csv", "flowers.npy", "images.idx"):
        message = f"m.safetensors is the model and {data} the data: swap them, the model comes first"
        assert message in refused(f"predict {data} m.safetensors --out p.csv")
    assert "is not a model file" in refused("predict flowers.csv flowers.npy")
    assert "unknown kind of file '.safetensors'" in refused("predict m.safetensors m.safetensors")


def test_predictions_are_refused_before_work(refused):
    assert train_flowers() == 0
    assert "can be written as .csv, .npy or .npz" in refused("predict m.safetensors flowers.csv --out p.txt")
    assert "overwrite an input" in refused("predict m.safetensors flowers.csv --out flowers.csv")


def test_error_in_a_process_of_its_own():
    code, out, err = run("train absent.csv --target y --out m.safetensors")
    assert (code, out, err) == (2, "", "fastbp: error: no such file: absent.csv\n")


def test_training_that_diverges(refused, capsys):
    rng = np.random.default_rng(0)
    np.savetxt("data.csv", rng.standard_normal((200, 3)), delimiter=",", header="a,b,y", comments="")
    line = refused("train data.csv --target y --optimizer SGD --lr 1e30 --out m.safetensors")
    assert "epoch" in line
    assert not os.path.exists("m.safetensors")
