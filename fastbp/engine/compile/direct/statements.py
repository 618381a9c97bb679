"""Statements of a function, as LLVM's instructions.

A name that gets one value is that value. Others have a place on the stack, from where LLVM takes them into
registers. A name may get a value of another type later, as in Numba, where no loop and no branch comes
between.
"""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types

from fastbp.engine.compile.direct.arithmetic import arithmetic, compared
from fastbp.engine.compile.direct.expressions import Ends, Expressions
from fastbp.engine.compile.direct.functions import Program
from fastbp.engine.compile.direct.text import text_of
from fastbp.engine.compile.direct.values import (
    I64,
    NOTHING,
    Known,
    Number,
    Refused,
    Several,
    Value,
    cast,
    flat,
    is_like,
    llvm_of,
    loaded,
    number,
    settled,
    truth,
)
from fastbp.engine.compile.struct import StructType, store_field

DEEPEST = 60  # calls within calls
# Parts of a text from which it becomes a function of its own.
LONG = 100


@cache
def _stores(function: Callable[..., Any]) -> Counter[str]:
    """How often the text gives each name a value."""
    text = text_of(function)
    found = Counter(
        node.id for node in ast.walk(text) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )
    found.update(argument.arg for argument in text.args.args)
    return found


@cache
def _scope(function: Callable[..., Any]) -> dict[str, Any]:
    """What names stand for that the function does not define."""
    code, cells = function.__code__, function.__closure__ or ()
    around = {name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True)}
    return {**vars(builtins), **function.__globals__, **around}


@cache
def _size(function: Callable[..., Any]) -> int:
    return sum(1 for _ in ast.walk(text_of(function)))


def translate(
    b: ir.IRBuilder,
    program: Program,
    function: Callable[..., Any],
    arguments: list[Value],
    depth: int = 0,
) -> Value:
    """Write a function's code where the builder stands; what it returns. depth: in calls."""
    return _Body(b, program, depth).inlined(function, arguments)


