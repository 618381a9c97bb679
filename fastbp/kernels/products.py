"""Products of matrices, by the microkernel of fastbp/engine."""

from __future__ import annotations

from typing import Any

from fastbp.engine.compile import jit
from fastbp.engine.entries.products import A_TRANSPOSED, B_TRANSPOSED, PLAIN
from fastbp.kernels.arguments import ShapeError, address, check, kernel, lanes, no_overlap, result, span
from fastbp.kernels.linking import run

# Where B is transposed and A has up to so many rows, dot products read B as it lies: to transpose it would
# take as long as the product.
FEW_ROWS = 12
# Products of one core in a nanosecond, about: for the choice whether a team pays.
SPEED = 16
# Of fewer columns than a vector has lanes, so many products take less time than to enter the engine.
TINY = 64


@jit.inner
def _is_tiny(like: Any, rows: Any, depth: Any, columns: Any) -> Any:
    return columns < lanes(like) and rows * depth * columns <= TINY


@jit.inner
def _tiny(A: Any, B: Any, C: Any) -> None:
    """C += A @ B."""
    for i in range(C.shape[0]):
        for j in range(C.shape[1]):
            total = C[i, j]
            for k in range(A.shape[1]):
                total += A[i, k] * B[k, j]
            C[i, j] = total


@jit.inner_with_objects
def _plain(A: Any, B: Any, bias: Any, C: Any) -> None:
    """C = A @ B + bias; bias: an address, or 0."""
    rows, depth, columns = A.shape[0], A.shape[1], B.shape[1]
    if rows == 0:
        return
    numbers = (PLAIN, address(A), address(B), bias, address(C), rows, depth, columns)
    if columns < lanes(A):
        run("dots", A, rows * depth * columns // SPEED, numbers)
    else:
        run("product", A, rows * depth * columns // SPEED, numbers)


@kernel
def matmul(A: Any, B: Any, out: Any = None) -> Any:
    """A @ B.

    A: (m, k); B: (k, n), of one dtype, float32 or float64, both C-ordered. out: (m, n), for the result; it
    may not share memory with A or B. Returns out, or a new array. Each number is one chain of multiply-adds
    in the order of k; for fewer columns than a vector has lanes, of partial sums along k, or in tiny
    products of products that are rounded before they are added.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `np.matmul(A, B, out=out)`.
    """
    check("A", A, 2, A)
    check("B", B, 2, A)
    if A.shape[1] != B.shape[0]:
        raise ShapeError(
            "A has shape %s, B has shape %s: A's columns must be as many as B's rows", A.shape, B.shape
        )
    C = result(out, (A.shape[0], B.shape[1]), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    if _is_tiny(A, A.shape[0], A.shape[1], B.shape[1]):
        C[:] = 0
        _tiny(A, B, C)
    else:
        _plain(A, B, 0, C)
    return C


@kernel
def matmul_bias(X: Any, W: Any, b: Any, out: Any = None) -> Any:
    """X @ W + b: the forward pass of a layer.

    X: (batch, fan_in); W: (fan_in, fan_out); b: (fan_out,), of one dtype, float32 or float64, all C-ordered.
    out: (batch, fan_out), for the result; it may not share memory with X, W or b. Returns out, or a new
    array. The sums start from b.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `X @ W + b`.
    """
    check("X", X, 2, X)
    check("W", W, 2, X)
    check("b", b, 1, X)
    if X.shape[1] != W.shape[0] or b.shape[0] != W.shape[1]:
        raise ShapeError(
            "X has shape %s, W has shape %s, b has shape %s: X's columns must be as many as W's rows, "
            "b's numbers as W's columns",
            X.shape,
            W.shape,
            b.shape,
        )
    Z = result(out, (X.shape[0], W.shape[1]), X)
    no_overlap(span(out), span(X))
    no_overlap(span(out), span(W))
    no_overlap(span(out), span(b))
    if _is_tiny(X, X.shape[0], X.shape[1], W.shape[1]):
        Z[:] = b
        _tiny(X, W, Z)
    else:
        _plain(X, W, address(b), Z)
    return Z


@kernel
def matmul_at_b(A: Any, B: Any, out: Any = None) -> Any:
    """A.T @ B: the gradient of a layer's weights, with A its inputs and B its deltas.

    A: (batch, fan_in); B: (batch, fan_out), of one dtype, float32 or float64, both C-ordered. out: (fan_in,
    fan_out), for the result; it may not share memory with A or B. Returns out, or a new array.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `A.T @ B`.
    """
    check("A", A, 2, A)
    check("B", B, 2, A)
    depth, rows, columns = A.shape[0], A.shape[1], B.shape[1]
    if B.shape[0] != depth:
        raise ShapeError("A has shape %s, B has shape %s: they must have as many rows", A.shape, B.shape)
    C = result(out, (rows, columns), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    if _is_tiny(A, rows, depth, columns):
        C[:] = 0
        _tiny(A.T, B, C)
    elif rows > 0:
        numbers = (A_TRANSPOSED, address(A), address(B), 0, address(C), rows, depth, columns)
        if columns < lanes(A):
            run("transposed_product", A, rows * depth * columns // SPEED, numbers)
        else:
            run("product_at_b", A, rows * depth * columns // SPEED, numbers)
    return C


@kernel
def matmul_a_bt(A: Any, B: Any, out: Any = None) -> Any:
    """A @ B.T: the deltas of the layer below, with A those of a layer and B its weights.

    A: (batch, fan_out); B: (fan_in, fan_out), of one dtype, float32 or float64, both C-ordered. out: (batch,
    fan_in), for the result; it may not share memory with A or B. Returns out, or a new array. Each number is
    one chain of multiply-adds in the order of k; for up to 12 rows of A, and as in `matmul` for few columns,
    of partial sums along k.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `A @ B.T`.
    """
    check("A", A, 2, A)
    check("B", B, 2, A)
    rows, depth, columns = A.shape[0], A.shape[1], B.shape[0]
    if B.shape[1] != depth:
        raise ShapeError("A has shape %s, B has shape %s: they must have as many columns", A.shape, B.shape)
    C = result(out, (rows, columns), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    if _is_tiny(A, rows, depth, columns):
        C[:] = 0
        _tiny(A, B.T, C)
    elif rows > 0:
        numbers = (B_TRANSPOSED, address(A), address(B), 0, address(C), rows, depth, columns)
        if columns < lanes(A) or rows <= FEW_ROWS:
            run("dots", A, rows * depth * columns // SPEED, numbers)
        else:
            run("product_a_bt", A, rows * depth * columns // SPEED, numbers)
    return C
