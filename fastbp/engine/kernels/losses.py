"""Losses: the formulas, and the output layer's delta = scale * dloss/dz, in blocks, in whole rows, and in a
narrow output.

Elementwise losses ride along with the products, block by block. Where a number depends on its whole row
(softmax, weights of samples) the work waits until the row is complete. fastbp.reference has each formula in
NumPy.

Targets are the caller's own memory: rows of exactly as many numbers as there are outputs, one more where
samples have weights. They are read with masks, never beyond. z, a and delta are the layer's own panels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from fastbp import losses
from fastbp.engine.kernels.activations import ACTIVATIONS, exponentials
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.rows import Place, Row, accumulate, adjacent, narrow, wide
from fastbp.engine.simd.vector import I64, Vec, Vectors


def mse(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec]:
    """1/2 (a - y)^2 and (a - y) da/dz."""
    e = a - y
    return 0.5 * e * e, activation_backward(v, z, a, e) if activation_backward else e


def binary_crossentropy(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec]:
    """max(0, z) - y z + log(1 + exp(-|z|)) and a - y, with a = sigmoid(z)."""
    return v.maximum(z, 0.0) - y * z + v.log1p_of_unit(v.exp(-v.abs(z))), a - y


def categorical_crossentropy(v: Vectors, z: Vec, a: Vec, y: Vec, log_sum: Vec) -> tuple[Vec, Vec]:
    """y (log_sum - z) and a - y, with z less its row's largest, log_sum the logarithm of the row's sum of
    exp(z)."""
    return y * (log_sum - z), a - y


def mae(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec]:
    """|a - y| and sign(a - y) da/dz."""
    e = a - y
    sign = v.select(e > 0.0, 1.0, v.select(e < 0.0, -1.0, e))
    return v.abs(e), activation_backward(v, z, a, sign) if activation_backward else sign


def huber(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any, delta: float) -> tuple[Vec, Vec]:
    """c (e - c / 2) and c da/dz, with e = a - y and c the same, but not beyond delta."""
    e = a - y
    c = v.minimum(v.maximum(e, -delta), delta)
    return c * (e - 0.5 * c), activation_backward(v, z, a, c) if activation_backward else c


def pinball(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any, quantile: float) -> tuple[Vec, Vec]:
    """(1 - quantile) e where e = a - y is above 0, else -quantile e; and the factor of e times da/dz."""
    e = a - y
    slope = v.select(e > 0.0, 1.0 - quantile, v.select(e < 0.0, -quantile, e))
    return e * slope, activation_backward(v, z, a, slope) if activation_backward else slope


def poisson(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec]:
    """a - y + y (log(y) - z) and a - y, with a = exp(z)."""
    log_y = v.log(v.select(y > 0.0, y, 1.0))
    return a - y + y * (log_y - z), a - y


def hinge(v: Vectors, z: Vec, a: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec]:
    """max(0, 1 - y a) and, where that is not 0, -y da/dz."""
    margin = y * a
    e = v.select(margin < 1.0, -y, 0.0)
    return v.maximum(1.0 - margin, 0.0), activation_backward(v, z, a, e) if activation_backward else e


def gaussian_nll(v: Vectors, m: Vec, s: Vec, y: Vec, activation_backward: Any) -> tuple[Vec, Vec, Vec]:
    """1/2 (log u + e^2 / u) with e = m - y and u = softplus(s) + 1e-6, and its derivatives with respect to m
    and s."""
    e = m - y
    u = v.maximum(s, 0.0) + v.log1p_of_unit(v.exp(-v.abs(s))) + losses.LEAST_VARIANCE
    inverse = 1.0 / u
    w = e * inverse
    return 0.5 * (v.log_from_one(u) + e * w), w, 0.5 * (inverse - w * w) * v.sigmoid(s)


FORMULAS: dict[str, Callable[..., Any]] = {
    "mse": mse,
    "binary_crossentropy": binary_crossentropy,
    "categorical_crossentropy": categorical_crossentropy,
    "mae": mae,
    "huber": huber,
    "pinball": pinball,
    "poisson": poisson,
    "hinge": hinge,
    "gaussian_nll": gaussian_nll,
}


def formula_of(name: str) -> Callable[..., Any]:
    """(v, z, a, y, activation_backward) -> the loss of each output, and its derivative with respect to z;
    activation_backward is the output activation's.

    gaussian_nll takes a pair (mean, spread) instead of z and a, and has a derivative for each.
    categorical_crossentropy looks at whole rows: _OutputDelta calls it, and has the smoothing in y already.
    """
    entry = losses.get(name)
    formula = FORMULAS[entry.kind]
    return partial(formula, **{entry.takes.name: entry.parameter}) if entry.takes else formula


@dataclass
class _OutputDelta:
    """The code for one row (or, where the lanes are rows, one vector of them) of the output layer.

    d = factor * weight * d(loss)/dz, and, where `a` is None and has to be computed, weight * loss in the
    place of z.
    """

    ops: Vectors
    activation: str
    loss: str
    row: Row
    outputs: ir.Value
    z: ir.Value
    a: ir.Value | None
    d: ir.Value
    factor: Vec
    weight: Vec | None = None

    def emit(self) -> None:
        if losses.get(self.loss).of_pairs:
            self._of_pairs()
            return
        if self.activation != "softmax":
            self._elementwise()
            return
        ops = self.ops
        largest, inverse, log_sum = ops.const(0.0), ops.const(1.0), ops.const(0.0)
        if self.a is None:  # a begins as the exponentials, in the place of d
            largest, total = exponentials(ops, self.row, self.z, self.d)
            inverse, log_sum = 1.0 / total, ops.log_from_one(total)
        if losses.get(self.loss).of_classes:
            self._crossentropy_of_softmax(largest, inverse, log_sum)
        else:
            self._through_softmax(inverse)

    def _load(self, base: ir.Value, at: Place) -> Vec:
        return self.ops.load(self.ops.b.add(base, at.offset))

    def _store(self, at: Place, value: Vec, delta: Vec) -> None:
        ops, weight = self.ops, self.weight
        if self.a is None:
            value = value if weight is None else value * weight
            ops.store(ops.select(at.mask, value, 0.0), ops.b.add(self.z, at.offset))
        factor = self.factor if weight is None else self.factor * weight
        ops.store(ops.select(at.mask, delta * factor, 0.0), ops.b.add(self.d, at.offset))

    def _elementwise(self) -> None:
        formula, kind = formula_of(self.loss), ACTIVATIONS[self.activation]

        def activation(at: Place, z: Vec) -> Vec:
            if self.a is not None:
                return self._load(self.a, at)
            return kind.value(self.ops, z) if kind.value else z

        def visit(at: Place) -> None:
            z = self._load(self.z, at)
            a = activation(at, z)
            self._store(at, *formula(self.ops, z, a, at.target(), kind.backward))

        self.row.each(visit)

    def _of_pairs(self) -> None:
        """Outputs in turn mean and spread; a pair's loss stands in the place of its mean, the other is 0.

        A pair is adjacent lanes, or where the lanes are rows, adjacent outputs.
        """
        ops, b = self.ops, self.ops.b
        source = self.z if self.a is None else self.a
        formula, stride = formula_of(self.loss), self.row.stride

        def in_lanes(at: Place) -> None:
            mean, spread = ops.pairs(self._load(source, at))
            value, of_mean, of_spread = formula(ops, mean, spread, at.target(), None)
            even = ops.even_lanes()
            self._store(at, ops.select(even, value, 0.0), ops.select(even, of_mean, of_spread))

        def in_rows(at: Place) -> None:
            assert stride is not None
            with b.if_then(b.trunc(at.index, ir.IntType(1))):  # the second of a pair: both are still there
                first = Place(at.index, b.sub(at.offset, stride), at.mask, at.target)
                mean, spread = self._load(source, first), self._load(source, at)
                value, of_mean, of_spread = formula(ops, mean, spread, at.target(), None)
                self._store(first, value, of_mean)
                self._store(at, ops.const(0.0), of_spread)

        self.row.each(in_lanes if stride is None else in_rows)

    def _softmax_at(self, at: Place, inverse: Vec) -> Vec:
        return self._load(self.d if self.a is None else self.a, at) * inverse

    def _crossentropy_of_softmax(self, largest: Vec, inverse: Vec, log_sum: Vec) -> None:
        ops = self.ops
        smoothing = losses.get(self.loss).parameter or 0.0
        share = ops.splat(
            ops.b.fdiv(ir.Constant(ops.scalar, smoothing), ops.b.sitofp(self.outputs, ops.scalar))
        )

        def visit(at: Place) -> None:
            a = self._softmax_at(at, inverse)
            y = at.target() * (1 - smoothing) + share if smoothing else at.target()
            self._store(at, *categorical_crossentropy(ops, self._load(self.z, at) - largest, a, y, log_sum))

        self.row.each(visit)

    def _through_softmax(self, inverse: Vec) -> None:
        """An elementwise loss of a = softmax(z): with g = dloss/da, dloss/dz = a * (g - the row's sum of a *
        g)."""
        ops, formula = self.ops, formula_of(self.loss)

        def both(at: Place) -> tuple[Vec, Vec, Vec]:
            """a, the loss, and its derivative with respect to a."""
            a = self._softmax_at(at, inverse)
            return (a, *formula(ops, a, a, at.target(), None))

        def product(at: Place) -> Vec:
            a, _, g = both(at)
            return ops.select(at.mask, a * g, 0.0)

        dot = accumulate(ops, self.row, 0.0, lambda x, y: x + y, product)

        def visit(at: Place) -> None:
            a, value, g = both(at)
            self._store(at, value, a * (g - dot))

        self.row.each(visit)


def output_delta(activation: str, loss: str, dtype: str, *, activated: bool) -> int:
    """(z, a, d, y_true, y_row, rows, columns, row, scale): d = scale * d(loss)/dz of a block.

    activated: a is there already; else a = act(z) is computed here, and the loss replaces z (a is not
    written). columns: how many of the block's columns exist; beyond them the results are 0. scale: address of
    one number.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, d, y, y_row, rows, columns, stride, scale = args
        ops = Vectors(b, dtype)
        factor = ops.load_splat(scale)
        with cgutils.for_range(b, rows, intp=I64) as loop:
            z_here, a_here, d_here = (b.add(base, b.mul(loop.index, stride)) for base in (z, a, d))
            row = adjacent(ops, columns, b.add(y, b.mul(loop.index, y_row)))
            a_or_none = a_here if activated else None
            _OutputDelta(ops, activation, loss, row, columns, z_here, a_or_none, d_here, factor).emit()

    return compile_block(f"output-delta-{activation}-{loss}-{'a' if activated else 'z'}", dtype, 9, emit)


