"""A narrow output layer's products: its matrices lie transposed, with the batch along the lanes (see
worker/narrow_output.py).

z[o, r] = bias[o] + the sum over k of a[r, k] w[k, o], as dot products along the lanes, and sums of their
parts.

All operands are the plan's own: a in panels, w as panels of [outputs][lanes], z in whole vectors of rows.
Each worker writes a z, or parts of one, of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I32, I64, Vec, Vectors, isa

# Where the caller's matrix has so many bytes, so few of its rows are read side by side: 16 are more streams
# than hardware foresees, and a power of two apart they meet one set of the cache. (Zen 4, one core: 1024 x
# 1024 from the third-level cache 55 us instead of 70, two cores 28. To ask for lines ahead was no gain.)
FAR, FEW = 32 * 1024, 4


def _totals(ops: Vectors, vectors: list[Vec]) -> Vec:
    """A vector whose lane i is the sum of vector i, by a tree of additions."""
    n = ops.lanes
    while len(vectors) > 1:
        half = len(vectors) // 2
        lower = [c for g in range(0, n, 2 * half) for c in (*range(g, g + half), *range(n + g, n + g + half))]
        upper = [c + half for c in lower]
        masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (lower, upper)]
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
        _dots_one_by_one(ops, (a, a_row, rows, panels, I64(0)), (w, w_panel, outputs), bias, (z, z_row))

    return compile_block("dots-of-rows", dtype, 10, emit)


def dots_of_callers_rows(dtype: str) -> int:
    """(a, a_row, rows, depth, w, w_panel, outputs, bias, z, z_row): the same on what `dots_of_callers`
    takes."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, rows, depth, w, w_panel, outputs, bias, z, z_row = args
        ops = Vectors(b, dtype)
        panels, left = b.sdiv(depth, I64(ops.lanes)), b.srem(depth, I64(ops.lanes))
        _dots_one_by_one(ops, (a, a_row, rows, panels, left), (w, w_panel, outputs), bias, (z, z_row))

    return compile_block("dots-of-callers-rows", dtype, 10, emit)


def _bias_or_zeros(ops: Vectors, bias: ir.Value) -> Callable[[ir.Value], ir.Value]:
    """Where the bias of an output is; of all outputs a zero's address where there is none."""
    b = ops.b
    zero = b.ptrtoint(cgutils.alloca_once_value(b, ops.scalar(0.0)), I64)
    given = b.icmp_signed("!=", bias, I64(0))
    return lambda o: b.select(given, b.add(bias, b.mul(o, I64(ops.itemsize))), zero)


