"""Products with fewer columns than a vector has lanes, A's numbers copied to all lanes of a narrower vector.

    for i in rows, some at a time:
        for k in depth:
            C[i, :] += A[i, k] B[k, :]

Vectors are the narrowest that have room for a row: all of a register, half of it, a quarter, ... What a row
does not fill is masked. Where masks or whole registers take longer, they are of half a register, of a
quarter, ...: the widest that the columns fill, and a second one ends where they end, so that both share some
columns. Each element of C is a chain of multiply-adds in the order of k, as in the microkernel, or for
few_columns.py the sum of two of them, so that those of few rows wait less for themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.entries.matrices.row_sweep import ARGUMENTS
from fastbp.engine.simd.emit import compile_block, each_block
from fastbp.engine.simd.tile import ALONG_K, opaque
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa

# Rows of a tile of whole vectors where there are so many: 4 to 10% less time from 12 k on.
TALL = 16
# With two chains, B is asked for so many bytes ahead: 2 x 1025 x 15 took 1.8 times as long.
AHEAD = 1024


def narrow_tiles(dtype: str, along: int) -> int:
    """(a, a_row, a_k, rows, depth, b, b_row, columns, bias, c, c_row): C = bias + A @ B, of fewer columns
    than a vector has lanes, and more than one where it has more than two. Strides are in bytes; bias: a row's
    address, or 0. along: what of A is adjacent, which may lie transposed (see matmul.py)."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        v = dict(zip(ARGUMENTS, args, strict=True))
        width = Vectors(b, dtype).lanes if isa().masks else Vectors(b, dtype).lanes // 2
        while width >= 1:
            ops = Vectors(b, dtype, width)
            for vectors, fewest, most in _sizes(width):
                above = b.icmp_signed(">=", v["columns"], I64(fewest))
                with b.if_then(b.and_(above, b.icmp_signed("<=", v["columns"], I64(most)))):
                    Tiles(b, ops, along, v, vectors).emit()
            width = width // 2 if width > 2 else 0

    name = f"narrow-tiles-{'k' if along == ALONG_K else 'rows'}"
    return compile_block(name, dtype, len(ARGUMENTS), emit, as_it_is=True)


def _sizes(width: int) -> list[tuple[int, int, int]]:
    """How many vectors of that width a row takes, for how few columns and for how many."""
    if isa().masks:
        return [(1, width // 2 + 1, width)]
    return [(1, width, width), (2, width + 1, 2 * width - 1)]


class Tiles:
    """The code for vectors of one width. chains: one of all k, or two, of the even ones and the odd ones."""

    def __init__(
        self, b: ir.IRBuilder, ops: Vectors, along: int, v: dict[str, ir.Value], vectors: int, chains: int = 1
    ) -> None:
        self.b, self.ops, self.along, self.v, self.chains = b, ops, along, v, chains
        self.dtype = "float32" if ops.single else "float64"
        self.offsets = [I64(0), b.mul(b.sub(v["columns"], I64(ops.lanes)), I64(ops.itemsize))][:vectors]
        self.mask = ops.first_lanes(v["columns"]) if isa().masks else None
        self.heights = (8, 4, 2, 1) if isa().registers >= 32 else (4, 2, 1)
        # (Nobody else moves this out of the loop.)
        rows = range(self.heights[0])
        self.apart = {m: [b.mul(I64(r), v[f"{m}_row"]) for r in rows] for m in ("a", "c")}
        if along != ALONG_K:
            self.apart["a"] = [I64(r * ops.itemsize) for r in rows]
        given = b.icmp_signed("!=", v["bias"], I64(0))
        bias = self._load(b.select(given, v["bias"], v["b"]))  # without one, what is read does not matter
        self.start = [ops.select(given, x, 0.0).value for x in bias]

    def emit(self) -> None:
        b, rows = self.b, self.v["rows"]
        if not isa().masks or self.ops.lanes < Vectors(b, self.dtype).lanes or self.chains == 2:
            each_block(b, rows, self.heights, self._block)
            return
        with b.if_else(b.icmp_signed(">=", rows, I64(TALL))) as (many, few):
            with many:
                each_block(b, rows, (TALL, *self.heights), self._block)
            with few:
                each_block(b, rows, self.heights, self._block)

    def _load(self, row: ir.Value) -> list[Vec]:
        """The vectors of a row that begins there."""
        if self.mask is not None:
            return [self.ops.load_masked(row, self.mask)]
        return [self.ops.load(self.b.add(row, offset)) for offset in self.offsets]

    def _block(self, i: ir.Value, height: int) -> None:
        """So many rows of C from i on."""
        b, ops, v = self.b, self.ops, self.v
        zeros = [ops.const(0.0).value] * len(self.start)
        sums = [self._sums(self.start if self.chains == 1 else zeros, height) for _ in range(self.chains)]
        # (See matmul.py for why LLVM is not to know how far these are from each other.)
        rows = self._rows("a", i, height)
        if self.along == ALONG_K:
            rows = [opaque(b, row) for row in rows]

        def multiply(k: ir.Value, chain: list[list[ir.Value]]) -> None:
            at = b.mul(k, v["a_k"])
            row_of_b = b.add(v["b"], b.mul(k, v["b_row"]))
            of_b = self._load(row_of_b)
            if self.chains == 2:
                ops.prefetch(b.add(row_of_b, I64(AHEAD)))
            for r, row in enumerate(chain):
                number = ops.load_splat(b.add(rows[r], at))
                for vector, s in zip(of_b, row, strict=True):
                    b.store(ops.fma(number, vector, ops.wrap(b.load(s))).value, s)

        turns = b.sdiv(v["depth"], I64(self.chains))
        with cgutils.for_range(b, turns, intp=I64) as loop:
            first = b.mul(loop.index, I64(self.chains))
            for n, chain in enumerate(sums):
                multiply(b.add(first, I64(n)), chain)
        if self.chains == 2:
            done = b.mul(turns, I64(2))
            with b.if_then(b.icmp_signed("<", done, v["depth"])):
                multiply(done, sums[0])
        for r, place in enumerate(self._rows("c", i, height)):
            totals = [ops.wrap(b.load(s)) for s in sums[0][r]]
            if self.chains == 2:
                others = [ops.wrap(b.load(s)) for s in sums[1][r]]
                both = zip(self.start, totals, others, strict=True)
                totals = [ops.wrap(start) + (x + y) for start, x, y in both]
            self._store(totals, place)

    def _sums(self, start: list[ir.Value], height: int) -> list[list[ir.Value]]:
        """Memory for the sums of so many rows, which begin with that."""
        sums = [[cgutils.alloca_once(self.b, x.type) for x in start] for _ in range(height)]
        for row in sums:
            for x, s in zip(start, row, strict=True):
                self.b.store(x, s)
        return sums

    def _rows(self, matrix: str, i: ir.Value, height: int) -> list[ir.Value]:
        """Where so many rows of A or C from i on are."""
        b, row, apart = self.b, self.v[f"{matrix}_row"], self.apart[matrix]
        step = len(apart)
        bases = [b.add(self.v[matrix], b.mul(b.add(i, I64(r)), row)) for r in range(0, height, step)]
        return [b.add(bases[r // step], apart[r % step]) for r in range(height)]

    def _store(self, vectors: list[Vec], row: ir.Value) -> None:
        if self.mask is not None:
            self.ops.store_masked(vectors[0], row, self.mask)
            return
        for offset, vector in zip(self.offsets, vectors, strict=True):
            self.ops.store(vector, self.b.add(row, offset))
