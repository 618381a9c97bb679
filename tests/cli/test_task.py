"""What columns mean to a network: scaling, classes, the way back, what the model file says, measures."""

import numpy as np
import pytest

import fastbp
from fastbp.cli.errors import DataError
from fastbp.cli.tables.reading import read_for_training
from fastbp.cli.train.task import (
    Scaling,
    Task,
    classification_quality,
    regression_quality,
    split_rows,
)
from fastbp.tables.targets import choose_kind


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "data.csv"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


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


def test_a_mark_for_a_missing_value_does_not_turn_a_quantity_into_classes():
    with pytest.raises(DataError, match=r"row 3, column 'price' \(the target\): 'NA' marks a missing value"):
        choose_kind(["1.5", "2.5", "NA", "3.5", "4.5"], "price")


def test_long_identifiers_stay_apart(write):
    task, _ = make_task(write, "a,y\n1,9007199254740993\n2,9007199254740992\n", "classification")
    assert task.classes == ["9007199254740992", "9007199254740993"]


def make_task(write, text, kind):
    table = read_for_training(write(text), "y")
    return Task.fit(table, np.arange(len(table)), kind), table


def test_standardisation_uses_the_training_rows_alone(write):
    table = read_for_training(write("a,c,y\n0,7,1\n2,7,2\n1000,8,3\n"), "y")
    task = Task.fit(table, np.array([0, 1]), "regression")
    np.testing.assert_allclose(task.inputs(table), [[-1, 0], [1, 0], [999, 1]])  # a constant column: scale 1
    np.testing.assert_allclose(task.encode(table.target)[:, 0], [-1, 1, 3])
    np.testing.assert_allclose(task.decide(np.array([[-1.0], [1], [3]])), [1, 2, 3])


def test_constant_column_with_rounding_noise():
    assert Scaling.fit(np.full((10, 1), 0.1)).scale[0] == 1


def test_two_classes_share_an_output_and_more_have_one_each(write):
    task, table = make_task(write, "a,y\n1,no\n2,yes\n", "classification")
    assert task.outputs == 1
    np.testing.assert_array_equal(task.encode(table.target), [[0], [1]])
    np.testing.assert_array_equal(task.decide(np.array([[0.2], [0.7]])), [0, 1])
    task, table = make_task(write, "a,y\n1,10\n2,9\n3,x\n", "classification")
    assert task.classes == ["10", "9", "x"]  # one label of text: all are text
    np.testing.assert_array_equal(task.encode(table.target), np.eye(3))
    task, table = make_task(write, "a,y\n1,10\n2,9\n3,9.0\n", "classification")
    assert task.classes == [9, 10]
    with pytest.raises(DataError, match="class 11 of the target was not in the training data"):
        task.encode(["11"])


def test_targets_that_cannot_be_used(write):
    with pytest.raises(DataError, match="one class only: 'u'"):
        make_task(write, "a,y\n1,u\n2,u\n", "classification")
    with pytest.raises(DataError, match=r"row 2, column 'y' \(the target\): 'u' is not a number"):
        make_task(write, "a,y\n1,2\n2,u\n", "regression")
    with pytest.raises(DataError, match=r"row 2, column 'y' \(the target\) is empty"):
        make_task(write, "a,y\n1,2\n2,\n", "classification")


def network(kind="regression", **options):
    """The architecture that `train` gives such a task of two features."""
    output = {"regression": "identity", "classification": "sigmoid"}[kind]
    return fastbp.MLP([2, 3, 1], **{"output": output, **options}).architecture


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_metadata_round_trip(write, kind):
    task, table = make_task(write, "a,b,y\n1,0.1,3\n2,0.7,4\n3,0.4,3\n", kind)
    again = Task.from_metadata("m", task.to_metadata(), network(kind))
    assert (again.columns, again.classes) == (task.columns, task.classes)
    assert again.inputs(table).tobytes() == task.inputs(table).tobytes()


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
def test_tampered_metadata(write, change):
    task, _ = make_task(write, "a,b,y\n1,2,u\n3,4,v\n", "classification")
    with pytest.raises(DataError, match="m is damaged"):
        Task.from_metadata("m", task.to_metadata() | change, network("classification"))


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
def test_metadata_that_contradict_the_network(write, of, now, options):
    task, _ = make_task(write, "a,b,y\n1,2,3\n3,4,5\n", of)
    with pytest.raises(DataError, match="m is damaged: what it says about its columns does not fit"):
        Task.from_metadata("m", task.to_metadata(), network(now, **options))


def test_metadata_of_another_origin():
    with pytest.raises(DataError, match="not written by `fastbp train`"):
        Task.from_metadata("m", {}, network())
    with pytest.raises(DataError, match="another version"):
        Task.from_metadata("m", {"fastbp_table": 99}, network())


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


def test_measures_by_the_number_of_classes(write):
    task, table = make_task(write, "a,y\n1,no\n2,yes\n", "classification")
    assert task.quality(np.array([[0.4], [0.3]]), table.target)["AUC"] == 0
    assert np.isnan(task.quality(np.array([[0.4]]), ["no"])["AUC"])  # there is one class only
    task, table = make_task(write, "a,y\n1,0\n2,1\n3,2\n4,3\n", "classification")
    scores = np.tile([0.1, 0.2, 0.3, 0.4], (4, 1))
    assert task.quality(scores, table.target)["top 3"] == 0.75


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
