"""Who works: threads for one entry into compiled code, and what becomes of them.

A team is started once for a whole chunk of training steps, by one `prange` whose iterations are the workers; between phases they meet
at barriers of their own (step.barrier, 0.2 us where a fork-join of OpenMP costs 1.4 and one of workqueue 130). That is safe only while all
workers run at the same time. So they first agree who came: the first waits a moment for the others, then closes the door, and those who
are late (because the runtime was asked for more threads than it gives, or runs nested) return at once. The size of the team
changes no result.
"""

from __future__ import annotations

import math
import os
import threading
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import int64, njit, prange

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, cpu_pause, cycles, fetch_add, observe, publish, yield_core

# The first worker looks for the others so often without leaving its core, and so often letting others run in between; but no longer
# than so many cycles (some 10 ms), since on a busy machine to let others run takes milliseconds. A team that is complete does not wait.
LOOKS, MOST_LOOKS, MOST_CYCLES = 20_000, 30_000, 30_000_000
CLOSED = 1 << 40
# Bytes of the team's memory: a cache line for each worker's flag, for the count of arrivals, and for the size agreed on.
LINE = 64


@njit(nogil=True, error_model="numpy")
def join(door: Any, expected: Any) -> Any:
    """Come in; returns my number and the size of the team, which is 0 if I am too late. `door`: two cache lines."""
    me = fetch_add(door, 1)
    if me >= CLOSED:
        return 0, 0
    if me == 0:
        looks, began = 0, cycles()
        while observe(door) < expected and looks < MOST_LOOKS and cycles() - began < MOST_CYCLES:
            looks += 1
            if looks < LOOKS:
                cpu_pause()
            else:
                yield_core()
        publish(door + LINE, fetch_add(door, CLOSED))
    looks = 0
    while observe(door + LINE) == 0:
        looks += 1
        if looks < LOOKS:
            cpu_pause()
        else:
            yield_core()
    return me, observe(door + LINE)


