"""The tutorial's network on the caller's own arrays: what the drop-in functions enter.

The arrays are C-ordered and of one dtype. Python prepares one call: small networks are done inside it, from the check of the input to
the result; for larger ones it only fills the plan in, and a team does the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import blocks, jit
from fastbp.engine.jit import call
from fastbp.engine.plan import Plan
from fastbp.engine.step import (
    BACKWARD,
    FORWARD,
    HEADER_SIZE,
    LAYER_SIZE,
    OUTSIDE_A,
    OUTSIDE_B,
    OUTSIDE_W,
    OUTSIDE_Z,
    PACK,
    TASK,
    TRAIN,
    UNPACK,
    UNPACK_STATES,
)  # fmt: skip
from fastbp.engine.step import (
    X as X_AT,
)
from fastbp.engine.step import (
    Y as Y_AT,
)

Array = NDArray[Any]

FIRST, SECOND = HEADER_SIZE, HEADER_SIZE + LAYER_SIZE
# Plans are kept by shape, for each Python thread: the batch, and the smaller one at the end of an epoch.
KEPT_PLANS = 8
# What an entry did. NOTHING: numbers are not finite, or a parameter shares memory with another array; Python looks closer.
NOTHING, PREPARED, DONE = 0, 1, 2

_plans = threading.local()


def _plan(use: str, dtype: np.dtype[Any], rows: int, inputs: int, hidden: int, outputs: int) -> Plan:
    try:
        kept: dict[Any, Plan] = _plans.kept
    except AttributeError:
        kept = _plans.kept = {}
    key = use, dtype, rows, inputs, hidden, outputs
    plan = kept.get(key)
    if plan is None:
        rule = "add" if use == "step" else "gradient"
        plan = Plan((inputs, hidden, outputs), ("relu", "sigmoid"), "mse", dtype, rule, rows, "train" if use == "step" else "trace")
        plan.set(samples=rows, x_row=inputs * dtype.itemsize, y_row=outputs * dtype.itemsize)
        if len(kept) >= KEPT_PLANS:
            kept.pop(next(iter(kept)))
        kept[key] = plan
    return plan


def _forward(table, address, finite, work, check, X, W1, b1, W2, b2, z1, a1, z2, y_pred, bad):
    if check:
        call(finite, (X.ctypes.data, X.size, bad.ctypes.data))
        if bad[0] != 0:
            return NOTHING
    table[X_AT] = X.ctypes.data
    table[FIRST + OUTSIDE_W], table[FIRST + OUTSIDE_B] = W1.ctypes.data, b1.ctypes.data
    table[SECOND + OUTSIDE_W], table[SECOND + OUTSIDE_B] = W2.ctypes.data, b2.ctypes.data
    table[FIRST + OUTSIDE_Z], table[FIRST + OUTSIDE_A] = z1.ctypes.data, a1.ctypes.data
    table[SECOND + OUTSIDE_Z], table[SECOND + OUTSIDE_A] = z2.ctypes.data, y_pred.ctypes.data
    if work == 0:
        return PREPARED
    table[TASK] = PACK + FORWARD
    call(work, (0, 1, address))
    return DONE


def _backward(table, address, finite, work, check, X, y_true, z1, a1, y_pred, W2, gradient, bad):
    if check:
        call(finite, (X.ctypes.data, X.size, bad.ctypes.data))
        if bad[0] == 0:
            call(finite, (y_true.ctypes.data, y_true.size, bad.ctypes.data))
        if bad[0] != 0:
            return NOTHING
    table[X_AT], table[Y_AT] = X.ctypes.data, y_true.ctypes.data
    # The sigmoid's derivative needs y_pred only, so that stands for z2, too.
    table[FIRST + OUTSIDE_Z], table[FIRST + OUTSIDE_A] = z1.ctypes.data, a1.ctypes.data
    table[SECOND + OUTSIDE_Z], table[SECOND + OUTSIDE_A] = y_pred.ctypes.data, y_pred.ctypes.data
    # W1 and the biases play no part; the gradients leave by the way of a first state.
    table[FIRST + OUTSIDE_W], table[FIRST + OUTSIDE_B], table[SECOND + OUTSIDE_B] = 0, 0, 0
    table[SECOND + OUTSIDE_W] = W2.ctypes.data
    itemsize = X.itemsize
    dW1 = gradient.ctypes.data
    db1 = dW1 + X.shape[1] * z1.shape[1] * itemsize
    dW2 = db1 + z1.shape[1] * itemsize
    table[FIRST + OUTSIDE_W + 2], table[FIRST + OUTSIDE_B + 2] = dW1, db1
    table[SECOND + OUTSIDE_W + 2], table[SECOND + OUTSIDE_B + 2] = dW2, dW2 + W2.size * itemsize
    if work == 0:
        return PREPARED
    table[TASK] = PACK + BACKWARD + UNPACK_STATES
    call(work, (0, 1, address))
    return DONE


def _step(table, address, finite, work, check, X, y_true, W1, b1, W2, b2, lr, hyper, bad):
    if check:
        call(finite, (X.ctypes.data, X.size, bad.ctypes.data))
        if bad[0] == 0:
            call(finite, (y_true.ctypes.data, y_true.size, bad.ctypes.data))
        if bad[0] != 0:
            return NOTHING
    table[X_AT], table[Y_AT] = X.ctypes.data, y_true.ctypes.data
    table[FIRST + OUTSIDE_W], table[FIRST + OUTSIDE_B] = W1.ctypes.data, b1.ctypes.data
    table[SECOND + OUTSIDE_W], table[SECOND + OUTSIDE_B] = W2.ctypes.data, b2.ctypes.data
    # Packed, updated and unpacked, arrays that overlap would not be what one update after another makes of them.
    starts = (
        table[X_AT], table[Y_AT],
        table[FIRST + OUTSIDE_W], table[FIRST + OUTSIDE_B], table[SECOND + OUTSIDE_W], table[SECOND + OUTSIDE_B],
    )  # fmt: skip
    sizes = X.nbytes, y_true.nbytes, W1.nbytes, b1.nbytes, W2.nbytes, b2.nbytes
    for i in range(2, 6):
        for j in range(i):
            if starts[i] < starts[j] + sizes[j] and starts[j] < starts[i] + sizes[i]:
                return NOTHING
    hyper[0] = -lr
    if work == 0:
        return PREPARED
    table[TASK] = PACK + TRAIN + UNPACK
    call(work, (0, 1, address))
    return DONE


@cache
def _entry(name: str) -> Any:
    functions: dict[str, Any] = {"forward": _forward, "backward": _backward, "step": _step}
    return jit.dispatcher(functions[name])


@cache
def _finite(dtype: np.dtype[Any]) -> int:
    return blocks.not_finite(dtype.name)


def _do(plan: Plan, task: int, enter: Callable[[int], Any]) -> Any:
    """`enter(work)` checks and fills the plan in, and does the work, too, if its argument is not 0; otherwise a team does. What it returns."""
    most = plan.most_threads(None)
    if most == 1:
        return enter(plan.work)
    started = time.perf_counter()
    threads, _ = plan.way(most, 1, started)
    status = enter(plan.work if threads == 1 else 0)
    if status == PREPARED:
        plan.run_as(task, threads, 1)
    if status != NOTHING:
        now = time.perf_counter()
        plan.choice.note(threads, 1, now - started, now)
    return status


def step(X: Array, y_true: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, lr: float, check_finite: bool) -> float | None:
    """One training step in place; the loss before it, or None (nothing changed) if X or y_true is not finite or a parameter
    shares memory with another array."""
    rows, inputs = X.shape
    hidden, outputs = W2.shape
    dtype = X.dtype
    plan = _plan("step", dtype, rows, inputs, hidden, outputs)
    entry, finite = _entry("step"), _finite(dtype)

    def enter(work: int) -> Any:
        return entry(plan.table, plan.address, finite, work, check_finite, X, y_true, W1, b1, W2, b2, lr, plan.hyper, plan.bad)

    return None if _do(plan, PACK + TRAIN + UNPACK, enter) == NOTHING else float(plan.out[0])


def forward(X: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, check_finite: bool) -> tuple[Array, Array, Array, Array] | None:
    """z1, a1, z2, y_pred, or None if X is not finite."""
    rows, inputs = X.shape
    hidden, outputs = W2.shape
    dtype = X.dtype
    plan = _plan("forward", dtype, rows, inputs, hidden, outputs)
    result = (
        np.empty((rows, hidden), dtype),
        np.empty((rows, hidden), dtype),
        np.empty((rows, outputs), dtype),
        np.empty((rows, outputs), dtype),
    )
    entry, finite = _entry("forward"), _finite(dtype)

    def enter(work: int) -> Any:
        return entry(plan.table, plan.address, finite, work, check_finite, X, W1, b1, W2, b2, *result, plan.bad)

    return None if _do(plan, PACK + FORWARD, enter) == NOTHING else result


def backward(
    X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """dW1, db1, dW2, db2, or None if X or y_true is not finite."""
    rows, inputs = X.shape
    hidden, outputs = W2.shape
    dtype = X.dtype
    plan = _plan("backward", dtype, rows, inputs, hidden, outputs)
    plan.hyper[0] = 1
    gradient = np.empty(hidden * (inputs + 1) + outputs * (hidden + 1), dtype)
    entry, finite = _entry("backward"), _finite(dtype)

    def enter(work: int) -> Any:
        return entry(plan.table, plan.address, finite, work, check_finite, X, y_true, z1, a1, y_pred, W2, gradient, plan.bad)

    if _do(plan, PACK + BACKWARD + UNPACK_STATES, enter) == NOTHING:
        return None
    db1_at, dW2_at = inputs * hidden, (inputs + 1) * hidden
    db2_at = dW2_at + hidden * outputs
    dW1, dW2 = gradient[:db1_at].reshape(inputs, hidden), gradient[dW2_at:db2_at].reshape(hidden, outputs)
    return dW1, gradient[db1_at:dW2_at], dW2, gradient[db2_at:]


def descend(parameters: Array, gradient: Array, lr: float) -> None:
    """parameters -= lr * gradient, both flat."""
    parameters -= parameters.dtype.type(lr) * gradient
