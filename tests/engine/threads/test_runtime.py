"""Which jobs in compiled code get a team."""

import time

import numpy as np
import pytest
from bits import teams_for_all
from numba import config, njit

from fastbp import kernels
from fastbp.engine.compile.intrinsics import cycles
from fastbp.engine.compile.struct import at, size_of
from fastbp.engine.threads import runtime as teams
from fastbp.engine.threads.runtime import Runtime, gets_a_team, note_alone, note_team, runtime, runtime_at

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="there are no teams")

MEDIUM, LARGE = teams.TEAM_NANOSECONDS, teams.WORTH_NANOSECONDS


@njit
def asks(address, now, nanoseconds):
    return gets_a_team(runtime_at(address), now, 0, nanoseconds)


@njit
def alone(address, since):
    note_alone(runtime_at(address), cycles() - since)


@njit
def together(address, since, nanoseconds):
    note_team(runtime_at(address), cycles() - since, nanoseconds)


@njit
def now():
    return cycles()


@pytest.fixture
def table():
    """Of a process with two threads, which nobody has asked for anything yet."""
    if now() == 0:
        pytest.skip("nobody can say what the time is")
    memory = np.zeros(size_of(Runtime) // 8, np.int64)
    made = at(Runtime, memory.ctypes.data)
    made.workers, made.least, made.worth, made.noted = 2, teams.LEAST_NANOSECONDS, LARGE, now()
    made.sure = teams.SURE_NANOSECONDS
    made.address, made.memory = memory.ctypes.data, memory
    return made


def test_a_large_job_wakes_threads_and_others_find_them_awake(table):
    address = table.address
    assert not asks(address, now(), LARGE - 1) and asks(address, now(), LARGE)
    together(address, 0, LARGE)
    assert asks(address, now(), MEDIUM) and not asks(address, now(), table.least - 1)
    assert not asks(address, now() + teams.AWAKE, MEDIUM)
    assert asks(address, now() + teams.AWAKE, LARGE)


def test_jobs_in_close_succession_are_worth_waking_for(table):
    address, each = table.address, teams.WORTH // 4
    for _ in range(3):
        alone(address, each)
        assert not asks(address, now(), MEDIUM)
    alone(address, each)
    assert asks(address, now(), MEDIUM)
    together(address, 0, MEDIUM)
    assert table.alone == 0


def test_jobs_now_and_then_are_not(table):
    for _ in range(20):
        table.noted = now() - 10 * teams.WORTH  # so long ago
        alone(table.address, teams.WORTH // 4)
        assert not asks(table.address, now(), MEDIUM)


def test_threads_that_do_not_stay_awake_are_woken_less_and_less_often(table):
    address = table.address
    for times in (1, 2, 4):
        table.alone = times * teams.WORTH - 1
        assert not asks(address, now(), MEDIUM)
        table.alone += 1
        assert asks(address, now(), MEDIUM)
        late = teams.LONGER + 2 * teams.CYCLES * MEDIUM
        table.ended = 0
        together(address, late, MEDIUM)  # to wake them takes so long
        assert asks(address, now(), MEDIUM)
        table.ended = now() - late
        together(address, late, MEDIUM)  # and they slept again
        table.alone = 0
        assert not asks(address, now(), MEDIUM)
    together(address, 0, MEDIUM)
    assert table.slow == 0 and asks(address, now(), MEDIUM)


def test_where_teams_lost_only_long_jobs_get_one(table):
    table.trial.lost, table.trial.due = 1, now() + (1 << 60)
    together(table.address, 0, LARGE)
    assert not asks(table.address, now(), MEDIUM) and not asks(table.address, now(), LARGE)
    assert not asks(table.address, now(), table.sure - 1) and asks(table.address, now(), table.sure)


def test_kernels_ask():
    z, table = np.ones(400_000, np.float32), at(Runtime, runtime())
    if table.workers == 1 or now() == 0:
        pytest.skip("there is no team")
    kernels.relu(z)
    with teams_for_all():
        table.ended = 0
        kernels.relu(z)
        assert table.ended > 0
    time.sleep(0.05)  # until the others sleep
    table.ended = table.alone = table.owed = 0
    kernels.relu(z)
    assert table.ended == 0 and table.alone > 0


def test_people_can_read_what_teams_are_for(monkeypatch, table):
    monkeypatch.setattr(teams, "_memory", lambda: table.memory)
    assert teams.state() == "for jobs of 8 us and more"
    table.trial.lost = 1
    assert teams.state() == "for jobs of 2000 us and more, one core was faster when both were tried"
    table.owed = 5
    assert "late" in teams.state()
    table.workers = 1
    assert teams.state() == "none"
    table.workers = 0
    assert teams.state() == "not started yet"
