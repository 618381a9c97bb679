"""How vector instructions become compiled functions: callbacks of integers, and loops over blocks of vectors.

A block is `rows` x `vectors`: vector j of row i lies at address + i * row + j * vector (strides in bytes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.engine.compile import jit
from fastbp.engine.simd.vector import I64, Vectors


def compile_block(
    key: str,
    dtype: str,
    count: int,
    emit: Callable[[ir.IRBuilder, list[ir.Value]], None],
    *,
    as_it_is: bool = False,
) -> int:
    """Address of a callback of `count` integers whose code `emit` writes. as_it_is: as the machine is to run
    it."""

    def make():
        @intrinsic
        def code(typingctx, arguments):
            def codegen(context, builder, signature, values):
                emit(builder, [builder.extract_value(values[0], i) for i in range(count)])
                return context.get_dummy_value()

            return types.void(types.UniTuple(types.int64, count)), codegen

        # A C callback has a fixed number of arguments, and so has a Python function.
        names = ", ".join(f"x{i}" for i in range(count))
        scope: dict[str, Any] = {"code": code, "__name__": __name__}
        exec(compile(f"def body({names}): code(({names},))", __file__, "exec"), scope)
        return scope["body"]

    return jit.address_of(f"{key}-{dtype}", jit.void(count), make, emit=emit, as_it_is=as_it_is)


def bits_for(b: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """Ones in all bits that a number above 0 takes."""
    kind = ir.FunctionType(I64, [I64, ir.IntType(1)])
    leading_zeros = cgutils.get_or_insert_function(b.module, kind, "llvm.ctlz.i64")
    return b.lshr(I64(-1), b.call(leading_zeros, [number, ir.IntType(1)(1)]))


def each_vector(builder: ir.IRBuilder, rows: ir.Value, vectors: ir.Value, visit: Callable[..., None]) -> None:
    """visit(i, j) in compiled code for vector j of row i, row by row."""
    with (
        cgutils.for_range(builder, rows, intp=I64) as outer,
        cgutils.for_range(builder, vectors, intp=I64) as inner,
    ):
        visit(outer.index, inner.index)


def each_vector_of_rows(
    ops: Vectors,
    shape: Sequence[ir.Value],
    visit: Callable[[ir.Value, Callable[[], ir.Value]], None],
    columns: ir.Value | None = None,
) -> None:
    """visit(offset in bytes, mask) in compiled code for each vector of a block of adjacent ones.

    shape: rows, vectors, and bytes from a row to the next. mask(): which lanes exist, if there are so many
    columns. Where rows follow each other without a gap they are taken for one: a loop of two turns within
    another one takes twice as long.
    """
    b, (rows, vectors, row) = ops.b, shape
    lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
    one, together = b.icmp_signed("==", row, b.mul(vectors, size)), b.mul(rows, vectors)
    if columns is not None:
        one = b.and_(one, b.icmp_signed(">=", columns, b.mul(vectors, lanes)))
        columns = b.select(one, b.mul(together, lanes), columns)
    with (
        cgutils.for_range(b, b.select(one, I64(1), rows), intp=I64) as outer,
        cgutils.for_range(b, b.select(one, together, vectors), intp=I64) as inner,
    ):
        offset = b.add(b.mul(outer.index, row), b.mul(inner.index, size))
        visit(offset, lambda: ops.first_lanes(b.sub(columns, b.mul(inner.index, lanes))))


def each_vector_of(ops: Vectors, count: ir.Value, visit: Callable[[ir.Value], None], together: int) -> None:
    """visit(offset in bytes) in compiled code for the whole vectors of so many adjacent numbers, some in one
    turn."""
    b, size = ops.b, ops.lanes * ops.itemsize
    whole = b.udiv(count, I64(ops.lanes))
    done = b.and_(whole, I64(-together))
    with cgutils.for_range_slice(b, I64(0), done, I64(together), intp=I64) as (index, _):
        for i in range(together):
            visit(b.mul(b.add(index, I64(i)), I64(size)))
    if together > 1:
        with cgutils.for_range_slice(b, done, whole, I64(1), intp=I64) as (index, _):
            visit(b.mul(index, I64(size)))


def each_block(
    b: ir.IRBuilder, rows: ir.Value, heights: Sequence[int], visit: Callable[[ir.Value, int], None]
) -> None:
    """visit(first row, height) in compiled code for so many rows in blocks of these heights, powers of two
    that end with 1. Where more than half a block is left, it is moved back to where the rows end."""
    done: ir.Value = I64(0)
    for height in heights:
        missing = max(0, height // 2 - 1)
        blocks = b.udiv(b.add(b.sub(rows, done), I64(missing)), I64(height))
        blocks = b.select(b.icmp_signed("<", rows, I64(height)), I64(0), blocks)
        end = b.sub(rows, I64(height))
        with cgutils.for_range(b, blocks, intp=I64) as loop:
            first = b.add(done, b.mul(loop.index, I64(height)))
            visit(b.select(b.icmp_signed("<", first, end), first, end), height)
        done = b.add(done, b.mul(blocks, I64(height)))
        done = b.select(b.icmp_signed("<", done, rows), done, rows)


def vector_at(
    b: ir.IRBuilder, base: ir.Value, i: ir.Value, row: ir.Value, j: ir.Value, vector: ir.Value
) -> ir.Value:
    """The address of vector j of row i; row and vector: bytes from one to the next."""
    return b.add(b.add(base, b.mul(i, row)), b.mul(j, vector))
