"""The tutorial's network on the caller's own arrays: what the drop-in functions enter.

The arrays are C-ordered and of one dtype. Python prepares one call: small networks are done inside it, from
the check of the input to the result; for larger ones it only fills the plan in, and a team does the work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import CallersArray
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.kernels.finite import all_finite, not_finite
from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.engine.structs import (
    BACKWARD,
    FORWARD,
    PACK,
    REPLACED,
    TRAIN,
    UNPACK,
    UNPACK_STATES,
    layer_at,
    plan_at,
)
from fastbp.formulas.two_layer import FORWARD_TOLERANCE

Array = NDArray[Any]

# Plans are kept by use and shape, for each Python thread: the batch, and the smaller one at the end of an
# epoch.
KEPT_PLANS = 8
# What an entry returns: the loss (0.0 where there is none), or one of these. NOTHING was done: shapes do not
# fit, numbers are not finite or not what they must be, or a parameter shares memory with another array;
# Python looks closer.
NOTHING, PREPARED = -1.0, -2.0
FORWARD_TASK, BACKWARD_TASK = PACK + FORWARD, PACK + BACKWARD + UNPACK_STATES
STEP_TASK = PACK + TRAIN + UNPACK


@inner
def _bind_weights(layer, W, b):
    layer.caller.parameters.W, layer.caller.parameters.b = W.ctypes.data, b.ctypes.data
    if layer.in_place != 0:
        layer.W.address = W.ctypes.data


@inner
def _bind_activations(layer, z, a):
    if layer.rows_in_place != 0:
        layer.z, layer.a = z.ctypes.data, a.ctypes.data
    else:
        layer.caller.z, layer.caller.a = z.ctypes.data, a.ctypes.data


@inner
def _layers(plan):
    return layer_at(plan, np.int64(0)), layer_at(plan, np.int64(1))


@inner
def _all_zero(array):
    for value in array.flat:
        if value != 0:
            return False
    return True


@inner
def _may_be_of_forward(z1, a1, y_pred):
    """Whether the first row may be a result of `forward`: a1 = max(0, z1), y_pred in [0, 1]. NaN may be."""
    for j in range(z1.shape[1]):
        if abs(a1[0, j] - max(z1[0, j], 0)) > FORWARD_TOLERANCE * (1 + abs(z1[0, j])):
            return False
    for j in range(y_pred.shape[1]):
        if y_pred[0, j] < 0 or y_pred[0, j] > 1:
            return False
    return True


def _forward(address, bad, finite, work, check, X, W1, b1, W2, b2, z1, a1, z2, y_pred):
    if W1.shape != (X.shape[1], W2.shape[0]) or b1.shape[0] != W2.shape[0] or b2.shape[0] != W2.shape[1]:
        return NOTHING
    if check and not all_finite(finite, X, bad):
        return NOTHING
    plan = plan_at(address)
    first, second = _layers(plan)
    plan.x.address = X.ctypes.data
    _bind_weights(first, W1, b1)
    _bind_weights(second, W2, b2)
    _bind_activations(first, z1, a1)
    _bind_activations(second, z2, y_pred)
    if work == 0:
        return PREPARED
    plan.task = FORWARD_TASK
    call(work, (0, 1, address))
    return 0.0


def _backward(address, bad, finite, work, check, X, y_true, z1, a1, y_pred, W2, dW1, db1, dW2, db2):
    rows = X.shape[0]
    if (
        y_true.shape != (rows, W2.shape[1])
        or y_pred.shape != y_true.shape
        or z1.shape != (rows, W2.shape[0])
        or a1.shape != z1.shape
    ):
        return NOTHING
    if check and not (
        all_finite(finite, X, bad) and all_finite(finite, y_true, bad) and _may_be_of_forward(z1, a1, y_pred)
    ):
        return NOTHING
    plan = plan_at(address)
    first, second = _layers(plan)
    plan.x.address, plan.y.address = X.ctypes.data, y_true.ctypes.data
    # The sigmoid's derivative needs y_pred only, so that stands for z2, too.
    _bind_activations(first, z1, a1)
    _bind_activations(second, y_pred, y_pred)
    # W1 and the biases play no part. The gradients leave by the way of a first state, or stand where W1 is
    # else.
    first.caller.parameters.W = first.caller.parameters.b = second.caller.parameters.b = 0
    if first.in_place != 0:
        first.W.address = dW1.ctypes.data
    second.caller.parameters.W = W2.ctypes.data
    first.caller.first_state.W, first.caller.first_state.b = dW1.ctypes.data, db1.ctypes.data
    second.caller.first_state.W, second.caller.first_state.b = dW2.ctypes.data, db2.ctypes.data
    if work == 0:
        return PREPARED
    plan.task = BACKWARD_TASK
    call(work, (0, 1, address))
    return 0.0


def _step(address, bad, coefficients, loss, finite, work, check, X, y_true, W1, b1, W2, b2, lr):
    if (
        W1.shape != (X.shape[1], W2.shape[0])
        or b1.shape[0] != W2.shape[0]
        or b2.shape[0] != W2.shape[1]
        or not 0.0 <= lr < np.inf
    ):
        return NOTHING
    if y_true.shape != (X.shape[0], W2.shape[1]):
        return NOTHING
    if check and not (all_finite(finite, X, bad) and all_finite(finite, y_true, bad)):
        return NOTHING
    if check and _all_zero(W1) and _all_zero(W2):  # Python warns
        return NOTHING
    # Updated as a whole, arrays that overlap would not be what one update after another makes of them.
    starts = X.ctypes.data, y_true.ctypes.data, W1.ctypes.data, b1.ctypes.data, W2.ctypes.data, b2.ctypes.data
    sizes = X.nbytes, y_true.nbytes, W1.nbytes, b1.nbytes, W2.nbytes, b2.nbytes
    for i in range(2, 6):
        for j in range(i):
            if starts[i] < starts[j] + sizes[j] and starts[j] < starts[i] + sizes[i]:
                return NOTHING
    plan = plan_at(address)
    first, second = _layers(plan)
    plan.x.address, plan.y.address = X.ctypes.data, y_true.ctypes.data
    _bind_weights(first, W1, b1)
    _bind_weights(second, W2, b2)
    coefficients[0] = -lr
    if work == 0:
        return PREPARED
    plan.task = STEP_TASK
    call(work, (0, 1, address))
    return loss[0]


ENTRIES: dict[str, Any] = {"forward": _forward, "backward": _backward, "step": _step}
TASKS = {"forward": FORWARD_TASK, "backward": BACKWARD_TASK, "step": STEP_TASK}
# Dimensions of an entry's arrays, from X on; the step has the learning rate behind them.
DIMENSIONS = {
    "forward": (2, 2, 1, 2, 1, 2, 2, 2, 2),
    "backward": (2, 2, 2, 2, 2, 2, 2, 1, 2, 1),
    "step": (2, 2, 2, 1, 2, 1),
}


@cache
def _entry(use: str, dtype: str) -> Any:
    """Compiled for C-ordered, aligned and writable arrays of the dtype: it raises TypeError for all else."""
    element = getattr(types, dtype)
    arrays: list[Any] = [CallersArray(types.Array(element, n, "C")) for n in DIMENSIONS[use]]
    bad = types.Array(types.int64, 1, "C")
    if use == "step":
        coefficients, loss = types.Array(element, 1, "C"), types.Array(types.float64, 1, "C")
        own = [bad, coefficients, loss]
        arrays.append(types.float64)
    else:
        own = [bad]
    return jit.dispatcher(ENTRIES[use], (types.int64, *own, types.int64, types.int64, types.boolean, *arrays))


class Prepared:
    """What is ready for arrays of one shape."""

    def __init__(
        self, use: str, dtype: np.dtype[Any], rows: int, inputs: int, hidden: int, outputs: int
    ) -> None:
        rule, mode = ("add", "train") if use == "step" else ("gradient", "trace")
        plan = Plan(Design((inputs, hidden, outputs), ("relu", "sigmoid"), "mse", dtype, rule, rows, mode))
        table = plan.table
        table.samples, table.x.row, table.y.row = rows, inputs * dtype.itemsize, outputs * dtype.itemsize
        table.y_columns = outputs if use == "step" else 0
        if use == "backward":
            plan.coefficients[0] = 1
            if plan.leave_in_place(0, weights=True):
                plan.layers[0].direct = REPLACED
            plan.leave_in_place(1, weights=False)
        else:
            plan.gather_if_crowded(rows)
            plan.leave_in_place(0, weights=True)
            plan.leave_in_place(1, weights=True)
        self.plan, self._task = plan, TASKS[use]
        entry, finite = _entry(use, dtype.name), not_finite(dtype.name)
        own = (plan.bad, plan.coefficients, plan.loss) if use == "step" else (plan.bad,)
        self._alone = partial(entry, plan.address, *own, finite, plan.work)
        self._fill_in = partial(entry, plan.address, *own, finite, 0)
        self._again = partial(Prepared, use, dtype, rows, inputs, hidden, outputs)
        self._busy = False
        # Where threads cannot pay, calls go straight to compiled code.
        self.enter: Callable[..., float] = self._choose if plan.may_have_a_team else self._alone

    def _choose(self, *arguments: Any) -> float:
        """Alone, or as a team on a plan that compiled code has filled in. Whoever comes while such a call is
        on its way (a signal handler, a finaliser) gets a plan of its own; where all of a call is one call of
        compiled code, nobody can."""
        if self._busy:
            return self._again().enter(*arguments)
        self._busy = True
        try:
            return self._measured(arguments)
        finally:
            self._busy = False

    def _measured(self, arguments: tuple[Any, ...]) -> float:
        plan = self.plan
        started = time.perf_counter()
        threads, _ = plan.way(plan.most_threads(None), 1, started)
        result = float(self._alone(*arguments) if threads == 1 else self._fill_in(*arguments))
        if result == PREPARED:
            plan.run_as(self._task, threads, 1)
            result = float(plan.loss[0])
        if result != NOTHING:
            now = time.perf_counter()
            plan.choice.note(threads, 1, now - started, now)
        return result


class _Kept(dict[Any, Prepared]):
    """What is ready, by the shapes of X and W2 and their dtype's character; made when it is asked for. None
    for arrays that kernels do not take."""

    def __init__(self, use: str) -> None:
        self._use = use

    def __missing__(self, key: tuple[tuple[int, ...], tuple[int, ...], str]) -> Prepared | None:
        of_X, of_W2, dtype = key
        if len(of_X) != 2 or len(of_W2) != 2 or 0 in of_X + of_W2 or dtype not in "fd":
            return None
        if len(self) >= KEPT_PLANS:
            self.pop(next(iter(self)))
        self[key] = Prepared(self._use, np.dtype(dtype), *of_X, *of_W2)
        return self[key]


class _PerThread(threading.local):
    def __init__(self) -> None:
        self.forward, self.backward, self.step = _Kept("forward"), _Kept("backward"), _Kept("step")


_prepared = _PerThread()


def step(
    X: Array, y_true: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, lr: float, check_finite: bool
) -> float | None:
    """One training step in place; the loss before it, or None (nothing changed) if an array is not as kernels
    take it, shapes do not fit, X or y_true is not finite, or a parameter shares memory with another array."""
    ready = _prepared.step[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    try:
        loss = ready.enter(check_finite, X, y_true, W1, b1, W2, b2, lr)
    except TypeError:
        return None
    return None if loss == NOTHING else loss


def forward(
    X: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """z1, a1, z2, y_pred, or None if an array is not as kernels take it, shapes do not fit, or X is not
    finite."""
    ready = _prepared.forward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    dtype = X.dtype
    of_hidden, of_outputs = (X.shape[0], W2.shape[0]), (X.shape[0], W2.shape[1])
    z1, a1 = np.empty(of_hidden, dtype), np.empty(of_hidden, dtype)
    z2, y_pred = np.empty(of_outputs, dtype), np.empty(of_outputs, dtype)
    try:
        done = ready.enter(check_finite, X, W1, b1, W2, b2, z1, a1, z2, y_pred)
    except TypeError:
        return None
    return None if done == NOTHING else (z1, a1, z2, y_pred)


def backward(
    X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """dW1, db1, dW2, db2, or None if an array is not as kernels take it, shapes do not fit, or X or y_true is
    not finite."""
    ready = _prepared.backward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    dtype = X.dtype
    hidden, outputs = W2.shape
    dW1, db1 = np.empty((X.shape[1], hidden), dtype), np.empty(hidden, dtype)
    dW2, db2 = np.empty((hidden, outputs), dtype), np.empty(outputs, dtype)
    try:
        done = ready.enter(check_finite, X, y_true, z1, a1, y_pred, W2, dW1, db1, dW2, db2)
    except TypeError:
        return None
    return None if done == NOTHING else (dW1, db1, dW2, db2)


def descend(parameters: Array, gradient: Array, lr: float) -> None:
    """parameters -= lr * gradient, both flat."""
    parameters -= parameters.dtype.type(lr) * gradient
