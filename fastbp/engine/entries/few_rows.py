"""Predictions for a few rows, or by a small network: weights are read where the caller has them, and one call
does all.

Packing pays when weights meet many rows. Here each is met once or a few times, and reading them is the work;
or all is so little work that to prepare it would take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import CallersArray, data_at
from fastbp.engine.compile.intrinsics import call, leave_python, return_to_python
from fastbp.engine.compile.lists import WHILE_HELD, Held, number_of
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.compile.uncounted import fresh, view
from fastbp.engine.kernels.finite import all_finite, not_finite
from fastbp.engine.memory import FEW_ROWS, Design
from fastbp.engine.plan import Plan
from fastbp.engine.structs import FORWARD, layer_at, plan_at, top_layer

Array = NDArray[Any]

# A vector may be read that begins inside the parameters and ends outside: they must have so many bytes behind
# them.
SLACK = 64
# Rows that are done together where there are more.
TOGETHER = 128
# Multiply-adds of a call, some 20 us, from which other threads may run Python meanwhile.
LONG = 2_000_000


@struct
class ReadyForFew(Struct):
    """What compiled code finds besides the arguments of a call: each more would take Python 25 ns."""

    plan: int  # address
    work: int  # of the compiled worker
    finite: int  # of `not_finite`
    bad: int  # of an integer for its answer
    most: int  # rows of a call
    long: int  # rows from which others run Python meanwhile


_ready_at = view_of(ReadyForFew)


def _predict(held, check, X):
    address = number_of(held)
    if address == 0:
        return None
    ready = _ready_at(address)
    plan = plan_at(ready.plan)
    rows = X.shape[0]
    if rows == 0 or rows > ready.most or X.shape[1] != layer_at(plan, np.int64(0)).fan_in:
        return None
    if check and not all_finite(ready.finite, X, ready.bad):
        return None
    plan.x.address, plan.samples, plan.task = X.ctypes.data, rows, FORWARD
    plan.steps_per_epoch = (rows + plan.batch - 1) // plan.batch
    top = top_layer(plan)
    out = fresh(((rows, top.fan_out),), X)[0]
    top.caller.a = view(out).ctypes.data
    if rows < ready.long:
        call(ready.work, (0, 1, ready.plan))
    else:
        state = leave_python()
        call(ready.work, (0, 1, ready.plan))
        return_to_python(state)
    return out


@cache
def _entry(dtype: str) -> Any:
    array = CallersArray(types.Array(getattr(types, dtype), 2, "C"))
    return jit.dispatcher(_predict, (WHILE_HELD, types.boolean, array))


class FewRows:
    """Predictions for up to `most` rows with the flat array of these parameters, which has SLACK bytes behind
    it.

    enter(check_finite, X): the outputs for X, C-ordered, writable and of the parameters' dtype (TypeError for
    all else); None if its shape does not fit, it is not finite, or one of the `lists` does not hold the
    arrays that are named beside it.
    """

    def __init__(
        self,
        layer_sizes: tuple[int, ...],
        activations: list[str],
        loss: str,
        parameters: Array,
        lists: Sequence[tuple[list[Array], Sequence[Array]]],
        layer_norm: bool,
        precision: str | None,
        most: int = FEW_ROWS,
    ) -> None:
        dtype = parameters.dtype
        design = Design(
            layer_sizes,
            tuple(activations),
            loss,
            dtype,
            "add",
            min(most, TOGETHER),
            "predict",
            layer_norm=layer_norm,
            precision=precision,
        )
        self._plan = plan = Plan(design)
        plan.bind_parameters(parameters)
        plan.read_in_place()
        plan.table.x.row = layer_sizes[0] * dtype.itemsize
        self._memory = np.zeros(size_of(ReadyForFew) // 8, np.int64)
        ready = at(ReadyForFew, data_at(self._memory))
        ready.plan, ready.work = plan.address, plan.work
        ready.finite, ready.bad = not_finite(dtype.name), data_at(plan.bad)
        ready.most, ready.long = most, LONG // len(parameters) + 1
        self._held = Held(data_at(self._memory), lists)
        enter = partial(_entry(dtype.name), self._held.address)
        self.enter: Callable[[bool, Array], Array | None] = enter
