"""The files that commands write: links, modes, long names, what is no file, and full disks."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest

from fastbp.cli.main import main

TRAIN = "train d.csv --target y --hidden 4 --epochs 1"
PREDICT = "predict m d.csv"
# A command, but for the name of a file at its end, and how that name may end.
WRITERS = [
    (f"{TRAIN} --out", ".safetensors"),
    (f"{TRAIN} --out m2 --checkpoint", ".fastbp"),
    (f"{TRAIN} --out m2 --plot", ".png"),
    (f"{TRAIN} --out m2 --plot", ".svg"),
    (f"{PREDICT} --out", ".csv"),
    (f"{PREDICT} --out", ".npy"),
    (f"{PREDICT} --out", ".npz"),
    ("data", ".csv"),
    ("data", ".npz"),
    ("bench xor --rounds 1 --seconds 0.001 --threads 1 --json", ".json"),
]
QUICK = [writer for writer in WRITERS if not writer[0].startswith("bench")]


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    table = np.column_stack([rng.standard_normal((40, 2)), np.arange(40) % 3])
    np.savetxt("d.csv", table, delimiter=",", header="a,b,y", comments="")
    assert main([*TRAIN.split(), "--out", "m"]) == 0


def writes(command, path):
    if "--plot" in command:
        pytest.importorskip("matplotlib")
    return main([*command.split(), path])


@pytest.mark.parametrize(("command", "ending"), WRITERS)
def test_a_link_stays_and_the_files_mode_is_kept(command, ending):
    os.mkdir("elsewhere")
    target = f"elsewhere/file{ending}"
    if "--checkpoint" not in command:  # which would be read
        with open(target, "wb") as file:
            file.write(b"old")
        os.chmod(target, 0o640)
    os.symlink(target, f"link{ending}")
    assert writes(command, f"link{ending}") == 0
    assert os.readlink(f"link{ending}") == target
    assert os.path.getsize(target) > 10 and os.listdir("elsewhere") == [f"file{ending}"]
    if "--checkpoint" not in command:
        assert stat.S_IMODE(os.stat(target).st_mode) == 0o640


@pytest.mark.parametrize(("command", "ending"), QUICK)
def test_names_of_250_bytes(command, ending):
    path = "n" * (250 - len(ending)) + ending
    assert writes(command, path) == 0
    assert os.path.getsize(path) > 10
    assert not [name for name in os.listdir() if name.startswith(".")]


@pytest.mark.parametrize(("command", "ending"), WRITERS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (os.mkfifo, "is a named pipe, not a regular file"),
        (os.mkdir, "is a directory, the name of a file is expected"),
        (lambda path: os.symlink(os.devnull, path), "is a device, not a regular file"),
        (lambda path: os.symlink(path, path), "is a symbolic link that leads back to itself"),
        (lambda path: os.symlink("absent/file", path), "no such directory"),
    ],
    ids=["pipe", "directory", "device", "loop", "dangling"],
)
def test_what_is_no_file_is_refused_before_the_work(capsys, command, ending, make, message):
    path = f"p{ending}"
    make(path)
    before, there = os.lstat(path), sorted(os.listdir())
    assert writes(command, path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"fastbp: error: {path}: ") and message in line
    assert os.lstat(path).st_ino == before.st_ino
    assert sorted(os.listdir()) == there


@pytest.mark.parametrize("command", [f"{TRAIN} --out", f"{PREDICT} --out", "data"])
def test_no_name_at_all(capsys, command):
    assert writes(command, "") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert any(
        words in line for words in ("got nothing", "is empty: give the name of a file", "written as .csv")
    )


@pytest.mark.parametrize(("command", "ending"), [w for w in QUICK if "m2" not in w[0] or "--plot" in w[0]])
def test_a_full_disk_leaves_the_old_file(command, ending):
    """A limit on the size of files ends a write in its middle, as a full disk does."""
    if "--plot" in command:
        pytest.importorskip("matplotlib")
    path = f"file{ending}"
    with open(path, "wb") as file:
        file.write(b"old")
    there = sorted(os.listdir())
    limit = 5000 if "--plot" in command else 100  # the model has room, the picture has not
    code = (
        "import resource, sys\n"
        "from fastbp.cli import main, pictures\n"
        "from fastbp.cli.main import main\n"
        f"assert main({TRAIN.split()!r} + ['--out', 'm3']) == 0\n"  # compiles, and Numba writes files, too
        "import os; os.unlink('m3')\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"fastbp: error: {path}: File too large"
    with open(path, "rb") as file:
        assert file.read() == b"old"
    assert sorted({*os.listdir()} - {"m2"}) == there


def test_two_outputs_of_one_name_are_refused(capsys):
    os.symlink("b.png", "c.png")
    assert main(["bench", "xor", "--json", "b.png", "--plot", "c.png"]) == 2
    assert "is the name of another file that is to be written" in capsys.readouterr().err
