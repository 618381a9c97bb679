"""How large an error may be: an oracle that carries the standard error of each value along."""

import numpy as np
from definitions import (
    DEFINITIONS,
    LOSSES,
    kind_and_number,
    loss_terms,
    outputs_for,
    smoothed,
    softmax,
    targets,
)
from numba import config
from pairs import softplus_variance

import fastbp

rng_of = np.random.default_rng

#
# How large may an error be? A sum of K products of floats, each multiply-add rounded once: every rounding
# is off by at most u (2^-24 or 2^-53) times the partial sum, which is at most S = sum |a||b|. Roundings are
# as good as independent, so they add up like a random walk, to about u sqrt(K) S, and hardly ever beyond 6
# times that (Higham and Mary, A new approach to probabilistic rounding error analysis, SIAM J. Sci. Comput.
# 41 (2019) A2815). Errors of what goes in pass through the sum as variances do: A B has E_A^2 B^2 + A^2
# E_B^2. `Approximate` carries such a standard error along with every exact value; in a deep network it
# grows from layer to layer as the real error does.

LIKELY = 6
# An elementary function is right to some units in the last place (see the tests of ulp below), and so is an
# elementwise formula of a few operations.
FEW = 4


class Approximate:
    """An array and the standard error that a computation in a dtype with unit roundoff u may have made."""

    def __init__(self, value, error=0.0):
        self.value = np.asarray(value)
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    @property
    def T(self):
        return Approximate(self.value.T, self.error.T)


def product(A, B, u, start=0.0):
    """start + A @ B, each an Approximate."""
    a, b = np.abs(A.value).astype(float), np.abs(B.value).astype(float)
    rounding = u * np.sqrt(a.shape[1] + 1) * (np.abs(start) + a @ b)
    return Approximate(
        start + A.value @ B.value, np.sqrt(rounding**2 + (A.error**2) @ b**2 + a**2 @ (B.error**2))
    )


def column_sum(D, u):
    rounding = u * np.sqrt(len(D.value)) * np.abs(D.value).sum(axis=0)
    return Approximate(D.value.sum(axis=0), np.sqrt(rounding**2 + (D.error**2).sum(axis=0)))


def undecided(z):
    """Where rounding decides on which side of a kink at 0 z is."""
    return np.abs(z.value) <= LIKELY * z.error


def activated(name, z, u):
    if name == "identity":
        return z
    if name == "softmax":
        # da[j] = a[j] (dz[j] - sum of a dz), and exp's argument, z less the largest, is rounded
        a, size = softmax(z.value), 1 + np.abs(z.value - z.value.max(axis=1, keepdims=True))
        spread = np.hypot(z.error, np.sqrt(((a * z.error) ** 2).sum(axis=1, keepdims=True)))
        return Approximate(a, a * np.hypot(spread, FEW * u * (size + (a * size).sum(axis=1, keepdims=True))))
    definition = DEFINITIONS[name]
    value, slope = definition.value(z.value), np.abs(definition.slope(z.value))
    slope = np.maximum(slope, definition.jump * undecided(z))
    roundings = definition.roundings(z.value) if callable(definition.roundings) else definition.roundings
    return Approximate(value, np.hypot(slope * z.error, roundings * u * np.abs(value)))


def through(name, d, z, a, u):
    """d * act'(z)."""
    if name == "identity":
        return d
    if name == "softmax":
        dot = (d.value * a.value).sum(axis=1, keepdims=True)
        terms = (d.value * a.error) ** 2 + (d.error * a.value) ** 2 + (FEW * u * d.value * a.value) ** 2
        difference = d.value - dot
        error = np.hypot(d.error, np.sqrt(terms.sum(axis=1, keepdims=True)))
        error = np.hypot(error, FEW * u * (np.abs(d.value) + np.abs(dot)))
        return Approximate(a.value * difference, np.hypot(a.value * error, difference * a.error))
    definition, value = DEFINITIONS[name], a.value
    slope, bend = definition.slope(z.value), definition.bend(z.value)
    size = definition.of_slope(value) if callable(definition.of_slope) else definition.of_slope
    slope_error = np.hypot(bend * z.error, FEW * u * size)
    result = d.value * slope
    jump = definition.jump * undecided(z)
    terms = (np.maximum(np.abs(slope), jump) * d.error) ** 2 + (d.value * np.hypot(slope_error, jump)) ** 2
    return Approximate(result, np.sqrt(terms + (FEW * u * result) ** 2))


def _slopes_of_pairs(a, y, u):
    """The derivatives of gaussian_nll with respect to means and spreads, a: in turn both."""
    m, s = a.value[:, ::2], a.value[:, 1::2]
    of_mean, of_spread = a.error[:, ::2], a.error[:, 1::2]
    v, share = softplus_variance(s), 1 / (1 + np.exp(-s))
    e = m - y[:, ::2]
    w = e / v
    value, error = np.empty_like(a.value), np.empty_like(a.value)
    value[:, ::2], value[:, 1::2] = w, (1 / v - w**2) / 2 * share
    rounding = FEW * u * (np.abs(w) + np.abs(m) / v)
    error[:, ::2] = np.hypot(np.hypot(of_mean / v, w / v * share * of_spread), rounding)
    bend = (1 / v**2 / 2 + w**2 / v) * share**2 + (1 / v + w**2) / 2 * share
    terms = np.hypot(np.abs(w) / v * share * of_mean, bend * of_spread)
    error[:, 1::2] = np.hypot(terms, FEW * u * share * (1 / v + w**2 + np.abs(w * m) / v))
    return Approximate(value, error)


