"""What stands behind a name or an expression while a function is translated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from fastbp.engine.compile.struct import StructType

I64, I1, DOUBLE, FLOAT = ir.IntType(64), ir.IntType(1), ir.DoubleType(), ir.FloatType()
LLVM = {types.int64: I64, types.boolean: I1, types.float64: DOUBLE, types.float32: FLOAT}


@dataclass(frozen=True)
class Known:
    """A Python object: a function, a module, a number that the text names."""

    value: Any


@dataclass(frozen=True)
class Number:
    """A number, or the address of a struct."""

    kind: Any  # Numba's type
    value: ir.Value


@dataclass(frozen=True)
class Several:
    """A tuple; make: its class, where it has names."""

    items: tuple[Any, ...]
    make: Any = None


Value = Known | Number | Several
NOTHING = Known(None)


class Refused(TypeError):
    """The text says something that cannot be translated. (What it is, and then where.)"""

    def add(self, where: str) -> None:
        self.args = (*self.args, where)

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))


def llvm_of(kind: Any) -> ir.Type:
    return I64 if isinstance(kind, StructType) else LLVM[kind]


def number(value: Value) -> Number:
    """A number as LLVM has it."""
    if isinstance(value, Number):
        return value
    known = value.value if isinstance(value, Known) else None
    if isinstance(known, bool | np.bool_):
        return Number(types.boolean, I1(int(known)))
    if isinstance(known, int | np.integer):
        return Number(types.int64, I64(int(known)))
    if isinstance(known, np.float32):
        return Number(types.float32, FLOAT(float(known)))
    if isinstance(known, float):  # NumPy's float64 is one
        return Number(types.float64, DOUBLE(float(known)))
    raise Refused(f"{value} is no number")


def settled(value: Value) -> Value:
    """What a name stands for that may change: numbers that are known are numbers like others."""
    if isinstance(value, Several):
        return Several(tuple(map(settled, value.items)), value.make)
    if isinstance(value, Known) and isinstance(value.value, int | float | np.number | np.bool_):
        return number(value)
    return value


def cast(b: ir.IRBuilder, value: Value, kind: Any) -> Number:
    """The same number of another type."""
    n = number(value)
    if n.kind == kind:
        return n
    if kind == types.boolean:
        return Number(kind, truth(b, n))
    is_int, to = n.kind in (types.int64, types.boolean), llvm_of(kind)
    if isinstance(n.kind, StructType) or isinstance(kind, StructType):
        raise Refused(f"{n.kind} is no {kind}")
    if kind == types.int64:
        return Number(kind, b.zext(n.value, to) if is_int else b.fptosi(n.value, to))
    if is_int:
        return Number(kind, b.sitofp(cast(b, n, types.int64).value, to))
    return Number(kind, b.fpext(n.value, to) if kind == types.float64 else b.fptrunc(n.value, to))


def common(kinds: list[Any]) -> Any:
    """The type that numbers of several have together."""
    if all(kind == kinds[0] for kind in kinds):
        return kinds[0]
    if any(isinstance(kind, StructType) for kind in kinds):
        raise Refused(f"{kinds} have no common type")
    if any(kind in (types.float64, types.float32) for kind in kinds):
        return types.float64
    return types.int64


def truth(b: ir.IRBuilder, value: Value) -> ir.Value:
    """Whether it is not 0."""
    n = number(value)
    if n.kind == types.boolean:
        return n.value
    if n.kind == types.int64:
        return b.icmp_signed("!=", n.value, I64(0))
    if n.kind in (types.float64, types.float32):
        return b.fcmp_unordered("!=", n.value, n.value.type(0.0))
    raise Refused(f"{n.kind} is neither true nor false")


def flat(value: Value) -> list[Number]:
    """Its numbers."""
    if isinstance(value, Several):
        return [n for item in value.items for n in flat(item)]
    return [] if isinstance(value, Known) else [value]


def loaded(b: ir.IRBuilder, like: Value, places: Iterator[ir.Value]) -> Value:
    """A value from memory, a word for each of its numbers."""
    if isinstance(like, Several):
        return Several(tuple(loaded(b, item, places) for item in like.items), like.make)
    if isinstance(like, Known):
        return like
    return Number(like.kind, b.load(b.bitcast(next(places), llvm_of(like.kind).as_pointer())))


def of_arguments(like: Value, arguments: Iterator[ir.Value]) -> Value:
    if isinstance(like, Several):
        return Several(tuple(of_arguments(item, arguments) for item in like.items), like.make)
    return like if isinstance(like, Known) else Number(like.kind, next(arguments))


def kind_of(value: Value) -> Any:
    if isinstance(value, Several):
        return value.make, *map(kind_of, value.items)
    return value if isinstance(value, Known) else value.kind


def is_like(place: Any, value: Value) -> bool:
    """Whether the place is one for such values."""
    if isinstance(place, Several):
        same = (
            isinstance(value, Several) and place.make is value.make and len(place.items) == len(value.items)
        )
        return same and all(map(is_like, place.items, value.items))  # type: ignore[union-attr]
    if isinstance(place, Known):
        return place == value
    if not isinstance(value, Number):
        return False
    return value.kind == place.kind or (place.kind == types.int64 and value.kind == types.boolean)
