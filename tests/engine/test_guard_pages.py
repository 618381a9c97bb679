"""No byte outside an array is read or written: arrays lie between pages without access."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
from processes import AVX2, GENERIC, avx2_beside_more, on_linux, on_x86, python

PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "guard_pages.py"
# Cases of a run; for a longer search: FASTBP_GUARDED_CASES=5000 pytest tests/engine/test_guard_pages.py
CASES = int(os.environ.get("FASTBP_GUARDED_CASES", "150"))

pytestmark = on_linux


@pytest.mark.parametrize(
    ("environment", "side"),
    [
        pytest.param({}, "after", id="after"),
        pytest.param({}, "before", id="before"),
        pytest.param(AVX2, "after", id="avx2", marks=[on_x86, avx2_beside_more, pytest.mark.slow]),
        pytest.param(GENERIC, "after", id="generic", marks=[on_x86, pytest.mark.slow]),
    ],
)
def test_nothing_outside_an_array_is_touched(environment, side):
    """All entries in random cases: a child that reads a byte too many dies."""
    cases = CASES // 2 if environment else CASES  # what such a CPU compiles nobody else has use for
    *_, last = python(PROGRAM, side, cases, len(environment), **environment).splitlines()
    print(last)
    counts = {name: int(count) for name, count in (item.split("=") for item in last.split())}
    allocations, refused = counts.pop("allocations"), counts.pop("refused")
    assert sum(counts.values()) + refused == cases
    assert all(counts.values()) and refused < cases / 20
    assert allocations > 20 * cases


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
    env = {**os.environ, "PYTHONPATH": str(PROGRAM.parent)}
    child = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert child.returncode == (-signal.SIGSEGV if fault else 0), child.stderr
