"""Functions that callbacks are compiled with are theirs alone."""

import pytest
from numba import config, njit

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, observe, publish, room


@jit.inner
def mixed(no_use, n):
    """Too long to become part of each of two callers."""
    for _ in range(n % 5 + 1):
        n = n * 3 + (n >> 5) if n % 7 < 3 else n // 5 + 11
        n = n * 5 + (n >> 4) if n % 11 < 5 else n // 3 + 13
        n = n * 7 + (n >> 3) if n % 13 < 4 else n // 9 + 17
        n = n * 9 + (n >> 2) if n % 17 < 7 else n // 7 + 19
        n = n * 3 + (n >> 7) if n % 19 < 8 else n // 6 + 23
        n = n * 5 + (n >> 6) if n % 23 < 9 else n // 11 + 29
        n = n * 7 + (n >> 9) if n % 29 < 9 else n // 10 + 31
    return n


def _callback(first, out):
    publish(out, mixed(first, first) - mixed(first, first + 1))


@njit
def by_callback(address, first):
    out = room()
    call(address, (first, out))
    return observe(out)


@njit
def by_themselves(no_use, first):
    return mixed(no_use, first) - mixed(no_use, first + 1)


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_others_do_not_call_what_became_of_a_function_in_a_callback():
    """There LLVM drops arguments of no use, and the loader knows functions by their names alone."""
    address = jit.address_of("test-linked", jit.void(2), lambda: _callback, driver=True)
    want = mixed.py_func(0, 27) - mixed.py_func(0, 28)
    assert by_callback(address, 27) == by_themselves(0, 27) == want
