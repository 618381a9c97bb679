"""Activations of hidden and output layers: the formulas, and a = act(z) forward, d *= act'(z) backward over a
block.

`v` offers the operations (see vector.Vectors); everything else is a vector of one panel's columns.
fastbp.reference has each formula in NumPy.

Operands are blocks (see emit.py) of the layer's own panels: z, a and d lie alike, whole vectors, of which
only `columns` numbers exist. Whoever computed the block's products writes it; nobody else looks at it before
the next barrier. Softmax needs whole rows (see rows.py), and comes after that barrier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils

from fastbp.activations import GELU_BOUND, GELU_C, GELU_CUBIC, LEAK, SELU_ALPHA, SELU_SCALE
from fastbp.engine.simd.emit import compile_block, each_vector_of_rows
from fastbp.engine.simd.rows import Place, Row, accumulate, wide
from fastbp.engine.simd.vector import I64, Vec, Vectors


@dataclass(frozen=True)
class Activation:
    """value(v, z) is a; backward(v, z, a, d) is d * da/dz.

    keeps_zero: whether a = 0 at z = 0. needs_z: whether backward looks at z, which a training step keeps only
    then.
    """

    value: Callable[[Vectors, Vec], Vec] | None  # None: a is z
    backward: Callable[[Vectors, Vec, Vec, Vec], Vec] | None
    keeps_zero: bool = True
    needs_z: bool = False


def _gelu_backward(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    p, e = v.normal(z)
    return d * v.fma(z * e, 1 / math.sqrt(2 * math.pi), p)


def _gelu_sigmoid(v: Vectors, z: Vec) -> tuple[Vec, Vec, Vec]:
    """z within the bound, its square, and sigmoid(2 u)."""
    bound = v.minimum(v.maximum(z, -GELU_BOUND), GELU_BOUND)
    square = bound * bound
    return bound, square, v.sigmoid(bound * v.fma(square, 2 * GELU_C * GELU_CUBIC, 2 * GELU_C))


def _gelu_tanh_backward(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    bound, square, s = _gelu_sigmoid(v, z)
    return d * (s + bound * (s * (1.0 - s)) * v.fma(square, 6 * GELU_C * GELU_CUBIC, 2 * GELU_C))


def _silu_backward(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    s = v.sigmoid(z)
    return d * (s * v.fma(z, 1.0 - s, 1.0))


def _mish_parts(v: Vectors, z: Vec) -> tuple[Vec, Vec, Vec]:
    """t = exp(-|z|), then numerator and denominator of tanh(log(1 + exp(z)))."""
    t = v.exp_below(-v.abs(z))
    numerator = v.select(z > 0.0, 1.0 + 2.0 * t, t * (t + 2.0))
    return t, numerator, numerator + v.select(z > 0.0, 2.0 * t * t, 2.0)


def _mish(v: Vectors, z: Vec) -> Vec:
    _, numerator, denominator = _mish_parts(v, z)
    return z * (numerator / denominator)


def _mish_backward(v: Vectors, z: Vec, a: Vec, d: Vec) -> Vec:
    t, numerator, denominator = _mish_parts(v, z)
    rest = 4.0 * t * (1.0 + t) * v.select(z > 0.0, t, 1.0) / (denominator * denominator)
    return d * v.fma(z, rest, numerator / denominator)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda v, z: v.maximum(z, 0.0), lambda v, z, a, d: v.select(a > 0.0, d, 0.0)),
    "sigmoid": Activation(
        lambda v, z: v.sigmoid(z), lambda v, z, a, d: d * (a * (1.0 - a)), keeps_zero=False
    ),
    "tanh": Activation(lambda v, z: v.tanh(z), lambda v, z, a, d: d * (1.0 - a * a)),
    "identity": Activation(None, None),
    "leaky_relu": Activation(
        lambda v, z: v.select(z > 0.0, z, LEAK * z), lambda v, z, a, d: v.select(a > 0.0, d, LEAK * d)
    ),
    "elu": Activation(
        lambda v, z: v.select(z > 0.0, z, v.expm1(z)), lambda v, z, a, d: v.select(a > 0.0, d, d * (a + 1.0))
    ),
    "selu": Activation(
        lambda v, z: v.select(z > 0.0, SELU_SCALE * z, SELU_SCALE * SELU_ALPHA * v.expm1(z)),
        lambda v, z, a, d: v.select(a > 0.0, SELU_SCALE * d, d * (a + SELU_SCALE * SELU_ALPHA)),
    ),
    "gelu": Activation(lambda v, z: z * v.normal(z)[0], _gelu_backward, needs_z=True),
    "gelu_tanh": Activation(
        lambda v, z: v.maximum(z, -GELU_BOUND) * _gelu_sigmoid(v, z)[2], _gelu_tanh_backward, needs_z=True
    ),
    "mish": Activation(_mish, _mish_backward, needs_z=True),
    "silu": Activation(lambda v, z: z * v.sigmoid(z), _silu_backward, needs_z=True),
    # 1 - exp(-a) is sigmoid(z)
    "exp": Activation(lambda v, z: v.exp(z), lambda v, z, a, d: d * a, keeps_zero=False),
    "softplus": Activation(
        lambda v, z: v.maximum(z, 0.0) + v.log1p_of_unit(v.exp_below(-v.abs(z))),
        lambda v, z, a, d: -d * v.expm1(-a),
        keeps_zero=False,
    ),
}


def forward(name: str, dtype: str) -> int:
    """(z, a, rows, vectors, row, columns): a = act(z). 0 if a is z.

    columns: how many of the block's columns exist. Beyond them z and a are 0, whatever act(0) is: a narrow
    layer above takes whole vectors.
    """
    value, keeps_zero = ACTIVATIONS[name].value, ACTIVATIONS[name].keeps_zero
    if value is None:
        return 0

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, rows, vectors, row, columns = args
        ops = Vectors(b, dtype)

        def visit(offset: ir.Value, mask: Callable[[], ir.Value]) -> None:
            v = value(ops, ops.load(b.add(z, offset)))
            ops.store(v if keeps_zero else ops.select(mask(), v, 0.0), b.add(a, offset))

        each_vector_of_rows(ops, (rows, vectors, row), visit, columns=None if keeps_zero else columns)

    return compile_block(f"activation-{name}", dtype, 6, emit)


def backward(name: str, dtype: str) -> int:
    """(d, z, a, rows, vectors, row): d *= act'(z), with a = act(z). 0 if that is 1."""
    formula = ACTIVATIONS[name].backward
    if formula is None:
        return 0

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, z, a, rows, vectors, row = args
        ops = Vectors(b, dtype)

        def visit(offset: ir.Value, mask: Callable[[], ir.Value]) -> None:
            at = b.add(d, offset)
            ops.store(formula(ops, *(ops.load(b.add(x, offset)) for x in (z, a, d))), at)

        each_vector_of_rows(ops, (rows, vectors, row), visit)

    return compile_block(f"activation-backward-{name}", dtype, 6, emit)


