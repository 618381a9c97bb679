"""Sums over a matrix: bias gradients (column sums), the gains' gradients, the loss; norms, and what is scaled
by them; and where in each row of outputs the largest stands.

All operands but those of the last are the plan's own blocks of whole vectors. The order of every sum is fixed
by the shape alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I32, I64, Vec, Vectors


def _sums_over_rows(
    ops: Vectors,
    shape: Sequence[ir.Value],
    out: ir.Value,
    out_vector: ir.Value,
    term: Callable[[ir.Value], Vec],
) -> None:
    """out = the sum over rows of term(offset), each column its own chain... in four interleaved chains.
    shape: rows, vectors, row."""
    b = ops.b
    rows, vectors, row = shape
    step = I64(ops.lanes * ops.itemsize)
    chains = 4
    whole = b.sdiv(rows, I64(chains))
    with cgutils.for_range(b, vectors, intp=I64) as loop:
        sums = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(chains)]
        for s in sums:
            b.store(ops.const(0.0).value, s)
        first = b.mul(loop.index, step)

        def add(s: ir.Value, offset: ir.Value) -> None:
            b.store((ops.wrap(b.load(s)) + term(b.add(first, offset))).value, s)

        with cgutils.for_range(b, whole, intp=I64) as quads:
            base = b.mul(quads.index, b.mul(row, I64(chains)))
            for c, s in enumerate(sums):
                add(s, b.add(base, b.mul(row, I64(c))))
        with cgutils.for_range(b, b.srem(rows, I64(chains)), intp=I64) as rest:
            add(sums[0], b.mul(row, b.add(b.mul(whole, I64(chains)), rest.index)))
        s = [ops.wrap(b.load(x)) for x in sums]
        ops.store((s[0] + s[1]) + (s[2] + s[3]), b.add(out, b.mul(loop.index, out_vector)))


def column_sums(dtype: str) -> int:
    """(d, rows, vectors, row, out, out_vector): out = the sum over rows."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, *shape, out, out_vector = args
        ops = Vectors(b, dtype)
        _sums_over_rows(ops, shape, out, out_vector, lambda at: ops.load(b.add(d, at)))

    return compile_block("column-sums", dtype, 6, emit)


def column_sums_of_products(dtype: str) -> int:
    """(x, y, rows, vectors, row, out, out_vector): out = the sum over rows of x * y, which lie alike."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, y, *shape, out, out_vector = args
        ops = Vectors(b, dtype)
        _sums_over_rows(
            ops, shape, out, out_vector, lambda at: ops.load(b.add(x, at)) * ops.load(b.add(y, at))
        )

    return compile_block("column-sums-of-products", dtype, 7, emit)


def sum_of_rows(dtype: str) -> int:
    """(d, rows, vectors, row, out): out = the sum over rows of adjacent vectors, four rows at a time, with
    the sums in memory.

    For the caller's own matrices, whose rows may be any number of bytes apart: where that is a power of two,
    a walk down a few columns (as in `column_sums`) meets one set of the cache and a new page in every row. At
    512 x 1024 float32 it took 5 times as long.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, rows, vectors, row, out = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        together = 4

        def add(first: ir.Value, count: int) -> None:
            with cgutils.for_range(b, vectors, intp=I64) as loop:
                offset = b.mul(loop.index, step)
                at = [b.add(b.add(first, offset), b.mul(row, I64(i))) for i in range(count)]
                terms = [ops.load(address) for address in at]
                while len(terms) > 1:
                    terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=True)]
                here = b.add(out, offset)
                ops.store(ops.load(here) + terms[0], here)

        with cgutils.for_range(b, vectors, intp=I64) as loop:
            ops.store(0.0, b.add(out, b.mul(loop.index, step)))
        whole = b.sdiv(rows, I64(together))
        with cgutils.for_range(b, whole, intp=I64) as loop:
            add(b.add(d, b.mul(loop.index, b.mul(row, I64(together)))), together)
        done = b.mul(whole, I64(together))
        with cgutils.for_range(b, b.sub(rows, done), intp=I64) as loop:
            add(b.add(d, b.mul(row, b.add(done, loop.index))), 1)

    return compile_block("sum-of-rows", dtype, 5, emit)


