"""MLP without training: construction, initial weights, forward, backward, predict, loss, errors."""

import copy
import inspect
import pickle
import re

import numpy as np
import pytest
from definitions import DEFINITIONS, loss_terms, softmax, softmax_jacobian, targets

import fastbp
import fastbp.reference
from fastbp.activations import ACTIVATIONS, OUTPUTS
from fastbp.losses import LOSSES, get

PUBLIC = ["MLP", "SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "EarlyStopping", "History"]


def data(rows, sizes, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, sizes[0])).astype(dtype)
    return X, rng.random((rows, sizes[-1])).astype(dtype)


def plain_gradients(model, X, Y):
    """The definition, in float64 and one sample at a time: dW is the sum of outer products."""
    weights = [W.astype(np.float64) for W in model.weights]
    biases = [b.astype(np.float64) for b in model.biases]
    names = [a.name for a in model.architecture.activations]
    dW, db, loss = [np.zeros_like(W) for W in weights], [np.zeros_like(b) for b in biases], 0.0
    for x, t in zip(X.astype(np.float64), Y.astype(np.float64), strict=True):
        a, z = [x], []
        for W, b, name in zip(weights, biases, names, strict=True):
            z.append(a[-1] @ W + b)
            a.append(softmax(z[-1][None])[0] if name == "softmax" else DEFINITIONS[name].value(z[-1]))
        values, delta = loss_terms(model.architecture.loss.name, a[-1], t)
        loss += values.sum()
        if names[-1] == "softmax":
            delta = delta @ softmax_jacobian(a[-1][None])[0]
        else:
            delta = delta * DEFINITIONS[names[-1]].slope(z[-1])
        for i in range(len(weights) - 1, -1, -1):
            dW[i] += np.outer(a[i], delta)
            db[i] += delta
            if i:
                delta = (weights[i] @ delta) * DEFINITIONS[names[i - 1]].slope(z[i - 1])
    n = len(X) if model.architecture.reduction == "mean" else 1
    return [g / n for g in dW], [g / n for g in db], loss / n


