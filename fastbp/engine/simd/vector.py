"""Elementary functions on vector registers, written once in Python and emitted as LLVM vector code.

A definition such as `lambda v, z: v.maximum(z, 0.0)` is called with v = a `Vectors`, and every operation on
its `Vec` values emits one instruction for all lanes (see instructions.py).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from fastbp.engine.simd import coefficients
from fastbp.engine.simd.instructions import I32, I64, Instructions, Isa, Vec, isa

__all__ = ["I32", "I64", "Isa", "Vec", "Vectors", "isa"]


class Vectors(Instructions):
    """Instructions and elementary functions for one dtype at one place in the code that is being built."""

    def series(self, x: Vec, of: coefficients.Series, *lower: float) -> Vec:
        """The polynomial for this dtype, with `lower` for the lowest powers behind it."""
        return self.poly(x, [*(of.single if self.single else of.double), *lower])

    def _power_of_two_and_rest(self, y: Vec, *, once: bool = False) -> tuple[ir.Value, Vec]:
        """n as bits to be added to a number's, which multiplies that by 2**n, and r: y = n ln 2 + r with |r|
        <= ln(2)/2. Both are some numbers where 2**n is no normal one.

        n in two parts of ln 2: Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6.
        Where y is so much smaller than `rounding` the sum of both is rounded to whole numbers, and its lowest
        bits are those of n. once: float32 may do with one part, which is 1.9e-9 off; for n that stay small.
        """
        if self.single:
            bits, rounding, ln2_hi, ln2_lo = 23, 1.5 * 2**23, 0.693359375, -2.12194440e-4
        else:
            bits, rounding, ln2_hi, ln2_lo = 52, 1.5 * 2**52, 6.93145751953125e-1, 1.42860682030941723212e-6
        sum_ = self.fma(y, 1 / math.log(2), rounding)
        n = sum_ - rounding
        power = self.b.shl(self.b.bitcast(sum_.value, self.int_type), self._int_const(bits))
        if once and self.single and isa().fma:  # a product that is rounded would be off by more
            return power, self.fma(n, -math.log(2), y)
        return power, self.fma(n, -ln2_lo, self.fma(n, -ln2_hi, y))

    def _scaled(self, x: Any, power: ir.Value) -> Vec:
        bits = self.b.bitcast(self._v(x), self.int_type)
        return Vec(self, self.b.bitcast(self.b.add(bits, power), self.type))

    @property
    def _exp_range(self) -> tuple[float, float]:
        """Where exp is a normal number, but for the last 4 digits before the overflow."""
        return (-87.3, 88.72283) if self.single else (-708.39, 709.7827)

    def _exp_of_rest(self, r: Vec) -> Vec:
        return self.series(r, coefficients.EXP, 1.0, 1.0)

    def exp(self, x: Vec) -> Vec:
        """exp(x), at most 1 ulp off; 0 where it would be subnormal, infinity from the last 4 digits before
        the overflow on; NaN stays NaN."""
        _, high = self._exp_range
        beyond = self.b.fcmp_unordered(">", x.value, self._v(high))
        return self.select(beyond, x + math.inf, self.exp_below(x))

    def exp_below(self, x: Vec) -> Vec:
        """The same for x that are known to be no larger than that; NaN becomes some number."""
        low, _ = self._exp_range
        power, r = self._power_of_two_and_rest(x)
        return self.select(x < low, 0.0, self._scaled(self._exp_of_rest(r), power))

    def log(self, x: Vec) -> Vec:
        """log(x) for normal numbers x > 0, at most 4 ulp off; of a subnormal one some number; infinity and
        NaN stay."""
        return self.log_from_one(x)

    def log_from_one(self, x: Vec) -> Vec:
        """log(x) for x >= 1, at most 3 ulp off; infinity and NaN stay.

        x = 2**n m with m between sqrt(1/2) and sqrt(2); log(m) = 2 artanh(s) with s = (m - 1) / (m + 1), |s|
        <= 0.172 (Cody and Waite, as for exp).
        """
        if self.single:
            bits, root_half = 23, 0x3F3504F3
            ln2_hi, ln2_lo = 0.693359375, -2.12194440e-4
        else:
            bits, root_half = 52, 0x3FE6A09E667F3BCD
            ln2_hi, ln2_lo = 6.93145751953125e-1, 1.42860682030941723212e-6
        i = self.b.bitcast(x.value, self.int_type)
        exponent = self.b.ashr(self.b.sub(i, self._int_const(root_half)), self._int_const(bits))
        m = Vec(self, self.b.bitcast(self.b.sub(i, self.b.shl(exponent, self._int_const(bits))), self.type))
        n = Vec(self, self.b.sitofp(exponent, self.type))
        s = (m - 1.0) / (m + 1.0)
        series = self.series(s * s, coefficients.LOG)
        y = self.fma(n, ln2_hi, self.fma(n, ln2_lo, 2.0 * s * series))
        return self.select(x < math.inf, y, x)

    def log1p_of_unit(self, e: Vec) -> Vec:
        """log(1 + e) for 0 <= e <= 1, at most 3 ulp off: 2 artanh(s) with s = e / (2 + e) <= 1/3."""
        s = e / (e + 2.0)
        return 2.0 * s * self.series(s * s, coefficients.LOG1P)

    def _half_expm1(self, y: Vec, *, once: bool = False) -> Vec:
        """(exp(y) - 1) / 2, at most 2 ulp off, for y of at least -60 and below the overflow of exp; beyond
        that some number. once: as above.

        exp(y) - 1 = 2**n (exp(r) - 1) + (2**n - 1); the half, because 2**n may be too large where exp(y) is
        not.
        """
        power, r = self._power_of_two_and_rest(y, once=once)
        half = self._scaled(0.5, power)
        return self.fma(half, self.fma(r * r, self.series(r, coefficients.EXP), r), half - 0.5)

    def expm1(self, x: Vec) -> Vec:
        """exp(x) - 1, at most 3 ulp off."""
        _, high = self._exp_range
        result = 2.0 * self._half_expm1(self.maximum(x, -60.0))
        return self.copysign(self.select(x > high, math.inf, result), x)  # for the sake of -0

    def normal(self, x: Vec) -> tuple[Vec, Vec]:
        """The standard normal distribution P(Z <= x) = 1/2 erfc(-x / sqrt(2)), and exp(-x^2 / 2).

        At most 8 ulp off, also where they are small; 0 where exp is. P(Z <= -y) exp(y^2 / 2) (y + 4) is a
        polynomial in t = (y - 4) / (y + 4), which maps y >= 0 to -1 <= t < 1, from a Chebyshev series
        (Shepherd and Laframboise, Mathematics of Computation 36 (1981) 249).
        """
        y = self.minimum(self.abs(x), 40.0)
        square = y * y
        rest = self.fma(y, y, -square)  # exp would multiply the rounding error of the square by the square
        e = self.exp_below(-0.5 * square) * (1.0 - 0.5 * rest)  # NaN through the rest
        r = 1.0 / (y + 4.0)
        tail = self.series(1.0 - 8.0 * r, coefficients.NORMAL) * r * e
        return self.select(x < 0.0, tail, 1.0 - tail), e

    def tanh(self, x: Vec) -> Vec:
        """tanh(x), at most 3 ulp off: -h / (h + 1) with h = (exp(-2|x|) - 1) / 2."""
        y = self.minimum(self.abs(x), 30.0)
        h = self._half_expm1(-(y + y), once=True)  # the further y is from 0, the less does h depend on it
        return self.copysign(h / (h + 1.0), x)

    def sigmoid(self, x: Vec) -> Vec:
        """1 / (1 + exp(-x)), at most 2.5 ulp off; 0 where it would be subnormal."""
        low, high = (-87.33, 87.3) if self.single else (-708.39, 708.39)
        power, r = self._power_of_two_and_rest(-self.minimum(x, high))
        return self.select(x < low, 0.0, 1.0 / self.fma(self._scaled(1.0, power), self._exp_of_rest(r), 1.0))
