"""No byte outside an array is read or written: arrays lie between pages without access."""

import os
import signal
import subprocess
import sys

import pytest
from processes import GUARD_PAGES, assert_nothing_outside_is_touched, on_linux

pytestmark = on_linux


@pytest.mark.parametrize("side", ["after", "before"])
def test_nothing_outside_an_array_is_touched(side):
    """For other CPUs see test_other_cpus, which has compiled for them."""
    assert_nothing_outside_is_touched(side)


@pytest.mark.parametrize(
    ("side", "place", "fault"),
    [
        *[("after", place, place == "8 * x.size") for place in ("8 * x.size - 1", "8 * x.size")],
        *[("before", place, place == "-1") for place in ("0", "-1")],
    ],
)
def test_a_byte_too_many_is_noticed(side, place, fault):
    """A test of the test: NumPy's arrays lie where they should."""
    code = f"""
import ctypes, numpy as np, guard_pages
guarded = guard_pages.Guarded("{side}")
with guarded():
    x = np.ones(13)
    y = np.concatenate([x, x])
ctypes.c_uint8.from_address(y.ctypes.data).value
x = y
ctypes.c_uint8.from_address(x.ctypes.data + {place}).value
print("read", flush=True)
guard_pages.os._exit(0)
"""
    env = {**os.environ, "PYTHONPATH": str(GUARD_PAGES.parent)}
    child = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert child.returncode == (-signal.SIGSEGV if fault else 0), child.stderr
