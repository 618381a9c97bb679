"""Expressions of a function, as LLVM's instructions."""

from __future__ import annotations

import ast
import builtins
import inspect
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.dispatcher import Dispatcher
from numba.extending import _Intrinsic

from fastbp.engine.compile import intrinsics
from fastbp.engine.compile.direct.arithmetic import absolute, arithmetic, compared, least
from fastbp.engine.compile.direct.values import (
    I1,
    I64,
    NOTHING,
    Known,
    Number,
    Refused,
    Several,
    Value,
    cast,
    common,
    llvm_of,
    number,
    settled,
    truth,
)
from fastbp.engine.compile.struct import StructType, load_field

_CASTS: dict[Any, Any] = {
    int: types.int64,
    bool: types.boolean,
    float: types.float64,
    np.int64: types.int64,
    np.float64: types.float64,
    np.float32: types.float32,
}
Ends = list[tuple[ir.Block, Value]]  # values, and the blocks in which they are known


class Expressions:
    """What translates them. Statements are in statements.py."""

    b: ir.IRBuilder
    context: Any  # Numba's, for what intrinsics emit
    typing: Any
    names: dict[str, Any]
    scope: dict[str, Any]  # of the function: what its free names stand for

    def called(self, function: Any, arguments: list[Value]) -> Value:
        """What a call of that function returns."""
        raise NotImplementedError

    def value(self, node: ast.expr) -> Value:
        translate = getattr(self, f"_{type(node).__name__}", None)
        if translate is None:
            raise Refused(f"{type(node).__name__} is not known")
        return translate(node)

    def load(self, name: str) -> Value:
        found = self.names.get(name)
        if found is not None:
            return self._read(found)
        if name in self.scope:
            return Known(self.scope[name])
        if hasattr(builtins, name):
            return Known(getattr(builtins, name))
        raise Refused(f"{name} has no value here")

    def _read(self, place: Any) -> Value:
        """What is in a place: a value, or where it was stored."""
        if isinstance(place, Several):
            return Several(tuple(map(self._read, place.items)), place.make)
        if isinstance(place, Number) and isinstance(place.value.type, ir.PointerType):
            return Number(place.kind, self.b.load(place.value))
        return place

    def _Name(self, node: ast.Name) -> Value:
        return self.load(node.id)

    def _Constant(self, node: ast.Constant) -> Value:
        return Known(node.value)

    def _Tuple(self, node: ast.Tuple) -> Value:
        return Several(tuple(self._all(node.elts)))

    def _all(self, nodes: list[ast.expr]) -> list[Value]:
        values: list[Value] = []
        for node in nodes:
            if isinstance(node, ast.Starred):
                values += self._items(self.value(node.value))
            else:
                values.append(self.value(node))
        return values

    def _items(self, value: Value) -> tuple[Value, ...]:
        if isinstance(value, Several):
            return value.items
        if isinstance(value, Known) and isinstance(value.value, tuple):
            return tuple(map(Known, value.value))
        raise Refused(f"{value} is no tuple")

    def _Attribute(self, node: ast.Attribute) -> Value:
        of = self.value(node.value)
        if isinstance(of, Known):
            return Known(getattr(of.value, node.attr))
        if isinstance(of, Several) and of.make is not None:
            return of.items[of.make._fields.index(node.attr)]
        if isinstance(of, Number) and isinstance(of.kind, StructType):
            if node.attr == "here":
                return Number(types.int64, of.value)
            if node.attr in of.kind.fields:
                return Number(of.kind.fields[node.attr][1], load_field(self.b, of.kind, of.value, node.attr))
        raise Refused(f"{of} has no {node.attr}")

    def _Subscript(self, node: ast.Subscript) -> Value:
        items, index = self._items(self.value(node.value)), self.value(node.slice)
        if not isinstance(index, Known):
            raise Refused("the index of a tuple must be known")
        return items[index.value]

    def _BinOp(self, node: ast.BinOp) -> Value:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(left, Several) or isinstance(right, Several):
            if not isinstance(node.op, ast.Add):
                raise Refused("tuples can only be added")
            return Several((*self._items(left), *self._items(right)))
        return arithmetic(self.b, type(node.op).__name__, left, right)

    def _UnaryOp(self, node: ast.UnaryOp) -> Value:
        value = self.value(node.operand)
        if isinstance(node.op, ast.Not):
            if isinstance(value, Known):
                return Known(not value.value)
            return Number(types.boolean, self.b.not_(truth(self.b, value)))
        if not isinstance(node.op, ast.USub):
            raise Refused(f"{type(node.op).__name__} is not known")
        if isinstance(value, Known):
            return Known(-value.value)
        n = number(value)
        if n.kind in (types.float64, types.float32):
            return Number(n.kind, self.b.fneg(n.value))
        return arithmetic(self.b, "Sub", Known(0), n)

    def _Compare(self, node: ast.Compare) -> Value:
        left, result = self.value(node.left), None
        for op, following in zip(node.ops, node.comparators, strict=True):
            right = self.value(following)
            one = compared(self.b, type(op).__name__, left, right)
            if result is None:
                result = one
            else:  # (what is compared has no effects, so all of it may be looked at)
                both = self.b.and_(truth(self.b, result), truth(self.b, one))
                result = Number(types.boolean, both)
            left = right
        return result  # type: ignore[return-value]

    def _BoolOp(self, node: ast.BoolOp) -> Value:
        """Up to the first one that decides. (Where they are of several types, whether it is true.)"""
        b, is_and, ends, after = self.b, isinstance(node.op, ast.And), [], None
        for i, operand in enumerate(node.values):
            value, last = self.value(operand), i == len(node.values) - 1
            if isinstance(value, Known) and not last:
                if bool(value.value) is not is_and:
                    last = True
                else:
                    continue
            if last and after is None:
                return value
            decides = truth(b, value)
            ends.append((b.block, value, decides))
            if last:
                b.branch(after)
                break
            after = after or b.append_basic_block("decided")
            following = b.append_basic_block("or")
            if is_and:
                b.cbranch(decides, following, after)
            else:
                b.cbranch(decides, after, following)
            b.position_at_end(following)
        b.position_at_end(after)
        return self._decided(ends)

    def _decided(self, ends: list[tuple[ir.Block, Value, ir.Value]]) -> Value:
        kinds = [value.kind for _, value, _ in ends if isinstance(value, Number)]
        same = len(kinds) == len(ends) and all(kind == kinds[0] for kind in kinds)
        kind = kinds[0] if same else types.boolean
        phi = self.b.phi(llvm_of(kind))
        for block, value, decides in ends:
            phi.add_incoming(value.value if same and isinstance(value, Number) else decides, block)
        return Number(kind, phi)

    def _IfExp(self, node: ast.IfExp) -> Value:
        test = self.value(node.test)
        if isinstance(test, Known):
            return self.value(node.body if test.value else node.orelse)
        yes, no, after = (self.b.append_basic_block(name) for name in ("yes", "no", "after"))
        self.b.cbranch(truth(self.b, test), yes, no)
        ends: Ends = []
        for block, part in ((yes, node.body), (no, node.orelse)):
            self.b.position_at_end(block)
            value = settled(self.value(part))
            ends.append((self.b.block, value))
        return self.joined(ends, after)

    def joined(self, ends: Ends, after: ir.Block) -> Value:
        """The value that comes from one of these blocks, none of which has ended, in the one behind them."""
        value = self._alike([value for _, value in ends], [block for block, _ in ends])
        for block, _ in ends:
            self.b.position_at_end(block)
            self.b.branch(after)
        self.b.position_at_end(after)
        return self._phis(value, [block for block, _ in ends])

    def _alike(self, values: list[Value], blocks: list[ir.Block]) -> Any:
        """Each of them as their common type has it, in its block: lists of LLVM's values, in tuples."""
        first = values[0]
        if isinstance(first, Several):
            count = len(first.items)
            if not all(isinstance(v, Several) and len(v.items) == count for v in values):
                raise Refused("tuples of several lengths")
            each = [self._alike([v.items[i] for v in values], blocks) for i in range(count)]  # type: ignore[union-attr]
            return Several(tuple(each), first.make)
        if isinstance(first, Known) and all(value == first for value in values):
            return first
        kind, casts = common([number(value).kind for value in values]), []
        for value, block in zip(values, blocks, strict=True):
            self.b.position_at_end(block)
            casts.append(cast(self.b, value, kind).value)
        return kind, casts

    def _phis(self, value: Any, blocks: list[ir.Block]) -> Value:
        if isinstance(value, Several):
            return Several(tuple(self._phis(item, blocks) for item in value.items), value.make)
        if isinstance(value, Known):
            return value
        kind, casts = value
        phi = self.b.phi(llvm_of(kind))
        for one, block in zip(casts, blocks, strict=True):
            phi.add_incoming(one, block)
        return Number(kind, phi)

    # ---- calls ---------------------------------------------------------------------------------------

    def _Call(self, node: ast.Call) -> Value:
        called, arguments = self.value(node.func), self._all(node.args)
        if not isinstance(called, Known):
            raise Refused("what is called must be known")
        function: Any = called.value
        if node.keywords:
            given = {word.arg: self.value(word.value) for word in node.keywords if word.arg}
            arguments = list(_signature(function).bind(*arguments, **given).args)
        if isinstance(function, Dispatcher):
            return self.called(function.py_func, arguments)
        if function is intrinsics.call:
            return self._through_address(*arguments)
        if isinstance(function, _Intrinsic):
            return self._intrinsic(function, arguments)
        if function in _CASTS:
            return cast(self.b, arguments[0], _CASTS[function])
        if function in (min, max):
            return least(self.b, arguments, "<" if function is min else ">")
        if function is abs:
            return absolute(self.b, arguments[0])
        if isinstance(function, type) and issubclass(function, tuple) and hasattr(function, "_fields"):
            return Several(tuple(arguments), function)
        raise Refused(f"{function} cannot be called")

    def _through_address(self, address: Value, arguments: Value) -> Value:
        """A call of a callback, where tuples stand for their numbers."""
        numbers: list[ir.Value] = []

        def add(value: Value) -> None:
            if isinstance(value, Several):
                for item in value.items:
                    add(item)
            else:
                n = number(value)
                numbers.append(
                    n.value if isinstance(n.kind, StructType) else cast(self.b, n, types.int64).value
                )

        add(arguments)
        kind = ir.FunctionType(ir.VoidType(), [I64] * len(numbers))
        self.b.call(self.b.inttoptr(number(address).value, kind.as_pointer()), numbers)
        return NOTHING

    def _intrinsic(self, function: Any, arguments: list[Value]) -> Value:
        numbers = [number(argument) for argument in arguments]
        found = function._defn(self.typing, *(n.kind for n in numbers))
        if found is None:
            raise Refused(f"{function} does not take {numbers}")
        signature, emit = found
        wanted = zip(numbers, signature.args, strict=True)
        values = [n.value if n.kind == kind else cast(self.b, n, kind).value for n, kind in wanted]
        result = emit(self.context, self.b, signature, values)
        kind = signature.return_type
        if kind == types.void:
            return NOTHING
        if result.type not in (I1, llvm_of(kind)):
            raise Refused(f"{function} returns {kind}")
        return Number(kind, result)


def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(getattr(function, "py_func", function))
