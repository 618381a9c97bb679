"""Targets that are classes, and the weights of samples and classes: what they mean, and what is refused."""

import pickle
import re

import numpy as np
import pytest

import fastbp
from fastbp.training.start import split_rows

N, K = 37, 5


def data(dtype="float64", classes=K):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((N, 4)).astype(dtype)
    return X, rng.integers(0, classes, N)


def classifier(module, loss="categorical_crossentropy", outputs=K, dtype="float64", **options):
    output = {"categorical_crossentropy": "softmax", "binary_crossentropy": "sigmoid"}.get(
        loss.partition("(")[0], "identity"
    )
    return module.MLP(
        [4, 7, outputs], hidden="tanh", output=output, loss=loss, dtype=dtype, seed=1, **options
    )


def fitted(module, Y, loss="categorical_crossentropy", outputs=K, reduction="mean", X=None, **options):
    model = classifier(module, loss, outputs, reduction=reduction)
    X = data()[0] if X is None else X
    options = {"epochs": 2, "batch_size": 8, "optimizer": module.SGD(0.05), **options}
    history = model.fit(X, Y, **options)
    return model.parameters.flat, history.loss


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


# ---- classes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "categorical_crossentropy(0.2)"])
def test_labels_are_one_hot_rows(module, loss):
    X, labels = data()
    expected = fitted(module, np.eye(K)[labels], loss)
    for given in (
        labels,
        labels.tolist(),
        labels[:, None],
        labels.astype(np.uint8),
        labels.astype(np.float32),
        np.eye(K, dtype=int)[labels],
    ):
        assert_same(fitted(module, given, loss), expected)
    model = classifier(module, loss)
    one_hot = np.eye(K)[labels]
    assert model.loss(X, labels) == model.loss(X, one_hot)
    assert str(model.check_gradients(X, labels)) == str(model.check_gradients(X, one_hot))
    assert str(model.diagnose(X, labels)) == str(model.diagnose(X, one_hot))
    assert_same(*(model.backward(model.forward(X), Y).weights for Y in (labels, one_hot)))
    validated = model.fit(X, labels, epochs=1, optimizer=module.SGD(0.0), validation_data=(X, labels))
    assert validated.val_loss[0] == pytest.approx(model.loss(X, labels), rel=1e-12)


def test_smoothing(module):
    """Each class gets a share; probabilities can be smoothed as well as labels."""
    X, labels = data()
    smoothed = np.eye(K)[labels] * 0.7 + 0.3 / K
    plain, smoothing = classifier(module), classifier(module, "categorical_crossentropy(0.3)")
    assert smoothing.loss(X, labels) == pytest.approx(plain.loss(X, smoothed), rel=1e-14)
    assert smoothing.loss(X, smoothed) == pytest.approx(plain.loss(X, smoothed * 0.7 + 0.3 / K), rel=1e-14)
    again = pickle.loads(pickle.dumps(smoothing))
    assert again.loss(X, labels) == smoothing.loss(X, labels)


@pytest.mark.parametrize("text", ["", "x", "-0.1", "1", "nan"])
def test_smoothing_that_is_refused(module, text):
    name = f"categorical_crossentropy({text})"
    with pytest.raises(ValueError, match=re.escape(f"loss is {name!r}, expected the label smoothing")):
        module.MLP([1, 2], output="softmax", loss=name)


@pytest.mark.parametrize(
    ("error", "message", "Y"),
    [
        (ValueError, "Y[2] is 5, expected class labels 0..4 (the model has 5 outputs)", [0, 1, 5]),
        (ValueError, "Y[0] is -1, expected class labels 0..4", [-1, 1, 4]),
        (ValueError, "Y[1] is 1.5, expected class labels 0..4", [0, 1.5, 2]),
        (ValueError, "Y[1] is nan, expected class labels 0..4", [0, np.nan, 2]),
        (TypeError, "Y has dtype <U1, expected class labels 0..4", ["a", "b", "c"]),
        (ValueError, "Y has 2 labels, X has 3 rows", [0, 1]),
        (ValueError, "Y has 4 labels, X has 3 rows", [[0], [1], [2], [3]]),
        (ValueError, "Y has shape (3, 4), expected (3, 5)", np.full((3, 4), 0.25)),
        (ValueError, "or (3,), a class label 0..4 for each row", np.full((3, 4), 0.25)),
        (ValueError, "Y has shape (), expected (3, 5)", 1),
        (ValueError, "Y[1, 3] is -0.5, loss='categorical_crossentropy' needs rows of probabilities",
         [[1, 0, 0, 0, 0], [1, 0.25, 0.25, -0.5, 0], [1, 0, 0, 0, 0]]),
        (ValueError, "row 2 of Y has the sum 0.9, loss='categorical_crossentropy' needs rows of pro",
         [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0.4, 0.5, 0, 0]]),
    ],
)  # fmt: skip
def test_targets_that_are_refused(module, error, message, Y):
    model = classifier(module)
    before = model.parameters.flat.copy()
    X = np.ones((3, 4))
    for call in (
        lambda: model.loss(X, Y),
        lambda: model.train_step(X, Y, module.SGD(0.1)),
        lambda: model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1)),
        lambda: model.diagnose(X, Y),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()
    assert np.array_equal(model.parameters.flat, before)


