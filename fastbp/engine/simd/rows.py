"""Loops over whole rows of a matrix, and sums over them, however the row lies.

Sums over a row go vector by vector and then across the lanes, whoever does them.

    wide      a row of z is `columns` numbers in panels, `group` of them side by side; the lanes are columns
    narrow    z is [outputs][rows]: the lanes are rows, and a sum over outputs needs nothing across them
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.vector import I64, Vec, Vectors


@dataclass
class Place:
    """One vector of a row: which one, how far it lies behind the row's beginning, which lanes exist, and the
    targets that belong to it."""

    index: ir.Value
    offset: ir.Value
    mask: ir.Value
    target: Callable[[], Vec]


@dataclass
class Row:
    """One row, or where the lanes are rows, as many of them. each(visit) calls visit(place) for its vectors,
    in compiled code."""

    each: Callable[[Callable[[Place], None]], None]
    across: Callable[[Vec, Callable[[Vec, Vec], Vec]], Vec]  # combines what lies in different lanes of a row
    stride: ir.Value | None = None  # where the lanes are rows: bytes from a column to the next


def wide(ops: Vectors, columns: ir.Value, group: ir.Value, group_stride: ir.Value, y: ir.Value) -> Row:
    b, lanes, size = ops.b, I64(ops.lanes), I64(ops.lanes * ops.itemsize)
    panels = b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes)
    groups = b.sdiv(b.add(panels, b.sub(group, I64(1))), group)

    def each(visit: Callable[[Place], None]) -> None:
        with cgutils.for_range(b, groups, intp=I64) as outer:
            first = b.mul(outer.index, group)
            left = b.sub(panels, first)
            here = b.select(b.icmp_signed("<", left, group), left, group)
            with cgutils.for_range(b, here, intp=I64) as inner:
                p = b.add(first, inner.index)
                mask = ops.first_lanes(b.sub(columns, b.mul(p, lanes)))
                offset = b.add(b.mul(outer.index, group_stride), b.mul(inner.index, size))
                visit(Place(p, offset, mask, lambda: ops.load_masked(b.add(y, b.mul(p, size)), mask)))

    return Row(each, ops.across)


def adjacent(ops: Vectors, columns: ir.Value, y: ir.Value) -> Row:
    """A row whose vectors are side by side, as in a block."""
    b, lanes, size = ops.b, I64(ops.lanes), I64(ops.lanes * ops.itemsize)

    def each(visit: Callable[[Place], None]) -> None:
        with cgutils.for_range(b, b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes), intp=I64) as loop:
            offset = b.mul(loop.index, size)
            mask = ops.first_lanes(b.sub(columns, b.mul(loop.index, lanes)))
            visit(Place(loop.index, offset, mask, lambda: ops.load_masked(b.add(y, offset), mask)))

    return Row(each, ops.across)


def narrow(
    ops: Vectors, outputs: ir.Value, row: ir.Value, y: ir.Value, y_row: ir.Value, mask: ir.Value
) -> Row:
    b = ops.b

    def targets(address: ir.Value) -> Vec:
        place = cgutils.alloca_once(b, ops.type)
        with b.if_else(b.icmp_signed("==", y_row, I64(ops.itemsize))) as (adjacent, apart):
            with adjacent:
                b.store(ops.load_masked(address, mask).value, place)
            with apart:
                b.store(ops.gather(address, y_row, mask).value, place)
        return ops.wrap(b.load(place))

    def each(visit: Callable[[Place], None]) -> None:
        with cgutils.for_range(b, outputs, intp=I64) as loop:
            target = b.add(y, b.mul(loop.index, I64(ops.itemsize)))
            visit(Place(loop.index, b.mul(loop.index, row), mask, lambda: targets(target)))

    return Row(each, lambda x, combine: x, row)


def accumulate(
    ops: Vectors, row: Row, start: float, combine: Callable[[Vec, Vec], Vec], term: Callable[[Place], Vec]
) -> Vec:
    """combine(...) of the terms of a whole row, in each lane."""
    return accumulate_all(ops, row, start, combine, [term])[0]


def accumulate_all(
    ops: Vectors,
    row: Row,
    start: float,
    combine: Callable[[Vec, Vec], Vec],
    terms: Sequence[Callable[[Place], Vec]],
) -> list[Vec]:
    """Several of these in one sweep."""
    places = [cgutils.alloca_once(ops.b, ops.type) for _ in terms]
    for place in places:
        ops.b.store(ops.const(start).value, place)

    def add(at: Place) -> None:
        for place, term in zip(places, terms, strict=True):
            ops.b.store(combine(ops.wrap(ops.b.load(place)), term(at)).value, place)

    row.each(add)
    return [row.across(ops.wrap(ops.b.load(place)), combine) for place in places]
