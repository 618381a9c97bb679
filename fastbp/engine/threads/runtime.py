"""Teams that compiled code starts by itself, in the middle of a call: whether a job gets one.

A job says what it takes one worker, about, and a large one gets a team unless teams were late lately, or
lost against one worker when both were tried (trial.py).
"""

from __future__ import annotations

import ctypes
import importlib
import os
from functools import cache

import numba
import numpy as np
from llvmlite.binding import address_of_symbol
from numpy.typing import NDArray

from fastbp.engine.compile.intrinsics import I64, cycles
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.threads import team
from fastbp.engine.threads.trial import Trial, favours_a_team, note

# What takes one worker less is too small for a team: to start one whose threads wait for it and to part again
# takes 1 to 2 us with two workers, and more with each of more. (LEAST_NANOSECONDS is for two.)
TEAM_NANOSECONDS, FOR_EACH = 20_000, 4_000
LEAST_NANOSECONDS = 2 * FOR_EACH
# Threads wait in a loop for so many cycles (3 ms; those of GNU's OpenMP for 4), then they sleep. To wake one
# takes 50 to 200 us: only what takes one worker longer than WORTH_NANOSECONDS pays for it, or many jobs in
# close succession. These do when they have taken WORTH cycles, of which an eighth of the time between them
# was taken off; and twice as many after each team that took LONGER than several times what was expected
# although its threads were to be awake: they sleep at once, or have no core.
AWAKE, WORTH_NANOSECONDS, WORTH, LONGER = 8_000_000, 250_000, 650_000, 80_000
MOST_DOUBLED = 8
# A team is late when it takes longer than this, and than so many cycles for each nanosecond expected of one
# worker: then one of its threads has waited for a core on which another one runs, for some milliseconds.
# (Another program's, or OpenBLAS's: after a product of NumPy's its threads go on to spin for 0.1 s; or the
# caller's own: a system may wake a thread where it was called, and move it to an idle core some time later.)
LATE_CYCLES, CYCLES = 1_500_000, 5
# Before the next try jobs are then done alone that take so many cycles (0.4 ms), or four times as long as the
# late team; from one late team to the next twice as long, up to 0.1 s. What counts is work, not time that
# passes: most of a program that calls now and then would otherwise be waiting.
FIRST_DEBT, LONGEST_DEBT = 1_000_000, 256_000_000

# What takes one worker longer gets a team without a trial, which would take too long.
SURE_NANOSECONDS = 2_000_000


@struct
class Runtime(Struct):
    """What this process can do; there is one."""

    workers: int  # of a team; 1: there is none
    parallel_for: int  # address of the function by which Numba's threads are called
    threads: int  # and of the one that says how many the caller may have
    part: int  # of the callback that they are given (see entries/launch.py), once there is one
    in_parallel: int  # address of a function that says whether a parallel region runs around the caller
    owed: int  # jobs are done alone that take so many cycles, since a team was late
    debt: int  # how many they were at first
    least: int  # nanoseconds that a job takes one worker, for a team whose threads are awake
    worth: int  # and for one whose threads have to be woken
    sure: int  # and for one without a trial
    ended: int  # when the last team did, in cycles; 0: its threads are asleep
    noted: int  # when the last job that was done alone ended
    alone: int  # what such jobs have taken lately
    slow: int  # how many teams, one after the other, began late although they were to be awake
    trial: Trial


runtime_at = view_of(Runtime)


if numba.config.DISABLE_JIT:

    def asks(function):
        return 0

else:
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def asks(typingctx, function):
        """What the C function of no arguments at that address returns."""

        def codegen(context, builder, signature, values):
            from llvmlite import ir

            kind = ir.FunctionType(ir.IntType(32), [])
            return builder.zext(builder.call(builder.inttoptr(values[0], kind.as_pointer()), []), I64)

        return types.int64(types.int64), codegen


@inner
def are_awake(runtime, now):
    """Whether the threads of a team still wait in a loop, as far as anybody can say; now: in cycles."""
    return 0 < now - runtime.ended < AWAKE


