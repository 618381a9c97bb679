"""The ReLU's mask, the Sigmoid's derivative, SGD's step, and sums over rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.uncounted import counted, uncounted, view
from fastbp.engine.entries.flat import NO_SCALAR
from fastbp.kernels.arguments import (
    address,
    alike,
    bits,
    check,
    kernel,
    lanes,
    no_overlap,
    result,
    span,
)
from fastbp.kernels.linking import run
from fastbp.kernels.numbers import SIMPLE, number_by_number

# What a byte of sums takes one core, see numbers.py.
OF_SUMS = 14
# Rows that are added up before their sums are.
SUMS_BLOCK = 512
# Numbers whose sums take less time than to enter the engine.
FEW = 256


@kernel
def relu_mask(delta: Any, z: Any, out: Any = None) -> Any:
    """delta where z > 0, else 0: the deltas of a ReLU layer. (The value a = relu(z) does as well as z.)

    delta, z: C-ordered, of one dtype, float32 or float64, and of one shape. out: of the same shape, for the
    result; it may be delta or z. Returns out, or a new array.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays
    (TypingError in compiled code).

    NumPy: `delta * (z > 0)`.
    """
    check("delta", delta, 0, delta)
    check("z", z, 0, delta)
    delta, z, out = uncounted(delta), uncounted(z), uncounted(out)
    alike("delta and z have shapes %s and %s: they must be the same", delta, z)
    return counted(number_by_number("relu_mask", SIMPLE, delta, z, None, out, NO_SCALAR))


@kernel
def sigmoid_derivative(delta: Any, y: Any, out: Any = None) -> Any:
    """delta * y * (1 - y), with y = sigmoid(z): the deltas of a sigmoid layer.

    delta, y: C-ordered, of one dtype, float32 or float64, and of one shape. out: of the same shape, for the
    result; it may be delta or y. Returns out, or a new array.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays
    (TypingError in compiled code).

    NumPy: `delta * (y * (1 - y))`.
    """
    check("delta", delta, 0, delta)
    check("y", y, 0, delta)
    delta, y, out = uncounted(delta), uncounted(y), uncounted(out)
    alike("delta and y have shapes %s and %s: they must be the same", delta, y)
    return counted(number_by_number("sigmoid_derivative", SIMPLE, delta, y, None, out, NO_SCALAR))


@kernel
def sgd_step(w: Any, gradient: Any, lr: Any, out: Any = None) -> Any:
    """w - lr * gradient: parameters after a step of stochastic gradient descent.

    w, gradient: C-ordered, of one dtype, float32 or float64, and of one shape. lr: the learning rate, a real
    number, which is rounded to that dtype. out: of the same shape, for the result; it may be w or gradient.
    Returns out, or a new array. NumPy's bits.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays or no
    number (TypingError in compiled code).

    NumPy: `w - lr * gradient`; with out=w: `w -= lr * gradient`.
    """
    check("w", w, 0, w)
    check("gradient", gradient, 0, w)
    rate = bits("lr", lr)
    w, gradient, out = uncounted(w), uncounted(gradient), uncounted(out)
    alike("w and gradient have shapes %s and %s: they must be the same", w, gradient)
    return counted(number_by_number("sgd_step", SIMPLE, w, gradient, None, out, rate))


@kernel
def bias_sums(delta: Any, out: Any = None) -> Any:
    """The sums of the columns: the gradient of a layer's biases.

    delta: (batch, units), C-ordered, float32 or float64. out: (units,), for the result; it may not share
    memory with delta. Returns out, or a new array. The order of the additions depends on the shape alone.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `delta.sum(axis=0)`.
    """
    check("delta", delta, 2, delta)
    delta, out = uncounted(delta), uncounted(out)
    rows, columns = delta.shape
    sums = result(out, (columns,), delta)
    no_overlap(span(out), span(delta))
    if rows == 0 or columns == 0:
        view(sums)[:] = 0
    elif columns >= lanes(delta):
        if rows * columns <= FEW:
            _few_sums(view(delta), view(sums))
        else:
            _sums(address(delta), rows, columns, address(sums), delta)
    else:
        _narrow_sums(view(delta), view(sums), delta)
    return counted(sums)


@jit.inner
def _sums(first: Any, rows: Any, columns: Any, sums: Any, like: Any) -> None:
    """Of at least as many columns as a vector has lanes; first, sums: addresses."""
    cost = rows * columns * like.itemsize * OF_SUMS >> 10
    blocks = (rows + SUMS_BLOCK - 1) // SUMS_BLOCK
    if blocks == 1:
        run("sums", like, cost, (first, sums, rows, columns, rows))
        return
    of_blocks = np.empty((blocks, columns), like.dtype)
    run("sums", like, cost, (first, address(of_blocks), rows, columns, SUMS_BLOCK))
    run("sums", like, 0, (address(of_blocks), sums, blocks, columns, blocks))
    of_blocks[0, 0] = 0  # which lives as long as it is used


@jit.inner
def _few_sums(delta: Any, sums: Any) -> None:
    """The same additions, four rows at a time, without entering the engine."""
    rows, columns = delta.shape
    for j in range(columns):
        sums[j] = 0
    i = 0
    while i + 4 <= rows:
        for j in range(columns):
            sums[j] += (delta[i, j] + delta[i + 1, j]) + (delta[i + 2, j] + delta[i + 3, j])
        i += 4
    while i < rows:
        for j in range(columns):
            sums[j] += delta[i, j]
        i += 1


@jit.inner
def _narrow_sums(delta: Any, sums: Any, like: Any) -> None:
    """Of fewer columns: as many rows as a vector has lanes are taken for one. like: delta."""
    rows, columns = delta.shape
    together = lanes(delta)
    count = rows // together
    for j in range(columns):
        sums[j] = 0
    if count < 4:  # the same additions without entering the engine
        for i in range(min(together, rows)):
            for j in range(columns):
                total = delta[i, j]
                for k in range(1, count):
                    total += delta[i + k * together, j]
                sums[j] += total
        first = max(count, 1) * together
    else:
        wide = np.empty(columns * together, delta.dtype)
        _sums(address(delta), count, columns * together, address(wide), like)
        for i in range(together):
            for j in range(columns):
                sums[j] += wide[i * columns + j]
        first = count * together
    for i in range(first, rows):
        for j in range(columns):
            sums[j] += delta[i, j]
