"""What a target means to a network: classes, the way back, what a model file says, parts, measures."""

import numpy as np
import pandas as pd
import pytest

import fastbp
from fastbp.tables.answer import Answer, classification_quality, regression_quality
from fastbp.tables.learning import Numbers
from fastbp.tables.model import of_network
from fastbp.tables.parts import split_rows
from fastbp.tables.targets import Collector, Texts, choose_kind, known_rows, picked
from fastbp.tables.wording import DataError

# ---- what the columns mean ----


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (["u", "v", "u", "v"], "classification"),
        (["0", "1", "0", "1"], "classification"),
        (["0", "1.0", "0", "1"], "classification"),
        (["1.5", "2", "1.5", "2"], "regression"),
        (["1", "2", "3", "4"], "regression"),  # whole numbers, but hardly any twice
        ([str(i % 21) for i in range(100)], "regression"),
        ([str(i % 20) for i in range(100)], "classification"),
        (np.array([0.0, 1.0, 0.0, 1.0]), "classification"),
        (np.array([0.5, 1.0, 0.5, 1.0]), "regression"),
    ],
)
def test_choice_of_task(target, kind):
    assert choose_kind(target, "y") == kind


def test_a_target_in_pieces_of_numbers_and_of_text_is_one_of_text():
    collector = Collector("y")
    for piece in ([1.0, 2.5], ["u", None, "2.5"], [3.0]):
        collector.add(pd.Series(piece))
    target = collector.collected()
    assert isinstance(target, Texts)
    assert [*target] == ["1", "2.5", "u", "", "2.5", "3"]
    assert known_rows(target).tolist() == [0, 1, 2, 4, 5]
    assert [*picked(target, np.array([5, 1]))] == ["3", "2.5"]
    assert picked(target, np.array([0, 4])).present() == {"1", "2.5"}


def test_of_more_texts_than_are_kept_the_numbers_remain(monkeypatch):
    monkeypatch.setattr("fastbp.tables.targets.INTERNED", 3)
    collector = Collector("y")
    for piece in (["1", "2"], ["NA", "4", "1"], ["5", ""]):
        collector.add(pd.Series(piece))
    np.testing.assert_array_equal(collector.collected(), [1, 2, np.nan, 4, 1, 5, np.nan])
    collector.add(pd.Series([0.5]))
    with pytest.raises(DataError, match="more than 3 different values, among them 'u', which is not a num"):
        collector.add(pd.Series(["u"]))


def test_a_mark_for_a_missing_value_does_not_turn_a_quantity_into_classes():
    with pytest.raises(DataError, match=r"row 3, column 'price' \(the target\): 'NA' marks a missing value"):
        choose_kind(["1.5", "2.5", "NA", "3.5", "4.5"], "price")


def test_long_identifiers_stay_apart():
    answer = Answer.of_classes(["9007199254740993", "9007199254740992"], "y")
    assert answer.classes == ["9007199254740992", "9007199254740993"]


def test_a_quantity_is_standardised_and_back():
    answer = Answer.of_quantity(np.array([1.0, 2]), "y")
    np.testing.assert_allclose(answer.encode(np.array([1.0, 2, 3]))[:, 0], [-1, 1, 3])
    outputs = np.array([[-1.0], [1], [3]])
    np.testing.assert_allclose(answer.decide(outputs, standardised=True), [1, 2, 3])
    np.testing.assert_allclose(answer.decide(outputs, standardised=False), [-1, 1, 3])


def test_constant_column_with_rounding_noise():
    numbers = Numbers("a")
    numbers.add_numbers(np.full(10, 0.1))
    assert numbers.scale().spread == 1


