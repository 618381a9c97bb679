"""When training ends because its loss does not get better, epoch by epoch; by scikit-learn's rule:

    count = count + 1 if loss > best - tol else 0,    best = min(best, loss),    it ends with count > most

The caller has the last word, with losses that were added up in an order of his own: what is so close that
rounding might decide counts here as not better, so that steps end at that epoch or before it.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import load_number, store_number
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import plan_at

# Its numbers, all of float64: those above, what an epoch's sum of losses is divided by, and the sum so far.
TOL, BEST, COUNT, MOST, SCALE, SUM = range(6)
# Much more than rounding does to a sum, and too little to end epochs in vain.
CLOSE = 1e-9


class Patience:
    """What one run of steps that begins with an epoch is told of this, and how many steps it had.

    count : of epochs so far. scale : what the sum of an epoch's losses is divided by.
    """

    def __init__(self, tol: float, best: float, count: int, most: float, scale: float) -> None:
        self.numbers = np.array([tol, best, count, most, scale, 0.0])
        self.steps_done = 0


@inner
def _number(plan, k):
    return load_number(plan.ending.patience + 8 * k, np.float64(0))


@inner
def _set(plan, k, value):
    store_number(plan.ending.patience + 8 * k, value)


def lose_patience(address, step, loss):
    """Take the loss of a step into account, which is at that address; behind an epoch, note whether it was
    the last step. For one worker; the others see it behind the next barrier."""
    plan = plan_at(address)
    total = _number(plan, SUM) + load_number(loss, np.float64(0))
    if (step + 1) % plan.steps_per_epoch != 0:
        _set(plan, SUM, total)
        return
    _set(plan, SUM, 0.0)
    mean, best, tol = total / _number(plan, SCALE), _number(plan, BEST), _number(plan, TOL)
    count = 0.0
    if mean > best - tol - CLOSE * (abs(mean) + tol):
        count = _number(plan, COUNT) + 1.0
    _set(plan, COUNT, count)
    _set(plan, BEST, min(best, mean))
    if count > _number(plan, MOST) or not abs(mean) < np.inf:
        plan.ending.step = step + 1
