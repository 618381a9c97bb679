"""Elementwise kernels on a caller's own adjacent numbers: out = f(x, y, ...), with the formulas of
activations.py, losses.py and simd/vector.py.

Numbers are read and written in whole vectors, the last ones with a mask, and nothing beyond. out may be one
of the operands, but may not overlap one otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from fastbp.engine.kernels.activations import ACTIVATIONS
from fastbp.engine.kernels.losses import mse
from fastbp.engine.simd.emit import compile_block, each_vector_of
from fastbp.engine.simd.vector import Vec, Vectors

OPERANDS = 3  # that a kernel can have; those that it has not are never read


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
}


def flat(name: str, dtype: str) -> int:
    """(x, y, z, out, count): out = the formula of that name, of `count` numbers."""
    operands, formula = FORMULAS[name]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        *addresses, out, count = args
        ops = Vectors(b, dtype)

        def visit(offset: ir.Value, mask: ir.Value | None) -> None:
            places = [b.add(address, offset) for address in addresses[:operands]]
            if mask is None:
                ops.store(formula(ops, *map(ops.load, places)), b.add(out, offset))
            else:
                numbers = [ops.load_masked(place, mask) for place in places]
                ops.store_masked(formula(ops, *numbers), b.add(out, offset), mask)

        each_vector_of(ops, count, visit)

    return compile_block(f"flat-{name}", dtype, OPERANDS + 2, emit)