def test_two_classes_share_an_output_and_more_have_one_each():
    answer = Answer.of_classes(["no", "yes"], "y")
    assert answer.outputs == 1
    np.testing.assert_array_equal(answer.encode(["no", "yes"]), [[0], [1]])
    np.testing.assert_array_equal(answer.decide(np.array([[0.2], [0.7]]), standardised=False), [0, 1])
    answer = Answer.of_classes(["10", "9", "x"], "y")
    assert answer.classes == ["10", "9", "x"]  # one label of text: all are text
    np.testing.assert_array_equal(answer.encode(["10", "9", "x"]), np.eye(3))
    answer = Answer.of_classes(["10", "9", "9.0"], "y")
    assert answer.classes == [9, 10]
    with pytest.raises(DataError, match="class 11 of the target was not in the training data"):
        answer.encode(["11"])


def test_targets_that_cannot_be_used():
    with pytest.raises(DataError, match="one class only: 'u'"):
        Answer.of_classes(["u", "u"], "y")
    with pytest.raises(DataError, match=r"row 2, column 'y' \(the target\) is empty"):
        Answer.of_classes(["2", ""], "y")
    with pytest.raises(DataError, match="the values of the target 'y' are too large"):
        Answer.of_quantity(np.array([1e308, -1e308]), "y")
    with pytest.raises(DataError, match="the target 'y' is 3 in every row to train on"):
        Answer.of_quantity(np.array([3.0, 3]), "y")


# ---- model files of version 0.1.0 ----


def earlier(kind="regression"):
    """What such a file says about a table of two features."""
    numbers = {"feature_mean": [1.5, 2.0], "feature_scale": [0.5, 1.0]}
    found = {"fastbp_table": 1, "target": "y", "features": ["a", "b"], "named": True, "width": 3, **numbers}
    if kind == "classification":
        return {**found, "classes": ["u", "v"], "target_mean": None, "target_scale": None}
    return {**found, "classes": None, "target_mean": [10.0], "target_scale": [2.0]}


def network(kind="regression", found=None, **options):
    """The network that `train` gives such a task."""
    output = {"regression": "identity", "classification": "sigmoid"}[kind]
    made = fastbp.MLP([2, 3, 1], seed=0, **{"output": output, **options})
    made.metadata = earlier(kind) if found is None else found
    return made


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_an_earlier_file_is_standardised_outside_of_its_network(kind):
    made = network(kind)
    model = of_network("m", made)
    X = np.array([[1.0, 2], [3, 4]])
    outputs = made.predict((X - [1.5, 2.0]) / [0.5, 1.0])
    np.testing.assert_array_equal(model.outputs(X), outputs)
    if kind == "regression":
        np.testing.assert_allclose(model.predict(X), outputs[:, 0].astype(float) * 2 + 10)
    else:
        np.testing.assert_array_equal(model.predict(X), np.where(outputs[:, 0] > 0.5, "v", "u"))
    with pytest.raises(DataError, match=r"row 1 .*column 'b' is empty"):  # it has not learnt what to do then
        model.predict(np.array([[1.0, 2], [3, np.nan]]))


@pytest.mark.parametrize(
    "change",
    [
        {"features": ["a"]},
        {"features": None},
        {"feature_mean": [0.0]},
        {"feature_mean": ["x", "y"]},
        {"feature_scale": [1.0, 0.0]},
        {"feature_scale": [1.0, float("nan")]},
        {"classes": ["u"]},
        {"classes": ["u", "u"]},
        {"classes": ["u", "v", "w"]},  # three classes, one output
        {"classes": None},
        {"classes": ["u", 1]},
        {"classes": [1, 10**400]},
        {"classes": [0, True]},
        {"classes": [["u"], ["v"]]},
        {"classes": {"u": 0, "v": 1}},
        {"classes": "uv"},
        {"named": False},  # the features have no numbers for names
        {"named": 1},
        {"named": False, "features": ["0", "3"]},  # the file had three columns
        {"features": ["a", "a"]},
        {"features": "ab"},
        {"features": [1, 2]},
        {"target": None},
        {"width": "3"},
        {"feature_scale": [1e400, 1]},
        {"feature_mean": [[0.0], [1.0]]},
    ],
)
def test_tampered_metadata(change):
    with pytest.raises(DataError, match="m is damaged"):
        of_network("m", network("classification", earlier("classification") | change))


