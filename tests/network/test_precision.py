"""Models whose products are of bfloat16 numbers: the definition, training as in the reference, and that the
choice is kept.

Rounding is a step: where the engine and NumPy differ by a unit in a number's last place, they may round it to
neighbours. So whole trainings agree to the rounding of sums but for a few numbers, and these to that of
bfloat16.
"""

import copy
import json
import pickle

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.engine import memory
from fastbp.formulas.bfloat16 import rounded
from fastbp.storage import model_file

U = 2.0**-24
BFLOAT16 = {"precision": "bfloat16"}


def data(rows, sizes, seed=0):
    rng = np.random.default_rng(seed)
    Y = rng.random((rows, sizes[-1])).astype(np.float32)
    return rng.standard_normal((rows, sizes[0])).astype(np.float32), Y / Y.sum(axis=1, keepdims=True)


def product(A, B):
    """A @ B as it is defined, exactly, and how far a sum in float32 may be from it."""
    a, b = rounded(A).astype(np.float64), rounded(B).astype(np.float64)
    return a @ b, 6 * U * np.sqrt(a.shape[1] + 1) * (np.abs(a) @ np.abs(b)) + 1e-30


def assert_alike(got, expected, steps=1):
    """To the rounding of sums, but for few numbers."""
    for g, e in zip(got, expected, strict=True):
        scale, error = np.abs(e).max() + 1e-30, np.abs(g - e)
        assert error.max() <= steps * 2.0**-8 * scale
        assert np.mean(error > steps * 3e-6 * scale) <= 0.02 * steps


@pytest.fixture(autouse=True, params=[0, memory.PAIRS_FROM], ids=["kept", "small"])
def _pairs_from(monkeypatch, request):
    """What is rounded is kept in steps of any size, or only in large ones, of which there are none here."""
    monkeypatch.setattr(memory, "PAIRS_FROM", request.param)


SHAPES = [
    (1, [1, 1]),
    (1, [3, 5, 1]),
    (2, [7, 33, 2]),
    (3, [8, 16, 31, 3]),
    (7, [5, 64, 17, 12]),
    (8, [131, 9, 13]),
    (65, [260, 33, 40]),
    (129, [17, 129, 10]),
]


@pytest.mark.parametrize(("rows", "sizes"), SHAPES, ids=str)
def test_the_products(module, rows, sizes):
    """Forward each layer, from what the layer below put out, and the last layer's weight gradient: from one
    k to more than are packed at once."""
    model = module.MLP(sizes, hidden="tanh", output="identity", seed=1, **BFLOAT16)
    X, Y = data(rows, sizes)
    trace = model.forward(X)
    for a, z, W, b in zip([X, *trace.a], trace.z, model.weights, model.biases, strict=False):
        exact, error = product(a, W)
        assert np.all(np.abs(z - b - exact) <= error + U * np.abs(z))
    inputs = [X, *trace.a][-2]
    delta = ((trace.z[-1] - Y) / np.float32(rows)).astype(np.float32)
    exact, error = product(inputs.T, delta)
    gradients = model.backward(trace, Y)
    assert_alike([gradients.weights[-1]], [exact])
    np.testing.assert_allclose(gradients.biases[-1], delta.sum(axis=0), rtol=1e-5, atol=1e-6)  # not rounded
    assert np.array_equal(model.predict(X), trace.y_pred) or module is fastbp.reference
    # A test of the test: without rounding the numbers are others.
    if sizes[0] > 1:
        plain = X.astype(np.float64) @ model.weights[0]
        exact, error = product(X, model.weights[0])
        assert np.any(np.abs(plain - exact) > 4 * error)


@pytest.mark.parametrize(("rows", "sizes"), SHAPES, ids=str)
def test_gradients_are_those_of_the_reference(rows, sizes):
    """From one and the same trace. (Differences of the loss say nothing about rounded products.)"""
    model, reference = (m.MLP(sizes, hidden="silu", seed=1, **BFLOAT16) for m in (fastbp, fastbp.reference))
    X, Y = data(rows, sizes)
    trace = model.forward(X)
    got, expected = model.backward(trace, Y), reference.backward(trace, Y)
    assert_alike([*got.weights, *got.biases], [*expected.weights, *expected.biases])
    assert model.check_gradients(X, Y).passed  # of the same network in float64


