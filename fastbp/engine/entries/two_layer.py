"""The tutorial's network on the caller's own arrays: what the drop-in functions enter.

The arrays are C-ordered and of one dtype. All of a call is one call of compiled code, from the check of the
input to the result, also where a team does the work. Only what takes so long that Ctrl-C has to be heard
meanwhile is filled in there and done by Python's leave.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import CallersArray, data_at
from fastbp.engine.compile.intrinsics import call, cycles, load_number, store_number
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.compile.uncounted import fresh, view
from fastbp.engine.entries import crowded_rows
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
from fastbp.engine.threads import team
from fastbp.engine.threads.runtime import (
    TEAM_NANOSECONDS,
    Runtime,
    gets_a_team,
    note_alone,
    note_team,
    runtime,
    runtime_at,
)
from fastbp.formulas.two_layer import FORWARD_TOLERANCE

Array = NDArray[Any]

# Plans are kept by use and shape, for each Python thread: the batch, and the smaller one at the end of an
# epoch.
KEPT_PLANS = 8
FORWARD_TASK, BACKWARD_TASK = PACK + FORWARD, PACK + BACKWARD + UNPACK_STATES
STEP_TASK = PACK + TRAIN + UNPACK
# Multiply-adds of one core in a nanosecond, about: for the choice whether a team pays.
SPEED = 32


@struct
class Ready(Struct):
    """What compiled code finds besides the arrays of a call."""

    plan: int  # address
    work: int  # of the compiled worker; 0: it is left to Python
    finite: int  # of `not_finite`
    bad: int  # of an integer for its answer
    coefficients: int
    loss: int
    nanoseconds: int  # that one worker takes, about
    runtime: int  # see threads/runtime.py; 0: never a team
    together: int  # of the callback that starts a team
    arrivals: int


_ready_at = view_of(Ready)


@inner
def _do(ready, task):
    """The task of a plan that is filled in, unless it is left to Python."""
    if ready.work == 0:
        return
    plan_at(ready.plan).task = task
    if ready.runtime == 0:
        call(ready.work, (0, 1, ready.plan))
        return
    process, began = runtime_at(ready.runtime), cycles()
    if gets_a_team(process, began, ready.plan, ready.nanoseconds):
        call(ready.together, (process.workers, ready.work, ready.plan, ready.arrivals))
        note_team(process, began, ready.nanoseconds)
    else:
        call(ready.work, (0, 1, ready.plan))
        note_alone(process, began)


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


# An entry returns its results, or None if nothing was done: shapes do not fit, numbers are not finite or not
# what they must be, or a parameter shares memory with another array; Python looks closer.


def _forward(address, check, X, W1, b1, W2, b2):
    ready = _ready_at(address)
    if W1.shape != (X.shape[1], W2.shape[0]) or b1.shape[0] != W2.shape[0] or b2.shape[0] != W2.shape[1]:
        return None
    if check and not all_finite(ready.finite, X, ready.bad):
        return None
    plan = plan_at(ready.plan)
    first, second = _layers(plan)
    plan.x.address = X.ctypes.data
    _bind_weights(first, W1, b1)
    _bind_weights(second, W2, b2)
    of_hidden, of_outputs = (X.shape[0], W2.shape[0]), (X.shape[0], W2.shape[1])
    z1, a1, z2, y_pred = fresh((of_hidden, of_hidden, of_outputs, of_outputs), X)
    _bind_activations(first, view(z1), view(a1))
    _bind_activations(second, view(z2), view(y_pred))
    _do(ready, FORWARD_TASK)
    return z1, a1, z2, y_pred


def _backward(address, check, X, y_true, z1, a1, y_pred, W2):
    ready = _ready_at(address)
    rows = X.shape[0]
    if (
        y_true.shape != (rows, W2.shape[1])
        or y_pred.shape != y_true.shape
        or z1.shape != (rows, W2.shape[0])
        or a1.shape != z1.shape
    ):
        return None
    if check and not (
        all_finite(ready.finite, X, ready.bad)
        and all_finite(ready.finite, y_true, ready.bad)
        and _may_be_of_forward(z1, a1, y_pred)
    ):
        return None
    plan = plan_at(ready.plan)
    first, second = _layers(plan)
    plan.x.address, plan.y.address = X.ctypes.data, y_true.ctypes.data
    # The derivatives need a1 and y_pred only, and y_pred stands for z2, too.
    if first.rows_in_place != 0:
        first.a = a1.ctypes.data
    else:
        first.caller.a = a1.ctypes.data
    _bind_activations(second, y_pred, y_pred)
    # W1 and the biases play no part. Gradients are written where they belong, or leave by the way of a first
    # state.
    hidden, outputs = W2.shape
    gradients = fresh(((X.shape[1], hidden), (hidden,), (hidden, outputs), (outputs,)), X)
    dW1, db1, dW2, db2 = view(gradients[0]), view(gradients[1]), view(gradients[2]), view(gradients[3])
    first.caller.parameters.W = first.caller.parameters.b = second.caller.parameters.b = 0
    if first.in_place != 0:
        first.W.address = dW1.ctypes.data
    if second.in_place != 0:
        second.W.address = W2.ctypes.data
        second.gradient = dW2.ctypes.data - W2.ctypes.data
    second.caller.parameters.W = W2.ctypes.data
    first.caller.first_state.W, first.caller.first_state.b = dW1.ctypes.data, db1.ctypes.data
    second.caller.first_state.W, second.caller.first_state.b = dW2.ctypes.data, db2.ctypes.data
    _do(ready, BACKWARD_TASK)
    return gradients


def _step(address, check, X, y_true, W1, b1, W2, b2, lr):
    ready = _ready_at(address)
    if (
        W1.shape != (X.shape[1], W2.shape[0])
        or b1.shape[0] != W2.shape[0]
        or b2.shape[0] != W2.shape[1]
        or not 0.0 <= lr < np.inf
    ):
        return None
    if y_true.shape != (X.shape[0], W2.shape[1]):
        return None
    if check and not (all_finite(ready.finite, X, ready.bad) and all_finite(ready.finite, y_true, ready.bad)):
        return None
    if check and _all_zero(W1) and _all_zero(W2):  # Python warns
        return None
    # Updated as a whole, arrays that overlap would not be what one update after another makes of them.
    starts = X.ctypes.data, y_true.ctypes.data, W1.ctypes.data, b1.ctypes.data, W2.ctypes.data, b2.ctypes.data
    sizes = X.nbytes, y_true.nbytes, W1.nbytes, b1.nbytes, W2.nbytes, b2.nbytes
    for i in range(2, 6):
        for j in range(i):
            if starts[i] < starts[j] + sizes[j] and starts[j] < starts[i] + sizes[i]:
                return None
    plan = plan_at(ready.plan)
    first, second = _layers(plan)
    plan.x.address, plan.y.address = X.ctypes.data, y_true.ctypes.data
    _bind_weights(first, W1, b1)
    _bind_weights(second, W2, b2)
    store_number(ready.coefficients, X.dtype.type(-lr))
    _do(ready, STEP_TASK)
    return load_number(ready.loss, np.float64(0))


ENTRIES: dict[str, Any] = {"forward": _forward, "backward": _backward, "step": _step}
TASKS = {"forward": FORWARD_TASK, "backward": BACKWARD_TASK, "step": STEP_TASK}
# Dimensions of an entry's arrays, from X on; the step has the learning rate behind them.
DIMENSIONS = {
    "forward": (2, 2, 1, 2, 1),
    "backward": (2, 2, 2, 2, 2, 2),
    "step": (2, 2, 2, 1, 2, 1),
}


@cache
def _entry(use: str, dtype: str) -> Any:
    """Compiled for C-ordered, aligned and writable arrays of the dtype: it raises TypeError for all else."""
    element = getattr(types, dtype)
    arrays: list[Any] = [CallersArray(types.Array(element, n, "C")) for n in DIMENSIONS[use]]
    numbers = [types.float64] if use == "step" else []
    return jit.dispatcher(ENTRIES[use], (types.int64, types.boolean, *arrays, *numbers))


class Prepared:
    """What is ready for arrays of one shape."""

    def __init__(
        self, use: str, dtype: np.dtype[Any], rows: int, inputs: int, hidden: int, outputs: int
    ) -> None:
        rule, mode = ("add", "train") if use == "step" else ("gradient", "trace")
        plan = Plan(Design((inputs, hidden, outputs), ("relu", "sigmoid"), "mse", dtype, rule, rows, mode))
        self.plan, self._task, table = plan, TASKS[use], plan.table
        table.samples, table.x.row, table.y.row = rows, inputs * dtype.itemsize, outputs * dtype.itemsize
        table.y_columns = outputs if use == "step" else 0
        crowded = use != "step" and crowded_rows.copies_pay(use, inputs, hidden, dtype.itemsize, rows)
        if use == "backward":
            self._prepare_backward()
        if not crowded or use == "forward":  # (backward packs X)
            plan.gather_if_crowded(rows)
        if not crowded:
            plan.leave_in_place(0)
        elif use == "backward":
            crowded_rows.prepare_backward(plan)
        else:
            crowded_rows.prepare_forward(plan)
        plan.leave_in_place(1)
        if plan.layers[0].in_place:
            plan.layers[0].gradient = 0  # dW1 stands where W1 is else
        self._memory = np.zeros(size_of(Ready) // 8, np.int64)
        ready = at(Ready, data_at(self._memory))
        self._fill(ready, use)
        self._entry = partial(_entry(use, dtype.name), data_at(self._memory))
        self._again = partial(Prepared, use, dtype, rows, inputs, hidden, outputs)
        self._busy = False
        self.enter: Callable[..., Any] = self._entry if ready.work else self._by_python

    def _prepare_backward(self) -> None:
        """Gradients replace what was there, W2 stays as it is, and the products apply the ReLU's mask."""
        plan = self.plan
        plan.coefficients[0] = 1
        for layer in plan.layers:
            layer.direct, layer.gradient, layer.mirrors = REPLACED, plan.table.state, 0
        plan.layers[0].in_products, plan.layers[0].activation.backward = 1, 0

    def _fill(self, ready: Ready, use: str) -> None:
        plan, design = self.plan, self.plan.design
        ready.plan, ready.finite, ready.bad = plan.address, not_finite(design.dtype.name), data_at(plan.bad)
        ready.coefficients, ready.loss = data_at(plan.coefficients), data_at(plan.loss)
        forward, step = design.batch * sum(m * n for m, n in design.shapes), plan.multiply_adds
        ready.nanoseconds = {"forward": forward, "backward": step - forward, "step": step}[use] // SPEED
        told = True  # whether compiled code is the one who knows of threads
        if ready.nanoseconds >= TEAM_NANOSECONDS and team.possible():
            ready.runtime, ready.together, ready.arrivals = runtime(), team.together(), data_at(plan.arrivals)
            told = at(Runtime, ready.runtime).workers > 1
        if told and not plan.takes_long:
            ready.work = plan.work

    def _by_python(self, *arguments: Any) -> Any:
        """On a plan that compiled code has filled in. Whoever comes while such a call is on its way (a signal
        handler, a finaliser) gets a plan of its own; where all of a call is one call of compiled code, nobody
        can."""
        if self._busy:
            return self._again().enter(*arguments)
        self._busy = True
        try:
            result = self._entry(*arguments)
            if result is not None:
                self.plan.run(self._task, None)
            return float(self.plan.loss[0]) if isinstance(result, float) else result
        finally:
            self._busy = False


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
    X: Array, y_true: Any, W1: Any, b1: Any, W2: Array, b2: Any, *, lr: float, check_finite: bool
) -> float | None:
    """One training step in place; the loss before it, or None (nothing changed) if one is no array or not as
    kernels take it, shapes do not fit, X or y_true is not finite, or a parameter shares memory with another
    array."""
    ready = _prepared.step[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    try:
        return ready.enter(check_finite, X, y_true, W1, b1, W2, b2, lr)
    except TypeError:
        return None


def forward(
    X: Array, W1: Any, b1: Any, W2: Array, b2: Any, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """z1, a1, z2, y_pred, or None if one is no array or not as kernels take it, shapes do not fit, or X is
    not finite."""
    ready = _prepared.forward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    try:
        return ready.enter(check_finite, X, W1, b1, W2, b2)
    except TypeError:
        return None


def backward(
    X: Array, y_true: Any, z1: Any, a1: Any, y_pred: Any, W2: Array, *, check_finite: bool
) -> tuple[Array, Array, Array, Array] | None:
    """dW1, db1, dW2, db2, or None if one is no array or not as kernels take it, shapes do not fit, or X or
    y_true is not finite."""
    ready = _prepared.backward[X.shape, W2.shape, X.dtype.char]
    if ready is None:
        return None
    try:
        return ready.enter(check_finite, X, y_true, z1, a1, y_pred, W2)
    except TypeError:
        return None


def descend(parameters: Array, gradient: Array, lr: float) -> None:
    """parameters -= lr * gradient, both flat."""
    parameters -= parameters.dtype.type(lr) * gradient
