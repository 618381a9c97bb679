"""Products of a few rows with a matrix that lies in rows: B is read row by row, as memory has it.

    for k in steps of 4:
        for j in vectors of columns:
            for i in rows:
                C[i, j] += A[i, k] B[k, j], then A[i, k + 1] B[k + 1, j], ...

The microkernel (kernels/matmul.py) has C in registers and walks down the columns of B. Where B is not packed
and its rows are long, each of its steps is on another page, and no hardware foresees the next one. Here B
comes as fast as the caches can send it, and it is the few rows of C that go back and forth, within the
first-level cache; the first time they are written only, so that of few k C is written once, as memory has it.
Each element of C is the same chain of multiply-adds in the order of k.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block, vector_at
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa

# Rows that may be asked for.
MOST = 16
# Rows of B that are read together. (8 are slower: rows that lie a power of two apart meet the same set of the
# first-level cache, which has 8 places. To prefetch the next ones did not pay.) And rows of C that share what
# is read, for which there are registers on every CPU.
TOGETHER, HEIGHT = 4, 2
# Where C is written only, its lines are asked for so many bytes ahead. A store that crosses two lines (arrays
# of NumPy's begin 16 bytes behind one) waits for both, and on some CPUs all stores behind it do: where C was
# beyond the first-level cache, that took up to three times as long.
C_AHEAD = 256

ARGUMENTS = ("a", "a_row", "a_k", "rows", "depth", "b", "b_row", "columns", "bias", "c", "c_row")


def at_once(vector):
    """For how many k C is written once, with vectors of so many bytes: A's numbers stay in registers."""
    return 2 * TOGETHER if vector >= 64 else TOGETHER


def row_sweep(dtype: str) -> int:
    """(a, a_row, a_k, rows, depth, b, b_row, columns, bias, c, c_row): C = bias + A @ B, of at most MOST rows
    and at least as many columns as a vector has lanes. Strides are in bytes; bias: a row's address, or 0."""
    return compile_block("row-sweep", dtype, len(ARGUMENTS), lambda b, args: _Sweep(b, dtype, args).emit())


class _Sweep:
    """The code. Where the columns are no whole vectors, the last vector is moved back to where they end. What
    the first k write there is written twice; later on its sums are kept elsewhere, since C has some of them
    already as those of the vector before."""

    def __init__(self, b: ir.IRBuilder, dtype: str, args: Sequence[ir.Value]) -> None:
        self.b, self.ops, self.v = b, Vectors(b, dtype), dict(zip(ARGUMENTS, args, strict=True))
        lanes, columns = I64(self.ops.lanes), self.v["columns"]
        self.vector = I64(self.ops.lanes * self.ops.itemsize)
        self.whole = b.sdiv(columns, lanes)
        self.has_last = b.icmp_signed("!=", b.mul(self.whole, lanes), columns)
        self.end = b.mul(b.sub(columns, lanes), I64(self.ops.itemsize))
        memory = cgutils.alloca_once(b, self.ops.type, size=I64(MOST))
        self.last_sums = b.ptrtoint(memory, I64)

    def emit(self) -> None:
        b, v = self.b, self.v
        most = at_once(isa().bytes)
        few = b.icmp_signed("<=", v["depth"], I64(most))
        left = b.add(b.and_(b.sub(v["depth"], I64(1)), I64(TOGETHER - 1)), I64(most - TOGETHER + 1))
        first = b.select(few, v["depth"], left)
        for count in range(most + 1):
            with b.if_then(b.icmp_signed("==", first, I64(count))):
                self._all_rows(I64(0), count, first=True)
        groups = b.sdiv(b.sub(v["depth"], first), I64(TOGETHER))
        with b.if_then(b.icmp_signed(">", groups, I64(0))):
            self._move_last(to_sums=True)
            with cgutils.for_range(b, groups, intp=I64) as loop:
                self._all_rows(b.add(first, b.mul(loop.index, I64(TOGETHER))), TOGETHER)
            self._move_last(to_sums=False)

    def _move_last(self, to_sums: bool) -> None:
        """A last vector that is moved back, of each row of C, from there to its sums or back."""
        b, v, ops = self.b, self.v, self.ops
        with b.if_then(self.has_last), cgutils.for_range(b, v["rows"], intp=I64) as loop:
            places = [b.add(b.add(v["c"], b.mul(loop.index, v["c_row"])), self.end)]
            places.append(self._sums_of_last(loop.index))
            source, target = places if to_sums else reversed(places)
            ops.store(ops.load(source), target)

    def _sums_of_last(self, i: ir.Value) -> ir.Value:
        return self.b.add(self.last_sums, self.b.mul(i, self.vector))

    def _all_rows(self, k: ir.Value, count: int, first: bool = False) -> None:
        """So many k, for all rows of C; first: C starts with them."""
        b, rows = self.b, self.v["rows"]
        pairs = b.sdiv(rows, I64(HEIGHT))
        with cgutils.for_range(b, pairs, intp=I64) as loop:
            self._rows(b.mul(loop.index, I64(HEIGHT)), HEIGHT, k, count, first)
        done = b.mul(pairs, I64(HEIGHT))
        with cgutils.for_range(b, b.sub(rows, done), intp=I64) as loop:
            self._rows(b.add(done, loop.index), 1, k, count, first)

    def _rows(self, i: ir.Value, height: int, k: ir.Value, count: int, first: bool) -> None:
        """So many k, for so many rows of C from i on."""
        b, v, ops = self.b, self.v, self.ops
        a = vector_at(b, v["a"], i, v["a_row"], k, v["a_k"])
        numbers = [
            [ops.load_splat(vector_at(b, a, I64(r), v["a_row"], I64(n), v["a_k"])) for n in range(count)]
            for r in range(height)
        ]
        source = [b.add(v["b"], b.mul(b.add(k, I64(n)), v["b_row"])) for n in range(count)]
        target = [b.add(v["c"], b.mul(b.add(i, I64(r)), v["c_row"])) for r in range(height)]

        given = b.icmp_signed("!=", v["bias"], I64(0))
        bias = b.select(given, v["bias"], target[0])  # without one, what is read does not matter

        def visit(at: ir.Value, places: list[ir.Value]) -> None:
            start = ops.select(given, ops.load(b.add(bias, at)), 0.0) if first else None
            of_b = [ops.load(b.add(row, at)) for row in source]
            for place, factors in zip(places, numbers, strict=True):
                if first:
                    ops.prefetch(b.add(place, I64(C_AHEAD)))
                total: Vec = start or ops.load(place)
                for factor, vector in zip(factors, of_b, strict=True):
                    total = ops.fma(factor, vector, total)
                ops.store(total, place)

        turns = b.add(self.whole, b.zext(self.has_last, I64)) if first else self.whole
        with cgutils.for_range(b, turns, intp=I64) as loop:
            at = b.mul(loop.index, self.vector)
            if first:
                at = b.select(b.icmp_signed("<", at, self.end), at, self.end)
            visit(at, [b.add(row, at) for row in target])
        if not first:
            with b.if_then(self.has_last):
                visit(self.end, [self._sums_of_last(b.add(i, I64(r))) for r in range(height)])
