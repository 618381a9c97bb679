"""Metrics: cases worked out by hand, scikit-learn's values, and what fit takes and refuses."""

import re

import numpy as np
import pytest

import fastbp
from fastbp import metrics

# ---- the functions, by hand ---------------------------------------------------------------------------


def test_accuracy_of_one_output():
    y_pred = [[0.5], [0.51], [0.2], [0.9]]
    assert metrics.accuracy([[0], [1], [1], [1]], y_pred) == 0.75  # 0.5 is not above it
    assert metrics.accuracy([0, 1, 1, 1], np.ravel(y_pred)) == 0.75
    assert metrics.accuracy([[-1], [1], [-1.0], [1]], [[0.0], [0.1], [-3], [-0.1]]) == 0.75
    assert metrics.accuracy([1, 1], [0.2, -0.2], threshold=0) == 0.5


def test_accuracy_of_several_outputs():
    y_pred = [[0.1, 0.7, 0.2], [0.4, 0.4, 0.2], [0, 0, 1], [1, 0, 0]]
    labels = [1, 1, 2, 0]
    for y_true in (labels, np.array(labels)[:, None], np.eye(3)[labels], 2 * np.eye(3)[labels] - 1):
        assert metrics.accuracy(y_true, y_pred) == 0.75  # of two equal outputs the first


def test_top_k():
    y_pred = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.3, 0.3, 0.3], [0.3, 0.3, 0.3]]
    labels = [1, 2, 0, 2]
    assert [metrics.top_k(labels, y_pred, k) for k in (1, 2, 3)] == [0.25, 0.5, 1.0]
    assert metrics.top_k(np.eye(3)[labels], y_pred, 2) == 0.5
    assert metrics.top_k(labels, y_pred, 1) == metrics.accuracy(labels, y_pred)
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k is {k}"):
            metrics.top_k(labels, y_pred, k)


def test_r2():
    y_true = np.array([[1.0, 10], [2, 10], [3, 10]])
    assert metrics.r2(y_true, y_true) == 1
    assert metrics.r2(y_true[:, :1], [[2.0], [2], [2]]) == 0
    assert metrics.r2(y_true[:, 0], [1, 2, 4]) == 0.5  # 1 - 1/2
    assert metrics.r2(y_true, [[1, 10], [2, 10], [4, 10]]) == 0.75
    assert metrics.r2(y_true, [[1, 10], [2, 10], [4, 11]]) == 0.25  # a constant column, missed
    assert metrics.r2([0.1] * 3, [0.1] * 3) == 1
    assert metrics.r2([0.1] * 3, [0.1, 0.1, 0.2]) == 0
    with pytest.raises(ValueError, match="r2 needs two rows"):
        metrics.r2([[1.0]], [[1.0]])


def test_mae():
    assert metrics.mae([[1.0, 2], [3, 4]], [[1, 0], [4, 5]]) == 1.0  # (0 + 2 + 1 + 1) / 4
    far = np.float32(3e38)
    assert metrics.mae(np.array([[far]]), np.array([[-far]])) == pytest.approx(6e38)  # float64 inside


def test_auc():
    assert metrics.auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert metrics.auc([[-1], [1], [1]], [[0.0], [0.0], [1.0]]) == 0.75  # a tie is half a pair
    assert metrics.auc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    assert metrics.auc([0, 1], [0, 1]) == 1
    assert metrics.auc([1, 0], [0, 1]) == 0
    for y_true in ([1, 1], [0, 0]):
        with pytest.raises(ValueError, match="auc needs rows of both classes"):
            metrics.auc(y_true, [0.1, 0.2])


@pytest.mark.parametrize("rows", [2, 13, 100, 3001])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_auc_is_the_share_of_pairs(rows, dtype):
    rng = np.random.default_rng(rows)
    y_true = rng.random(rows) < 0.3
    y_true[:2] = 0, 1
    y_pred = rng.integers(0, 40, rows).astype(dtype)  # many ties
    difference = np.sign(y_pred[y_true][:, None] - y_pred[~y_true])
    assert metrics.auc(y_true, y_pred) == pytest.approx((0.5 + 0.5 * difference).mean(), rel=1e-12)