def test_float32_probabilities_may_be_rounded(module):
    rows = np.random.default_rng(0).random((N, K)).astype(np.float32)
    rows /= rows.sum(axis=1, keepdims=True)
    model = classifier(module)
    model.loss(data()[0], rows)
    assert model.check_gradients(data()[0], rows).passed


@pytest.mark.parametrize("outputs", [2, 10, 13, 20])
@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_large_logits(module, dtype, outputs, scale):
    """No overflow and no warning (they are errors here); the loss is a difference of logits."""
    X = np.ones((6, 4), dtype)
    model = classifier(module, outputs=outputs, dtype=dtype)
    model.weights[1][...] = 0
    model.biases[1][...] = np.linspace(-scale, scale, outputs)
    labels = np.array([0, 0, 1, outputs - 1, outputs - 1, 0])
    y = model.predict(X)
    np.testing.assert_array_equal(y, np.eye(outputs)[[-1] * 6])
    logits = model.biases[1].astype(np.float64)
    expected = (logits[-1] - logits[labels]).mean()
    assert model.loss(X, labels) == pytest.approx(expected, rel=1e-6)
    assert model.train_step(X, labels, module.SGD(0.0)) == pytest.approx(expected, rel=1e-6)
    gradient = model.backward(model.forward(X), labels).biases[1]
    expected = y.mean(axis=0) - np.bincount(labels, minlength=outputs) / 6
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    np.testing.assert_array_equal(model.predict(np.ones((30, 4), dtype))[:6], y)


def weighted(weights):
    return {"sample_weight": weights}


# ---- weights --------------------------------------------------------------------------------------------

LOSSES = ["categorical_crossentropy(0.1)", "binary_crossentropy", "hinge", "mse", "huber(0.3)", "mae"]


def targets_of(loss, outputs):
    rng = np.random.default_rng(5)
    if loss.startswith("categorical"):
        return rng.integers(0, outputs, N)
    return np.where(rng.random((N, outputs)) < 0.5, -1 if loss == "hinge" else 0, 1)


@pytest.mark.parametrize("outputs", [3, 20])
@pytest.mark.parametrize("loss", LOSSES)
def test_weight_0_leaves_out_and_2_repeats(module, loss, outputs):
    X, Y = data()[0], targets_of(loss, outputs)
    weights = np.random.default_rng(6).choice([0, 1, 2], N)
    repeated = np.repeat(np.arange(N), weights)
    model = classifier(module, loss, outputs, reduction="sum")
    assert model.loss(X, Y, sample_weight=weights) == pytest.approx(
        model.loss(X[repeated], Y[repeated]), rel=1e-13
    )
    options = {"batch_size": 2 * N, "shuffle": False, "optimizer": module.SGD(0.01)}
    one = fitted(module, Y, loss, outputs, "sum", sample_weight=weights, **options)
    other = fitted(module, Y[repeated], loss, outputs, "sum", X=X[repeated], **options)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("outputs", [3, 20])
