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
from numba import int64, prange
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, cpu_pause, cycles, fetch_add, observe, publish, yield_core
from fastbp.engine.threads.barrier import LINE

# The first worker looks for the others so often without leaving its core, and so often letting others run in
# between; but no longer than so many cycles (some 10 ms), since on a busy machine to let others run takes
# milliseconds. A team that is complete does not wait.
LOOKS, MOST_LOOKS, MOST_CYCLES = 20_000, 30_000, 30_000_000
CLOSED = 1 << 40


def arrivals_bytes(workers: int) -> int:
    """The memory that a team needs: a cache line for the count of arrivals, one for the size agreed on, and
    the flags of the barrier."""
    return (2 + workers) * LINE


def flags_of(arrivals: NDArray[np.int64]) -> int:
    """The address of the barrier's flags in that memory."""
    return int(arrivals.ctypes.data) + 2 * LINE


@jit.inner
def join(arrivals: Any, expected: Any) -> Any:
    """Arrive; returns my number and the size of the team, which is 0 if I am too late. `arrivals`: two cache
    lines."""
    me = fetch_add(arrivals, 1)
    if me >= CLOSED:
        return 0, 0
    if me == 0:
        looks, began = 0, cycles()
        while observe(arrivals) < expected and looks < MOST_LOOKS and cycles() - began < MOST_CYCLES:
            looks += 1
            if looks < LOOKS:
                cpu_pause()
            else:
                yield_core()
        publish(arrivals + LINE, fetch_add(arrivals, CLOSED))
    looks = 0
    while observe(arrivals + LINE) == 0:
        looks += 1
        if looks < LOOKS:
            cpu_pause()
        else:
            yield_core()
    return me, observe(arrivals + LINE)


def _team(n: Any, work: Any, plan: Any, arrivals: Any) -> Any:
    for i in range(arrivals.size):  # (as arrivals[:] = 0 it would be a parallel region of its own)
        arrivals[i] = 0
    at = arrivals.ctypes.data
    for _ in prange(n):
        t, size = join(at, n)
        if size > 0:
            call(work, (t, size, plan))
    return arrivals[LINE // 8]


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
_own = threading.local()  # of each Python thread: whether it works alone


def _forked() -> None:
    """In a child process: OpenMP's threads did not come along, and starting new ones would kill the process.
    It does not matter whose parallel region it was that started them."""
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
    if _after_fork or numba.config.DISABLE_JIT or getattr(_own, "alone", False):
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


def run(work: int, plan: int, threads: int, arrivals: np.ndarray[Any, Any]) -> int:
    """Let `work` (a compiled worker) do the plan with up to `threads` threads. Returns the size of the
    team."""
    if threads > 1:
        share = _Share()
        try:
            _take_cores(share, threads)
            if share.cores > 1:
                return int(compiled(True)(share.cores, work, plan, arrivals))
            compiled(False)(work, plan)
        finally:
            # An assignment and no call: an exception of a signal handler cannot come before it.
            share.cores = 0
    else:
        compiled(False)(work, plan)
    return 1
