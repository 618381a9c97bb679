"""Calls from Python: arrays are borrowed, and no more is compiled than a call needs."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from fastbp import kernels


def test_no_reference_is_kept_or_lost():
    A, B, C = np.ones((4, 8)), np.ones((8, 16)), np.empty((4, 16))
    before = [sys.getrefcount(array) for array in (A, B, C)]
    for _ in range(100):
        assert kernels.matmul(A, B, C) is C
        assert kernels.relu(C, out=C) is C
        kernels.matmul(A, B)
        with pytest.raises(ValueError, match="must be as many"):
            kernels.matmul(A, C)
        with pytest.raises(ValueError, match="shares memory"):
            kernels.matmul(C, np.ones((16, 16)), C)
    assert [sys.getrefcount(array) for array in (A, B, C)] == before


def test_a_new_array_is_one_of_numpy_that_nobody_else_has():
    result = kernels.relu(np.ones((3, 5)))
    assert sys.getrefcount(result) == 2
    assert result.flags.owndata and result.flags.carray
    assert kernels.relu(np.ones(())).shape == () and kernels.relu(np.ones((0, 3))).shape == (0, 3)


def test_a_new_array_that_cannot_be_had_is_an_error():
    with pytest.raises(MemoryError):
        kernels.matmul(np.ones((10**8, 0)), np.ones((0, 10**8)))
    with pytest.raises(ValueError, match="too big"):
        kernels.matmul(np.ones((2**40, 0)), np.ones((0, 2**40)))
    assert kernels.matmul(np.ones((2, 0)), np.ones((0, 2))).tolist() == [[0, 0], [0, 0]]


OTHER_THREAD = """
import sys, threading, time
import numpy as np
from fastbp import kernels

turns, over = [], threading.Event()

def take_turns():
    while not over.is_set():
        turns.append(None)
        time.sleep(1e-4)

A = np.ones((700, 700))
out = kernels.matmul(A, A)
kernels.matmul(A, A, out)  # from now on nothing is compiled
sys.setswitchinterval(60)  # nobody takes the GIL from this thread
threading.Thread(target=take_turns).start()
before, calls = len(turns), 0
while len(turns) == before and calls < 20:
    kernels.matmul(A, A, out)
    calls += 1
print(len(turns) > before)
over.set()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_other_threads_work_during_a_long_call(threads):
    environment = {**os.environ, "NUMBA_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", OTHER_THREAD], capture_output=True, text=True, env=environment
    )
    assert done.stdout.split() == ["True"], done.stderr


@pytest.mark.parametrize("dtype", [">f8", "f2", "i4", "U1", "O", "M8"])
def test_arrays_of_other_numbers_are_refused(dtype):
    with pytest.raises(TypeError, match=r"relu: z .*: expected C-ordered arrays of float32"):
        kernels.relu(np.zeros(3, dtype))


def test_of_arrays_that_were_refused_once_others_are_too():
    """Numba remembers the type of what is misaligned whatever its byte order."""
    memory = np.zeros(33, np.uint8)
    for dtype in ("f8", ">f8"):
        with pytest.raises(TypeError):
            kernels.relu(memory[1:].view(dtype))
    assert kernels.relu(memory[:32].view("f8")).sum() == 0


FEW_THEN_MANY = r"""
import os, sys
import numpy as np
from fastbp import kernels

def compiled():
    names = (name for _, _, names in os.walk(sys.argv[1]) for name in names)
    return {name.rsplit("-", 2)[0] for name in names if name.startswith("fastbp-")}

kernels.relu(np.ones(100, np.float32))
few = compiled()
kernels.relu(np.ones(10_000_000, np.float32))
many = compiled()
print(sorted(few), sorted(many - few), sep='\n')
"""


def test_few_numbers_compile_nothing_of_the_engine(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", FEW_THEN_MANY, tmp_path],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    few, many = run.stdout.splitlines()
    assert few == "['fastbp-kernels-relu']"
    assert many == "['fastbp-flat-relu-float32', 'fastbp-kernels-elementwise', 'fastbp-kernels-launch']"


WAYS = r"""
import os, sys
import numpy as np
from fastbp import kernels

def compiled():
    names = (name for _, _, names in os.walk(sys.argv[1]) for name in names)
    return {name.rsplit("-", 2)[0] for name in names if name.startswith("fastbp-")}

A = np.ones((32, 32), np.float32)
kernels.matmul(A, A)
small = compiled()
print(sorted(small))
A = np.ones((512, 512), np.float32)
kernels.matmul(A, A)
print(sorted(compiled() - small - {"fastbp-kernels-part"}))  # (of several workers)
"""


def test_a_product_compiles_its_own_way_alone(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", WAYS, tmp_path],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    small, packed = run.stdout.splitlines()
    microkernel = "'fastbp-microkernel-k-prefetch-c-float32'"
    assert small == f"['fastbp-kernels-in-place', 'fastbp-kernels-matmul', {microkernel}]"
    copies = "'fastbp-columns-in-float32', 'fastbp-copy-in-float32'"
    body, packing = "'fastbp-kernels-launch', 'fastbp-kernels-packed'", "'fastbp-pack-panels-float32'"
    assert packed == f"[{copies}, {body}, {packing}, 'fastbp-transpose-float32']"


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_bits_are_those_of_calls_from_compiled_code(dtype):
    """Which know one way for all of them."""
    rng = np.random.default_rng(0)
    for rows, depth, columns in ((2, 60, 50), (9, 40, 100), (40, 30, 33), (70, 200, 90), (300, 16, 16)):
        A, B = (rng.standard_normal(shape).astype(dtype) for shape in ((rows, depth), (depth, columns)))
        AT = np.ascontiguousarray(A.T)
        assert np.array_equal(kernels.matmul(A, B), multiply(A, B))
        assert np.array_equal(kernels.matmul_at_b(AT, B), gradient(AT, B))


@njit
def multiply(A, B):
    return kernels.matmul(A, B)


@njit
def gradient(A, B):
    return kernels.matmul_at_b(A, B)
