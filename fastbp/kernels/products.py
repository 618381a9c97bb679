"""Products of matrices, by the microkernel of fastbp/engine."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numba import config, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import allocate, release
from fastbp.engine.compile.uncounted import counted, uncounted
from fastbp.engine.entries.matrices.narrow_products import across_pays, narrow_pays
from fastbp.engine.entries.matrices.packed import A_TRANSPOSED, B_TRANSPOSED, PLAIN
from fastbp.engine.entries.matrices.products import (
    ANY_WAY,
    DOTS,
    PACKED,
    TURNED,
    VECTOR,
    before_of,
    rest_of,
    way_of,
    way_of_dots,
)
from fastbp.kernels.arguments import (
    ShapeError,
    address,
    check,
    kernel,
    lanes,
    masks,
    no_overlap,
    result,
    span,
    two_passes,
)
from fastbp.kernels.linking import run, run_one, run_product

# Bytes of products of one core in a nanosecond, about, of what it reads, and of what it turns: for the choice
# whether a team pays.
SPEED, READING, TURNING = 160, 32, 32
# How it is compiled that B is turned: as a function of its own. As a part of its callers it took registers
# that tiny products need (7 x 2 x 3 took 33 ns, and takes 20).
_apart = njit(**jit.INNER | {"forceinline": False})
# Of fewer columns than a vector has lanes, so many products take less time than to enter the engine, unless
# each waits for the one before.
TINY = 64


@intrinsic
def _tiny(typingctx: Any, like: Any, numbers: Any) -> Any:
    """In compiled code: a product of a few numbers, number by number. numbers: addresses of A, of the bias or
    0, of B and of C, which lies in rows; rows, depth, columns; the strides of A and of B, in numbers."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(signature.args[0].dtype)
        names = ("a", "bias", "b", "c", "rows", "depth", "columns", "a_row", "a_k", "b_k", "b_column")
        v = {name: builder.extract_value(values[1], i) for i, name in enumerate(names)}

        def at(base: str, *steps: Any) -> Any:
            first = builder.inttoptr(v[base], kind.as_pointer())
            return builder.gep(first, [functools.reduce(builder.add, steps)])

        def turns(name: str) -> Any:
            return cgutils.for_range(builder, v[name], intp=v[name].type)

        total = cgutils.alloca_once(builder, kind)
        has_bias = builder.icmp_signed("!=", v["bias"], v["bias"].type(0))
        with turns("rows") as row, turns("columns") as column:
            i, j = row.index, column.index
            builder.store(kind(0.0), total)
            with builder.if_then(has_bias):
                builder.store(builder.load(at("bias", j)), total)
            with turns("depth") as turn:
                a = at("a", builder.mul(i, v["a_row"]), builder.mul(turn.index, v["a_k"]))
                b = at("b", builder.mul(turn.index, v["b_k"]), builder.mul(j, v["b_column"]))
                product = builder.fmul(builder.load(a), builder.load(b))
                builder.store(builder.fadd(builder.load(total), product), total)
            builder.store(builder.load(total), at("c", builder.mul(i, v["columns"]), j))
        return context.get_dummy_value()

    return types.void(like, numbers), codegen


@jit.inner
def _is_tiny(like: Any, rows: Any, depth: Any, columns: Any) -> Any:
    few = columns < lanes(like) and depth <= TINY // 2 and rows * depth * columns <= TINY
    few = few and (columns > 1 or rows <= lanes(like))  # (see short_rows.py)
    return few and not config.DISABLE_JIT


