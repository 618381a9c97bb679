"""What fastbp.tables makes of a table is what scikit-learn's ColumnTransformer makes of it; so is a network
that is trained on either."""

import warnings

import numpy as np
import pytest
from made import prices
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fastbp
from fastbp.sklearn import MLPRegressor
from fastbp.tables.model import complete
from fastbp.tables.parts import Choices
from fastbp.tables.training import of_frame

HIDDEN, EPOCHS, RATE = (12, 8), 12, 0.01


def houses(rows=300, seed=0):
    """Numbers, a text, and True and False, in the order in which the ColumnTransformer puts them."""
    frame = prices(rows, seed)
    garden = np.random.default_rng((seed, 1)).random(rows) < 0.4
    frame["price"] += 30_000 * garden
    frame.insert(3, "garden", garden)
    return frame


def transformer():
    return ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["size", "year"]),
            ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
            ("truth", "passthrough", ["garden"]),
        ]
    )


class BeginWith:
    """Training begins with these parameters."""

    def __init__(self, flat):
        self.flat = flat

    def on_train_begin(self, model, history):
        model.parameters.replace(self.flat)


def pipeline(start, batch_size):
    network = MLPRegressor(
        hidden_layer_sizes=HIDDEN,
        alpha=0.0,
        learning_rate_init=RATE,
        batch_size=batch_size,
        max_iter=EPOCHS,
        n_iter_no_change=EPOCHS,
        shuffle=False,
        random_state=0,
        callbacks=BeginWith(start),
    )
    return make_pipeline(transformer(), TransformedTargetRegressor(network, transformer=StandardScaler()))


def fitted(frame, start, batch_size):
    model = pipeline(start, batch_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after a few epochs, as is meant
        return model.fit(frame.drop(columns="price"), frame["price"])


def optimizer():
    return fastbp.Adam(RATE, epsilon_hat=True)  # as the estimators have it


def untrained(frame, seed=0):
    inputs = 2 + frame["town"].nunique() + 1
    sizes = [inputs, *HIDDEN, 1]
    return fastbp.MLP(sizes, hidden="relu", output="identity", loss="mse", dtype="float64", seed=seed)


def test_inputs_are_those_of_a_column_transformer():
    frame, later = houses(), houses(100, seed=1)
    later.loc[::7, "town"] = "Chur"  # which training has not seen
    data = of_frame(frame, Choices("price", test_size=0.0, dtype="float64"))
    theirs = transformer().fit(frame)
    np.testing.assert_allclose(data.training.X, theirs.transform(frame), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(
        data.training.Y, StandardScaler().fit_transform(frame[["price"]]), rtol=1e-12, atol=1e-13
    )
    scales = data.columns.scales
    X = data.columns.transform(later)
    standardised = (X - [scale.mean for scale in scales]) / [scale.spread for scale in scales]
    np.testing.assert_allclose(standardised, theirs.transform(later), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("batch_size", [32, 300])
def test_training_in_batches_gives_the_pipelines_predictions(batch_size):
    frame, later = houses(), houses(100, seed=1)
    data = of_frame(frame, Choices("price", test_size=0.0, dtype="float64"))
    network = untrained(frame)
    start = network.parameters.flat.copy()
    rows = np.arange(len(frame))
    network.fit(
        data.training.X,
        data.training.Y,
        epochs=EPOCHS,
        batch_size=batch_size,
        order=lambda epoch: rows,
        optimizer=optimizer(),
    )
    ours = complete(network, data).predict(later)
    theirs = fitted(frame, start, batch_size).predict(later.drop(columns="price"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert np.abs(ours - complete(untrained(frame), data).predict(later)).max() > 10_000


def test_train_table_gives_the_pipelines_predictions():
    """Of all rows at once, so that the order in which they are shuffled is one."""
    frame, later = houses(), houses(100, seed=1)
    ours = fastbp.train_table(
        frame,
        target="price",
        hidden=HIDDEN,
        epochs=EPOCHS,
        batch_size=len(frame),
        optimizer=optimizer(),
        test_size=0.0,
        seed=3,
        dtype="float64",
        progress=False,
    )
    theirs = fitted(frame, untrained(frame, seed=3).parameters.flat.copy(), len(frame))
    np.testing.assert_allclose(ours.predict(later), theirs.predict(later.drop(columns="price")), rtol=1e-9)
