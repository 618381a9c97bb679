"""Activations of hidden layers with dropout: as in activations.py, with a mask drawn in the same pass.

A kept unit's activation is scaled by 1 / (1 - p), a dropped one's is -0.0. That mark is the mask which the
backward pass reads, whatever the activation: it adds nothing to the products of the layer above, and no kept
unit bears it, because +0.0 is written for -0.0.

Operands are those of activations.py. What a block gets does not depend on where it begins: random numbers go
by row of the batch and unit of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels.activations import ACTIVATIONS
from fastbp.engine.simd.emit import compile_block, vector_at
from fastbp.engine.simd.philox import FACTOR, INVERSE, Mask, groups
from fastbp.engine.simd.vector import I64, Vectors
from fastbp.formulas.philox import ROWS_PER_MASK_COUNTER


def forward(name: str, dtype: str) -> int:
    """(z, a, rows, vectors, row, columns, settings, first_row, first_unit, step): a = act(z) with dropout.

    columns: as in activations.forward. settings: address of the layer's stream (philox.py). The block begins
    at row `first_row` of the batch and at unit `first_unit` of the layer.
    """
    value, keeps_zero = ACTIVATIONS[name].value, ACTIVATIONS[name].keeps_zero

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, rows, vectors, row, columns, settings, first_row, first_unit, step = args
        ops = Vectors(b, dtype)
        size, lanes = I64(ops.lanes * ops.itemsize), I64(ops.lanes)
        mask = Mask(ops, settings, step)
        factor = ops.load_splat(b.add(settings, FACTOR))
        after = b.add(first_row, rows)

        def finish(i: ir.Value, j: ir.Value, kept: ir.Value) -> None:
            v = ops.load(vector_at(b, z, i, row, j, size))
            if value is not None:
                v = value(ops, v)
            if not keeps_zero:
                v = ops.select(ops.first_lanes(b.sub(columns, b.mul(j, lanes))), v, 0.0)
            ops.store(ops.select(kept, v * factor + 0.0, -0.0), vector_at(b, a, i, row, j, size))

        with cgutils.for_range(b, vectors, intp=I64) as outer:
            unit = b.add(first_unit, b.mul(outer.index, lanes))
            with groups(b, first_row, after, ROWS_PER_MASK_COUNTER) as (group, first, end):
                mask.draw(group, unit)
                with cgutils.for_range(b, end, start=first, intp=I64) as inner:
                    kept = mask.kept(b.and_(inner.index, I64(ROWS_PER_MASK_COUNTER - 1)))
                    finish(b.sub(inner.index, first_row), outer.index, kept)

    return compile_block(f"dropout-{name}", dtype, 10, emit)


def backward(name: str, dtype: str) -> int:
    """(d, z, a, rows, vectors, row, settings): d *= act'(z) where a unit was kept, scaled as a was; 0 where
    it was dropped."""
    formula = ACTIVATIONS[name].backward

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, z, a, rows, vectors, row, settings = args
        ops = Vectors(b, dtype)
        size = I64(ops.lanes * ops.itemsize)
        factor, inverse = (ops.load_splat(b.add(settings, offset)) for offset in (FACTOR, INVERSE))
        mark = ir.Constant(ops.int_type, [1 << (31 if ops.single else 63)] * ops.lanes)

        with cgutils.for_range(b, rows, intp=I64) as outer, cgutils.for_range(b, vectors, intp=I64) as inner:
            at = vector_at(b, d, outer.index, row, inner.index, size)
            zv, av = (ops.load(vector_at(b, base, outer.index, row, inner.index, size)) for base in (z, a))
            kept = b.icmp_unsigned("!=", b.bitcast(av.value, ops.int_type), mark)
            dv = ops.load(at) * factor
            ops.store(ops.select(kept, formula(ops, zv, av * inverse, dv) if formula else dv, 0.0), at)

    return compile_block(f"dropout-backward-{name}", dtype, 7, emit)
