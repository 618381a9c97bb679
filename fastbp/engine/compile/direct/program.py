"""A function of numbers as a C callback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target

from fastbp.engine.compile.direct.functions import Program, begun
from fastbp.engine.compile.direct.statements import translate
from fastbp.engine.compile.direct.values import (
    DOUBLE,
    I64,
    Number,
    Refused,
    cast,
)

# What writes a function's code, which returns nothing, from its arguments.
Emit = Callable[[ir.IRBuilder, list[ir.Value]], None]
_C = {types.int64: I64, types.intc: ir.IntType(32), types.float64: DOUBLE, types.void: ir.VoidType()}


def module_of(name: str, function: Callable[..., Any], signature: Any) -> ir.Module:
    """A module with that C function."""
    module, b, arguments = _begun(name, signature)
    context = object.__new__(_Context)
    program = Program(module, context, cpu_target.typing_context, translate)
    context.__dict__ = {
        **vars(cpu_target.target_context),
        "enable_nrt": True,
        "call_conv": _Failing(name, program),
    }
    result = translate(b, program, function, arguments)
    if b.block.is_terminated:
        return module
    if signature.return_type == types.void:
        b.ret_void()
    else:
        b.ret(cast(b, result, signature.return_type).value)
    return module


def module_of_code(name: str, emit: Emit, signature: Any) -> ir.Module:
    """A module with a C function of integers whose code `emit` writes."""
    module, b, arguments = _begun(name, signature)
    emit(b, [argument.value for argument in arguments])
    b.ret_void()
    return module


def _begun(name: str, signature: Any) -> tuple[ir.Module, ir.IRBuilder, list[Any]]:
    codegen = cpu_target.target_context.codegen()
    module = codegen._create_empty_module(name)
    kind = ir.FunctionType(_C[signature.return_type], [_C[kind] for kind in signature.args])
    function = ir.Function(module, kind, name)
    b = begun(function)
    arguments = [
        Number(types.float64 if kind == types.float64 else types.int64, _widened(b, value))
        for value, kind in zip(function.args, signature.args, strict=True)
    ]
    return module, b, arguments


def _widened(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return b.sext(value, I64) if value.type == ir.IntType(32) else value


class _Context(CPUContext):
    call_conv: Any = None  # Numba's is a property

    def add_dynamic_addr(self, builder: Any, intaddr: Any, info: Any) -> Any:
        raise Refused(f"the address of {info} is of this process, and code is cached")


class _Failing:
    """What becomes of an exception in a callback, whose caller cannot hear of it: Python prints it, and the
    callback returns, as Numba has it."""

    def __init__(self, name: str, program: Program) -> None:
        self._name, self._program = name, program

    def return_user_exc(self, b: Any, exception: Any, arguments: Any = (), **about: Any) -> None:
        context = cpu_target.target_context
        python = context.get_python_api(b)
        state = python.gil_ensure()
        python.err_set_string(f"PyExc_{exception.__name__}", " ".join(map(str, arguments)))
        name = python.string_from_string(context.insert_const_string(b.module, self._name))
        python.err_write_unraisable(name)
        python.decref(name)
        python.gil_release(state)
        self._program.leave(b)
