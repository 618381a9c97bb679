"""Runs engine_bits.py in a process of its own and compares what it prints; calls one compiled callback; has
jobs of compiled code done by teams."""

import ctypes
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fastbp.engine.compile.struct import at
from fastbp.engine.threads.runtime import Runtime, runtime

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


@contextmanager
def teams_for_all() -> Iterator[Runtime]:
    """A context in which every job that asks gets a team, if there is one at all; else that depends on its
    size and on what went before (fastbp/engine/threads/runtime.py)."""
    table = at(Runtime, runtime())
    before = table.least, table.worth, table.sure, table.owed
    table.least = table.worth = table.sure = table.owed = 0
    try:
        yield table
    finally:
        table.least, table.worth, table.sure, table.owed = before
