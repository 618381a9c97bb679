"""Teams for kernels, and Python's lock."""

import threading

import numpy as np
import pytest
from numba import config, int64, njit

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, cycles, observe, publish
from fastbp.engine.compile.struct import Struct, at, struct, view_of
from fastbp.engine.entries import launch
from fastbp.engine.threads.runtime import Runtime, runtime

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="nobody starts a team")

LARGE = 1 << 40  # nanoseconds: a team for certain
LONG = 60_000_000_000  # cycles after which nobody waits any longer


@struct
class Waiting(Struct):
    links: int
    come: int  # address of numbers that each worker writes when he has come,
    gone: int  # and when he has gone on
    go: int  # address of what he waits for


_waiting_at = view_of(Waiting)


@jit.inner
def wait_for(address):
    began = cycles()
    while observe(address) == 0 and cycles() - began < LONG:
        pass
    return observe(address)


def _come_and_wait(t, n, address):
    job = _waiting_at(address)
    publish(job.come + 8 * t, n)
    publish(job.gone + 8 * t, wait_for(job.go))


@njit
def start(entry, job):
    call(entry, (job, LARGE))


@njit(nogil=True)
def start_when_told(entry, job, told, done):
    publish(told + 8, 1)
    wait_for(told)
    call(entry, (job, LARGE))
    publish(done, 1)


@njit
def hold_python(told, done):
    publish(told, 1)
    return wait_for(done)


@pytest.fixture
def team():
    """What starts one, and how many there are."""
    table = at(Runtime, runtime())
    if table.workers == 1:
        pytest.skip("there is no team")
    table.owed = 0
    return launch.launch(), table.workers


@pytest.fixture
def job(monkeypatch, tmp_path):
    """A job, its links, what its workers write, and what they wait for."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))  # which knows nothing of what is edited here
    memory, (come, gone), go = launch.no_links(), np.zeros((2, 64), np.int64), np.zeros(1, np.int64)
    body = jit.address_of("test-come-and-wait", jit.void(3), lambda: _come_and_wait, driver=True)
    launch.link_body(memory, body, "float32", [])
    launch.link_launch(memory)
    arrays = memory, come, gone, go
    return np.array([array.ctypes.data for array in arrays]), *arrays


def test_others_run_python_while_a_team_works(team, job):
    (entry, workers), (numbers, _, come, gone, go) = team, job

    def let_go():
        while not come[:workers].all():
            pass
        go[0] = 1

    other = threading.Thread(target=let_go)
    other.start()
    start(entry, numbers.ctypes.data)
    other.join()
    assert gone[: workers + 1].tolist() == [1] * workers + [0]
    assert come[: workers + 1].tolist() == [workers] * workers + [0]


def test_a_team_does_not_wait_for_who_runs_python(team, job):
    (entry, workers), (numbers, _, _, gone, go) = team, job
    go[0], told, done = 1, np.zeros(2, np.int64), np.zeros(1, np.int64)
    arguments = entry, numbers.ctypes.data, told.ctypes.data, done.ctypes.data
    start_when_told.compile((int64,) * 4)
    hold_python.compile((int64, int64))
    other = threading.Thread(target=start_when_told, args=arguments)
    other.start()
    while told[1] == 0:
        pass
    assert hold_python(told.ctypes.data, done.ctypes.data) == 1
    other.join()
    assert gone[: workers + 1].tolist() == [1] * workers + [0]
