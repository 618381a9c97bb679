"""Elementary functions on vector registers, written once in Python and emitted as LLVM vector code.

A definition such as `lambda v, z: v.maximum(z, 0.0)` is called with v = a `Vectors`, and every operation on
its `Vec` values emits one instruction for all lanes (see instructions.py).
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir

from fastbp.engine.simd.instructions import I32, I64, Instructions, Isa, Vec, isa

__all__ = ["I32", "I64", "Isa", "Vec", "Vectors", "isa"]

# Vectors.normal's polynomial, highest power first; relative error 3e-10 and 2e-17.
NORMAL_SINGLE = (
    2.11829843e-5,
    -1.7310823e-6,
    -0.000215573776,
    0.000133653387,
    0.00162204011,
    -0.00347995464,
    -0.00753771716,
    0.0603966483,
    -0.18652216,
    0.387137394,
    -0.607896631,
    0.755285131,
)
NORMAL_DOUBLE = (
    3.40331230864949465e-10,
    -1.19977820312530946e-10,
    -3.73064508186837028e-9,
    -5.8736267649871907e-10,
    2.14276038434523559e-8,
    1.78449277729814162e-8,
    -8.68664701599789296e-8,
    -1.59773961422392205e-7,
    2.72462969511458721e-7,
    1.02478510165527734e-6,
    -6.29836733849236905e-7,
    -5.92161104592397736e-6,
    7.16658764119512099e-7,
    0.0000351451119028376513,
    -1.90824635141457105e-6,
    -0.000231095017362774258,
    0.000133344309411832544,
    0.00163081846740990846,
    -0.00347969236704797363,
    -0.00754018896738631255,
    0.0603965748909178723,
    -0.186521857959636612,
    0.387137400742214917,
    -0.6078966419718923,
    0.755285130415751492,
)


class Vectors(Instructions):
    """Instructions and elementary functions for one dtype at one place in the code that is being built."""

    def _power_of_two_and_rest(self, y: Vec) -> tuple[ir.Value, Vec]:
        """n as bits to be added to a number's, which multiplies that by 2**n, and r: y = n ln 2 + r with |r|
        <= ln(2)/2.

        n in two parts of ln 2: Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6.
        Where y is so much smaller than `rounding` the sum of both is rounded to whole numbers, and its lowest
        bits are those of n.
        """
        if self.single:
            bits, rounding, ln2_hi, ln2_lo = 23, 1.5 * 2**23, 0.693359375, -2.12194440e-4
        else:
            bits, rounding, ln2_hi, ln2_lo = 52, 1.5 * 2**52, 6.93145751953125e-1, 1.42860682030941723212e-6
        sum_ = self.fma(y, 1 / math.log(2), rounding)
        n = sum_ - rounding
        return self.b.shl(self.b.bitcast(sum_.value, self.int_type), self._int_const(bits)), self.fma(
            n, -ln2_lo, self.fma(n, -ln2_hi, y)
        )

    def _scaled(self, x: Any, power: ir.Value) -> Vec:
        bits = self.b.bitcast(self._v(x), self.int_type)
        return Vec(self, self.b.bitcast(self.b.add(bits, power), self.type))

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
        """exp(x), at most 1 ulp off; 0 where it would be subnormal, infinity from the last 4 digits before
        the overflow on; NaN stays NaN."""
        low, high = self._exp_range
        power, r = self._power_of_two_and_rest(self.minimum(self.maximum(x, low), high))
        p = self._scaled(self._exp_of_rest(r), power)
        p = self.select(x < low, 0.0, p)
        p = self.select(x > high, math.inf, p)
        return self.select(self.b.fcmp_unordered("uno", x.value, x.value), x, p)

    def log(self, x: Vec) -> Vec:
        """log(x) for normal numbers x > 0, at most 4 ulp off; of a subnormal one some number; infinity and
        NaN stay."""
        return self.log_from_one(x)

    def log_from_one(self, x: Vec) -> Vec:
        """log(x) for x >= 1, at most 3 ulp off; infinity and NaN stay.

        x = 2**n m with m between sqrt(1/2) and sqrt(2); log(m) = 2 artanh(s) with s = (m - 1) / (m + 1), |s|
        <= 0.172, as its power series (Cody and Waite, as for exp).
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
        """log(1 + e) for 0 <= e <= 1, at most 3 ulp off: 2 artanh(s) with s = e / (2 + e) <= 1/3, as its
        power series."""
        s = e / (e + 2.0)
        terms = 8 if self.single else 17
        series = self.poly(s * s, [1 / (2 * k + 1) for k in range(terms - 1, -1, -1)])
        return 2.0 * s * series

    def _half_expm1(self, y: Vec) -> Vec:
        """(exp(y) - 1) / 2, at most 2 ulp off, for y of at least -60 and below the overflow of exp.

        exp(y) - 1 = 2**n (exp(r) - 1) + (2**n - 1); the half, because 2**n may be too large where exp(y) is
        not.
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

        At most 8 ulp off, also where they are small; 0 where exp is. P(Z <= -y) exp(y^2 / 2) (y + 4) is a
        polynomial in t = (y - 4) / (y + 4), which maps y >= 0 to -1 <= t < 1, from a Chebyshev series
        (Shepherd and Laframboise, Mathematics of Computation 36 (1981) 249).
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
