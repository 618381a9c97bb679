"""Products with fewer columns than a vector has lanes, A's numbers copied to all lanes of a narrower vector.

    for i in rows, some at a time:
        for k in depth:
            C[i, :] += A[i, k] B[k, :]

Vectors are of half a register, of a quarter, ...: the widest that the columns fill. A second one ends where
they end, so that both share some columns, and nothing is read or written with a mask. Each element of C is a
chain of multiply-adds in the order of k, as in the microkernel; strides of A are any, so that it may lie
transposed.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.entries.matrices.row_sweep import ARGUMENTS
from fastbp.engine.simd.emit import compile_block, each_block
from fastbp.engine.simd.tile import opaque
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa


def narrow_tiles(dtype: str) -> int:
    """(a, a_row, a_k, rows, depth, b, b_row, columns, bias, c, c_row): C = bias + A @ B, of fewer columns
    than a vector has lanes, and more than one where it has more than two. Strides are in bytes; bias: a row's
    address, or 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        v = dict(zip(ARGUMENTS, args, strict=True))
        width = Vectors(b, dtype).lanes // 2
        most: ir.Value = I64(2 * width)
        while width >= 1:
            enough = b.and_(
                b.icmp_signed(">=", v["columns"], I64(width)), b.icmp_signed("<", v["columns"], most)
            )
            with b.if_then(enough):
                one = b.icmp_signed("==", v["columns"], I64(width))
                with b.if_else(one) as (single, two):
                    with single:
                        _all_rows(b, Vectors(b, dtype, width), v, 1)
                    with two:
                        _all_rows(b, Vectors(b, dtype, width), v, 2)
            most, width = I64(width), width // 2 if width > 2 else 0

    return compile_block("narrow-tiles", dtype, len(ARGUMENTS), emit, as_it_is=True)


def _all_rows(b: ir.IRBuilder, ops: Vectors, v: dict[str, ir.Value], vectors: int) -> None:
    heights = (8, 4, 2, 1) if isa().registers >= 32 else (4, 2, 1)
    each_block(b, v["rows"], heights, lambda i, height: _block(b, ops, v, i, height, vectors))


def _block(
    b: ir.IRBuilder, ops: Vectors, v: dict[str, ir.Value], i: ir.Value, height: int, vectors: int
) -> None:
    """So many rows of C from i on."""
    size = I64(ops.itemsize)
    offsets = [I64(0), b.mul(b.sub(v["columns"], I64(ops.lanes)), size)][:vectors]
    given = b.icmp_signed("!=", v["bias"], I64(0))
    source = b.select(given, v["bias"], v["c"])  # without one, what is read does not matter
    start = [ops.select(given, ops.load(b.add(source, offset)), 0.0).value for offset in offsets]
    sums = [[cgutils.alloca_once_value(b, x) for x in start] for _ in range(height)]
    for row in sums:
        for x, s in zip(start, row, strict=True):
            b.store(x, s)
    # (See matmul.py for why LLVM is not to know how far these are from each other.)
    rows = [opaque(b, b.add(v["a"], b.mul(b.add(i, I64(r)), v["a_row"]))) for r in range(height)]
    with cgutils.for_range(b, v["depth"], intp=I64) as loop:
        at, line = b.mul(loop.index, v["a_k"]), b.add(v["b"], b.mul(loop.index, v["b_row"]))
        of_b: list[Vec] = [ops.load(b.add(line, offset)) for offset in offsets]
        for a, row in zip(rows, sums, strict=True):
            number = ops.load_splat(b.add(a, at))
            for vector, s in zip(of_b, row, strict=True):
                b.store(ops.fma(number, vector, ops.wrap(b.load(s))).value, s)
    for r, row in enumerate(sums):
        c = b.add(v["c"], b.mul(b.add(i, I64(r)), v["c_row"]))
        for offset, s in zip(offsets, row, strict=True):
            ops.store(ops.wrap(b.load(s)), b.add(c, offset))
