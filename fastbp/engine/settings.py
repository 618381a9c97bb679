"""From an optimizer to the numbers that the compiled rules read: one row for each step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.kernels.optimizers import L2, RULES
from fastbp.optimizer_base import Optimizer

Array = NDArray[Any]


def rule_of(optimizer: Optimizer, l2: float = 0.0) -> str:
    """The rule (kernels/optimizers.py) that does the optimizer's step, on a gradient whose norm was clipped
    already; with l2, a penalty of the model's, its gradient is added first."""
    if _limited(optimizer) or l2:
        return optimizer.rule + ("-limit-l1" if _limited(optimizer) else "") + (L2 if l2 else "")
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


def has_biases_apart(optimizer: Optimizer, l2: float) -> bool:
    """Whether biases and gains are trained with numbers of their own, which stand behind the others in each
    row of settings."""
    return bool(l2) or (not optimizer.decay_biases and bool(optimizer.weight_decay or optimizer.l1))


@np.errstate(all="ignore")  # beta^t becomes 0, and a rate beyond the dtype infinite
def settings_of(
    optimizer: Optimizer,
    steps_done: int,
    steps: int,
    divisors: float | NDArray[Any],
    dtype: np.dtype[Any],
    l2: float = 0.0,
) -> Array:
    """(steps, 1 + numbers of the rule): the factor of the output layer's error, then the rule's settings,
    then clip_norm if there is one; twice that if biases are apart, the second half for them. Where all rows
    are alike, they are one and the same in memory: to be read only.

    divisors : what the loss of each step is divided by, one number or (steps,).
    """
    # a number is not made an array of equal numbers: train_step comes here for each step
    scale: Any = 1 / divisors
    rule, span = rule_of(optimizer, l2), (steps_done, steps_done + steps)
    coefficients = _coefficients(optimizer, span, dtype)
    if l2:
        coefficients["l2"] = l2 / divisors
    if rule == "add":  # the error's factor is all of the step
        scale = -coefficients["lr"] * scale
    names = RULES[rule].coefficients
    numbers: list[Any] = [scale, *(coefficients[name] for name in names)]
    limit = [] if optimizer.clip_norm is None else [float(optimizer.clip_norm)]
    numbers += limit
    if has_biases_apart(optimizer, l2):
        others = optimizer.of_biases()
        if others is not optimizer:
            coefficients = _coefficients(others, span, dtype, optimizer)
        coefficients["l2"] = 0.0
        numbers += [scale, *(coefficients[name] for name in names), *limit]
    if not any(isinstance(number, np.ndarray) for number in numbers):
        row = np.array(numbers, dtype)
        return np.ndarray((steps, len(numbers)), dtype, row, strides=(0, row.itemsize))
    table = np.empty((steps, len(numbers)), dtype)
    for k, number in enumerate(numbers):
        table[:, k] = number
    return table


def is_constant(settings: Array) -> bool:
    """Whether they are the same in all steps, whenever they are taken."""
    return settings.strides[0] == 0


def is_alike(a: Optimizer, b: Optimizer) -> bool:
    """Whether both, as they are, give the same settings for the same steps."""
    return a is b or (type(a) is type(b) and vars(a) == vars(b))


def _coefficients(
    optimizer: Optimizer, span: tuple[int, int], dtype: np.dtype[Any], whole: Optimizer | None = None
) -> dict[str, Any]:
    """What rules read, by name, in the steps from the first of `span` on, before the second.

    whole : the optimizer that this one is a part of, if it is one.
    """
    coefficients: dict[str, Any] = optimizer.coefficients(*span)
    if "eps" in coefficients:
        # Never 0: where vectors are filled up, gradients and states are 0, and 0 / (0 + eps) must be 0.
        eps, least = coefficients["eps"], float(np.finfo(dtype).tiny)
        coefficients["eps"] = max(eps, least) if isinstance(eps, float) else np.maximum(eps, least)
    if _limited(whole or optimizer):
        coefficients["limit"] = math.inf if optimizer.clip_value is None else float(optimizer.clip_value)
        coefficients["l1"] = float(optimizer.l1)
    return coefficients
