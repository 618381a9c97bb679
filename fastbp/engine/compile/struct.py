"""Structs in memory that Python fills in and compiled code reads, declared once.

    @struct
    class Panels(Struct):
        address: int   # every field is a 64-bit integer, or another struct in the same memory
        panel: int

    panels_at = view_of(Panels)

Python gets a `ctypes.Structure` of these fields. In compiled code, `panels_at(address)` is the address
itself, but of a type with these fields: `p.panel` is one load, `p.panel = 3` one store, a struct within a
struct is an addition, and `p.here` is the address.

The type goes by the struct's name, which is the same in every process. (Numba's own Record has a number in
its name that depends on what was compiled before: cached code of two processes could then mean different
structs by one name.)
"""

from __future__ import annotations

import ctypes
import sys
import typing
from typing import Any, TypeVar

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic, lower_setattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, register_model

from fastbp.engine.compile.intrinsics import I64


class Struct:
    """What `struct` makes of a class body has in addition to its fields."""

    here: int  # the address


S = TypeVar("S", bound=Struct)


class StructType(types.Type):
    """The address of a struct, in compiled code."""

    def __init__(self, name: str, fields: dict[str, tuple[int, Any]]) -> None:
        super().__init__(name=f"fastbp.{name}")
        self.fields = fields  # offset in bytes, and int64 or the inner struct's type


@register_model(StructType)
class _StructModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, I64)


@infer_getattr
class _Fields(AttributeTemplate):
    key = StructType

    def generic_resolve(self, struct, name):
        if name == "here":
            return types.int64
        return struct.fields[name][1] if name in struct.fields else None


@lower_getattr_generic(StructType)
def _load(context, builder, struct, value, name):
    if name == "here":
        return value
    return load_field(builder, struct, value, name)


def load_field(builder, struct, address, name):
    """In compiled code: a field of the struct at an address."""
    offset, kind = struct.fields[name]
    at = builder.add(address, I64(offset))
    return at if isinstance(kind, StructType) else builder.load(builder.inttoptr(at, I64.as_pointer()))


@lower_setattr_generic(StructType)
def _store(context, builder, signature, values, name):
    address, value = values
    store_field(builder, signature.args[0], address, name, value)


def store_field(builder, struct, address, name, value):
    """In compiled code: an integer becomes that field of the struct at an address."""
    at = builder.add(address, I64(struct.fields[name][0]))
    builder.store(value, builder.inttoptr(at, I64.as_pointer()))


def struct(body: type[S]) -> type[S]:
    """The struct with the fields that the class body lists."""
    # (Of those that are texts `typing.get_type_hints` makes a small program each, for 3 ms in all.)
    known: Any = {**vars(sys.modules[body.__module__]), "int": ctypes.c_int64, int: ctypes.c_int64}
    fields: list[tuple[str, Any]] = [
        (name, known.get(kind, kind)) for name, kind in body.__annotations__.items()
    ]
    scope = {
        "_fields_": fields,
        "here": property(ctypes.addressof),
        "__doc__": body.__doc__,
        "__module__": body.__module__,
    }
    made: Any = type(body.__name__, (ctypes.Structure,), scope)
    kinds = {name: types.int64 if kind is ctypes.c_int64 else kind.compiled for name, kind in fields}
    made.compiled = StructType(
        body.__name__, {name: (getattr(made, name).offset, kinds[name]) for name in kinds}
    )
    return typing.cast(type[S], made)


def size_of(kind: type[Struct]) -> int:
    """In bytes."""
    return ctypes.sizeof(typing.cast(Any, kind))


def at(kind: type[S], address: int) -> S:
    """The struct at that address, for Python."""
    return typing.cast(S, typing.cast(Any, kind).from_address(address))


def view_of(kind: type[Struct]) -> Any:
    """A function for compiled code: the struct at an address."""
    if config.DISABLE_JIT:  # for debuggers and coverage: compiled code runs as Python
        return lambda address: at(kind, int(address))

    @intrinsic
    def view(typingctx, address):
        def codegen(context, builder, signature, values):
            return values[0]

        return typing.cast(Any, kind).compiled(types.int64), codegen

    return view


def room_for(kind: type[Struct]) -> Any:
    """A function for compiled code: a struct on the stack, there until the caller returns, with anything in
    it."""

    @intrinsic
    def room(typingctx):
        def codegen(context, builder, signature, values):
            memory = cgutils.alloca_once(builder, ir.ArrayType(I64, size_of(kind) // 8))
            return builder.ptrtoint(memory, I64)

        return typing.cast(Any, kind).compiled(), codegen

    return room
