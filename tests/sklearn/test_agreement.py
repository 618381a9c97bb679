"""The same training as scikit-learn's: curves, numbers of epochs and coefficients, both run side by side."""

import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn as ours
from fastbp import losses

EPOCHS = 50
ROUNDING = {"float64": 1e-12, "float32": 2e-3}


def digits(dtype):
    X, y = load_digits(return_X_y=True)
    return (X[:500] / 16).astype(dtype), y[:500]


def quantities(dtype, outputs):
    X, y = make_regression(300, 12, n_targets=outputs, random_state=0)
    return X.astype(dtype), (y / 100).astype(dtype)


def both(kind, X, y, sample_weight=None, **settings):
    """(theirs, ours), fitted."""
    settings = {"random_state": 3, "max_iter": EPOCHS, "hidden_layer_sizes": (16, 8), **settings}
    found = []
    for module in (theirs, ours):
        estimator = getattr(module, kind)(**settings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found.append(estimator.fit(X, y, sample_weight=sample_weight))
    return found


def require_the_same(their, our, tolerance):
    assert our.n_iter_ == their.n_iter_
    assert our.t_ == their.t_
    assert our.n_layers_ == their.n_layers_ and our.n_outputs_ == their.n_outputs_
    assert our.out_activation_ == their.out_activation_
    np.testing.assert_allclose(our.loss_, their.loss_, rtol=tolerance, atol=tolerance)
    for name in ("loss_curve_", "validation_scores_"):
        mine, expected = getattr(our, name, None), getattr(their, name, None)
        assert (mine is None) == (expected is None), name
        if mine is not None:
            np.testing.assert_allclose(mine, expected, rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("best_loss_", "best_validation_score_"):
        mine, expected = getattr(our, name, None), getattr(their, name, None)
        assert (mine is None) == (expected is None), name
        if mine is not None:
            assert mine == pytest.approx(expected, rel=tolerance, abs=tolerance)
    pairs = zip(our.coefs_ + our.intercepts_, their.coefs_ + their.intercepts_, strict=True)
    for mine, expected in pairs:
        assert mine.dtype == expected.dtype
        np.testing.assert_allclose(mine, expected, rtol=tolerance, atol=tolerance)


SGD = {"solver": "sgd", "learning_rate_init": 0.05}
SETTINGS = {
    "adam": {},
    "adam, alpha": {"alpha": 1.0, "activation": "tanh"},
    "adam, betas and epsilon": {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3},
    "adam, beta_1 0": {"beta_1": 0.0},
    "sgd, nesterov": SGD,
    "sgd, momentum": {**SGD, "nesterovs_momentum": False, "momentum": 0.5},
    "sgd, no momentum": {**SGD, "momentum": 0, "activation": "logistic", "learning_rate_init": 0.5},
    "sgd, momentum 1": {**SGD, "momentum": 1.0, "learning_rate_init": 1e-3},
    "sgd, invscaling": {**SGD, "learning_rate": "invscaling", "power_t": 0.3, "learning_rate_init": 0.5},
    "sgd, invscaling, no nesterov": {
        **SGD, "learning_rate": "invscaling", "learning_rate_init": 0.5, "nesterovs_momentum": False,
    },
    "sgd, adaptive": {
        **SGD, "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 2, "max_iter": 80,
    },
    # All steps of an epoch are alike in what they take from the optimizer, and those of the next are not.
    "sgd, invscaling, equal batches": {
        **SGD, "learning_rate": "invscaling", "learning_rate_init": 0.5, "batch_size": 100,
    },
    "sgd, adaptive, equal batches": {
        **SGD, "learning_rate": "adaptive", "tol": 1e-2, "n_iter_no_change": 2, "max_iter": 80,
        "batch_size": 100,
    },
    "sgd, alpha": {**SGD, "alpha": 0.5},
    "early stopping": {"early_stopping": True, "n_iter_no_change": 4, "learning_rate_init": 0.01},
    "early stopping, adaptive": {
        **SGD, "early_stopping": True, "learning_rate": "adaptive", "n_iter_no_change": 2, "tol": 1e-3,
    },
    "tol": {"tol": 1e-1, "n_iter_no_change": 3},
    "no shuffling": {"shuffle": False, "batch_size": 64},
    "batches of 37": {"batch_size": 37, "max_iter": 20},
    "one batch": {"batch_size": 500},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "identity": {"activation": "identity"},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_training_is_the_same_in_float64(name):
    require_the_same(*both("MLPClassifier", *digits("float64"), **SETTINGS[name]), ROUNDING["float64"])


@pytest.mark.parametrize("name", ["adam", "sgd, nesterov", "sgd, invscaling", "early stopping"])
def test_training_is_the_same_to_rounding_in_float32(name):
    require_the_same(*both("MLPClassifier", *digits("float32"), **SETTINGS[name]), ROUNDING["float32"])


@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sample_weights(solver, early_stopping):
    X, y = digits("float64")
    weights = np.random.default_rng(0).random(len(y))
    settings = {"solver": solver, "early_stopping": early_stopping, "alpha": 0.1}
    require_the_same(*both("MLPClassifier", X, y, weights, **settings), ROUNDING["float64"])


def test_two_classes():
    X, y = digits("float64")
    require_the_same(*both("MLPClassifier", X, np.where(y > 4, "many", "few")), ROUNDING["float64"])
    their, our = both("MLPClassifier", X, y > 4, early_stopping=True)
    require_the_same(their, our, ROUNDING["float64"])
    np.testing.assert_allclose(our.predict_proba(X), their.predict_proba(X), rtol=1e-9)
    assert np.array_equal(our.predict(X), their.predict(X)) and our.predict(X).dtype == bool


@pytest.mark.parametrize("early_stopping", [False, True])
def test_sets_of_labels(early_stopping):
    X, y = make_multilabel_classification(200, random_state=0)
    their, our = both("MLPClassifier", X, y, early_stopping=early_stopping)
    require_the_same(their, our, ROUNDING["float64"])
    assert np.array_equal(our.predict(X), their.predict(X))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_quantities(outputs, solver, early_stopping):
    X, y = quantities("float64", outputs)
    settings = {"solver": solver, "early_stopping": early_stopping, "alpha": 0.1, "batch_size": 40}
    weights = np.random.default_rng(0).random(len(y)) + 0.1
    for sample_weight in (None, weights):
        their, our = both("MLPRegressor", X, y, sample_weight, **settings)
        require_the_same(their, our, ROUNDING["float64"])
    np.testing.assert_allclose(our.predict(X), their.predict(X), rtol=1e-9, atol=1e-12)


@pytest.mark.skipif("poisson" not in losses.LOSSES, reason="the loss is not there yet")
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_counts(solver):
    X, y = quantities("float64", 1)
    y = np.round(np.exp(y))
    settings = {"solver": solver, "loss": "poisson", "alpha": 0.1, "learning_rate_init": 1e-3}
    require_the_same(*both("MLPRegressor", X, y, **settings), ROUNDING["float64"])


@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_lbfgs(kind, dtype):
    """A line search makes more of rounding with each iteration; over few of them it stays small."""
    X, y = digits(dtype) if kind == "MLPClassifier" else quantities(dtype, 3)
    weights = np.random.default_rng(0).random(len(y))
    for sample_weight in (None, weights):
        settings = {"solver": "lbfgs", "max_iter": 20, "alpha": 0.1}
        tolerance = 1e-7 if dtype == "float64" else 1e-3  # of float32, scikit-learn computes some in float32
        require_the_same(*both(kind, X, y, sample_weight, **settings), tolerance)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_going_on(solver):
    """partial_fit after fit goes on with the optimizer's state, a warm start begins a new one."""
    X, y = digits("float64")
    settings = {"random_state": 0, "max_iter": 4, "solver": solver, "hidden_layer_sizes": 8, "tol": 0}
    their, our = (module.MLPClassifier(warm_start=True, **settings) for module in (theirs, ours))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for estimator in (their, our):
            estimator.fit(X, y).fit(X, y)
            for rows in (slice(0, 250), slice(250, 500)):
                estimator.partial_fit(X[rows], np.concatenate([y[rows][:-10], np.arange(10)]))
    require_the_same(their, our, ROUNDING["float64"])


def test_differences_are_seen():
    """The comparison rejects a training that is another one."""
    X, y = digits("float64")
    their, our = both("MLPClassifier", X, y, max_iter=2)
    our.coefs_[1][0, 0] += 1e-9
    with pytest.raises(AssertionError):
        require_the_same(their, our, ROUNDING["float64"])
