"""train_table and load: predictions in the target's own units, files, and networks that are complete."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from made import passengers, prices

import fastbp
from fastbp.tables import DataError, TableModel, model
from fastbp.tables.model import metadata
from fastbp.tables.parts import split_rows


def train(frame, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of columns that are left out
        return fastbp.train_table(frame, progress=False, **{"epochs": 15, "hidden": [16], **options})


@pytest.fixture(scope="module")
def survivors():
    return train(passengers(), target="survived", dates=True)


@pytest.fixture(scope="module")
def price():
    return train(prices(), target="price", epochs=60)


def test_classes_of_a_table_of_all_kinds(survivors):
    assert survivors.classes == ["no", "yes"] and survivors.target == "survived"
    assert survivors.quality["held out"]["accuracy"] > survivors.quality["always 'yes'"]["accuracy"] + 0.1
    later = passengers(100, seed=1)
    scores = survivors.predict_proba(later)
    assert scores.shape == (100, 2)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    predicted = survivors.predict(later)
    assert predicted.tolist() == ["yes" if row[1] > row[0] else "no" for row in scores]
    assert (predicted == later.survived).mean() > 0.75
    assert repr(survivors).startswith("TableModel('survived', 2 classes, from 7 columns; a ")


def test_a_quantity_is_in_its_own_units(price):
    later = prices(100, seed=1)
    predicted = price.predict(later)
    assert predicted.dtype == np.float64
    assert np.abs(predicted - later.price).mean() < 0.1 * later.price.std()
    assert price.quality["held out"]["R2"] > 0.98 and price.history.epochs == 60
    with pytest.raises(DataError, match="the target 'price' is a quantity, which has no classes"):
        price.predict_proba(later)


def test_columns_are_found_by_their_names(survivors):
    later = passengers(50, seed=1)
    expected = survivors.predict_proba(later)
    shuffled = later[[*reversed(later.columns)]].assign(more=1).drop(columns=["survived", "name", "ship"])
    np.testing.assert_array_equal(survivors.predict_proba(shuffled), expected)
    with pytest.raises(DataError, match="lacks 1 of the 7 columns that the model was trained on: 'sex'"):
        survivors.predict(later.drop(columns="sex"))
    assert survivors.predict(later[:0]).shape == (0,)


def test_what_is_saved_predicts_the_same(survivors, price, tmp_path):
    for trained, later in ((survivors, passengers(50, seed=1)), (price, prices(50, seed=1))):
        trained.save(tmp_path / "m")
        again = fastbp.load(tmp_path / "m")
        assert isinstance(again, TableModel) and again.columns == trained.columns
        assert (again.classes, again.target) == (trained.classes, trained.target)
        np.testing.assert_array_equal(again.predict(later), trained.predict(later))
        assert (again.history, again.quality) == (None, {})
        np.testing.assert_array_equal(
            again.network.predict(again.columns.transform(later)), again.outputs(later)
        )


def test_the_network_of_a_table_of_numbers_is_itself_complete(tmp_path):
    """As are its inputs' names."""
    frame = prices().drop(columns="town")
    trained = train(frame, target="price", epochs=40)
    trained.save(tmp_path / "m")
    network, X = fastbp.MLP.load(tmp_path / "m"), frame[["size", "year"]]
    expected = trained.predict(frame)
    assert np.abs(expected - frame.price).mean() < frame.price.std() / 2
    for given in (X, X.to_numpy(), X.to_numpy(dtype=np.float32)):
        np.testing.assert_allclose(network.predict(given)[:, 0], expected, rtol=1e-4)
    np.testing.assert_array_equal(trained.predict(X.to_numpy()), expected)  # a raw array
    with pytest.raises(ValueError, match="columns in another order"):
        network.predict(X[["year", "size"]])


@pytest.mark.parametrize(("mean", "spread"), [(1e9, 1.0), (1e6, 1e-3), (0.0, 1e33), (1e-20, 1e-25)])
def test_digits_are_kept_where_the_target_or_a_column_is_far_from_zero(mean, spread):
    rng = np.random.default_rng(0)
    a = rng.standard_normal(400)
    frame = pd.DataFrame({"a": mean + spread * a, "y": mean + spread * (a + 1)})
    trained = train(frame, target="y", epochs=60, batch_size=8)
    error = (trained.predict(frame) - frame.y) / spread
    assert np.abs(error).mean() < 0.1


def test_everything_is_learnt_from_the_rows_to_train_on():
    """A category, an outlier and missing values that are only in rows held out change nothing."""
    frame = prices(300)
    expected = train(frame, target="price", epochs=2)
    rows = split_rows(None, 300, 0.2, seed=0)[1]
    frame.loc[rows[:5], "town"] = "elsewhere"
    frame.loc[rows[5:10], "size"] = np.nan
    frame.loc[rows[10:20], ["size", "price"]] = 1e6
    found = train(frame, target="price", epochs=2)
    assert found.columns == expected.columns and found.answer == expected.answer
    np.testing.assert_array_equal(found.network.weights[0], expected.network.weights[0])


def test_rows_without_a_target_are_refused_or_left_out():
    frame = prices(200)
    frame.loc[7, "price"] = np.nan
    with pytest.raises(DataError, match=r"row 8, column 'price' \(the target\)"):
        train(frame, target="price")
    left = train(frame, target="price", missing_target="drop", epochs=2)
    same = train(frame.drop(index=7), target="price", epochs=2)
    np.testing.assert_array_equal(left.network.weights[0], same.network.weights[0])
    frame = passengers(200).assign(survived=lambda f: f.survived.where(f.index != 5))
    with pytest.raises(DataError, match=r"row 6, column 'survived' \(the target\) is empty"):
        train(frame, target="survived", dates=True)
    assert train(frame, target="survived", dates=True, missing_target="drop", epochs=1).classes == [
        "no",
        "yes",
    ]


