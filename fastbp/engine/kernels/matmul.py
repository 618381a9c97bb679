"""Matrix products: the microkernel, C (rows x vectors) = start + A @ B with the whole of C in vector
registers.

    for k in range(depth):                    # one multiply-add per accumulator and k
        b[j] = B[k, vector j]                 # `vectors` vector loads
        for i in range(rows):
            C[i, j] += A[i, k] * b[j]         # A[i, k] is one number, copied to all lanes

Every product of the engine is this loop; only the strides differ:

    forward          C = activations (batch x fan_out)   A = inputs (batch x fan_in)        B = weights
    backward         C = deltas (batch x fan_in)         A = deltas (batch x fan_out)       B = transposed
    weights weight gradient  C = weights (fan_in x fan_out)      A = inputs, read transposed        B = deltas

Operands: of A exactly rows x depth numbers are read, so it may be the caller's own array. B and C are whole
vectors, the plan's own or the caller's where its rows are whole vectors. What is prefetched need not exist.
C is written by the worker who owns these columns, and by nobody else.

Each element of C is one chain of multiply-adds in the order of k, whatever the height and width of the tile.
So the cut into tiles, and with it the number of threads, cannot change a bit of the result.

One C callback holds a variant for each height and width. Two callbacks differ in what is adjacent in A:
ALONG_K (A[i, k+1] follows A[i, k]; `a_stride` leads to the next row) or ALONG_ROWS (A[i+1, k] follows;
`a_stride` leads to the next k).
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from fastbp.engine.kernels.activations import ACTIVATIONS
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.tile import (
    ALONG_K,
    ALONG_ROWS,
    FROM_C,
    FROM_ROW,
    MASKED,
    NOTHING,
    OF_C,
    OF_OPERANDS,
    RECTIFIED,
    ZERO,
    Accumulate,
    Aside,
    Tile,
    shapes,
)
from fastbp.engine.simd.vector import I64, Vectors

__all__ = [
    "ALONG_K",
    "ALONG_ROWS",
    "ARGUMENTS",
    "FROM_C",
    "FROM_ROW",
    "MASKED",
    "NOTHING",
    "OF_C",
    "OF_OPERANDS",
    "RECTIFIED",
    "ZERO",
    "Aside",
    "emit_product",
    "emit_tile",
    "microkernel",
    "shapes",
]

# With OF_C there are variants of so many vectors and up to so many rows: to compile the others takes a while.
# (7 x 4 needs all registers, so that each multiply-add reads A's number from memory: 7 x 31 x 1025 took 1.3
# times as long as with 7 x 2 on a core that multiplies two whole vectors at once.)
LOW = {1: 8, 2: 14, 4: 6}

# Any number of rows may be asked for: the callback cuts them into pieces of nearly equal height, since a low
# one waits for its own sums. Strides are in bytes.
ARGUMENTS = (
    *("rows", "vectors", "depth"),
    *("a", "a_row", "a_stride"),  # a_row: from one row of A to the next
    *("group", "a_group_stride"),  # A's k come in groups of that many, that many bytes from one to the next
    *("b", "b_vector", "b_k"),  # B[k, vector j] at b + j * b_vector + k * b_k
    *("c", "c_vector", "c_row"),
    *("row", "row_vector"),  # FROM_ROW: every row of C starts as this row (the bias)
    "start",
)


def variants(prefetch: int) -> dict[int, int]:
    """For each width in vectors the greatest height, as `shapes`."""
    if prefetch != OF_C:
        return shapes()
    return {width: min(most, LOW[width]) for width, most in shapes().items() if width in LOW}


def emit_product(
    builder: ir.IRBuilder,
    dtype: str,
    along: int,
    prefetch: int,
    args: Sequence[ir.Value],
    accumulate: Accumulate = Vectors.fma,
    *,
    relu: bool = False,
) -> None:
    """Cut the rows into tiles, and jump to the variant of each. relu: whether sums may end with it."""
    v, mask = dict(zip(ARGUMENTS, args, strict=True)), ACTIVATIONS["relu"].backward if relu else None
    widths = variants(prefetch)
    function = builder.function
    cut, loop, latch, done = (function.append_basic_block(n) for n in ("cut", "loop", "latch", "done"))
    tallest = I64(0)
    for width, height in widths.items():
        tallest = builder.select(builder.icmp_signed("==", v["vectors"], I64(width)), I64(height), tallest)
    builder.cbranch(builder.icmp_signed(">", v["rows"], I64(0)), cut, done)

    b = ir.IRBuilder(cut)
    tiles = b.udiv(b.add(v["rows"], b.sub(tallest, I64(1))), tallest)
    low = b.udiv(v["rows"], tiles)
    higher = b.sub(v["rows"], b.mul(low, tiles))  # so many tiles have a row more
    b.branch(loop)

    b = ir.IRBuilder(loop)
    i, a, c = b.phi(I64), b.phi(I64), b.phi(I64)
    for phi, first in ((i, I64(0)), (a, v["a"]), (c, v["c"])):
        phi.add_incoming(first, cut)
    height = b.add(low, b.zext(b.icmp_signed("<", i, higher), I64))
    choice = b.switch(b.add(b.shl(v["vectors"], I64(4)), height), latch)

    here = {**v, "a": a, "c": c, "whole_c": v["c"]}
    for width, most in widths.items():
        for rows in range(1, most + 1):
            block = function.append_basic_block(f"tile_{rows}x{width}")
            choice.add_case(I64((width << 4) + rows), block)  # (dense, for a table of jumps)
            Tile(dtype, along, prefetch, rows, width, here, accumulate, mask).emit(block, latch)

    b = ir.IRBuilder(latch)
    following = b.add(i, I64(1))
    i.add_incoming(following, latch)
    a.add_incoming(b.add(a, b.mul(height, v["a_row"])), latch)
    c.add_incoming(b.add(c, b.mul(height, v["c_row"])), latch)
    b.cbranch(b.icmp_signed("<", following, tiles), loop, done)
    builder.position_at_end(done)


def emit_tile(
    builder: ir.IRBuilder, dtype: str, prefetch: int, args: Sequence[ir.Value], aside: Aside
) -> None:
    """One tile of two vectors, ALONG_ROWS, from zero, with other work on the way: k come in as many groups as
    there are pieces, or somewhat more. Rows are as many as in a matrix that was cut into several tiles."""
    v = dict(zip(ARGUMENTS, args, strict=True))
    many = builder.icmp_signed(">", aside.pieces, I64(1))
    group = builder.udiv(v["depth"], builder.select(many, aside.pieces, I64(1)))
    v |= {"group": group, "a_group_stride": builder.mul(group, v["a_stride"]), "start": I64(ZERO)}
    function = builder.function
    done = function.append_basic_block("done")
    choice = builder.switch(v["rows"], done)
    tallest = shapes()[2]
    for height in range((tallest + 1) // 2, tallest + 1):
        block = function.append_basic_block(f"tile_{height}x2")
        choice.add_case(I64(height), block)
        Tile(dtype, ALONG_ROWS, prefetch, height, 2, v, aside=aside).emit(block, done)
    builder.position_at_end(done)


def microkernel(dtype: str, along: int, *, prefetch: int = NOTHING) -> int:
    """The compiled microkernel. prefetch: for large matrices; the results are the same."""
    name = f"microkernel-{'k' if along == ALONG_K else 'rows'}{('', '-prefetch', '-prefetch-c')[prefetch]}"
    return compile_block(
        name,
        dtype,
        len(ARGUMENTS),
        lambda b, args: emit_product(b, dtype, along, prefetch, args, relu=prefetch != OF_C),
        as_it_is=True,
    )
