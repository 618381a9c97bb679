"""A matrix of short rows times a vector: a vector register has numbers of as many rows as it has lanes.

    for i in rows, as many as a vector has lanes:
        for k in depth:
            A[i, k] of all these rows, out of the vectors that A's rows fill
        C[i] = bias + A[i, 0] b[0] + A[i, 1] b[1] + ...

Rows that are longer than some numbers have vectors of their own, of 8 numbers each side by side, or whole
ones along the depth. Then it is sums whose lanes are added, those of all rows together.

What belongs to a row is added in the order in which few_columns.py and dot_tiles.py add it, which do rows one
by one, or up to four (ten times as long where they have one number, 1.3 times where they have 64).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.vector import I32, I64, Vec, Vectors

# Numbers of a row up to which each is picked, in vectors of 8 and more and in shorter ones, and up to which
# several rows share a vector. Vectors of a row up to which rows are short: longer ones come from farther
# away, in as many streams as a register has lanes.
PICKED, FEW_PICKED, NARROW, LONG = 5, 3, 8, 32


def shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Sequence[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def halved(b: ir.IRBuilder, vectors: tuple[ir.Value, ...], group: int, per: int = 0) -> ir.Value:
    """Of each `per` lanes (or each group) of one or two vectors, the first half plus the second. Groups of
    both take turns."""
    half, count = (per or group) // 2, vectors[0].type.count
    lower = [
        which * count + first + piece + n
        for first in range(0, count, group)
        for which in range(len(vectors))
        for piece in range(0, group, 2 * half)
        for n in range(half)
    ]
    x, y = vectors[0], vectors[-1]
    return b.fadd(shuffled(b, x, y, lower), shuffled(b, x, y, [lane + half for lane in lower]))


def are_short_rows(b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value]) -> ir.Value:
    """Whether the product of these arguments is one for `short_rows`: C is to have no gaps either."""
    ops = Vectors(b, dtype)
    return functools.reduce(
        b.and_,
        [
            b.icmp_signed(">=", v["rows"], I64(ops.lanes)),
            b.icmp_signed("==", v["c_row"], I64(ops.itemsize)),
        ],
    )


def short_rows(b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value]) -> None:
    """The code; v: arguments of few_columns.py's kernel."""
    ops = Vectors(b, dtype)
    given = b.icmp_signed("!=", v["bias"], I64(0))
    bias = ops.load_splat(b.select(given, v["bias"], v["c"]))  # without one, what is read does not matter
    start = ops.select(given, bias, 0.0)
    picked = PICKED if ops.lanes >= 8 else FEW_PICKED
    for depth in range(picked + 1):
        with b.if_then(b.icmp_signed("==", v["depth"], I64(depth))):
            factors = [ops.load_splat(b.add(v["b"], b.mul(I64(k), v["b_row"]))) for k in range(depth)]
            _each_block(ops, v, lambda i, factors=factors: _picked(ops, v, i, start, factors))
    narrow = NARROW if ops.lanes > NARROW else picked
    if narrow > picked:
        some = b.icmp_signed("<=", v["depth"], I64(narrow))
        with b.if_then(b.and_(some, b.icmp_signed(">", v["depth"], I64(picked)))):
            _each_block(ops, v, _Sums(ops, v, start, narrow).narrow)
    with b.if_then(b.icmp_signed(">", v["depth"], I64(narrow))):
        _each_block(ops, v, _Sums(ops, v, start, ops.lanes).long)


def _each_block(ops: Vectors, v: dict[str, ir.Value], visit: Callable[[ir.Value], Vec]) -> None:
    """All rows, C from visit(the first of a vector of them); the last ones are moved back to where they
    end."""
    b, lanes = ops.b, I64(ops.lanes)
    end = b.sub(v["rows"], lanes)
    blocks = b.sdiv(b.add(v["rows"], I64(ops.lanes - 1)), lanes)
    with cgutils.for_range(b, blocks, intp=I64) as loop:
        i = b.mul(loop.index, lanes)
        i = b.select(b.icmp_signed("<", i, end), i, end)
        ops.store(visit(i), b.add(v["c"], b.mul(i, I64(ops.itemsize))))


def _picked(ops: Vectors, v: dict[str, ir.Value], i: ir.Value, start: Vec, factors: list[Vec]) -> Vec:
    """C of a vector of rows, of which each number is picked."""
    b, depth = ops.b, len(factors)
    a = b.add(v["a"], b.mul(i, I64(depth * ops.itemsize)))
    vectors = [ops.load(b.add(a, I64(n * ops.lanes * ops.itemsize))).value for n in range(depth)]
    terms = [ops.wrap(each(b, vectors, k)) * factor for k, factor in enumerate(factors)]
    half = 1 << max(depth - 1, 0).bit_length()
    while half >= 1:
        pairs = [terms[k : k + half + 1 : half] for k in range(min(half, len(terms)))]
        terms, half = [functools.reduce(Vec.__add__, pair) for pair in pairs], half // 2
    return start + terms[0] if terms else start