def _team(n: Any, work: Any, plan: Any, door: Any) -> Any:
    for i in range(door.size):  # (as door[:] = 0 it would be a parallel region of its own)
        door[i] = 0
    at = door.ctypes.data
    for _ in prange(n):
        t, size = join(at, n)
        if size > 0:
            call(work, (t, size, plan))
    return door[LINE // 8]


def _alone(work: Any, plan: Any) -> None:
    call(work, (0, 1, plan))


@cache
def compiled(parallel: bool) -> Any:
    """The entry into compiled code: with threads, or the serial twin. Both run the same compiled worker."""
    if parallel:
        return jit.dispatcher(_team, (int64, int64, int64, int64[::1]), parallel=True)
    return jit.dispatcher(_alone, (int64, int64))


# ---- how many ------------------------------------------------------------------------------------------


class _Share:
    """The cores that one entry works on: none before it has taken some, none when it is over."""

    cores = 0


_lock = threading.Lock()
_shares: list[_Share] = []  # of the entries that run, and of some that are over
_after_fork = False


def _forked() -> None:
    """In a child process: OpenMP's threads did not come along, and starting new ones would kill the process. It does not matter whose
    parallel region it was that started them."""
    global _lock, _shares, _after_fork
    _lock, _shares = threading.Lock(), []
    _after_fork = _after_fork or threading_layer() is not None


def threading_layer() -> str | None:
    """The layer that runs, or None if none was started yet."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def available(threads: int | None) -> int:
    """How many threads a model with that setting may use."""
    if _after_fork or numba.config.DISABLE_JIT:
        return 1
    most = int(numba.config.NUMBA_NUM_THREADS)
    if threading_layer() is not None:  # else asking for it would start the threads
        most = min(most, numba.get_num_threads())
    return most if threads is None else min(threads, most)


def limit() -> str:
    """What keeps the number of threads at what `available` says."""
    if numba.config.DISABLE_JIT:
        return "NUMBA_DISABLE_JIT"
    if _after_fork:
        return "fork: the parent process had started threads, which a child does not inherit"
    if available(None) < numba.config.NUMBA_NUM_THREADS:
        return "numba.set_num_threads"
    return "NUMBA_NUM_THREADS (without it, the number of cores)"


def _take_cores(share: _Share, wanted: int) -> None:
    """Some cores for the duration of one entry: fewer than wanted if other Python threads have some, at least one. workqueue can have one
    team only, so there is one at a time."""
    with _lock:
        _shares[:] = [other for other in _shares if other.cores]
        taken = [other.cores for other in _shares]
        free = numba.config.NUMBA_NUM_THREADS - sum(taken)
        share.cores = 1 if any(cores > 1 for cores in taken) else max(1, min(wanted, free))
        _shares.append(share)


def run(work: int, plan: int, threads: int, door: np.ndarray[Any, Any]) -> int:
    """Let `work` (a compiled worker) do the plan with up to `threads` threads. Returns the size of the team."""
    if threads > 1:
        share = _Share()
        try:
            _take_cores(share, threads)
            if share.cores > 1:
                return int(compiled(True)(share.cores, work, plan, door))
            compiled(False)(work, plan)
        finally:
            share.cores = 0  # an assignment and no call: an exception of a signal handler cannot come before it
    else:
        compiled(False)(work, plan)
    return 1


# ---- alone or with threads -----------------------------------------------------------------------------

# A trial goes in legs of so long. A team's ends when it has won or so much time is over: threads that slept may wake on one and the same
# core, and it takes the system some milliseconds to part them; who works alone shows at once how fast that is. The slower way is tried
# again after so long, twice as long each time that it stays so.
TRIAL_SECONDS, MOST_TRIAL_SECONDS, RETRY_SECONDS, MOST_DOUBLINGS = 0.002, 0.01, 0.05, 6
# How long a way must have been slower than it was known to be to count as twice as slow: what a step lost because some other program had
# the core for a moment does not turn a choice over, and the functions on the caller's arrays measure one step at a time.
DOUBLING_SECONDS = 0.02
# Whoever calls again after such a pause may have used another library's threads in it, which go on to spin on their cores for some 20 ms
# (OpenBLAS): the slower way is not tried again before so much time is over, unless the last trial is that long ago (and twice as long each
# time): there may be such a pause after every few steps.
PAUSE_SECONDS, SETTLING_SECONDS, LONG_AGO_SECONDS = 0.01, 0.03, 1.0
# After a change of ways so many steps do not count: threads wake, and weights move from cache to cache.
STEPS_TO_WARM = 2


class Choice:
    """Alone or as a team, whichever was faster lately.

    A team pays where a core's share of a step is large against the barriers, and where the cores are free; both depend on the machine and
    on what else it does. So both ways are tried on a few steps of the real work, and the slower one again from time to time. That is
    possible because the results are the same bits.
    """

    def __init__(self) -> None:
        self.seconds_per_step: dict[int, float] = {}
        self._last = 0  # the way of the last leg
        self._warming = False  # whether the leg that runs does not count
        self._best = 0  # the way that was known to be faster after the last trial
        self._trying, self._trial_left = 0, 0.0  # the way on trial, or 0; seconds until the verdict
        self._lost = 0  # trials in a row that the slower way lost
        self._tried_at = 0.0
        self._ended = self._settled_at = 0.0  # the end of the last leg; when the next trial may be

    def next(self, threads: int, steps: int, now: float) -> tuple[int, int]:
        """How many threads to take, and for how many of the steps to come."""
        known, ways = self.seconds_per_step, (threads, 1)
        if now - self._ended > PAUSE_SECONDS:
            self._settled_at = now + SETTLING_SECONDS
        n = self._trying
        if n not in ways:
            untried = [way for way in ways if way not in known]
            best = min(ways, key=lambda way: known.get(way, 0.0))
            if untried:
                n = self._trying = untried[0]
            elif self._is_time_for_a_trial(now):
                n = self._trying = sum(ways) - best  # the other one
            else:
                n, self._trying = best, 0
            self._trial_left = MOST_TRIAL_SECONDS if n > 1 else TRIAL_SECONDS
        self._warming = n != self._last
        self._last = n
        if self._warming:
            return n, min(steps, STEPS_TO_WARM)
        if self._trying:
            return n, min(steps, max(4, int(TRIAL_SECONDS / min(known.values())) if known else 8))
        return n, steps

    def _is_time_for_a_trial(self, now: float) -> bool:
        wait = RETRY_SECONDS if now > self._settled_at else LONG_AGO_SECONDS
        return now > self._tried_at + wait * 2**self._lost

    def note(self, threads: int, steps: int, seconds: float, now: float) -> None:
        """So many steps were done so."""
        self._ended = now
        if self._warming:
            return
        known = self.seconds_per_step
        most = known.get(threads, math.inf) * (1 + seconds / DOUBLING_SECONDS)
        known[threads] = min(seconds / steps, most)
        if self._trying:
            self._trial_left -= seconds
            won = known[threads] < min((s for n, s in known.items() if n != threads), default=0.0)
            if self._trial_left > 0 and not won:
                return
            self._trying = 0
        best = min(known, key=lambda n: known[n])
        if best != self._best:  # perhaps a moment's disturbance only: look again soon
            self._best, self._lost, self._tried_at = best, 0, now
        elif threads != best:
            self._lost, self._tried_at = min(self._lost + 1, MOST_DOUBLINGS), now