@pytest.mark.parametrize(
    ("target", "classes"),
    [
        ([True, False], ["False", "True"]),
        (pd.array([1, 2], "Int64"), [1, 2]),
        ([1.0, 2.0], [1, 2]),
        (pd.Categorical(["u", "v"]), ["u", "v"]),
        (["01", "1"], ["01", "1"]),
        ([0.5, 1.5], None),
    ],
)
def test_targets_of_every_dtype(target, classes):
    values = pd.Series(target)
    frame = pd.DataFrame({"a": np.arange(40.0), "y": pd.concat([values] * 20, ignore_index=True)})
    assert train(frame, target="y", epochs=1).classes == classes


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"y": ["u"] * 39 + ["v"]}, {}, "class 'v' of the target 'y' has a single row, two are needed"),
        ({"y": 3.25}, {"task": "regression"}, "the target 'y' is 3.25 in every row to train on"),
        ({"y": "u"}, {}, "has one class only: 'u'"),
        ({"y": pd.Timestamp("2024-01-01")}, {}, "the target 'y' is of dates or times"),
        ({"w": -1.0}, {"weights": "w"}, r"row 0 .* column 'w' \(--weights\): -1 is below 0"),
        ({"w": "much"}, {"weights": "w"}, r"row 0 .* column 'w' \(--weights\): 'much' is not a number"),
        ({"w": 0}, {"weights": "w"}, r"column 'w' \(--weights\) is 0 in every row"),
        ({}, {"task": "both"}, "unknown task 'both'"),
        ({}, {"missing_target": "keep"}, "unknown missing_target 'keep'"),
        ({}, {"patience": 3}, "give validation"),
        ({}, {"loss": "binary_crossentropy"}, "is not for the target 'y'"),
        ({}, {"test_size": 0.001}, "leaves nothing to test on"),
    ],
)
def test_what_is_refused_before_anything_is_trained(monkeypatch, change, options, message):
    monkeypatch.setattr(fastbp.MLP, "fit", lambda *a, **k: pytest.fail("trained"))
    frame = pd.DataFrame({"a": np.arange(40.0), "y": np.arange(40) / 3}).assign(**change)
    with pytest.raises(ValueError, match=message):
        train(frame, target="y", **options)


def test_weights_validation_and_patience():
    frame = prices(300).assign(w=lambda f: np.where(f.town == "Bern", 1.0, 0.0))
    trained = train(frame, target="price", weights="w", validation=0.2, patience=2, epochs=200, batch_size=16)
    assert "w" not in trained.columns.names
    assert trained.history.stopped_early and [*trained.quality] == [
        *("training", "validation", "held out"),
        next(name for name in trained.quality if name.startswith("always ")),
    ]


# ---- files -----------------------------------------------------------------------------------------------


def test_files_of_another_origin(tmp_path):
    network = fastbp.MLP([2, 3, 1])
    network.save(tmp_path / "m")
    with pytest.raises(
        DataError, match="says nothing about its columns: it was not written by `fastbp train`"
    ):
        fastbp.load(tmp_path / "m")
    network.metadata = {"fastbp_table": 99}
    network.save(tmp_path / "m")
    with pytest.raises(DataError, match=r"another version of fastbp .table format 99."):
        fastbp.load(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        {"target": None},
        {"target": {"name": "y", "classes": ["u", "v", "w"], "scale": None}},
        {"target": {"name": "y", "classes": None, "scale": [0.0, 0.0]}},
        {"target": {"name": 1, "classes": ["u", "v"], "scale": None}},
        {"columns": {}},
        {"standardised_outside": 1},
    ],
)
def test_metadata_that_do_not_fit_the_network(survivors, change, tmp_path):
    network = fastbp.MLP(survivors.network.layer_sizes)
    network.metadata = metadata(survivors.columns, survivors.answer, standardised_outside=False) | change
    network.save(tmp_path / "m")
    with pytest.raises(DataError, match="is damaged: what it says about its columns does not fit"):
        fastbp.load(tmp_path / "m")


def test_what_fastbp_offers_needs_no_pandas_until_it_is_used(tmp_path, survivors):
    """Arrays of numbers are predicted without it, too"""
    train(prices().drop(columns="town"), target="price", epochs=1).save(tmp_path / "m")
    code = f"""if True:
        import sys
        sys.modules["pandas"] = None
        import numpy as np, fastbp
        assert "fastbp.tables" not in sys.modules
        trained = fastbp.load({str(tmp_path / "m")!r})
        assert np.isfinite(trained.predict(np.array([[50.0, 1999], [60, 2001]]))).all()
        assert callable(fastbp.train_table)
        try:
            fastbp.nothing
        except AttributeError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'fastbp' has no attribute 'nothing'"


def test_pieces_of_a_table_are_what_the_whole_is(survivors, monkeypatch):
    from fastbp.tables import columns

    later = passengers(100, seed=1)
    expected = survivors.predict_proba(later)
    for module in (model, columns):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(survivors.predict_proba(later), expected, rtol=1e-5, atol=1e-7)
    later.loc[93, "fare"] = np.inf
    with pytest.raises(
        DataError, match=r"row 93 .counted from 0., column 'fare': 'inf' is not a finite number"
    ):
        survivors.predict(later)
