"""From an optimizer to the numbers that the compiled rules read: one row for each step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.kernels.optimizers import RULES
from fastbp.optimizer_base import Optimizer

Array = NDArray[Any]


def rule_of(optimizer: Optimizer) -> str:
    """The rule (kernels/optimizers.py) that does the optimizer's step, on a gradient whose norm was clipped
    already."""
    if _limited(optimizer):
        return f"{optimizer.rule}-limit-l1"
    # nothing but W - lr * g: the engine adds products with -lr in them
    plain = optimizer.rule == "sgd" and not optimizer.weight_decay and optimizer.clip_norm is None
    return "add" if plain else optimizer.rule


def _limited(optimizer: Optimizer) -> bool:
    return bool(optimizer.l1) or optimizer.clip_value is not None


def factors_of(optimizer: Optimizer, steps_done: int, steps: int) -> NDArray[np.float64]:
    """(steps,), or one for all: what 1 / divisor is multiplied by for the first column of `settings_of`."""
    if rule_of(optimizer) != "add":
        return np.ones(1)
    rates = optimizer.coefficients(steps_done, steps_done + steps)["lr"]
    return np.array(np.broadcast_to(np.negative(rates), steps), np.float64)


@np.errstate(all="ignore")  # beta^t becomes 0, and a rate beyond the dtype infinite
def settings_of(
    optimizer: Optimizer,
    steps_done: int,
    steps: int,
    divisors: float | NDArray[Any],
    dtype: np.dtype[Any],
) -> Array:
    """(steps, 1 + numbers of the rule): the factor of the output layer's error, then the rule's settings,
    then clip_norm if there is one.

    divisors : what the loss of each step is divided by, one number or (steps,).
    """
    # a number is not made an array of equal numbers: train_step comes here for each step
    scale: Any = 1 / divisors
    coefficients = optimizer.coefficients(steps_done, steps_done + steps)
    if "eps" in coefficients:
        # Never 0: where vectors are filled up, gradients and states are 0, and 0 / (0 + eps) must be 0.
        coefficients["eps"] = max(coefficients["eps"], float(np.finfo(dtype).tiny))
    if _limited(optimizer):
        coefficients["limit"] = math.inf if optimizer.clip_value is None else float(optimizer.clip_value)
        coefficients["l1"] = float(optimizer.l1)
    rule = rule_of(optimizer)
    if rule == "add":  # the error's factor is all of the step
        scale = -coefficients["lr"] * scale
    numbers: list[Any] = [coefficients[name] for name in RULES[rule].coefficients]
    if optimizer.clip_norm is not None:
        numbers.append(float(optimizer.clip_norm))
    table = np.empty((steps, 1 + len(numbers)), dtype)
    table[:, 0] = scale
    for k, number in enumerate(numbers):
        table[:, k + 1] = number
    return table
