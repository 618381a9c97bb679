"""bfloat16 numbers in vector registers: in the 32 bits of a lane two of them, which are neighbours along the
depth of a product.

A bfloat16 number is the upper half of a float32's bits. The even one of a pair is the lower half of the lane,
the odd one the upper.

Where the CPU has AVX512_BF16, its instructions round, and multiply and add; elsewhere others do the same.
Both agree to the last bit, but for subnormal numbers: AVX512_BF16 takes them for 0.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.compile.intrinsics import I32
from fastbp.engine.simd.vector import Vec, Vectors, isa

UPPER = 0xFFFF0000 - (1 << 32)  # (as a signed integer)


class BFloat(ir.Type):
    """LLVM's type, which llvmlite does not know."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


def dot_pairs(ops: Vectors, a: Vec, b: Vec, acc: Vec) -> Vec:
    """acc + a[odd] * b[odd], and then + a[even] * b[even], each rounded once to float32.

    That order is the instruction's: Intel, Instruction Set Reference, VDPBF16PS. The products are exact in
    float32, so it does not matter whether additions are fused.
    """
    build = ops.b
    pairs_a, pairs_b = (build.bitcast(x.value, ops.int_type) for x in (a, b))
    if isa().bfloat16:
        kind = ir.FunctionType(ops.type, [ops.type, ops.int_type, ops.int_type])
        name = f"llvm.x86.avx512bf16.dpbf16ps.{8 * isa().bytes}"
        f = cgutils.get_or_insert_function(build.module, kind, name)
        return ops.wrap(build.call(f, [acc.value, pairs_a, pairs_b]))
    for half in (_upper_half, _lower_half):
        acc = ops.fma(half(ops, pairs_a), half(ops, pairs_b), acc)
    return acc


def _upper_half(ops: Vectors, pairs: ir.Value) -> Vec:
    """The odd numbers, as float32."""
    return ops.wrap(ops.b.bitcast(ops.b.and_(pairs, ops._int_const(UPPER)), ops.type))


def _lower_half(ops: Vectors, pairs: ir.Value) -> Vec:
    """The even numbers, as float32."""
    return ops.wrap(ops.b.bitcast(ops.b.shl(pairs, ops._int_const(16)), ops.type))


def halves(ops: Vectors, x: Vec) -> ir.Value:
    """x rounded: a vector of as many integers of 16 bits."""
    build, kind = ops.b, ir.VectorType(ir.IntType(16), ops.lanes)
    if isa().bfloat16:
        return build.bitcast(build.fptrunc(x.value, ir.VectorType(BFloat(), ops.lanes)), kind)
    return build.trunc(build.lshr(_rounded(ops, x), ops._int_const(16)), kind)


def _rounded(ops: Vectors, x: Vec) -> ir.Value:
    """The bits of x, rounded to nearest even at the border of their halves: the upper ones are the bfloat16
    numbers. A NaN stays one, and becomes quiet."""
    build = ops.b
    bits = build.bitcast(x.value, ops.int_type)
    odd = build.and_(build.lshr(bits, ops._int_const(16)), ops._int_const(1))
    nearest = build.add(bits, build.add(odd, ops._int_const(0x7FFF)))
    quiet = build.or_(bits, ops._int_const(0x400000))
    return build.select(build.fcmp_unordered("uno", x.value, x.value), quiet, nearest)


def across(ops: Vectors, even: ir.Value, odd: ir.Value) -> Vec:
    """Pairs of the halves in the same lane of two vectors."""
    build, n = ops.b, ops.lanes
    turns = ir.Constant(ir.VectorType(I32, 2 * n), [i // 2 + i % 2 * n for i in range(2 * n)])
    return ops.wrap(build.bitcast(build.shuffle_vector(even, odd, turns), ops.type))


def pairs_across(ops: Vectors, even: Vec, odd: Vec) -> Vec:
    """Pairs of the numbers in the same lane of two vectors."""
    return across(ops, halves(ops, even), halves(ops, odd))


def store_halves(ops: Vectors, values: ir.Value, address: ir.Value) -> None:
    """Neighbouring lanes become pairs, half as many as lanes."""
    ops.b.store(values, ops.b.inttoptr(address, values.type.as_pointer())).align = 4


def store_pairs_within(ops: Vectors, x: Vec, address: ir.Value) -> None:
    """Pairs of neighbouring lanes, half as many as lanes, to an address of such pairs."""
    store_halves(ops, halves(ops, x), address)
