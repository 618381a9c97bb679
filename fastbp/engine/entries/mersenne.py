"""Orders of epochs from NumPy's Mersenne Twister, in a third of the time that its interface for compiled code
takes: all numbers of a block are made together, and then taken from memory.

Matsumoto and Nishimura, ACM TOMACS 8 (1998) 3. The state is 624 words of 32 bits, each of which is a number
when its bits are mixed ("tempered"), and the place of the next one (numpy/random/src/mt19937/mt19937.h).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from fastbp.engine.compile.arrays import capsule_pointer, data_at
from fastbp.engine.simd.emit import bits_for, compile_block
from fastbp.engine.simd.vector import I32, I64, isa

# Words of a state; how far behind a word stands the one from which it is made, beside the next one.
WORDS, FAR = 624, 397
UPPER, LOWER, MATRIX = 0x80000000, 0x7FFFFFFF, 0x9908B0DF
ALL = 0xFFFFFFFF
# How bits are mixed: by how many they are shifted, to the left or not, and which of them are kept.
TEMPERING = ((11, False, ALL), (7, True, 0x9D2C5680), (15, True, 0xEFC60000), (18, False, ALL))


class _Twister:
    """Its words and numbers in compiled code, as many at a time as a vector has room for."""

    def __init__(self, b: ir.IRBuilder, key: ir.Value, numbers: ir.Value) -> None:
        self.b, self.lanes = b, int(isa().bytes) // 4
        self.key, self.numbers = (b.inttoptr(base, I32.as_pointer()) for base in (key, numbers))

    def twist(self) -> None:
        """The next words, in the place of the last ones."""
        for first, end, far in ((0, WORDS - FAR, FAR), (WORDS - FAR, WORDS - 1, FAR - WORDS)):
            self._each(I64(first), I64(end), lambda i, kind, far=far: self._word(i, kind, (1, far)))
        self._word(I64(WORDS - 1), I32, (1 - WORDS, FAR - WORDS))

    def temper(self, first: ir.Value) -> None:
        """The numbers of the words from `first` on."""
        b = self.b

        def visit(i: ir.Value, kind: ir.Type) -> None:
            y = self._load(i, kind)
            for bits, left, kept in TEMPERING:
                shifted = (b.shl if left else b.lshr)(y, self._all(kind, bits))
                y = b.xor(y, b.and_(shifted, self._all(kind, kept)))
            self._store(y, self.numbers, i)

        self._each(first, I64(WORDS), visit)

    def _word(self, i: ir.Value, kind: ir.Type, others: tuple[int, int]) -> None:
        """Word i, or a vector of them, from itself and two others, that far away."""
        b, (following, far) = self.b, (self._load(self.b.add(i, I64(other)), kind) for other in others)
        upper = b.and_(self._load(i, kind), self._all(kind, UPPER))
        y = b.or_(upper, b.and_(following, self._all(kind, LOWER)))
        odd = b.sub(self._all(kind, 0), b.and_(y, self._all(kind, 1)))
        y = b.xor(b.lshr(y, self._all(kind, 1)), b.and_(odd, self._all(kind, MATRIX)))
        self._store(b.xor(far, y), self.key, i)

    def _each(self, first: ir.Value, end: ir.Value, visit: Callable[[ir.Value, ir.Type], None]) -> None:
        """visit(i, type) from `first` to `end`: vectors, then what is left one by one."""
        whole = self.b.add(first, self.b.and_(self.b.sub(end, first), I64(-self.lanes)))
        vector = ir.VectorType(I32, self.lanes)
        for start, stop, step, kind in ((first, whole, self.lanes, vector), (whole, end, 1, I32)):
            with cgutils.for_range_slice(self.b, start, stop, I64(step), intp=I64) as (i, _):
                visit(i, kind)

    def _load(self, i: ir.Value, kind: ir.Type) -> ir.Value:
        return self.b.load(self.b.bitcast(self.b.gep(self.key, [i]), kind.as_pointer()), align=4)

    def _store(self, value: ir.Value, base: ir.Value, i: ir.Value) -> None:
        self.b.store(value, self.b.bitcast(self.b.gep(base, [i]), value.type.as_pointer()), align=4)

    def _all(self, kind: ir.Type, number: int) -> ir.Constant:
        return ir.Constant(kind, number if kind == I32 else [number] * self.lanes)


def compose() -> int:
    """(state, numbers, places, rows_of, rows, order, count): the `rows` numbers at rows_of permuted, those
    permuted again, and so on: order (count, rows) of 64 bits.

    state : address of the generator's. numbers, places : room for WORDS and `rows` words of 32 bits.

    Draws and changes are those of `shuffling.shuffle`, but one after the other: first all places to change
    with.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        state, numbers, places, rows_of, rows, order, count = args
        twister, drawn = _Twister(b, state, numbers), b.inttoptr(places, I32.as_pointer())
        next_word = b.inttoptr(b.add(state, I64(4 * WORDS)), I32.as_pointer())
        at, i = cgutils.alloca_once_value(b, b.zext(b.load(next_word), I64)), cgutils.alloca_once(b, I64)
        before, last = cgutils.alloca_once_value(b, rows_of), b.sub(rows, I64(1))
        twister.temper(b.load(at))
        with cgutils.for_range(b, count, intp=I64) as loop:
            here = b.add(order, b.mul(loop.index, b.mul(rows, I64(8))))
            target, source = (b.inttoptr(base, I64.as_pointer()) for base in (here, b.load(before)))
            b.store(here, before)
            with cgutils.for_range(b, rows, intp=I64) as copy:
                b.store(b.load(b.gep(source, [copy.index])), b.gep(target, [copy.index]))
            b.store(last, i)
            test, body, done = (b.append_basic_block(name) for name in ("test", "body", "done"))
            b.branch(test)
            b.position_at_end(test)
            b.cbranch(b.icmp_signed(">", b.load(i), I64(0)), body, done)
            b.position_at_end(body)
            with b.if_then(b.icmp_signed("==", b.load(at), I64(WORDS))):
                twister.twist()
                twister.temper(I64(0))
                b.store(I64(0), at)
            _draw(b, twister.numbers, drawn, i, at)
            b.branch(test)
            b.position_at_end(done)
            with cgutils.for_range(b, last, intp=I64) as change:
                one = b.sub(last, change.index)
                ours, theirs = b.gep(target, [one]), b.gep(target, [b.zext(b.load(b.gep(drawn, [one])), I64)])
                one, other = b.load(ours), b.load(theirs)
                b.store(one, theirs)
                b.store(other, ours)
        b.store(b.trunc(b.load(at), I32), next_word)

    return compile_block("compose", "rows", 7, emit)