@pytest.mark.parametrize(
    ("of", "now", "options"),
    [
        ("regression", "classification", {}),
        ("classification", "regression", {}),
        ("classification", "classification", {"output": "identity"}),
        ("regression", "regression", {"output": "tanh"}),
        ("regression", "regression", {"loss": "hinge"}),
    ],
)
def test_metadata_that_contradict_the_network(of, now, options):
    with pytest.raises(DataError, match="m is damaged: what it says about its columns does not fit"):
        of_network("m", network(now, earlier(of), **options))


def test_split_keeps_the_classes_in_proportion():
    strata = np.repeat([0, 1, 2], [80, 20, 1])
    train, held = split_rows(strata, 101, 0.25, seed=0)
    assert sorted([*train, *held]) == list(range(101))
    assert np.bincount(strata[held]).tolist() == [20, 5]  # the class with a single row is kept for training
    again = split_rows(strata, 101, 0.25, seed=0)
    np.testing.assert_array_equal(held, again[1])
    assert not np.array_equal(held, split_rows(strata, 101, 0.25, seed=1)[1])


def test_split_that_leaves_nothing():
    with pytest.raises(DataError, match="nothing to test on"):
        split_rows(None, 3, 0.1, seed=0)
    with pytest.raises(DataError, match="nothing to train on"):
        split_rows(None, 1, 0.9, seed=0)


def test_measures_by_the_number_of_classes():
    answer = Answer.of_classes(["no", "yes"], "y")
    assert answer.quality(np.array([[0.4], [0.3]]), ["no", "yes"], standardised=False)["AUC"] == 0
    one = answer.quality(np.array([[0.4]]), ["no"], standardised=False)
    assert np.isnan(one["AUC"])  # there is one class only
    answer = Answer.of_classes(["0", "1", "2", "3"], "y")
    scores = np.tile([0.1, 0.2, 0.3, 0.4], (4, 1))
    assert answer.quality(scores, ["0", "1", "2", "3"], standardised=False)["top 3"] == 0.75


def test_the_best_constant_answer():
    answer = Answer.of_classes(["no", "yes"], "y")
    name, quality = answer.baseline(["yes", "yes", "no"], ["yes", "no"])
    assert name == "always 'yes'" and quality["accuracy"] == 0.5
    name, quality = Answer.of_quantity(np.array([1.0, 2]), "y").baseline(
        np.array([1.0, 2]), np.array([1.0, 3])
    )
    assert name == "always 1.5" and quality["MAE"] == 1


def test_measures():
    true, predicted = np.array([0, 0, 0, 1]), np.array([0, 0, 1, 0])
    assert classification_quality(predicted, true) == {
        "accuracy": 0.5,
        "balanced accuracy": pytest.approx(1 / 3),
    }
    quality = regression_quality(np.array([1.0, 2, 5]), np.array([1.0, 2, 3]))
    assert quality == {
        "RMSE": pytest.approx((4 / 3) ** 0.5),
        "MAE": pytest.approx(2 / 3),
        "R2": pytest.approx(-1.0),
    }


def test_measures_of_many_rows_are_taken_block_by_block(monkeypatch):
    rng = np.random.default_rng(0)
    true = 100 + rng.standard_normal(1001)
    predicted = true + 0.1 * rng.standard_normal(1001)
    whole = regression_quality(predicted, true)
    monkeypatch.setattr("fastbp.tables.answer.ROWS_AT_ONCE", 7)
    assert regression_quality(predicted, true) == pytest.approx(whole, rel=1e-12)
    assert whole["R2"] == pytest.approx(
        1 - ((predicted - true) ** 2).sum() / ((true - true.mean()) ** 2).sum()
    )