class _Body(Expressions):
    """Translates a function, and what it calls, at the end of a block."""

    def __init__(self, b: ir.IRBuilder, program: Program, depth: int) -> None:
        self.b, self._program, self._depth = b, program, depth
        self.context, self.typing = program.context, program.typing
        self.names: dict[str, Any] = {}
        self.scope: dict[str, Any] = {}
        self._stores: Counter[str] = Counter()
        self._ends: Ends = []  # of the function: where it returns, and what
        self._loops: list[tuple[ir.Block, ir.Block, set[str]]] = []  # where they go on, and end; names read
        self._breaks = 0  # out of loops
        self._open = True  # whether something can come here

    def called(self, function: Callable[..., Any], arguments: list[Value]) -> Value:
        if _size(function) < LONG:
            return self.inlined(function, arguments)
        given = [settled(argument) for argument in arguments]
        made = self._program.function(function, given, self._depth)
        numbers = [n.value for argument in given for n in flat(argument)]
        count = len(flat(made.result))
        with self.b.goto_entry_block():
            room = self.b.alloca(ir.ArrayType(I64, max(1, count)))
        failed = self.b.call(made.code, [self.b.bitcast(room, I64.as_pointer()), *numbers])
        if made.code in self._program.failing:
            with self.b.if_then(failed, likely=False):
                self._program.leave(self.b)
        results = [self.b.gep(room, [I64(0), I64(i)]) for i in range(count)]
        return loaded(self.b, made.result, iter(results))

    def inlined(self, function: Callable[..., Any], arguments: list[Value]) -> Value:
        """What a call of that function returns, whose body is translated here."""
        text, outside = text_of(function), dict(vars(self))
        if self._depth > DEEPEST:
            raise Refused(f"{function.__name__} calls itself")
        parameters = [argument.arg for argument in text.args.args]
        self.names, self.scope, self._stores = {}, _scope(function), _stores(function)
        self._ends, self._loops, self._depth = [], [], self._depth + 1
        try:
            for name, value in zip(parameters, arguments, strict=True):
                self._bind(name, value)
            self._suite(text.body)
            ends = self._ends + ([(self.b.block, NOTHING)] if self._open else [])
        except Refused as error:
            error.add(f"in {function.__qualname__}, {function.__code__.co_filename}")
            raise
        finally:
            vars(self).update(outside)
        return self._result(ends)

    def _result(self, ends: Ends) -> Value:
        """What a function returns, where it goes on behind the call."""
        if not ends:
            self._open = False
            return NOTHING
        if len(ends) == 1:
            self.b.position_at_end(ends[0][0])
            return ends[0][1]
        return self.joined(ends, self.b.append_basic_block("returned"))

    # ---- names -----------------------------------------------------------------------------------------

    def _bind(self, name: str, value: Value) -> None:
        """Give a name a value: in memory of its own if it gets others, too."""
        if self._stores[name] == 1:
            self.names[name] = settled(value)
            return
        value = settled(value)
        if name not in self.names or not is_like(self.names[name], value):
            if any(name in read for _, _, read in self._loops):
                raise Refused(f"{name} is of another type in the next turn")
            self.names[name] = self._memory_for(value)
        self._write(self.names[name], value)

    def _memory_for(self, value: Value) -> Any:
        if isinstance(value, Several):
            return Several(tuple(map(self._memory_for, value.items)), value.make)
        if isinstance(value, Known):
            return value
        with self.b.goto_entry_block():
            return Number(value.kind, self.b.alloca(llvm_of(value.kind)))

    def _write(self, place: Any, value: Any) -> None:
        if isinstance(place, Several):
            for inner, item in zip(place.items, value.items, strict=True):
                self._write(inner, item)
        elif isinstance(place, Number):
            self.b.store(cast(self.b, value, place.kind).value, place.value)

    def load(self, name: str) -> Value:
        for _, _, read in self._loops:
            read.add(name)
        return super().load(name)

    def _assign(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._bind(target.id, value)
        elif isinstance(target, ast.Tuple):
            for inner, item in zip(target.elts, self._items(value), strict=True):
                self._assign(inner, item)
        elif isinstance(target, ast.Attribute):
            of = self.value(target.value)
            if not isinstance(of, Number) or not isinstance(of.kind, StructType):
                raise Refused(f"{target.attr} is no field")
            store_field(self.b, of.kind, of.value, target.attr, cast(self.b, value, types.int64).value)
        else:
            raise Refused(f"{type(target).__name__} cannot be assigned to")

    # ---- statements ------------------------------------------------------------------------------------

    def _suite(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if not self._open:
                return
            translate = getattr(self, f"_{type(statement).__name__}", None)
            if translate is None:
                raise Refused(f"{type(statement).__name__} is not known")
            try:
                translate(statement)
            except Refused as error:
                if len(error.args) == 1:
                    error.add(f"line {statement.lineno}: {ast.unparse(statement).splitlines()[0]}")
                raise

    def _Pass(self, node: ast.Pass) -> None:
        pass

    def _Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.value(node.value)

    def _Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        if isinstance(value, Several):  # all of it before any name changes
            value = settled(value)
        for target in node.targets:
            self._assign(target, value)

    def _AugAssign(self, node: ast.AugAssign) -> None:
        before = self.load(node.target.id) if isinstance(node.target, ast.Name) else self.value(node.target)
        self._assign(node.target, arithmetic(self.b, type(node.op).__name__, before, self.value(node.value)))

    def _Return(self, node: ast.Return) -> None:
        value = NOTHING if node.value is None else settled(self.value(node.value))
        if self._open:
            self._ends.append((self.b.block, value))
        self._open = False

    def _If(self, node: ast.If) -> None:
        test = self.value(node.test)
        if isinstance(test, Known):
            self._suite(node.body if test.value else node.orelse)
            return
        yes, no = (self.b.append_basic_block(name) for name in ("then", "else"))
        self.b.cbranch(truth(self.b, test), yes, no)
        still: list[ir.Block] = []
        for block, suite in ((yes, node.body), (no, node.orelse)):
            self.b.position_at_end(block)
            self._open = True
            with self._names_within():
                self._suite(suite)
            if self._open:
                still.append(self.b.block)
        self._open = bool(still)
        if len(still) == 1:
            self.b.position_at_end(still[0])
        elif still:
            after = self.b.append_basic_block("after")
            for block in still:
                self.b.position_at_end(block)
                self.b.branch(after)
            self.b.position_at_end(after)

    @contextmanager
    def _names_within(self) -> Iterator[None]:
        """Names that get their one value within, or one of another type, are not known behind it."""
        before = dict(self.names)
        yield
        for name, place in list(self.names.items()):
            if (self._stores[name] == 1 and name not in before) or before.get(name, place) is not place:
                del self.names[name]

    def _While(self, node: ast.While) -> None:
        if node.orelse:
            raise Refused("else of a loop is not known")
        head = self.b.append_basic_block("while")
        self.b.branch(head)
        self.b.position_at_end(head)
        test = self.value(node.test)
        body, after = self.b.append_basic_block("turn"), self.b.append_basic_block("behind")
        endless = isinstance(test, Known) and bool(test.value)
        if endless:
            self.b.branch(body)
        else:
            self.b.cbranch(truth(self.b, test), body, after)
        left = self._turns(body, node.body, head, after)
        if self._open:
            self.b.branch(head)
        self._behind(after, reached=left or not endless)

    def _turns(self, body: ir.Block, suite: list[ast.stmt], again: ir.Block, after: ir.Block) -> bool:
        """The body of a loop. Returns whether it breaks out of it."""
        self.b.position_at_end(body)
        self._loops.append((again, after, set()))
        before = self._breaks
        with self._names_within():
            self._suite(suite)
        self._loops.pop()
        return self._breaks > before

    def _behind(self, after: ir.Block, *, reached: bool) -> None:
        self._open = reached
        self.b.position_at_end(after)
        if not reached:
            self.b.unreachable()

    def _For(self, node: ast.For) -> None:
        call = node.iter
        if node.orelse or not isinstance(call, ast.Call) or self.value(call.func) != Known(range):
            raise Refused("only ranges can be gone through")
        limits = self._all(call.args)
        start, stop, step = (Known(0), limits[0], Known(1)) if len(limits) == 1 else (*limits, Known(1))[:3]
        first, last = (cast(self.b, limit, types.int64) for limit in (start, stop))
        by = step if isinstance(step, Known) else cast(self.b, step, types.int64)
        before, head = self.b.block, self.b.append_basic_block("for")
        self.b.branch(head)
        self.b.position_at_end(head)
        i = self.b.phi(I64)
        i.add_incoming(first.value, before)
        counter = Number(types.int64, i)
        body, latch, after = (self.b.append_basic_block(name) for name in ("turn", "next", "behind"))
        self.b.cbranch(self._goes_on(counter, last, by), body, after)
        self.b.position_at_end(body)
        with self._names_within():
            self._assign(node.target, counter)
            self._turns(body, node.body, latch, after)
        if self._open:
            self.b.branch(latch)
        self.b.position_at_end(latch)
        i.add_incoming(self.b.add(i, number(by).value, flags=["nsw"]), latch)
        self.b.branch(head)
        self._behind(after, reached=True)

    def _goes_on(self, counter: Value, last: Value, by: Value) -> ir.Value:
        """Whether a range has this number, too."""
        up, down = (truth(self.b, compared(self.b, sign, counter, last)) for sign in ("Lt", "Gt"))
        if isinstance(by, Known):
            return up if by.value > 0 else down
        return self.b.select(truth(self.b, compared(self.b, "Gt", by, Known(0))), up, down)

    def _Break(self, node: ast.Break) -> None:
        self.b.branch(self._loops[-1][1])
        self._breaks += 1
        self._open = False

    def _Continue(self, node: ast.Continue) -> None:
        self.b.branch(self._loops[-1][0])
        self._open = False
