"""What our estimators do that scikit-learn's do not, and that a failing call leaves them as they were."""

import copy
import math
import os
import signal
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier

import fastbp
from fastbp.engine.plan import Plan
from fastbp.network import plans
from fastbp.network.spare_plans import SparePlans
from fastbp.sklearn import MLPClassifier, MLPRegressor, base

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
SMALL = {"hidden_layer_sizes": 6, "max_iter": 30, "random_state": 0, "learning_rate_init": 0.01}


def fitted(kind=MLPClassifier, **settings):
    return kind(**{**SMALL, **settings}).fit(X, Y)


# ---- extras ----------------------------------------------------------------------------------------------


def test_dropout_and_layer_normalisation_are_the_networks():
    model = fitted(dropout=0.25, layer_norm=True)
    assert model.model_.dropout == (0.25,) and model.model_.layer_norm
    assert len(model.model_.gains) == 1 and model.score(X, Y) > 0.8
    again = fitted(dropout=0.25, layer_norm=True)
    assert np.array_equal(again.coefs_[0], model.coefs_[0])
    assert not np.array_equal(fitted(dropout=0.25, random_state=1).coefs_[0], fitted(dropout=0.25).coefs_[0])
    with pytest.raises(
        ValueError, match="'dropout' parameter of MLPClassifier must be 0 with solver='lbfgs'"
    ):
        fitted(dropout=0.5, solver="lbfgs")


def test_class_weights_are_sample_weights():
    weighted = fitted(class_weight={0: 2.0, 1: 0.5, 2: 1.0})
    weights = np.array([2.0, 0.5, 1.0])[Y]
    assert np.array_equal(weighted.coefs_[0], MLPClassifier(**SMALL).fit(X, Y, weights).coefs_[0])
    both = MLPClassifier(**SMALL, class_weight={0: 2.0, 1: 0.5}).fit(X, Y, weights)
    assert np.array_equal(both.coefs_[0], MLPClassifier(**SMALL).fit(X, Y, weights**2).coefs_[0])
    names = np.array(["a", "b", "c"])[Y]
    named = MLPClassifier(**SMALL, class_weight={"a": 2.0, "b": 0.5}).fit(X, names)
    assert np.array_equal(named.coefs_[0], weighted.coefs_[0])
    assert fitted(class_weight="balanced").score(X, Y) > 0.8


def test_validation_data_of_ones_own():
    model = MLPClassifier(**SMALL, early_stopping=True, n_iter_no_change=3)
    model.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert len(model.validation_scores_) == model.n_iter_
    assert model.score(X[1::2], Y[1::2]) == model.best_validation_score_ == max(model.validation_scores_)
    seen = MLPRegressor(**SMALL).fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert len(seen.validation_scores_) == seen.n_iter_
    assert seen.validation_scores_[-1] == pytest.approx(seen.score(X[1::2], Y[1::2]))
    unseen = MLPRegressor(**SMALL).fit(X[::2], Y[::2])
    assert unseen.loss_curve_ == seen.loss_curve_
    with pytest.raises(ValueError, match="X_val is given, y_val is not"):
        MLPClassifier(**SMALL).fit(X, Y, X_val=X)


def test_what_a_callback_writes_is_trained_on():
    def forget(model, epoch, history):
        for array in (*model.weights, *model.biases):
            array[...] = 0

    assert all(np.all(array == 0) for array in fitted(callbacks=forget, max_iter=2).coefs_)
    model = fitted(callbacks=lambda *call: forget(*call) if call[1] < 3 else None, max_iter=3)
    # Adam has moved none by more than about its rate, once or twice; the first weights were some 0.5.
    assert 0 < max(np.abs(coefs).max() for coefs in (*model.coefs_, *model.intercepts_)) < 0.03


def test_callbacks_are_those_of_fit():
    seen = []
    model = MLPClassifier(**SMALL, callbacks=[lambda m, epoch, h: seen.append((epoch, h.last("loss")))])
    model.fit(X, Y)
    assert seen == list(enumerate(model.loss_curve_, 1))
    assert np.array_equal(model.coefs_[0], fitted().coefs_[0])
    stopped = fitted(callbacks=lambda m, epoch, h: epoch == 7)
    assert stopped.n_iter_ == 7
    stopping = fastbp.EarlyStopping("val_score", mode="max", patience=3)
    best = MLPClassifier(**SMALL, callbacks=stopping).fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert best.score(X[1::2], Y[1::2]) == max(best.validation_scores_)
    lowest = MLPClassifier(**SMALL, callbacks=fastbp.EarlyStopping(patience=3))
    lowest.fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    with pytest.raises(ValueError, match="val_loss"):
        fitted(callbacks=fastbp.EarlyStopping())


