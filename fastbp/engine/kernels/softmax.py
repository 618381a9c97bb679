"""Softmax of whole rows: for predictions, and as the first half of the output layer's delta."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.rows import Place, Row, accumulate, wide
from fastbp.engine.simd.vector import I64, Vec, Vectors


def exponentials(ops: Vectors, row: Row, z: ir.Value, out: ir.Value) -> tuple[Vec, Vec]:
    """out = exp(z - m), 0 beyond the row; m, the row's largest z, and the sum of out. out may be z."""
    b = ops.b
    larger = lambda x, y: ops.select(y > x, y, x)  # noqa: E731
    m = accumulate(ops, row, -math.inf, larger, lambda at: ops.select(at.mask, ops.load(b.add(z, at.offset)), -math.inf))

    def exponential(at: Place) -> Vec:
        e = ops.select(at.mask, ops.exp(ops.load(b.add(z, at.offset)) - m), 0.0)
        ops.store(e, b.add(out, at.offset))
        return e

    return m, accumulate(ops, row, 0.0, lambda x, y: x + y, exponential)


def softmax(dtype: str) -> int:
    """(z, a, rows, columns, row, chunk, chunk_bytes): a = softmax of each row of z, 0 beyond the columns. a may be z."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, rows, columns, stride, chunk, chunk_bytes = args
        ops = Vectors(b, dtype)
        row = wide(ops, columns, chunk, chunk_bytes, I64(0))
        with cgutils.for_range(b, rows, intp=I64) as loop:
            from_z, to = (b.add(base, b.mul(loop.index, stride)) for base in (z, a))
            _, total = exponentials(ops, row, from_z, to)
            inverse = 1.0 / total

            def divide(at: Place) -> None:
                place = b.add(to, at.offset)
                ops.store(ops.load(place) * inverse, place)

            row.each(divide)

    return compile_block("softmax", dtype, 7, emit)
