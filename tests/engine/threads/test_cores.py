"""Threads leave the core that another worker of their team needs."""

import os
import sys
import threading

import numpy as np
import pytest
from numba import config, njit
from processes import python

from fastbp.engine.entries import launch
from fastbp.engine.threads import cores, team
from fastbp.engine.threads.barrier import LINE
from fastbp.engine.threads.meeting import Meeting

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or config.DISABLE_JIT, reason="nobody can say which core it is"
)


@pytest.fixture
def allowed():
    """The cores that this thread may use; afterwards it may use them again."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


@njit
def leave(core):
    before = cores.this_core()
    cores.leave_core(before if core < 0 else core)
    return before, cores.this_core()


@njit
def part(arrivals, me):
    before = cores.this_core()
    team.part_from_others(arrivals, me)
    return before, cores.this_core()


def test_a_thread_goes_on_on_another_core_and_may_come_back(allowed):
    if len(allowed) == 1:
        pytest.skip("one core")
    for _ in range(20):
        before, after = leave(-1)
        assert before - 1 in allowed and after - 1 in allowed
        assert os.sched_getaffinity(0) == allowed
        if before != after:
            return
    raise AssertionError("it stays")


@pytest.mark.parametrize("core", [0, 1, 1024, 1025, 1 << 40])
def test_with_a_single_core_or_an_unknown_one_it_stays(allowed, core):
    os.sched_setaffinity(0, {min(allowed)})
    before, after = leave(core or min(allowed) + 1)
    assert before == after == min(allowed) + 1
    assert os.sched_getaffinity(0) == {min(allowed)}


def test_who_comes_later_leaves_the_core_of_who_came_first(allowed):
    if len(allowed) == 1:
        pytest.skip("one core")
    first = min(allowed)
    arrivals = np.zeros(team.arrivals_bytes(2) // 8, np.int64)
    places = arrivals[(2 * LINE + team.CORE) // 8 :: LINE // 8]
    os.sched_setaffinity(0, {first})
    part(arrivals.ctypes.data, 0)
    assert list(places) == [first + 1, 0]
    assert os.sched_getaffinity(0) == {first}
    os.sched_setaffinity(0, allowed)
    others = set()
    for _ in range(20):
        before, after = part(arrivals.ctypes.data, 1)
        if before == first + 1:
            others.add(after)
            assert places[1] == after
        os.sched_setaffinity(0, {first})  # back
        os.sched_setaffinity(0, allowed)
    assert others - {first + 1}


@njit
def arrive(begun, core):
    launch.come(begun, core)
    return cores.this_core()


def test_a_team_that_need_not_meet_leaves_the_callers_core(allowed):
    if len(allowed) == 1:
        pytest.skip("one core")
    first, begun = min(allowed), np.zeros(1, np.int64)
    os.sched_setaffinity(0, {first})
    assert arrive(begun.ctypes.data, 0) == first + 1 and begun[0] == 1
    moved = 0
    for _ in range(20):
        os.sched_setaffinity(0, {first})
        os.sched_setaffinity(0, allowed)
        moved += arrive(begun.ctypes.data, first + 1) != first + 1
        assert os.sched_getaffinity(0) == allowed
    assert begun[0] == 21 and moved > 10


@pytest.mark.parametrize("begins", [True, False])
def test_who_waits_for_the_first_one_goes_on(begins):
    """Also if nobody begins, or comes."""
    meeting = Meeting(2)
    thread = threading.Thread(target=meeting.come_and_wait)
    thread.start()
    if begins:
        meeting.come()
        meeting.begin()
    thread.join(30)
    assert not thread.is_alive()


CALLS = """
import os, time
import numpy as np, fastbp
from fastbp import kernels
z = np.ones(2_000_000)
X, W1, b1 = np.ones((128, 64), "f"), np.ones((64, 128), "f"), np.zeros(128, "f")
W2, b2 = np.ones((128, 10), "f"), np.zeros(10, "f")
before = os.sched_getaffinity(0)
for _ in range(10):
    time.sleep(0.02)
    fastbp.forward(X, W1, b1, W2, b2)
    time.sleep(0.02)
    kernels.relu(z)
assert os.sched_getaffinity(0) == before
print("as before")
"""


def test_a_program_keeps_the_cores_that_it_had():
    assert python("-c", CALLS).split() == ["as", "before"]
