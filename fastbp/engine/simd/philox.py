"""The numbers of fastbp.formulas.philox in vector registers: one lane for each unit.

Units lie along the lanes, and a counter's bits go to several rows of the same unit. So what a lane computes
does not depend on how many lanes there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.vector import I64, Vectors
from fastbp.formulas.philox import KEY_STEPS, MULTIPLIERS, ROUNDS, ROWS_PER_MASK_COUNTER

# What a callback finds at the address of a stream's settings: four 64-bit integers, then two numbers of the
# dtype, 8 bytes apart.
KEY_0, KEY_1, THRESHOLD, LAYER, FACTOR, INVERSE = (I64(8 * i) for i in range(6))
SETTINGS = 6 * 8


def load_integer(b: ir.IRBuilder, settings: ir.Value, offset: ir.Value) -> ir.Value:
    return b.load(b.inttoptr(b.add(settings, offset), I64.as_pointer()))


class Stream:
    """The words of one layer in one step; `settings` is the address of its SETTINGS."""

    def __init__(self, ops: Vectors, settings: ir.Value, step: ir.Value) -> None:
        b = self.b = ops.b
        self.ops = ops
        # Each 32-bit word sits in the low half of a 64-bit lane, where the instruction that multiplies two of
        # them to 64 bits wants it.
        self.wide_lanes = ops.lanes // (2 if ops.single else 1)
        self.wide = ir.VectorType(I64, self.wide_lanes)
        low = I64(0xFFFFFFFF)
        keys = [load_integer(b, settings, offset) for offset in (KEY_0, KEY_1)]
        self.keys = [
            [self._splat(b.and_(b.add(k, I64(i * s)), low)) for k, s in zip(keys, KEY_STEPS, strict=True)]
            for i in range(ROUNDS)
        ]
        self.c2 = self._splat(b.and_(step, low))
        self.c3 = self._splat(b.or_(b.lshr(step, I64(32)), b.shl(load_integer(b, settings, LAYER), I64(16))))

    def _splat(self, scalar: ir.Value) -> ir.Value:
        return splat(self.b, scalar, self.wide_lanes)

    def _constant(self, value: int | Sequence[int]) -> ir.Value:
        return ir.Constant(self.wide, [value] * self.wide_lanes if isinstance(value, int) else value)

    def words(self, group: ir.Value, first_unit: ir.Value) -> list[ir.Value]:
        """Four vectors of ops.int_type with a word in the low 32 bits of each lane; above, in float64, is
        garbage."""
        b, ops = self.b, self.ops
        if not ops.single:
            return self._philox(group, first_unit, range(ops.lanes))
        even, odd = (self._philox(group, first_unit, range(start, ops.lanes, 2)) for start in (0, 1))
        low, half = self._constant(0xFFFFFFFF), self._constant(32)
        return [
            b.bitcast(b.or_(b.and_(e, low), b.shl(o, half)), ops.int_type)
            for e, o in zip(even, odd, strict=True)
        ]

    def _philox(self, group: ir.Value, first_unit: ir.Value, lanes: Sequence[int]) -> list[ir.Value]:
        b = self.b
        c0 = b.add(self._splat(first_unit), self._constant(list(lanes)))
        c1, c2, c3 = self._splat(group), self.c2, self.c3
        low, half = self._constant(0xFFFFFFFF), self._constant(32)
        m0, m1 = map(self._constant, MULTIPLIERS)
        for k0, k1 in self.keys:
            p0, p1 = b.mul(b.and_(c0, low), m0), b.mul(b.and_(c2, low), m1)
            c0 = b.xor(b.xor(b.lshr(p1, half), c1), k0)
            c2 = b.xor(b.xor(b.lshr(p0, half), c3), k1)
            c1, c3 = p1, p0  # their high halves stay, and are never looked at
        return [c0, c1, c2, c3]


def splat(b: ir.IRBuilder, scalar: ir.Value, lanes: int) -> ir.Value:
    kind = ir.VectorType(scalar.type, lanes)
    i32 = ir.IntType(32)
    v = b.insert_element(ir.Constant(kind, ir.Undefined), scalar, i32(0))
    return b.shuffle_vector(
        v, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
    )


@contextmanager
def groups(
    b: ir.IRBuilder, first: ir.Value, after: ir.Value, size: int
) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """A loop over the groups of `size` rows that have some of the rows first <= r < after: the group, its
    first such row, and the row after its last."""
    with cgutils.for_range(
        b, b.udiv(b.add(after, I64(size - 1)), I64(size)), start=b.udiv(first, I64(size)), intp=I64
    ) as loop:
        top, bottom = b.mul(loop.index, I64(size)), b.mul(b.add(loop.index, I64(1)), I64(size))
        top = b.select(b.icmp_signed("<", top, first), first, top)
        yield loop.index, top, b.select(b.icmp_signed("<", after, bottom), after, bottom)


class Mask:
    """Dropout's mask of a block, vector by vector: fastbp.formulas.philox.kept."""

    def __init__(self, ops: Vectors, settings: ir.Value, step: ir.Value) -> None:
        b = ops.b
        self.ops, self.stream = ops, Stream(ops, settings, step)
        self.bits = 32 if ops.single else 64
        limit = b.shl(load_integer(b, settings, THRESHOLD), I64(self.bits - 16))
        self.limit = splat(b, b.trunc(limit, ops.int_scalar) if ops.single else limit, ops.lanes)
        array = ir.ArrayType(ops.int_type, ROWS_PER_MASK_COUNTER)
        self.parts = cgutils.alloca_once(b, array)

    def draw(self, group: ir.Value, first_unit: ir.Value) -> None:
        """For ROWS_PER_MASK_COUNTER rows, 16 bits at the upper end of each lane."""
        b, ops = self.ops.b, self.ops
        shift = lambda v, n: b.shl(v, ir.Constant(ops.int_type, [n] * ops.lanes)) if n else v  # noqa: E731
        for i, word in enumerate(self.stream.words(group, first_unit)):
            for k, part in enumerate((shift(word, self.bits - 16), shift(word, self.bits - 32))):
                b.store(part, self._place(I64(2 * i + k)))

    def _place(self, row: ir.Value) -> ir.Value:
        return self.ops.b.gep(self.parts, [I64(0), row])

    def kept(self, row: ir.Value) -> ir.Value:
        """row: 0 <= row < ROWS_PER_MASK_COUNTER, of the group drawn last."""
        return self.ops.b.icmp_unsigned(">=", self.ops.b.load(self._place(row)), self.limit)
