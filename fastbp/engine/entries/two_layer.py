"""The tutorial's network on the caller's own arrays: what the drop-in functions enter.

The arrays are C-ordered and of one dtype. Python prepares one call: small networks are done inside it, from the check of the input to
the result; for larger ones it only fills the plan in, and a team does the work.
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
from fastbp.engine.kernels.finite import all_finite, not_finite
from fastbp.engine.plan import Plan
from fastbp.engine.worker.step import (
    BACKWARD,
    FORWARD,
    HEADER_SIZE,
    IN_PLACE,
    LAYER_SIZE,
    OUTSIDE_A,
    OUTSIDE_B,
    OUTSIDE_W,
    OUTSIDE_Z,
    PACK,
    REPLACED,
    ROWS_IN_PLACE,
    TASK,
    TRAIN,
    UNPACK,
    UNPACK_STATES,
    A,
    W,
    Z,
    inner,
)  # fmt: skip
from fastbp.engine.worker.step import (
    X as X_AT,
)
from fastbp.engine.worker.step import (
    Y as Y_AT,
)
from fastbp.formulas.two_layer import FORWARD_TOLERANCE

Array = NDArray[Any]

FIRST, SECOND = HEADER_SIZE, HEADER_SIZE + LAYER_SIZE
# Plans are kept by use and shape, for each Python thread: the batch, and the smaller one at the end of an epoch.
KEPT_PLANS = 8
# What an entry returns: the loss (0.0 where there is none), or one of these. NOTHING was done: shapes do not fit, numbers are not finite or
# not what they must be, or a parameter shares memory with another array; Python looks closer.
NOTHING, PREPARED = -1.0, -2.0
FORWARD_TASK, BACKWARD_TASK, STEP_TASK = PACK + FORWARD, PACK + BACKWARD + UNPACK_STATES, PACK + TRAIN + UNPACK


@inner
def _lend_weights(table, layer, W_of_layer):
    table[layer + OUTSIDE_W] = W_of_layer.ctypes.data
    if table[layer + IN_PLACE] != 0:
        table[layer + W] = W_of_layer.ctypes.data


@inner
def _lend_activations(table, layer, z, a):
    if table[layer + ROWS_IN_PLACE] != 0:
        table[layer + Z], table[layer + A] = z.ctypes.data, a.ctypes.data
    else:
        table[layer + OUTSIDE_Z], table[layer + OUTSIDE_A] = z.ctypes.data, a.ctypes.data


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


def _forward(table, address, bad, finite, work, check, X, W1, b1, W2, b2, z1, a1, z2, y_pred):
    if W1.shape != (X.shape[1], W2.shape[0]) or b1.shape[0] != W2.shape[0] or b2.shape[0] != W2.shape[1]:
        return NOTHING
    if check and not all_finite(finite, X, bad):
        return NOTHING
    table[X_AT] = X.ctypes.data
    _lend_weights(table, FIRST, W1)
    _lend_weights(table, SECOND, W2)
    table[FIRST + OUTSIDE_B], table[SECOND + OUTSIDE_B] = b1.ctypes.data, b2.ctypes.data
    _lend_activations(table, FIRST, z1, a1)
    _lend_activations(table, SECOND, z2, y_pred)
    if work == 0:
        return PREPARED
    table[TASK] = FORWARD_TASK
    call(work, (0, 1, address))
    return 0.0


def _backward(table, address, bad, finite, work, check, X, y_true, z1, a1, y_pred, W2, dW1, db1, dW2, db2):
    rows = X.shape[0]
    if y_true.shape != (rows, W2.shape[1]) or y_pred.shape != y_true.shape or z1.shape != (rows, W2.shape[0]) or a1.shape != z1.shape:
        return NOTHING
    if check and not (all_finite(finite, X, bad) and all_finite(finite, y_true, bad) and _may_be_of_forward(z1, a1, y_pred)):
        return NOTHING
    table[X_AT], table[Y_AT] = X.ctypes.data, y_true.ctypes.data
    # The sigmoid's derivative needs y_pred only, so that stands for z2, too.
    _lend_activations(table, FIRST, z1, a1)
    _lend_activations(table, SECOND, y_pred, y_pred)
    # W1 and the biases play no part. The gradients leave by the way of a first state, or stand where W1 is else.
    table[FIRST + OUTSIDE_W], table[FIRST + OUTSIDE_B], table[SECOND + OUTSIDE_B] = 0, 0, 0
    if table[FIRST + IN_PLACE] != 0:
        table[FIRST + W] = dW1.ctypes.data
    table[SECOND + OUTSIDE_W] = W2.ctypes.data
    table[FIRST + OUTSIDE_W + 2], table[FIRST + OUTSIDE_B + 2] = dW1.ctypes.data, db1.ctypes.data
    table[SECOND + OUTSIDE_W + 2], table[SECOND + OUTSIDE_B + 2] = dW2.ctypes.data, db2.ctypes.data
    if work == 0:
        return PREPARED
    table[TASK] = BACKWARD_TASK
    call(work, (0, 1, address))
    return 0.0


def _step(table, address, bad, hyper, loss, finite, work, check, X, y_true, W1, b1, W2, b2, lr):
    if W1.shape != (X.shape[1], W2.shape[0]) or b1.shape[0] != W2.shape[0] or b2.shape[0] != W2.shape[1] or not 0.0 <= lr < np.inf:
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
    table[X_AT], table[Y_AT] = X.ctypes.data, y_true.ctypes.data
    _lend_weights(table, FIRST, W1)
    _lend_weights(table, SECOND, W2)
    table[FIRST + OUTSIDE_B], table[SECOND + OUTSIDE_B] = b1.ctypes.data, b2.ctypes.data
    hyper[0] = -lr
    if work == 0:
        return PREPARED
    table[TASK] = STEP_TASK
    call(work, (0, 1, address))
    return loss[0]


ENTRIES: dict[str, Any] = {"forward": _forward, "backward": _backward, "step": _step}
TASKS = {"forward": FORWARD_TASK, "backward": BACKWARD_TASK, "step": STEP_TASK}
# Dimensions of an entry's arrays, from X on; the step has the learning rate behind them.
DIMENSIONS = {"forward": (2, 2, 1, 2, 1, 2, 2, 2, 2), "backward": (2, 2, 2, 2, 2, 2, 2, 1, 2, 1), "step": (2, 2, 2, 1, 2, 1)}


@cache
def _entry(use: str, dtype: str) -> Any:
    """Compiled for C-ordered, aligned and writable arrays of the dtype: it raises TypeError for all else."""
    element = getattr(types, dtype)
    arrays: list[Any] = [CallersArray(types.Array(element, n, "C")) for n in DIMENSIONS[use]]
    table = types.Array(types.int64, 1, "C")
    if use == "step":
        own = [table, types.Array(element, 1, "C"), types.Array(types.float64, 1, "C")]  # bad, hyper, loss
        arrays.append(types.float64)
    else:
        own = [table]
    return jit.dispatcher(ENTRIES[use], (table, types.int64, *own, types.int64, types.int64, types.boolean, *arrays))


class Prepared:
    """What is ready for arrays of one shape."""

    def __init__(self, use: str, dtype: np.dtype[Any], rows: int, inputs: int, hidden: int, outputs: int) -> None:
        plan = Plan(
            (inputs, hidden, outputs), ("relu", "sigmoid"), "mse", dtype, "add" if use == "step" else "gradient", rows,
            "train" if use == "step" else "trace",
        )  # fmt: skip
        plan.set(samples=rows, x_row=inputs * dtype.itemsize, y_row=outputs * dtype.itemsize, y_columns=outputs if use == "step" else 0)
        if use == "backward":
            plan.hyper[0] = 1
            if plan.leave_in_place(0, weights=True):
                plan.set_layer(0, direct=REPLACED)
            plan.leave_in_place(1, weights=False)
        else:
            plan.gather_if_crowded(rows)
            plan.leave_in_place(0, weights=True)
            plan.leave_in_place(1, weights=True)
        self.plan, self._task = plan, TASKS[use]
        entry, finite = _entry(use, dtype.name), not_finite(dtype.name)
        own = (plan.bad, plan.hyper, plan.out) if use == "step" else (plan.bad,)
        self._alone = partial(entry, plan.table, plan.address, *own, finite, plan.work)
        self._fill_in = partial(entry, plan.table, plan.address, *own, finite, 0)
        self._again = partial(Prepared, use, dtype, rows, inputs, hidden, outputs)
        self._busy = False
        # Where threads cannot pay, calls go straight to compiled code.
        self.enter: Callable[..., float] = self._choose if plan.may_have_a_team else self._alone

    def _choose(self, *arguments: Any) -> float:
        """Alone, or as a team on a plan that compiled code has filled in. Whoever comes while such a call is on its way (a signal handler, a
        finaliser) gets a plan of its own; where all of a call is one call of compiled code, nobody can."""
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
            result = float(plan.out[0])
        if result != NOTHING:
            now = time.perf_counter()
            plan.choice.note(threads, 1, now - started, now)
        return result


class _Kept(dict[Any, Prepared]):
    """What is ready, by the shapes of X and W2 and their dtype's character; made when it is asked for. None for arrays that kernels do not take."""

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