def exponentials(ops: Vectors, row: Row, z: ir.Value, out: ir.Value) -> tuple[Vec, Vec]:
    """out = exp(z - m), 0 beyond the row; m, the row's largest z, and the sum of out. out may be z."""
    b = ops.b
    larger = lambda x, y: ops.select(y > x, y, x)  # noqa: E731
    m = accumulate(
        ops, row, -math.inf, larger, lambda at: ops.select(at.mask, ops.load(b.add(z, at.offset)), -math.inf)
    )

    def exponential(at: Place) -> Vec:
        e = ops.select(at.mask, ops.exp(ops.load(b.add(z, at.offset)) - m), 0.0)
        ops.store(e, b.add(out, at.offset))
        return e

    return m, accumulate(ops, row, 0.0, lambda x, y: x + y, exponential)


def softmax(dtype: str) -> int:
    """(z, a, rows, columns, row, group, group_stride): a = softmax of each row of z, 0 beyond the columns. a
    may be z."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, rows, columns, stride, group, group_stride = args
        ops = Vectors(b, dtype)
        row = wide(ops, columns, group, group_stride, I64(0))
        with cgutils.for_range(b, rows, intp=I64) as loop:
            from_z, to = (b.add(base, b.mul(loop.index, stride)) for base in (z, a))
            _, total = exponentials(ops, row, from_z, to)
            inverse = 1.0 / total

            def divide(at: Place) -> None:
                place = b.add(to, at.offset)
                ops.store(ops.load(place) * inverse, place)

            row.each(divide)

    return compile_block("softmax", dtype, 7, emit)
