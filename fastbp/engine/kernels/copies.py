"""Copies: between a caller's matrices and packed panels, transposed squares of weights, packed columns of X,
rows of a batch.

What is "outside" is the caller's and is read and written with masks, never beyond what it has; what is
"inside" is the plan's own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels import matmul
from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I32, I64, Vectors

# Rows of a caller's matrix that are prefetched before they are packed.
ROWS_AHEAD = 8


def transposed(b: ir.IRBuilder, rows: list[ir.Value], n: int) -> list[ir.Value]:
    """n vectors of n lanes as a square, mirrored: off-diagonal squares of size 1, 2, 4, ... are swapped. Of
    fewer vectors, a power of two, such squares lie side by side."""
    span = 1
    while span < len(rows):
        swapped = list(rows)
        for i in range(len(rows)):
            if i & span:
                continue
            low = [c if not c & span else n + c - span for c in range(n)]
            high = [c + span if not c & span else n + c for c in range(n)]
            masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (low, high)]
            swapped[i] = b.shuffle_vector(rows[i], rows[i + span], masks[0])
            swapped[i + span] = b.shuffle_vector(rows[i], rows[i + span], masks[1])
        rows = swapped
        span *= 2
    return rows


def transpose(dtype: str) -> int:
    """(source, source_row, target, rows, target_step): `rows` rows of one vector each become contiguous
    squares, `target_step` apart.

    Square k has rows k * lanes, k * lanes + 1, ... of the source as its columns. Where the rows end inside a
    square, the rest of it becomes 0: the source may be the caller's, and is not read beyond its rows.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, source_row, target, rows, target_step = args
        ops = Vectors(b, dtype)
        n = ops.lanes
        size = n * ops.itemsize

        def square(number: ir.Value, load: Callable[[ir.Value, int], ir.Value]) -> None:
            base = b.add(source, b.mul(number, b.mul(source_row, I64(n))))
            out = b.add(target, b.mul(number, target_step))
            for i, row in enumerate(transposed(b, [load(base, i) for i in range(n)], n)):
                ops.store(ops.wrap(row), b.add(out, I64(i * size)))

        def row(base: ir.Value, i: int) -> ir.Value:
            return ops.load(b.add(base, b.mul(source_row, I64(i)))).value

        whole, left = b.sdiv(rows, I64(n)), b.srem(rows, I64(n))
        with cgutils.for_range(b, whole, intp=I64) as loop:
            square(loop.index, row)

        def row_or_zeros(base: ir.Value, i: int) -> ir.Value:
            exists = b.icmp_signed("<", I64(i), left)
            v = ops.load(b.select(exists, b.add(base, b.mul(source_row, I64(i))), base))
            return ops.select(exists, v, 0.0).value

        with b.if_then(b.icmp_signed(">", left, I64(0))):
            square(whole, row_or_zeros)

    return compile_block("transpose", dtype, 5, emit)


def copy_rows(dtype: str, into: bool) -> int:
    """(outside, outside_row, inside, inside_row, inside_vector, rows, columns): copy between a caller's
    matrix (columns adjacent) and a block of whole vectors; `into` the block, where what is beyond the columns
    becomes 0, or out of it."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        outside, outside_row, inside, inside_row, inside_vector, rows, columns = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        whole = b.sdiv(columns, I64(ops.lanes))
        left = b.sub(columns, b.mul(whole, I64(ops.lanes)))
        mask = ops.first_lanes(left)

        def visit(i: ir.Value, j: ir.Value, mask: ir.Value | None = None) -> None:
            there, here = (
                vector_at(b, outside, i, outside_row, j, step),
                vector_at(b, inside, i, inside_row, j, inside_vector),
            )
            if into:
                ops.store(ops.load(there) if mask is None else ops.load_masked(there, mask), here)
            elif mask is None:
                ops.store(ops.load(here), there)
            else:
                ops.store_masked(ops.load(here), there, mask)

        each_vector(b, rows, whole, visit)
        with (
            b.if_then(b.icmp_signed(">", left, I64(0))),
            cgutils.for_range(b, rows, intp=I64) as loop,
        ):
            visit(loop.index, whole, mask)

    return compile_block("copy-in" if into else "copy-out", dtype, 7, emit)


def pack_panels(dtype: str) -> int:
    """(source, source_row, target, target_pair, rows, pairs): pairs of adjacent vectors of a caller's matrix
    become panels in which those of one row follow those of the row before; `target_pair` from a pair of
    panels to the next."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, source_row, target, target_pair, rows, pairs = args
        ops = Vectors(b, dtype)
        vector = ops.lanes * ops.itemsize
        pair = I64(2 * vector)

        def visit(i: ir.Value, j: ir.Value) -> None:
            there = vector_at(b, source, i, source_row, j, pair)
            here = vector_at(b, target, i, pair, j, target_pair)
            ops.prefetch(b.add(there, b.mul(source_row, I64(ROWS_AHEAD))))
            for offset in (I64(0), I64(vector)):
                ops.store(ops.load(b.add(there, offset)), b.add(here, offset))

        each_vector(b, rows, pairs, visit)

    return compile_block("pack-panels", dtype, 6, emit)


