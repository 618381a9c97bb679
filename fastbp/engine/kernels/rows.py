"""Whole rows of the last layer: softmax, and errors that need it or the weights of samples.

Elsewhere elementwise work rides along with the products, block by block. Here a number depends on its whole row, so that the work waits
until the row is complete. Sums over a row go vector by vector and then across the lanes, whoever does them.

    wide    a row of z is `columns` numbers in panels, `chunk` of them side by side; the lanes are columns
    thin    z is [outputs][rows] (see step.py): the lanes are rows, and a sum over outputs needs nothing across them
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils

from fastbp import losses
from fastbp.engine.kernels import formulas
from fastbp.engine.kernels.blocks import compile_block
from fastbp.engine.simd.vector import I64, Vec, Vectors


@dataclass
class Place:
    """One vector of a row: which one, how far it lies behind the row's beginning, which lanes exist, and the targets that belong to it."""

    index: ir.Value
    offset: ir.Value
    mask: ir.Value
    target: Callable[[], Vec]


@dataclass
class Row:
    """One row, or where the lanes are rows, as many of them. each(visit) calls visit(place) for its vectors, in compiled code."""

    each: Callable[[Callable[[Place], None]], None]
    across: Callable[[Vec, Callable[[Vec, Vec], Vec]], Vec]  # combines what lies in different lanes of a row


def wide(ops: Vectors, columns: ir.Value, chunk: ir.Value, chunk_bytes: ir.Value, y: ir.Value) -> Row:
    b, lanes, size = ops.b, I64(ops.lanes), I64(ops.lanes * ops.itemsize)
    panels = b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes)
    chunks = b.sdiv(b.add(panels, b.sub(chunk, I64(1))), chunk)

    def each(visit: Callable[[Place], None]) -> None:
        with cgutils.for_range(b, chunks, intp=I64) as outer:
            first = b.mul(outer.index, chunk)
            left = b.sub(panels, first)
            here = b.select(b.icmp_signed("<", left, chunk), left, chunk)
            with cgutils.for_range(b, here, intp=I64) as inner:
                p = b.add(first, inner.index)
                mask = ops.first_lanes(b.sub(columns, b.mul(p, lanes)))
                offset = b.add(b.mul(outer.index, chunk_bytes), b.mul(inner.index, size))
                visit(Place(p, offset, mask, lambda: ops.load_masked(b.add(y, b.mul(p, size)), mask)))

    return Row(each, ops.across)


def _thin(ops: Vectors, outputs: ir.Value, row: ir.Value, y: ir.Value, y_row: ir.Value, mask: ir.Value) -> Row:
    b = ops.b

    def each(visit: Callable[[Place], None]) -> None:
        with cgutils.for_range(b, outputs, intp=I64) as loop:
            target = b.add(y, b.mul(loop.index, I64(ops.itemsize)))
            visit(Place(loop.index, b.mul(loop.index, row), mask, lambda: ops.gather(target, y_row, mask)))

    return Row(each, lambda x, combine: x)


def accumulate(ops: Vectors, row: Row, start: float, combine: Callable[[Vec, Vec], Vec], term: Callable[[Place], Vec]) -> Vec:
    """combine(...) of the terms of a whole row, in each lane."""
    return accumulate_all(ops, row, start, combine, [term])[0]


def accumulate_all(ops: Vectors, row: Row, start: float, combine: Callable[[Vec, Vec], Vec], terms: Sequence[Callable[[Place], Vec]]) -> list[Vec]:
    """Several of these in one sweep."""
    places = [cgutils.alloca_once(ops.b, ops.type) for _ in terms]
    for place in places:
        ops.b.store(ops.const(start).value, place)

    def add(at: Place) -> None:
        for place, term in zip(places, terms, strict=True):
            ops.b.store(combine(ops.wrap(ops.b.load(place)), term(at)).value, place)

    row.each(add)
    return [row.across(ops.wrap(ops.b.load(place)), combine) for place in places]


def _exponentials(ops: Vectors, row: Row, z: ir.Value, out: ir.Value) -> tuple[Vec, Vec]:
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
            _, total = _exponentials(ops, row, from_z, to)
            inverse = 1.0 / total

            def divide(at: Place) -> None:
                place = b.add(to, at.offset)
                ops.store(ops.load(place) * inverse, place)

            row.each(divide)

    return compile_block("softmax", dtype, 7, emit)


