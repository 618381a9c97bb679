"""fit(comm=): one network trained by several processes, started by mpiexec."""

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from processes import GENERIC, host_has, on_x86

import fastbp
from fastbp.cli import main

PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "ranks.py"


def mpi_of_wheel():
    """(mpiexec, environment) of the wheel `mpich`, also where the environment is one upon another."""
    try:
        files = importlib.metadata.files("mpich") or []
        importlib.metadata.version("mpi4py")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = {file.name: str(pathlib.Path(file.locate()).resolve()) for file in files}
    return found["mpiexec"], {"MPI4PY_LIBMPI": found["libmpi.so.12"]}


MPI = mpi_of_wheel()
pytestmark = pytest.mark.skipif(MPI is None, reason="needs mpi4py and the wheel mpich")


def start(*blocks, timeout=300):
    """mpiexec with a block of arguments for each kind of rank."""
    mpiexec, environment = MPI
    words = [word for block in blocks for word in (":", *map(str, block))][1:]
    return subprocess.run(
        [mpiexec, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def run(ranks, folder, *cases):
    """What each rank has found of each case."""
    done = start(["-n", ranks, sys.executable, PROGRAM, folder, *cases])
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the last of two ranks was killed while they trained, and data lie to be mapped."""
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(3)
    np.save(folder / "X.npy", rng.standard_normal((101, 6)))
    np.save(folder / "Y.npy", rng.random((101, 2)).astype(np.float32))
    done = start(["-n", 2, sys.executable, PROGRAM, folder, "stopped"])
    assert done.returncode != 0 and "Killed" in done.stdout + done.stderr, done.stdout + done.stderr
    assert (folder / "killed").exists()
    return folder


CASES = ("plain", "rich", "changes", "resumed", "mapped")


@pytest.fixture(scope="module")
def of_one(folder):
    """What one rank finds, and a process without ranks."""
    return run(1, folder, *CASES, "alone")[0]


@pytest.mark.parametrize("ranks", [2, 4, pytest.param(8, marks=pytest.mark.slow)])
def test_as_many_ranks_as_one_likes_give_the_same_bits(ranks, folder, of_one):
    """Parameters, history and random state, with callbacks that change them, and going on from a file."""
    more = ("local", "interrupted", *(["three", "halves"] if ranks == 4 else []))
    everyone = run(ranks, folder, *CASES, *more)
    assert len(everyone) == ranks
    for case in CASES:
        assert {found[case] for found in everyone} == {of_one[case]}, case
    for case in ("local", "interrupted"):
        assert len({found[case] for found in everyone}) == 1, case
    if ranks == 4:
        expected = "comm has 3 ranks, expected 1, 2, 4, 8, ..."
        assert {found["halves"] for found in everyone} == {of_one["plain"]}
        assert all(found["three"].startswith(expected) for found in everyone[:3])


def test_one_process_does_the_same_without_ranks(of_one):
    assert of_one["alone"] == [of_one["plain"], of_one["rich"], of_one["changes"]]


def test_a_killed_training_has_the_bits_of_one_that_was_not(tmp_path, of_one):
    assert run(2, tmp_path, "resumed")[1]["resumed"] == of_one["resumed"]


def test_ranks_that_differ_are_refused_everywhere_with_a_reason(tmp_path):
    expected = {
        "seed": "model.seed: 5 on rank 0, 6 on rank 1",
        "data": "Y.values: 'digest",
        "optimizer": "optimizer.lr: 0.01 on rank 0, 0.02 on rank 1",
        "argument": "epochs is -1, expected at least 0",
        "shards": "shards=3 cannot be divided among 2 ranks: give 2, 4, 8",
        "comm": "comm must be an mpi4py.MPI.Intracomm such as MPI.COMM_WORLD, got 'COMM_WORLD'",
        "callback": "ZeroDivisionError",
    }
    for found in run(2, tmp_path, "refusals"):
        for kind, text in expected.items():
            assert text in found["refusals"][kind], kind
            unchanged = "parameters as they were" in found["refusals"][kind]
            assert unchanged == (kind != "callback"), kind


def test_an_error_that_nobody_can_hear_ends_all_ranks(tmp_path):
    done = start(["-n", 2, sys.executable, PROGRAM, tmp_path, "failing"], timeout=100)
    assert done.returncode != 0
    assert "rank 1 ends all 2 ranks" in done.stderr and "no rate for this step" in done.stderr


@on_x86
@pytest.mark.skipif(not host_has("avx2"), reason="needs a CPU that can be taken for another one")
def test_other_cpus_are_refused(tmp_path):
    other = [word for name, value in GENERIC.items() for word in ("-env", name, value)]
    command = [sys.executable, PROGRAM, tmp_path, "vectors"]
    done = start(["-n", 1, *command], ["-n", 1, *other, *command])
    assert done.returncode == 0, done.stderr
    for found in json.loads(done.stdout):
        assert "CPU.bytes of a vector register: " in found["vectors"]
        assert " on rank 0, 16 on rank 1" in found["vectors"]


def test_mpiexec_is_that_of_the_wheel():
    assert shutil.which(MPI[0])


def test_the_command_line_trains_with_ranks(tmp_path):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((200, 3))
    table = np.column_stack([X, X.sum(axis=1)])
    np.savetxt(tmp_path / "d.csv", table, delimiter=",", header="a,b,c,y", comments="")
    words = ["train", tmp_path / "d.csv", "--target", "y", "--hidden", "5", "--epochs", "2", "--out"]
    done = start(["-n", 2, sys.executable, "-m", "fastbp", *words, tmp_path / "two.safetensors", "--mpi"])
    assert done.returncode == 0 and done.stdout.count("wrote") == 1, done.stdout + done.stderr
    assert main.main([*map(str, words), str(tmp_path / "one.safetensors"), "--shards", "8"]) == 0
    one, two = (fastbp.MLP.load(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert one.parameters.flat.tobytes() == two.parameters.flat.tobytes()
    done = start(["-n", 2, sys.executable, "-m", "fastbp", *words, tmp_path / "x", "--mpi", "--shards", "7"])
    assert done.returncode != 0 and done.stderr.count("shards=7 cannot be divided among 2 ranks") == 1
