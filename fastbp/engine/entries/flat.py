"""Elementwise kernels on a caller's own adjacent numbers: out = f(x, y, ...), with the formulas of
activations.py, losses.py and simd/vector.py.

Numbers are read and written in whole vectors, the last one moved back to where the numbers end, and nothing
beyond. out may be one of the operands, but may not overlap one otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from fastbp.engine.kernels.activations import ACTIVATIONS
from fastbp.engine.kernels.losses import mse
from fastbp.engine.simd.emit import compile_block, each_vector_of
from fastbp.engine.simd.vector import I64, Vec, Vectors

OPERANDS = 3  # that a kernel can have; those that it has not are never read
NO_SCALAR = 0


def _value(name: str) -> Callable[..., Vec]:
    formula = ACTIVATIONS[name].value
    return (lambda v, z: formula(v, z)) if formula else (lambda v, z: z)


def _backward(name: str) -> Callable[..., Vec]:
    formula = ACTIVATIONS[name].backward
    return (lambda v, d, z, a: formula(v, z, a, d)) if formula else (lambda v, d, z, a: d)


# kernel -> how many operands it has, and its formula
FORMULAS: dict[str, tuple[int, Callable[..., Vec]]] = {
    **{name: (1, _value(name)) for name in ACTIVATIONS},
    **{f"{name}_backward": (3, _backward(name)) for name in ACTIVATIONS},
    # of these two, a alone is enough, and where a is above 0 so is z
    "relu_mask": (2, lambda v, d, z: ACTIVATIONS["relu"].backward(v, z, z, d)),
    "sigmoid_derivative": (2, lambda v, d, a: ACTIVATIONS["sigmoid"].backward(v, a, a, d)),
    "exp": (1, lambda v, x: v.exp(x)),
    "mse_sigmoid_error": (2, lambda v, a, y: mse(v, a, a, y, ACTIVATIONS["sigmoid"].backward)[1]),
    "sgd_step": (2, lambda v, w, gradient, lr: w - lr * gradient),
}
# Formulas whose last argument is one number for all.
WITH_SCALAR = {"sgd_step"}

# From so many vectors on they are written to whole cache lines where there are formulas of a few
# instructions: NumPy's arrays begin in the middle of one, and a store to two lines takes two.
ALIGNED_FROM = 4
# Formulas of a few instructions, which are worth fewer turns of the loop.
LIGHT = {
    *("identity", "relu", "leaky_relu", "relu_mask", "sigmoid_derivative", "mse_sigmoid_error", "sgd_step"),
    *(f"{name}_backward" for name in ("identity", "leaky_relu", "tanh", "elu", "selu")),
}


def emit(b: ir.IRBuilder, name: str, dtype: str, numbers: Sequence[ir.Value]) -> None:
    """The code for numbers = x, y, z, out, count, scalar: out = the formula of that name, of `count` numbers.
    scalar: the bits of a float64."""
    operands, formula = FORMULAS[name]
    *addresses, out, count, scalar = numbers
    ops = Vectors(b, dtype)
    scalars = [ops.splat_bits(scalar)] if name in WITH_SCALAR else []
    zero, lanes, size = I64(0), I64(ops.lanes), I64(ops.itemsize)

    def load(offset: ir.Value) -> list[Vec]:
        return [*(ops.load(b.add(address, offset)) for address in addresses[:operands]), *scalars]

    with b.if_else(b.icmp_signed("<", count, lanes)) as (few, many):
        with few, b.if_then(b.icmp_signed(">", count, zero)):
            mask = ops.first_lanes(count)
            numbers = [ops.load_masked(address, mask) for address in addresses[:operands]]
            ops.store_few(formula(ops, *numbers, *scalars), out, count)
        with many:
            # The last vector is read before anything is written, since it shares numbers with the one before.
            end = b.mul(b.sub(count, lanes), size)
            last = load(end)

            head = zero
            if name in LIGHT:
                first = formula(ops, *load(zero))
                apart = b.and_(b.neg(out), I64(ops.lanes * ops.itemsize - 1))
                head = b.select(b.icmp_signed(">=", count, I64(ALIGNED_FROM * ops.lanes)), apart, zero)
            rest = b.sub(count, b.sdiv(head, size))

            def visit(at: ir.Value) -> None:
                at = b.add(head, at)
                ops.store(formula(ops, *load(at)), b.add(out, at))

            each_vector_of(ops, rest, visit, 4 if name in LIGHT else 1)
            if name in LIGHT:
                with b.if_then(b.icmp_signed("!=", head, zero)):
                    ops.store(first, out)
            with b.if_then(b.icmp_signed("!=", b.and_(rest, I64(ops.lanes - 1)), zero)):
                ops.store(formula(ops, *last), b.add(out, end))


def flat(name: str, dtype: str) -> int:
    """(x, y, z, out, count, scalar): out = the formula of that name, of `count` numbers."""
    return compile_block(
        f"flat-{name}", dtype, OPERANDS + 3, lambda b, numbers: emit(b, name, dtype, numbers)
    )