def step(X: Array, y_true: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, lr: float, check_finite: bool) -> float | None:
    """One training step in place; the loss before it, or None (nothing changed) if an array is not as kernels take it, shapes do not fit, X or
    y_true is not finite, or a parameter shares memory with another array."""
    ready = _prepared.step[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    try:
        loss = ready.enter(check_finite, X, y_true, W1, b1, W2, b2, lr)
    except TypeError:
        return None
    return None if loss == NOTHING else loss


def forward(X: Array, W1: Array, b1: Array, W2: Array, b2: Array, *, check_finite: bool) -> tuple[Array, Array, Array, Array] | None:
    """z1, a1, z2, y_pred, or None if an array is not as kernels take it, shapes do not fit, or X is not finite."""
    ready = _prepared.forward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    dtype = X.dtype
    of_hidden, of_outputs = (X.shape[0], W2.shape[0]), (X.shape[0], W2.shape[1])
    z1, a1, z2, y_pred = np.empty(of_hidden, dtype), np.empty(of_hidden, dtype), np.empty(of_outputs, dtype), np.empty(of_outputs, dtype)
    try:
        done = ready.enter(check_finite, X, W1, b1, W2, b2, z1, a1, z2, y_pred)
    except TypeError:
        return None
    return None if done == NOTHING else (z1, a1, z2, y_pred)


def backward(
    X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """dW1, db1, dW2, db2, or None if an array is not as kernels take it, shapes do not fit, or X or y_true is not finite."""
    ready = _prepared.backward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    dtype = X.dtype
    hidden, outputs = W2.shape
    dW1, db1, dW2, db2 = np.empty((X.shape[1], hidden), dtype), np.empty(hidden, dtype), np.empty((hidden, outputs), dtype), np.empty(outputs, dtype)
    try:
        done = ready.enter(check_finite, X, y_true, z1, a1, y_pred, W2, dW1, db1, dW2, db2)
    except TypeError:
        return None
    return None if done == NOTHING else (dW1, db1, dW2, db2)


def descend(parameters: Array, gradient: Array, lr: float) -> None:
    """parameters -= lr * gradient, both flat."""
    parameters -= parameters.dtype.type(lr) * gradient