def expected(model, X, Y, activations, loss, weight=None):
    """z, a and gradients (W1, ..., b1, ...) of the mean loss, and the loss's sum, each an Approximate.

    weight: (rows,), or None where no sample is weighted.
    """
    u = float(np.finfo(model.dtype).eps) / 2
    exact = np.float64 if model.dtype == np.float32 else np.longdouble
    weights = [Approximate(W.astype(exact)) for W in model.weights]
    z, a = [], [Approximate(X.astype(exact))]
    for W, b, name in zip(weights, model.biases, activations, strict=True):
        z.append(product(a[-1], W, u, b.astype(exact)))
        a.append(activated(name, z[-1], u))
    y, last = smoothed(loss, Y.astype(exact)), z[-1]
    if loss == "gaussian_nll":
        y = np.repeat(y, 2, axis=1)
    difference = a[-1].value - y
    d = Approximate(difference, np.hypot(a[-1].error, u * np.abs(difference)))
    if loss == "binary_crossentropy":
        value = np.maximum(last.value, 0) - y * last.value + np.log1p(np.exp(-np.abs(last.value)))
        value_error = np.abs(difference) * last.error + FEW * u * (1 + np.abs(last.value))
    elif loss == "poisson":
        value = loss_terms(loss, a[-1].value, y)[0]
        log_y = np.log(np.where(y > 0, y, 1))
        sizes = a[-1].value + y * (1 + np.abs(log_y) + np.abs(last.value))
        value_error = np.abs(difference) * last.error + FEW * u * sizes
    elif loss.startswith("categorical"):
        shifted = last.value - last.value.max(axis=1, keepdims=True)
        value = y * (np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted)
        spread = np.hypot(last.error, np.sqrt(((a[-1].value * last.error) ** 2).sum(axis=1, keepdims=True)))
        value_error = y * spread + FEW * u * (y * (1 + np.abs(shifted)) + value)
    elif loss == "gaussian_nll":
        value, d = loss_terms(loss, a[-1].value, y)[0], _slopes_of_pairs(a[-1], y, u)
        slopes = np.abs(d.value) * a[-1].error
        value_error = np.zeros_like(value)
        e2 = (difference**2)[:, ::2] / softplus_variance(a[-1].value[:, 1::2])
        sizes = 1 + np.abs(value[:, ::2]) + e2
        value_error[:, ::2] = np.hypot(np.hypot(slopes[:, ::2], slopes[:, 1::2]), FEW * u * sizes)
    else:
        value, slope = loss_terms(loss, a[-1].value, y)
        definition = LOSSES[kind_and_number(loss)[0]]
        error = d.error if definition.smooth else 0
        if definition.jump:  # where rounding decides on the side
            rounding = np.hypot(a[-1].error, FEW * u * np.abs(a[-1].value))
            error = definition.jump * (np.abs(definition.kink(a[-1].value, y)) <= LIKELY * rounding)
        value_error = (np.abs(slope) + error) * np.hypot(d.error, FEW * u) + FEW * u * value
        d = through(activations[-1], Approximate(slope, error), last, a[-1], u)
    if weight is not None:
        weight = weight.astype(exact)[:, None]
        value, value_error = value * weight, weight * np.hypot(value_error, FEW * u * value)
        d = Approximate(d.value * weight, d.error * weight)
    total = Approximate(value.sum(), value_error.sum())
    d = Approximate(d.value / len(X), np.hypot(d.error, FEW * u * np.abs(d.value)) / len(X))
    dW, db = [], []
    for i in range(len(z) - 1, -1, -1):
        dW.insert(0, product(a[i].T, d, u))
        db.insert(0, column_sum(d, u))
        if i:
            d = through(activations[i - 1], product(d, weights[i].T, u), z[i - 1], a[i], u)
    return z, a[1:], [*dW, *db], total


def assert_within(actual, approximate, what=""):
    error = np.abs(np.asarray(actual) - approximate.value).astype(float)
    allowed = LIKELY * approximate.error + 8 * float(np.finfo(np.asarray(actual).dtype).smallest_normal)
    assert np.isfinite(actual).all(), what
    worst = np.unravel_index(np.argmax(error - allowed), np.shape(error))
    assert (error <= allowed).all(), (
        f"{what}{list(map(int, worst))}: off by {error[worst]:.3g}, allowed {allowed[worst]:.3g}"
    )


SHAPES = [
    (1, [1, 1]),
    (2, [7, 13]),
    (3, [14, 1, 15]),
    (64, [33, 100, 17]),
    (29, [100, 31, 2]),
    (13, [2, 16, 7, 32, 1]),
    (8, [17, 33, 32, 31]),
    (7, [15] * 9),
    # As Python, it takes as long as all others.
    *([] if config.DISABLE_JIT else [(29, [33] * 12)]),
]


def make(shape, hidden, output, loss, dtype, seed=0, max_norm=None):
    batch, sizes = shape
    sizes = [*sizes[:-1], outputs_for(loss, max(2, sizes[-1]) if output == "softmax" else sizes[-1])]
    rng = rng_of(seed)
    model = fastbp.MLP(
        sizes, hidden=hidden, output=output, loss=loss, dtype=dtype, seed=seed, max_norm=max_norm
    )
    for b in model.biases:
        b[...] = 0.3 * rng.standard_normal(len(b))
    X = rng.standard_normal((batch, sizes[0])).astype(dtype)
    Y = targets(loss, rng.random((batch, sizes[-1])).astype(dtype))
    return model, X, Y, [hidden] * (len(sizes) - 2) + [output]
