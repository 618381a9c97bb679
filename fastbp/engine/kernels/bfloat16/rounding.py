"""Float32 numbers rounded to bfloat16 and laid out as pairs, before products read them (worker/operands.py).

A pair is what products take as one k. Where a matrix is A, and its numbers are adjacent along k, pairs are of
neighbours in a row; where products read it across its rows, of neighbours in a column. What lies beyond its
columns or its last row becomes 0, and is not read: it may be the caller's.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels.copies import transposed
from fastbp.engine.simd.bfloat16 import across, halves, store_halves
from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I64, Vectors


def round_pairs() -> int:
    """(source, source_row, rows, columns, along, along_row, across, across_row, group, group_bytes): pairs of
    neighbours in a row, unless `along` is 0, and of neighbours in a column; these lie in groups of so many
    vectors, so many bytes from one to the next."""
    return compile_block("round-pairs", "float32", 10, _emit)


def clear() -> int:
    """(address, row, rows, vectors): zeros."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        address, row, rows, vectors = args
        ops = Vectors(b, "float32")
        size = I64(4 * ops.lanes)
        each_vector(b, rows, vectors, lambda i, j: ops.store(0.0, vector_at(b, address, i, row, j, size)))

    return compile_block("clear", "float32", 4, emit)


def round_tiles() -> int:
    """(source, source_row, rows, columns, along, along_row, turned, turned_row): pairs of neighbours in a
    row, and pairs of neighbours in a column, column after column. Rows up to a multiple of 32, and columns up
    to whole vectors, are there as zeros in both."""
    return compile_block("round-tiles", "float32", 8, _emit_tiles)


def turned(ops: Vectors, rows: Sequence[ir.Value]) -> list[ir.Value]:
    """Halves of two rows for each lane, as many as make pairs -> for each lane a vector of them."""
    pairs = [across(ops, even, odd).value for even, odd in zip(rows[::2], rows[1::2], strict=True)]
    return transposed(ops.b, pairs, ops.lanes)


def _emit_tiles(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    source, source_row, rows, columns, along, along_row, to, to_row = args
    ops = Vectors(b, "float32")
    lanes, high = I64(ops.lanes), 2 * ops.lanes
    vectors = b.udiv(b.add(columns, b.sub(lanes, I64(1))), lanes)

    def block(index: ir.Value, left: ir.Value | None) -> None:
        top = b.mul(index, I64(high))
        row, beside = b.add(source, b.mul(top, source_row)), b.add(along, b.mul(top, along_row))
        with cgutils.for_range(b, vectors, intp=I64) as loop:
            j = loop.index
            place, to_piece = b.add(row, b.mul(j, I64(4 * ops.lanes))), b.add(beside, b.mul(j, I64(high)))
            mask = ops.first_lanes(b.sub(columns, b.mul(j, lanes)))
            none = ir.Constant(mask.type, None)
            all_halves = []
            for i in range(high):
                here = mask if left is None else b.select(b.icmp_signed("<", I64(i), left), mask, none)
                all_halves.append(halves(ops, ops.load_masked(b.add(place, b.mul(source_row, I64(i))), here)))
                store_halves(ops, all_halves[-1], b.add(to_piece, b.mul(along_row, I64(i))))
            first = b.add(b.add(to, b.mul(b.mul(j, lanes), to_row)), b.mul(index, I64(4 * ops.lanes)))
            for i, vector in enumerate(turned(ops, all_halves)):
                ops.store(ops.wrap(vector), b.add(first, b.mul(to_row, I64(i))))

    whole, left = b.udiv(rows, I64(high)), b.urem(rows, I64(high))
    with cgutils.for_range(b, whole, intp=I64) as loop:
        block(loop.index, None)
    with b.if_then(b.icmp_signed("!=", left, I64(0))):
        block(whole, left)


def _emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
    source, source_row, rows, _, along, along_row, _, across_row, *_ = args
    whole, odd = b.lshr(rows, I64(1)), b.icmp_signed("!=", b.and_(rows, I64(1)), I64(0))

    def rounded(both_ways: bool) -> None:
        def pair(index: ir.Value, is_whole: bool) -> None:
            k = b.shl(index, I64(1))
            at = b.add(source, b.mul(k, source_row)), b.add(along, b.mul(k, along_row))
            _pair_of_rows(b, args, (*at, b.mul(index, across_row)), (both_ways, is_whole))

        with cgutils.for_range(b, whole, intp=I64) as loop:
            pair(loop.index, True)
        with b.if_then(odd):
            pair(whole, False)

    with b.if_else(b.icmp_signed("!=", along, I64(0))) as (yes, no):
        with yes:
            rounded(True)
        with no:
            rounded(False)


def _pair_of_rows(
    b: ir.IRBuilder, args: Sequence[ir.Value], at: Sequence[ir.Value], ways: tuple[bool, bool]
) -> None:
    """Two rows; at: where they begin, where pairs along them do, and how far those across them are from the
    first ones. ways: whether there are any along them, and whether there is a second row."""
    _, source_row, _, columns, _, along_row, to, _, group, group_bytes = args
    (row, along, before), (both_ways, is_whole) = at, ways
    ops = Vectors(b, "float32")
    lanes, size, half = I64(ops.lanes), I64(4 * ops.lanes), I64(2 * ops.lanes)
    full, left = b.udiv(columns, lanes), b.urem(columns, lanes)

    def visit(j: ir.Value, here: ir.Value, mask: ir.Value | None) -> None:
        def load(address: ir.Value) -> ir.Value:
            return halves(ops, ops.load(address) if mask is None else ops.load_masked(address, mask))

        place, beside = b.add(row, b.mul(j, size)), b.add(along, b.mul(j, half))
        even = load(place)
        odd = load(b.add(place, source_row)) if is_whole else ir.Constant(even.type, None)
        if both_ways:
            store_halves(ops, even, beside)
            if is_whole:
                store_halves(ops, odd, b.add(beside, along_row))
        ops.store(across(ops, even, odd), here)

    groups = b.udiv(b.add(full, b.sub(group, I64(1))), group)
    with cgutils.for_range(b, groups, intp=I64) as of_groups:
        first = b.mul(of_groups.index, group)
        rest = b.sub(full, first)
        to_group = b.add(b.add(to, before), b.mul(of_groups.index, group_bytes))
        count = b.select(b.icmp_signed("<", rest, group), rest, group)
        with cgutils.for_range(b, count, intp=I64) as loop:
            visit(b.add(first, loop.index), b.add(to_group, b.mul(loop.index, size)), None)
    with b.if_then(b.icmp_signed("!=", left, I64(0))):
        place = b.mul(b.udiv(full, group), group_bytes), b.mul(b.urem(full, group), size)
        visit(full, b.add(b.add(to, before), b.add(*place)), ops.first_lanes(left))
