"""Long work that is done in a thread of its own, so that the thread that waits for it hears Ctrl-C.

Only the main thread is told of signals, and only between two of its bytecodes: during a call into compiled
code it hears nothing. So another thread does the work, while this one sleeps and wakes. It must not return
before the work is over, since the arrays that the work reads and writes are released by whoever called, and a
signal handler may raise an exception at any moment, also while an earlier one is being dealt with. Therefore
the last thing that it does is a single call of compiled code, in which no handler runs.

`Thread.join` and `Event.wait` will not do: an interrupted `join(timeout)` marks a live thread as finished
(Python 3.11, 3.12), and an interrupted `wait` may keep the event's own lock.
"""

from __future__ import annotations

import _thread
import ctypes
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import observe, yield_core

# How long the waiting thread sleeps at most: it looks whether the work is over, and hears signals.
LOOK_SECONDS = 0.05


def _await(flag: Any) -> None:
    while observe(flag) == 0:
        yield_core()


@cache
def _awaiting() -> Callable[[int], Any]:
    """Returns when the integer at the address that it is called with is not 0; other threads run meanwhile,
    signal handlers do not."""
    if config.DISABLE_JIT:  # for debuggers: then handlers do run

        def look(flag: int) -> None:
            while observe(flag) == 0:
                time.sleep(0.001)

        return look
    return ctypes.CFUNCTYPE(None, ctypes.c_int64)(jit.address_of("await", jit.void(1), lambda: _await))


def run(work: Callable[[], object], stop: NDArray[np.int64]) -> None:
    """Do the work in a new thread and return when it is over, whatever happens. What it raises is raised
    here.

    An exception that comes while waiting (KeyboardInterrupt, or whatever a signal handler raises) sets
    stop[0] to 1, which is to end the work early, and is raised after its end.
    """
    begin, asleep = _thread.allocate_lock(), _thread.allocate_lock()
    begin.acquire()
    asleep.acquire()
    wanted, over = [True], np.zeros(1, np.int64)
    over_at, wait = int(over.ctypes.data), _awaiting()
    errors: list[BaseException] = []

    def body() -> None:
        begin.acquire()
        try:
            if wanted[0]:
                work()
        except BaseException as error:
            errors.append(error)
        finally:
            over[0] = 1
            asleep.release()

    try:
        _thread.start_new_thread(body, ())
    except BaseException:  # it may have been started, and waits
        wanted[0] = False
        begin.release()
        raise
    try:
        begin.release()
        while not over[0]:
            asleep.acquire(timeout=LOOK_SECONDS)
    finally:  # handlers run after a call or a jump backwards: from here to the end of `wait` there is none
        if not over[0]:
            stop[0] = 1
            wait(over_at)
    if errors:
        raise errors[0]
