"""Runs engine_bits.py in a process of its own and compares what it prints; calls one compiled callback."""

import ctypes
import os
import pathlib
import subprocess
import sys

import numpy as np

BITS = pathlib.Path(__file__).with_name("engine_bits.py")
rng_of = np.random.default_rng


def run_bits(every, **environment):
    """{way of working: (digest, size of the team)} of engine_bits.py in a new process."""
    result = subprocess.run(
        [sys.executable, "-W", "error", BITS, str(every)],
        env={**os.environ, "NUMBA_NUM_THREADS": "4", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return {name: (digest, int(team)) for name, digest, team in map(str.split, result.stdout.splitlines())}


def assert_same_bits(results):
    assert len({digest for digest, _ in results.values()}) == 1, results
    for name, (_, team) in results.items():
        assert not name.startswith("threads") or name == f"threads-{team}"  # there were so many


def callback(address, count):
    """The compiled callback of `count` integers at that address, for Python."""
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)