@pytest.mark.parametrize("rows", [2, 15, 33, 500])
def test_as_in_scikit_learn(rows):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(rows)
    scores, labels = rng.random((rows, 5)), rng.integers(0, 5, rows)
    y_true, y_pred = rng.standard_normal((rows, 3)), rng.standard_normal((rows, 3))
    y_true[:, 1] = 0.5
    binary = rng.random(rows) < 0.5
    binary[:2] = 0, 1
    one = rng.random(rows).round(1)
    for ours, theirs in [
        (metrics.accuracy(labels, scores), sklearn.accuracy_score(labels, scores.argmax(axis=1))),
        (metrics.accuracy(binary, one), sklearn.accuracy_score(binary, one > 0.5)),
        (
            metrics.top_k(labels, scores, 3),
            sklearn.top_k_accuracy_score(labels, scores, k=3, labels=range(5)),
        ),
        (metrics.r2(y_true, y_pred), sklearn.r2_score(y_true, y_pred)),
        (metrics.mae(y_true, y_pred), sklearn.mean_absolute_error(y_true, y_pred)),
        (metrics.auc(binary, one), sklearn.roc_auc_score(binary, one)),
    ]:
        assert ours == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("function", "y_true", "y_pred", "message"),
    [
        (
            metrics.accuracy,
            [[0], [2]],
            [[0.1], [0.2]],
            "y_true holds 2, expected classes: 0 and 1, or -1 and 1",
        ),
        (metrics.accuracy, [[0], [-1]], [[0.1], [0.2]], "y_true holds 0 and -1, expected classes"),
        (metrics.accuracy, [0, 3], [[1, 2, 3], [1, 2, 3]], "y_true holds the label 3, expected 0 to 2"),
        (metrics.accuracy, [0, -1], [[1, 2, 3], [1, 2, 3]], "y_true holds the label -1, expected 0 to 2"),
        (metrics.accuracy, [[1, 1, 0]], [[1, 2, 3]], "y_true does not name one class a row"),
        (metrics.accuracy, [[0, 0, 0]], [[1, 2, 3]], "y_true does not name one class a row"),
        (metrics.accuracy, [[0.9, 0.1, 0]], [[1, 2, 3]], "y_true does not name one class a row"),
        (
            metrics.accuracy,
            [0.0, 1.0],
            [[1, 2, 3], [1, 2, 3]],
            "y_true has shape (2,), expected that of y_pred",
        ),
        (
            metrics.mae,
            [[1.0], [2]],
            [[1.0], [2], [3]],
            "y_true has shape (2, 1), expected that of y_pred, (3, 1)",
        ),
        (metrics.mae, [1, 2], [[1.0, 2], [3, 4]], "y_true has shape (2,), labels, but quantities"),
        (metrics.mae, np.zeros((1, 1, 1)), [[1.0]], "expected one or two dimensions"),
        (metrics.mae, np.zeros((0, 1)), np.zeros((0, 1)), "y_pred has shape (0, 1) and is empty"),
        (metrics.auc, np.eye(2), np.eye(2), "auc is for one output, y_pred has 2 columns"),
    ],
)
def test_what_is_refused(function, y_true, y_pred, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(y_true, y_pred)


def test_types_that_are_refused():
    with pytest.raises(TypeError, match="y_true has dtype <U1, expected real numbers"):
        metrics.accuracy(["a"], [1.0])


# ---- in fit -------------------------------------------------------------------------------------------


def classes(rows=60, k=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 4))
    return X, X[:, :k].argmax(axis=1)


def test_fit_records_what_the_functions_say(module, dtype):
    X, labels = classes()
    Y = np.eye(3)[labels]
    V, W = X[:20], Y[:20]
    seen = []

    def mine(y_true, y_pred):
        seen.append((y_true.copy(), y_pred.copy()))
        return np.float32(len(seen))

    model = module.MLP([4, 8, 3], dtype=dtype, seed=0)
    history = model.fit(
        X,
        Y,
        epochs=3,
        optimizer=module.Adam(0.05),
        validation_data=(V, W),
        metrics=["accuracy", "top_k(2)", metrics.r2, "mae", mine],
    )
    assert list(history.val_metrics) == ["accuracy", "top_k(2)", "r2", "mae", "mine"]
    y_pred = model.predict(V)
    assert history.val_metrics["accuracy"].shape == (3,)
    assert history.val_metrics["accuracy"][-1] == metrics.accuracy(labels[:20], y_pred)
    assert history.val_metrics["top_k(2)"][-1] == metrics.top_k(labels[:20], y_pred, 2)
    assert history.val_metrics["r2"][-1] == pytest.approx(metrics.r2(W, y_pred), rel=1e-5)
    assert history.val_metrics["mae"][-1] == pytest.approx(metrics.mae(W, y_pred), rel=1e-5)
    assert history.val_metrics["mine"].tolist() == [1, 2, 3]
    assert history.val_loss[-1] == model.loss(V, W)
    assert np.array_equal(seen[-1][0], W)
    np.testing.assert_allclose(seen[-1][1], y_pred, rtol=1e-5)
    assert seen[-1][1].dtype == dtype