TRAININGS = {
    "batch of one": (1, [5, 13, 3], {}, lambda m: m.SGD(0.25), {"steps": 20}),
    "sgd": (24, [9, 33, 17, 10], {}, lambda m: m.SGD(0.25), {}),
    "momentum": (24, [9, 33, 4], {}, lambda m: m.SGD(0.05, momentum=0.9), {}),
    "adam": (13, [9, 40, 33], {}, lambda m: m.Adam(0.01, eps=1e-3), {}),
    "rmsprop": (13, [3, 17, 1], {"l2": 0.1}, lambda m: m.RMSprop(0.001, eps=1e-2), {}),
    "adagrad": (13, [3, 17, 1], {"reduction": "sum"}, lambda m: m.Adagrad(0.01, eps=1e-2), {}),
    "clipped": (29, [9, 33, 12], {"max_norm": 0.8}, lambda m: m.SGD(0.125, clip_norm=0.1), {}),
    "softmax": (
        16,
        [9, 33, 6],
        {"output": "softmax", "loss": "categorical_crossentropy"},
        lambda m: m.Adam(0.01, eps=1e-3),
        {"sample_weight": np.linspace(0, 2, 60)},
    ),
    "noise": (32, [9, 33, 31, 6], {"dropout": 0.3, "input_noise": 0.1}, lambda m: m.SGD(0.25), {}),
    "normalised": (32, [9, 33, 31, 6], {"layer_norm": True}, lambda m: m.SGD(0.25), {}),
    "accumulated": (8, [9, 33, 6], {}, lambda m: m.SGD(0.25), {"accumulate": 3}),
    "shards": (24, [9, 33, 6], {}, lambda m: m.Adam(0.01, eps=1e-3), {"shards": 2}),
}


@pytest.mark.parametrize("case", TRAININGS)
def test_training_is_that_of_the_reference(case):
    """An epoch, a rate of plain SGD that is a power of two: its deltas contain it when they are rounded."""
    batch, sizes, options, optimizer, how = TRAININGS[case]
    X, Y = data(60, sizes)
    models = []
    for m, precision in ((fastbp, "bfloat16"), (fastbp.reference, "bfloat16"), (fastbp, None)):
        model = m.MLP(sizes, **{"hidden": "tanh", "seed": 1, "precision": precision, **options})
        how = how if "steps" in how else {"epochs": 1, **how}
        model.fit(X, Y, batch_size=batch, optimizer=optimizer(m), progress=False, **how)
        models.append(model.parameters.flat.copy())
    got, expected, plain = models
    error, of_rounding = np.abs(got - expected), np.abs(plain - expected)
    assert error.mean() < of_rounding.mean() / 4
    assert np.median(error) < np.median(of_rounding) / 8
    assert not np.array_equal(rounded(got), got)  # parameters are not rounded


def test_same_bits_whatever_the_threads():
    """Also where inputs would be packed, and with many outputs. (With more threads: test_same_bits.)"""
    sizes = [77, 129, 100]
    X, Y = data(300, sizes)
    results = set()
    for threads in (1, 2):
        model = fastbp.MLP(sizes, seed=1, threads=threads, **BFLOAT16)
        model.fit(X, Y, epochs=2, batch_size=149, optimizer=fastbp.SGD(0.1), progress=False)
        model.train_step(X, Y, fastbp.SGD(0.1))
        results.add(model.parameters.flat.tobytes() + model.predict(X).tobytes())
    assert len(results) == 1


def test_predictions_are_the_same_bits_in_any_number_and_from_any_code():
    model = fastbp.MLP([33, 40, 3], seed=1, **BFLOAT16)
    X, _ = data(64, [33, 3])
    Y = model.predict(X)
    for rows in (1, 2, 3, 7, 8, 31):
        assert np.array_equal(model.predict(X[:rows]), Y[:rows])
    c, out = model.c_function(), np.empty((3, 3), np.float32)
    c.ctypes(X[:3], 3, out, c.user_data)
    assert np.array_equal(out, Y[:3])
    assert not np.array_equal(model.converted("float32").predict(X), Y)


def test_inputs_of_any_kind(tmp_path):
    """Rows that are converted or read from files as batches are gathered give the bits of plain ones."""
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    X = rng.integers(0, 5, (50, 21)).astype(np.uint8)
    Y = rng.random((50, 4)).astype(np.float32)
    np.save(tmp_path / "X.npy", X)
    floats = X.astype(np.float32)
    strided = np.repeat(floats, 2, axis=1)[:, ::2]
    results = []
    for given in (floats, X, tmp_path / "X.npy", sparse.csr_array(X), strided):
        model = fastbp.MLP([21, 17, 4], seed=1, **BFLOAT16)
        model.fit(given, Y, epochs=2, batch_size=16, optimizer=fastbp.Adam(0.01), progress=False)
        results.append(model.parameters.flat.copy())
    assert all(np.array_equal(result, results[0]) for result in results)


# ---- the choice -----------------------------------------------------------------------------------------


def test_the_choice_is_shown_and_fixed(module):
    model = module.MLP([2, 3, 1], **BFLOAT16)
    assert model.precision == "bfloat16" and module.MLP([2, 3, 1]).precision is None
    assert "dtype='float32', precision='bfloat16'" in repr(model)
    assert model.summary().startswith("MLP 2-3-1, float32 with products of bfloat16, loss mse (mean)")
    assert "bfloat16" not in module.MLP([2, 3, 1]).summary()
    with pytest.raises(AttributeError, match="precision is fixed"):
        model.architecture.precision = None


