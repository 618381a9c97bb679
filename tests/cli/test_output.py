"""Whatever becomes of standard output, a command's files are written and its exit code tells the truth."""

import os
import shlex
import subprocess
import sys

import numpy as np
import pytest

import fastbp
from fastbp.cli.main import main


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    """d.csv with three classes, one of them with a letter that ASCII lacks; m.safetensors, trained on it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    with open("d.csv", "w", encoding="utf-8") as file:
        file.write("a,b,kind\n")
        for i in range(90):
            x, y = rng.standard_normal(2)
            file.write(f"{x + 3 * (i % 3):.4f},{y:.4f},{['rose', 'größe', 'lily'][i % 3]}\n")
    assert main([*TRAIN.split(), "--out", "m.safetensors"]) == 0


TRAIN = "train d.csv --target kind --hidden 4 --epochs 2"
PREDICT = "predict m.safetensors d.csv"
# Each command, and the files that it is to write.
COMMANDS = {
    f"{TRAIN} --out new.safetensors --checkpoint c": ["new.safetensors", "c"],
    f"{PREDICT} --out p.csv": ["p.csv"],
    "data digits.csv": ["digits.csv"],
    "bench xor --rounds 1 --seconds 0.001 --threads 1 --json b.json": ["b.json"],
    "--help": [],
}


def run(command, **options):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    words = [sys.executable, "-m", "fastbp", *command.split()]
    given = {"stderr": subprocess.PIPE, "env": env, "timeout": 600, "check": False} | options
    return subprocess.run(words, **given)


def shell(line):
    line = line.replace("fastbp", f"{shlex.quote(sys.executable)} -m fastbp")
    return subprocess.run(["bash", "-c", line], capture_output=True, timeout=600, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_without_a_reader_costs_no_file(command):
    read, write = os.pipe()
    os.close(read)
    done = run(command, stdout=write)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(os.path.getsize(name) for name in COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_stdout_costs_no_file(command):
    done = shell(f"fastbp {command} >&-")
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(os.path.getsize(name) for name in COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_under_stdout_costs_no_file_and_is_told(command):
    with open("/dev/full", "wb") as full:
        done = run(command, stdout=full)
    assert done.returncode == 2
    assert done.stderr == b"fastbp: error: standard output: No space left on device\n"
    assert all(os.path.getsize(name) for name in COMMANDS[command])


def test_a_model_is_written_though_its_reader_took_one_line_only():
    done = shell(f"set -o pipefail; fastbp {TRAIN} --out new.safetensors | head -n 1")
    assert done.stdout.startswith(b"data ") and done.stdout.count(b"\n") == 1
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(fastbp.load("new.safetensors").classes) == ["größe", "lily", "rose"]


@pytest.mark.parametrize(
    ("encoding", "unbuffered"), [("ascii", ""), ("latin-1", ""), ("cp1252", "1"), ("utf-8", "1")]
)
def test_letters_that_stdouts_encoding_lacks_cost_nothing(encoding, unbuffered):
    """Words are written with escapes; predictions in UTF-8, as to a file."""
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": unbuffered}
    done = run(f"{TRAIN} --out new.safetensors", stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "3 classes (größe, lily, rose)".encode(encoding, "backslashreplace") in done.stdout
    assert b"wrote new.safetensors" in done.stdout
    fastbp.MLP.load("new.safetensors")
    done = run(PREDICT, stdout=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert main([*PREDICT.split(), "--out", "p.csv"]) == 0
    with open("p.csv", "rb") as file:
        assert file.read() == done.stdout


def test_predictions_for_a_closed_stdout_are_refused_before_work():
    done = shell(f"fastbp {PREDICT} >&-")
    assert done.returncode == 2
    assert b"standard output is closed" in done.stderr and b"give --out FILE" in done.stderr


def test_predictions_for_a_full_disk_are_an_error():
    done = shell(f"fastbp {PREDICT} > /dev/full")
    assert (done.returncode, done.stderr) == (
        2,
        b"fastbp: error: standard output: No space left on device\n",
    )


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "2>/dev/full", ">&- 2>&- <&-"])
def test_a_closed_or_full_stderr_costs_nothing(closed):
    assert shell(f"fastbp {TRAIN} --out new.safetensors {closed}").returncode == 0
    assert main(["predict", "new.safetensors", "d.csv", "--out", "p.csv"]) == 0
    assert shell(f"fastbp train absent.csv --target kind --out n {closed}").returncode == 2
    assert shell(f"fastbp train --hidden {closed}").returncode == 2


def test_check_tells_by_its_exit_code_though_nobody_reads(monkeypatch):
    """Both ways: all right, and a failure."""
    for wrong, code in ((False, 0), (True, 1)):
        script = (
            "from fastbp.cli import check, main\n"
            f"check._gradients = lambda seed: ('', {not wrong})\n"
            "check._agreement = lambda seed: ('', True)\n"
            "raise SystemExit(main.main(['check']))\n"
        )
        read, write = os.pipe()
        os.close(read)
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=write, stderr=subprocess.PIPE, timeout=600, check=False
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (code, b"")
