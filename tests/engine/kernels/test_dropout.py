"""Dropout: the generator's known answers, masks that depend on nothing but the counter, training as in the
reference, and nothing of it outside training."""

import copy
import ctypes
import itertools
import pickle
import re

import numpy as np
import pytest
from processes import AVX2, GENERIC, avx2_beside_more, on_x86, python

import fastbp
import fastbp.reference
from fastbp.activations import ACTIVATIONS
from fastbp.engine.kernels.random import dropout as dropout_kernels
from fastbp.engine.simd import philox
from fastbp.engine.simd.vector import isa
from fastbp.formulas import philox as philox_numbers

KEY = (0x243F6A88, 0x85A308D3)


# ---- the generator ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter, key, words):
    """Those that the authors of Philox distribute with their library Random123 (kat_vectors)."""
    assert tuple(int(w) for w in philox_numbers.philox(counter, key)) == words


def mask_of_the_engine(dtype, p, step, layer, rows, units, cuts=(), key=KEY):
    """Which ones of (rows, units) the compiled callback keeps, where the rows come in pieces."""
    dtype = np.dtype(dtype)
    lanes = isa().bytes // dtype.itemsize
    vectors = -(-units // lanes)
    drop = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)(dropout_kernels.forward("identity", dtype.name))
    settings = np.zeros(philox.SETTINGS // 8, np.int64)
    settings[:4] = *key, philox_numbers.threshold(p), layer
    settings.view(dtype)[4 * 8 // dtype.itemsize] = 1 / philox_numbers.keep(p)
    a = np.ones((rows, vectors * lanes), dtype)
    bounds = [0, *cuts, rows]
    for v in range(vectors):  # vectors come one by one, too
        for first, after in itertools.pairwise(bounds):
            at = a[first:, v * lanes :].ctypes.data
            drop(at, at, after - first, 1, a.strides[0], lanes, settings.ctypes.data, first, v * lanes, step)
    kept = a == dtype.type(1 / philox_numbers.keep(p))
    assert np.array_equal(kept, ~((a == 0) & np.signbit(a)))  # dropped ones are marked -0.0
    return kept[:, :units]


@pytest.mark.parametrize("p", [1e-9, 0.1, 0.5, 0.999])
def test_the_engine_draws_the_same_masks(dtype, p):
    """However a batch is cut: threads, tiles and cache blocks begin at any row."""
    for rows, units, cuts in [
        (1, 1, ()),
        (7, 33, (2, 3)),
        (64, 17, (8, 13, 15, 40)),
        (29, 100, range(1, 29)),
    ]:
        for step, layer in [(1, 1), (2**32 + 7, 3)]:
            expected = philox_numbers.kept(KEY, step, layer, rows, units, p)
            assert np.array_equal(mask_of_the_engine(dtype, p, step, layer, rows, units, cuts), expected)


def print_masks():
    """For test_masks_do_not_depend_on_the_vector_width, in processes of their own."""
    for dtype in ("float32", "float64"):
        mask = mask_of_the_engine(dtype, 0.3, 5, 2, 19, 70, cuts=(5, 11))
        print(np.array_equal(mask, philox_numbers.kept(KEY, 5, 2, 19, 70, 0.3)), isa().bytes)


@on_x86
@pytest.mark.parametrize(
    "environment",
    [pytest.param(AVX2, id="avx2", marks=avx2_beside_more), pytest.param(GENERIC, id="generic")],
)
def test_masks_do_not_depend_on_the_vector_width(environment):
    width = 32 if environment is AVX2 else 16
    assert python(__file__, **environment).splitlines() == [f"True {width}"] * 2


def test_statistics_of_masks():
    """As many units are dropped as should be; and masks of other rows, steps, layers and keys have nothing to
    do with one another. Each of some 2^17 bits has a standard deviation of sqrt(p (1 - p))."""
    rows, units = 256, 512
    for p in (0.1, 0.5, 0.8):
        spread = np.sqrt(p * (1 - p) / (rows * units))

        def mask(key=KEY, step=1, layer=1, p=p):
            return philox_numbers.kept(key, step, layer, rows, units, p) - (1 - p)

        base = mask()
        assert abs(base.mean()) < 4 * spread
        assert np.abs(base.mean(axis=0)).max() < 5 * np.sqrt(p * (1 - p) / rows)
        assert np.abs(base.mean(axis=1)).max() < 5 * np.sqrt(p * (1 - p) / units)
        others = [mask(step=2), mask(step=2**32 + 1), mask(layer=2), mask(key=(KEY[0], KEY[1] + 1))]
        others += [np.roll(base, shift, axis) for axis in (0, 1) for shift in (1, 2, 4, 8, 16)]
        for other in others:
            assert abs((base * other).mean()) < 4 * p * (1 - p) / np.sqrt(rows * units)


def test_the_share_that_is_kept():
    assert philox_numbers.keep(0.0) == 1
    assert philox_numbers.keep(0.5) == 0.5
    for p in (1e-12, 0.3, 1 - 1e-12):
        assert philox_numbers.keep(p) == pytest.approx(1 - p, abs=2**-16)
        assert 0 < philox_numbers.keep(p) < 1
        assert np.float32(philox_numbers.keep(p)) == philox_numbers.keep(p)


# ---- training -----------------------------------------------------------------------------------------


def data(rows, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, sizes[0])), rng.random((rows, sizes[-1]))


@pytest.mark.parametrize("hidden_name", ACTIVATIONS)
def test_training_is_that_of_the_reference(hidden_name, dtype):
    """20 steps and more, with the same masks, in networks of odd widths."""
    for i, (batch, sizes, dropout) in enumerate(
        [
            (1, [3, 2, 1], 0.5),
            (13, [5, 33, 17, 3], 0.3),
            (33, [4, 1, 16, 31, 20], [0.0, 0.25, 0.6]),
        ]
    ):
        X, Y = data(batch * 3 + batch // 2, sizes)
        trained = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP(sizes, hidden=hidden_name, dtype=dtype, seed=i, dropout=dropout)
            for b in model.biases:
                b[...] = 0.1
            optimizer = [module.SGD(0.05), module.Adam(1e-3, eps=1e-3), module.SGD(0.02, momentum=0.5)][i]
            history = model.fit(X, Y, epochs=7, batch_size=batch, optimizer=optimizer, progress=False)
            trained.append((model.parameters.flat, history.loss))
        for ours, theirs in zip(*trained, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * np.finfo(dtype).eps)


def test_gradients_are_those_of_the_masked_network(module):
    """A step moves the parameters by central differences of the loss, with the masks held fixed."""
    sizes, p = [4, 9, 7, 2], 0.4
    X, Y = data(5, sizes)
    model = module.MLP(sizes, hidden="tanh", dtype="float64", seed=2, dropout=p)
    before = model.parameters.flat.copy()
    masks = [
        philox_numbers.kept(model.streams.noise_key, 1, i, 5, n, p) / philox_numbers.keep(p)
        for i, n in ((1, 9), (2, 7))
    ]
    assert 0 < np.mean(masks[0] > 0) < 1

    def loss(flat):
        (W1, W2, W3), (b1, b2, b3), _ = model.parameters.split(flat)
        a = np.tanh(X @ W1 + b1) * masks[0]
        a = np.tanh(a @ W2 + b2) * masks[1]
        y_pred = 1 / (1 + np.exp(-(a @ W3 + b3)))
        return 0.5 * np.sum((y_pred - Y) ** 2) / 5

    numeric = np.empty_like(before)
    for i in range(len(before)):
        values = []
        for change in (1e-6, -1e-6):
            flat = before.copy()
            flat[i] += change
            values.append(loss(flat))
        numeric[i] = (values[0] - values[1]) / 2e-6
    assert model.train_step(X, Y, module.SGD(1.0)) == pytest.approx(loss(before), rel=1e-12)
    np.testing.assert_allclose(before - model.parameters.flat, numeric, rtol=0, atol=1e-9)


def test_fit_has_the_masks_of_single_steps(module, dtype):
    """The steps are counted over the model's life, whatever calls they are made in."""
    X, Y = data(20, [3, 17, 2])
    fitted, stepped = (module.MLP([3, 17, 2], dtype=dtype, seed=1, dropout=0.5) for _ in range(2))
    sgd = module.SGD(0.1)
    for epochs in (2, 0, 3):
        fitted.fit(X, Y, epochs=epochs, batch_size=8, optimizer=sgd, shuffle=False)
    for _ in range(5):
        for start in (0, 8, 16):
            stepped.train_step(X[start : start + 8], Y[start : start + 8], module.SGD(0.1))
    assert fitted.streams.steps_trained == stepped.streams.steps_trained == 15
    assert np.array_equal(fitted.parameters.flat, stepped.parameters.flat)


def test_seeds(module):
    X, Y = data(20, [3, 17, 2])

    def trained(**options):
        model = module.MLP([3, 17, 2], **{"seed": 1, "dropout": 0.5, **options})
        model.weights[0][...] = 0.1  # another seed's weights would differ anyway
        model.weights[1][...] = np.linspace(-1, 1, 34).reshape(17, 2)
        model.fit(X, Y, epochs=3, optimizer=module.SGD(0.1), shuffle=False)
        return model.parameters.flat.copy()

    assert np.array_equal(trained(), trained())
    assert not np.array_equal(trained(), trained(seed=2))
    assert not np.array_equal(trained(seed=None), trained(seed=None))
    assert not np.array_equal(trained(), trained(dropout=0.25))


def test_dropout_changes_neither_weights_nor_shuffles(module):
    X, Y = data(50, [3, 17, 2])
    orders = []
    for dropout in (0.0, 0.5):
        model = module.MLP([3, 17, 2], seed=4, dropout=dropout)
        assert np.array_equal(model.weights[0], module.MLP([3, 17, 2], seed=4).weights[0])
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
        orders.append(model.streams.shuffling.permutation(50))
    assert np.array_equal(*orders)


def test_copies_go_on_with_the_same_masks(module):
    X, Y = data(20, [3, 17, 2])
    model = module.MLP([3, 17, 2], dropout=0.5)  # without a seed
    model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1))
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for m in (model, *others):
        m.fit(X, Y, epochs=2, optimizer=module.SGD(0.1), shuffle=False)
    assert all(np.array_equal(m.parameters.flat, model.parameters.flat) for m in others)


