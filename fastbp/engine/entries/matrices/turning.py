"""A transposed copy of a caller's matrix, whole: with few rows or few k, A @ B.T is A @ B of it.

    for k in squares, as wide as a vector has lanes:
        for j in rows of B, a vector of them at a time:
            k numbers of each, turned in registers, become a vector in each of k rows

Rows of few numbers follow each other in vectors that are full: of up to 5 each column is picked out of them.
Of up to 8 a vector takes several rows side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.matrices.packed import product_at
from fastbp.engine.entries.matrices.short_rows import each, side_by_side
from fastbp.engine.kernels.copies import transposed
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.vector import I64, Vectors, isa
from fastbp.engine.worker.partition import Worker, part_in_pieces

# Numbers of a row up to which columns are picked one by one, in vectors of 64 bytes; in others it is half of
# their lanes.
PICKED = 5
# Numbers of a row for which several share a vector.
NARROW = 8

ARGUMENTS = ("source", "source_row", "target", "target_row", "rows", "columns")


def turn(dtype: str) -> int:
    """(source, source_row, target, target_row, rows, columns): target becomes the transposed source, which
    has no gaps between rows. Strides are in bytes. Of less than a vector of rows, what is behind a row of the
    target, up to a vector, is written before the next row is."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        _Turn(b, dtype, dict(zip(ARGUMENTS, args, strict=True))).emit()

    return compile_block("turn", dtype, len(ARGUMENTS), emit)


class _Turn:
    """The code."""

    def __init__(self, b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value]) -> None:
        self.b, self.dtype, self.v = b, dtype, v
        self.ops = Vectors(b, dtype)
        self.lanes, self.size = self.ops.lanes, self.ops.itemsize
        self.end = b.sub(v["rows"], I64(self.lanes))  # where the last vector of rows begins
        # How far the target is behind where it could be written in whole cache lines.
        vector = self.lanes * self.size
        self.behind = b.sdiv(b.and_(v["target"], I64(vector - 1)), I64(self.size))
        self.nowhere = b.ptrtoint(cgutils.alloca_once(b, self.ops.type), I64)

    def emit(self) -> None:
        b, columns = self.b, self.v["columns"]
        picked = PICKED if isa().bytes >= 64 else self.lanes // 2
        narrow = NARROW if self.lanes > NARROW else picked

        def of(least: int, most: int | None) -> Any:
            more = b.icmp_signed(">=", columns, I64(least))
            return b.if_then(b.and_(more, b.icmp_signed("<=", columns, I64(most))) if most else more)

        with b.if_else(b.icmp_signed(">=", self.end, I64(0))) as (many, few):
            with many:
                for count in range(1, picked + 1):
                    with of(count, count):
                        self._each_vector(functools.partial(self._picked, count=count))
                if narrow > picked:
                    with of(picked + 1, narrow):
                        self._squares(narrow)
                with of(narrow + 1, None):
                    self._squares(self.lanes)
            with few:
                self._squares(self.lanes, few=True)

    def _each_vector(self, visit: Callable[[ir.Value], None]) -> None:
        """visit(first row) in compiled code for each vector of rows. The first one and the last one are moved
        to where the rows begin and end."""
        b, lanes = self.b, I64(self.lanes)
        count = b.sdiv(b.add(b.add(self.v["rows"], self.behind), I64(self.lanes - 1)), lanes)
        with cgutils.for_range(b, count, intp=I64) as loop:
            first = b.sub(b.mul(loop.index, lanes), self.behind)
            first = b.select(b.icmp_signed("<", first, I64(0)), I64(0), first)
            visit(b.select(b.icmp_signed("<", first, self.end), first, self.end))

    def _target(self, first: ir.Value, k: ir.Value) -> ir.Value:
        b, v = self.b, self.v
        return b.add(b.add(v["target"], b.mul(k, v["target_row"])), b.mul(first, I64(self.size)))

    def _picked(self, first: ir.Value, count: int) -> None:
        """All columns of a vector of rows, so many."""
        b, ops, v = self.b, self.ops, self.v
        at = b.add(v["source"], b.mul(first, v["source_row"]))
        vectors = [ops.load(b.add(at, I64(n * self.lanes * self.size))).value for n in range(count)]
        for k in range(count):
            ops.store(ops.wrap(each(b, vectors, k)), self._target(first, I64(k)))

    def _squares(self, width: int, few: bool = False) -> None:
        """All rows, so many columns at a time, or fewer if there are no more. few: rows, too, are less than
        a vector."""
        b, columns = self.b, self.v["columns"]
        end = b.sub(columns, I64(width))
        end = b.select(b.icmp_signed("<", end, I64(0)), I64(0), end)
        mask = Vectors(b, self.dtype, width).first_lanes(columns)
        with cgutils.for_range(b, b.sdiv(b.add(columns, I64(width - 1)), I64(width)), intp=I64) as loop:
            k = b.mul(loop.index, I64(width))
            k = b.select(b.icmp_signed("<", k, end), k, end)  # the last ones are moved back
            if few:
                self._square(I64(0), k, mask, width, few)
            else:
                self._each_vector(lambda first: self._square(first, k, mask, width, few))

    def _square(self, first: ir.Value, k: ir.Value, mask: ir.Value, width: int, few: bool) -> None:
        b, v, ops, narrow = self.b, self.v, self.ops, Vectors(self.b, self.dtype, width)
        at = b.add(b.add(v["source"], b.mul(first, v["source_row"])), b.mul(k, I64(self.size)))
        last = b.sub(v["rows"], I64(1))

        def row(n: int) -> ir.Value:
            i: ir.Value = I64(n)
            if few:  # of a row that does not exist, what is read does not matter
                i = b.select(b.icmp_signed("<", i, last), i, last)
            return narrow.load_masked(b.add(at, b.mul(i, v["source_row"])), mask).value

        vectors = []
        for n in range(width):
            vectors.append(side_by_side(b, [row(group + n) for group in range(0, self.lanes, width)]))
        for n, vector in enumerate(transposed(b, vectors, self.lanes)):
            column = b.add(k, I64(n))
            exists = b.icmp_signed("<", column, v["columns"])
            ops.store(ops.wrap(vector), b.select(exists, self._target(first, column), self.nowhere))


def _turned(t, n, address):
    """Worker t's part of a matrix that is turned: of a `CallersProduct`, C becomes B.T."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    size = links.itemsize
    q0, q1 = part_in_pieces(job.columns, links.lanes, worker)
    row = job.depth * size
    if q0 < q1:
        # Less than a vector of rows would write where others do.
        q0 = min(q0, max(np.int64(0), q1 - links.lanes))
        call(links.k0, (job.b + q0 * row, row, job.c + q0 * size, job.row * size, q1 - q0, job.depth))


def turned_of(dtype: str) -> list[int]:
    """What `_turned` calls."""
    return [turn(dtype)]


def turned_body() -> int:
    return jit.address_of("kernels-turned", jit.void(3), lambda: _turned, driver=True)
