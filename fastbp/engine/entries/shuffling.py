"""The orders of epochs: the numbers that NumPy's `Generator.permuted` makes, or `RandomState.shuffle`, in a
third of the time.

The random numbers come from NumPy's own bit generator, by its interface for compiled code
(numpy/random/bitgen.h), so any kind of it will do.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numpy.typing import NDArray

from fastbp.engine.compile.arrays import capsule_pointer, data_at
from fastbp.engine.compile.intrinsics import peek, store_number
from fastbp.engine.compile.jit import inner
from fastbp.engine.simd.emit import bits_for, compile_block
from fastbp.engine.simd.vector import I32, I64

# Beyond so many rows NumPy draws numbers of 64 bits.
MOST_ROWS = 1 << 32
# Fields of the C struct bitgen_t, all of them addresses.
STATE, NEXT_32_BITS = 0, 2
# 64-bit integers that a position is, see `keep_position`.
POSITION = 3


def shuffle() -> int:
    """(generator, rows_of, rows, order, count): draw so many permutations, one behind the other.

    generator : address of a bitgen_t. rows_of : address of the `rows` numbers that are permuted; 0 for 0, 1,
    ... rows - 1. order : (count, rows).

    Fisher and Yates's way from the last place down: place i changes with one from 0 to i, which is drawn from
    as many bits as i has, and again while it is larger. Half of the draws are, at worst, and no core foresees
    which. So there is no branch: a number that is too large makes i change with itself, and i stays.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        generator, rows_of, rows, order, count = args
        word = I64.as_pointer()

        def field(k: int) -> ir.Value:
            return b.load(b.gep(b.inttoptr(generator, word), [I64(k)]))

        state = field(STATE)
        draw = b.inttoptr(field(NEXT_32_BITS), ir.FunctionType(I32, [I64]).as_pointer())
        with cgutils.for_range(b, count, intp=I64) as loop:
            first = b.inttoptr(b.add(order, b.mul(loop.index, b.mul(rows, I64(8)))), word)
            with b.if_else(b.icmp_signed("==", rows_of, I64(0))) as (all_rows, some):
                with all_rows, cgutils.for_range(b, rows, intp=I64) as fill:
                    b.store(fill.index, b.gep(first, [fill.index]))
                with some, cgutils.for_range(b, rows, intp=I64) as fill:
                    number = b.load(b.gep(b.inttoptr(rows_of, word), [fill.index]))
                    b.store(number, b.gep(first, [fill.index]))
            last = b.sub(rows, I64(1))
            before, body, done = b.block, b.append_basic_block("place"), b.append_basic_block("done")
            b.cbranch(b.icmp_signed(">", last, I64(0)), body, done)

            b.position_at_end(body)
            i = b.phi(I64)
            j = b.and_(b.zext(b.call(draw, [state]), I64), bits_for(b, i))
            fits = b.icmp_signed("<=", j, i)
            here, there = b.gep(first, [i]), b.gep(first, [b.select(fits, j, i)])
            ours, theirs = b.load(here), b.load(there)
            b.store(ours, there)
            b.store(theirs, here)
            following = b.sub(i, b.zext(fits, I64))
            i.add_incoming(last, before)
            i.add_incoming(following, body)
            b.cbranch(b.icmp_signed(">", following, I64(0)), body, done)
            b.position_at_end(done)

    return compile_block("shuffle", "rows", 5, emit)


def bit_generator_at(generator: np.random.Generator) -> int:
    """The address of its bitgen_t, there as long as the generator is."""
    return capsule_pointer(generator.bit_generator.capsule, b"BitGenerator")


@inner
def keep_position(generator, place):
    """Copy to `place` where a PCG64 is (numpy/random/src/pcg64/pcg64.h): the address of its state of 128
    bits, and behind that address 32 bits that were drawn and not used yet, and whether there are any."""
    state = peek(generator, STATE)
    store_number(place, peek(peek(state, 0), 0))
    store_number(place + 8, peek(peek(state, 0), 1))
    store_number(place + 16, peek(state, 1))


@inner
def go_back(generator, place):
    """Put it where it was then."""
    state = peek(generator, STATE)
    store_number(peek(state, 0), peek(place, 0))
    store_number(peek(state, 0) + 8, peek(place, 1))
    store_number(state + 8, peek(place, 2))


_word = ctypes.c_uint64.from_address


def position_of(generator: int) -> tuple[int, ...]:
    """The same for Python: what `keep_position` notes of the bitgen_t at that address."""
    state = _word(generator + 8 * STATE).value
    numbers = _word(state).value
    return _word(numbers).value, _word(numbers + 8).value, _word(state + 8).value


def go_to(generator: int, position: tuple[int, ...]) -> None:
    """Put it back there."""
    state = _word(generator + 8 * STATE).value
    numbers = _word(state).value
    _word(numbers).value, _word(numbers + 8).value, _word(state + 8).value = position


@cache
def knows_positions() -> bool:
    """Whether generators of this NumPy keep their position where `keep_position` looks for it."""
    generator = np.random.default_rng(1)
    generator.integers(1 << 32, dtype=np.uint32)  # one half of 64 bits
    known = generator.bit_generator.state
    if known["bit_generator"] != "PCG64":
        return False
    low, high, half = position_of(bit_generator_at(generator))
    whole = low + (high << 64)
    return bool(whole == known["state"]["state"] and half == 1 + (known["uinteger"] << 32))


_calls: list[Any] = []  # of `shuffle_call`, once it is compiled


def shuffle_call() -> Any:
    if not _calls:
        _calls.append(ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 5)(shuffle()))
    return _calls[0]


def is_compiled() -> bool:
    """Whether `permutations` is."""
    return bool(_calls)


def permutations(generator: np.random.Generator, at: int, rows: int, count: int) -> NDArray[np.int64]:
    """(count * rows,) so many permutations of 0, 1, ..., rows - 1, one behind the other; the numbers of
    `generator.permuted`, and as many draws. at : the address of its bitgen_t.

    No other thread may draw from it meanwhile. (NumPy's lock for that may be one that a signal handler, which
    trains the same model, would wait for forever.)
    """
    if rows > MOST_ROWS:
        return generator.permuted(np.tile(np.arange(rows), (count, 1)), axis=1).ravel()
    order = np.empty(count * rows, np.int64)
    shuffle_call()(at, 0, rows, data_at(order), count)
    return order


def shuffled(random: np.random.RandomState, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(count, rows) what `random.shuffle` makes of `rows`, of that, and so on; as many draws, under NumPy's
    lock, as there."""
    orders = np.empty((count, len(rows)), np.int64)
    if len(rows) > MOST_ROWS:
        for order in orders:
            order[...] = rows
            random.shuffle(order)
            rows = order
        return orders
    generator = random._bit_generator  # NumPy's stubs declare it; there is no other way to it
    at = capsule_pointer(generator.capsule, b"BitGenerator")
    call, size, before = shuffle_call(), len(rows), data_at(rows)
    with generator.lock:
        for here in range(data_at(orders), data_at(orders) + orders.nbytes, 8 * size):
            call(at, before, size, here, 1)
            before = here
    return orders
