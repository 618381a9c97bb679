"""Labels as numbers and back: what scikit-learn's LabelBinarizer makes of them."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import LabelBinarizer

from fastbp.sklearn import MLPClassifier
from fastbp.sklearn.inputs import LARGE, Labels, labels_of

RNG = np.random.default_rng(0)
NUMBERS = RNG.integers(4, size=60)
SETS = RNG.integers(2, size=(60, 5))


@pytest.mark.parametrize(
    "y",
    [
        NUMBERS - 1,
        NUMBERS.astype(np.uint8),
        NUMBERS * 1.0,
        NUMBERS.astype(str),
        NUMBERS.astype(str).astype(object),
        NUMBERS > 1,
        np.where(NUMBERS > 1, 7, -3),
        np.where(NUMBERS > 1, "yes", "no"),
        np.zeros(9, int),
        np.arange(12) // 2,
        SETS,
        SETS * 1.0,
        sparse.csr_matrix(SETS),
    ],
    ids=lambda y: f"{type(y).__name__} of {y.dtype} {y.shape}",
)
def test_they_are_those_of_label_binarizer(y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are many classes
        theirs, mine = LabelBinarizer().fit(y), labels_of(y)
        ones = theirs.transform(y)
    assert (mine.kind, mine.as_sparse) == (theirs.y_type_, theirs.sparse_input_)
    assert np.array_equal(mine.classes, theirs.classes_) and mine.classes.dtype == theirs.classes_.dtype
    ones = ones.toarray() if sparse.issparse(ones) else ones
    assert np.array_equal(mine.ones(y), ones) and mine.ones(y).dtype == np.float32
    out = RNG.random(ones.shape)
    again, expected = mine.predicted(out, 0.5), theirs.inverse_transform(out, 0.5)
    assert sparse.issparse(again) == sparse.issparse(expected)
    if sparse.issparse(again):
        again, expected = again.toarray(), expected.toarray()
    assert np.array_equal(again, expected) and again.dtype == expected.dtype


@pytest.mark.parametrize("y", [np.ones(0, int), RNG.random(9), RNG.integers(5, size=(9, 2))])
def test_errors_are_those_of_label_binarizer(y):
    with pytest.raises(ValueError) as theirs:
        LabelBinarizer().fit(y)
    with pytest.raises(ValueError) as mine:
        labels_of(y)
    assert str(mine.value) == str(theirs.value)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("first", "then"), [(NUMBERS, SETS), (SETS, SETS[:, :3])])
def test_labels_of_another_kind_later_change_nothing(first, then):
    X = RNG.random((60, 3))
    classes = np.arange(5)
    model = MLPClassifier(4, random_state=0).partial_fit(X, first, classes=classes)
    before = model.predict_proba(X)
    with pytest.raises(ValueError, match="y has shape"):
        model.partial_fit(X, then)
    assert np.array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [1, 2, 3, 10, 33])
def test_the_largest_of_many_rows_is_where_numpy_finds_it(dtype, columns):
    """Equal ones, infinities and NaN among them."""
    out = RNG.integers(-3, 4, size=(LARGE // columns + 1, columns)).astype(dtype)
    out[RNG.random(out.shape) < 0.02] = np.nan
    out[RNG.random(out.shape) < 0.02] = np.inf
    out[RNG.random(len(out)) < 0.02] = -np.inf
    names = np.arange(columns) * 2
    predicted = Labels("multiclass", names, False).predicted(out, 0.5)
    assert np.array_equal(predicted, names[out.argmax(axis=1)])
