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

from fastbp.engine.compile.intrinsics import I32, I64
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


def _narrowed(ops: Vectors, x: Vec, lanes: int) -> ir.Value:
    """x rounded by the CPU's own instruction, and so many lanes of what its bits are then taken for."""
    build = ops.b
    narrow = build.fptrunc(x.value, ir.VectorType(BFloat(), ops.lanes))
    return build.bitcast(narrow, ir.VectorType(ir.IntType(16 * ops.lanes // lanes), lanes))


def _rounded(ops: Vectors, x: Vec) -> ir.Value:
    """The bits of x, rounded to nearest even at the border of their halves: the upper ones are the bfloat16
    numbers. A NaN stays one, and becomes quiet."""
    build = ops.b
    bits = build.bitcast(x.value, ops.int_type)
    odd = build.and_(build.lshr(bits, ops._int_const(16)), ops._int_const(1))
    nearest = build.add(bits, build.add(odd, ops._int_const(0x7FFF)))
    quiet = build.or_(bits, ops._int_const(0x400000))
    return build.select(build.fcmp_unordered("uno", x.value, x.value), quiet, nearest)


def pairs_across(ops: Vectors, even: Vec, odd: Vec) -> Vec:
    """Pairs of the numbers in the same lane of two vectors."""
    build = ops.b
    if isa().bfloat16:
        low, high = (build.zext(_narrowed(ops, x, ops.lanes), ops.int_type) for x in (even, odd))
        high = build.shl(high, ops._int_const(16))
    else:
        low = build.lshr(_rounded(ops, even), ops._int_const(16))
        high = build.and_(_rounded(ops, odd), ops._int_const(UPPER))
    return ops.wrap(build.bitcast(build.or_(low, high), ops.type))


def store_pairs_within(ops: Vectors, x: Vec, address: ir.Value) -> None:
    """Pairs of neighbouring lanes, half as many as lanes, to an address of such pairs."""
    build, half = ops.b, ops.lanes // 2
    wide = ir.VectorType(I64, half)

    def const(k: int) -> ir.Constant:
        return ir.Constant(wide, [k] * half)

    if isa().bfloat16:
        pairs = _narrowed(ops, x, half)
    else:
        both = build.bitcast(_rounded(ops, x), wide)
        low = build.and_(build.lshr(both, const(16)), const(0xFFFF))
        high = build.and_(build.lshr(both, const(32)), const(0xFFFF0000))
        pairs = build.trunc(build.or_(low, high), ir.VectorType(I32, half))
    build.store(pairs, build.inttoptr(address, pairs.type.as_pointer())).align = 4
