"""The engine: same bits for any number of threads, right to rounding, functions in ulp, no stray writes."""

import ctypes
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from definitions import DEFINITIONS, loss_terms, normal_cdf, smoothed, softmax, targets
from engine_bits import ACTIVATIONS, OPTIMIZERS, OUTPUTS

import fastbp
from fastbp.engine import plan
from fastbp.engine.entries import two_layer
from fastbp.engine.kernels import blocks
from fastbp.engine.simd.vector import isa

BITS = pathlib.Path(__file__).parents[1] / "support" / "engine_bits.py"
rng_of = np.random.default_rng


def run_bits(every, **environment):
    """{way of working: (digest, size of the team)} of engine_bits.py in a new process."""
    result = subprocess.run(
        [sys.executable, "-W", "error", BITS, str(every)],
        env={**os.environ, "NUMBA_NUM_THREADS": "4", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return {name: (digest, int(team)) for name, digest, team in map(str.split, result.stdout.splitlines())}


def assert_same_bits(results):
    assert len({digest for digest, _ in results.values()}) == 1, results
    for name, (_, team) in results.items():
        assert not name.startswith("threads") or name == f"threads-{team}"  # there were so many


# ---- the same bits ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="there is one thread only")
def test_same_bits_for_any_number_of_threads():
    """1, 2, 3, 4 threads (on two cores, too), a team of one, and the same again. Every fifth case: each
    hidden and each output, each optimizer and both dtypes occur; test_engine_environment has all."""
    assert_same_bits(run_bits(every=5))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("sizes", [(33, 209, 31, 3), (47, 130, 17)])
def test_how_large_matrices_are_cut_changes_no_bit(monkeypatch, sizes, optimizer, dtype):
    """Blocks for the caches, slivers, prefetching tiles: all of them on matrices small enough for a test."""
    rng = rng_of(5)
    X, Y = rng.standard_normal((131, sizes[0])).astype(dtype), rng.random((131, sizes[-1])).astype(dtype)

    def trained():
        model = fastbp.MLP(sizes, dtype=dtype, seed=1)
        make = {"SGD": fastbp.SGD, "Adam": fastbp.Adam}[optimizer]
        model.fit(X, Y, epochs=3, batch_size=61, optimizer=make(0.01), shuffle=False)
        return model._parameters.tobytes(), model.predict(X).tobytes()

    whole = trained()
    monkeypatch.setattr(plan, "sliver_rows", lambda: plan.SLIVER_ROWS)  # on every CPU
    for block, depth in ((768 * 1024, 7), (4096, 512), (2048, 20)):
        monkeypatch.setattr(plan, "BLOCK", block)
        monkeypatch.setattr(plan, "DEPTH", depth)
        monkeypatch.setattr(plan, "PREFETCH_FROM_MULTIPLY_ADDS", 0)
        assert trained() == whole


def test_copies_of_crowded_rows_change_no_bit(monkeypatch, dtype):
    """Rows of 4096 bytes, which single steps and forward passes copy first, and a smaller last batch."""
    rng = rng_of(6)
    sizes = [4096 // dtype.itemsize, 8 * isa().bytes // dtype.itemsize, 3]
    X, Y = rng.standard_normal((517, sizes[0])).astype(dtype), rng.random((517, 3)).astype(dtype)

    def computed():
        two_layer._prepared = two_layer._PerThread()
        model = fastbp.MLP(sizes, dtype=dtype, seed=1)
        (W1, W2), (b1, b2) = model.weights, model.biases
        trace = model.forward(X)
        z1, a1, z2, y_pred = fastbp.forward(X, W1, b1, W2, b2)
        passes = [model.predict(X), *trace.z, *model.backward(trace, Y).weights, z1, a1, z2, y_pred]
        passes += fastbp.backward(X, Y, z1, a1, y_pred, W2)
        for _ in range(2):
            fastbp.train_step(X, Y, W1, b1, W2, b2, 1e-3)
        return [array.tobytes() for array in (*passes, model._parameters)]

    copies = []
    make_room = plan.Plan._make_room_for_gathering
    monkeypatch.setattr(
        plan.Plan, "_make_room_for_gathering", lambda *a, **k: (copies.append(a), make_room(*a, **k))
    )
    copied = computed()
    assert len(copies) == 4  # predict, model.forward, forward, train_step
    monkeypatch.setattr(plan, "CROWDED_ROWS", 1000)
    assert computed() == copied
    assert len(copies) == 4


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_has_the_bits_of_single_steps(optimizer, shuffle, dtype):
    """An epoch inside compiled code is train_step, batch after batch; the last one is smaller."""
    rng = rng_of(1)
    X, Y = rng.standard_normal((43, 33)).astype(dtype), rng.random((43, 17)).astype(dtype)
    fitted, stepped = (fastbp.MLP([33, 16, 31, 17], hidden="tanh", dtype=dtype, seed=2) for _ in range(2))
    orders = []
    train_chunk = fitted._train_chunk

    def spy(X, Y, order, first, last, *rest, **options):
        if last > first:
            orders.append(np.arange(43) if order is None else order.copy())
        return train_chunk(X, Y, order, first, last, *rest, **options)

    fitted._train_chunk = spy
    fitted.fit(
        X,
        Y,
        epochs=3,
        batch_size=13,
        optimizer=OPTIMIZERS[optimizer](),
        shuffle=shuffle,
        callbacks=lambda *_: None,
    )
    of_steps = OPTIMIZERS[optimizer]()
    assert len(orders) == 3
    for order in orders:
        for start in range(0, 43, 13):
            rows = order[start : start + 13]
            stepped.train_step(X[rows], Y[rows], of_steps)
    assert fitted._parameters.tobytes() == stepped._parameters.tobytes()


# ---- right, to rounding -------------------------------------------------------------------------------
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
    # relu and leaky_relu take z as it is; gelu_tanh's sigmoid has the rounding error of its argument
    roundings = {"relu": 0, "leaky_relu": 1, "gelu_tanh": FEW * (1 + np.abs(z.value) ** 3)}.get(name, FEW)
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
    # 1 - a² and a (1 - a) are computed from a; others are sums of terms of about 1
    size = {"relu": 0, "leaky_relu": 0, "tanh": 2 * value**2, "sigmoid": value, "selu": 2}.get(name, 1)
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
        # mse and huber are smooth; mae and hinge jump by 2 and by 1 where rounding decides on the side
        error = d.error if loss == "mse" or loss.startswith("huber") else 0
        if loss == "mae":
            error = 2 * (np.abs(difference) <= LIKELY * d.error)
        if loss == "hinge":
            rounding = np.hypot(a[-1].error, FEW * u * np.abs(a[-1].value))
            error = 1 * (np.abs(1 - y * a[-1].value) <= LIKELY * rounding)
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
    state = optimizer.state(model, model.n_parameters, model.dtype)

    def split(flat):
        weights, biases, _ = model._split(flat)
        return [np.asarray(p, np.longdouble) for p in (*weights, *biases)]

    old, old_states = split(model._parameters), [split(b) for b in state.buffers]
    weights = {} if weight is None else {"sample_weight": weight}
    actual_loss = model.train_step(X, Y, optimizer, **weights) * len(X)
    total_error = Approximate(total.value, total.error + u * abs(total.value))
    assert_within(
        np.array([actual_loss], model.dtype),
        Approximate([total_error.value], [total_error.error]),
        f"{what} loss",
    )
    new = [*model.weights, *model.biases]
    new_states = [[*w, *b] for w, b, _ in map(model._split, state.buffers)]
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
            moved = o.lr * now[0] / (1 - b1**t) / (np.sqrt(now[1] / (1 - b2**t)) + o.eps)
            moved = Approximate(moved, 2 * FEW * u * np.abs(moved))
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
        if np.ndim(W) == 2 and model._max_norm is not None:
            result = limited(result, model._max_norm, u)
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


# Every hidden activation with every output. Kernels are compiled for one or the other: in those that are not
# marked, each of either occurs.
COMBINATIONS = [
    pytest.param(hidden, output, loss, marks=() if j % len(ACTIVATIONS) == i else pytest.mark.combination)
    for i, hidden in enumerate(ACTIVATIONS)
    for j, (output, loss) in enumerate(OUTPUTS)
]


@pytest.mark.parametrize(("hidden", "output", "loss"), COMBINATIONS)
def test_forward_and_gradients_are_right_to_rounding(hidden, output, loss, dtype):
    for shape in SHAPES:
        model, X, Y, activations = make(shape, hidden, output, loss, dtype)
        z, a, gradients, _ = expected(model, X, Y, activations, loss)
        trace = model.forward(X)
        ours = model.backward(trace, Y)
        for name, actual, approximate in (
            ("z", trace.z, z),
            ("a", trace.a, a),
            ("gradient", [*ours.weights, *ours.biases], gradients),
        ):
            for i, (x, y) in enumerate(zip(actual, approximate, strict=True)):
                assert_within(x, y, f"{shape} {name}[{i}]")
        assert_within(model.predict(X), a[-1], f"{shape} predict")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_right_to_rounding(optimizer, dtype):
    kinds = [(hidden, *output) for hidden in ACTIVATIONS for output in OUTPUTS]
    for i, shape in enumerate(SHAPES):
        hidden, output, loss = kinds[(7 * i + 3 * list(OPTIMIZERS).index(optimizer)) % len(kinds)]
        model, X, Y, activations = make(shape, hidden, output, loss, dtype, max_norm=(None, 0.8)[i % 2])
        o = OPTIMIZERS[optimizer]()
        for step in range(4):
            check_step(model, X, Y, o, activations, loss, f"{shape} {hidden} {output} {loss} step {step}:")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("batch", "sizes"), [(5, [3, 128, 2]), (29, [9, 256, 10]), (64, [20, 128, 12]), (40, [5, 12, 512, 1])]
)
def test_dot_products_in_parts_are_right_to_rounding(batch, sizes, optimizer, dtype):
    """A last layer of few outputs and many inputs; for what several threads do there see engine_bits."""
    assert plan.parts_of(sizes[-2] * dtype.itemsize // isa().bytes) > 1
    for output, loss in (("sigmoid", "mse"), ("softmax", "categorical_crossentropy")):
        model, X, Y, activations = make((batch, sizes), "relu", output, loss, dtype)
        o = OPTIMIZERS[optimizer]()
        for step in range(3):
            check_step(model, X, Y, o, activations, loss, f"{output} step {step}:")


@pytest.mark.parametrize(
    ("output", "loss"), [*OUTPUTS, ("softmax", "categorical_crossentropy(0.1)")], ids="-".join
)
def test_weighted_samples_are_right_to_rounding(output, loss, dtype):
    """As above, the error and loss of every sample times a weight."""
    for shape in SHAPES:
        model, X, Y, activations = make(shape, "tanh", output, loss, dtype)
        weight = rng_of(3).choice([0, 0.5, 1, 3], len(X)).astype(dtype)
        _, _, gradients, _ = expected(model, X, Y, activations, loss, weight)
        ours = model.backward(model.forward(X), Y, sample_weight=weight)
        for i, (x, y) in enumerate(zip([*ours.weights, *ours.biases], gradients, strict=True)):
            assert_within(x, y, f"{shape} gradient[{i}]")
        check_step(model, X, Y, fastbp.SGD(0.1), activations, loss, f"{shape}:", weight)


@pytest.mark.parametrize("outputs", [2, 3, 10, 12, 13, 17, 33, 100])
def test_softmax_is_right_to_rounding(outputs, dtype):
    """Every number of rows up to 33, in training, prediction and one by one."""
    rng = rng_of(outputs)
    for batch in range(1, 34):
        loss = ["categorical_crossentropy", "categorical_crossentropy(0.1)"][batch % 2]
        model, X, _, activations = make((batch, [5, 9, outputs]), "tanh", "softmax", loss, dtype, batch)
        one_hot = np.eye(outputs, dtype=dtype)[rng.integers(0, outputs, batch)]
        predicted = model.predict(X)
        _, a, _, _ = expected(model, X, one_hot, activations, loss)
        assert_within(predicted, a[-1], f"{batch} predict")
        np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(model.predict(X[-1:])[0], predicted[-1])
        check_step(model, X, one_hot, fastbp.SGD(0.5), activations, loss, f"{batch}:")


@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_what_fills_up_vectors_stays_out(hidden, dtype):
    """Whole epochs, where parameters stay packed: act(0) beyond a layer's width has no part in anything."""
    X = rng_of(0).standard_normal((26, 5))
    for sizes in ([5, 9, 7, 3], [5, 9, 7, 17], [5, 3]):
        Y = rng_of(1).random((26, sizes[-1]))
        trained = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP(sizes, hidden=hidden, output="tanh", dtype=dtype, seed=1)
            model.fit(X, Y, epochs=5, batch_size=4, optimizer=fastbp.SGD(0.01), shuffle=False)
            trained.append(model._parameters)
        np.testing.assert_allclose(*trained, rtol=0, atol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_wrong_result_is_rejected(shape, dtype):
    """A test of the tests: a sum without one of its terms is noticed, in the first and in the last layer, and
    so is a number with only half of its digits."""
    model, X, Y, activations = make(shape, "tanh", "identity", "mse", dtype)
    z, _, gradients, _ = expected(model, X, Y, activations, "mse")
    u = float(np.finfo(dtype).eps)
    layers = len(z)
    for approximate, left, right in (
        (gradients[0], X[0, 0], gradients[layers].value[0] / len(X)),
        (z[0], X[0, -1], model.weights[0][-1, 0]),
        (z[-1], np.tanh(z[-2].value)[0, -1], model.weights[-1][-1, 0]),
    ):
        good = approximate.value.astype(dtype)
        assert_within(good, approximate)
        wrong = good.copy()
        wrong[0, 0] -= left * right
        with pytest.raises(AssertionError, match="off by"):
            assert_within(wrong, approximate)
        wrong = good.copy()
        wrong.flat[np.argmax(np.abs(wrong))] *= 1 + np.sqrt(u)
        with pytest.raises(AssertionError, match="off by"):
            assert_within(wrong, approximate)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_wrong_step_is_rejected(optimizer, dtype, monkeypatch):
    """The same for the formulas: with another learning rate, or other data, nothing fits."""
    model, X, Y, activations = make(SHAPES[3], "tanh", "sigmoid", "mse", dtype)
    o = OPTIMIZERS[optimizer]()
    o.state(model, model.n_parameters, model.dtype)
    train_step = model.train_step

    def wrong_rate(X, Y, o):
        o.lr *= 1.01
        try:
            return train_step(X, Y, o)
        finally:
            o.lr /= 1.01

    monkeypatch.setattr(model, "train_step", wrong_rate)
    with pytest.raises(AssertionError, match="off by"):
        check_step(model, X, Y, o, activations, "mse")
    monkeypatch.setattr(model, "train_step", lambda X, Y, o: train_step(np.roll(X, 1, axis=0), Y, o))
    with pytest.raises(AssertionError, match="off by"):
        check_step(model, X, Y, o, activations, "mse")


# ---- elementary functions, in units of the last place ----------------------------------------------------


def function(name, dtype):
    """The vectors' method of that name, for arrays of a multiple of 16 numbers."""

    def emit(b, args):
        source, target, vectors = args
        ops = blocks.Vectors(b, dtype)

        def visit(_, j):
            at = b.mul(j, blocks.I64(ops.lanes * ops.itemsize))
            result = getattr(ops, name)(ops.load(b.add(source, at)))
            ops.store(result[0] if isinstance(result, tuple) else result, b.add(target, at))

        blocks._rows_and_vectors(b, blocks.I64(1), vectors, visit)

    call = callback(blocks.compile_block(f"test-{name}", dtype, 3, emit), 3)

    def compute(x):
        y = np.empty_like(x)
        call(x.ctypes.data, y.ctypes.data, x.nbytes // isa().bytes)
        return y

    return compute


def callback(address, count):
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)


def numbers(dtype):
    """Numbers of all sizes and both signs, subnormal ones, infinity, NaN; dense where functions bend."""
    dtype = np.dtype(dtype)
    rng = rng_of(5)
    if dtype == np.float32:
        every = np.arange(0, 2**32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    else:
        every = rng.integers(0, 2**64, 200_000, dtype=np.uint64).view(np.float64)
    dense = rng.uniform(-1, 1, 200_000) * rng.choice([1e-3, 0.3, 1, 20, 100, 760], 200_000)
    tiny, top = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = [
        -103.98,
        -103.9,
        -88.72284,
        -88.72283,
        -87.34,
        -87.33,
        -87.3,
        88.72283,
        88.72284,
        0.125,
        0.25,
        -0.25,
        0.5,
    ]
    edges += [
        -745.2,
        -708.4,
        -708.39,
        709.7827,
        709.7828,
        1e4,
        -1e4,
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        tiny,
        -tiny,
        top,
        -top,
    ]
    around = np.array([(1 + k * np.finfo(dtype).eps) * e for e in edges[:17] for k in range(-4, 5)])
    x = np.concatenate([every, dense.astype(dtype), np.array(edges, dtype), around.astype(dtype)])
    return np.resize(x, -(-len(x) // 16) * 16)


def ulps(actual, exact, dtype):
    """How many units in the last place lie between them: the spacing of the dtype at the exact value."""
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.maximum(np.abs(exact), info.smallest_normal))
        spacing = np.ldexp(np.longdouble(1), exponent - info.nmant - 1)
        return (np.abs(actual - exact) / spacing).astype(float)


# On vectors without fused multiply-add, exp's range reduction and Horner's rule round twice.
EXTRA = 0.0 if isa().fma else 0.5


def check_function(name, exact, dtype, limit, x=None):
    x = numbers(dtype) if x is None else x
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.float64 if np.dtype(dtype) == np.float32 else np.longdouble))
        rounded = want.astype(dtype)
    got = function(name, dtype)(x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    infinite = np.isinf(got)
    assert np.array_equal(got[infinite], rounded[infinite])
    finite = np.isfinite(got)
    assert np.array_equal(np.isfinite(rounded), finite)
    off = ulps(got[finite], want[finite], dtype)
    worst = int(np.argmax(off))
    assert off[worst] <= limit + EXTRA, f"{name}({x[finite][worst]!r}) is off by {off[worst]:.2f} ulp"
    return x, got


def test_exp(dtype):
    low, high = map(dtype.type, (-87.3, 88.72283) if dtype == np.float32 else (-708.39, 709.7827))

    def exact(x):
        return np.where(x < low, 0, np.where(x > high, np.inf, np.exp(x)))

    x, y = check_function("exp", exact, dtype, 1.0)
    assert (y[x == 0] == 1).all()
    # the range is all of the normal numbers, but for the very last ones
    info = np.finfo(dtype)
    assert info.smallest_normal < np.exp(np.longdouble(low)) < 1.05 * info.smallest_normal
    assert 0.9999 * info.max < np.exp(np.longdouble(high)) < info.max


def test_sigmoid(dtype):
    low = dtype.type(-87.33 if dtype == np.float32 else -708.39)
    x, y = check_function("sigmoid", lambda x: np.where(x < low, 0, 1 / (1 + np.exp(-x))), dtype, 2.5)
    # the range is all of the normal numbers
    smallest = np.finfo(dtype).smallest_normal
    assert smallest < np.exp(np.longdouble(low)) < 1.01 * smallest
    assert (y[x >= 100] == 1).all()
    assert ((y >= 0) & (y <= 1) | np.isnan(x)).all()


def test_tanh(dtype):
    x, y = check_function("tanh", np.tanh, dtype, 3.0)
    assert np.array_equal(np.signbit(y[x == 0]), np.signbit(x[x == 0]))
    assert (y[np.abs(x) > 30] == np.sign(x[np.abs(x) > 30])).all()
    assert np.array_equal(function("tanh", dtype.name)(-x), -y, equal_nan=True)


def test_log1p_of_unit(dtype):
    x = np.abs(numbers(dtype))
    x = x[x <= 1]
    x = x[: len(x) // 16 * 16].copy()
    check_function("log1p_of_unit", np.log1p, dtype, 3.0, x)


def test_log_from_one(dtype):
    x = np.abs(numbers(dtype))
    x = np.concatenate([x[x >= 1], x[np.isnan(x)], 1 + np.arange(2000, dtype=dtype) * np.finfo(dtype).eps])
    x = x[: len(x) // 16 * 16].copy()
    check_function("log_from_one", np.log, dtype, 3.0, x)


def test_expm1(dtype):
    high = dtype.type(88.72283 if dtype == np.float32 else 709.7827)
    x, y = check_function("expm1", lambda x: np.where(x > high, np.inf, np.expm1(x)), dtype, 3.0)
    assert np.array_equal(np.signbit(y[x == 0]), np.signbit(x[x == 0]))


def test_normal(dtype):
    """P(Z <= x) = 1/2 erfc(-x / sqrt(2)), small in the left tail and yet right to a few ulp."""
    x = numbers(dtype)
    got = function("normal", dtype)(x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    x, got = x[~np.isnan(x)], got[~np.isnan(x)]
    exact = normal_cdf(np.clip(x, -50, 50).astype(np.longdouble))
    subnormal = exact < 8 * np.finfo(dtype).smallest_normal
    assert (got[subnormal] <= 8 * np.finfo(dtype).smallest_normal).all()
    assert (got >= 0).all()
    off = ulps(got, exact, dtype)
    off[subnormal] = 0
    worst = int(np.argmax(off))
    # without fused multiply-add, exp(-x² / 2) has the rounding error of x²
    limit = 8 if isa().fma else 8 + np.square(x[worst])
    assert off[worst] <= limit, f"normal({x[worst]!r}) is off by {off[worst]:.2f} ulp"
    assert np.abs(got - exact).max() <= 2 * np.finfo(dtype).eps


def test_ulps_notice_an_error(dtype):
    x = numbers(dtype)
    x = x[np.abs(x) < 50]
    exact = np.exp(x.astype(np.longdouble))
    good = exact.astype(dtype)
    assert ulps(good, exact, dtype).max() <= 0.5
    assert ulps(np.nextafter(np.nextafter(good, dtype.type(0)), dtype.type(0)), exact, dtype).min() >= 0.75


# ---- copies write where they should, and nowhere else ----------------------------------------------------

GUARD = 0x5A


def guarded(size, offset=0):
    """Bytes of a known value, and the address of a piece in the middle with `size` of them."""
    memory = np.full(size + 1024, GUARD, np.uint8)
    start = -memory.ctypes.data % 64 + 448 + offset
    return memory, start


def untouched(memory, start, size):
    return (memory[:start] == GUARD).all() and (memory[start + size :] == GUARD).all()


@pytest.mark.parametrize("columns", range(1, 41))
def test_copy_in_and_out(columns, dtype):
    rows, lanes, size = 5, isa().bytes // dtype.itemsize, dtype.itemsize
    vectors = -(-columns // lanes)
    copy_in, copy_out = (callback(blocks.copy_rows(dtype.name, into=into), 7) for into in (True, False))
    values = rng_of(columns).standard_normal((rows, columns)).astype(dtype)
    # the caller's matrix need not be aligned to more than its numbers are
    outside, at = guarded(values.nbytes, offset=size)
    outside[at : at + values.nbytes] = values.view(np.uint8).ravel()
    before = outside.copy()
    # in panels: vectors of one panel follow one another
    panel = rows * isa().bytes
    inside, to = guarded(vectors * panel)
    there, here = outside.ctypes.data + at, inside.ctypes.data + to
    copy_in(there, columns * size, here, isa().bytes, panel, rows, columns)
    assert untouched(inside, to, vectors * panel)
    assert np.array_equal(outside, before)
    panels = inside[to : to + vectors * panel].view(dtype).reshape(vectors, rows, lanes)
    unpacked = panels.transpose(1, 0, 2).reshape(rows, vectors * lanes)
    assert np.array_equal(unpacked[:, :columns], values)
    assert not unpacked[:, columns:].any()
    # and back, where what lies beyond the columns is garbage
    padding = np.arange(vectors * lanes).reshape(vectors, 1, lanes) >= columns
    panels[np.broadcast_to(padding, panels.shape)] = np.nan
    inside_before = inside.copy()
    back, at = guarded(values.nbytes, offset=size)
    copy_out(back.ctypes.data + at, columns * size, here, isa().bytes, panel, rows, columns)
    assert untouched(back, at, values.nbytes)
    assert np.array_equal(inside, inside_before)
    assert np.array_equal(back[at : at + values.nbytes], values.view(np.uint8).ravel())


@pytest.mark.parametrize("columns", range(1, 41))
def test_copies_leave_the_columns_between(columns, dtype):
    """A block of columns of a wider matrix: what lies right and left of it in each row stays."""
    rows, wide, size = 3, columns + 3, dtype.itemsize
    vectors = -(-columns // (isa().bytes // size))
    copy_out = callback(blocks.copy_rows(dtype.name, into=False), 7)
    source = np.ones(vectors * rows * isa().bytes // size, dtype)
    memory, at = guarded(rows * wide * size)
    copy_out(
        memory.ctypes.data + at + size,
        wide * size,
        source.ctypes.data,
        vectors * isa().bytes,
        isa().bytes,
        rows,
        columns,
    )
    result = memory[at : at + rows * wide * size].view(dtype).reshape(rows, wide)
    assert (result[:, 1 : columns + 1] == 1).all()
    memory_of_rest = np.delete(result, np.s_[1 : columns + 1], axis=1).view(np.uint8)
    assert (memory_of_rest == GUARD).all()
    assert untouched(memory, at, rows * wide * size)


@pytest.mark.parametrize("panels", [1, 2, 7])
@pytest.mark.parametrize("outputs", [1, 3, 12])
def test_dot_products_of_single_rows(outputs, panels, dtype):
    """The same bits as of a whole vector of rows, and right; of other rows' results none is written."""
    lanes, vector = isa().bytes // dtype.itemsize, isa().bytes
    rows = min(3, lanes)
    rng = rng_of(outputs)
    a = rng.standard_normal((lanes, panels * lanes)).astype(dtype)
    w = rng.standard_normal((panels, outputs, lanes)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    z, single = np.zeros((outputs, lanes), dtype), np.full((outputs, lanes), 7, dtype)
    at = [array.ctypes.data for array in (a, w, bias, z, single)]
    weights = panels, at[1], outputs * vector, outputs, at[2]
    callback(blocks.dots(dtype.name), 12)(at[0], panels * vector, panels, 0, *weights, at[3], vector, 1)
    callback(blocks.dots_of_rows(dtype.name), 10)(at[0], panels * vector, rows, *weights, at[4], vector)
    assert single[:, :rows].tobytes() == z[:, :rows].tobytes()
    assert (single[:, rows:] == 7).all()
    exact = a.astype(np.float64) @ w.astype(np.float64).transpose(0, 2, 1).reshape(-1, outputs) + bias
    tolerance = (
        (panels * lanes + 1) * np.finfo(dtype).eps * np.abs(a).max() * np.abs(w).max() * panels * lanes
    )
    assert np.abs(z.T - exact).max() <= tolerance


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_transpose(count, dtype):
    lanes = isa().bytes // dtype.itemsize
    square = lanes * isa().bytes
    source = rng_of(count).standard_normal((count, lanes, lanes)).astype(dtype)
    step = square + 128
    memory, at = guarded(max(1, count) * step)
    callback(blocks.transpose(dtype.name), 5)(
        source.ctypes.data, isa().bytes, memory.ctypes.data + at, count, step
    )
    blocks_out = memory[at : at + count * step].reshape(count, step)
    for i in range(count):
        assert np.array_equal(blocks_out[i, :square].view(dtype).reshape(lanes, lanes), source[i].T)
        assert (blocks_out[i, square:] == GUARD).all()
    assert untouched(memory, at, count * step)


@pytest.mark.parametrize("team", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 9, 64, 32), (60, 131, 112, 16), (5, 20, 48, 3), (3, 11, 1024, 64)], ids=str
)
def test_work_on_the_callers_own_arrays(monkeypatch, shape, team, dtype):
    """Whole vectors are not copied first: the bits are the same, and what lies around them stays."""
    if team:
        for name in ("TRY_TEAM_FROM_MULTIPLY_ADDS", "ALWAYS_TEAM_FROM_MULTIPLY_ADDS"):
            monkeypatch.setattr(plan, name, 0)
    rows, inputs, hidden, outputs = shape
    rng = rng_of(3)
    memories = []

    def own(*size):
        memory, at = guarded(dtype.itemsize * int(np.prod(size)), offset=dtype.itemsize)
        array = memory[at : at + dtype.itemsize * int(np.prod(size))].view(dtype).reshape(size)
        array[...] = rng.standard_normal(size)
        memories.append((memory, at, array.nbytes))
        return array

    X, Y = own(rows, inputs), own(rows, outputs)
    W1, b1, W2, b2 = own(inputs, hidden), own(hidden), own(hidden, outputs), own(outputs)
    results = []
    for leave_in_place in (plan.Plan.leave_in_place, lambda *_, **__: False):
        monkeypatch.setattr(plan.Plan, "leave_in_place", leave_in_place)
        for kept in vars(two_layer._prepared).values():
            kept.clear()
        params = [own(*p.shape) for p in (W1, b1, W2, b2)]
        for copy, param in zip(params, (W1, b1, W2, b2), strict=True):
            copy[...] = param
        losses = [fastbp.train_step(X, Y, *params, 0.01) for _ in range(3)]
        trace = fastbp.forward(X, *params)
        z1, a1, _, y_pred = (own(*a.shape) for a in trace)
        z1[...], a1[...], y_pred[...] = trace[0], trace[1], trace[3]
        results.append(
            (
                losses,
                [a.tobytes() for a in (*params, *trace, *fastbp.backward(X, Y, z1, a1, y_pred, params[2]))],
            )
        )
    assert results[0] == results[1]
    assert all(untouched(*memory) for memory in memories)


@pytest.mark.parametrize("columns", range(1, 41))
def test_a_prediction_stays_inside_its_array(columns, dtype):
    """All the way: odd widths through pack, tile and unpack, into memory with guards around it."""
    from fastbp.engine.plan import Plan
    from fastbp.engine.worker import step

    X = rng_of(0).standard_normal((7, columns)).astype(dtype)
    model = fastbp.MLP([columns, columns, columns], dtype=dtype, seed=0)
    memory, at = guarded(X.nbytes)
    plan = Plan(model.layer_sizes, ("relu", "sigmoid"), "mse", dtype, "add", 3, "predict")
    plan.lend_parameters(model._parameters)
    plan.lend_data(X, None)
    plan.set_layer(1, outside_a=memory.ctypes.data + at)
    plan.run(step.PACK + step.FORWARD, 1)
    assert untouched(memory, at, X.nbytes)
    assert np.array_equal(memory[at : at + X.nbytes].view(dtype).reshape(7, columns), model.predict(X))
