"""Predictions for a few rows: the weights are read where the caller's arrays have them, and one call does all.

Packing pays when weights meet many rows. Here each is met once or a few times, and reading them is the work.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import int64
from numpy.typing import NDArray

from fastbp.engine import blocks, jit
from fastbp.engine.jit import call
from fastbp.engine.plan import FEW_ROWS, Plan
from fastbp.engine.step import FORWARD, HEADER_SIZE, LAYER_SIZE, LAYERS, OUTSIDE_A, SAMPLES, TASK
from fastbp.engine.step import X as X_AT

Array = NDArray[Any]

# A vector may be read that begins inside the parameters and ends outside: they must have so many bytes behind them.
SLACK = 64


def plan(layer_sizes: tuple[int, ...], activations: list[str], loss: str, parameters: Array, layer_norm: bool) -> Plan:
    """For up to FEW_ROWS rows and the flat array of these parameters, which has SLACK bytes behind it."""
    made = Plan(layer_sizes, activations, loss, parameters.dtype, "add", FEW_ROWS, "predict", layer_norm=layer_norm)
    made.lend_parameters(parameters)
    made.read_in_place()
    made.set(x_row=layer_sizes[0] * parameters.itemsize)
    return made


def _predict(table, address, work, finite, check, X, out, bad):
    if check:
        call(finite, (X.ctypes.data, X.size, bad.ctypes.data))
        if bad[0] != 0:
            return False
    table[X_AT], table[SAMPLES], table[TASK] = X.ctypes.data, X.shape[0], FORWARD
    table[HEADER_SIZE + (table[LAYERS] - 1) * LAYER_SIZE + OUTSIDE_A] = out.ctypes.data
    call(work, (0, 1, address))
    return True


@cache
def _entry() -> Any:
    return jit.dispatcher(_predict)


@cache
def _finite(dtype: np.dtype[Any]) -> int:
    return blocks.not_finite(dtype.name)


def predict(plan: Plan, X: Array, check_finite: bool) -> Array | None:
    """The outputs for X (C-ordered, writable, of the plan's dtype), or None if it is not finite."""
    out = np.empty((X.shape[0], plan.layer_sizes[-1]), plan.dtype)
    done = _entry()(plan.table, plan.address, plan.work, _finite(plan.dtype), check_finite, X, out, plan.bad)
    return out if done else None


def _all_finite(finite, address, size, bad):
    call(finite, (address, size, bad.ctypes.data))


@cache
def _all_finite_entry() -> Any:
    return jit.dispatcher(_all_finite, (int64, int64, int64, int64[::1]))


def is_finite(array: Array) -> bool:
    """Whether a C-ordered array holds neither NaN nor infinity; in half the time of NumPy's sum."""
    bad = np.zeros(1, np.int64)
    _all_finite_entry()(_finite(array.dtype), array.ctypes.data, array.size, bad)
    return not bad[0]