def row_sums(dtype: str) -> int:
    """(d, rows, vectors, row, out): number i of out = the sum of row i, vector by vector, then lane by lane;
    0 to fill its last vector."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, rows, vectors, row, out = args
        ops = Vectors(b, dtype)
        acc = cgutils.alloca_once_value(b, ops.const(0.0).value)
        lanes = I64(ops.lanes)
        with cgutils.for_range(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), intp=I64) as fill:
            ops.store(0.0, b.add(out, b.mul(fill.index, I64(ops.lanes * ops.itemsize))))
        with cgutils.for_range(b, rows, intp=I64) as outer:
            b.store(ops.const(0.0).value, acc)
            with cgutils.for_range(b, vectors, intp=I64) as inner:
                v = ops.load(vector_at(b, d, outer.index, row, inner.index, I64(ops.lanes * ops.itemsize)))
                b.store((ops.wrap(b.load(acc)) + v).value, acc)
            sums = b.load(acc)
            result = b.extract_element(sums, I32(0))
            for lane in range(1, ops.lanes):
                result = b.fadd(result, b.extract_element(sums, I32(lane)))
            place = b.add(out, b.mul(outer.index, I64(ops.itemsize)))
            b.store(result, b.inttoptr(place, ops.scalar.as_pointer()))

    return compile_block("row-sums", dtype, 5, emit)


def total(dtype: str) -> int:
    """(z, rows, panels, group, row, group_stride, out): out (one float64) = the sum of all panels, `group` of
    them side by side."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, rows, panels, group, row, group_stride, out = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        double = ir.DoubleType()
        wide = ir.VectorType(double, ops.lanes)
        zero = ir.Constant(wide, [0.0] * ops.lanes)
        acc = cgutils.alloca_once_value(b, zero)
        b.store(zero, acc)

        def visit(i: ir.Value, j: ir.Value) -> None:
            v = ops.load(vector_at(b, z, i, row, j, step)).value
            b.store(b.fadd(b.load(acc), b.fpext(v, wide) if ops.single else v), acc)

        groups = b.sdiv(b.add(panels, b.sub(group, I64(1))), group)
        with cgutils.for_range(b, groups, intp=I64) as loop:
            z = b.add(args[0], b.mul(loop.index, group_stride))
            left = b.sub(panels, b.mul(loop.index, group))
            each_vector(b, rows, b.select(b.icmp_signed("<", left, group), left, group), visit)
        sums = b.load(acc)
        result: ir.Value = ir.Constant(double, 0.0)
        for lane in range(ops.lanes):
            result = b.fadd(result, b.extract_element(sums, I32(lane)))
        b.store(result, b.inttoptr(out, double.as_pointer()))

    return compile_block("total", dtype, 7, emit)


# ---- norms: sums of squares in float64, whatever the dtype ----


def _wide(ops: Vectors) -> ir.Type:
    return ir.VectorType(ir.DoubleType(), ops.lanes)


def _sum_of_squares(
    b: ir.IRBuilder, ops: Vectors, first: ir.Value, count: ir.Value, stride: ir.Value
) -> ir.Value:
    """The sum over `count` vectors, `stride` bytes apart, lane by lane, in four interleaved chains."""
    wide, chains = _wide(ops), 4
    zero = ir.Constant(wide, [0.0] * ops.lanes)
    sums = [cgutils.alloca_once_value(b, zero) for _ in range(chains)]
    for s in sums:
        b.store(zero, s)

    def add(s: ir.Value, i: ir.Value) -> None:
        v = ops.load(b.add(first, b.mul(i, stride))).value
        x = b.fpext(v, wide) if ops.single else v
        b.store(b.fadd(b.load(s), b.fmul(x, x)), s)

    whole = b.sdiv(count, I64(chains))
    with cgutils.for_range(b, whole, intp=I64) as loop:
        for c, s in enumerate(sums):
            add(s, b.add(b.mul(loop.index, I64(chains)), I64(c)))
    with cgutils.for_range(b, b.srem(count, I64(chains)), intp=I64) as rest:
        add(sums[0], b.add(b.mul(whole, I64(chains)), rest.index))
    x = [b.load(s) for s in sums]
    return b.fadd(b.fadd(x[0], x[1]), b.fadd(x[2], x[3]))


def _sum_of_lanes(b: ir.IRBuilder, ops: Vectors, v: ir.Value) -> ir.Value:
    result: ir.Value = b.extract_element(v, I32(0))
    for lane in range(1, ops.lanes):
        result = b.fadd(result, b.extract_element(v, I32(lane)))
    return result


def squares(dtype: str) -> int:
    """(g, vectors, out): out (one float64) = the sum of squares of adjacent vectors."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        g, vectors, out = args
        ops = Vectors(b, dtype)
        lanes = _sum_of_squares(b, ops, g, vectors, I64(ops.lanes * ops.itemsize))
        b.store(_sum_of_lanes(b, ops, lanes), b.inttoptr(out, ir.DoubleType().as_pointer()))

    return compile_block("squares", dtype, 3, emit)


def add_sum(dtype: str) -> int:
    """(numbers, count, factor, out): out += factor times the sum of `count` float64s, in their order; factor
    and out: addresses of one float64 each."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        numbers, count, factor, out = args
        double = ir.DoubleType()

        def at(address: ir.Value) -> ir.Value:
            return b.inttoptr(address, double.as_pointer())

        acc = cgutils.alloca_once_value(b, double(0.0))
        b.store(double(0.0), acc)
        with cgutils.for_range(b, count, intp=I64) as loop:
            number = b.load(at(b.add(numbers, b.mul(loop.index, I64(8)))))
            b.store(b.fadd(b.load(acc), number), acc)
        term = b.fmul(b.load(at(factor)), b.load(acc))
        b.store(b.fadd(b.load(at(out)), term), at(out))

    return compile_block("add-sum", dtype, 4, emit)


