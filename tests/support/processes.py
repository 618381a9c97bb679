"""Python processes of their own, other CPUs and threading layers: Numba decides these things once."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

import fastbp
import fastbp.reference

SUPPORT = pathlib.Path(__file__).parents[1] / "support"
PACKAGE = pathlib.Path(fastbp.__file__).parent
GUARD_PAGES = SUPPORT.parent / "programs" / "guard_pages.py"
# Cases of a run; for a longer search: FASTBP_GUARDED_CASES=5000 pytest tests/engine/test_guard_pages.py
GUARDED_CASES = int(os.environ.get("FASTBP_GUARDED_CASES", "150"))
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx8,+cx16,+cmov,+fxsr,+mmx,"
    "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
}
PAIRS = {
    "NUMBA_CPU_NAME": "cooperlake",
    "NUMBA_CPU_FEATURES": f"{AVX2['NUMBA_CPU_FEATURES']},+avx512f,+avx512cd,+avx512bw,+avx512dq,+avx512vl,"
    "+avx512bf16",
}
GENERIC = {"NUMBA_CPU_NAME": "generic"}
WORKQUEUE = {"NUMBA_THREADING_LAYER": "workqueue"}
NO_JIT = {"NUMBA_DISABLE_JIT": "1"}

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 CPUs")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def python(*arguments, cwd=None, timeout=900, **environment):
    """What a new Python prints; it must end well."""
    defaults = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    env = {k: v for k, v in {**defaults, **environment}.items() if v is not None}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


def assert_nothing_outside_is_touched(side, cases=GUARDED_CASES, seed=0, **environment):
    """All entries in random cases: a child that reads a byte too many dies."""
    *_, last = python(GUARD_PAGES, side, cases, seed, **environment).splitlines()
    print(last)
    counts = {name: int(count) for name, count in (item.split("=") for item in last.split())}
    allocations, refused = counts.pop("allocations"), counts.pop("refused")
    assert sum(counts.values()) + refused == cases
    assert all(counts.values()) and refused < cases / 20
    assert allocations > 20 * cases


def host_has(*features):
    from llvmlite.binding import get_host_cpu_features

    host = get_host_cpu_features()
    return all(host.get(f) for f in features)


# Where AVX2 is all that there is, every test is one of AVX2.
avx2_beside_more = pytest.mark.skipif(
    not host_has("avx2", "fma", "avx512f"), reason="this CPU has no AVX2, or nothing wider"
)
tiles_beside_pairs = pytest.mark.skipif(
    not host_has("avx512bf16", "amx-tile", "amx-bf16"), reason="this CPU has no AMX"
)
