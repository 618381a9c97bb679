"""Who works: threads for one entry into compiled code, and what becomes of them.

A team is started once for a whole chunk of training steps, by one `prange` whose iterations are the workers;
between phases they meet at barriers of their own (barrier.py). That is safe only while all workers run at the
same time. So they first agree who came: the first waits a moment for the others, then closes the door, and
those who are late (because the runtime was asked for more threads than it gives, or runs nested) return at
once. The size of the team changes no result.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import int64, prange, types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.intrinsics import call, cpu_pause, cycles, fetch_add, observe, publish, yield_core
from fastbp.engine.threads.barrier import LINE
from fastbp.engine.threads.cores import leave_core, this_core

# The first worker looks for the others so often (0.1 ms: a thread that sleeps is there after half of it)
# without leaving its core, and so often letting others run in between: they may have been woken on this one.
# But no longer than so many cycles (some 10 ms), since on a busy machine to let others run takes
# milliseconds. A team that is complete does not wait.
LOOKS, MOST_LOOKS, MOST_CYCLES = 2_000, 12_000, 30_000_000
CLOSED = 1 << 40
# Where in a worker's cache line stands, behind his flag, the core that he began on.
CORE = 8


def arrivals_bytes(workers: int) -> int:
    """The memory that a team needs: a cache line for the count of arrivals, one for the size agreed on, and
    the flags of the barrier."""
    return (2 + workers) * LINE


def flags_of(arrivals: NDArray[np.int64]) -> int:
    """The address of the barrier's flags in that memory."""
    return data_at(arrivals) + 2 * LINE


@jit.inner
def part_from_others(arrivals: Any, me: Any) -> None:
    """Leave the core if it is one that a worker runs on who came before: he cannot go on meanwhile."""
    core = this_core()
    if core == 0:
        return
    for other in range(me):
        if observe(arrivals + (2 + other) * LINE + CORE) == core:
            leave_core(core)
            core = this_core()
            break
    publish(arrivals + (2 + me) * LINE + CORE, core)


@jit.inner
def look_for(count: Any, expected: Any) -> None:
    """Wait a moment until a count (at this address) is as large as expected, as of workers who are there. The
    moment ends also where nobody can say what the time is."""
    looks, began = 0, cycles()
    while observe(count) < expected and looks < MOST_LOOKS and cycles() - began < MOST_CYCLES:
        looks += 1
        if looks < LOOKS:
            cpu_pause()
        else:
            yield_core()


@jit.inner
def join(arrivals: Any, expected: Any) -> Any:
    """Arrive; returns my number and the size of the team, which is 0 if I am too late. `arrivals`: two cache
    lines."""
    me = fetch_add(arrivals, 1)
    if me >= CLOSED:
        return 0, 0
    part_from_others(arrivals, me)
    if me == 0:
        look_for(arrivals, expected)
        publish(arrivals + LINE, fetch_add(arrivals, CLOSED))
    looks = 0
    while observe(arrivals + LINE) == 0:
        looks += 1
        if looks < LOOKS:
            cpu_pause()
        else:
            yield_core()
    return me, observe(arrivals + LINE)


# What `numba.get_num_threads` asks, by its name, which parallel code knows anyway: code with the address in
# it could not be cached.
most_here = types.ExternalFunction("get_num_threads", types.intp())


def _together(n: Any, work: Any, job: Any, arrivals: Any) -> None:
    n = min(n, most_here())
    for line in range(2 + n):
        publish(arrivals + line * LINE, 0)
        publish(arrivals + line * LINE + CORE, 0)
    for _ in prange(n):
        t, size = join(arrivals, n)
        if size > 0:
            call(work, (t, size, job))


def together() -> int:
    """(n, work, job, arrivals): the callback by which a team of up to n workers does a job, each of them as
    work(t, size of the team, job); how many came is left in `arrivals`."""
    return jit.address_of("together", jit.void(4), lambda: _together, driver=True, parallel=True)


def _enter(together: Any, n: Any, work: Any, job: Any, arrivals: Any) -> Any:
    if together == 0:
        call(work, (0, 1, job))
        return 1
    call(together, (n, work, job, arrivals))
    return observe(arrivals + LINE)


@cache
def enter() -> Any:
    """The entry into compiled code: (together or 0, n, work, job, arrivals) returns the size of the team; 0:
    alone."""
    return jit.dispatcher(_enter, (int64, int64, int64, int64, int64))


# ---- how many ------------------------------------------------------------------------------------------


class _Share:
    """The cores that one entry works on: none before it has taken some, none when it is over."""

    cores = 0


# Its thread may take it again: a debugger's exception at the end of a `with` statement leaves it taken.
_lock = threading.RLock()
_shares: list[_Share] = []  # of the entries that run, and of some that are over
_after_fork = False
_own = threading.local()  # of each Python thread: whether it works alone


def _forked() -> None:
    """In a child process: OpenMP's threads did not come along, and starting new ones would kill the process.
    It does not matter whose parallel region it was that started them."""
    global _lock, _shares, _after_fork
    _lock, _shares = threading.RLock(), []
    _after_fork = _after_fork or threading_layer() is not None


def threading_layer() -> str | None:
    """The layer that runs, or None if none was started yet."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def possible() -> bool:
    """Whether this process can have a team at all."""
    return not _after_fork and not numba.config.DISABLE_JIT and numba.config.NUMBA_NUM_THREADS > 1


def available(threads: int | None) -> int:
    """How many threads a model with that setting may use."""
    if not possible() or getattr(_own, "alone", False):
        return 1
    most = int(numba.config.NUMBA_NUM_THREADS)
    if threading_layer() is not None:  # else asking for it would start the threads
        most = min(most, numba.get_num_threads())
    return most if threads is None else min(threads, most)


@contextmanager
def alone() -> Iterator[None]:
    """A context in which this Python thread takes no other threads to help: where several Python threads
    train a network each, every core has its own."""
    before = getattr(_own, "alone", False)
    _own.alone = True
    try:
        yield
    finally:
        _own.alone = before


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
    """Some cores for the duration of one entry: fewer than wanted if other Python threads have some, at least
    one. workqueue can have one team only, so there is one at a time."""
    with _lock:
        _shares[:] = [other for other in _shares if other.cores]
        taken = [other.cores for other in _shares]
        free = numba.config.NUMBA_NUM_THREADS - sum(taken)
        share.cores = 1 if any(cores > 1 for cores in taken) else max(1, min(wanted, free))
        _shares.append(share)


def run(work: int, plan: int, threads: int, arrivals: NDArray[np.int64]) -> int:
    """Let `work` (a compiled worker) do the plan with up to `threads` threads. Returns the size of the
    team."""
    if threads > 1:
        share = _Share()
        try:
            _take_cores(share, threads)
            if share.cores > 1:
                return int(enter()(together(), share.cores, work, plan, data_at(arrivals)))
            return int(enter()(0, 1, work, plan, 0))
        finally:
            # An assignment and no call: an exception of a signal handler cannot come before it.
            share.cores = 0
    return int(enter()(0, 1, work, plan, 0))
