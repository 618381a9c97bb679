"""Arithmetic on values."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types

from fastbp.engine.compile.direct.values import (
    I64,
    Known,
    Number,
    Refused,
    Value,
    cast,
    common,
    number,
)


def _divided(b: ir.IRBuilder, left: ir.Value, right: ir.Value) -> tuple[ir.Value, ir.Value]:
    """As Python divides: downwards. What has no result is 0 and 0, as in NumPy."""
    zero = I64(0)
    if isinstance(right, ir.Constant) and right.constant > 0:
        below = b.icmp_signed("<", rest := b.srem(left, right), zero)
        return b.sub(b.sdiv(left, right), b.zext(below, I64)), b.add(rest, b.select(below, right, zero))
    least = b.icmp_signed("==", left, I64(-(1 << 63)))
    none = b.or_(b.icmp_signed("==", right, zero), b.and_(least, b.icmp_signed("==", right, I64(-1))))
    by = b.select(none, I64(1), right)
    quotient, rest = b.sdiv(left, by), b.srem(left, by)
    other_sign = b.icmp_signed("<", b.xor(rest, by), zero)
    down = b.and_(b.icmp_signed("!=", rest, zero), other_sign)
    quotient, rest = b.sub(quotient, b.zext(down, I64)), b.add(rest, b.select(down, by, zero))
    return b.select(none, zero, quotient), b.select(none, zero, rest)


_KNOWN: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
    "Div": operator.truediv,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "BitXor": operator.xor,
    "LShift": operator.lshift,
    "RShift": operator.rshift,
}
_OF_INTEGERS: dict[str, Callable[..., ir.Value]] = {
    "Add": ir.IRBuilder.add,
    "Sub": ir.IRBuilder.sub,
    "Mult": ir.IRBuilder.mul,
    "FloorDiv": lambda b, left, right: _divided(b, left, right)[0],
    "Mod": lambda b, left, right: _divided(b, left, right)[1],
    "BitAnd": ir.IRBuilder.and_,
    "BitOr": ir.IRBuilder.or_,
    "BitXor": ir.IRBuilder.xor,
    "LShift": ir.IRBuilder.shl,
    "RShift": ir.IRBuilder.ashr,
}
_OF_FLOATS: dict[str, Callable[..., ir.Value]] = {
    "Add": ir.IRBuilder.fadd,
    "Sub": ir.IRBuilder.fsub,
    "Mult": ir.IRBuilder.fmul,
    "Div": ir.IRBuilder.fdiv,
}
_COMPARED: dict[str, tuple[str, Callable[..., Any]]] = {
    "Eq": ("==", operator.eq),
    "NotEq": ("!=", operator.ne),
    "Lt": ("<", operator.lt),
    "LtE": ("<=", operator.le),
    "Gt": (">", operator.gt),
    "GtE": (">=", operator.ge),
}


def arithmetic(b: ir.IRBuilder, name: str, left: Value, right: Value) -> Value:
    """left op right; name: of the operator's class in `ast`."""
    if isinstance(left, Known) and isinstance(right, Known):
        return Known(_KNOWN[name](left.value, right.value))
    kind = common([number(left).kind, number(right).kind])
    if kind in (types.int64, types.boolean):
        kind = types.float64 if name == "Div" else types.int64
    if kind not in (types.int64, types.float64, types.float32):
        raise Refused(f"{name} of {kind}")
    ways = _OF_INTEGERS if kind == types.int64 else _OF_FLOATS
    if name not in ways:
        raise Refused(f"{name} of {kind}")
    return Number(kind, ways[name](b, cast(b, left, kind).value, cast(b, right, kind).value))


def compared(b: ir.IRBuilder, name: str, left: Value, right: Value) -> Value:
    if name not in _COMPARED:
        raise Refused(f"{name} is no comparison of numbers")
    sign, of_known = _COMPARED[name]
    if isinstance(left, Known) and isinstance(right, Known):
        return Known(of_known(left.value, right.value))
    kind = common([number(left).kind, number(right).kind])
    kind = types.int64 if kind == types.boolean else kind
    a, c = cast(b, left, kind).value, cast(b, right, kind).value
    if kind == types.int64:
        return Number(types.boolean, b.icmp_signed(sign, a, c))
    compare = b.fcmp_unordered if sign == "!=" else b.fcmp_ordered
    return Number(types.boolean, compare(sign, a, c))


def least(b: ir.IRBuilder, values: list[Value], sign: str) -> Value:
    """`min` (sign "<") or `max` (">"): each that is so, compared with those before, is kept."""
    numbers = [number(value) for value in values]
    kind = numbers[0].kind
    if any(n.kind != kind for n in numbers) or kind not in (types.int64, types.float64) or len(numbers) < 2:
        raise Refused("min and max are of integers, or of float64")
    compare = b.icmp_signed if kind == types.int64 else b.fcmp_ordered
    return Number(kind, reduce(lambda a, c: b.select(compare(sign, c, a), c, a), [n.value for n in numbers]))


def absolute(b: ir.IRBuilder, value: Value) -> Value:
    n = number(value)
    if n.kind == types.int64:
        zero = I64(0)
        return Number(n.kind, b.select(b.icmp_signed("<", n.value, zero), b.sub(zero, n.value), n.value))
    if n.kind not in (types.float64, types.float32):
        raise Refused(f"abs of {n.kind}")
    return Number(n.kind, b.call(b.module.declare_intrinsic("llvm.fabs", [n.value.type]), [n.value]))