def output_delta_of_rows(activation: str, loss: str, dtype: str, *, activated: bool, weighted: bool) -> int:
    """(z, a, d, y_true, y_row, rows, columns, row, group, group_stride, scale): as `output_delta`, for whole
    rows.

    weighted: the number behind a row of y_true is the row's weight, and multiplies its delta and loss.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, d, y, y_row, rows, columns, stride, group, group_stride, scale = args
        ops = Vectors(b, dtype)
        factor = ops.load_splat(scale)
        with cgutils.for_range(b, rows, intp=I64) as loop:
            z_here, a_here, d_here = (b.add(base, b.mul(loop.index, stride)) for base in (z, a, d))
            y_here = b.add(y, b.mul(loop.index, y_row))
            row = wide(ops, columns, group, group_stride, y_here)
            weight = ops.load_splat(b.add(y_here, b.mul(columns, I64(ops.itemsize)))) if weighted else None
            a_or_none = a_here if activated else None
            _OutputDelta(
                ops, activation, loss, row, columns, z_here, a_or_none, d_here, factor, weight
            ).emit()

    variant = f"{'a' if activated else 'z'}{'-weighted' if weighted else ''}"
    key = f"output-delta-of-rows-{activation}-{loss}-{variant}"
    return compile_block(key, dtype, 11, emit)


def narrow_output_delta(activation: str, loss: str, dtype: str, *, weighted: bool = False) -> int:
    """(z, d, y_true, y_row, rows, outputs, row, scale): as `output_delta`, where z and d are [outputs][rows].

    y_true is [rows][outputs], and where samples are weighted each row's weight follows it.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, d, y, y_row, rows, outputs, stride, scale = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
        factor = ops.load_splat(scale)
        with cgutils.for_range(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), intp=I64) as loop:
            first = b.mul(loop.index, lanes)
            mask = ops.first_lanes(b.sub(rows, first))
            y_here = b.add(y, b.mul(first, y_row))
            z_here, d_here = (b.add(base, b.mul(loop.index, size)) for base in (z, d))
            row = narrow(ops, outputs, stride, y_here, y_row, mask)
            weight = (
                ops.gather(b.add(y_here, b.mul(outputs, I64(ops.itemsize))), y_row, mask)
                if weighted
                else None
            )
            _OutputDelta(ops, activation, loss, row, outputs, z_here, None, d_here, factor, weight).emit()

    key = f"narrow-output-delta-{activation}-{loss}{'-weighted' if weighted else ''}"
    return compile_block(key, dtype, 8, emit)