@inner
def gets_a_team(runtime, now, kind, nanoseconds):
    """Whether the next job does, which takes one worker so many nanoseconds; now: in cycles; kind: a number
    that tells jobs apart."""
    if runtime.workers <= 1 or nanoseconds < runtime.least:
        return False
    if runtime.in_parallel != 0 and asks(runtime.in_parallel) != 0:
        return False
    if runtime.owed > 0:
        return False
    if nanoseconds >= runtime.sure:
        return True
    if now == 0:  # nobody can say what the time is
        return nanoseconds >= TEAM_NANOSECONDS
    ready = nanoseconds >= runtime.worth or are_awake(runtime, now)
    if not ready and runtime.alone < WORTH << min(runtime.slow, MOST_DOUBLED):
        return False
    return favours_a_team(runtime.trial, now, kind, nanoseconds)


@inner
def note_alone(runtime, began):
    """One worker, who began at so many cycles, is done with a job."""
    now = cycles()
    if runtime.owed > 0:
        runtime.owed -= now - began
    runtime.alone = max(0, runtime.alone - (began - runtime.noted) // 8) + now - began
    runtime.noted = now
    note(runtime.trial, began, now)


@inner
def note_team(runtime, began, nanoseconds):
    """A team that began at so many cycles is done with a job of so many nanoseconds."""
    now = cycles()
    note(runtime.trial, began, now)
    taken, runtime.alone = now - began, np.int64(0)
    if taken < LONGER + 2 * CYCLES * nanoseconds:
        runtime.slow, runtime.ended = np.int64(0), now
    elif nanoseconds < runtime.worth and are_awake(runtime, began):
        runtime.slow, runtime.ended = runtime.slow + 1, np.int64(0)
    else:
        runtime.ended = now
    if taken < LATE_CYCLES + CYCLES * nanoseconds:
        runtime.debt = 0
    else:
        runtime.debt = min(max(2 * runtime.debt, FIRST_DEBT, 4 * taken), LONGEST_DEBT)
        runtime.owed = runtime.debt


def _question() -> int:
    """The address of what says whether a parallel region runs, or 0 where the threading layer does not mind
    or cannot say."""
    if team.threading_layer() != "omp":
        return 0
    pool = ctypes.CDLL(importlib.import_module("numba.np.ufunc.omppool").__file__)
    return int(ctypes.cast(pool.omp_in_parallel, ctypes.c_void_p).value or 0)


@cache
def _memory() -> NDArray[np.int64]:
    return np.zeros(size_of(Runtime) // 8, np.int64)


@cache
def runtime() -> int:
    """The address of the process's `Runtime`, filled in; threads start."""
    memory = _memory()
    table = at(Runtime, memory.ctypes.data)
    table.workers = 1
    if team.possible():
        numba.get_num_threads()  # starts them, so that the layer is known
        # Nested regions end the process in workqueue, and there is no way to know of one.
        if team.threading_layer() != "workqueue":
            table.in_parallel = _question()
            table.parallel_for = address_of_symbol("numba_parallel_for")
            table.threads = address_of_symbol("get_num_threads")
            table.workers = int(numba.config.NUMBA_NUM_THREADS)
            table.least, table.worth = min(FOR_EACH * table.workers, TEAM_NANOSECONDS), WORTH_NANOSECONDS
            table.sure = SURE_NANOSECONDS
    return int(memory.ctypes.data)


def state() -> str:
    """Whether jobs get teams at the moment, for people."""
    table = at(Runtime, _memory().ctypes.data)
    if table.workers <= 1:
        return "none" if table.workers else "not started yet"
    if table.owed > 0:
        return "none for a moment: the last one was late"
    least = table.sure if table.trial.lost else table.least
    why = ", one core was faster when both were tried" if table.trial.lost else ""
    return f"for jobs of {least / 1000:g} us and more{why}"


def forked() -> None:
    """In a child process, whose threads did not come along: everything is done alone."""
    at(Runtime, _memory().ctypes.data).workers = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)
