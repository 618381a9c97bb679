"""Arithmetic on vector registers, written once in Python and emitted as LLVM vector code.

A definition such as `lambda v, z: v.maximum(z, 0.0)` is called with v = a `Vectors`, and every operation on its `Vec` values
emits one instruction for all lanes. Multiplication and addition are never contracted; where one rounding is meant, `fma` says so.
On a CPU without fused multiply-add, `fma` is a multiplication and an addition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils
from numba.core.registry import cpu_target

from fastbp.engine.compile.intrinsics import I32, I64

# Vectors.normal's polynomial, highest power first; relative error 3e-10 and 2e-17.
NORMAL_SINGLE = (
    2.11829843e-5, -1.7310823e-6, -0.000215573776, 0.000133653387, 0.00162204011, -0.00347995464, -0.00753771716, 0.0603966483,
    -0.18652216, 0.387137394, -0.607896631, 0.755285131,
)  # fmt: skip
NORMAL_DOUBLE = (
    3.40331230864949465e-10, -1.19977820312530946e-10, -3.73064508186837028e-9, -5.8736267649871907e-10, 2.14276038434523559e-8,
    1.78449277729814162e-8, -8.68664701599789296e-8, -1.59773961422392205e-7, 2.72462969511458721e-7, 1.02478510165527734e-6,
    -6.29836733849236905e-7, -5.92161104592397736e-6, 7.16658764119512099e-7, 0.0000351451119028376513, -1.90824635141457105e-6,
    -0.000231095017362774258, 0.000133344309411832544, 0.00163081846740990846, -0.00347969236704797363, -0.00754018896738631255,
    0.0603965748909178723, -0.186521857959636612, 0.387137400742214917, -0.6078966419718923, 0.755285130415751492,
)  # fmt: skip


@dataclass(frozen=True)
class Isa:
    """What the tile needs to know of the CPU that Numba compiles for."""

    bytes: int  # of a vector register
    registers: int
    fma: bool
    two_passes: bool = False  # whether a vector goes through units of half its width in two passes


@cache
def isa() -> Isa:
    codegen = cpu_target.target_context.codegen()
    _, cpu, features = codegen.magic_tuple()
    on = {f[1:] for f in features.split(",") if f.startswith("+")}
    if "avx512f" in on:
        return Isa(64, 32, True, cpu == "znver4")
    if "avx2" in on or "avx" in on:
        return Isa(32, 16, "fma" in on)
    if "neon" in on or "aarch64" in codegen._tm.triple or "arm64" in codegen._tm.triple:
        return Isa(16, 32, True)
    return Isa(16, 16, False)


class Vec:
    def __init__(self, ops: Vectors, value: ir.Value) -> None:
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


class Vectors:
    """Operations for one dtype at one place in the code that is being built."""

    def __init__(self, builder: ir.IRBuilder, dtype: str) -> None:
        self.b = builder
        self.single = dtype == "float32"
        self.scalar = ir.FloatType() if self.single else ir.DoubleType()
        self.itemsize = 4 if self.single else 8
        self.lanes = isa().bytes // self.itemsize
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
        f = cgutils.get_or_insert_function(self.b.module, ir.FunctionType(self.type, [self.type] * len(args)), f"llvm.{name}.{suffix}")
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

    def poly(self, x: Vec, coefficients) -> Vec:
        """Horner's rule, highest power first."""
        y = self.const(coefficients[0])
        for c in coefficients[1:]:
            y = self.fma(y, x, c)
        return y

    def _power_of_two_and_rest(self, y: Vec) -> tuple[ir.Value, Vec]:
        """n as bits to be added to a number's, which multiplies that by 2**n, and r: y = n ln 2 + r with |r| <= ln(2)/2.

        n in two parts of ln 2: Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6. Where y is so much smaller
        than `rounding` the sum of both is rounded to whole numbers, and its lowest bits are those of n.
        """
        if self.single:
            bits, rounding, ln2_hi, ln2_lo = 23, 1.5 * 2**23, 0.693359375, -2.12194440e-4
        else:
            bits, rounding, ln2_hi, ln2_lo = 52, 1.5 * 2**52, 6.93145751953125e-1, 1.42860682030941723212e-6
        sum_ = self.fma(y, 1 / math.log(2), rounding)
        n = sum_ - rounding
        return self.b.shl(self.b.bitcast(sum_.value, self.int_type), self._int_const(bits)), self.fma(n, -ln2_lo, self.fma(n, -ln2_hi, y))

    def _scaled(self, x: Any, power: ir.Value) -> Vec:
        bits = self.b.bitcast(self._v(x), self.int_type)
        return Vec(self, self.b.bitcast(self.b.add(bits, power), self.type))

    def _int_const(self, k: int) -> ir.Value:
        return ir.Constant(self.int_type, [k] * self.lanes)

    @property
    def _exp_range(self) -> tuple[float, float]:
        """Where exp is a normal number, but for the last 4 digits before the overflow."""
        return (-87.3, 88.72283) if self.single else (-708.39, 709.7827)

    @property
    def _exp_degree(self) -> int:
        """Of the Taylor polynomial of exp(r)."""
        return 7 if self.single else 13

    def _exp_of_rest(self, r: Vec) -> Vec:
        return self.poly(r, [1 / math.factorial(k) for k in range(self._exp_degree, -1, -1)])

    def exp(self, x: Vec) -> Vec:
        """exp(x), at most 1 ulp off; 0 where it would be subnormal, infinity from the last 4 digits before the overflow on; NaN
        stays NaN."""
        low, high = self._exp_range
        power, r = self._power_of_two_and_rest(self.minimum(self.maximum(x, low), high))
        p = self._scaled(self._exp_of_rest(r), power)
        p = self.select(x < low, 0.0, p)
        p = self.select(x > high, math.inf, p)
        return self.select(self.b.fcmp_unordered("uno", x.value, x.value), x, p)

    def log_from_one(self, x: Vec) -> Vec:
        """log(x) for x >= 1, at most 3 ulp off; infinity and NaN stay.

        x = 2**n m with m between sqrt(1/2) and sqrt(2); log(m) = 2 artanh(s) with s = (m - 1) / (m + 1), |s| <= 0.172, as its
        power series (Cody and Waite, as for exp).
        """
        if self.single:
            bits, root_half, terms = 23, 0x3F3504F3, 6
            ln2_hi, ln2_lo = 0.693359375, -2.12194440e-4
        else:
            bits, root_half, terms = 52, 0x3FE6A09E667F3BCD, 11
            ln2_hi, ln2_lo = 6.93145751953125e-1, 1.42860682030941723212e-6
        i = self.b.bitcast(x.value, self.int_type)
        exponent = self.b.ashr(self.b.sub(i, self._int_const(root_half)), self._int_const(bits))
        m = Vec(self, self.b.bitcast(self.b.sub(i, self.b.shl(exponent, self._int_const(bits))), self.type))
        n = Vec(self, self.b.sitofp(exponent, self.type))
        s = (m - 1.0) / (m + 1.0)
        series = self.poly(s * s, [1 / (2 * k + 1) for k in range(terms - 1, -1, -1)])
        y = self.fma(n, ln2_hi, self.fma(n, ln2_lo, 2.0 * s * series))
        return self.select(x < math.inf, y, x)

    def log1p_of_unit(self, e: Vec) -> Vec:
        """log(1 + e) for 0 <= e <= 1, at most 3 ulp off: 2 artanh(s) with s = e / (2 + e) <= 1/3, as its power series."""
        s = e / (e + 2.0)
        terms = 8 if self.single else 17
        series = self.poly(s * s, [1 / (2 * k + 1) for k in range(terms - 1, -1, -1)])
        return 2.0 * s * series

    def _half_expm1(self, y: Vec) -> Vec:
        """(exp(y) - 1) / 2, at most 2 ulp off, for y of at least -60 and below the overflow of exp.

        exp(y) - 1 = 2**n (exp(r) - 1) + (2**n - 1); the half, because 2**n may be too large where exp(y) is not.
        """
        power, r = self._power_of_two_and_rest(y)
        series = self.poly(r, [1 / math.factorial(k) for k in range(self._exp_degree, 1, -1)])
        half = self._scaled(0.5, power)
        return self.fma(half, self.fma(r * r, series, r), half - 0.5)

    def expm1(self, x: Vec) -> Vec:
        """exp(x) - 1, at most 3 ulp off."""
        _, high = self._exp_range
        result = 2.0 * self._half_expm1(self.minimum(self.maximum(x, -60.0), high))
        return self.copysign(self.select(x > high, math.inf, result), x)  # for the sake of -0

    def normal(self, x: Vec) -> tuple[Vec, Vec]:
        """The standard normal distribution P(Z <= x) = 1/2 erfc(-x / sqrt(2)), and exp(-x^2 / 2).

        At most 8 ulp off, also where they are small; 0 where exp is. P(Z <= -y) exp(y^2 / 2) (y + 4) is a polynomial in
        t = (y - 4) / (y + 4), which maps y >= 0 to -1 <= t < 1, from a Chebyshev series (Shepherd and Laframboise,
        Mathematics of Computation 36 (1981) 249).
        """
        y = self.minimum(self.abs(x), 40.0)
        square = y * y
        rest = self.fma(y, y, -square)  # exp would multiply the rounding error of the square by the square
        e = self.exp(-0.5 * square) * (1.0 - 0.5 * rest)
        r = 1.0 / (y + 4.0)
        tail = self.poly(1.0 - 8.0 * r, NORMAL_SINGLE if self.single else NORMAL_DOUBLE) * r * e
        return self.select(x < 0.0, tail, 1.0 - tail), e

    def tanh(self, x: Vec) -> Vec:
        """tanh(x), at most 3 ulp off: -h / (h + 1) with h = (exp(-2|x|) - 1) / 2."""
        h = self._half_expm1(self.maximum(-2.0 * self.abs(x), -60.0))
        return self.copysign(h / (h + 1.0), x)

    def sigmoid(self, x: Vec) -> Vec:
        """1 / (1 + exp(-x)), at most 2.5 ulp off; 0 where it would be subnormal."""
        low, high = (-87.33, 87.3) if self.single else (-708.39, 708.39)
        power, r = self._power_of_two_and_rest(-self.minimum(self.maximum(x, low), high))
        return self.select(x < low, 0.0, 1.0 / self.fma(self._scaled(1.0, power), self._exp_of_rest(r), 1.0))

    # -- across the lanes
    def across(self, x: Vec, combine: Any) -> Vec:
        """All lanes combined, in each of them; with the same bits, as combine(x, y) is combine(y, x)."""
        span = 1
        while span < self.lanes:
            other = ir.Constant(ir.VectorType(I32, self.lanes), [i ^ span for i in range(self.lanes)])
            x = combine(x, Vec(self, self.b.shuffle_vector(x.value, x.value, other)))
            span *= 2
        return x

    # -- memory (addresses are 64-bit integers)
    def load(self, address: ir.Value) -> Vec:
        v = self.b.load(self.b.inttoptr(address, self.type.as_pointer()))
        v.align = self.itemsize
        return Vec(self, v)

    def store(self, x: Any, address: ir.Value) -> None:
        s = self.b.store(self._v(x), self.b.inttoptr(address, self.type.as_pointer()))
        s.align = self.itemsize

    def store_first(self, x: Vec, address: ir.Value) -> None:
        """Write the number in the first lane."""
        self.b.store(self.b.extract_element(x.value, I32(0)), self.b.inttoptr(address, self.scalar.as_pointer()))

    def splat(self, scalar: ir.Value) -> Vec:
        undef = ir.Constant(self.type, ir.Undefined)
        v = self.b.insert_element(undef, scalar, I32(0))
        return Vec(self, self.b.shuffle_vector(v, undef, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)))

    def load_splat(self, address: ir.Value) -> Vec:
        return self.splat(self.b.load(self.b.inttoptr(address, self.scalar.as_pointer())))

    def prefetch(self, address: ir.Value, level: int = 1) -> None:
        """Ask for the cache line at an address, which need not exist; level: of the cache that it shall come to, 1 or 2."""
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        f = cgutils.get_or_insert_function(self.b.module, kind, "llvm.prefetch.p0")
        self.b.call(f, [self.b.inttoptr(address, pointer), I32(0), I32(4 - level), I32(1)])  # to read, how close, data

    def first_lanes(self, count: ir.Value) -> ir.Value:
        """A mask of the lanes below count (a 64-bit integer)."""
        lanes = I64(self.lanes)
        count = self.b.select(self.b.icmp_signed("<", count, lanes), count, lanes)
        count = self.b.select(self.b.icmp_signed(">", count, I64(0)), count, I64(0))
        bits = self.b.trunc(self.b.sub(self.b.shl(I64(1), count), I64(1)), ir.IntType(self.lanes))
        return self.b.bitcast(bits, ir.VectorType(ir.IntType(1), self.lanes))

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

    def _addresses(self, address: ir.Value, stride: ir.Value) -> ir.Value:
        """One pointer a lane: address, address + stride, ..."""
        wide = ir.VectorType(I64, self.lanes)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        undef = ir.Constant(wide, ir.Undefined)
        base, step = (self.b.shuffle_vector(self.b.insert_element(undef, x, I32(0)), undef, zeros) for x in (address, stride))
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
