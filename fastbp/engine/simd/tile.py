"""One tile of a matrix product: its part of C stays in vector registers from the first k to the last one.

The code of each height and width, which kernels/matmul.py puts together to one function; see there for what a
product is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llvmlite import ir

from fastbp.engine.simd.vector import I64, Vec, Vectors, isa

ALONG_K, ALONG_ROWS = 0, 1
# Where the accumulators start. The last two end with the ReLU: RECTIFIED starts as FROM_ROW, and what is
# below 0 becomes 0; MASKED starts at 0, and 0 is in the end what is not above 0 in a matrix to which `row`
# leads and which lies as C does. (To visit C once more took 3 to 5% of a small step.)
ZERO, FROM_C, FROM_ROW, RECTIFIED, MASKED = range(5)

# Where A and B come from beyond the first-level cache, the loop would wait for them; a variant that
# prefetches asks for those of so many k later, in cuts of so many accumulators. Worth 15 to 30% in products
# of 256 x 784 x 1024 and more; where all is near, up to 5% lost.
AHEAD, PREFETCH_FROM = 8, 8
# So many k take one turn of the loop in variants of so many accumulators, where registers are few. (With 32
# tiles are so large that it does not matter.) A core that is shared with another thread, perhaps of another
# virtual machine, issues half as many instructions: three in a cycle on Zen 3, where 12 multiply-adds take 6
# cycles, and 29 instructions for one k took 10.
UNROLLED, UNROLLED_FROM = 2, 10
# So many rows of A are reached from one pointer: base + stride * (0, 1, 2) are addresses of one instruction.
FROM_ONE = 3
# What a variant prefetches: nothing, A and B, or the next tile of C where so many k are added up (5% in
# products whose C is a large matrix of the caller's: a tile's rows are far from each other). The last one has
# fewer variants (see matmul.py).
NOTHING, OF_OPERANDS, OF_C = 0, 1, 2
PREFETCH_DEPTH = 128
# With OF_C, and where registers are many, also B of so many k later: the pages of a panel follow each other,
# but no hardware looks beyond the end of one (2 to 10% in products of 2048 x 2048 x 2048; 8 is too few).
FAR_AHEAD = 24
# Variants of so many vectors, which are for few rows, do so only where there are so many k: loads are what
# takes them time (4 x 24 x 2048 took 1.4 times as long).
WIDE = 4


@cache
def shapes() -> dict[int, int]:
    """For each width in vectors the greatest height.

    Measured on AVX-512: 14 x 2 runs at the multiply-add limit, as 7 x 4 does for few rows; a row or two want
    8 vectors, because each accumulator waits 4 cycles for itself. One row takes what is left at once.
    """
    if isa().registers == 32:
        return {1: 16, 2: 14, 3: 1, 4: 7, 5: 1, 6: 1, 7: 1, 8: 3}
    return {1: 8, 2: 6, 4: 3}


# What becomes of a vector of accumulators at a k: f(ops, A's number in all lanes, B's vector, accumulators).
Accumulate = Callable[[Vectors, Vec, Vec, Vec], Vec]

# The deltas of z from those of a, f(ops, z, a, deltas), as in kernels/activations.py.
Formula = Callable[[Vectors, Vec, Vec, Vec], Vec]


@dataclass(frozen=True)
class Aside:
    """Other work that a product does on the way, a piece of it before each group of k while there is any."""

    pieces: ir.Value  # how many there are
    do: Callable[[Vectors, ir.Value], None]  # the code of a piece: f(ops, its number)


Cells = dict[tuple[int, int], ir.Value]  # by row and vector


def opaque(b, value):
    """The same number, of which LLVM does not know how it came about."""
    return b.call(ir.InlineAsm(ir.FunctionType(I64, [I64]), "", "=r,0"), [value])


def _phi(b, *incoming):
    p = b.phi(incoming[0][0].type)
    for value, source in incoming:
        p.add_incoming(value, source)
    return p


@dataclass(frozen=True)
class _Sums:
    """How far the loop over k has come."""

    k: ir.Value  # so many are left of a group
    a: list[ir.Value]  # where A has the next one, of every third row (ALONG_ROWS: of the first)
    b: ir.Value  # where B has it
    acc: Cells


@dataclass(frozen=True)
class Tile:
    """The code for tiles of one height and width, in basic blocks of their own; v: the callback's arguments.
    relu: what becomes of deltas, where sums may end with it."""

    dtype: str
    along: int
    prefetch: int
    height: int
    width: int
    v: dict[str, ir.Value]
    accumulate: Accumulate = Vectors.fma
    relu: Formula | None = None
    aside: Aside | None = None

    @property
    def cells(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.height) for j in range(self.width)]

    def emit(self, block: ir.Block, done: ir.Block) -> None:
        """From `block`, where it begins, to a jump to `done`."""
        head, first = self._start(block)
        tail = block.function.append_basic_block("tail")
        latch, last = self._sum(head, first, tail)
        b = ir.IRBuilder(tail)
        result = {ij: _phi(b, (first[ij], head), (last[ij], latch)) for ij in self.cells}
        if self.relu is not None:
            b, result = self._finish(b, result)
        ops = Vectors(b, self.dtype)
        for ij, place in self._places(b, self.v["c"]).items():
            ops.store(ops.wrap(result[ij]), place)
        b.branch(done)

    def _places(self, b: ir.IRBuilder, base: ir.Value) -> Cells:
        """Where a matrix that lies as C does has the tile's vectors."""
        rows = [b.add(base, b.mul(I64(i), self.v["c_row"])) for i in range(self.height)]
        columns = [b.mul(I64(j), self.v["c_vector"]) for j in range(self.width)]
        return {(i, j): b.add(rows[i], columns[j]) for i, j in self.cells}

    def _finish(self, before: ir.IRBuilder, sums: Cells) -> tuple[ir.IRBuilder, Cells]:
        """What is stored, from the sums: they themselves, or what the ReLU makes of them."""
        kind, ops = self.v["start"], Vectors(before, self.dtype)
        assert self.relu is not None
        if self.along == ALONG_K:
            rectified = before.icmp_signed("==", kind, I64(RECTIFIED))
            floor = ops.splat(before.select(rectified, ops.scalar(0.0), ops.scalar(-math.inf)))
            sums = {ij: ops.maximum(ops.wrap(value), floor).value for ij, value in sums.items()}
        finish, stored = (before.function.append_basic_block(name) for name in ("finish", "stored"))
        before.cbranch(before.icmp_signed("==", kind, I64(MASKED)), finish, stored)
        b = ir.IRBuilder(finish)
        ops, masked = Vectors(b, self.dtype), {}
        z = self._places(b, b.add(self.v["row"], b.sub(self.v["c"], self.v["whole_c"])))
        for ij, value in sums.items():
            a = ops.load(z[ij])
            masked[ij] = self.relu(ops, a, a, ops.wrap(value)).value
        b.branch(stored)
        b = ir.IRBuilder(stored)
        return b, {ij: _phi(b, (sums[ij], before.block), (masked[ij], finish)) for ij in self.cells}

    def _start(self, block: ir.Block) -> tuple[ir.Block, Cells]:
        """The accumulators' first values: zeros, C, or a row. They are there in the block that is
        returned."""
        v, function = self.v, block.function
        names = ("zero", "from_c", "from_row", "head")
        zero, from_c, from_row, head = (function.append_basic_block(n) for n in names)
        start = ir.IRBuilder(block).switch(v["start"], zero)
        start.add_case(I64(FROM_C), from_c)
        for kind in (FROM_ROW, RECTIFIED):
            start.add_case(I64(kind), from_row)

        ir.IRBuilder(zero).branch(head)
        b = ir.IRBuilder(from_c)
        ops = Vectors(b, self.dtype)
        c = {ij: ops.load(place).value for ij, place in self._places(b, v["c"]).items()}
        b.branch(head)
        b = ir.IRBuilder(from_row)
        ops = Vectors(b, self.dtype)
        row = [ops.load(b.add(v["row"], b.mul(I64(j), v["row_vector"]))).value for j in range(self.width)]
        b.branch(head)

        b = ir.IRBuilder(head)
        ops = Vectors(b, self.dtype)
        nothing = ops.const(0.0).value
        first = {
            (i, j): _phi(b, (nothing, zero), (c[i, j], from_c), (row[j], from_row)) for i, j in self.cells
        }
        if self.prefetch == OF_C:
            with b.if_then(b.icmp_signed(">=", v["depth"], I64(PREFETCH_DEPTH))):
                for place in self._places(b, b.add(v["c"], b.mul(I64(self.height), v["c_row"]))).values():
                    ops.prefetch(place)
        return b.block, first

    def _sum(self, head: ir.Block, first: Cells, tail: ir.Block) -> tuple[ir.Block, Cells]:
        """The loops over groups of k, and over k; the block from which they end, and the sums there."""
        v, function = self.v, head.function
        outer = function.append_basic_block("outer")
        b = ir.IRBuilder(head)
        b.cbranch(b.icmp_signed(">", v["depth"], I64(0)), outer, tail)

        b = ir.IRBuilder(outer)  # once a group
        left, group_a, group_b = (_phi(b, (v[name], head)) for name in ("depth", "a", "b"))
        group_acc, piece = {ij: _phi(b, (first[ij], head)) for ij in self.cells}, _phi(b, (I64(0), head))
        count = b.select(b.icmp_signed("<", left, v["group"]), left, v["group"])
        # where A will be read some time from now: in the next group, or two cache lines on
        ahead = b.select(b.icmp_signed("==", v["a_group_stride"], I64(0)), I64(128), v["a_group_stride"])
        # (Where LLVM knows how far these are from each other, it finds each from the one before, in each k.)
        others = range(FROM_ONE, self.height, FROM_ONE) if self.along == ALONG_K else ()
        rows = [group_a, *(opaque(b, b.add(group_a, b.mul(v["a_stride"], I64(i)))) for i in others)]
        state, block = _Sums(count, rows, group_b, group_acc), outer
        if self.aside is not None:
            with b.if_then(b.icmp_signed("<", piece, self.aside.pieces)):
                self.aside.do(Vectors(b, self.dtype), piece)
            block = b.block
        for together in (UNROLLED, 1) if self._unrolls else (1,):
            state, block = self._loop(b, block, state, ahead, together)
            b = ir.IRBuilder(block)

        left_next = b.sub(left, count)
        left.add_incoming(left_next, block)
        group_a.add_incoming(b.add(group_a, v["a_group_stride"]), block)
        group_b.add_incoming(state.b, block)
        piece.add_incoming(b.add(piece, I64(1)), block)
        for ij in self.cells:
            group_acc[ij].add_incoming(state.acc[ij], block)
        b.cbranch(b.icmp_signed(">", left_next, I64(0)), outer, tail)
        return block, state.acc

    @property
    def _unrolls(self) -> bool:
        return isa().registers < 32 and self.height * self.width >= UNROLLED_FROM

    def _loop(
        self, b: ir.IRBuilder, before: ir.Block, state: _Sums, ahead: ir.Value, together: int
    ) -> tuple[_Sums, ir.Block]:
        """From the end of `before`: so many k together, as long as there are so many; what is left of them in
        the block that is returned."""
        function = before.function
        body, after = function.append_basic_block("body"), function.append_basic_block("after")
        b.cbranch(b.icmp_signed(">=", state.k, I64(together)), body, after)
        b = ir.IRBuilder(body)
        ops = Vectors(b, self.dtype)
        here = _Sums(
            _phi(b, (state.k, before)),
            [_phi(b, (row, before)) for row in state.a],
            _phi(b, (state.b, before)),
            {ij: _phi(b, (state.acc[ij], before)) for ij in self.cells},
        )
        k, pa, pb, acc = here.k, here.a, here.b, here.acc
        for _ in range(together):
            acc = self._multiply_add(ops, k, pa, pb, acc, ahead)
            step = I64(ops.itemsize) if self.along == ALONG_K else self.v["a_stride"]
            pa = [b.add(row, step) for row in pa]
            k, pb = b.sub(k, I64(1)), b.add(pb, self.v["b_k"])
            # (LLVM would keep more addresses than there are registers: one of each row, and what is common to
            # them, where it knows that they go on alike.)
            if together > 1:
                pb = opaque(b, pb)
            if (self.along == ALONG_K) == (together == 1):
                pa = [opaque(b, row) for row in pa]
        end = b.block
        for phi, value in ((here.k, k), *zip(here.a, pa, strict=True), (here.b, pb)):
            phi.add_incoming(value, end)
        for ij in self.cells:
            here.acc[ij].add_incoming(acc[ij], end)
        b.cbranch(b.icmp_signed(">=", k, I64(together)), body, after)
        b = ir.IRBuilder(after)
        return _Sums(
            _phi(b, (state.k, before), (k, end)),
            [_phi(b, (x, before), (y, end)) for x, y in zip(state.a, pa, strict=True)],
            _phi(b, (state.b, before), (pb, end)),
            {ij: _phi(b, (state.acc[ij], before), (acc[ij], end)) for ij in self.cells},
        ), after

    def _multiply_add(
        self, ops: Vectors, k: ir.Value, a: list[ir.Value], b: ir.Value, acc: Cells, ahead: ir.Value
    ) -> Cells:
        """One k: all accumulators, each with a multiply-add more. a, b: where A and B have this k (see
        `_Sums`)."""
        build, v = ops.b, self.v

        def vector(j: int) -> Vec:
            return ops.load(build.add(b, build.mul(I64(j), v["b_vector"])))

        def number(i: int, a: list[ir.Value] = a) -> Vec:
            step = v["a_stride"] if self.along == ALONG_K else I64(ops.itemsize)
            base, row = (a[i // FROM_ONE], i % FROM_ONE) if self.along == ALONG_K else (a[0], i)
            return ops.load_splat(build.add(base, build.mul(I64(row), step)))

        def multiplied(i: int, j: int, number: Vec, vector: Vec) -> ir.Value:
            return self.accumulate(ops, number, vector, ops.wrap(acc[i, j])).value

        if self.prefetch == OF_OPERANDS and self.height * self.width >= PREFETCH_FROM:
            self._prefetch(ops, k, a[0], b, ahead)
        if self.prefetch == OF_C and self.height * self.width >= PREFETCH_FROM and isa().registers >= 32:
            if self.width < WIDE:
                self._prefetch_b(ops, b, FAR_AHEAD)
            else:
                with build.if_then(build.icmp_signed(">=", v["depth"], I64(PREFETCH_DEPTH))):
                    self._prefetch_b(ops, b, FAR_AHEAD)
        rows = range(self.height)
        if len(acc) + self.width + 1 <= isa().registers:
            vectors = [vector(j) for j in range(self.width)]
            of_rows, columns = ((i, number(i)) for i in rows), range(self.width)
            return {(i, j): multiplied(i, j, here, vectors[j]) for i, here in of_rows for j in columns}
        # There is no register for each of B's vectors, which come one by one,
        of_vectors = ((j, vector(j)) for j in range(self.width))
        if self.height < self.width:  # for A's numbers, which are fewer.
            numbers = [number(i) for i in rows]
            return {(i, j): multiplied(i, j, numbers[i], here) for j, here in of_vectors for i in rows}
        # Nor is there one for a number of A: it is read anew in each multiply-add, which copies it to all
        # lanes. (LLVM would read it once and keep sums on the stack, for twice the time.)
        sums = {}
        for j, here in of_vectors:
            again = [opaque(build, row) for row in a]
            sums |= {(i, j): multiplied(i, j, number(i, again), here) for i in rows}
        return sums

    def _prefetch(self, ops: Vectors, k: ir.Value, a: ir.Value, b: ir.Value, ahead: ir.Value) -> None:
        build, v = ops.b, self.v
        self._prefetch_b(ops, b, AHEAD)
        if self.along == ALONG_ROWS:
            ops.prefetch(build.add(a, build.mul(v["a_stride"], I64(AHEAD))))
            return
        # A cache line of each row serves several k: the rows take turns.
        line = 64 // ops.itemsize
        here = build.add(a, ahead)
        for turn in range(0, self.height, line):
            row = build.add(build.and_(k, I64(line - 1)), I64(turn))
            ops.prefetch(build.add(here, build.mul(row, v["a_stride"])))

    def _prefetch_b(self, ops: Vectors, b: ir.Value, ahead: int) -> None:
        build, v = ops.b, self.v
        for j in range(self.width):
            at = build.add(b, build.mul(I64(j), v["b_vector"]))
            ops.prefetch(build.add(at, build.mul(v["b_k"], I64(ahead))))
