"""Kernels for anybody's compiled code: who works on one of them, alone or as a team.

A kernel is a body(t, n, job): worker t's part of n of the work that the job describes. Its serial twin is the
same body as the only worker of one. Workers share nothing but what they read, so they need not run at the
same time, and whoever calls from within a parallel region of his own gets the serial twin.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import (
    call,
    cycles,
    fetch_add,
    leave_python,
    peek,
    publish,
    return_to_python,
    room,
    yield_core,
)
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, room_for, size_of, struct, view_of
from fastbp.engine.kernels import matmul
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads.cores import leave_core, this_core
from fastbp.engine.threads.runtime import (
    Runtime,
    are_awake,
    asks,
    gets_a_team,
    note_alone,
    note_team,
    runtime,
    runtime_at,
)
from fastbp.engine.threads.team import look_for

KERNELS = 8  # a body can know so many others


@struct
class Links(Struct):
    """What compiled code reaches by a name: a kernel's body and what it needs, found at run time."""

    body: int
    launch: int
    runtime: int
    lanes: int
    itemsize: int
    height: int  # of the tallest microkernel of two vectors
    low: int  # of that of four
    passes: int  # in which a vector goes through a unit (see `Isa`)
    masks: int  # whether one is written with a mask (see there)
    k0: int  # addresses of the kernels that the body calls
    k1: int
    k2: int
    k3: int
    k4: int
    k5: int
    k6: int
    k7: int
    find_body: int  # Python objects, which are called where `body` or `launch` is 0 (see kernels/linking.py)
    find_launch: int


LINK_FIELDS = size_of(Links) // 8
BODY, LAUNCH, FIND_BODY, FIND_LAUNCH = 0, 1, LINK_FIELDS - 2, LINK_FIELDS - 1  # places of fields among them


@struct
class Job(Struct):
    """All jobs begin so."""

    links: int


@struct
class Team(Struct):
    """Workers that need not meet."""

    workers: int
    work: int  # address of the callback that does a worker's part of the job
    job: int
    core: int  # see `_start`
    begun: int  # address of the count of those who have


_WRITTEN = threading.RLock()
links_at, _job_at = view_of(Links), view_of(Job)
_team_at, _room_for_team = view_of(Team), room_for(Team)


@inner
def come(begun, core):
    """Be counted among those who have begun, and leave the core if it is that one."""
    if this_core() == core:
        leave_core(core)
    fetch_add(begun, 1)


@inner
def _start(table, work, job, core):
    """A team of workers, each of whom does his part; core: where the caller is, who is the first of them, if
    others may be asleep, or 0.

    This is what becomes of a `prange`, but that takes 0.25 s to compile, and waits for Python's lock first.
    """
    team, begun, first, count, step = _room_for_team(), room(), room(), room(), room()
    publish(begun, 1)
    team.workers, team.work, team.job = min(table.workers, asks(table.threads)), work, job
    team.core, team.begun = core, begun
    # Numba's threads share the places of an array of so many, and each is told where his places begin: the
    # array lies at address 0, a byte each, so that is their number.
    publish(first, 0)
    publish(count, team.workers)
    publish(step, 1)
    state = leave_python()
    call(table.parallel_for, (table.part, first, count, step, team.here, 0, 1, asks(table.threads)))
    return_to_python(state)


def _part(firsts, counts, steps, address):
    """What one of Numba's threads does: the parts of one worker, or of some. Who is woken on the core of the
    first one leaves it, which he can only when that one lets him run."""
    team, t = _team_at(address), peek(firsts, 0)
    last = t + peek(counts, 0)
    while t < last:
        if team.core != 0:
            if t == 0:
                yield_core()
            else:
                come(team.begun, team.core)
        call(team.work, (t, team.workers, team.job))
        if team.core != 0 and t == 0:
            look_for(team.begun, team.workers)
        t += 1


def _launch(job, nanoseconds):
    """Run a job that may be large enough for a team; nanoseconds: what it takes one worker, about."""
    links = links_at(_job_at(job).links)
    table, began = runtime_at(links.runtime), cycles()
    if not gets_a_team(table, began, links.here + nanoseconds, nanoseconds):
        call(links.body, (np.int64(0), np.int64(1), job))
        note_alone(table, began)
        return
    core = np.int64(0) if are_awake(table, began) else this_core()
    _start(table, links.body, job, core)
    note_team(table, began, nanoseconds)


def part() -> int:
    """What Numba's threads are given."""
    return jit.address_of("kernels-part", jit.void(4), lambda: _part, driver=True)


def launch() -> int:
    """(job, nanoseconds): the callback that every kernel is entered by for a large job."""
    return jit.address_of("kernels-launch", jit.void(2), lambda: _launch, driver=True)


def no_links() -> np.ndarray[Any, Any]:
    """The memory of links that are not yet known."""
    return np.zeros(LINK_FIELDS, np.int64)


def link_body(memory: np.ndarray[Any, Any], body: int, dtype: str, kernels: list[int]) -> None:
    """Write a body to links, with the addresses of the kernels that it calls."""
    table = at(Links, memory.ctypes.data)
    table.itemsize = np.dtype(dtype).itemsize
    table.lanes = isa().bytes // table.itemsize
    heights = matmul.variants(matmul.OF_C)
    table.height, table.low = heights[2], heights[4]
    table.passes, table.masks = isa().passes, isa().masks
    for i, kernel in enumerate(kernels):
        setattr(table, f"k{i}", kernel)
    with _WRITTEN:  # a thread that sees the body sees all of the above
        table.body = body


def link_launch(memory: np.ndarray[Any, Any]) -> None:
    """Write to links what starts a team, behind a body."""
    table = at(Links, memory.ctypes.data)
    table.runtime = runtime()
    of_process = at(Runtime, table.runtime)
    if of_process.workers > 1:
        of_process.part = part()
    entry = launch()
    with _WRITTEN:
        table.launch = entry
