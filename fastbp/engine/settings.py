"""From an optimizer to the numbers that the compiled rules read: one row for each step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from fastbp.schedules import Schedule

Array = NDArray[Any]


def rule_of(optimizer: Optimizer) -> str:
    """The rule (formulas.RULES) that does the optimizer's step."""
    if isinstance(optimizer, SGD):
        if optimizer.momentum:
            return "momentum"
        return "sgd" if optimizer.weight_decay else "add"
    if isinstance(optimizer, Adam):
        return "adam"
    if isinstance(optimizer, RMSprop):
        return "rmsprop-momentum" if optimizer.momentum else "rmsprop"
    if isinstance(optimizer, Adagrad):
        return "adagrad"
    raise TypeError(f"no rule for {optimizer!r}")


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
    """(steps, 1 + numbers of the rule): the factor of the output layer's error, then the rule's settings."""
    per_epoch = -(-samples // batch)
    step = np.arange(first_step, last_step)
    rows = np.minimum(batch, samples - step % per_epoch * batch)
    scale = 1 / rows if mean else np.ones(len(step))
    # a number is not made an array of equal numbers: train_step comes here for each step
    lr: Any = optimizer.lr
    lr = optimizer.rates(steps_done, steps_done + len(step)) if isinstance(lr, Schedule) else float(lr)
    if isinstance(optimizer, SGD):
        decay, momentum = float(optimizer.weight_decay), float(optimizer.momentum)
        if not (decay or momentum):
            return (-lr * scale)[:, None].astype(dtype)
        numbers: list[Any] = [lr, decay]
        if momentum:
            numbers += [momentum, 1.0, momentum] if optimizer.nesterov else [momentum, 0.0, 1.0]
    elif isinstance(optimizer, Adam):
        beta1, beta2 = map(float, optimizer.betas)
        t = steps_done + 1 + np.arange(len(step))
        decay = float(optimizer.weight_decay)
        decoupled = isinstance(optimizer, AdamW)
        numbers = [
            beta1, 1 - beta1, beta2, 1 - beta2, lr / (1 - beta1**t), 1 / np.sqrt(1 - beta2**t), float(optimizer.eps),
            0.0 if decoupled else decay, 1 - lr * decay if decoupled else 1.0,
        ]  # fmt: skip
    elif isinstance(optimizer, Adagrad):
        numbers = [lr, float(optimizer.eps), float(optimizer.weight_decay)]
    else:
        assert isinstance(optimizer, RMSprop)
        alpha = float(optimizer.alpha)
        numbers = [alpha, 1 - alpha, lr, float(optimizer.eps), float(optimizer.weight_decay), float(optimizer.momentum)]
    table = np.empty((len(step), 1 + len(numbers)), dtype)
    table[:, 0] = scale
    for k, number in enumerate(numbers):
        table[:, k + 1] = number
    return table
