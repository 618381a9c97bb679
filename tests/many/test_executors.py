"""Networks trained by the workers of executors are those that are trained here."""

import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from many_networks import X, Y, assert_as_alone

import fastbp
from fastbp.many import remote

SPAWN = multiprocessing.get_context("spawn")


def small(count):
    return [fastbp.MLP([6, 8, 2], seed=i) for i in range(count)]


def train(models, **changes):
    options = {"epochs": 3, "optimizers": fastbp.Adam(0.01), "progress": False} | changes
    return fastbp.fit_many(models, X, Y, **options)


class AtOnce:
    """An executor that works when it is asked, as if a process of its own did: all goes through pickles."""

    _max_workers = 2

    def __init__(self):
        self.sent, self.forgets = [], False

    def submit(self, function, *arguments):
        if self.forgets:
            remote._data.clear()
        self.sent.append(arguments[1] is not None)
        future = Future()
        future.set_result(function(*arguments))
        return future


def test_what_comes_back_is_what_fit_gives():
    remote._data.clear()
    executor = AtOnce()
    assert_as_alone(16, executor=executor)
    assert len(executor.sent) >= 4 and executor.sent == [True] * 2 + [False] * (len(executor.sent) - 2)


def test_a_worker_without_the_data_gets_them():
    executor = AtOnce()
    executor.forgets = True
    train(small(9), executor=executor)
    assert executor.sent.count(False) == executor.sent.count(True) - 2


def test_trainings_go_on_from_where_they_were():
    here, there = small(4), small(4)
    optimizer, its = fastbp.Adam(0.01), fastbp.Adam(0.01)
    for _ in range(2):
        train(here, optimizers=optimizer)
        train(there, optimizers=its, executor=AtOnce())
    for model, same in zip(here, there, strict=True):
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_divergence_and_early_stopping_come_back():
    models = [fastbp.MLP([6, 8, 2], output="identity", init="he", seed=i) for i in range(3)]
    stop = fastbp.EarlyStopping("loss", patience=1, min_delta=10.0)
    with pytest.warns(RuntimeWarning, match="1 of 3 networks"):
        histories = train(
            models,
            epochs=30,
            optimizers=[fastbp.SGD(0.01), fastbp.SGD(1e6), fastbp.SGD(0.01)],
            callbacks=[[stop], [], []],
            executor=AtOnce(),
        )
    assert histories[0].stopped_early and histories[1].diverged and histories[2].epochs == 30


def test_a_sweep_and_an_ensemble_inherit_it():
    grid, base = {"lr": [0.001, 0.05]}, small(1)[0]
    options = {"epochs": 2, "cv": 2, "progress": False}
    here = fastbp.sweep(base, grid, X, Y, **options)
    there = fastbp.sweep(base, grid, X, Y, executor=AtOnce(), **options)
    assert here.rows == there.rows
    ensemble, same = fastbp.Ensemble(small(3)), fastbp.Ensemble(small(3))
    for members, executor in ((ensemble, AtOnce()), (same, None)):
        members.fit(X, Y, epochs=2, optimizers=fastbp.Adam(), executor=executor, progress=False)
    assert ensemble.predict(X).tobytes() == same.predict(X).tobytes()


def test_threads_of_an_executor():
    with ThreadPoolExecutor(2) as executor:
        assert_as_alone(8, executor=executor)


class Fails:
    """Every group whose data it sees comes to nothing, so often."""

    _max_workers = 2

    def __init__(self, times):
        self.times = times

    def submit(self, function, *arguments):
        future = Future()
        self.times -= 1
        if self.times >= 0:
            future.set_exception(ConnectionError("gone"))
        else:
            future.set_result(function(*arguments))
        return future


def test_what_is_lost_is_sent_again_and_named_if_that_is_for_nothing():
    models, same = small(5), small(5)
    train(models, executor=Fails(2))
    train(same)
    for model, other in zip(models, same, strict=True):
        assert model.parameters.flat.tobytes() == other.parameters.flat.tobytes()
    models = small(2)
    before = [model.parameters.flat.copy() for model in models]
    with pytest.raises(RuntimeError, match=r"2 of 2 networks .*: models 0, 1\. .*ConnectionError: gone"):
        train(models, executor=Fails(1000))
    for model, values in zip(models, before, strict=True):
        np.testing.assert_array_equal(model.parameters.flat, values)


def die_once(model, epoch, history):
    """The process ends the hard way, the first time."""
    path = Path(os.environ["FASTBP_TEST_DIED"])
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_dies_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTBP_TEST_DIED", str(tmp_path / "died"))
    models, same = small(6), small(6)
    train(models, callbacks=die_once, executor=lambda: ProcessPoolExecutor(2, mp_context=SPAWN))
    assert (tmp_path / "died").exists()
    train(same, callbacks=lambda model, epoch, history: None)
    for model, other in zip(models, same, strict=True):
        assert model.parameters.flat.tobytes() == other.parameters.flat.tobytes()


@pytest.mark.slow
def test_dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert_as_alone(8, executor=client.get_executor())


@pytest.mark.slow
def test_a_pool_of_mpi():
    pytest.importorskip("mpi4py")
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        pytest.skip("the wheel mpich is not installed")
    found = {file.name: str(Path(str(file.locate())).resolve()) for file in files}
    mpiexec, library = found["mpiexec"], found["libmpi.so.12"]
    script = Path(__file__).with_name("pool_of_mpi.py")
    command = [mpiexec, "-n", "3", sys.executable, "-m", "mpi4py.futures", str(script)]
    environment = {**os.environ, "MPI4PY_LIBMPI": library}
    said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert said.returncode == 0, said.stderr
    here, there = said.stdout.split()
    assert here == there


def test_what_cannot_be_sent_or_is_no_executor_is_refused():
    with pytest.raises(TypeError, match="executor must have a method submit"):
        train(small(2), executor="dask")
    with pytest.raises(TypeError, match="such as pickle can send"):
        train(small(2), executor=AtOnce(), callbacks=lambda model, epoch, history: None)


def fail(model, epoch, history):
    raise LookupError("there")


def test_what_a_callback_raises_there_comes_out_here():
    with pytest.raises(LookupError, match="there"):
        train(small(2), executor=AtOnce(), callbacks=fail)