def _draw(b: ir.IRBuilder, numbers: ir.Value, drawn: ir.Value, i: ir.Value, at: ir.Value) -> None:
    """Draw for place i and those below it while they have as many bits, and while there are numbers. What
    does not fit is written over by the next: no branch, and one subtraction from number to number."""
    first, begin = b.load(i), b.load(at)
    bits = bits_for(b, first)
    before, body, done = b.block, b.append_basic_block("draw"), b.append_basic_block("drawn")
    b.branch(body)
    b.position_at_end(body)
    place, number = b.phi(I64), b.phi(I64)
    other = b.and_(b.zext(b.load(b.gep(numbers, [number])), I64), bits)
    b.store(b.trunc(other, I32), b.gep(drawn, [place]))
    lower = b.sub(place, b.zext(b.icmp_signed("<=", other, place), I64))
    following = b.add(number, I64(1))
    for phi, start, later in ((place, first, lower), (number, begin, following)):
        phi.add_incoming(start, before)
        phi.add_incoming(later, body)
    alike = b.icmp_signed(">", lower, b.lshr(bits, I64(1)))
    b.cbranch(b.and_(alike, b.icmp_signed("<", following, I64(WORDS))), body, done)
    b.position_at_end(done)
    b.store(lower, i)
    b.store(following, at)


@cache
def _call() -> Callable[..., None]:
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)(compose())


def composed(generator: np.random.MT19937, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(count, rows) the orders. Whoever calls has the generator's lock."""
    orders, places = np.empty((count, len(rows)), np.int64), np.empty(WORDS + len(rows), np.uint32)
    numbers = data_at(places)
    _call()(
        state_at(generator), numbers, numbers + 4 * WORDS, data_at(rows), len(rows), data_at(orders), count
    )
    return orders


def state_at(generator: np.random.MT19937) -> int:
    """Where its words are, and behind them the place of the next one."""
    return ctypes.c_int64.from_address(capsule_pointer(generator.capsule, b"BitGenerator")).value


@cache
def is_known() -> bool:
    """Whether generators of this NumPy have them there."""
    generator = np.random.MT19937(1)
    generator.random_raw(5)
    state = generator.state["state"]
    words = np.frombuffer((ctypes.c_uint32 * (WORDS + 1)).from_address(state_at(generator)), np.uint32)
    return bool(np.array_equal(words, [*state["key"], state["pos"]]))
