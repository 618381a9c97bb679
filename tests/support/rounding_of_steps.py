"""What an optimizer's step makes of parameters and states, and how large the error of each may be.

See rounding.py for what `Approximate` carries along, and for the errors of gradients.
"""

from dataclasses import dataclass

import numpy as np
from rounding import FEW, LIKELY, Approximate, assert_within, expected

import fastbp


@dataclass
class Around:
    """One parameter's states: `before` the step, and `after` it as the engine has them; `t` is the step.

    What a parameter moves by is judged by the new states that the engine itself computed, because
    g / sqrt(g^2) is any number at all where g is 0 up to rounding.
    """

    optimizer: fastbp.optimizers.Optimizer
    u: float
    t: int
    before: list
    after: list
    name: str

    @property
    def now(self):
        return [s.astype(np.longdouble) for s in self.after]

    def assert_state(self, k, value, error):
        assert_within(self.after[k], Approximate(value, error), f"{self.name} state {k}")


def _square(g):
    return Approximate(g.value**2, 2 * np.abs(g.value) * g.error + LIKELY * g.error**2)


def _over_root(at, g):
    """g / (sqrt(v) + eps), v being the first state."""
    quotient = g.value / (np.sqrt(at.now[0]) + at.optimizer.eps)
    root = np.sqrt(at.now[0]) + at.optimizer.eps
    return Approximate(quotient, np.hypot(g.error / root, FEW * at.u * np.abs(quotient)))


def _times(factor, x):
    return Approximate(factor * x.value, factor * x.error)


def _sgd(at, g):
    o, moved = at.optimizer, g
    if o.momentum and o.lr_in_velocity:
        value = o.momentum * at.before[0] - o.lr * g.value
        size = np.abs(o.momentum * at.before[0]) + np.abs(o.lr * g.value)
        at.assert_state(0, value, np.hypot(o.lr * g.error, FEW * at.u * size))
        if not o.nesterov:
            return Approximate(-at.now[0])
        size = np.abs(o.momentum * at.now[0]) + np.abs(o.lr * g.value)
        error = np.hypot(o.lr * g.error, FEW * at.u * size)
        return Approximate(o.lr * g.value - o.momentum * at.now[0], error)
    if o.momentum:
        value = o.momentum * at.before[0] + g.value
        size = np.abs(o.momentum * at.before[0]) + np.abs(g.value)
        at.assert_state(0, value, np.hypot(g.error, FEW * at.u * size))
        moved = Approximate(at.now[0])
        if o.nesterov:
            error = np.hypot(g.error, FEW * at.u * np.abs(at.now[0]))
            moved = Approximate(g.value + o.momentum * at.now[0], error)
    return _times(o.lr, moved)


def _adam_moments(at, g):
    """Judges m and v; returns the denominator of the step."""
    o = at.optimizer
    for k, (beta, term) in enumerate(zip(o.betas, (g, _square(g)), strict=True)):
        old = at.before[k]
        value = beta * old + (1 - beta) * term.value
        size = np.abs(beta * old) + np.abs((1 - beta) * term.value)
        # 1 - beta itself is rounded to the dtype
        at.assert_state(k, value, np.hypot((1 - beta) * term.error, FEW * at.u * size))
    return np.sqrt(at.now[1] / (1 - o.betas[1] ** at.t)) + o.eps


def _adam(at, g):
    root = _adam_moments(at, g)
    moved = at.optimizer.lr * at.now[0] / (1 - at.optimizer.betas[0] ** at.t) / root
    return Approximate(moved, 2 * FEW * at.u * np.abs(moved))


def _nadam(at, g):
    """Of g and of m, instead of m alone."""
    o, root = at.optimizer, _adam_moments(at, g)
    mu = o.betas[0] * (1 - 0.5 * 0.96 ** (np.arange(1, at.t + 2) * o.momentum_decay))
    of_g, of_m = o.lr * (1 - mu[-2]) / (1 - mu[:-1].prod()), o.lr * mu[-1] / (1 - mu.prod())
    size = (np.abs(of_g * g.value) + np.abs(of_m * at.now[0])) / root
    error = np.hypot(of_g * g.error / root, 2 * FEW * at.u * size)
    return Approximate((of_g * g.value + of_m * at.now[0]) / root, error)


def _adagrad(at, g):
    square = _square(g)
    value = at.before[0] + square.value
    at.assert_state(0, value, np.hypot(square.error, FEW * at.u * value))
    return _times(at.optimizer.lr, _over_root(at, g))


