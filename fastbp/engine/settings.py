"""From an optimizer to the numbers that the compiled rules read: one row for each step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastbp.schedules import Schedule

Array = NDArray[Any]


def rule_of(optimizer: Optimizer) -> str:
    """The rule (formulas.RULES) that does the optimizer's step, on a gradient whose norm was clipped already."""
    own = _own_rule_of(optimizer)
    return f"{own}-limit-l1" if _limited(optimizer) else own


def _limited(optimizer: Optimizer) -> bool:
    return bool(optimizer.l1) or optimizer.clip_value is not None


def _own_rule_of(optimizer: Optimizer) -> str:
    if isinstance(optimizer, SGD):
        if optimizer.momentum:
            return "momentum"
        plain = not (optimizer.weight_decay or _limited(optimizer) or optimizer.clip_norm is not None)
        return "add" if plain else "sgd"
    if isinstance(optimizer, Adam):
        return "adam"
    if isinstance(optimizer, RMSprop):
        return "rmsprop-momentum" if optimizer.momentum else "rmsprop"
    if isinstance(optimizer, Adagrad):
        return "adagrad"
    raise TypeError(f"no rule for {optimizer!r}")


def _eps(eps: float, dtype: np.dtype[Any]) -> float:
    """Never 0: where vectors are filled up, gradients and states are 0, and 0 / (0 + eps) must be 0."""
    return max(float(eps), float(np.finfo(dtype).tiny))


def settings_of(
    optimizer: Optimizer,
    steps_done: int,
    first_step: int,
    last_step: int,
    samples: int,
    batch: int,
    mean: bool,
    dtype: np.dtype[Any],
) -> Array:
    """(steps, 1 + numbers of the rule): the factor of the output layer's error, then the rule's settings, then clip_norm if there is one."""
    per_epoch = -(-samples // batch)
    steps = last_step - first_step
    # a number is not made an array of equal numbers: train_step comes here for each step
    scale: Any = 1 / batch if mean else 1.0
    if mean and samples % batch:
        scale = 1 / np.minimum(batch, samples - np.arange(first_step, last_step) % per_epoch * batch)
    lr: Any = optimizer.lr
    lr = optimizer.rates(steps_done, steps_done + steps) if isinstance(lr, Schedule) else float(lr)
    if isinstance(optimizer, SGD):
        decay, momentum = float(optimizer.weight_decay), float(optimizer.momentum)
        numbers: list[Any] = [lr, decay]
        if momentum:
            numbers += [momentum, 1.0, momentum] if optimizer.nesterov else [momentum, 0.0, 1.0]
        if rule_of(optimizer) == "add":  # the error's factor is all of the step
            scale, numbers = -lr * scale, []
    elif isinstance(optimizer, Adam):
        beta1, beta2 = map(float, optimizer.betas)
        t = steps_done + 1 + np.arange(steps)
        decay = float(optimizer.weight_decay)
        decoupled = isinstance(optimizer, AdamW)
        numbers = [
            beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1**t), 1 / np.sqrt(1 - beta2**t), _eps(optimizer.eps, dtype),
            0.0 if decoupled else decay, 1 - lr * decay if decoupled else 1.0,
        ]  # fmt: skip
    elif isinstance(optimizer, Adagrad):
        numbers = [lr, _eps(optimizer.eps, dtype), float(optimizer.weight_decay)]
    else:
        assert isinstance(optimizer, RMSprop)
        alpha = float(optimizer.alpha)
        numbers = [alpha, 1 - alpha, lr, _eps(optimizer.eps, dtype), float(optimizer.weight_decay), float(optimizer.momentum)]
    if _limited(optimizer):
        numbers += [math.inf if optimizer.clip_value is None else float(optimizer.clip_value), float(optimizer.l1)]
    if optimizer.clip_norm is not None:
        numbers.append(float(optimizer.clip_norm))
    table = np.empty((steps, 1 + len(numbers)), dtype)
    table[:, 0] = scale
    for k, number in enumerate(numbers):
        table[:, k + 1] = number
    return table
