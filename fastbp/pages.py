"""Memory for large arrays that live as long as a model, or as one of its fits.

A page of memory is given when it is first touched, which takes the system some 2 us for each 4 KB in a
virtual machine: the parameters of 784-256-10 in float64 and their two states, made anew for each fit, took
2.5 ms of 75. In pages of 2 MB that are 4 faults of 30 us.
"""

from __future__ import annotations

import contextlib
import mmap

import numpy as np
from numpy.typing import NDArray

LINE, PAGE, LARGE_PAGE = 64, 4096, 2 << 20
# Not every system knows large pages, or has any left; then pages are small.
_ADVICE: int | None = getattr(mmap, "MADV_HUGEPAGE", None)


def aligned(size: int) -> NDArray[np.uint8]:
    """So many bytes of zeros that begin on a cache line."""
    large = large_bytes(size)
    if large and _ADVICE is not None:
        return _in_large_pages(size, large)
    raw = np.zeros(size + LINE, np.uint8)
    start = -raw.ctypes.data % LINE
    return raw[start : start + size]


def large_bytes(size: int) -> int:
    """How many bytes in large pages, from the first one on, serve an array of so many: all, or where more
    than a quarter of the memory were in vain, all that fill pages; the rest is in small ones."""
    whole = -(-size // LARGE_PAGE) * LARGE_PAGE
    return whole if 4 * size >= 3 * whole else whole - LARGE_PAGE


def _in_large_pages(size: int, large: int) -> NDArray[np.uint8]:
    # What is before the first large page, and behind the array, nobody touches: it costs addresses only.
    memory = mmap.mmap(-1, max(size, large) + LARGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    raw = np.frombuffer(memory, np.uint8)
    start = -raw.ctypes.data % LARGE_PAGE
    assert _ADVICE is not None
    with contextlib.suppress(OSError):
        memory.madvise(_ADVICE, start, large)
    return raw[start : start + size]