def copy_columns(dtype: str, into: bool) -> int:
    """(outside, outside_row, inside, inside_panel, rows, columns): as `copy_rows`, but inside lie panels of
    [columns][lanes], with the rows of the caller's matrix along the lanes."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        outside, outside_row, inside, inside_panel, rows, columns = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)

        def visit(p: ir.Value, o: ir.Value) -> None:
            first = b.mul(p, lanes)
            mask = ops.first_lanes(b.sub(rows, first))
            there, here = (
                vector_at(b, outside, first, outside_row, o, I64(ops.itemsize)),
                vector_at(b, inside, p, inside_panel, o, size),
            )
            if into:
                ops.store(ops.gather(there, outside_row, mask), here)
            else:
                ops.scatter(ops.load(here), there, outside_row, mask)

        each_vector(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), columns, visit)

    return compile_block("columns-in" if into else "columns-out", dtype, 6, emit)


def turn_rows(dtype: str) -> int:
    """(outside, outside_row, inside, inside_panel, inside_column, rows, columns, exact): rows of a caller's
    matrix, of at most as many numbers as a vector has lanes, from its columns, each in whole vectors.

    Behind a row the next one's first numbers are written, before that row is; exact: not behind the last one.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        columns, width = args[6], 1
        while width <= Vectors(b, dtype).lanes:
            above = b.icmp_signed(">", columns, I64(width // 2))
            with b.if_then(b.and_(above, b.icmp_signed("<=", columns, I64(width)))):
                _turn(b, dtype, args, width)
            width *= 2

    return compile_block("turn-rows", dtype, 8, emit)


def _turn(b: ir.IRBuilder, dtype: str, args: Sequence[ir.Value], width: int) -> None:
    """`turn_rows` of so many columns, a power of two, or fewer."""
    outside, outside_row, inside, inside_panel, inside_column, rows, columns, exact = args
    ops, narrow = Vectors(b, dtype), Vectors(b, dtype, width)
    memory = b.ptrtoint(cgutils.alloca_once(b, ops.type, size=I64(width)), I64)
    exact = b.and_(b.icmp_signed("!=", exact, I64(0)), b.icmp_signed("<", columns, I64(width)))
    panels = b.sdiv(b.add(rows, I64(ops.lanes - 1)), I64(ops.lanes))
    ending = b.sub(panels, b.zext(exact, I64))
    whole = b.sdiv(rows, I64(ops.lanes))
    whole = b.select(b.icmp_signed("<", whole, ending), whole, ending)
    adjacent = b.icmp_signed("==", outside_row, I64(width * ops.itemsize))

    def turned(p: ir.Value) -> list[ir.Value]:
        """A panel: vectors with as many rows each as they have room for."""
        at, vectors = b.add(inside, b.mul(p, inside_panel)), []
        for j in range(width):
            exists = b.icmp_signed("<", I64(j), columns)
            place = b.add(at, b.mul(b.select(exists, I64(j), I64(0)), inside_column))
            vectors.append(ops.load(place).value)
        span = width
        while span > 1:  # both halves of them all take turns
            pairs, vectors = zip(vectors[: width // 2], vectors[width // 2 :], strict=True), []
            for x, y in pairs:
                for first in (0, ops.lanes // 2):
                    lanes = [
                        lane for i in range(first, first + ops.lanes // 2) for lane in (i, ops.lanes + i)
                    ]
                    vectors.append(b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, ops.lanes), lanes)))
            span //= 2
        return vectors

    with cgutils.for_range(b, whole, intp=I64) as loop:
        first = b.add(outside, b.mul(b.mul(loop.index, I64(ops.lanes)), outside_row))
        vectors = turned(loop.index)
        with b.if_else(adjacent) as (one, several):
            with one:
                for n, vector in enumerate(vectors):
                    ops.store(ops.wrap(vector), b.add(first, I64(n * ops.lanes * ops.itemsize)))
            with several:
                for n, row in itertools.product(range(width), range(ops.lanes // width)):
                    here = [row * width + lane for lane in range(width)]
                    lanes = ir.Constant(ir.VectorType(I32, width), here)
                    place = b.add(first, b.mul(I64(n * ops.lanes // width + row), outside_row))
                    numbers = b.shuffle_vector(vectors[n], vectors[n], lanes)
                    narrow.store(narrow.wrap(numbers), place)
    done = b.mul(whole, I64(ops.lanes))
    with b.if_then(b.icmp_signed("<", done, rows)):
        for n, vector in enumerate(turned(whole)):
            ops.store(ops.wrap(vector), b.add(memory, I64(n * ops.lanes * ops.itemsize)))
        with cgutils.for_range(b, b.sub(rows, done), intp=I64) as loop:
            numbers = narrow.load(b.add(memory, b.mul(loop.index, I64(width * ops.itemsize))))
            i = b.add(done, loop.index)
            place = b.add(outside, b.mul(i, outside_row))
            with b.if_else(b.and_(exact, b.icmp_signed("==", i, b.sub(rows, I64(1))))) as (few, all_):
                with few:
                    narrow.store_few(numbers, place, columns)
                with all_:
                    narrow.store(numbers, place)


def pack_inputs(dtype: str) -> int:
    """(x, x_row, packed, packed_row, rows, columns): a packed panel of A for the weights' gradient, which the
    literature calls a sliver: some columns of x in whole vectors, filled up with 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, x_row, packed, packed_row, rows, columns = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
        with cgutils.for_range(b, b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes), intp=I64) as outer:
            # Once for all rows: this loop costs what it loads.
            mask = ops.first_lanes(b.sub(columns, b.mul(outer.index, lanes)))
            with cgutils.for_range(b, rows, intp=I64) as inner:
                v = ops.load_masked(vector_at(b, x, inner.index, x_row, outer.index, size), mask)
                ops.store(v, vector_at(b, packed, inner.index, packed_row, outer.index, size))

    return compile_block("pack-inputs", dtype, 6, emit)


def pack_slivers(dtype: str) -> int:
    """(x, x_row, packed, packed_row, packed_sliver, rows, columns): as `pack_inputs`, but of any number
    of columns: as many in each packed panel as the microkernel of two vectors is high, in the last one the
    rest; `packed_sliver` apart, in one walk along the rows of x, which may be any number of bytes apart.

    Whole vectors are copied. What they have beyond a sliver's columns is the next one's, and in a packed
    panel the next row takes its place; behind the last row there must be room for a vector. Only where x has
    no more columns are they read with masks.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, x_row, packed, packed_row, packed_sliver, rows, columns = args
        ops = Vectors(b, dtype)
        height, lanes, size = I64(matmul.shapes()[2]), ops.lanes, ops.lanes * ops.itemsize
        vectors, step = -(-matmul.shapes()[2] // lanes), b.mul(height, I64(ops.itemsize))

        def places(i: ir.Value, j: ir.Value) -> list[tuple[ir.Value, ir.Value]]:
            there = vector_at(b, x, i, x_row, j, step)
            here = vector_at(b, packed, i, packed_row, j, packed_sliver)
            return [(b.add(there, I64(k * size)), b.add(here, I64(k * size))) for k in range(vectors)]

        def copy(i: ir.Value, j: ir.Value) -> None:
            for there, here in places(i, j):
                ops.store(ops.load(there), here)

        slivers = b.sdiv(b.add(columns, b.sub(height, I64(1))), height)
        beyond = b.sub(columns, I64(vectors * lanes))  # of the first sliver's vectors
        whole = b.select(b.icmp_signed("<", beyond, I64(0)), I64(0), b.add(b.sdiv(beyond, height), I64(1)))
        each_vector(b, rows, whole, copy)
        with cgutils.for_range(b, b.sub(slivers, whole), intp=I64) as outer:
            j = b.add(whole, outer.index)
            left = b.sub(columns, b.mul(j, height))
            masks = [ops.first_lanes(b.sub(left, I64(k * lanes))) for k in range(vectors)]
            with cgutils.for_range(b, rows, intp=I64) as inner:
                for (there, here), mask in zip(places(inner.index, j), masks, strict=True):
                    ops.store(ops.load_masked(there, mask), here)

    return compile_block("pack-slivers", dtype, 7, emit)


# Long rows in some order are asked for so many rows before they are copied: no hardware foresees where the
# next one begins (200 rows of 64 numbers of float64, from the second-level cache: 2% of a step of 64-100-10).
# To the second level: the first one waits for 24 lines at most (100 rows of 784 numbers from memory take 57
# us with that, and 41 so).
ROWS_AHEAD = 4


def _copy_short_rows(
    ops: Vectors, columns: ir.Value, each_row: Callable[[Callable[[ir.Value, ir.Value], None]], None]
) -> None:
    """Rows of less than a vector: of each the first and the last numbers, in shorter vectors; some numbers
    are copied twice. (A loop over them takes three times as long.)"""
    b, dtype = ops.b, "float32" if ops.single else "float64"

    def copy_by(width: int) -> None:
        few, last = Vectors(b, dtype, width), b.mul(b.sub(columns, I64(width)), I64(ops.itemsize))

        def copy(there: ir.Value, here: ir.Value) -> None:
            for offset in (I64(0), last)[: 1 + (width > 1)]:
                few.store(few.load(b.add(there, offset)), b.add(here, offset))

        with b.if_else(b.icmp_signed(">=", columns, I64(width))) as (wide, narrower):
            with wide:
                each_row(copy)
            with narrower:
                if width > 1:
                    copy_by(width // 2)

    copy_by(ops.lanes // 2)


def gather(dtype: str) -> int:
    """(order, first, rows, source, source_row, target, target_row, columns): copy so many rows, those that
    `order` lists from `first` on, or if that is 0 from row `first` on.

    Rows are short and many: a call of memcpy for each would take longer than the copy.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        order, first, rows, source, source_row, target, target_row, columns = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.itemsize)
        vector, end = b.mul(lanes, size), b.mul(b.sub(columns, lanes), size)
        row, later, last = cgutils.alloca_once(b, I64), cgutils.alloca_once(b, I64), b.sub(rows, I64(1))

        def row_at(i: ir.Value) -> ir.Value:
            place = b.add(first, i)
            b.store(place, row)
            with b.if_then(b.icmp_signed("!=", order, I64(0)), likely=True):
                b.store(b.load(b.inttoptr(b.add(order, b.mul(place, I64(8))), I64.as_pointer())), row)
            return b.add(source, b.mul(b.load(row), source_row))

        def each_row(copy: Callable[[ir.Value, ir.Value], None], long: bool = False) -> None:
            with cgutils.for_range(b, rows, intp=I64) as loop:
                if long:
                    i = b.add(loop.index, I64(ROWS_AHEAD))
                    b.store(row_at(b.select(b.icmp_signed("<", i, last), i, last)), later)
                copy(row_at(loop.index), b.add(target, b.mul(loop.index, target_row)))

        def copy_vector(there: ir.Value, here: ir.Value, offset: ir.Value) -> None:
            ops.store(ops.load(b.add(there, offset)), b.add(here, offset))

        def copy_two(there: ir.Value, here: ir.Value) -> None:
            copy_vector(there, here, I64(0))
            copy_vector(there, here, end)  # some of these numbers once more, or all

        def copy_vectors(there: ir.Value, here: ir.Value) -> None:
            with cgutils.for_range(b, b.sdiv(columns, lanes), intp=I64) as loop:
                copy_vector(there, here, b.mul(loop.index, vector))
                ops.prefetch(b.add(b.load(later), b.mul(loop.index, vector)), level=2)
            copy_vector(there, here, end)

        # A choice made in each row, or a loop of one turn, takes longer than a short row's copy.
        with b.if_else(b.icmp_signed("<", columns, lanes)) as (less, more):
            with less:
                _copy_short_rows(ops, columns, each_row)
            with more, b.if_else(b.icmp_signed("<=", columns, b.mul(lanes, I64(2)))) as (short, long):
                with short:
                    each_row(copy_two)
                with long:
                    each_row(copy_vectors, long=True)

    return compile_block("gather-rows", dtype, 8, emit)


def prefetch_rows() -> int:
    """(address, stride, rows, bytes): fetch `bytes` bytes, more than 0, of each of the rows, `stride` apart,
    to the second-level cache."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        address, stride, rows, size = args
        ops = Vectors(b, "float32")
        with cgutils.for_range(b, rows, intp=I64) as outer:
            first = b.add(address, b.mul(outer.index, stride))
            begin = b.and_(first, I64(-64))
            lines = b.lshr(b.add(b.sub(b.add(first, size), begin), I64(63)), I64(6))
            with cgutils.for_range(b, lines, intp=I64) as inner:
                ops.prefetch(b.add(begin, b.shl(inner.index, I64(6))), level=2)

    return compile_block("prefetch-rows", "bytes", 4, emit)