@jit.inner
def _nanoseconds(like: Any, rows: Any, depth: Any, columns: Any) -> Any:
    """What a product takes one core, about."""
    read = (rows + columns) * depth
    return max(rows * depth * columns * like.itemsize // SPEED, read * like.itemsize // READING)


@jit.inner
def _few_columns(like: Any, addresses: Any, shape: Any, row: Any) -> None:
    """C = A @ B + bias, of fewer columns than a vector has lanes; addresses: of A, B, the bias or 0, and C;
    row: numbers from a row of B or C to the next."""
    (a, b, bias, c), (rows, depth, columns) = addresses, shape
    kind, which = PLAIN, 0
    # With one column B is the same, transposed.
    if row == 1 and way_of_dots(shape, lanes(like), two_passes()) == DOTS:
        kind, which = B_TRANSPOSED, 2
    elif columns > 1 and narrow_pays(depth, columns, lanes(like), masks()):
        which = 1
    numbers = (kind, a, b, bias, c, rows, depth, columns, row, 0)
    run_one("few_columns narrow dots", like, _nanoseconds(like, rows, depth, columns), numbers, which)


@jit.inner
def _plain(A: Any, B: Any, bias: Any, C: Any) -> None:
    """C = A @ B + bias; bias: an address, or 0."""
    rows, depth, columns = A.shape[0], A.shape[1], B.shape[1]
    if rows == 0:
        return
    if _is_tiny(A, rows, depth, columns):
        sizes, strides = (rows, depth, columns), (depth, 1, columns, 1)
        _tiny(A, (address(A), bias, address(B), address(C), *sizes, *strides))
        return
    _multiplied(A, (address(A), address(B), bias, address(C)), (rows, depth, columns))


@jit.inner
def _multiplied(A: Any, addresses: Any, shape: Any) -> None:
    """C = A @ B + bias; addresses: of A, B, the bias or 0, and C."""
    (a, b, bias, c), (rows, depth, columns), size = addresses, shape, np.int64(A.itemsize)
    rest = rest_of(PLAIN, (rows, depth, columns), lanes(A))
    whole = columns - rest
    if rest > 0:  # before the others: it may write what is theirs
        at = whole * size
        start = bias + at if bias != 0 else bias
        _few_columns(A, (a, b + at, start, c + at), (rows, depth, rest), columns)
    if whole > 0:
        way = way_of(PLAIN, (rows, depth, whole), lanes(A), size)
        before = before_of(way, (b, c), (rows, depth, columns), lanes(A), size)
        numbers = (PLAIN, a, b, bias, c, rows, depth, whole, columns, before)
        run_product("product", A, _nanoseconds(A, rows, depth, whole), numbers, way)


@kernel
def matmul(A: Any, B: Any, out: Any = None) -> Any:
    """A @ B.

    A: (m, k); B: (k, n), of one dtype, float32 or float64, both C-ordered. out: (m, n), for the result; it
    may not share memory with A or B. Returns out, or a new array. Each number is one chain of multiply-adds
    in the order of k; for fewer columns than a vector has lanes (or so many beyond whole vectors) it may be
    of partial sums along k, or in tiny products of products that are rounded before they are added.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `np.matmul(A, B, out=out)`.
    """
    check("A", A, 2, A)
    check("B", B, 2, A)
    A, B, out = uncounted(A), uncounted(B), uncounted(out)
    if A.shape[1] != B.shape[0]:
        raise ShapeError(
            "A has shape %s, B has shape %s: A's columns must be as many as B's rows", A.shape, B.shape
        )
    C = result(out, (A.shape[0], B.shape[1]), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    _plain(A, B, np.int64(0), C)
    return counted(C)


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
    X, W, b, out = uncounted(X), uncounted(W), uncounted(b), uncounted(out)
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
    _plain(X, W, address(b), Z)
    return counted(Z)


@jit.inner
def _transposed(like: Any, addresses: Any, shape: Any) -> None:
    """C = A.T @ B; addresses: of A, B and C; shape: rows, depth, columns of the product."""
    (a, b, c), (rows, depth, columns), size = addresses, shape, np.int64(like.itemsize)
    rest = rest_of(A_TRANSPOSED, shape, lanes(like))
    whole = columns - rest
    if rest > 0:  # before the others: it may write what is theirs
        nanoseconds = _nanoseconds(like, rows, depth, rest)
        of_b, to = b + whole * size, c + whole * size
        numbers = (A_TRANSPOSED, a, of_b, 0, to, rows, depth, rest, columns, 0)
        if rows == 1:
            _few_columns(like, (a, of_b, np.int64(0), to), (rows, depth, rest), columns)
        else:
            pays = rest == 1 or across_pays((rows, depth, rest), lanes(like), masks())
            across = np.int64(rows >= lanes(like) and pays)
            run_one("narrow_at_b across_at_b", like, nanoseconds, numbers, across)
    if whole > 0:
        way = way_of(A_TRANSPOSED, (rows, depth, whole), lanes(like), size)
        before = before_of(way, (b, c), shape, lanes(like), size)
        numbers = (A_TRANSPOSED, a, b, 0, c, rows, depth, whole, columns, before)
        run_product("product_at_b", like, _nanoseconds(like, rows, depth, whole), numbers, way)


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
    A, B, out = uncounted(A), uncounted(B), uncounted(out)
    depth, rows, columns = A.shape[0], A.shape[1], B.shape[1]
    if B.shape[0] != depth:
        raise ShapeError("A has shape %s, B has shape %s: they must have as many rows", A.shape, B.shape)
    C = result(out, (rows, columns), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    a, b = address(A), address(B)
    if columns == 1:  # memory is the same if the vector comes first
        a, b, rows, columns = b, a, columns, rows
    if _is_tiny(A, rows, depth, columns):
        _tiny(A, (a, np.int64(0), b, address(C), rows, depth, columns, 1, rows, columns, 1))
    elif rows > 0:
        _transposed(A, (a, b, address(C)), (rows, depth, columns))
    return counted(C)


@jit.inner
def _by_rows_of_b(like: Any, addresses: Any, shape: Any) -> None:
    """C = A @ B.T; addresses: of A, B and C."""
    (a, b, c), (rows, depth, columns) = addresses, shape
    way = way_of_dots(shape, lanes(like), two_passes())
    if way == TURNED:
        _turned(like, addresses, shape)
        return
    if way == ANY_WAY:
        rest = rest_of(B_TRANSPOSED, shape, lanes(like))
        whole, size = columns - rest, np.int64(like.itemsize)
        if rest > 0:
            at, to = b + whole * depth * size, c + whole * size
            numbers = (B_TRANSPOSED, a, at, 0, to, rows, depth, rest, columns, 0)
            run("dots", like, _nanoseconds(like, rows, depth, rest), numbers)
        before = before_of(way, (0, c), shape, lanes(like), size)
        numbers = (B_TRANSPOSED, a, b, 0, c, rows, depth, whole, columns, before)
        run_product("product", like, _nanoseconds(like, rows, depth, whole), numbers, PACKED)
        return
    nanoseconds = _nanoseconds(like, rows, depth, columns)
    numbers = (B_TRANSPOSED, a, b, 0, c, rows, depth, columns, columns, 0)
    if way == VECTOR:  # of a matrix and a vector, whichever of both is A
        a, b = (b, a) if rows == 1 else (a, b)
        numbers = (PLAIN, a, b, 0, c, rows * columns, depth, 1, 1, 0)
    run_one("dots few_columns", like, nanoseconds, numbers, np.int64(way == VECTOR))


@_apart
def _turned(like: Any, addresses: Any, shape: Any) -> None:
    """C = A @ B.T, as A @ B when B has been turned; addresses: of A, B and C."""
    (a, b, c), (_, depth, columns), size = addresses, shape, np.int64(like.itemsize)
    zero = np.int64(0)
    if depth == 1:  # B is that already
        _multiplied(like, (a, b, zero, c), shape)
        return
    # It begins where C does within a cache line, and has room for a vector behind it.
    memory = allocate(depth * columns * size + 128)
    turned = memory + (c & 63)
    numbers = (B_TRANSPOSED, zero, b, zero, turned, depth, depth, columns, columns, zero)
    run("turned", like, depth * columns * size // TURNING, numbers)
    _multiplied(like, (a, turned, zero, c), shape)
    release(memory)


@kernel
def matmul_a_bt(A: Any, B: Any, out: Any = None) -> Any:
    """A @ B.T: the deltas of the layer below, with A those of a layer and B its weights.

    A: (batch, fan_out); B: (fan_in, fan_out), of one dtype, float32 or float64, both C-ordered. out: (batch,
    fan_in), for the result; it may not share memory with A or B. Returns out, or a new array. Each number is
    one chain of multiply-adds in the order of k, or for few rows or columns (or so many beyond whole vectors)
    as in `matmul` of partial sums along k.

    Raises ValueError where shapes do not line up, TypeError for other arrays (TypingError in compiled code).

    NumPy: `A @ B.T`.
    """
    check("A", A, 2, A)
    check("B", B, 2, A)
    A, B, out = uncounted(A), uncounted(B), uncounted(out)
    rows, depth, columns = A.shape[0], A.shape[1], B.shape[0]
    if B.shape[1] != depth:
        raise ShapeError("A has shape %s, B has shape %s: they must have as many columns", A.shape, B.shape)
    C = result(out, (rows, columns), A)
    no_overlap(span(out), span(A))
    no_overlap(span(out), span(B))
    if _is_tiny(A, rows, depth, columns):
        sizes, strides = (rows, depth, columns), (depth, 1, 1, depth)
        _tiny(A, (address(A), np.int64(0), address(B), address(C), *sizes, *strides))
    elif rows > 0 and columns > 0:
        _by_rows_of_b(A, (address(A), address(B), address(C)), (rows, depth, columns))
    return counted(C)