def test_hinge_and_auc_in_fit(module):
    X, labels = classes(k=2)
    signs = 2.0 * labels[:, None] - 1
    model = module.MLP([4, 8, 1], output="identity", loss="hinge", seed=0)
    options = {"epochs": 2, "optimizer": module.Adam(0.1)}
    history = model.fit(X, signs, **options, validation_data=(X, signs), metrics=("accuracy", "auc"))
    y_pred = model.predict(X)
    assert history.val_metrics["accuracy"][-1] == (np.sign(y_pred) == signs).mean()
    assert history.val_metrics["auc"][-1] == metrics.auc(labels, y_pred)
    ones = signs > 0  # validation data of one class: the threshold is that of hinge
    V = X[ones[:, 0]]
    history = model.fit(X, signs, **options, validation_data=(V, np.ones((len(V), 1))), metrics="accuracy")
    assert history.val_metrics["accuracy"][-1] == (model.predict(V) > 0).mean()


@pytest.mark.parametrize(
    ("error", "message", "loss", "targets", "chosen"),
    [
        (ValueError, "unknown metric 'acuracy', expected one of 'accuracy'", "mse", "binary", "acuracy"),
        (TypeError, "metric must be a name", "mse", "binary", [3]),
        (TypeError, "metrics must be a list of names or functions, got 3", "mse", "binary", 3),
        (ValueError, "metrics holds 'mae', which is there twice", "mse", "real", ["mae", metrics.mae]),
        (ValueError, "metric is 'top_k(x)', expected a number", "mse", "three", "top_k(x)"),
        (ValueError, "metric is 'top_k(0)', expected a number", "mse", "three", "top_k(0)"),
        (ValueError, "metric 'top_k(3)' is always 1 for a model with 3 outputs", "mse", "three", "top_k(3)"),
        (
            ValueError,
            "metric 'accuracy' does not fit the validation data: y_true holds",
            "mse",
            "real",
            "accuracy",
        ),
        (ValueError, "metric 'accuracy' does not fit", "mse", "several", "accuracy"),
        (ValueError, "metric 'auc' does not fit the validation data: auc is for one", "mse", "three", "auc"),
        (
            ValueError,
            "metric 'auc' does not fit the validation data: auc needs rows of both",
            "mse",
            "ones",
            "auc",
        ),
        (ValueError, "metric 'r2' is for quantities, loss='hinge' is for classes", "hinge", "ones", "r2"),
    ],
)
def test_what_fit_refuses_before_training(module, error, message, loss, targets, chosen):
    X, labels = classes()
    rng = np.random.default_rng(1)
    Y = {
        "binary": (labels == 0)[:, None],
        "three": np.eye(3)[labels],
        "real": rng.random((60, 1)),
        "several": rng.random((60, 2)),
        "ones": np.ones((60, 1)),
    }[targets]
    output = "identity" if loss == "hinge" else "sigmoid"
    model = module.MLP([4, 5, Y.shape[1]], output=output, loss=loss, seed=0)
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=re.escape(message)):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), validation_data=(X, Y), metrics=chosen)
    assert np.array_equal(model.parameters.flat, before)
    with pytest.raises(ValueError, match="metrics are computed on validation data"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), metrics="mae")


def test_a_function_must_return_a_number():
    X, _ = classes()
    model = fastbp.MLP([4, 5, 1], output="identity", seed=0)
    with pytest.raises(TypeError, match="metric 'nothing' must return a number, got None"):

        def nothing(y_true, y_pred):
            return None

        model.fit(
            X, X[:, :1], epochs=1, optimizer=fastbp.SGD(0.1), validation_data=(X, X[:, :1]), metrics=[nothing]
        )
    model.predict(X)
