"""Epochs that run in one piece end where scikit-learn's do, and draw what scikit-learn draws."""

import warnings

import numpy as np
import pytest
import sklearn.neural_network as theirs
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

import fastbp.sklearn as ours
from fastbp.network.compiled import CompiledBackend
from fastbp.sklearn.epochs import Epochs

X, Y = load_digits(return_X_y=True)
X, Y = X[:500] / 16, Y[:500]
ENDING = {
    "adam": {"tol": 0.02, "n_iter_no_change": 3},
    "adam, one batch": {"tol": 0.02, "n_iter_no_change": 2, "batch_size": 500, "learning_rate_init": 0.02},
    "adam, one thread": {"tol": 0.02, "n_iter_no_change": 3, "threads": 1},
    "adam, as they lie": {"tol": 0.02, "n_iter_no_change": 3, "shuffle": False},
    "sgd": {"solver": "sgd", "tol": 0.02, "n_iter_no_change": 3, "learning_rate_init": 0.1},
}
ENDING["adaptive"] = {**ENDING["sgd"], "learning_rate": "adaptive", "n_iter_no_change": 1}
REGRESSOR = {"solver": "sgd", "tol": 0.02, "n_iter_no_change": 2, "learning_rate_init": 0.01}


@pytest.fixture
def calls(monkeypatch):
    """How many epochs each entry into compiled code did."""
    found = []
    run = Epochs.run

    def counted(self, *arguments):
        losses = run(self, *arguments)
        found.append(len(losses))
        return losses

    monkeypatch.setattr(Epochs, "run", counted)
    return found


def fitted(module, random_state, kind="MLPClassifier", **settings):
    if module is theirs:
        settings.pop("threads", None)
    settings = {"hidden_layer_sizes": (40,), "max_iter": 100, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return getattr(module, kind)(random_state=random_state, **settings).fit(X, Y)


def require_the_same(our, their):
    assert our.n_iter_ == their.n_iter_
    np.testing.assert_allclose(our.loss_curve_, their.loss_curve_, rtol=1e-12)
    assert our.best_loss_ == pytest.approx(their.best_loss_, rel=1e-12)
    for mine, expected in zip(our.coefs_, their.coefs_, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings", ENDING.values(), ids=ENDING)
def test_a_training_that_ends_is_one_piece(settings, calls):
    our, their = (fitted(module, 3, **settings) for module in (ours, theirs))
    assert settings["n_iter_no_change"] + 2 < their.n_iter_ < 100
    require_the_same(our, their)
    if settings.get("learning_rate") != "adaptive":  # whose rate changes each time
        assert calls == [our.n_iter_]


def test_a_regressors_loss_is_divided(calls):
    our, their = (fitted(module, 3, "MLPRegressor", **REGRESSOR) for module in (ours, theirs))
    assert 10 < their.n_iter_ < 100
    require_the_same(our, their)
    assert calls == [our.n_iter_]


def test_a_generator_of_the_callers_is_drawn_from_as_often():
    """Also where training ends early."""
    generators = [np.random.RandomState(5) for _ in range(2)]
    our, their = (
        fitted(module, random, **ENDING["adam"])
        for module, random in zip((ours, theirs), generators, strict=True)
    )
    assert their.n_iter_ < 100
    require_the_same(our, their)
    mine, expected = (random.get_state(legacy=False) for random in generators)
    assert repr(mine) == repr(expected)


def test_epochs_go_on_where_they_ended_too_early(monkeypatch, calls):
    """As rounding may have it: the orders drawn are those of the epochs to come."""
    patience = Epochs.patience
    monkeypatch.setattr(
        Epochs, "patience", lambda self, tol, best, count, most: patience(self, tol, best, count, most - 1)
    )
    our, their = (fitted(module, 3, **ENDING["adam"]) for module in (ours, theirs))
    require_the_same(our, their)
    assert len(calls) > 1 and sum(calls) == our.n_iter_


def test_what_is_not_finite_ends_at_once(calls):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="non-finite"):
        fitted(ours, 3, solver="sgd", learning_rate_init=1e200)
    assert sum(calls) == 1


def test_all_bits_are_those_of_epochs_one_by_one(monkeypatch):
    """With a team or alone, and whatever steps are tried on."""
    in_one_piece = [fitted(ours, 3, threads=threads, **ENDING["adam"]).coefs_ for threads in (1, None)]
    monkeypatch.setattr(CompiledBackend, "has_patience", False)
    one_by_one = fitted(ours, 3, verbose=True, **ENDING["adam"]).coefs_
    for coefs in in_one_piece:
        for mine, expected in zip(coefs, one_by_one, strict=True):
            assert np.array_equal(mine, expected)


def fit_another(model, epoch, history):
    fitted(ours, 3, max_iter=2)


def test_a_fit_within_a_fit_has_a_generator_of_its_own():
    alone, around = (fitted(ours, 3, max_iter=4, callbacks=callbacks) for callbacks in (None, fit_another))
    assert alone.loss_curve_ == around.loss_curve_
    again = fitted(ours, 3, max_iter=4)
    assert again.loss_curve_ == alone.loss_curve_ and not hasattr(again, "_draws")
