"""What kernels put into memory of their own stays there as long as it is read."""

import pytest
from processes import on_linux, python

# glibc writes over memory that is freed. Numba frees an array behind the last use of its name: too early for
# who has its address only.
PROGRAM = """
import numpy as np
from numba import njit
from fastbp import kernels

rng = np.random.default_rng(0)
def some(*shape):
    return rng.standard_normal(shape).astype({dtype!r})

@njit
def sums(delta):
    return kernels.bias_sums(delta)

def agree(name, got, expected):
    assert np.allclose(got, expected, atol=1e-3), (name, got.shape, abs(got - expected).max())

for rows, columns in ((513, 40), (1700, 3), (1700, 40), (5000, 7), (4096, 300)):
    delta = some(rows, columns)
    agree("bias_sums", kernels.bias_sums(delta), delta.sum(axis=0))
    agree("compiled bias_sums", sums(delta), delta.sum(axis=0))
for rows, columns in ((40, 13), (300, 129)):
    z = some(rows, columns)
    e = np.exp(z - z.max(axis=1, keepdims=True))
    agree("softmax", kernels.softmax(z), e / e.sum(axis=1, keepdims=True))
for rows, depth, columns in ((50, 300, 3), (3, 40, 5), (64, 700, 130), (200, 90, 33)):
    a, b = some(rows, depth), some(depth, columns)
    agree("matmul", kernels.matmul(a, b), a @ b)
    agree("matmul_at_b", kernels.matmul_at_b(a.T.copy(), b), a @ b)
    agree("matmul_a_bt", kernels.matmul_a_bt(a, b.T.copy()), a @ b)
"""


@on_linux
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_is_not_freed_while_it_is_read(dtype):
    python("-c", PROGRAM.format(dtype=dtype), MALLOC_PERTURB_="165", NUMBA_NUM_THREADS="2")
