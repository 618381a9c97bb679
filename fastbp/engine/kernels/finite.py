"""Whether an array is finite: for compiled code that has it as an array, and for Python."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import int64
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.jit import call
from fastbp.engine.kernels import blocks
from fastbp.engine.worker.step import inner

Array = NDArray[Any]


@inner
def all_finite(finite, array, bad):
    """finite: the address of blocks.not_finite; bad: room for one integer."""
    call(finite, (array.ctypes.data, array.size, bad.ctypes.data))
    return bad[0] == 0


def _all_finite(finite, address, size, bad):
    call(finite, (address, size, bad.ctypes.data))


@cache
def _all_finite_entry() -> Any:
    return jit.dispatcher(_all_finite, (int64, int64, int64, int64[::1]))


@cache
def _finite(dtype: np.dtype[Any]) -> int:
    return blocks.not_finite(dtype.name)


def is_finite(array: Array) -> bool:
    """Whether a C-ordered array holds neither NaN nor infinity; in half the time of NumPy's sum."""
    bad = np.zeros(1, np.int64)
    _all_finite_entry()(_finite(array.dtype), array.ctypes.data, array.size, bad)
    return not bad[0]