def _rmsprop(at, g):
    o, square = at.optimizer, _square(g)
    value = o.alpha * at.before[0] + (1 - o.alpha) * square.value
    at.assert_state(0, value, np.hypot((1 - o.alpha) * square.error, FEW * at.u * value))
    moved = _over_root(at, g)
    if o.momentum:
        value = o.momentum * at.before[1] + moved.value
        at.assert_state(1, value, np.hypot(moved.error, FEW * at.u * np.abs(value)))
        moved = Approximate(at.now[1])
    return _times(o.lr, moved)


# Judges the states of one parameter after a step, and returns what the parameter moves by.
MOVES = {
    "SGD": _sgd,
    "Adam": _adam,
    "AdamW": _adam,
    "NAdam": _nadam,
    "Adagrad": _adagrad,
    "RMSprop": _rmsprop,
}


def check_step(model, X, Y, optimizer, activations, loss, what="", weight=None):
    """train_step changed parameters and state as the formulas say, starting from what they were."""
    u = float(np.finfo(model.dtype).eps) / 2
    _, _, gradients, total = expected(model, X, Y, activations, loss, weight)
    state = optimizer.state(model.parameters.owner, model.n_parameters, model.dtype)

    def split(flat):
        weights, biases, _ = model.parameters.split(flat)
        return [*weights, *biases]

    old, *before = (
        [p.astype(np.longdouble) for p in split(b)] for b in (model.parameters.flat, *state.buffers)
    )
    weights = {} if weight is None else {"sample_weight": weight}
    actual_loss = model.train_step(X, Y, optimizer, **weights) * len(X)
    loss_error = total.error + u * abs(total.value)
    assert_within(
        np.array([actual_loss], model.dtype), Approximate([total.value], [loss_error]), f"{what} loss"
    )
    new, *after = (split(b) for b in (model.parameters.flat, *state.buffers))
    for i, (W, g) in enumerate(zip(old, clipped(gradients, optimizer, u), strict=True)):
        name = f"{what} parameter {i}"
        at = Around(optimizer, u, state.steps, [s[i] for s in before], [s[i] for s in after], name)
        assert_within(new[i], _stepped(at, W, g, len(X), model.architecture.max_norm), name)


def _stepped(at, W, g, rows, max_norm):
    """One parameter after the step: keep * W less what it moves by, cut to max_norm."""
    o, apart = at.optimizer, isinstance(at.optimizer, fastbp.AdamW)  # whose decay is not part of the gradient
    decay, keep = (0.0, 1 - o.lr * o.weight_decay) if apart else (o.weight_decay, 1.0)
    size = np.abs(g.value) + np.abs(decay * W) + o.l1
    g = Approximate(g.value + decay * W + o.l1 * np.sign(W), np.hypot(g.error, FEW * at.u * size))
    moved = MOVES[type(o).__name__](at, g)
    # plain SGD adds its products to W one by one, so W takes part in every rounding
    roundings = np.sqrt(rows + 1) if np.ndim(W) == 2 and not at.before else FEW
    size = np.abs(W) + np.abs(moved.value)
    result = Approximate(keep * W - moved.value, np.hypot(moved.error, roundings * at.u * size))
    return result if np.ndim(W) < 2 or max_norm is None else limited(result, max_norm, at.u)


def scaled(x, factor, error):
    """x * factor, where the factor has that relative error."""
    return Approximate(x.value * factor, np.hypot(x.error * factor, np.abs(x.value) * factor * error))


def relative_error_of_norm(x, axis=None):
    """Of the root of a sum of squares, whose terms may all be off in the same direction."""
    return (np.abs(x.value) * x.error).sum(axis=axis) / np.maximum((x.value**2).sum(axis=axis), 1e-300)


def clipped(gradients, o, u):
    """Clipped by norm, then by value."""
    if o.clip_norm is not None:
        value, error = (
            np.concatenate([getattr(g, k).ravel() for g in gradients]) for k in ("value", "error")
        )
        factor = min(1, o.clip_norm / (np.sqrt((value**2).sum()) + 1e-6))
        error = FEW * u + relative_error_of_norm(Approximate(value, error))
        gradients = [scaled(g, factor, error) for g in gradients]
    if o.clip_value is not None:
        bound = o.clip_value
        gradients = [
            Approximate(np.clip(g.value, -bound, bound), np.hypot(g.error, u * bound)) for g in gradients
        ]
    return gradients


def limited(W, max_norm, u):
    """Columns longer than max_norm cut to that."""
    norms = np.sqrt((W.value**2).sum(axis=0))
    factor = np.where(norms > max_norm, max_norm / (norms + 1e-7), 1)
    return scaled(W, factor, FEW * u + relative_error_of_norm(W, axis=0))
