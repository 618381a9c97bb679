"""The engine's hot loops as functions of C-ordered arrays, for Python and for anybody's compiled code.

Each is a compiled function that may be called from Python, from `@njit` functions (also with `cache=True`)
and within their `prange`. Large arrays are worked on by a team of threads, small ones alone; within somebody
else's parallel region everything is done alone. The bits do not depend on it. Nothing is compiled before the
first call. See fastbp/kernels/README.md.
"""

from fastbp.kernels.elementwise import bias_sums, relu, relu_mask, sigmoid, sigmoid_derivative
from fastbp.kernels.products import matmul, matmul_a_bt, matmul_at_b, matmul_bias

__all__ = [
    "bias_sums",
    "matmul",
    "matmul_a_bt",
    "matmul_at_b",
    "matmul_bias",
    "relu",
    "relu_mask",
    "sigmoid",
    "sigmoid_derivative",
]
