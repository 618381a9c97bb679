"""Arithmetic on vector registers and memory, one instruction of LLVM vector code each, for all lanes.

Multiplication and addition are never contracted; where one rounding is meant, `fma` says so. On a CPU without
fused multiply-add, `fma` is a multiplication and an addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

from fastbp.engine.compile.intrinsics import I32, I64


@dataclass(frozen=True)
class Isa:
    """What the microkernel needs to know of the CPU that Numba compiles for."""

    bytes: int  # of a vector register
    registers: int
    fma: bool
    two_passes: bool = False  # whether a vector goes through units of half its width in two passes
    bfloat16: bool = False  # whether it has the instruction for products of pairs of bfloat16 numbers
    tiles: bool = False  # and those for products of matrices of them, see simd/amx.py

    @property
    def passes(self) -> int:
        """In how many passes a vector goes through a unit."""
        return 2 if self.two_passes else 1

    @property
    def masks(self) -> bool:
        """Whether writing with a mask takes no longer than without one. (Zen 4: 18 cycles; AVX2's on Zen 3:
        12.)"""
        return self.whole_units

    @property
    def whole_units(self) -> bool:
        """Whether vectors of 64 bytes go through a unit in one pass."""
        return self.bytes == 64 and not self.two_passes


@cache
def isa() -> Isa:
    codegen = cpu_target.target_context.codegen()
    _, cpu, features = codegen.magic_tuple()
    on = {f[1:] for f in features.split(",") if f.startswith("+")}
    if "avx512f" in on:
        pairs = "avx512bf16" in on
        return Isa(64, 32, True, cpu == "znver4", pairs, pairs and {"amx-tile", "amx-bf16"} <= on)
    if "avx2" in on or "avx" in on:
        return Isa(32, 16, "fma" in on)
    if "neon" in on or "aarch64" in codegen._tm.triple or "arm64" in codegen._tm.triple:
        return Isa(16, 32, True)
    return Isa(16, 16, False)


class Vec:
    def __init__(self, ops: Instructions, value: ir.Value) -> None:
        self.ops, self.value = ops, value

    def __add__(self, o):
        return self.ops._bin("fadd", self, o)

    def __radd__(self, o):
        return self.ops._bin("fadd", o, self)

    def __sub__(self, o):
        return self.ops._bin("fsub", self, o)

    def __rsub__(self, o):
        return self.ops._bin("fsub", o, self)

    def __mul__(self, o):
        return self.ops._bin("fmul", self, o)

    def __rmul__(self, o):
        return self.ops._bin("fmul", o, self)

    def __truediv__(self, o):
        return self.ops._bin("fdiv", self, o)

    def __rtruediv__(self, o):
        return self.ops._bin("fdiv", o, self)

    def __neg__(self):
        return self.ops._bin("fsub", -0.0, self)

    def __gt__(self, o):
        return self.ops._cmp(">", self, o)

    def __lt__(self, o):
        return self.ops._cmp("<", self, o)


class Instructions:
    """Operations for one dtype at one place in the code that is being built; lanes: of a vector, if not all
    of the CPU's."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int | None = None) -> None:
        self.b = builder
        self.single = dtype == "float32"
        self.scalar = ir.FloatType() if self.single else ir.DoubleType()
        self.itemsize = 4 if self.single else 8
        self.lanes = lanes or isa().bytes // self.itemsize
        self.type = ir.VectorType(self.scalar, self.lanes)
        self.int_scalar = I32 if self.single else I64
        self.int_type = ir.VectorType(self.int_scalar, self.lanes)

    # -- values
    def const(self, x: float) -> Vec:
        return Vec(self, ir.Constant(self.type, [x] * self.lanes))

    def wrap(self, value: ir.Value) -> Vec:
        return Vec(self, value)

    def _v(self, x: Any) -> ir.Value:
        return x.value if isinstance(x, Vec) else self.const(float(x)).value

    def _bin(self, op: str, x: Any, y: Any) -> Vec:
        return Vec(self, getattr(self.b, op)(self._v(x), self._v(y)))

    def _cmp(self, op: str, x: Any, y: Any) -> ir.Value:
        return self.b.fcmp_ordered(op, self._v(x), self._v(y))

    def _call(self, name: str, *args: Any) -> Vec:
        suffix = f"v{self.lanes}f{self.itemsize * 8}"
        f = cgutils.get_or_insert_function(
            self.b.module, ir.FunctionType(self.type, [self.type] * len(args)), f"llvm.{name}.{suffix}"
        )
        return Vec(self, self.b.call(f, [self._v(a) for a in args]))

    def fma(self, x, y, z) -> Vec:
        if isa().fma:
            return self._call("fma", x, y, z)
        return Vec(self, self._v(x)) * Vec(self, self._v(y)) + z

    def select(self, condition: ir.Value, x, y) -> Vec:
        return Vec(self, self.b.select(condition, self._v(x), self._v(y)))

    # NaN passes through both (the comparison is false, and the second operand is the data)
    def maximum(self, x: Vec, floor: Vec | float) -> Vec:
        return self.select(self._cmp("<", x, floor), floor, x)

    def minimum(self, x: Vec, ceiling: Vec | float) -> Vec:
        return self.select(self._cmp(">", x, ceiling), ceiling, x)

    def sqrt(self, x) -> Vec:
        return self._call("sqrt", x)

    def abs(self, x) -> Vec:
        return self._call("fabs", x)

    def copysign(self, x, sign) -> Vec:
        return self._call("copysign", x, sign)

    def _int_const(self, k: int) -> ir.Value:
        return ir.Constant(self.int_type, [k] * self.lanes)

    def poly(self, x: Vec, coefficients) -> Vec:
        """Horner's rule, highest power first."""
        y = self.const(coefficients[0])
        for c in coefficients[1:]:
            y = self.fma(y, x, c)
        return y

    # -- across the lanes
    def across(self, x: Vec, combine: Any) -> Vec:
        """All lanes combined, in each of them; with the same bits, as combine(x, y) is combine(y, x)."""
        span = 1
        while span < self.lanes:
            other = ir.Constant(ir.VectorType(I32, self.lanes), [i ^ span for i in range(self.lanes)])
            x = combine(x, Vec(self, self.b.shuffle_vector(x.value, x.value, other)))
            span *= 2
        return x

    def pairs(self, x: Vec) -> tuple[Vec, Vec]:
        """Of each pair of lanes the first number, and the second, in both."""
        first, second = (
            ir.Constant(ir.VectorType(I32, self.lanes), [i // 2 * 2 + k for i in range(self.lanes)])
            for k in (0, 1)
        )
        return (
            Vec(self, self.b.shuffle_vector(x.value, x.value, first)),
            Vec(self, self.b.shuffle_vector(x.value, x.value, second)),
        )

    def even_lanes(self) -> ir.Value:
        """A mask of the first lane of each pair."""
        return ir.Constant(ir.VectorType(ir.IntType(1), self.lanes), [i % 2 == 0 for i in range(self.lanes)])

    # -- memory (addresses are 64-bit integers)
    def keep_order(self) -> None:
        """What is read or written before stays before, and behind what is behind: LLVM would read early, and
        keep on the stack what there are no registers for."""
        nothing = ir.FunctionType(ir.VoidType(), [])
        self.b.call(ir.InlineAsm(nothing, "", "~{memory}", side_effect=True), [])

    def load(self, address: ir.Value) -> Vec:
        v = self.b.load(self.b.inttoptr(address, self.type.as_pointer()))
        v.align = self.itemsize
        return Vec(self, v)

    def store(self, x: Any, address: ir.Value) -> None:
        value = self._v(x)
        if isinstance(value, ir.SelectInstr) and isa().bytes == 32:
            value = self._as_it_is(value)
        s = self.b.store(value, self.b.inttoptr(address, self.type.as_pointer()))
        s.align = self.itemsize

    def _as_it_is(self, value: ir.Value) -> ir.Value:
        """The same vector, by no instruction, but LLVM does not know where it comes from.

        Where some lanes stay what they are in memory it would store the others with a mask. AVX2's masked
        store takes 12 cycles on AMD's cores, and what is loaded soon afterwards waits for it: a ReLU's
        deltas took longer than a product.
        """
        kind = ir.FunctionType(self.type, [self.type])
        return self.b.call(ir.InlineAsm(kind, "", "=x,0"), [value])

    def store_first(self, x: Vec, address: ir.Value) -> None:
        """Write the number in the first lane."""
        self.b.store(
            self.b.extract_element(x.value, I32(0)), self.b.inttoptr(address, self.scalar.as_pointer())
        )

    def _splat(self, scalar: ir.Value, kind: ir.Type) -> ir.Value:
        undef = ir.Constant(kind, ir.Undefined)
        v = self.b.insert_element(undef, scalar, I32(0))
        return self.b.shuffle_vector(v, undef, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes))

    def splat(self, scalar: ir.Value) -> Vec:
        return Vec(self, self._splat(scalar, self.type))

    def splat_bits(self, bits: ir.Value) -> Vec:
        """The number in all lanes whose bits as a float64 these are."""
        number = self.b.bitcast(bits, ir.DoubleType())
        return self.splat(self.b.fptrunc(number, self.scalar) if self.single else number)

    def load_splat(self, address: ir.Value) -> Vec:
        return self.splat(self.b.load(self.b.inttoptr(address, self.scalar.as_pointer())))

    def prefetch(self, address: ir.Value, level: int = 1) -> None:
        """Ask for the cache line at an address, which need not exist; level: of the cache that it shall come
        to, 1 or 2."""
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        f = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        self.b.call(
            f, [self.b.inttoptr(address, pointer), I32(0), I32(4 - level), I32(1)]
        )  # to read, how close, data

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask of the lanes below count (a 64-bit integer)."""
        lanes = I64(self.lanes)
        count = self.b.select(self.b.icmp_signed("<", count, lanes), count, lanes)
        number = count if self.int_scalar == I64 else self.b.trunc(count, I32)
        return self.b.icmp_signed(
            "<", ir.Constant(self.int_type, list(range(self.lanes))), self._splat(number, self.int_type)
        )

    def load_masked(self, address: ir.Value, mask: ir.Value) -> Vec:
        """The lanes of the mask; 0 elsewhere, where memory is not touched."""
        pointer = self.type.as_pointer()
        f = cgutils.get_or_insert_function(
            self.b.module,
            ir.FunctionType(self.type, [pointer, I32, mask.type, self.type]),
            f"llvm.masked.load.v{self.lanes}f{self.itemsize * 8}.p0",
        )
        zero = self.const(0.0).value
        return Vec(self, self.b.call(f, [self.b.inttoptr(address, pointer), I32(self.itemsize), mask, zero]))

    def store_masked(self, x: Vec, address: ir.Value, mask: ir.Value) -> None:
        """Write the lanes of the mask; other memory is not touched."""
        pointer = self.type.as_pointer()
        f = cgutils.get_or_insert_function(
            self.b.module,
            ir.FunctionType(ir.VoidType(), [self.type, pointer, I32, mask.type]),
            f"llvm.masked.store.v{self.lanes}f{self.itemsize * 8}.p0",
        )
        self.b.call(f, [x.value, self.b.inttoptr(address, pointer), I32(self.itemsize), mask])

    def store_few(self, x: Vec, address: ir.Value, count: ir.Value) -> None:
        """Write the first lanes, fewer than all: powers of two at a time, since some CPUs take longer for one
        masked store (Zen 4: 18 cycles)."""
        rest, width = x.value, self.lanes // 2
        while width:
            with self.b.if_then(self.b.icmp_signed("!=", self.b.and_(count, I64(width)), I64(0))):
                piece = self._some_lanes(rest, 0, width)
                s = self.b.store(piece, self.b.inttoptr(address, piece.type.as_pointer()))
                s.align = self.itemsize
            taken = self.b.and_(count, I64(width))
            low, high = (self._some_lanes(rest, first, width) for first in (0, width))
            rest = self.b.select(self.b.icmp_signed("!=", taken, I64(0)), high, low)
            address = self.b.add(address, self.b.mul(taken, I64(self.itemsize)))
            width //= 2

    def _some_lanes(self, value: ir.Value, first: int, count: int) -> ir.Value:
        lanes = ir.Constant(ir.VectorType(I32, count), list(range(first, first + count)))
        return self.b.shuffle_vector(value, value, lanes)

    def _addresses(self, address: ir.Value, stride: ir.Value) -> ir.Value:
        """One pointer a lane: address, address + stride, ..."""
        wide = ir.VectorType(I64, self.lanes)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        undef = ir.Constant(wide, ir.Undefined)
        base, step = (
            self.b.shuffle_vector(self.b.insert_element(undef, x, I32(0)), undef, zeros)
            for x in (address, stride)
        )
        lanes = ir.Constant(wide, list(range(self.lanes)))
        pointers = ir.VectorType(self.scalar.as_pointer(), self.lanes)
        return self.b.inttoptr(self.b.add(base, self.b.mul(step, lanes)), pointers)

    def gather(self, address: ir.Value, stride: ir.Value, mask: ir.Value) -> Vec:
        """Numbers `stride` bytes apart; 0 outside the mask, where memory is not touched."""
        pointers = self._addresses(address, stride)
        f = cgutils.get_or_insert_function(
            self.b.module,
            ir.FunctionType(self.type, [pointers.type, I32, mask.type, self.type]),
            f"llvm.masked.gather.v{self.lanes}f{self.itemsize * 8}.v{self.lanes}p0",
        )
        return Vec(self, self.b.call(f, [pointers, I32(self.itemsize), mask, self.const(0.0).value]))

    def scatter(self, x: Vec, address: ir.Value, stride: ir.Value, mask: ir.Value) -> None:
        """Write numbers `stride` bytes apart, those of the mask."""
        pointers = self._addresses(address, stride)
        f = cgutils.get_or_insert_function(
            self.b.module,
            ir.FunctionType(ir.VoidType(), [self.type, pointers.type, I32, mask.type]),
            f"llvm.masked.scatter.v{self.lanes}f{self.itemsize * 8}.v{self.lanes}p0",
        )
        self.b.call(f, [x.value, pointers, I32(self.itemsize), mask])