def test_epochs_in_one_piece_are_the_same_as_one_by_one(capsys):
    """Without anybody who wants to hear of each, several run in one entry into compiled code."""
    for settings in ({"n_iter_no_change": 4, "tol": 1e-2, "max_iter": 200}, {"solver": "sgd"}):
        together = fitted(**settings)
        one_by_one = fitted(**settings, verbose=True)
        assert capsys.readouterr().out.count("Iteration") == together.n_iter_
        assert together.loss_curve_ == one_by_one.loss_curve_
        assert np.array_equal(together.coefs_[0], one_by_one.coefs_[0])


def test_progress_is_shown_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fitted(progress=True)
    assert "epoch 30" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, loss",
    [
        (MLPRegressor, "mae"),
        (MLPRegressor, "huber(0.5)"),
        (MLPRegressor, "pinball(0.9)"),
        (MLPClassifier, "categorical_crossentropy(0.1)"),
        (MLPClassifier, "mse"),
        (MLPClassifier, "hinge"),
    ],
)
def test_other_losses(kind, loss):
    model = fitted(kind, loss=loss, max_iter=100)
    assert model.model_.architecture.loss.name == loss
    if loss == "pinball(0.9)":
        assert 0.8 < (model.predict(X) >= Y).mean() < 1
    else:
        assert model.score(X, Y) > 0.8
    assert hasattr(model, "predict_proba") == (kind is MLPClassifier and loss != "hinge")


def test_activations_of_each_layer():
    model = fitted(hidden_layer_sizes=(6, 4), activation=["logistic", "gelu"])
    assert model.model_.architecture.activation_names == ["sigmoid", "gelu", "softmax"]
    assert fitted(activation="mish").score(X, Y) > 0.8
    with pytest.raises(ValueError, match="activation"):
        fitted(hidden_layer_sizes=(6, 4), activation=["relu"])


def test_batches_without_weight_are_skipped():
    weights = np.ones(150)
    weights[50:100] = 0
    model = MLPClassifier(**{**SMALL, "batch_size": 50}, shuffle=False).fit(X, Y, weights)
    assert np.isfinite(model.loss_curve_).all()
    kept = weights > 0
    without = MLPClassifier(**{**SMALL, "batch_size": 50}, shuffle=False)
    without.fit(X[kept], np.where(Y[kept] == 2, 2, 0))
    assert 1 not in model.predict(X[kept])
    bagging = BaggingClassifier(MLPClassifier(**SMALL, batch_size=2), 3, random_state=0).fit(X, Y)
    assert bagging.score(X, Y) > 0.8


def test_a_thread_of_a_pool_takes_no_team():
    threads = []
    thread = threading.Thread(target=lambda: threads.append(fitted().model_.architecture.threads))
    thread.start()
    thread.join()
    assert threads == [1]
    assert fitted().model_.architecture.threads is None and fitted(threads=2).model_.architecture.threads == 2


# ---- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, expected",
    [
        ("alpha", -1, r"a float in the range \[0, inf\). Got -1 instead"),
        ("alpha", math.nan, "Got nan"),
        ("solver", "newton", r"a str among \{'adam', 'lbfgs', 'sgd'\}. Got 'newton'"),
        ("activation", "softmax", "Got 'softmax'"),
        ("batch_size", 0, "Got 0"),
        ("momentum", 1.5, r"\[0, 1\]"),
        ("shuffle", 1, "True or False"),
        ("random_state", -3, "Got -3"),
        ("hidden_layer_sizes", (3, 0), "hidden_layer_sizes must be > 0"),
        ("hidden_layer_sizes", 0, "hidden_layer_sizes"),
        ("n_iter_no_change", 1.5, "Got 1.5"),
        ("dropout", 1.0, "dropout"),
        ("dropout", (0.1, 0.2), "dropout has 2 values"),
        ("threads", 0, "Got 0"),
        ("loss", "log", "loss"),
        ("class_weight", "even", "class_weight"),
    ],
)
def test_parameters_are_refused_with_what_was_given(name, value, expected):
    model = MLPClassifier(**{**SMALL, name: value})
    with pytest.raises((ValueError, TypeError), match=expected):
        model.fit(X, Y)
    assert not hasattr(model, "classes_") and not hasattr(model, "n_features_in_")


def state_of(model):
    return copy.deepcopy({name: value for name, value in vars(model).items() if name != "model_"})


