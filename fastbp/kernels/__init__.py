"""The engine's hot loops as functions of C-ordered arrays, for Python and for anybody's compiled code.

Each is a compiled function that may be called from Python, from `@njit` functions (also with `cache=True`)
and within their `prange`. Large arrays are worked on by a team of threads, small ones alone; within somebody
else's parallel region everything is done alone. The bits do not depend on it. Nothing is compiled before the
first call. See fastbp/kernels/README.md.
"""

from fastbp.kernels.activations import (
    elu,
    elu_derivative,
    exp,
    gelu,
    gelu_derivative,
    gelu_tanh,
    gelu_tanh_derivative,
    identity,
    identity_derivative,
    leaky_relu,
    leaky_relu_derivative,
    mish,
    mish_derivative,
    mse_sigmoid_error,
    relu,
    selu,
    selu_derivative,
    sigmoid,
    silu,
    silu_derivative,
    softmax,
    softplus,
    softplus_derivative,
    tanh,
    tanh_derivative,
)
from fastbp.kernels.elementwise import bias_sums, relu_mask, sgd_step, sigmoid_derivative
from fastbp.kernels.products import matmul, matmul_a_bt, matmul_at_b, matmul_bias

__all__ = [
    "bias_sums",
    "elu",
    "elu_derivative",
    "exp",
    "gelu",
    "gelu_derivative",
    "gelu_tanh",
    "gelu_tanh_derivative",
    "identity",
    "identity_derivative",
    "leaky_relu",
    "leaky_relu_derivative",
    "matmul",
    "matmul_a_bt",
    "matmul_at_b",
    "matmul_bias",
    "mish",
    "mish_derivative",
    "mse_sigmoid_error",
    "relu",
    "relu_mask",
    "selu",
    "selu_derivative",
    "sgd_step",
    "sigmoid",
    "sigmoid_derivative",
    "silu",
    "silu_derivative",
    "softmax",
    "softplus",
    "softplus_derivative",
    "tanh",
    "tanh_derivative",
]
