"""One step of each optimizer in plain NumPy, in place on one parameter array and its state.

`fastbp.reference` trains with them, and so they judge the engine's rules (engine/kernels/optimizers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _lr(o: Any, t: int) -> float:
    """The learning rate of step t = 1, 2, ..."""
    return float(o.rates(t - 1, t)[0])


def _sgd_step(o: Any, param: Array, grad: Array, t: int, m: Array | None = None) -> None:
    if o.weight_decay:
        grad = grad + o.weight_decay * param
    if m is not None and o.lr_in_velocity:
        step = _lr(o, t) * grad
        m[...] = o.momentum * m - step
        param += o.momentum * m - step if o.nesterov else m
        return
    if m is not None:
        m[...] = o.momentum * m + grad
        grad = grad + o.momentum * m if o.nesterov else m
    param -= _lr(o, t) * grad


def _adam_step(o: Any, param: Array, grad: Array, t: int, m: Array, v: Array) -> None:
    if o.weight_decay:
        grad = grad + o.weight_decay * param
    _step_of_moments(o, param, grad, t, m, v)


def _step_of_moments(o: Any, param: Array, grad: Array, t: int, m: Array, v: Array) -> None:
    beta1, beta2 = o.betas
    m[...] = beta1 * m + (1 - beta1) * grad
    v[...] = beta2 * v + (1 - beta2) * grad**2
    m_hat_factor = 1 / (1 - beta1**t)
    param -= _lr(o, t) * m_hat_factor * m / _root(o, t, v)


def _root(o: Any, t: int, v: Array) -> Array:
    """The root of v without its bias, plus eps; with epsilon_hat, eps has been added before."""
    unbias = math.sqrt(1 / (1 - o.betas[1] ** t))
    root: Array = (np.sqrt(v) + o.eps) * unbias if o.epsilon_hat else np.sqrt(v) * unbias + o.eps
    return root


def _adamw_step(o: Any, param: Array, grad: Array, t: int, m: Array, v: Array) -> None:
    param *= 1 - _lr(o, t) * o.weight_decay
    _step_of_moments(o, param, grad, t, m, v)


def _nadam_step(o: Any, param: Array, grad: Array, t: int, m: Array, v: Array) -> None:
    beta1, beta2 = o.betas
    if o.weight_decay:
        grad = grad + o.weight_decay * param
    m[...] = beta1 * m + (1 - beta1) * grad
    v[...] = beta2 * v + (1 - beta2) * grad**2
    mu = beta1 * (1 - 0.5 * 0.96 ** (np.arange(1, t + 2) * o.momentum_decay))  # (t + 1,): of steps 1 .. t + 1
    of_grad = (1 - mu[t - 1]) / (1 - mu[:t].prod())
    of_m = mu[t] / (1 - mu.prod())
    root = _root(o, t, v)
    param -= param.dtype.type(_lr(o, t) * of_grad) * grad / root
    param -= param.dtype.type(_lr(o, t) * of_m) * m / root


def _rmsprop_step(o: Any, param: Array, grad: Array, t: int, v: Array, m: Array | None = None) -> None:
    if o.weight_decay:
        grad = grad + o.weight_decay * param
    v[...] = o.alpha * v + (1 - o.alpha) * grad**2
    grad = grad / (np.sqrt(v) + o.eps)
    if m is not None:
        m[...] = o.momentum * m + grad
        grad = m
    param -= _lr(o, t) * grad


def _adagrad_step(o: Any, param: Array, grad: Array, t: int, v: Array) -> None:
    if o.weight_decay:
        grad = grad + o.weight_decay * param
    v += grad**2
    param -= _lr(o, t) * grad / (np.sqrt(v) + o.eps)


# By the names of the classes in `fastbp.optimizers`, whose objects are the steps' first argument.
STEPS: dict[str, Callable[..., None]] = {
    "SGD": _sgd_step,
    "Adam": _adam_step,
    "AdamW": _adamw_step,
    "NAdam": _nadam_step,
    "RMSprop": _rmsprop_step,
    "Adagrad": _adagrad_step,
}
