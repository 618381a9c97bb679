"""Whether Python's lists hold what they held: found out before compiled code begins, in 10 ns.

Users may put arrays of their own into a list of a model's weights. To look for that in Python takes 0.4 us, a
fifth of a small network's prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core.datamodel import models, register_default
from numba.extending import NativeValue, intrinsic, unbox

from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.intrinsics import peek

# What a list has behind the header of all Python objects: how many objects, and where their addresses stand
# (listobject.h).
_COUNT = object.__basicsize__ // 8
_OBJECTS = _COUNT + 1


class Held:
    """A number for compiled code, and lists with the objects in them that it depends on.

    address: what to pass where a function has an argument `WHILE_HELD`.
    """

    def __init__(self, number: int, lists: Sequence[tuple[list[Any], Sequence[Any]]]) -> None:
        words = [number, len(lists)]
        for held, objects in lists:
            words += [id(held), len(objects), *map(id, objects)]
        self._table = np.array(words, np.int64)
        self._lists = lists  # kept: others could get their addresses
        self.address = data_at(self._table)


def while_held(table: int) -> int:
    """The number if every list holds the very same objects; else 0."""
    at = table + 16
    for _ in range(peek(table, 1)):
        held, count = peek(at, 0), peek(at, 1)
        if peek(held, _COUNT) != count:
            return 0
        objects = peek(held, _OBJECTS)
        for i in range(count):
            if peek(objects, i) != peek(at, 2 + i):
                return 0
        at += 8 * (2 + count)
    return peek(table, 0)


class WhileHeld(types.Type):
    """In signatures of functions for Python: a `Held`'s address arrives, and what `while_held` finds is the
    argument's `number_of`."""

    def __init__(self) -> None:
        super().__init__(name="while_held")

    def taken(self, address: int) -> int:
        """What the function gets, where it runs as Python."""
        return while_held(address)


WHILE_HELD = WhileHeld()


@register_default(WhileHeld)
class _Number(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, ir.IntType(64))


@intrinsic
def number_of(typingctx: Any, held: Any) -> Any:
    """In compiled code: the number, or 0."""
    return types.int64(held), lambda context, builder, signature, values: values[0]


@unbox(WhileHeld)
def _unbox(typ: Any, obj: Any, c: Any) -> NativeValue:
    """Here nobody else can write to a list: what runs has the GIL."""
    table, signature = c.pyapi.long_as_longlong(obj), types.int64(types.int64)
    code = c.context.compile_subroutine(c.builder, while_held, signature)
    _, number = c.context.call_internal_no_propagate(c.builder, code.fndesc, signature, [table])
    return NativeValue(number)


if config.DISABLE_JIT:

    def number_of(held: Any) -> Any:
        """The same in Python."""
        return held
