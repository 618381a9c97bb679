"""Gaussian noise on a batch of inputs: fastbp.formulas.philox.standard_normal in vector registers.

The batch is the plan's own copy of rows of X. A worker owns the rows that it adds to; random numbers go by
row of the batch and column, so it does not matter who owns which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block, vector_at
from fastbp.engine.simd.philox import FACTOR, Stream, groups
from fastbp.engine.simd.vector import I64, Vec, Vectors
from fastbp.formulas.philox import ROWS_PER_NOISE_COUNTER


class _Integers:
    """Arithmetic on vectors of ops.int_type, whose lanes hold words of 32 bits."""

    def __init__(self, ops: Vectors) -> None:
        self.ops, self.b = ops, ops.b
        self.bits = 32 if ops.single else 64

    def const(self, value: int) -> ir.Value:
        return ir.Constant(self.ops.int_type, [value] * self.ops.lanes)

    def signed(self, word: ir.Value) -> ir.Value:
        """The word as a signed number of 32 bits; what is above it does not count."""
        spare = self.const(self.bits - 32)
        return self.b.ashr(self.b.shl(word, spare), spare)

    def as_float(self, value: ir.Value) -> Vec:
        """A signed number below 2^31 in size."""
        ops, b = self.ops, self.b
        if ops.single:
            return ops.wrap(b.sitofp(value, ops.type))
        # Few CPUs convert 64-bit integers: added to the bits of 1.5 * 2^52 they are in the right place of the
        # mantissa.
        start = 1.5 * 2**52
        return ops.wrap(b.bitcast(b.add(value, self.const(0x4338000000000000)), ops.type)) - start


def _radius(n: _Integers, word: ir.Value) -> Vec:
    """sqrt(-2 log u) with u = (word + 1/2) / 2^32.

    Above 1/2, u is 1 - x with x = (its complement + 1/2) / 2^32, which has more digits than u. Below, u = m
    2^e with 1 <= m < 2. Both logarithms are 2 artanh(s), with s = -x / (2 - x) or s = (m - 1) / (m + 1), and
    the latter plus e log(2).
    """
    ops, b = n.ops, n.b
    signed = n.signed(word)
    above = b.icmp_signed("<", signed, n.const(0))
    x = (n.as_float(b.xor(signed, b.ashr(signed, n.const(31)))) + 0.5) * 2.0**-32
    bits, bias = (23, 127) if ops.single else (52, 1023)
    pattern = b.bitcast(x.value, ops.int_type)
    e = n.as_float(b.sub(b.lshr(pattern, n.const(bits)), n.const(bias)))
    mantissa = b.or_(b.and_(pattern, n.const((1 << bits) - 1)), n.const(bias << bits))
    m = ops.wrap(b.bitcast(mantissa, ops.type))
    s = ops.select(above, -x, m - 1.0) / ops.select(above, 2.0 - x, m + 1.0)
    terms = 8 if ops.single else 17
    log = 2.0 * s * ops.poly(s * s, [1 / (2 * k + 1) for k in range(terms - 1, -1, -1)])
    log = ops.fma(ops.select(above, 0.0, e), math.log(2), log)
    return ops.sqrt(-2.0 * log)


def _cos_sin(n: _Integers, word: ir.Value) -> tuple[Vec, Vec]:
    """Of 2 pi word / 2^32: power series within pi / 4 of the nearest quarter of a turn, which is found
    without rounding."""
    ops, b = n.ops, n.b
    eighth = n.const(1 << 29)
    turned = b.add(word, eighth)
    quarter = b.lshr(turned, n.const(30))
    t = n.as_float(b.sub(b.and_(turned, n.const((1 << 30) - 1)), eighth)) * (2 * math.pi / 2**32)
    t2 = t * t
    terms = 6 if ops.single else 10
    cos, sin = (
        ops.poly(t2, [(-1) ** k / math.factorial(2 * k + odd) for k in range(terms - 1, -1, -1)])
        for odd in (0, 1)
    )
    sin = sin * t
    swap = b.icmp_unsigned("!=", b.and_(quarter, n.const(1)), n.const(0))

    def with_sign(v: Vec, two: ir.Value) -> Vec:
        """-v where the bit of value 2 is set."""
        sign = b.shl(b.and_(two, n.const(2)), n.const(n.bits - 2))
        return ops.wrap(b.bitcast(b.xor(b.bitcast(v.value, ops.int_type), sign), ops.type))

    return (
        with_sign(ops.select(swap, sin, cos), b.add(quarter, n.const(1))),
        with_sign(ops.select(swap, cos, sin), quarter),
    )


def add_noise(dtype: str) -> int:
    """(x, row, first, after, columns, stream, step): x += standard deviation * normal numbers, in rows first
    <= r < after of the batch at x."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, row, first, after, columns, settings, step = args
        ops = Vectors(b, dtype)
        n = _Integers(ops)
        size, lanes = I64(ops.lanes * ops.itemsize), I64(ops.lanes)
        stream = Stream(ops, settings, step)
        deviation = ops.load_splat(b.add(settings, FACTOR))
        normals = cgutils.alloca_once(b, ir.ArrayType(ops.type, ROWS_PER_NOISE_COUNTER))
        vectors = b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes)
        with cgutils.for_range(b, vectors, intp=I64) as outer:
            unit = b.mul(outer.index, lanes)
            mask = ops.first_lanes(b.sub(columns, unit))
            with groups(b, first, after, ROWS_PER_NOISE_COUNTER) as (group, top, bottom):
                words = stream.words(group, unit)
                for k, (u, v) in enumerate((words[:2], words[2:])):
                    r = _radius(n, u)
                    for i, direction in enumerate(_cos_sin(n, v)):
                        b.store((r * direction).value, b.gep(normals, [I64(0), I64(2 * k + i)]))
                with cgutils.for_range(b, bottom, start=top, intp=I64) as inner:
                    normal = ops.wrap(
                        b.load(b.gep(normals, [I64(0), b.and_(inner.index, I64(ROWS_PER_NOISE_COUNTER - 1))]))
                    )
                    at = vector_at(b, x, inner.index, row, outer.index, size)
                    ops.store_masked(ops.load_masked(at, mask) + deviation * normal, at, mask)

    return compile_block("input-noise", dtype, 7, emit)