def test_only_training_drops(module, tmp_path):
    """forward, backward, predict, loss and the gradient check are those of the network without dropout."""
    X, Y = data(9, [3, 17, 5, 2])
    plain, model = (
        module.MLP([3, 17, 5, 2], hidden="tanh", seed=1, **o) for o in ({}, {"dropout": [0.2, 0.5]})
    )
    for _ in range(2):
        assert np.array_equal(model.predict(X), plain.predict(X))
        assert model.loss(X, Y) == plain.loss(X, Y)
        ours, theirs = (m.backward(m.forward(X), Y) for m in (model, plain))
        assert all(map(np.array_equal, ours.weights, theirs.weights))
        model.train_step(X, Y, module.SGD(0.1))
        plain.parameters.flat[...] = model.parameters.flat
    assert model.check_gradients(X, Y).passed
    assert model.diagnose(X, Y).verdict == plain.diagnose(X, Y).verdict
    model.save(tmp_path / "model")
    loaded = module.MLP.load(tmp_path / "model")
    assert loaded.dropout == model.dropout == (0.2, 0.5)
    assert repr(loaded) == repr(model)
    assert "dropout=[0.2, 0.5]" in repr(model)
    assert "dropout=0.5" in repr(module.MLP([3, 4, 4, 2], dropout=[0.5, 0.5]))


