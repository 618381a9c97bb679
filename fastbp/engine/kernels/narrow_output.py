"""A narrow output layer's products: its matrices lie transposed, with the batch along the lanes (see
worker/narrow_output.py).

z[o, r] = bias[o] + the sum over k of a[r, k] w[k, o], as dot products along the lanes, and sums of their
parts.

All operands are the plan's own: a in panels, w as panels of [outputs][lanes], z in whole vectors of rows.
Each worker writes a z, or parts of one, of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I32, I64, Vec, Vectors, isa


def _totals(ops: Vectors, vectors: list[Vec]) -> Vec:
    """A vector whose lane i is the sum of vector i, by a tree of additions."""
    n = ops.lanes
    while len(vectors) > 1:
        half = len(vectors) // 2
        # Of each 2 * half lanes the lower half are the first vector's, the upper half the second one's: what
        # stays in its lanes, which is cheap, and what changes places.
        lower = [lane % (2 * half) < half for lane in range(n)]
        kept = [lane if low else n + lane for lane, low in enumerate(lower)]
        crossed = [lane + half if low else n + lane - half for lane, low in enumerate(lower)]
        masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (kept, crossed)]
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [
            ops.wrap(ops.b.shuffle_vector(x.value, y.value, masks[0]))
            + ops.wrap(ops.b.shuffle_vector(x.value, y.value, masks[1]))
            for x, y in pairs
        ]
    return vectors[0]


def dots(dtype: str) -> int:
    """(a, a_row, group, in_first, group_stride, panels, w, w_panel, outputs, bias, z, z_row, blocks): z[o, r]
    = bias[o] + the sum over k of a[r, k] w[k, o].

    For `blocks` times as many rows r as a vector has lanes. a: `panels` panels, `group` of them side by side,
    in_first of the first group; w: panels of [outputs][lanes]. Each dot product is kept in a vector of its
    own; at the end a tree of additions turns one vector for each row into one vector.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, group, in_first, group_stride, panels, w, w_panel, outputs, bias, z, z_row, blocks = args
        ops = Vectors(b, dtype)
        n, size = ops.lanes, ops.lanes * ops.itemsize
        room = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(2 * n)]
        a_at, w_at, left = (cgutils.alloca_once(b, I64) for _ in range(3))
        to_next_group = b.sub(group_stride, b.mul(b.sub(group, I64(1)), I64(size)))

        def visit(block: ir.Value, first: ir.Value, count: int) -> None:
            """So many outputs from `first` on, which share what is loaded of a."""
            sums = [room[k * n : (k + 1) * n] for k in range(count)]
            for s in itertools.chain(*sums):
                b.store(ops.const(0.0).value, s)
            b.store(b.add(a, b.mul(block, b.mul(a_row, I64(n)))), a_at)
            b.store(b.add(w, b.mul(first, I64(size))), w_at)
            b.store(in_first, left)
            # One loop over all panels: groups are too short for a loop of their own.
            with cgutils.for_range(b, panels, intp=I64):
                here, panel = b.load(a_at), b.load(w_at)
                weights = [ops.load(b.add(panel, I64(k * size))) for k in range(count)]
                for r in range(n):
                    v = ops.load(b.add(here, b.mul(I64(r), a_row)))
                    for k in range(count):
                        s = sums[k][r]
                        b.store(ops.fma(v, weights[k], ops.wrap(b.load(s))).value, s)
                others = b.sub(b.load(left), I64(1))
                ends = b.icmp_signed("==", others, I64(0))
                b.store(b.select(ends, group, others), left)
                b.store(b.add(here, b.select(ends, to_next_group, I64(size))), a_at)
                b.store(b.add(panel, w_panel), w_at)
            for k in range(count):
                o = b.add(first, I64(k))
                start = ops.load_splat(b.add(bias, b.mul(o, I64(ops.itemsize))))
                total = _totals(ops, [ops.wrap(b.load(s)) for s in sums[k]])
                ops.store(start + total, vector_at(b, z, o, z_row, block, I64(size)))

        # Two outputs at a time where there are registers for them: a vector for each of twice as many rows.
        together = 2 if 2 * n + 4 <= isa().registers else 1
        whole = b.sdiv(outputs, I64(together))
        with cgutils.for_range(b, blocks, intp=I64) as outer:
            with cgutils.for_range(b, whole, intp=I64) as inner:
                visit(outer.index, b.mul(inner.index, I64(together)), together)
            if together > 1:
                with b.if_then(b.icmp_signed(">", b.srem(outputs, I64(2)), I64(0))):
                    visit(outer.index, b.sub(outputs, I64(1)), 1)

    return compile_block("dots", dtype, 13, emit)


def add_parts(dtype: str) -> int:
    """(part, part_bytes, parts, z, rows, row, vectors): z = the sum of the parts, `part_bytes` apart, in
    their order; blocks that lie alike."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        part, part_bytes, parts, z, rows, row, vectors = args
        ops = Vectors(b, dtype)
        acc = cgutils.alloca_once_value(b, ops.const(0.0).value)

        def visit(i: ir.Value, j: ir.Value) -> None:
            here = vector_at(b, I64(0), i, row, j, I64(ops.lanes * ops.itemsize))
            first = b.add(part, here)
            b.store(ops.load(first).value, acc)
            with cgutils.for_range(b, b.sub(parts, I64(1)), intp=I64) as loop:
                at = b.add(first, b.mul(b.add(loop.index, I64(1)), part_bytes))
                b.store((ops.wrap(b.load(acc)) + ops.load(at)).value, acc)
            ops.store(ops.wrap(b.load(acc)), b.add(z, here))

        each_vector(b, rows, vectors, visit)

    return compile_block("add-parts", dtype, 7, emit)


def _sum_of_lanes(ops: Vectors, total: ir.Value) -> ir.Value:
    """The sum that a lane of `_totals` gets: the same pairs of lanes are added."""
    half = ops.lanes
    while half > 1:
        half //= 2
        masks = [
            ir.Constant(ir.VectorType(I32, half), [first + i for i in range(half)]) for first in (0, half)
        ]
        total = ops.b.fadd(*(ops.b.shuffle_vector(total, total, mask) for mask in masks))
    return ops.b.extract_element(total, I32(0))


def dots_of_rows(dtype: str) -> int:
    """(a, a_row, rows, panels, w, w_panel, outputs, bias, z, z_row): as `dots`, with the same bits, for a few
    rows whose panels are all side by side."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, rows, panels, w, w_panel, outputs, bias, z, z_row = args
        ops = Vectors(b, dtype)
        size, acc = I64(ops.lanes * ops.itemsize), cgutils.alloca_once_value(b, ops.const(0.0).value)

        def visit(r: ir.Value, o: ir.Value) -> None:
            b.store(ops.const(0.0).value, acc)
            with cgutils.for_range(b, panels, intp=I64) as loop:
                v = ops.load(vector_at(b, a, r, a_row, loop.index, size))
                weights = ops.load(vector_at(b, w, loop.index, w_panel, o, size))
                b.store(ops.fma(v, weights, ops.wrap(b.load(acc))).value, acc)
            scalar = ops.scalar.as_pointer()
            start = b.load(b.inttoptr(b.add(bias, b.mul(o, I64(ops.itemsize))), scalar))
            total = b.fadd(start, _sum_of_lanes(ops, b.load(acc)))
            b.store(total, b.inttoptr(vector_at(b, z, o, z_row, r, I64(ops.itemsize)), scalar))

        each_vector(b, rows, outputs, visit)

    return compile_block("dots-of-rows", dtype, 10, emit)
