"""Products with fewer columns than a vector has lanes, A's numbers copied to all lanes of a narrower vector.

    for i in rows, some at a time:
        for k in depth:
            C[i, :] += A[i, k] B[k, :]

Vectors are the narrowest that have room for a row: all of a register, half of it, a quarter, ... What a row
does not fill is masked. Where masks or whole registers take longer, they are of half a register, of a
quarter, ...: the widest that the columns fill, and a second one ends where they end, so that both share some
columns. Each element of C is a chain of multiply-adds in the order of k, as in the microkernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.entries.matrices.row_sweep import ARGUMENTS
from fastbp.engine.simd.emit import compile_block, each_block
from fastbp.engine.simd.tile import ALONG_K, opaque
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa


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
                    _Tiles(b, ops, along, v, vectors).emit()
            width = width // 2 if width > 2 else 0

    name = f"narrow-tiles-{'k' if along == ALONG_K else 'rows'}"
    return compile_block(name, dtype, len(ARGUMENTS), emit, as_it_is=True)


def _sizes(width: int) -> list[tuple[int, int, int]]:
    """How many vectors of that width a row takes, for how few columns and for how many."""
    if isa().masks:
        return [(1, width // 2 + 1, width)]
    return [(1, width, width), (2, width + 1, 2 * width - 1)]


class _Tiles:
    """The code for vectors of one width."""

    def __init__(
        self, b: ir.IRBuilder, ops: Vectors, along: int, v: dict[str, ir.Value], vectors: int
    ) -> None:
        self.b, self.ops, self.along, self.v = b, ops, along, v
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
        each_block(self.b, self.v["rows"], self.heights, self._block)

    def _load(self, row: ir.Value) -> list[Vec]:
        """The vectors of a row that begins there."""
        if self.mask is not None:
            return [self.ops.load_masked(row, self.mask)]
        return [self.ops.load(self.b.add(row, offset)) for offset in self.offsets]

    def _block(self, i: ir.Value, height: int) -> None:
        """So many rows of C from i on."""
        b, ops, v = self.b, self.ops, self.v
        sums = [[cgutils.alloca_once_value(b, x) for x in self.start] for _ in range(height)]
        for row in sums:
            for x, s in zip(self.start, row, strict=True):
                b.store(x, s)
        first = b.add(v["a"], b.mul(i, v["a_row"]))
        # (See matmul.py for why LLVM is not to know how far these are from each other.)
        rows = [b.add(first, apart) for apart in self.apart["a"][:height]]
        if self.along == ALONG_K:
            rows = [opaque(b, row) for row in rows]
        with cgutils.for_range(b, v["depth"], intp=I64) as loop:
            at = b.mul(loop.index, v["a_k"])
            of_b = self._load(b.add(v["b"], b.mul(loop.index, v["b_row"])))
            for r, row in enumerate(sums):
                number = ops.load_splat(b.add(rows[r], at))
                for vector, s in zip(of_b, row, strict=True):
                    b.store(ops.fma(number, vector, ops.wrap(b.load(s))).value, s)
        c = b.add(v["c"], b.mul(i, v["c_row"]))
        for apart, row in zip(self.apart["c"], sums, strict=False):
            self._store([ops.wrap(b.load(s)) for s in row], b.add(c, apart))

    def _store(self, vectors: list[Vec], row: ir.Value) -> None:
        if self.mask is not None:
            self.ops.store_masked(vectors[0], row, self.mask)
            return
        for offset, vector in zip(self.offsets, vectors, strict=True):
            self.ops.store(vector, self.b.add(row, offset))
