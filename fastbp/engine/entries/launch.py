"""Kernels for anybody's compiled code: who works on one of them, alone or as a team.

A kernel is a body(t, n, job): worker t's part of n of the work that the job describes. Its serial twin is the
same body as the only worker of one. Workers share nothing but what they read, so they need not run at the
same time, and whoever calls from within a parallel region of his own gets the serial twin.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache
from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import I64, call, cycles
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.kernels import matmul
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads import team

KERNELS = 8  # a body can know so many others
# What takes one worker less is too small for a team: to start one and to part again costs some microseconds,
# more where its threads have fallen asleep.
TEAM_NANOSECONDS = 20_000
# A team that takes longer than this, and than so many cycles for each nanosecond expected, has had to wait
# for a core that other programs use (several milliseconds, for microseconds of work). Some jobs are then done
# alone before the next try; from one late team to the next twice as many.
LATE_CYCLES, CYCLES = 1_500_000, 20
FIRST_PAUSE, LONGEST_PAUSE = 8, 1024


@struct
class Runtime(Struct):
    """What this process can do; there is one."""

    workers: int  # of a team; 1: there is none
    split: int  # address of the callback that starts a team
    in_parallel: int  # address of a function that says whether a parallel region runs around the caller
    alone: int  # so many of the next large jobs are done alone, since a team was late
    pause: int  # how many they were


@struct
class Links(Struct):
    """What compiled code reaches by a name: a kernel's body and what it needs, found at run time."""

    body: int
    launch: int
    runtime: int
    lanes: int
    itemsize: int
    height: int  # of the tallest microkernel of two vectors
    k0: int  # addresses of the kernels that the body calls
    k1: int
    k2: int
    k3: int
    k4: int
    k5: int
    k6: int
    k7: int


LINK_FIELDS = size_of(Links) // 8
BODY_FIELD, LAUNCH_FIELD = 0, 1  # the places of `body` and `launch` among them


@struct
class Job(Struct):
    """All jobs begin so."""

    links: int


_runtime_at, links_at, _job_at = view_of(Runtime), view_of(Links), view_of(Job)


def _split(n, work, job):
    """A team of workers, each of whom does his part."""
    for t in prange(n):
        call(work, (t, n, job))


if numba.config.DISABLE_JIT:

    def _asks(function):
        return 0

else:
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def _asks(typingctx, function):
        """What the C function of no arguments at that address returns."""

        def codegen(context, builder, signature, values):
            from llvmlite import ir

            kind = ir.FunctionType(ir.IntType(32), [])
            return builder.zext(builder.call(builder.inttoptr(values[0], kind.as_pointer()), []), I64)

        return types.int64(types.int64), codegen


def _launch(job, nanoseconds):
    """Run a job that is large enough for a team; nanoseconds: what it takes one worker, about."""
    links = links_at(_job_at(job).links)
    runtime = _runtime_at(links.runtime)
    zero, one = np.int64(0), np.int64(1)
    alone = runtime.workers <= 1
    if not alone and runtime.in_parallel != 0:
        alone = _asks(runtime.in_parallel) != 0
    if not alone and runtime.alone > 0:
        runtime.alone -= 1
        alone = True
    if alone:
        call(links.body, (zero, one, job))
        return
    began = cycles()
    call(runtime.split, (runtime.workers, links.body, job))
    if cycles() - began < LATE_CYCLES + CYCLES * nanoseconds:
        runtime.pause = zero
    else:
        runtime.pause = min(max(2 * runtime.pause, np.int64(FIRST_PAUSE)), np.int64(LONGEST_PAUSE))
        runtime.alone = runtime.pause


@cache
def launch() -> int:
    """(job, nanoseconds): the callback that every kernel is entered by for a large job."""
    return jit.address_of("kernels-launch", jit.void(2), lambda: _launch, driver=True)


def _question() -> int:
    """The address of what says whether a parallel region runs, or 0 where the threading layer does not mind
    or cannot say."""
    if team.threading_layer() != "omp":
        return 0
    pool = ctypes.CDLL(importlib.import_module("numba.np.ufunc.omppool").__file__)
    return int(ctypes.cast(pool.omp_in_parallel, ctypes.c_void_p).value or 0)


@cache
def _runtime_memory() -> NDArray[np.int64]:
    return np.zeros(size_of(Runtime) // 8, np.int64)


@cache
def runtime() -> int:
    """The address of the process's `Runtime`, filled in; threads start."""
    memory = _runtime_memory()
    table = at(Runtime, memory.ctypes.data)
    table.workers = 1
    if team.available(None) > 1:
        table.split = jit.address_of("kernels-split", jit.void(3), lambda: _split, parallel=True)
        # Nested regions end the process in workqueue, and there is no way to know of one.
        if team.threading_layer() != "workqueue":
            table.in_parallel = _question()
            table.workers = int(numba.config.NUMBA_NUM_THREADS)
    return int(memory.ctypes.data)


def forked() -> None:
    """In a child process, whose threads did not come along: everything is done alone."""
    at(Runtime, _runtime_memory().ctypes.data).workers = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)


def links(body: int, dtype: str, kernels: list[int]) -> tuple[int, Any]:
    """The address of the links of a body, and the memory that they are in."""
    memory = np.zeros(size_of(Links) // 8, np.int64)
    table = at(Links, memory.ctypes.data)
    table.body, table.launch, table.runtime = body, launch(), runtime()
    table.itemsize = np.dtype(dtype).itemsize
    table.lanes, table.height = isa().bytes // table.itemsize, matmul.shapes()[2]
    for i, kernel in enumerate(kernels):
        setattr(table, f"k{i}", kernel)
    return int(memory.ctypes.data), memory
