"""Callbacks that one line makes, compiled by several processes into one cache.

python names_of_callbacks.py NAME ...     compile or load all, and print what each writes
"""

import ctypes
import sys

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.simd import emit
from fastbp.engine.simd.vector import I64


def writes(number):
    """The address of a callback that writes this number."""

    def code(b, args):
        b.store(I64(number), b.inttoptr(args[0], I64.as_pointer()))

    return emit.compile_block(f"test-writes-{number}", "float32", 1, code)


jit.ahead(lambda: [writes(int(name)) for name in sys.argv[1:]])  # all are there before one is asked for
for name in sys.argv[1:]:
    found = np.zeros(1, np.int64)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(writes(int(name)))(data_at(found))
    print(found[0])