def clip_factor(dtype: str) -> int:
    """(squares, count, limit, out): out (one number) = min(1, limit / (norm + 1e-6)), norm the root of the
    sum of `count` float64s.

    It is NaN if the norm is not finite: no step can be taken from there, and that shall be seen.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        squares, count, limit, out = args
        ops = Vectors(b, dtype)
        double = ir.DoubleType()
        acc = cgutils.alloca_once_value(b, double(0.0))
        b.store(double(0.0), acc)
        with cgutils.for_range(b, count, intp=I64) as loop:
            part = b.load(b.inttoptr(b.add(squares, b.mul(loop.index, I64(8))), double.as_pointer()))
            b.store(b.fadd(b.load(acc), part), acc)
        root = cgutils.get_or_insert_function(b.module, ir.FunctionType(double, [double]), "llvm.sqrt.f64")
        norm = b.call(root, [b.load(acc)])
        most = b.load(b.inttoptr(limit, ops.scalar.as_pointer()))
        factor = b.fdiv(b.fpext(most, double) if ops.single else most, b.fadd(norm, double(1e-6)))
        factor = b.select(b.fcmp_ordered("<", factor, double(1.0)), factor, double(1.0))
        factor = b.select(b.fcmp_ordered("<", norm, double(math.inf)), factor, double(math.nan))
        b.store(
            b.fptrunc(factor, ops.scalar) if ops.single else factor, b.inttoptr(out, ops.scalar.as_pointer())
        )

    return compile_block("clip-factor", dtype, 4, emit)


def constrain(dtype: str, across: bool) -> int:
    """(w, count, stride, limit): scale weights whose norm is above the limit (address of one float64) by
    limit / (norm + 1e-7).

    `count` vectors, `stride` bytes apart: each lane is a unit's weights, or (across) all lanes together are
    one unit's.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        w, count, stride, limit = args
        ops = Vectors(b, dtype)
        double, wide = ir.DoubleType(), _wide(ops)

        def splat(x: ir.Value) -> ir.Value:
            v = b.insert_element(ir.Constant(wide, ir.Undefined), x, I32(0))
            return b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, ops.lanes), [0] * ops.lanes))

        sums = _sum_of_squares(b, ops, w, count, stride)
        if across:
            sums = splat(_sum_of_lanes(b, ops, sums))
        root = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(wide, [wide]), f"llvm.sqrt.v{ops.lanes}f64"
        )
        norm = b.call(root, [sums])
        most = splat(b.load(b.inttoptr(limit, double.as_pointer())))
        above = b.fcmp_ordered(">", norm, most)
        factor = b.fdiv(most, b.fadd(norm, ir.Constant(wide, [1e-7] * ops.lanes)))
        factor = b.select(above, factor, ir.Constant(wide, [1.0] * ops.lanes))
        scale = ops.wrap(b.fptrunc(factor, ops.type) if ops.single else factor)
        any_above = b.icmp_unsigned("!=", b.bitcast(above, ir.IntType(ops.lanes)), ir.IntType(ops.lanes)(0))
        with b.if_then(any_above), cgutils.for_range(b, count, intp=I64) as loop:
            at = b.add(w, b.mul(loop.index, stride))
            ops.store(ops.load(at) * scale, at)

    return compile_block("constrain-across" if across else "constrain", dtype, 4, emit)


def _largest_columns(values, columns):
    for i in range(values.shape[0]):
        column, top = 0, values[i, 0]
        for j in range(1, values.shape[1]):
            # Both by selection: where the largest stands nobody can predict, a processor neither.
            larger = top == top and not values[i, j] <= top
            column = j if larger else column
            top = values[i, j] if larger else top
        columns[i] = column


@cache
def _largest_columns_entry(dtype: np.dtype[Any]) -> Any:
    return jit.dispatcher(_largest_columns, (getattr(types, dtype.name)[:, ::1], int64[::1]))


def largest_columns(values: NDArray[Any]) -> NDArray[np.int64]:
    """`values.argmax(axis=1)` of a C-ordered array (rows, columns) of our own; for ten columns in a quarter
    of NumPy's time."""
    columns = np.empty(len(values), np.int64)
    _largest_columns_entry(values.dtype)(values, columns)
    return columns
