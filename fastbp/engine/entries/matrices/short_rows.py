"""A matrix of a few columns times a vector: a vector register has numbers of as many rows as it has lanes.

    for i in rows, as many as a vector has lanes:
        for k in depth:
            A[i, k] of all these rows, out of the vectors that A's rows fill
        C[i] = bias + A[i, 0] b[0] + A[i, 1] b[1] + ...

What belongs to a row is added in the order in which few_columns.py adds it, which does rows one by one (ten
times as long where they have one number).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.vector import I32, I64, Vec, Vectors

# Numbers of a row up to which this takes less time.
SHORT = 6


def shuffled(b: ir.IRBuilder, x: ir.Value, y: ir.Value, lanes: Sequence[int]) -> ir.Value:
    return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes)))


def are_short_rows(b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value]) -> ir.Value:
    """Whether the product of these arguments is one for `short_rows`: C is to have no gaps either."""
    ops = Vectors(b, dtype)
    return functools.reduce(
        b.and_,
        [
            b.icmp_signed("<=", v["depth"], I64(SHORT)),
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
    for depth in range(SHORT + 1):
        with b.if_then(b.icmp_signed("==", v["depth"], I64(depth))):
            factors = [ops.load_splat(b.add(v["b"], b.mul(I64(k), v["b_row"]))) for k in range(depth)]
            _all_rows(ops, v, start, factors)


def _all_rows(ops: Vectors, v: dict[str, ir.Value], start: Vec, factors: list[Vec]) -> None:
    """All rows, the last ones moved back to where they end."""
    b, lanes, depth = ops.b, I64(ops.lanes), len(factors)
    end = b.sub(v["rows"], lanes)
    blocks = b.sdiv(b.add(v["rows"], I64(ops.lanes - 1)), lanes)
    with cgutils.for_range(b, blocks, intp=I64) as loop:
        i = b.mul(loop.index, lanes)
        i = b.select(b.icmp_signed("<", i, end), i, end)
        a = b.add(v["a"], b.mul(i, I64(depth * ops.itemsize)))
        vectors = [ops.load(b.add(a, I64(n * ops.lanes * ops.itemsize))).value for n in range(depth)]
        terms = [ops.wrap(_each(b, vectors, k)) * factor for k, factor in enumerate(factors)]
        half = 1 << max(depth - 1, 0).bit_length()
        while half >= 1:
            pairs = [terms[k : k + half + 1 : half] for k in range(min(half, len(terms)))]
            terms, half = [functools.reduce(Vec.__add__, pair) for pair in pairs], half // 2
        total = start + terms[0] if terms else start
        ops.store(total, b.add(v["c"], b.mul(i, I64(ops.itemsize))))


def _each(b: ir.IRBuilder, vectors: list[ir.Value], k: int) -> ir.Value:
    """Number k of each row, from the vectors that the rows fill."""
    lanes = vectors[0].type.count
    places = [row * len(vectors) + k for row in range(lanes)]
    found = shuffled(b, vectors[0], vectors[0], [place % lanes for place in places])
    for n, vector in enumerate(vectors[1:], 1):
        here = [lanes + place % lanes if place // lanes == n else row for row, place in enumerate(places)]
        found = shuffled(b, found, vector, here)
    return found
