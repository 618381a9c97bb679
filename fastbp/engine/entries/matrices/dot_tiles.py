"""A @ B.T as dot products of rows of A with rows of B, some of each at a time.

    for j in rows of B, up to 4 at a time:
        for i in rows of A, up to 4 at a time:
            for k in vectors along the depth:
                sums[i, j] += A[i, k] * B[j, k]
            C[i, j] = the lanes of sums[i, j]

Both are read where they lie, and 8 vectors serve 16 multiply-adds. The lanes are added by halves, those of
all sums together, so that a number of C has the same bits in a tile of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.entries.matrices.short_rows import each_vector, halved, shuffled
from fastbp.engine.simd.emit import compile_block, each_block
from fastbp.engine.simd.tile import opaque
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa

ARGUMENTS = ("a", "a_row", "rows", "depth", "b", "b_row", "columns", "bias", "c", "c_row")
SIDES = (4, 2, 1)  # of a tile
SUMS = 4  # of a product that is one number


def dot_tiles(dtype: str) -> int:
    """(a, a_row, rows, depth, b, b_row, columns, bias, c, c_row): C = bias + A @ B.T. Strides are in bytes;
    bias: a row's address, or 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        v = dict(zip(ARGUMENTS, args, strict=True))
        sides = SIDES if isa().registers >= 32 else SIDES[1:]

        def columns(j: ir.Value, width: int) -> None:
            each_block(b, v["rows"], sides, lambda i, height: _tile(b, dtype, v, (i, height), (j, width)))

        each_block(b, v["columns"], sides, columns)

    return compile_block("dot-tiles", dtype, len(ARGUMENTS), emit)


def _tile(
    b: ir.IRBuilder,
    dtype: str,
    v: dict[str, ir.Value],
    rows: tuple[ir.Value, int],
    columns: tuple[ir.Value, int],
) -> None:
    """So many rows of C from i on, and columns from j on."""
    ops, (i, height), (j, width) = Vectors(b, dtype), rows, columns
    sums = [[cgutils.alloca_once(b, ops.type) for _ in range(width)] for _ in range(height)]
    for row in sums:
        for s in row:
            b.store(ops.const(0.0).value, s)
    # (See matmul.py for why LLVM is not to know how far these are from each other.)
    a, of_b = (
        [opaque(b, b.add(v[name], b.mul(b.add(first, I64(n)), v[f"{name}_row"]))) for n in range(count)]
        for name, first, count in (("a", i, height), ("b", j, width))
    )

    def add(at: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
        vectors = [load(b.add(row, at)) for row in of_b]
        for row, here in zip(a, sums, strict=True):
            x = load(b.add(row, at))
            for y, s in zip(vectors, here, strict=True):
                b.store(ops.fma(x, y, ops.wrap(b.load(s))).value, s)

    each_vector(ops, v["depth"], add)
    totals = _summed(b, [b.load(s) for row in sums for s in row])
    size, narrow = I64(ops.itemsize), Vectors(b, dtype, width)
    given = b.icmp_signed("!=", v["bias"], I64(0))
    source = b.select(given, v["bias"], v["c"])  # without one, what is read does not matter
    bias = narrow.load(b.add(source, b.mul(j, size)))
    start = narrow.wrap(b.select(given, bias.value, narrow.const(0.0).value))
    for r in range(height):
        places = range(r * width, (r + 1) * width)
        per = totals[0].type.count
        total = totals[r * width // per]
        c = b.add(b.add(v["c"], b.mul(b.add(i, I64(r)), v["c_row"])), b.mul(j, size))
        dots = narrow.wrap(shuffled(b, total, total, [n % per for n in places]))
        narrow.store(start + dots, c)


def one_dot(dtype: str) -> int:
    """(a, b, depth, bias, c): the only number of such a product. As a tile it would wait for itself with each
    multiply-add; so it is some sums, whose vectors take turns. bias: an address, or 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, y, depth, bias, c = args
        ops, number = Vectors(b, dtype), Vectors(b, dtype, 1)
        vector = I64(ops.lanes * ops.itemsize)
        sums = [cgutils.alloca_once(b, ops.type) for _ in range(SUMS)]
        for s in sums:
            b.store(ops.const(0.0).value, s)

        def add(s: ir.Value, n: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
            at = b.mul(n, vector)
            b.store(ops.fma(load(b.add(x, at)), load(b.add(y, at)), ops.wrap(b.load(s))).value, s)

        whole = b.udiv(depth, I64(ops.lanes))
        turns, left = b.udiv(whole, I64(SUMS)), b.sub(depth, b.mul(whole, I64(ops.lanes)))
        with cgutils.for_range(b, turns, intp=I64) as loop:
            for n, s in enumerate(sums):
                add(s, b.add(b.mul(loop.index, I64(SUMS)), I64(n)), ops.load)
        with cgutils.for_range_slice(b, b.mul(turns, I64(SUMS)), whole, I64(1), intp=I64) as (n, _):
            add(sums[0], n, ops.load)
        mask = ops.first_lanes(left)
        add(sums[1], whole, lambda address: ops.load_masked(address, mask))
        vectors = [ops.wrap(b.load(s)) for s in sums]
        while len(vectors) > 1:
            vectors = [one + other for one, other in zip(vectors[::2], vectors[1::2], strict=True)]
        given = b.icmp_signed("!=", bias, I64(0))
        start = number.load(b.select(given, bias, c))  # without one, what is read does not matter
        (total,) = _summed(b, [vectors[0].value])
        number.store(number.select(given, start, 0.0) + number.wrap(total), c)

    return compile_block("one-dot", dtype, 5, emit)


def _summed(b: ir.IRBuilder, vectors: list[ir.Value]) -> list[ir.Value]:
    """The sums of the lanes of vectors, a power of two of them, in their order: in one vector, or several
    where they are more than it has lanes."""
    per = vectors[0].type.count  # lanes that belong to one sum
    while per > 1:
        count = 2 if len(vectors) > 1 else 1
        pairs = [tuple(vectors[n : n + count]) for n in range(0, len(vectors), count)]
        vectors, per = [halved(b, pair, pair[0].type.count, per) for pair in pairs], per // 2
    return vectors
