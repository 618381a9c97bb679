"""Layer normalisation of hidden layers: whole rows, forward and backward (fastbp/formulas/layer_norm.py has
both in NumPy).

The work waits until the products of a row are complete, and sums go vector by vector and then across the
lanes, whoever does them. Such a sum, and the root and the division that follow it, take long to come out and
little to do: so a sweep takes several rows. A row's gain and bias lie in the panels of the weights, `panel`
bytes from one vector to the next.

Operands are the plan's own panels of z, n and deltas, all lying alike. A worker owns whole rows of them for
the time of a pass, between two barriers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.rows import Place, Row, accumulate_all, wide
from fastbp.engine.simd.vector import I64, Vec, Vectors
from fastbp.formulas.layer_norm import EPS

# Rows of a sweep: at tabular size and with SGD they make a step about 1.13 times as long, one by one 1.27
# times.
AT_ONCE = 4


def _groups(b: ir.IRBuilder, rows: ir.Value, visit: Callable[[list[ir.Value]], None]) -> None:
    """visit(numbers of AT_ONCE rows), and one by one the rows that are left."""
    whole = b.sdiv(rows, I64(AT_ONCE))
    with cgutils.for_range(b, whole, intp=I64) as loop:
        first = b.mul(loop.index, I64(AT_ONCE))
        visit([b.add(first, I64(k)) for k in range(AT_ONCE)])
    with cgutils.for_range(b, b.srem(rows, I64(AT_ONCE)), intp=I64) as loop:
        visit([b.add(b.mul(whole, I64(AT_ONCE)), loop.index)])


def _sums(ops: Vectors, row: Row, terms: Sequence[Callable[[Place], Vec]]) -> list[Vec]:
    return accumulate_all(ops, row, 0.0, lambda x, y: x + y, terms)


def forward(dtype: str) -> int:
    """(z, n, inverse_std, rows, columns, row, group, group_stride, gain, bias, panel): z = gain * n + bias,
    where z is the product at first.

    n = (z - mean) * inverse_std, and inverse_std (one number a row) = 1 / sqrt(variance + EPS). The variance
    is that of differences from the mean, which a large mean does not swallow. z and n are 0 beyond the
    columns.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, n, inverse_std, rows, columns, stride, group, group_stride, gain, bias, panel = args
        ops = Vectors(b, dtype)
        row = wide(ops, columns, group, group_stride, I64(0))
        count = ops.splat(b.sitofp(columns, ops.scalar))

        def visit(numbers: list[ir.Value]) -> None:
            bases = [b.mul(r, stride) for r in numbers]

            def centred(at: Place, base: ir.Value, mean: Vec | float) -> Vec:
                return ops.select(at.mask, ops.load(b.add(b.add(z, base), at.offset)) - mean, 0.0)

            def square(at: Place, base: ir.Value, mean: Vec) -> Vec:
                x = centred(at, base, mean)
                return x * x

            sums = _sums(ops, row, [lambda at, base=base: centred(at, base, 0.0) for base in bases])
            means = [total / count for total in sums]
            squares = _sums(
                ops,
                row,
                [
                    lambda at, base=base, mean=mean: square(at, base, mean)
                    for base, mean in zip(bases, means, strict=True)
                ],
            )
            inverses = [1.0 / ops.sqrt(total / count + EPS) for total in squares]
            for r, inverse in zip(numbers, inverses, strict=True):
                ops.store_first(inverse, b.add(inverse_std, b.mul(r, I64(ops.itemsize))))

            def finish(at: Place) -> None:
                g, shift = (ops.load(b.add(start, b.mul(at.index, panel))) for start in (gain, bias))
                for base, mean, inverse in zip(bases, means, inverses, strict=True):
                    x = centred(at, base, mean) * inverse
                    ops.store(x, b.add(b.add(n, base), at.offset))
                    ops.store(
                        ops.select(at.mask, ops.fma(g, x, shift), 0.0), b.add(b.add(z, base), at.offset)
                    )

            row.each(finish)

        _groups(b, rows, visit)

    return compile_block("layer-norm", dtype, 11, emit)


def backward(dtype: str) -> int:
    """(dz, n, inverse_std, d, rows, columns, row, group, group_stride, gain, panel): d = inverse_std * (dn -
    mean(dn) - n * mean(dn * n)).

    dn = gain * dz; d is the product's derivative. dz and gain are 0 beyond the columns, and so becomes d.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        dz, n, inverse_std, d, rows, columns, stride, group, group_stride, gain, panel = args
        ops = Vectors(b, dtype)
        row = wide(ops, columns, group, group_stride, I64(0))
        count = ops.splat(b.sitofp(columns, ops.scalar))

        def visit(numbers: list[ir.Value]) -> None:
            bases = [b.mul(r, stride) for r in numbers]
            inverses = [ops.load_splat(b.add(inverse_std, b.mul(r, I64(ops.itemsize)))) for r in numbers]

            def dn(at: Place, base: ir.Value) -> Vec:
                return ops.load(b.add(gain, b.mul(at.index, panel))) * ops.load(
                    b.add(b.add(dz, base), at.offset)
                )

            def n_of(at: Place, base: ir.Value) -> Vec:
                return ops.load(b.add(b.add(n, base), at.offset))

            sums = _sums(
                ops,
                row,
                [lambda at, base=base: dn(at, base) for base in bases]
                + [lambda at, base=base: dn(at, base) * n_of(at, base) for base in bases],
            )
            means = [total / count for total in sums]
            shifts, scalings = means[: len(bases)], means[len(bases) :]

            def finish(at: Place) -> None:
                for base, inverse, shift, scaling in zip(bases, inverses, shifts, scalings, strict=True):
                    x = inverse * (dn(at, base) - shift - n_of(at, base) * scaling)
                    ops.store(ops.select(at.mask, x, 0.0), b.add(b.add(d, base), at.offset))

            row.each(finish)

        _groups(b, rows, visit)

    return compile_block("layer-norm-backward", dtype, 11, emit)