@pytest.mark.parametrize("loss", LOSSES)
def test_weight_1_is_no_weight(module, loss, outputs):
    Y = targets_of(loss, outputs)
    assert_same(fitted(module, Y, loss, outputs, sample_weight=np.ones(N)), fitted(module, Y, loss, outputs))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_mean_is_over_rows(module, loss):
    X, Y = data()[0], targets_of(loss, 3)
    model = classifier(module, loss, 3)
    each = [model.loss(X[i : i + 1], Y[i : i + 1]) for i in range(N)]
    weights = np.random.default_rng(7).random(N)
    expected = np.dot(each, weights) / N
    assert model.loss(X, Y, sample_weight=weights) == pytest.approx(expected, rel=1e-13)
    history = model.fit(
        X,
        Y,
        epochs=1,
        batch_size=9,
        optimizer=module.SGD(0.0),
        sample_weight=weights,
        validation_data=(X, Y, weights),
    )
    assert history.loss[0] == pytest.approx(expected, rel=1e-12)
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("outputs", [3, 20])
def test_accumulated_and_partial(module, outputs):
    """Gradients added up, and data that come in pieces, take the weights along."""
    X, Y = data()[0], targets_of("categorical", outputs)
    weights = np.random.default_rng(9).random(N)
    loss = "categorical_crossentropy(0.1)"
    whole = fitted(module, Y, loss, outputs, batch_size=16, sample_weight=weights)
    parts = fitted(module, Y, loss, outputs, batch_size=4, accumulate=4, sample_weight=weights)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-10, atol=1e-13)
    model, optimizer = classifier(module, loss, outputs), module.SGD(0.05)
    for _ in range(2):
        model.partial_fit(X, Y, batch_size=16, shuffle=False, optimizer=optimizer, sample_weight=weights)
    expected = fitted(module, Y, loss, outputs, batch_size=16, shuffle=False, sample_weight=weights)
    np.testing.assert_array_equal(model.parameters.flat, expected[0])


def test_the_split_takes_weights_along(module):
    """Of the samples, not of the classes: these are for training, and balanced over what is trained on."""
    X, labels = data()
    weights, of_class = np.linspace(0.5, 2, N), [1, 2, 3, 4, 5]
    model = classifier(module)
    rows, held = split_rows(model, N, 0.3)
    options = {"epochs": 2, "batch_size": 8, "optimizer": module.SGD(0.1), "metrics": ["accuracy"]}
    history = model.fit(
        X, labels, sample_weight=weights, class_weight=of_class, validation_split=0.3, **options
    )
    other = classifier(module)
    expected = other.fit(
        X[rows],
        labels[rows],
        sample_weight=weights[rows] * np.array(of_class)[labels[rows]],
        validation_data=(X[held], labels[held], weights[held]),
        **options,
    )
    np.testing.assert_array_equal(model.parameters.flat, other.parameters.flat)
    assert_same(history.val_loss, expected.val_loss)
    assert_same(history.val_metrics["accuracy"], expected.val_metrics["accuracy"])


def test_class_weights(module):
    labels = data()[1]
    of_class = np.array([1.0, 2.0, 0.5, 0.0, 3.0])
    expected = fitted(module, labels, sample_weight=of_class[labels])
    assert_same(fitted(module, labels, class_weight=of_class), expected)
    assert_same(fitted(module, np.eye(K)[labels], class_weight=list(of_class)), expected)
    assert_same(fitted(module, labels, class_weight={1: 2, 2: 0.5, 3: 0, np.int64(4): 3}), expected)
    own = np.linspace(0, 1, N)
    both = fitted(module, labels, class_weight=of_class, sample_weight=own)
    assert_same(both, fitted(module, labels, sample_weight=own * of_class[labels]))


@pytest.mark.parametrize("loss", ["binary_crossentropy", "hinge"])
def test_class_weights_of_one_output(module, loss):
    Y = targets_of(loss, 1)
    low = Y.min()
    expected = fitted(module, Y, loss, 1, sample_weight=np.where(Y[:, 0] == 1, 3.0, 0.5))
    assert_same(fitted(module, Y, loss, 1, class_weight={low: 0.5, 1: 3}), expected)
    assert_same(fitted(module, Y, loss, 1, class_weight=[0.5, 3]), expected)
    counts = np.array([(Y != 1).sum(), (Y == 1).sum()])
    balanced = (N / (2 * counts))[(Y[:, 0] == 1).astype(int)]
    actual = fitted(module, Y, loss, 1, class_weight="balanced")
    np.testing.assert_allclose(actual[0], fitted(module, Y, loss, 1, sample_weight=balanced)[0], rtol=1e-12)