class _Sums:
    """C of a vector of rows that have vectors of their own: what belongs to a row is there in some lanes, and
    in the end these are added for all rows together."""

    def __init__(self, ops: Vectors, v: dict[str, ir.Value], start: Vec, width: int) -> None:
        """width: numbers of such a vector."""
        self.b, self.ops, self.v, self.start, self.width = ops.b, ops, v, start, width
        self.few = Vectors(ops.b, "float32" if ops.single else "float64", width)
        # An instruction can add 1, 2, 4 or 8 times a register to another one.
        self.steps = {odd: ops.b.mul(v["a_row"], I64(odd)) for odd in (1, 3, 5, 7)}

    def _rows(self, first: ir.Value) -> list[ir.Value]:
        """The addresses of all rows, from that of the first one."""
        places, b = [first], self.b
        for n in range(1, self.ops.lanes):
            power = (n % 8 & -(n % 8)).bit_length() - 1
            near = places[n // 8 * 8] if n % 8 else first
            step = b.shl(self.steps[n % 8 >> power], I64(power)) if n % 8 else b.shl(self.steps[1], I64(3))
            places.append(b.add(near, step))
        return places

    def narrow(self, i: ir.Value) -> Vec:
        """Of rows from i on with one vector, which lie side by side in those of a register."""
        b, ops, v, few, width = self.b, self.ops, self.v, self.few, self.width
        mask = few.first_lanes(v["depth"])
        factors = few.load_masked(v["b"], mask).value
        factor = ops.wrap(shuffled(b, factors, factors, [lane % width for lane in range(ops.lanes)]))
        places = self._rows(b.add(v["a"], b.mul(i, v["a_row"])))
        rows = [few.load_masked(place, mask).value for place in places]
        vectors = [side_by_side(b, rows[n::width]) for n in range(width)]
        return self._folded([(ops.wrap(x) * factor).value for x in vectors])

    def long(self, i: ir.Value) -> Vec:
        """Of rows from i on with whole vectors."""
        b, ops, v = self.b, self.ops, self.v
        a = b.add(v["a"], b.mul(i, v["a_row"]))
        sums = [cgutils.alloca_once(b, ops.type) for _ in range(ops.lanes)]
        for s in sums:
            b.store(ops.const(0.0).value, s)

        def add(at: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
            factor = load(b.add(v["b"], at))
            for s, row in zip(sums, self._rows(b.add(a, at)), strict=True):
                b.store(ops.fma(load(row), factor, ops.wrap(b.load(s))).value, s)

        each_vector(ops, v["depth"], add)
        return self._folded([b.load(s) for s in sums])

    def _folded(self, vectors: list[ir.Value]) -> Vec:
        """Of each row's lanes the second half is added to the first one, until it has a single one."""
        per = self.width
        while per > 1:  # rows of both halves of the vectors take turns: in the end they are in order
            half = len(vectors) // 2
            pairs = zip(vectors[:half], vectors[half:], strict=True)
            vectors, per = [halved(self.b, pair, per) for pair in pairs], per // 2
        return self.start + self.ops.wrap(vectors[0])


def each_vector(ops: Vectors, depth: ir.Value, visit: Callable[[ir.Value, Callable[..., Vec]], None]) -> None:
    """visit(at, load) in compiled code for each vector of so many numbers: where it begins, in bytes, and
    what loads it; the last one may be masked."""
    b, lanes, vector = ops.b, I64(ops.lanes), I64(ops.lanes * ops.itemsize)
    whole = b.udiv(depth, lanes)
    left = b.sub(depth, b.mul(whole, lanes))
    with cgutils.for_range(b, whole, intp=I64) as loop:
        visit(b.mul(loop.index, vector), ops.load)
    with b.if_then(b.icmp_signed(">", left, I64(0))):
        mask = ops.first_lanes(left)
        visit(b.mul(whole, vector), lambda address: ops.load_masked(address, mask))


def side_by_side(b: ir.IRBuilder, vectors: list[ir.Value]) -> ir.Value:
    """One vector of some, a power of two of them."""
    while len(vectors) > 1:
        lanes = range(2 * vectors[0].type.count)
        vectors = [shuffled(b, *vectors[n : n + 2], lanes) for n in range(0, len(vectors), 2)]
    return vectors[0]


def each(b: ir.IRBuilder, vectors: list[ir.Value], k: int) -> ir.Value:
    """Number k of each row, from the vectors that the rows fill."""
    lanes = vectors[0].type.count
    places = [row * len(vectors) + k for row in range(lanes)]
    found = shuffled(b, vectors[0], vectors[0], [place % lanes for place in places])
    for n, vector in enumerate(vectors[1:], 1):
        here = [lanes + place % lanes if place // lanes == n else row for row, place in enumerate(places)]
        found = shuffled(b, found, vector, here)
    return found
