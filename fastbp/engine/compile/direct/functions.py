"""Functions that callers' code calls, each once for the types of its arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from fastbp.engine.compile.direct.values import I1, I64, Value, flat, kind_of, of_arguments

# Writes a function's code where the builder stands, for such arguments, so deep in calls; what it returns.
Translate = Callable[["ir.IRBuilder", "Program", Callable[..., Any], list[Value], int], Value]


class Made(NamedTuple):
    """A function that is called: code that stores its results and returns whether it has failed."""

    code: ir.Function
    result: Value  # whose numbers are of no meaning


class Program:
    """The functions of a module, of which callers know the results' types."""

    def __init__(self, module: ir.Module, context: Any, typing: Any, translate: Translate) -> None:
        self.module, self.context, self.typing, self._translate = module, context, typing, translate
        self.failing: set[ir.Function] = set()  # those that may fail
        self._made: dict[Any, Made] = {}

    def leave(self, b: ir.IRBuilder) -> None:
        """Return from a function that has failed."""
        kind = b.function.ftype.return_type
        self.failing.add(b.function)
        if isinstance(kind, ir.VoidType):
            b.ret_void()
        else:
            b.ret(kind(1 if kind == I1 else 0))

    def function(self, function: Callable[..., Any], arguments: list[Value], depth: int) -> Made:
        """The one for arguments of such types, as deep in calls as `depth` says."""
        key = function, *map(kind_of, arguments)
        if key not in self._made:
            self._made[key] = self._translated(function, arguments, depth)
        return self._made[key]

    def _translated(self, function: Callable[..., Any], arguments: list[Value], depth: int) -> Made:
        numbers = [n for argument in arguments for n in flat(argument)]
        kinds = [I64.as_pointer(), *(n.value.type for n in numbers)]
        code = ir.Function(
            self.module, ir.FunctionType(I1, kinds), self.module.get_unique_name(function.__qualname__)
        )
        code.linkage = "internal"
        b = begun(code)
        given = iter(code.args[1:])
        inside = [of_arguments(argument, given) for argument in arguments]
        result = self._translate(b, self, function, inside, depth + 1)
        if not b.block.is_terminated:
            for i, n in enumerate(flat(result)):
                place = b.gep(code.args[0], [I64(i)])
                b.store(n.value, b.bitcast(place, n.value.type.as_pointer()))
            b.ret(I1(0))
        return Made(code, result)


def begun(function: ir.Function) -> ir.IRBuilder:
    """At the beginning of its code, behind what will be on the stack."""
    entry, begin = function.append_basic_block("entry"), function.append_basic_block("begin")
    b = ir.IRBuilder(entry)
    b.branch(begin)
    b.position_at_end(begin)
    return b