@pytest.mark.parametrize("name", PUBLIC)
def test_same_public_names(name):
    ours, theirs = getattr(fastbp, name), getattr(fastbp.reference, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    if name != "MLP":
        assert ours is theirs


def test_same_public_list():
    assert set(fastbp.__all__) == {*fastbp.reference.__all__, "reference", "load", "train_table"}
    for name in ("callbacks", "metrics", "plot", "schedules"):
        assert getattr(fastbp, name) is getattr(fastbp.reference, name)


def test_same_methods():
    def methods(cls):
        members = inspect.getmembers(cls, callable)
        return {n: inspect.signature(f) for n, f in members if not n.startswith("_")}

    assert methods(fastbp.MLP) == methods(fastbp.reference.MLP)
    assert set(methods(fastbp.MLP)) >= {
        "forward",
        "backward",
        "train_step",
        "fit",
        "predict",
        "loss",
        "check_gradients",
        "diagnose",
        "save",
        "load",
        "summary",
    }


# ---- computation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [*LOSSES, "huber(0.25)"])
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_forward_backward_and_loss(module, dtype, hidden, loss):
    reduction = ("mean", "sum")[len(hidden + loss) % 2]  # each activation meets both, and each loss
    sizes = [3, 7, 17, 2]
    only = get(loss).output
    for output in [only] if only else list(OUTPUTS) if loss == "mse" else ["identity", "gelu"]:
        for rows in (1, 5, 33):
            model = module.MLP(
                sizes, hidden=hidden, output=output, loss=loss, reduction=reduction, dtype=dtype, seed=1
            )
            for b in model.biases:
                b[:] = 0.1
            X, Y = data(rows, sizes, dtype=dtype)
            Y = targets(loss, Y)
            dW, db, expected_loss = plain_gradients(model, X, Y)
            trace = model.forward(X)
            gradients = model.backward(trace, Y)
            # at most 33 + 17 terms a sum, through three layers
            tolerance = 3 * 50 * float(np.finfo(dtype).eps)
            for actual, expected in zip([*gradients.weights, *gradients.biases], [*dW, *db], strict=True):
                assert actual.dtype == dtype
                assert actual.shape == expected.shape
                assert np.max(np.abs(actual - expected)) <= tolerance * max(1e-2, np.abs(expected).max())
            assert model.loss(X, Y) == pytest.approx(expected_loss, rel=tolerance)
            assert np.array_equal(model.predict(X), trace.y_pred)
            assert [z.shape for z in trace.z] == [a.shape for a in trace.a] == [(rows, n) for n in sizes[1:]]


def test_one_layer_is_a_network(module):
    X, Y = data(9, [4, 2])
    model = module.MLP([4, 2], output="identity", init="glorot", dtype="float64", seed=0)
    assert np.allclose(model.predict(X), X @ model.weights[0], rtol=0, atol=1e-14)
    dW, _, _ = plain_gradients(model, X, Y)
    assert np.allclose(model.backward(model.forward(X), Y).weights[0], dW[0], rtol=0, atol=1e-14)


def test_large_inputs_are_evaluated_in_blocks(module, monkeypatch):
    model = module.MLP([3, 5, 2], seed=0)
    X, Y = data(101, [3, 2])
    whole, loss = model.predict(X), model.loss(X, Y)
    monkeypatch.setattr("fastbp.network.architecture.EVALUATE_MULTIPLY_ADDS", 25 * 10)
    np.testing.assert_allclose(model.predict(X), whole, rtol=1e-6)
    assert model.loss(X, Y) == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("magnitude", [1.0, 100.0, 1e4])
def test_sigmoid_and_crossentropy_are_stable(module, dtype, magnitude):
    """|z| up to 1e4 gives neither a warning (they are errors here) nor infinity, and the right loss."""
    model = module.MLP([1, 1], loss="binary_crossentropy", reduction="sum", dtype=dtype)
    model.weights[0][...] = 1
    X = np.array([[-magnitude], [magnitude], [0.0]])
    for Y in ([[0.0], [1.0], [0.5]], [[1.0], [0.0], [0.5]]):
        trace = model.forward(X)
        z = X[:, 0]
        t = np.array(Y)[:, 0]
        expected = np.sum(np.logaddexp(0, z) - t * z)
        assert model.loss(X, Y) == pytest.approx(expected, rel=1e-6)
        gradients = model.backward(trace, Y)
        assert np.isfinite(gradients.weights[0]).all()
        assert np.all((trace.y_pred >= 0) & (trace.y_pred <= 1))
    hidden = module.MLP([1, 2, 1], hidden="sigmoid", dtype=dtype)
    hidden.weights[0][...] = [[1, -1]]
    hidden.backward(hidden.forward(X), [[0.0], [1.0], [0.5]])


# ---- construction -------------------------------------------------------------------------------------


def test_initial_weights():
    sizes = [400, 300, 200]

    def deviations(module, **options):
        model = module.MLP(sizes, seed=0, dtype="float64", **options)
        assert all(not b.any() for b in model.biases) or options in as_torch
        assert all(abs(W.mean()) < 5 * W.std() / np.sqrt(W.size) for W in model.weights)
        return [W.std() for W in model.weights]

    as_torch = [{"init": "torch"}, {"init": "auto", "output": "identity"}]
    he = [np.sqrt(2 / 400), np.sqrt(2 / 300)]
    glorot = [np.sqrt(2 / 700), np.sqrt(2 / 500)]
    for module in (fastbp, fastbp.reference):
        for expected, options in [
            ([0.01, 0.01], {"init": "normal"}),
            (he, {"init": "he"}),
            (glorot, {"init": "glorot"}),
            (glorot, {"init": "xavier"}),
            ([he[0], glorot[1]], {"init": "auto"}),
            (glorot, {"init": "auto", "hidden": "tanh"}),
            (he, {"init": "auto", "output": "relu"}),
        ]:
            assert deviations(module, **options) == pytest.approx(expected, rel=0.02)
        for options in as_torch:
            expected = [1 / np.sqrt(3 * 400), 1 / np.sqrt(3 * 300)]
            assert deviations(module, **options) == pytest.approx(expected, rel=0.02)
            model = module.MLP(sizes, seed=0, dtype="float64", **options)
            for W, b in zip(model.weights, model.biases, strict=True):
                bound = 1 / np.sqrt(len(W))
                assert 0.99 * bound < abs(W).max() <= bound
                assert 0.9 * bound < abs(b).max() <= bound
                assert abs(b.mean()) < 5 * bound / np.sqrt(3 * b.size)


def test_biases_of_normalised_layers_begin_at_zero(module):
    """Also where init="auto" draws biases: there they are the normalisation's, whose output is centred."""
    model = module.MLP([5, 20, 20, 1], output="identity", layer_norm=True, seed=0)
    assert [bool(b.any()) for b in model.biases] == [False, False, True]


def test_a_seed_gives_the_same_weights_everywhere():
    """Fixed figures: NumPy's PCG64 stream does not depend on the machine."""
    W = fastbp.MLP([2, 3, 1], init="normal", dtype="float64", seed=0).weights[0]
    again = fastbp.reference.MLP([2, 3, 1], init="normal", dtype="float64", seed=0).weights[0]
    assert np.array_equal(W, again)
    rounded = fastbp.MLP([2, 3, 1], init="normal", dtype="float32", seed=0).weights[0]
    assert np.array_equal(rounded, W.astype(np.float32))
    assert W.tolist() == [
        [0.014436909546981257, -0.008959459763857414, 0.00735955670177038],
        [5.877040405094311e-05, 0.00853381789726193, 0.001609480326942554],
    ]
    assert not np.array_equal(W, fastbp.MLP([2, 3, 1], init="normal", dtype="float64", seed=1).weights[0])
    unseeded = [fastbp.MLP([2, 3, 1]).weights[0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_repr_and_summary(module):
    model = module.MLP([64, 128, 10], seed=3)
    text = model.summary()
    for expected in ["64-128-10", "float32", "relu", "sigmoid", "(64, 128)", "(128,)", "8,320", "9,610"]:
        assert expected in text
    made_again = eval(repr(model), {"MLP": module.MLP})
    assert repr(made_again) == repr(model)
    assert all(np.array_equal(a, b) for a, b in zip(made_again.weights, model.weights, strict=True))
    assert model.n_parameters == 9610
    assert model.layer_sizes == (64, 128, 10)
    assert model.dtype == np.float32


@pytest.mark.parametrize(
    ("error", "message", "arguments", "options"),
    [
        (ValueError, "layer_sizes is [3], expected two widths", ([3],), {}),
        (ValueError, "layer_sizes[1] is 0, expected at least 1", ([3, 0, 1],), {}),
        (TypeError, "layer_sizes[1] must be an integer, got 2.5", ([3, 2.5, 1],), {}),
        (TypeError, "layer_sizes must be a list of integers, got 3", (3,), {}),
        (
            ValueError,
            "unknown hidden 'rleu', expected one of 'relu', ",
            ([2, 1],),
            {"hidden": "rleu"},
        ),
        (ValueError, "unknown output 'Sigmoid', expected one of 'sigmoid'", ([2, 1],), {"output": "Sigmoid"}),
        (ValueError, "unknown loss 'mea', expected one of 'mse', ", ([2, 1],), {"loss": "mea"}),
        (ValueError, "unknown init 'glort', expected one of 'glorot'", ([2, 1],), {"init": "glort"}),
        (ValueError, "unknown reduction 'avg'", ([2, 1],), {"reduction": "avg"}),
        (
            ValueError,
            "loss='binary_crossentropy' is defined for output='sigmoid', got output='tanh'",
            ([2, 1],),
            {"loss": "binary_crossentropy", "output": "tanh"},
        ),
        (
            ValueError,
            "loss='categorical_crossentropy' is defined for output='softmax', got output='sigmoid'",
            ([2, 3],),
            {"loss": "categorical_crossentropy"},
        ),
        (
            ValueError,
            "hidden='softmax' is not supported, softmax is an output activation (output='softmax'); expected",
            ([2, 3, 2],),
            {"hidden": "softmax"},
        ),
        (ValueError, "output='softmax' of one output is always 1", ([2, 1],), {"output": "softmax"}),
        (TypeError, "dtype is float16, expected 'float32' or 'float64'", ([2, 1],), {"dtype": "float16"}),
        (TypeError, "dtype is 'single precision'", ([2, 1],), {"dtype": "single precision"}),
        (ValueError, "seed is -1, expected at least 0", ([2, 1],), {"seed": -1}),
        (TypeError, "seed must be an integer, got 'x'", ([2, 1],), {"seed": "x"}),
        (ValueError, "threads is 0, expected at least 1", ([2, 1],), {"threads": 0}),
    ],
)
def test_construction_errors(module, error, message, arguments, options):
    with pytest.raises(error, match=re.escape(message)):
        module.MLP(*arguments, **options)


# ---- what may be passed -------------------------------------------------------------------------------


def test_inputs_of_any_layout(module, dtype):
    model = module.MLP([3, 5, 2], dtype=dtype, seed=0)
    X, Y = data(6, [3, 2], dtype=dtype)
    read_only = X.copy()
    read_only.flags.writeable = False
    expected = model.predict(X)
    big = np.zeros((12, 6), dtype)
    big[::2, ::2] = X
    for given in (
        np.asfortranarray(X),
        big[::2, ::2],
        read_only,
        X.tolist(),
        X.astype(X.dtype.newbyteorder()),
    ):
        np.testing.assert_allclose(model.predict(given), expected, rtol=1e-5)
        model.train_step(given, Y, module.SGD(0.0))
    assert model.predict([[1, 2, 3]]).dtype == dtype
    assert np.array_equal(model.predict(X[:1])[0], model.predict(X[:1].copy())[0])


def test_bad_inputs(module):
    model = module.MLP([3, 5, 2], loss="binary_crossentropy", seed=0)
    X, Y = data(6, [3, 2])
    before = [p.copy() for p in (*model.weights, *model.biases)]
    optimizer = module.SGD(0.1)

    def refused(error, message, X, Y):
        for call in (
            lambda: model.loss(X, Y),
            lambda: model.train_step(X, Y, optimizer),
            lambda: model.fit(X, Y, epochs=1, optimizer=optimizer),
            lambda: model.check_gradients(X, Y),
            lambda: model.diagnose(X, Y),
        ):
            with pytest.raises(error, match=re.escape(message)):
                call()

    refused(ValueError, "X has 2 columns, the model has 3 inputs: X must be (batch, 3)", X[:, :2], Y)
    refused(ValueError, "X has shape (3,), expected two dimensions (batch, 3); for a single row", X[0], Y)
    refused(ValueError, "X has shape (0, 3) and is empty", X[:0], Y[:0])
    refused(ValueError, "Y has shape (5, 2), expected (6, 2)", X, Y[:5])
    refused(ValueError, "Y has shape (6,), expected (6, 2)", X, Y[:, 0])
    refused(ValueError, "for class labels use output='softmax' and loss='categorical_cr", X, [0, 1] * 3)
    refused(ValueError, "X holds NaN or infinity", X * np.nan, Y)
    refused(ValueError, "Y holds NaN or infinity", X, Y * np.inf)
    refused(
        ValueError,
        "Y has values from -1 to 2, loss='binary_crossentropy' needs targets in [0, 1]",
        X,
        np.array([[-1, 2]] * 6),
    )
    refused(TypeError, "X has dtype complex128", X * 1j, Y)
    refused(TypeError, "Y has dtype object", X, Y.astype(object))
    for bad in (fastbp.SGD, "adam", None, 0.1):
        with pytest.raises(TypeError, match="optimizer must be an object like"):
            model.train_step(X, Y, bad)
    with pytest.raises(TypeError, match="trace must be what forward returned"):
        model.backward(X, Y)
    other = module.MLP([3, 4, 2], seed=0)
    with pytest.raises(ValueError, match="trace is not of this model"):
        model.backward(other.forward(X), Y)
    for p, b in zip((*model.weights, *model.biases), before, strict=True):
        assert np.array_equal(p, b)


# ---- parameters ---------------------------------------------------------------------------------------


def test_arrays_put_in_the_place_of_parameters_are_used(module):
    X, Y = data(6, [3, 2])
    model = module.MLP([3, 5, 2], dtype="float64", seed=0)
    other = module.MLP([3, 5, 2], dtype="float64", seed=1)
    model.weights = [W.copy() for W in other.weights]
    model.biases[1] = [0.25, -0.5]
    other.biases[1][:] = [0.25, -0.5]
    assert np.array_equal(model.predict(X), other.predict(X))
    W = model.weights[0]
    model.train_step(X, Y, module.SGD(0.1))
    assert model.weights[0] is W  # from now on it is the model's array
    model.weights[0] = np.zeros((3, 4))
    with pytest.raises(ValueError, match=re.escape("weights[0] has shape (3, 4), expected (3, 5)")):
        model.predict(X)
    model.weights = model.weights[:1]
    with pytest.raises(ValueError, match="2 layers, but 1 weights and 2 biases"):
        model.predict(X)


@pytest.mark.parametrize("name", ["weights[1]", "biases[0]"])
def test_read_only_parameters_are_not_trained(module, name):
    X, Y = data(6, [3, 2])
    model = module.MLP([3, 5, 2], seed=0)
    before = model.parameters.flat.copy()
    (model.weights[1] if "weights" in name else model.biases[0]).flags.writeable = False
    for train in (model.train_step, lambda X, Y, o: model.fit(X, Y, epochs=1, optimizer=o)):
        with pytest.raises(ValueError, match=re.escape(f"{name} is read-only, but would be updated")):
            train(X, Y, module.SGD(0.1))
    assert np.array_equal(model.parameters.flat, before)
    model.predict(X)


def test_copies_are_independent_and_complete(module):
    X, Y = data(20, [3, 2])
    model = module.MLP([3, 5, 2], seed=0)
    model.metadata["names"] = ["a", "b"]
    for duplicate in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = model.predict(X)
        assert np.array_equal(duplicate.predict(X), before)
        duplicate.fit(X, Y, epochs=3, optimizer=module.Adam())
        assert np.array_equal(model.predict(X), before)
        assert not np.array_equal(duplicate.predict(X), before)
        assert duplicate.metadata == {"names": ["a", "b"]}


def test_threads(dtype):
    X, Y = data(300, [40, 2], dtype=dtype)
    results = []
    for threads in (1, 2, None):
        model = fastbp.MLP([40, 64, 2], dtype=dtype, seed=0, threads=threads)
        model.fit(X, Y, epochs=2, batch_size=150, optimizer=fastbp.Adam())
        results.append(model.parameters.flat.tobytes())
    assert len(set(results)) == 1