def require_unchanged(model, before, probabilities):
    assert vars(model).keys() - {"model_"} == before.keys()
    for name in ("classes_", "n_features_in_", "n_iter_", "t_", "loss_curve_", "_no_improvement_count"):
        assert np.array_equal(getattr(model, name), before[name]), name
    assert np.array_equal(model.predict_proba(X), probabilities)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "warm"])
def test_after_an_error_the_estimator_is_as_before(method):
    def fail(model, epoch, history):
        if epoch == wanted:
            raise RuntimeError("no more")

    wanted = 0
    model = MLPClassifier(**SMALL, callbacks=fail, warm_start=method == "warm").fit(X, Y)
    before, probabilities = state_of(model), model.predict_proba(X)
    twin = copy.deepcopy(model)
    call = model.partial_fit if method == "partial_fit" else model.fit
    wanted = 1
    with pytest.raises(RuntimeError, match="no more"):
        call(X[:100] if method == "fit" else X, Y[:100] if method == "fit" else Y)
    require_unchanged(model, before, probabilities)
    with pytest.raises(ValueError):
        call(X[:, :2], Y[:-1])
    require_unchanged(model, before, probabilities)
    wanted = 0
    for estimator in (model, twin):  # the optimizer's state, too
        estimator.set_params(callbacks=None).partial_fit(X, Y)
    assert np.array_equal(model.coefs_[0], twin.coefs_[0])


def test_classes_of_a_first_partial_fit_that_fails_are_forgotten():
    model = MLPClassifier(**SMALL)
    with pytest.raises(ValueError):
        model.partial_fit(X, Y[:-1], classes=[0, 1, 2])
    assert not hasattr(model, "classes_")


def test_ctrl_c_leaves_a_fitted_estimator():
    def press(model, epoch, history):
        if epoch == 5:
            os.kill(os.getpid(), signal.SIGINT)

    model = MLPClassifier(**{**SMALL, "max_iter": 10**6, "n_iter_no_change": math.inf}, callbacks=press)
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ in (5, 6) and len(model.loss_curve_) == model.n_iter_
    assert model.predict(X).shape == (150,)


def test_ctrl_c_between_epochs_in_one_piece():
    model = MLPClassifier(**{**SMALL, "max_iter": 10**6, "n_iter_no_change": math.inf})
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    fitted()  # compiled
    timer.start()
    with pytest.warns(UserWarning, match="interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) > 0 and model.score(X, Y) > 0.8


def test_a_warm_start_that_does_not_fit_is_refused():
    model = fitted(warm_start=True).set_params(hidden_layer_sizes=(7,))
    with pytest.raises(ValueError, match="warm_start=False begins anew"):
        model.fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.set_params(warm_start=False).fit(X, Y).coefs_[0].shape == (4, 7)


# ---- what estimators of equal design share ---------------------------------------------------------------


def test_fits_that_share_plans_have_the_bits_of_fits_that_do_not(monkeypatch):
    """Fits one after another and side by side in threads, of two designs and several penalties, between them
    predictions."""
    models = [(MLPClassifier, 6), (MLPClassifier, 6), (MLPRegressor, 6), (MLPClassifier, 6)] * 2

    def run(seed):
        kind, width = models[seed]
        rows = np.random.default_rng(seed).permutation(len(X))[:100]
        model = kind(hidden_layer_sizes=width, alpha=0.1 * seed, max_iter=5, random_state=seed)
        model.fit(X[rows], Y[rows])
        before = model.predict(X)
        model.partial_fit(X[rows], Y[rows])
        return *model.coefs_, before, model.predict(X), model.loss_curve_

    alone = []
    for seed in range(len(models)):
        monkeypatch.setattr(base, "PLANS", SparePlans(0))
        alone.append(run(seed))
    monkeypatch.setattr(base, "PLANS", SparePlans(8))
    after_another = [run(seed) for seed in range(len(models))]
    with ThreadPoolExecutor(3) as pool:
        side_by_side = list(pool.map(run, range(len(models))))
    for results in (after_another, side_by_side):
        for mine, expected in zip(results, alone, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(mine, expected, strict=True))


def test_a_plan_is_taken_again_and_large_ones_are_not_kept(monkeypatch):
    made = []
    monkeypatch.setattr(plans, "Plan", lambda design: made.append(design) or Plan(design))
    for most_bytes, expected in ((32 << 20, 2), (1000, 6)):
        monkeypatch.setattr(base, "PLANS", SparePlans(8, most_bytes))
        made.clear()
        for seed in range(3):
            MLPClassifier(5, alpha=1 + seed, max_iter=2, random_state=seed).fit(X, Y).predict(X)
        assert len(made) == expected  # to train (whatever the penalty is), and to predict