def _error_of(
    ops: Vectors,
    row: Row,
    outputs: ir.Value,
    activation: str,
    loss: str,
    z: ir.Value,
    a: ir.Value | None,
    d: ir.Value,
    factor: Vec,
    weight: Vec | None,
) -> None:
    """d = factor * weight * d(loss)/dz, and, where `a` is None and has to be computed, weight * loss in the place of z."""
    b = ops.b
    factor = factor if weight is None else factor * weight
    at_z, at_a, at_d = (lambda at, base=base: b.add(base, at.offset) for base in (z, d if a is None else a, d))

    def finish(at: Place, value: Vec, delta: Vec) -> None:
        if a is None:
            ops.store(ops.select(at.mask, value if weight is None else value * weight, 0.0), at_z(at))
        ops.store(ops.select(at.mask, delta * factor, 0.0), at_d(at))

    if activation != "softmax":
        formula, kind = formulas.loss(loss), formulas.ACTIVATIONS[activation]

        def elementwise(at: Place) -> None:
            zv = ops.load(at_z(at))
            av = ops.load(at_a(at)) if a is not None else kind.value(ops, zv) if kind.value else zv
            finish(at, *formula(ops, zv, av, at.target(), kind.chain))

        row.each(elementwise)
        return

    m, inverse, log_sum = ops.const(0.0), ops.const(1.0), ops.const(0.0)
    if a is None:  # a begins as the exponentials, in the place of d
        m, total = _exponentials(ops, row, z, d)
        inverse, log_sum = 1.0 / total, ops.log_from_one(total)
    entry = losses.get(loss)
    if entry.of_classes:
        smoothing = entry.parameter or 0.0
        share = ops.splat(b.fdiv(ir.Constant(ops.scalar, smoothing), b.sitofp(outputs, ops.scalar)))

        def crossentropy(at: Place) -> None:
            av = ops.load(at_a(at)) * inverse
            target = at.target() * (1 - smoothing) + share if smoothing else at.target()
            finish(at, *formulas.categorical_crossentropy(ops, ops.load(at_z(at)) - m, av, target, log_sum))

        row.each(crossentropy)
        return
    formula = formulas.loss(loss)

    def both(at: Place) -> tuple[Vec, Vec, Vec]:
        """a, the loss, and its derivative with respect to a."""
        av = ops.load(at_a(at)) * inverse
        return (av, *formula(ops, av, av, at.target(), None))

    def product(at: Place) -> Vec:
        av, _, slope = both(at)
        return ops.select(at.mask, av * slope, 0.0)

    dot = accumulate(ops, row, 0.0, lambda x, y: x + y, product)

    def through(at: Place) -> None:
        av, value, slope = both(at)
        finish(at, value, av * (slope - dot))

    row.each(through)


def error(activation: str, loss: str, dtype: str, *, activated: bool, weighted: bool) -> int:
    """(z, a, d, y_true, y_row, rows, columns, row, chunk, chunk_bytes, scale): as blocks.error, for whole rows.

    weighted: the number behind a row of y_true is the row's weight, and multiplies its error and loss.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, d, y, y_row, rows, columns, stride, chunk, chunk_bytes, scale = args
        ops = Vectors(b, dtype)
        factor = ops.load_splat(scale)
        with cgutils.for_range(b, rows, intp=I64) as loop:
            z_here, a_here, d_here = (b.add(base, b.mul(loop.index, stride)) for base in (z, a, d))
            y_here = b.add(y, b.mul(loop.index, y_row))
            row = wide(ops, columns, chunk, chunk_bytes, y_here)
            weight = ops.load_splat(b.add(y_here, b.mul(columns, I64(ops.itemsize)))) if weighted else None
            _error_of(ops, row, columns, activation, loss, z_here, a_here if activated else None, d_here, factor, weight)

    key = f"row-error-{activation}-{loss}-{'a' if activated else 'z'}{'-weighted' if weighted else ''}"
    return compile_block(key, dtype, 11, emit)


def thin_error(activation: str, loss: str, dtype: str, weighted: bool) -> int:
    """(z, d, y_true, y_row, rows, outputs, row, scale): as blocks.thin_error, for whole rows; weighted as in `error`."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, d, y, y_row, rows, outputs, stride, scale = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
        factor = ops.load_splat(scale)
        with cgutils.for_range(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), intp=I64) as loop:
            first = b.mul(loop.index, lanes)
            mask = ops.first_lanes(b.sub(rows, first))
            y_here = b.add(y, b.mul(first, y_row))
            z_here, d_here = (b.add(base, b.mul(loop.index, size)) for base in (z, d))
            row = _thin(ops, outputs, stride, y_here, y_row, mask)
            weight = ops.gather(b.add(y_here, b.mul(outputs, I64(ops.itemsize))), y_row, mask) if weighted else None
            _error_of(ops, row, outputs, activation, loss, z_here, None, d_here, factor, weight)

    return compile_block(f"thin-row-error-{activation}-{loss}{'-weighted' if weighted else ''}", dtype, 8, emit)
