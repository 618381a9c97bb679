"""How large an error may be: an oracle that carries the standard error of each value along."""

import numpy as np
from definitions import DEFINITIONS, LOSSES, kind_and_number, loss_terms, smoothed, softmax, targets

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
    difference = a[-1].value - y
    d = Approximate(difference, np.hypot(a[-1].error, u * np.abs(difference)))
    if loss == "binary_crossentropy":
        value = np.maximum(last.value, 0) - y * last.value + np.log1p(np.exp(-np.abs(last.value)))
        value_error = np.abs(difference) * last.error + FEW * u * (1 + np.abs(last.value))
    elif loss.startswith("categorical"):
        shifted = last.value - last.value.max(axis=1, keepdims=True)
        value = y * (np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted)
        spread = np.hypot(last.error, np.sqrt(((a[-1].value * last.error) ** 2).sum(axis=1, keepdims=True)))
        value_error = y * spread + FEW * u * (y * (1 + np.abs(shifted)) + value)
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


def check_step(model, X, Y, optimizer, activations, loss, what="", weight=None):
    """train_step changed parameters and state as the formulas say, starting from what they were.

    The new weights are judged by the new state that the engine itself computed, because g / sqrt(g^2) is
    any number at all where g is 0 up to rounding.
    """
    u = float(np.finfo(model.dtype).eps) / 2
    _, _, gradients, total = expected(model, X, Y, activations, loss, weight)
    state = optimizer.state(model.parameters.owner, model.n_parameters, model.dtype)

    def split(flat):
        weights, biases, _ = model.parameters.split(flat)
        return [np.asarray(p, np.longdouble) for p in (*weights, *biases)]

    old, old_states = split(model.parameters.flat), [split(b) for b in state.buffers]
    weights = {} if weight is None else {"sample_weight": weight}
    actual_loss = model.train_step(X, Y, optimizer, **weights) * len(X)
    total_error = Approximate(total.value, total.error + u * abs(total.value))
    assert_within(
        np.array([actual_loss], model.dtype),
        Approximate([total_error.value], [total_error.error]),
        f"{what} loss",
    )
    new = [*model.weights, *model.biases]
    new_states = [[*w, *b] for w, b, _ in map(model.parameters.split, state.buffers)]
    t, o = state.steps, optimizer
    gradients = clipped(gradients, o, u)
    for i, (W, g) in enumerate(zip(old, gradients, strict=True)):
        before, after = [s[i] for s in old_states], [s[i] for s in new_states]
        now = [s.astype(np.longdouble) for s in after]
        name = f"{what} parameter {i}"
        factor, keep = o.lr, 1.0  # W = keep * W - factor * g (or - the state's part)
        decay = 0.0 if isinstance(o, fastbp.AdamW) else o.weight_decay
        g = Approximate(
            g.value + decay * W + o.l1 * np.sign(W),
            np.hypot(g.error, FEW * u * (np.abs(g.value) + np.abs(decay * W) + o.l1)),
        )
        if isinstance(o, fastbp.Adam):
            (m, v), (b1, b2) = before, o.betas
            squares = Approximate(g.value**2, 2 * np.abs(g.value) * g.error + LIKELY * g.error**2)
            for s, old_s, beta, term in zip(after, (m, v), (b1, b2), (g, squares), strict=True):
                value = beta * old_s + (1 - beta) * term.value
                size = np.abs(beta * old_s) + np.abs((1 - beta) * term.value)
                # 1 - beta itself is rounded to the dtype
                assert_within(
                    s, Approximate(value, np.hypot((1 - beta) * term.error, FEW * u * size)), f"{name} state"
                )
            if isinstance(o, fastbp.AdamW):
                keep = 1 - o.lr * o.weight_decay
            root = np.sqrt(now[1] / (1 - b2**t)) + o.eps
            moved = o.lr * now[0] / (1 - b1**t) / root
            moved = Approximate(moved, 2 * FEW * u * np.abs(moved))
            if isinstance(o, fastbp.NAdam):  # of g and of m, instead of m alone
                mu = b1 * (1 - 0.5 * 0.96 ** (np.arange(1, t + 2) * o.momentum_decay))
                of_g, of_m = o.lr * (1 - mu[-2]) / (1 - mu[:-1].prod()), o.lr * mu[-1] / (1 - mu.prod())
                size = (np.abs(of_g * g.value) + np.abs(of_m * now[0])) / root
                moved = Approximate(
                    (of_g * g.value + of_m * now[0]) / root,
                    np.hypot(of_g * g.error / root, 2 * FEW * u * size),
                )
        elif isinstance(o, fastbp.Adagrad):
            value, error = before[0] + g.value**2, 2 * np.abs(g.value) * g.error + LIKELY * g.error**2
            assert_within(after[0], Approximate(value, np.hypot(error, FEW * u * value)), f"{name} state")
            root = np.sqrt(now[0]) + o.eps
            moved = Approximate(g.value / root, np.hypot(g.error / root, FEW * u * np.abs(g.value / root)))
            moved = Approximate(factor * moved.value, factor * moved.error)
        elif isinstance(o, fastbp.RMSprop):
            value = o.alpha * before[0] + (1 - o.alpha) * g.value**2
            error = (1 - o.alpha) * (2 * np.abs(g.value) * g.error + LIKELY * g.error**2)
            assert_within(after[0], Approximate(value, np.hypot(error, FEW * u * value)), f"{name} state")
            root = np.sqrt(now[0]) + o.eps
            moved = Approximate(g.value / root, np.hypot(g.error / root, FEW * u * np.abs(g.value / root)))
            if o.momentum:
                value = o.momentum * before[1] + moved.value
                assert_within(
                    after[1],
                    Approximate(value, np.hypot(moved.error, FEW * u * np.abs(value))),
                    f"{name} state",
                )
                moved = Approximate(now[1])
            moved = Approximate(factor * moved.value, factor * moved.error)
        else:
            moved = g
            if o.momentum:
                value = o.momentum * before[0] + g.value
                size = np.abs(o.momentum * before[0]) + np.abs(g.value)
                assert_within(
                    after[0], Approximate(value, np.hypot(g.error, FEW * u * size)), f"{name} state"
                )
                moved = Approximate(now[0])
                if o.nesterov:
                    moved = Approximate(
                        g.value + o.momentum * now[0], np.hypot(g.error, FEW * u * np.abs(now[0]))
                    )
            moved = Approximate(factor * moved.value, factor * moved.error)
        # plain SGD adds its products to W one by one, so W takes part in every rounding
        roundings = np.sqrt(len(X) + 1) if np.ndim(W) == 2 and not old_states else FEW
        size = np.abs(W) + np.abs(moved.value)
        result = Approximate(keep * W - moved.value, np.hypot(moved.error, roundings * u * size))
        if np.ndim(W) == 2 and model.architecture.max_norm is not None:
            result = limited(result, model.architecture.max_norm, u)
        assert_within(new[i], result, name)


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


SHAPES = [
    (1, [1, 1]),
    (2, [7, 13]),
    (3, [14, 1, 15]),
    (64, [33, 100, 17]),
    (29, [100, 31, 2]),
    (13, [2, 16, 7, 32, 1]),
    (8, [17, 33, 32, 31]),
    (7, [15] * 9),
    (29, [33] * 12),
]


def make(shape, hidden, output, loss, dtype, seed=0, max_norm=None):
    batch, sizes = shape
    if output == "softmax":
        sizes = [*sizes[:-1], max(2, sizes[-1])]
    rng = rng_of(seed)
    model = fastbp.MLP(
        sizes, hidden=hidden, output=output, loss=loss, dtype=dtype, seed=seed, max_norm=max_norm
    )
    for b in model.biases:
        b[...] = 0.3 * rng.standard_normal(len(b))
    X = rng.standard_normal((batch, sizes[0])).astype(dtype)
    Y = targets(loss, rng.random((batch, sizes[-1])).astype(dtype))
    return model, X, Y, [hidden] * (len(sizes) - 2) + [output]