@pytest.mark.parametrize(
    "precision", ["float16", "", 16, np.float32, ["bfloat16"], np.array(["bfloat16"] * 2)]
)
def test_other_precisions_are_refused(module, precision):
    with pytest.raises(ValueError, match=r"precision is .*expected None or 'bfloat16'"):
        module.MLP([2, 1], precision=precision)


def test_float64_is_refused(module):
    with pytest.raises(ValueError, match="dtype is float64: use dtype='float32', or precision=None"):
        module.MLP([2, 1], dtype="float64", **BFLOAT16)


def test_show_config_says_what_is_used(capsys):
    assert fastbp.show_config()["bfloat16"] in ("amx", "avx512_bf16", "emulated")


def test_it_goes_with_copies_and_files(module, tmp_path):
    model = module.MLP([9, 33, 3], seed=1, **BFLOAT16)
    X, _ = data(20, [9, 3])
    Y = model.predict(X)
    model.save(tmp_path / "m")
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), module.MLP.load(tmp_path / "m")):
        assert twin.precision == "bfloat16" and np.array_equal(twin.predict(X), Y)
    tensors, texts = model_file.read(tmp_path / "m", "model")
    options = json.loads(texts["architecture"])
    for changed, what in (({}, None), ({"precision": "float8"}, "float8"), ({"dtype": "float64"}, "float64")):
        texts["architecture"] = json.dumps({**options, **changed})
        model_file.write(tmp_path / "m", tensors, texts)
        if what is not None:
            with pytest.raises(ValueError, match=what):
                module.MLP.load(tmp_path / "m")
    del options["precision"]  # as earlier versions wrote
    model_file.write(tmp_path / "m", tensors, {**texts, "architecture": json.dumps(options)})
    assert module.MLP.load(tmp_path / "m").precision is None


def test_a_checkpoint_is_gone_on_from(tmp_path):
    X, Y = data(60, [9, 5])

    def trained(epochs, path=None, **options):
        model = fastbp.MLP([9, 33, 5], seed=1, dropout=0.2, **options)
        how = {"optimizer": fastbp.Adam(0.01), "progress": False, "checkpoint": path}
        model.fit(X, Y, epochs=epochs, batch_size=16, **how)
        return model.parameters.flat.copy()

    whole = trained(4, **BFLOAT16)
    trained(2, tmp_path / "run", **BFLOAT16)
    with pytest.raises(ValueError, match="precision"):
        trained(4, tmp_path / "run")
    assert np.array_equal(trained(4, tmp_path / "run", **BFLOAT16), whole)


def test_many_networks_each_have_their_own():
    """Networks that are alike but for it, in one call: each has the bits of a training of its own."""
    X, Y = data(40, [5, 2])

    def new():
        kinds = [{}, BFLOAT16] * 3
        return [fastbp.MLP([5, 16, 2], seed=i, **kind) for i, kind in enumerate(kinds)]

    how = {"epochs": 3, "batch_size": 8, "progress": False}
    together, alone = new(), new()
    fastbp.fit_many(together, X, Y, optimizers=fastbp.SGD(0.1), **how)
    for model in alone:
        model.fit(X, Y, optimizer=fastbp.SGD(0.1), **how)
    for model, other in zip(together, alone, strict=True):
        assert np.array_equal(model.parameters.flat, other.parameters.flat)
    assert together[0].architecture.alike != together[1].architecture.alike
    each = np.array([model.predict(X) for model in together])
    assert np.array_equal(fastbp.Ensemble(together).predict(X), each)


def test_what_is_written_into_weights_is_trained_on():
    """Copies of them that training keeps, rounded, are those of a model which begins with such weights."""
    X, Y = data(64, [9, 5])
    how = {"epochs": 2, "batch_size": 16, "progress": False, "shuffle": False}
    first, second = (fastbp.MLP([9, 33, 20, 5], seed=seed, **BFLOAT16) for seed in (1, 2))
    optimizers = fastbp.SGD(0.1), fastbp.SGD(0.1)
    first.fit(X, Y, optimizer=optimizers[0], **how)
    first.train_step(X[:16], Y[:16], optimizers[0])
    for W in first.weights:
        W[...] = -W
    second.parameters.flat[...] = first.parameters.flat
    for _ in range(2):
        for model, optimizer in zip((first, second), optimizers, strict=True):
            model.train_step(X[:16], Y[:16], optimizer)
            model.fit(X, Y, optimizer=optimizer, **how)
        assert np.array_equal(first.parameters.flat, second.parameters.flat)
