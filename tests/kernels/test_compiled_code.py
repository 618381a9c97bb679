"""fastbp.kernels in the user's own compiled code: within prange, from a cache, after a change of fastbp."""

import pathlib
import subprocess
import sys

import numba
import numpy as np
import pytest
from numba import njit, prange
from numba.core.runtime import _nrt_python, rtsys

from fastbp import kernels
from fastbp.engine.compile.cache import source_digest
from fastbp.engine.compile.struct import at
from fastbp.engine.threads.runtime import Runtime, runtime

MODULE = """
from numba import njit
from fastbp import kernels

@njit(cache=True)
def inner(X, W):
    return kernels.relu(kernels.matmul(X, W))

@njit(cache=True)
def outer(X, W):
    return inner(X, W).sum()
"""
PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np, mine
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2
f = getattr(mine, {name!r})
result = f(X, np.eye(3, dtype=np.float32))
print(float(np.sum(result)), sum(f.stats.cache_hits.values()), sum(f.stats.cache_misses.values()))
print(f.stats.cache_path)
"""


def run(folder, name):
    """What a process of its own finds: the result, how often code came from the cache or did not, and where
    that is."""
    code = PROGRAM.format(folder=str(folder), name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    numbers, cache = done.stdout.splitlines()
    result, hits, misses = numbers.split()
    return float(result), int(hits), int(misses), pathlib.Path(cache)


def test_processes_share_a_cache_and_notice_another_version(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)
    *found, cache = run(tmp_path, "inner")
    assert found == [6.0, 0, 1]
    assert run(tmp_path, "inner") == (6.0, 1, 0, cache)
    # outer is compiled with an inner that came from the cache, and then comes from there without it
    assert run(tmp_path, "outer") == (6.0, 0, 1, cache)
    assert run(tmp_path, "outer") == (6.0, 1, 0, cache)
    # Code that was compiled with another version of fastbp is compiled again, and kept.
    digest = source_digest().encode()
    found = [path for path in cache.glob("mine.*.nbc") if digest in path.read_bytes()]
    assert len(found) == 2
    for path in found:
        path.write_bytes(path.read_bytes().replace(digest, b"0" * len(digest)))
    assert run(tmp_path, "outer") == (6.0, 0, 1, cache)
    assert run(tmp_path, "outer") == (6.0, 1, 0, cache)


@njit
def _product(A, B, out):
    return kernels.matmul(A, B, out)


@njit(parallel=True)
def _products(A, B, out):
    for i in prange(A.shape[0]):
        kernels.matmul(A[i], B, out[i])


def test_in_the_users_parallel_loop():
    """There everything is done alone, also what is large enough for a team."""
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((6, 200, 300)), rng.standard_normal((300, 200))
    out = np.empty((6, 200, 200))
    _products(A, B, out)
    for one, product in zip(A, out, strict=True):
        assert kernels.matmul(one, B).tobytes() == product.tobytes()


def test_after_a_late_team_jobs_are_done_alone_for_a_while():
    z = np.random.default_rng(0).standard_normal(1_000_000)
    want = kernels.relu(z).tobytes()
    table = at(Runtime, runtime())
    if table.workers == 1:
        pytest.skip("there is no team")
    part, table.part = table.part, 0  # whoever started a team now would crash
    table.owed = owed = 1 << 60
    assert kernels.relu(z).tobytes() == want
    assert 0 < table.owed < owed  # less by what that took
    table.part, table.owed = part, 0
    assert kernels.relu(z).tobytes() == want


@njit
def relu_into(z, out):
    return kernels.relu(z, out)


@njit
def of_temporaries(z):
    return kernels.relu_mask(kernels.relu(z + 1), kernels.sigmoid(z))


def test_no_array_is_lost_or_kept():
    """Kernels hold no references of their arguments, and hand one of the result over."""
    z, out = np.arange(-3.0, 3), np.empty(6)
    before = sys.getrefcount(z), sys.getrefcount(out)
    for function in (kernels.relu, relu_into):
        got = function(z, out)
        assert np.shares_memory(got, out)
        np.testing.assert_array_equal(got, np.maximum(z, 0))
        del got
        assert (sys.getrefcount(z), sys.getrefcount(out)) == before, function
    with pytest.raises(ValueError, match="out has shape"):
        kernels.relu(z, out[:5])
    assert (sys.getrefcount(z), sys.getrefcount(out)) == before
    np.testing.assert_array_equal(of_temporaries(z), np.maximum(z + 1, 0))
    _nrt_python.memsys_enable_stats()
    try:
        made = rtsys.get_allocation_stats()
        for _ in range(5):
            of_temporaries(z)
        now = rtsys.get_allocation_stats()
    finally:
        _nrt_python.memsys_disable_stats()
    assert now.alloc > made.alloc and now.alloc - made.alloc == now.free - made.free


def test_errors_come_out_of_compiled_code():
    with pytest.raises(ValueError, match=r"A has shape \(2, 3\), B has shape \(2, 3\)"):
        _product(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 2)))
    with pytest.raises(numba.TypingError, match="B is in F order"):
        _product(np.ones((3, 3)), np.ones((3, 3), order="F"), np.ones((3, 3)))


FORK = """
import os, numpy as np
from fastbp import kernels
A = np.random.default_rng(0).standard_normal((300, 300))
want = kernels.matmul(A, A).tobytes()
child = os.fork()
if child == 0:
    os._exit(0 if kernels.matmul(A, A).tobytes() == want else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_in_a_forked_process():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)