def test_masks_after_stepping_back(module):
    """fit repeats steps to find the last good one: with their masks, and the count goes back with them."""
    X, Y = data(64, [3, 17, 2])
    model, again = (
        module.MLP([3, 17, 2], hidden="identity", output="identity", dtype="float64", seed=1, dropout=0.3)
        for _ in range(2)
    )
    rate = fastbp.schedules.Step(
        0.01, every=9, factor=1e80
    )  # training ends within a few steps of the first cut
    with pytest.raises(FloatingPointError):
        model.fit(X, Y, epochs=9, batch_size=16, optimizer=module.SGD(rate), shuffle=False)
    steps = model.streams.steps_trained
    assert 9 <= steps < 36
    sgd = module.SGD(rate)
    for s in range(steps):
        rows = slice(s % 4 * 16, s % 4 * 16 + 16)
        again.train_step(X[rows], Y[rows], sgd)
    assert np.array_equal(model.parameters.flat, again.parameters.flat)


def test_it_learns(module):
    """Dropout of half the units slows training down, but two classes are told apart."""
    X, _ = data(200, [2, 1])
    Y = (X[:, :1] * X[:, 1:] > 0).astype(float)
    model = module.MLP([2, 64, 64, 1], loss="binary_crossentropy", seed=0, dropout=0.5)
    model.fit(X, Y, epochs=40, optimizer=module.Adam(0.01))
    assert ((model.predict(X) > 0.5) == Y).mean() > 0.95


@pytest.mark.parametrize(
    ("error", "message", "sizes", "dropout"),
    [
        (ValueError, "dropout is 1.0, expected a number in [0, 1)", [2, 3, 1], 1.0),
        (ValueError, "dropout is -0.1, expected a number in [0, 1)", [2, 3, 1], -0.1),
        (ValueError, "dropout is nan, expected a number in [0, 1)", [2, 3, 1], float("nan")),
        (TypeError, "dropout must be a number, got 'half'", [2, 3, 1], "half"),
        (TypeError, "dropout must be a number, got True", [2, 3, 1], True),
        (ValueError, "dropout[1] is 2.0, expected a number in [0, 1)", [2, 3, 3, 1], [0.5, 2]),
        (
            ValueError,
            "dropout has 1 values, layer_sizes [2, 3, 3, 1] has 2 hidden layers: dropout must be a number",
            [2, 3, 3, 1],
            [0.5],
        ),
        (ValueError, "dropout is 0.5, but layer_sizes [2, 1] has no hidden layer", [2, 1], 0.5),
    ],
)
def test_errors(module, error, message, sizes, dropout):
    with pytest.raises(error, match=re.escape(message)):
        module.MLP(sizes, dropout=dropout)


def test_what_may_be_given(module):
    assert module.MLP([2, 1]).dropout == module.MLP([2, 1], dropout=[]).dropout == ()
    assert module.MLP([2, 3, 4, 1], dropout=np.array([0.5, 0.25])).dropout == (0.5, 0.25)
    assert module.MLP([2, 3, 4, 1], dropout=np.float32(0.5)).dropout == (0.5, 0.5)


if __name__ == "__main__":
    print_masks()
