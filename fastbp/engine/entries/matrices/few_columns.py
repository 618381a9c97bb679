"""A @ B with fewer columns than a vector has lanes: a vector holds numbers of several rows of B.

    for i in rows, some at a time:
        for k in steps of as many rows of B as a vector holds:
            C[i] += A[i, k] B[k], A[i, k + 1] B[k + 1], ..., side by side

B is copied once for all of A, but where A has few rows: each column takes as many lanes as there are such
rows of B, so that those numbers of A are loaded to all columns as they are. (Where there are masks, a row of
B that needs a whole vector gets one instead, see narrow_tiles.py.) A row of C is the sum of the same chains
of multiply-adds, however many rows there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.entries.matrices.narrow_tiles import Tiles
from fastbp.engine.entries.matrices.short_rows import (
    are_short_rows,
    halved,
    short_rows,
    shuffled,
    side_by_side,
)
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.tile import ALONG_K, opaque
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa

# Rows of C that share what is read of B; where A has fewer than MANY, B is not packed.
MANY, FEW = 4, 2
# Rows from which B is packed that has more than half a vector of columns, where there are masks. (For less,
# 12 x 1025 x 9 took 1.4 times as long, 4 x 1025 x 9 twice.)
PACKING_ROWS = 16
# Bytes of a packed B for which there is room on the stack.
ROOM = 4096

ARGUMENTS = ("a", "a_row", "rows", "depth", "b", "b_row", "columns", "bias", "c", "c_row", "packed")


def steps(unit, itemsize, width):
    """How many rows of B a step has, and its bytes as they are packed, with rows of so many columns, a power
    of two. unit: bytes that a unit takes at once. What is loaded of A is copied to all of 32 bytes in no
    time, and to all of 64 where it is a quarter of them."""
    lanes = max(width, min(unit, 32) // itemsize, min(unit // itemsize, 2 * width))
    return 2 * lanes // width, 2 * lanes * itemsize


def few_columns(dtype: str) -> int:
    """(a, a_row, rows, depth, b, b_row, columns, bias, c, c_row, packed): C = bias + A @ B, of fewer columns
    than a vector has lanes. bias: an address, or 0; packed: memory for B, or 0 where ROOM is enough. Strides
    are in bytes. Behind a row of C the next one's first numbers may be written, before that row is."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        v = dict(zip(ARGUMENTS, args, strict=True))
        room = b.ptrtoint(cgutils.alloca_once(b, ir.IntType(8), size=I64(ROOM)), I64)
        v["packed"] = b.select(b.icmp_signed("==", v["packed"], I64(0)), room, v["packed"])
        short = are_short_rows(b, dtype, v)
        with b.if_then(short):
            short_rows(b, dtype, v)
        width = 1
        while width <= Vectors(b, dtype).lanes:
            above = b.icmp_signed(">", v["columns"], I64(width // 2))
            here = b.and_(above, b.icmp_signed("<=", v["columns"], I64(width)))
            with b.if_then(b.and_(here, b.not_(short)) if width == 1 else here):
                if width == Vectors(b, dtype).lanes and isa().masks:
                    _more_than_half(b, dtype, v)
                else:
                    _Width(b, dtype, v, width).emit()
            width *= 2

    return compile_block("few-columns", dtype, len(ARGUMENTS), emit, as_it_is=True)


def _more_than_half(b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value]) -> None:
    """The code for more than half a vector of columns, where there are masks. Packed or not, a row has two
    chains: of the even k and of the odd ones."""
    ops = Vectors(b, dtype)
    packs = b.icmp_signed(">=", v["rows"], I64(PACKING_ROWS))
    with b.if_else(packs) as (many, few):
        with many:
            _Width(b, dtype, v, ops.lanes).emit()
        with few:
            Tiles(b, ops, ALONG_K, {**v, "a_k": I64(ops.itemsize)}, vectors=1, chains=2).emit()


class _Width:
    """The code for so many columns, a power of two, or fewer, but more than half of it.

    Two vectors hold a step's numbers of B, one the even columns, the other the odd ones: so a row has two
    chains, and what is loaded of A serves both. Of a single column, or where a row of B takes more than
    a unit, each has half of the step.
    """

    def __init__(self, b: ir.IRBuilder, dtype: str, v: dict[str, ir.Value], width: int) -> None:
        self.b, self.v, self.width = b, v, width
        self.ops = Vectors(b, dtype, width)
        self.size = self.ops.itemsize
        unit = isa().bytes // isa().passes
        self.step, of_step = steps(unit, self.size, width)
        self.vector = of_step // 2
        self.wide = Vectors(b, dtype, self.vector // self.size)
        self.halves = width == 1 or self.vector > unit
        self.numbers = Vectors(b, dtype, self.step // 2 if self.halves else self.step)  # of A
        self.mask = self.ops.first_lanes(v["columns"])
        self.sums = [[cgutils.alloca_once(b, self.wide.type) for _ in range(2)] for _ in range(MANY)]

    def emit(self) -> None:
        b, v = self.b, self.v
        self.whole = b.sdiv(v["depth"], I64(self.step))
        self.left = b.sub(v["depth"], b.mul(self.whole, I64(self.step)))
        lanes = self.numbers.lanes
        # (Nobody else moves this out of the loops.)
        self.apart = {m: [b.mul(I64(r), v[f"{m}_row"]) for r in range(MANY)] for m in ("a", "c")}
        self.masks = [self.numbers.first_lanes(b.sub(self.left, I64(half * lanes))) for half in (0, 1)]
        with b.if_then(b.icmp_signed(">=", v["rows"], I64(MANY))):
            self._each_step(self._pack)
        given = b.icmp_signed("!=", v["bias"], I64(0))
        exist = self.ops.first_lanes(b.select(given, v["columns"], I64(0)))
        self.start = self.ops.load_masked(b.select(given, v["bias"], v["b"]), exist)
        done: ir.Value = I64(0)
        for height in (MANY, FEW):
            # Where there is less than a block left, but more than the next one takes, it is moved back to
            # where the rows end: the same numbers are written again.
            missing = height // 2 if height == FEW else height // 2 - 1
            count = b.sdiv(b.add(b.sub(v["rows"], done), I64(missing)), I64(height))
            if height == MANY:
                count = b.select(b.icmp_signed(">=", v["rows"], I64(MANY)), count, I64(0))
            end = b.sub(v["rows"], I64(height))
            with cgutils.for_range(b, count, intp=I64) as loop:
                i = b.add(done, b.mul(loop.index, I64(height)))
                self._rows(b.select(b.icmp_signed("<", i, end), i, end), height)
            done = b.add(done, b.mul(count, I64(height)))

    def _row(self, i: ir.Value) -> ir.Value:
        """Row i of A and C. A single one is done twice: the first time as the row before it."""
        return self.b.select(self.b.icmp_signed("<", i, I64(0)), I64(0), i)

    def _addresses(self, matrix: str, i: ir.Value, height: int) -> list[ir.Value]:
        """Where so many rows of A or C from i on are."""
        b, first, row = self.b, self.v[matrix], self.v[f"{matrix}_row"]
        if height == FEW:
            return [b.add(first, b.mul(self._row(b.add(i, I64(r))), row)) for r in range(height)]
        return [b.add(b.add(first, b.mul(i, row)), apart) for apart in self.apart[matrix]]

    def _mask_of_last(self, n: int) -> ir.Value:
        """Which numbers row n of the last step has, if there is one."""
        exists = self.b.icmp_signed("<", I64(n), self.left)
        return self.ops.first_lanes(self.b.select(exists, self.v["columns"], I64(0)))

    def _each_step(self, visit: Callable[[ir.Value, bool], None]) -> None:
        """visit(i, last) in compiled code for step i of the depth; the last one has less than others."""
        b = self.b
        with cgutils.for_range(b, self.whole, intp=I64) as loop:
            visit(loop.index, False)
        with b.if_then(b.icmp_signed(">", self.left, I64(0))):
            visit(self.whole, True)

    def _of_b(self, i: ir.Value, last: bool) -> list[Vec]:
        """Step i of B; zeros, where it has no numbers."""
        b, step, width, row = self.b, self.step, self.width, self.v["b_row"]
        first = b.add(self.v["b"], b.mul(b.mul(i, I64(step)), row))
        rows = [
            self.ops.load_masked(
                b.add(first, b.mul(I64(n), row)), self._mask_of_last(n) if last else self.mask
            ).value
            for n in range(step)
        ]
        together = side_by_side(b, rows)
        columns = [*range(0, width, 2), *range(1, width, 2)]
        order: Sequence[int] = [n * width + column for column in columns for n in range(step)]
        if self.halves:
            order = range(step * width)
        halves = order[: self.wide.lanes], order[self.wide.lanes :]
        return [self.wide.wrap(shuffled(b, together, together, lanes)) for lanes in halves]

    def _packed(self, i: ir.Value) -> list[ir.Value]:
        """Where step i of B is packed to."""
        first = self.b.add(self.v["packed"], self.b.mul(i, I64(2 * self.vector)))
        return [first, self.b.add(first, I64(self.vector))]

    def _pack(self, i: ir.Value, last: bool) -> None:
        for vector, address in zip(self._of_b(i, last), self._packed(i), strict=True):
            self.wide.store(vector, address)

    def _rows(self, i: ir.Value, height: int) -> None:
        """So many rows of C from i on."""
        b, wide = self.b, self.wide
        sums = self.sums[:height]
        for pair in sums:
            for s in pair:
                b.store(wide.const(0.0).value, s)
        # (See matmul.py for why LLVM is not to know how far these are from each other.)
        a = [opaque(b, row) for row in self._addresses("a", i, height)]

        def step(i: ir.Value, last: bool) -> None:
            of_b = self._of_b(i, last) if height == FEW else [wide.load(at) for at in self._packed(i)]
            self._multiply(a, i, sums, of_b, self.masks if last else None)

        self._each_step(step)
        totals = [[wide.wrap(b.load(s)) for s in pair] for pair in sums]
        to = self._addresses("c", i, height)
        for r, total in enumerate(self._summed(totals)):
            row = self._row(b.add(i, I64(r))) if height == FEW or r == height - 1 else None
            self._store(total, to[r], row)

    def _multiply(
        self,
        a: list[ir.Value],
        i: ir.Value,
        sums: list[list[ir.Value]],
        of_b: list[Vec],
        masks: list[ir.Value] | None,
    ) -> None:
        """Step i of the depth, for all rows of A; masks: of its numbers in both vectors, if not all exist."""
        b, wide, count = self.b, self.wide, self.numbers.lanes
        lanes = [lane % count for lane in range(wide.lanes)]

        def load(row: ir.Value, half: int) -> ir.Value:
            at = b.add(b.add(row, b.mul(i, I64(self.step * self.size))), I64(half * count * self.size))
            return (self.numbers.load_masked(at, masks[half]) if masks else self.numbers.load(at)).value

        for row, pair in zip(a, sums, strict=True):
            numbers = [load(row, 0)]
            numbers.append(load(row, 1) if self.halves else numbers[0])
            for s, factors, vector in zip(pair, numbers, of_b, strict=True):
                spread = wide.wrap(shuffled(b, factors, factors, lanes))
                b.store(wide.fma(spread, vector, wide.wrap(b.load(s))).value, s)

    def _summed(self, totals: list[list[Vec]]) -> list[Vec]:
        """Rows of C from their two vectors: what belongs to one column is added, by halves."""
        b, width = self.b, self.width
        per = self.step // 2
        if self.halves:
            vectors = [(one + other).value for one, other in totals]
        else:
            vectors = [halved(b, (even.value, odd.value), self.step) for even, odd in totals]
        rows = 1  # of C, which a vector has side by side in each column
        while per > 1:
            # Pairs of rows become one vector; of a single vector, a half.
            count = 2 if len(vectors) > 1 else 1
            pairs = [tuple(vectors[n : n + count]) for n in range(0, len(vectors), count)]
            vectors, per, rows = [halved(b, pair, rows * per, per) for pair in pairs], per // 2, rows * count
        lanes = [[column * rows + r for column in range(width)] for r in range(rows)]
        return [self.ops.wrap(shuffled(b, x, x, lanes[r])) for x in vectors for r in range(rows)]

    def _store(self, total: Vec, c: ir.Value, i: ir.Value | None) -> None:
        """A row of C; i: its number, if it may be the last one. What is written behind it belongs to the next
        one, which is written later."""
        b, v, row = self.b, self.v, self.start + total
        if i is None or self.width <= 2:
            self.ops.store(row, c)
            return
        last = b.icmp_signed("==", i, b.sub(v["rows"], I64(1)))
        ends = b.and_(last, b.icmp_signed("<", v["columns"], I64(self.width)))
        with b.if_else(ends) as (few, all_):
            with few:
                self.ops.store_few(row, c, v["columns"])
            with all_:
                self.ops.store(row, c)