def _dots_one_by_one(
    ops: Vectors,
    x: tuple[ir.Value, ...],
    weights: tuple[ir.Value, ...],
    bias: ir.Value,
    result: tuple[ir.Value, ...],
) -> None:
    """The code; x: a, a_row, rows, whole panels, and how many numbers come behind them."""
    (a, a_row, rows, panels, left), (w, w_panel, outputs), (z, z_row) = x, weights, result
    b, size = ops.b, I64(ops.lanes * ops.itemsize)
    acc = cgutils.alloca_once_value(b, ops.const(0.0).value)
    mask, bias_of = ops.first_lanes(left), _bias_or_zeros(ops, bias)

    def visit(r: ir.Value, o: ir.Value) -> None:
        def add(panel: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
            v = load(vector_at(b, a, r, a_row, panel, size))
            weights = load(vector_at(b, w, panel, w_panel, o, size))
            b.store(ops.fma(v, weights, ops.wrap(b.load(acc))).value, acc)

        b.store(ops.const(0.0).value, acc)
        with cgutils.for_range(b, panels, intp=I64) as loop:
            add(loop.index, ops.load)
        with b.if_then(b.icmp_signed(">", left, I64(0))):
            add(panels, lambda address: ops.load_masked(address, mask))
        scalar = ops.scalar.as_pointer()
        start = b.load(b.inttoptr(bias_of(o), scalar))
        total = b.fadd(start, _sum_of_lanes(ops, b.load(acc)))
        b.store(total, b.inttoptr(vector_at(b, z, o, z_row, r, I64(ops.itemsize)), scalar))

    each_vector(b, rows, outputs, visit)


def _dots_of_few(
    ops: Vectors,
    x: tuple[ir.Value, ...],
    weights: tuple[ir.Value, ...],
    bias_of: Callable[[ir.Value], ir.Value],
    result: tuple[ir.Value, ...],
) -> None:
    """The same for rows in whole blocks, FEW of them at a time."""
    (a, a_row, rows, panels, left), (w, w_panel, outputs), (z, z_row) = x, weights, result
    b, size, count = ops.b, I64(ops.lanes * ops.itemsize), min(FEW, ops.lanes)
    sums = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(count)]
    mask, scalar = ops.first_lanes(left), ops.scalar.as_pointer()

    def visit(few: ir.Value, o: ir.Value) -> None:
        first = b.mul(few, I64(count))

        def add(panel: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
            weights = load(vector_at(b, w, panel, w_panel, o, size))
            for r, s in enumerate(sums):
                v = load(vector_at(b, a, b.add(first, I64(r)), a_row, panel, size))
                b.store(ops.fma(v, weights, ops.wrap(b.load(s))).value, s)

        for s in sums:
            b.store(ops.const(0.0).value, s)
        with cgutils.for_range(b, panels, intp=I64) as loop:
            add(loop.index, ops.load)
        with b.if_then(b.icmp_signed(">", left, I64(0))):
            add(panels, lambda address: ops.load_masked(address, mask))
        start = b.load(b.inttoptr(bias_of(o), scalar))
        for r, s in enumerate(sums):
            total = b.fadd(start, _sum_of_lanes(ops, b.load(s)))
            at = vector_at(b, z, o, z_row, b.add(first, I64(r)), I64(ops.itemsize))
            b.store(total, b.inttoptr(at, scalar))

    each_vector(b, b.sdiv(rows, I64(count)), outputs, visit)


def dots_of_callers(dtype: str) -> int:
    """(a, a_row, depth, w, w_panel, outputs, bias, z, z_row, blocks): as `dots`, but a is the caller's, whose
    rows end with their numbers, and so may be the w of a single output. The bits are the same as if zeros
    filled up the last panel. bias: 0 where there is none."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, depth, w, w_panel, outputs, bias, z, z_row, blocks = args
        ops = Vectors(b, dtype)
        n, size = ops.lanes, I64(ops.lanes * ops.itemsize)
        # Two blocks of rows at a time where there are registers for them.
        together = 2 if 4 * n <= isa().registers else 1
        room = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(together * n)]
        bias_of = _bias_or_zeros(ops, bias)
        panels = b.sdiv(depth, I64(n))
        left = b.sub(depth, b.mul(panels, I64(n)))
        mask = ops.first_lanes(left)

        def visit(block: ir.Value, o: ir.Value, count: int) -> None:
            """So many blocks from `block` on, of one output."""
            sums = room[: count * n]
            for s in sums:
                b.store(ops.const(0.0).value, s)
            rows = b.add(a, b.mul(block, b.mul(a_row, I64(n))))
            place = b.add(w, b.mul(o, size))

            def add(p: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
                weights = load(b.add(place, b.mul(p, w_panel)))
                for r, s in enumerate(sums):
                    v = load(vector_at(b, rows, I64(r), a_row, p, size))
                    b.store(ops.fma(v, weights, ops.wrap(b.load(s))).value, s)

            with cgutils.for_range(b, panels, intp=I64) as loop:
                add(loop.index, ops.load)
            with b.if_then(b.icmp_signed(">", left, I64(0))):
                add(panels, lambda address: ops.load_masked(address, mask))
            start = ops.load_splat(bias_of(o))
            for i in range(count):
                total = _totals(ops, [ops.wrap(b.load(s)) for s in sums[i * n : (i + 1) * n]])
                at = vector_at(b, z, o, z_row, b.add(block, I64(i)), size)
                ops.store(start + total, at)

        far = b.icmp_signed(">=", b.mul(a_row, b.mul(blocks, I64(n))), I64(FAR))
        with b.if_then(far):
            x = (a, a_row, b.mul(blocks, I64(n)), panels, left)
            _dots_of_few(ops, x, (w, w_panel, outputs), bias_of, (z, z_row))
        blocks = b.select(far, I64(0), blocks)
        several = b.sdiv(blocks, I64(together))
        with (
            cgutils.for_range(b, several, intp=I64) as outer,
            cgutils.for_range(b, outputs, intp=I64) as inner,
        ):
            visit(b.mul(outer.index, I64(together)), inner.index, together)
        if together > 1:
            with (
                b.if_then(b.icmp_signed("!=", b.mul(several, I64(together)), blocks)),
                cgutils.for_range(b, outputs, intp=I64) as inner,
            ):
                visit(b.sub(blocks, I64(1)), inner.index, 1)

    return compile_block("dots-of-callers", dtype, 10, emit)
