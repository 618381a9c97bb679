"""Threads of Python that work side by side meet, each on a core of its own, and wait until one of
them has begun.

What that one does before takes Python's lock. Two threads that both want it wake each other again and again;
and one that sleeps meanwhile may be woken on the core of the first, and stay there for milliseconds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import types

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.threads.team import arrivals_bytes, join, look_for


def _meet(arrivals, threads, begun):
    """begun : address of whether somebody has; 0: no need to wait for it."""
    join(arrivals, threads)
    if begun != 0:
        look_for(begun, 1)


@cache
def _meeting() -> Any:
    return jit.dispatcher(_meet, (types.int64, types.int64, types.int64))


class Meeting:
    """Of so many threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._arrivals, self._begun = np.zeros(arrivals_bytes(threads) // 8, np.int64), np.zeros(1, np.int64)

    def come(self) -> None:
        """Wait until all are there, but not for long."""
        _meeting()(data_at(self._arrivals), self._threads, 0)

    def come_and_wait(self) -> None:
        """The same, and then until one of them has begun: for some 5 to 10 ms at most."""
        _meeting()(data_at(self._arrivals), self._threads, data_at(self._begun))

    def begin(self) -> None:
        """Said by one of them."""
        self._begun[0] = 1
