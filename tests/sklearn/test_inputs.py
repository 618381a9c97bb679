"""What scikit-learn's estimators take, and what is done with estimators besides fitting them."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
import sklearn.neural_network as theirs
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
X = (X - X.mean(axis=0)) / X.std(axis=0)
RNG = np.random.default_rng(0)
FLOWERS = np.array(["setosa", "versicolor", "virginica"])[Y]
SMALL = {"hidden_layer_sizes": 6, "max_iter": 30, "random_state": 0, "learning_rate_init": 0.01}


def fitted(kind=MLPClassifier, x=X, y=Y, weights=None, **settings):
    return kind(**{**SMALL, **settings}).fit(x, y, sample_weight=weights)


@pytest.fixture(scope="module")
def expected():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fitted().predict_proba(X)


@pytest.mark.parametrize(
    "labels",
    [FLOWERS, FLOWERS.astype(object), FLOWERS.tolist(), pd.Series(FLOWERS), pd.Categorical(FLOWERS), Y * 1.0],
    ids=["str", "object", "list", "Series", "Categorical", "float"],
)
def test_labels_of_any_kind(labels, expected):
    model = fitted(y=labels)
    assert np.array_equal(model.predict_proba(X), expected)
    assert set(model.predict(X)) <= set(np.unique(np.asarray(labels)))
    assert model.score(X, labels) > 0.8


def test_labels_that_are_bool_or_a_column():
    model = fitted(y=Y > 0)
    assert model.predict(X).dtype == bool and model.predict_proba(X).shape == (150, 2)
    with pytest.warns(sklearn.exceptions.DataConversionWarning):
        assert fitted(y=Y[:, None]).predict(X).shape == (150,)


def test_tables_with_bool_and_nullable_columns():
    table = pd.DataFrame(
        {
            "a": pd.array(X[:, 0], dtype="Float64"),
            "b": X[:, 1] > 0,
            "c": pd.array((X[:, 2] * 10).astype(int), dtype="Int64"),
            "d": X[:, 3].astype("float32"),
        }
    )
    model = fitted(x=table)
    assert np.array_equal(model.feature_names_in_, list("abcd"))
    dense = table.astype(float).to_numpy()
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        assert np.array_equal(model.predict_proba(table), model.predict_proba(dense))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table[["b", "a", "c", "d"]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.partial_fit(table[["b", "a", "c", "d"]], Y)


@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_matrices(container, solver):
    x = np.where(np.abs(X) > 1, X, 0)
    dense = fitted(x=x, solver=solver)
    model = fitted(x=container(x), solver=solver)
    np.testing.assert_allclose(model.predict_proba(container(x)), dense.predict_proba(x), rtol=1e-9)
    assert model.score(container(x), Y) == dense.score(x, Y)
    np.testing.assert_allclose(model.transform(container(x)), dense.transform(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_transform_gives_the_last_hidden_layer(kind):
    model = fitted(kind, hidden_layer_sizes=(5, 3))
    hidden = model.model_.forward(X).a[1]
    assert np.array_equal(model.transform(X), hidden) and hidden.shape == (150, 3)
    names = [f"{kind.__name__.lower()}{i}" for i in range(3)]
    assert model.get_feature_names_out().tolist() == names
    table = model.set_output(transform="pandas").transform(X)
    assert table.columns.tolist() == names and np.array_equal(table.to_numpy(), hidden)
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(clone(model).set_output(transform=None).fit(X, Y).transform(X), pd.DataFrame)
    none = fitted(kind, hidden_layer_sizes=())
    assert np.array_equal(none.transform(X), X) and len(none.get_feature_names_out()) == 4


def test_the_model_inside_is_the_estimator():
    model = fitted()
    inside = model.model_
    assert inside.layer_sizes == (4, 6, 3)
    assert np.array_equal(inside.predict(X), model.predict_proba(X))
    model.coefs_[0][...] = 0  # written in place
    assert (inside.weights[0] == 0).all()
    assert np.array_equal(inside.predict(X), model.predict_proba(X))
    model.coefs_[1] = np.zeros((6, 3))  # or put in their place
    model.intercepts_ = [np.zeros(6), np.array([0.0, 0.0, 5.0])]
    assert (model.predict(X) == 2).all() and (inside.biases[1] == [0, 0, 5]).all()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_copies_go_on_as_the_original_does(copied, solver):
    model = fitted(solver=solver)
    twin = copied(model)
    assert np.array_equal(twin.predict_proba(X), model.predict_proba(X))
    for estimator in (model, twin):
        estimator.partial_fit(X[:90], Y[:90]).partial_fit(X, Y)
    for mine, other in zip(model.coefs_, twin.coefs_, strict=True):
        assert np.array_equal(mine, other) and not np.shares_memory(mine, other)
    assert twin.loss_curve_ == model.loss_curve_
    other = fitted(solver=solver).partial_fit(X[:90], Y[:90])
    other._optimizer = None  # a state of zeros would be another training
    del other._optimizer
    assert not np.array_equal(other.partial_fit(X, Y).coefs_[0], model.coefs_[0])


def test_parameters_can_be_asked_for_set_and_cloned():
    for kind in (MLPClassifier, MLPRegressor):
        known = getattr(theirs, kind.__name__)().get_params()
        mine = kind().get_params()
        assert {name: mine[name] for name in known} == known
        model = fitted(kind).set_params(alpha=0.5)
        assert clone(model).get_params() == model.get_params()
        assert not hasattr(clone(model), "coefs_")
        assert "MLP" in model._repr_html_() and repr(model).startswith(kind.__name__)


def test_what_is_not_fitted_says_so():
    for method in ("predict", "predict_proba", "transform"):
        with pytest.raises(NotFittedError):
            getattr(MLPClassifier(), method)(X)


def test_pipelines_searches_and_routed_weights():
    weights = np.where(Y == 2, 0.0, 1.0)
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL))
    assert cross_val_score(pipeline, X, FLOWERS, cv=3).mean() > 0.8
    search = GridSearchCV(MLPClassifier(**SMALL), {"alpha": [0, 1e-3], "dropout": [0.0, 0.2]}, cv=2)
    assert search.fit(X, Y).best_score_ > 0.8
    with sklearn.config_context(enable_metadata_routing=True):
        routed = (
            MLPClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        )
        search = GridSearchCV(routed, {"alpha": [1e-3]}, cv=2).fit(X, Y, sample_weight=weights)
    direct = fitted(alpha=1e-3, y=Y, weights=weights)
    assert np.array_equal(search.best_estimator_.coefs_[0], direct.coefs_[0])


@pytest.mark.parametrize(
    "labels", [Y, Y > 0, FLOWERS, np.eye(3, dtype=int)[Y]], ids=["int", "bool", "str", "sets"]
)
def test_score_is_that_of_scikit_learn(labels):
    model = fitted(y=labels)
    some = RNG.permutation(150)[:70]
    for weights in (None, RNG.random(70)):
        mine = model.score(X[some], labels[some], sample_weight=weights)
        assert mine == accuracy_score(labels[some], model.predict(X[some]), sample_weight=weights) > 0.5
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.score(X, labels[:-1])


def test_parameters_are_those_of_scikit_learns_inspection():
    class Wider(MLPRegressor):
        def __init__(self, more=1, hidden_layer_sizes=(3,)):
            super().__init__(hidden_layer_sizes=hidden_layer_sizes)
            self.more = more

    for estimator in (MLPClassifier(7), MLPRegressor(alpha=0.5), Wider(more=2), Wider(more=StandardScaler())):
        for deep in (False, True):
            expected = sklearn.base.BaseEstimator.get_params(estimator, deep)
            assert estimator.get_params(deep) == expected
            assert list(estimator.get_params(deep)) == list(expected)
        assert clone(estimator).set_params(hidden_layer_sizes=9).get_params()["hidden_layer_sizes"] == 9


def test_plain_arrays_are_remembered_and_refused_as_by_scikit_learn():
    """Its checks are not asked of arrays that they would return as they are."""
    names = ["a", "b", "c", "d"]
    ours, table = fitted(max_iter=2), pd.DataFrame(X, columns=names)
    assert ours.n_features_in_ == 4 and not hasattr(ours, "feature_names_in_")
    for x in (X.tolist(), np.asfortranarray(X), np.ascontiguousarray(X), np.repeat(X, 2, axis=0)[::2]):
        assert np.array_equal(fitted(max_iter=2, x=x).predict_proba(x), ours.predict_proba(X))
    wrong = ((X[:, :3], "has 3 features, but MLPClassifier is expecting 4"), (np.full((1, 4), np.nan), "NaN"))
    for x, message in (*wrong, (X[0], "Expected 2D"), (X[:0], "0 sample")):
        with pytest.raises(ValueError, match=message):
            ours.predict(x)
    for x, y, message in ((X, Y[1:], "inconsistent numbers of samples"), (X, None, "requires y")):
        with pytest.raises(ValueError, match=message):
            fitted(x=x, y=y)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        fitted(MLPRegressor, y=np.full(len(X), np.nan))
    ours.fit(table, Y)
    assert list(ours.feature_names_in_) == names
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        ours.predict(X)
    ours.fit(X[:, :3].copy(), Y)
    assert ours.n_features_in_ == 3 and not hasattr(ours, "feature_names_in_")