def test_balanced_like_scikit_learn(module):
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = np.repeat([0, 1, 4], [20, 12, 5])  # 2 and 3 do not occur
    expected = sklearn.compute_sample_weight("balanced", labels)
    actual = fitted(module, labels, class_weight="balanced")
    for a, b in zip(actual, fitted(module, labels, sample_weight=expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


def test_like_torch():
    """Weights and smoothing. PyTorch's own class weights divide by the sum of the weights."""
    torch = pytest.importorskip("torch")
    X, labels = data()
    weights = np.random.default_rng(8).random(N)
    model = classifier(fastbp, "categorical_crossentropy(0.1)")
    W = [torch.tensor(p.copy(), requires_grad=True) for p in (*model.weights, *model.biases)]
    z = torch.tanh(torch.tensor(X) @ W[0] + W[2]) @ W[1] + W[3]
    each = torch.nn.functional.cross_entropy(z, torch.tensor(labels), reduction="none", label_smoothing=0.1)
    loss = (each * torch.tensor(weights)).mean()
    loss.backward()
    assert model.loss(X, labels, sample_weight=weights) == pytest.approx(loss.item(), rel=1e-13)
    ours = model.backward(model.forward(X), labels, sample_weight=weights)
    for a, b in zip((*ours.weights, *ours.biases), W, strict=True):
        np.testing.assert_allclose(a, b.grad.numpy(), rtol=1e-10, atol=1e-15)

    of_class = np.array([1.0, 2.0, 0.5, 0.1, 3.0])
    plain = classifier(fastbp)
    z = torch.tensor(plain.forward(X).z[-1])
    theirs = torch.nn.functional.cross_entropy(z, torch.tensor(labels), weight=torch.tensor(of_class)).item()
    history = plain.fit(X, labels, epochs=1, batch_size=N, optimizer=fastbp.SGD(0.0), class_weight=of_class)
    assert history.loss[0] == pytest.approx(theirs * of_class[labels].sum() / N, rel=1e-13)


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "sample_weight has shape (3,), expected (37,): one weight for each", weighted([1] * 3)),
        (ValueError, "sample_weight has shape (37, 1), expected (37,)", weighted(np.ones((N, 1)))),
        (ValueError, "sample_weight[4] is -1, expected a finite number", weighted([1] * 4 + [-1] * 33)),
        (ValueError, "sample_weight[36] is nan, expected a finite", weighted([1] * 36 + [np.nan])),
        (ValueError, "sample_weight[0] is inf, expected a finite number", weighted([np.inf] * N)),
        (ValueError, "weights go up to 1e+300, which is infinite in float32", weighted([1e300] * N)),
        (TypeError, "sample_weight has dtype <U8, expected real numbers", weighted("balanced")),
        (ValueError, "unknown class_weight 'balance', expected 'balanced'", {"class_weight": "balance"}),
        (ValueError, "class_weight has the key 5, classes are 0, 1, 2, 3, 4", {"class_weight": {0: 1, 5: 2}}),
        (ValueError, "class_weight has the key 'a', classes are 0, 1", {"class_weight": {"a": 1}}),
        (ValueError, "class_weight[1] is -2, expected a finite number", {"class_weight": {1: -2}}),
        (ValueError, "class_weight has shape (2,), expected (5,): one weight", {"class_weight": [1, 2]}),
        (ValueError, "validation_data[2] has shape (1,), expected", {"validation_data": (*data(), [1])}),
        (TypeError, "validation_data must be a pair (X, Y), or (X, Y, sample", {"validation_data": (1,)}),
    ],
)  # fmt: skip
def test_weights_that_are_refused(module, error, message, options):
    model = classifier(module, dtype="float32")
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=re.escape(message)):
        model.fit(*data("float32"), epochs=1, optimizer=module.SGD(0.1), **options)
    assert np.array_equal(model.parameters.flat, before)


@pytest.mark.parametrize("outputs", [2, 3])
@pytest.mark.parametrize("loss", ["mse", "huber", "binary_crossentropy", "hinge"])
def test_class_weights_need_classes(module, loss, outputs):
    model = classifier(module, loss, outputs)
    with pytest.raises(ValueError, match=re.escape(f"this model has loss={loss!r} and {outputs} output")):
        model.fit(
            data()[0],
            targets_of(loss, outputs),
            epochs=1,
            optimizer=module.SGD(0.1),
            class_weight="balanced",
        )


def test_training_that_blows_up_is_diagnosed(module):
    """With the weights and the smoothing that the targets already have."""
    X, labels = data()
    model = classifier(module, "categorical_crossentropy(0.1)")
    with pytest.raises(FloatingPointError, match="With them: "):
        model.fit(
            X,
            labels,
            epochs=400,
            optimizer=module.SGD(1e308),
            sample_weight=np.full(N, 2.0),
        )
    assert np.isfinite(model.parameters.flat).all()
