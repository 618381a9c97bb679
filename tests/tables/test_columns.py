"""What is learnt about each kind of column, what is refused, and that JSON keeps all of it."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from made import passengers

from fastbp.tables import Columns, DataError


def learn(frame, **options):
    return Columns.learn(frame.assign(y=0.0), target="y", **options)


def one(values, **options):
    """The inputs that a column becomes, beside a number: (names, values)."""
    frame = pd.DataFrame({"a": values, "b": np.arange(len(values)) % 7})
    columns = learn(frame, **options)
    return columns.outputs[:-1], columns.transform(frame)[:, :-1]


def test_numbers_are_standardised_by_their_own_mean_and_spread():
    values = np.array([1.0, 2, 3, 10])
    columns = learn(pd.DataFrame({"a": values}))
    (scale,) = columns.scales
    assert (scale.mean, scale.spread) == (values.mean(), pytest.approx(values.std(), rel=1e-15))
    np.testing.assert_array_equal(columns.transform(pd.DataFrame({"a": values})), values[:, None])


@pytest.mark.parametrize(
    "values", [[1.0, 2, np.nan, 9, 2], pd.array([1, 2, None, 9, 2], "Int64"), ["1", "2", None, "9", "2"]]
)
def test_a_missing_number_is_the_median_and_has_a_mark(values):
    if isinstance(values, list) and isinstance(values[0], str):
        values = pd.Series([1, 2, None, 9, 2], dtype=object)  # numbers without a dtype
    names, found = one(values)
    assert names == ["a", "a is missing"]
    np.testing.assert_array_equal(found, [[1, 0], [2, 0], [2, 1], [9, 0], [2, 0]])


def test_a_number_that_is_missing_only_later_is_the_median():
    columns = learn(pd.DataFrame({"a": [1.0, 2, 9]}))
    np.testing.assert_array_equal(columns.transform(pd.DataFrame({"a": [np.nan, 5]})), [[2], [5]])


def test_mean_and_spread_count_the_filled_values():
    columns = learn(pd.DataFrame({"a": [1.0, 2, 9, np.nan]}))
    filled = np.array([1.0, 2, 9, 2])
    scale = columns.scales[0]
    np.testing.assert_allclose([scale.mean, scale.spread], [filled.mean(), filled.std()], rtol=1e-14)


def test_text_has_an_input_for_each_value_and_unseen_ones_have_none():
    columns = learn(pd.DataFrame({"a": ["u", "v", "u", "v"]}))
    assert columns.outputs == ["a=u", "a=v"]
    later = pd.DataFrame({"a": ["v", "new", None]})
    np.testing.assert_array_equal(columns.transform(later), [[0, 1], [0, 0], [0, 0]])


def test_rare_texts_share_an_input_with_unseen_ones():
    columns = learn(pd.DataFrame({"a": ["u"] * 5 + ["v"] * 5 + ["w", "x", None]}), rare=3)
    assert columns.outputs == ["a=u", "a=v", "a=(other)", "a=(missing)"]
    later = pd.DataFrame({"a": ["w", "new", None, "u"]})
    np.testing.assert_array_equal(columns.transform(later).argmax(axis=1), [2, 2, 3, 0])
    assert (columns.transform(later).sum(axis=1) == 1).all()


@pytest.mark.parametrize(("rows", "names"), [(90, 3), (600, 2)])
def test_what_is_rare_depends_on_the_rows(rows, names):
    """3 of 90 are kept, 3 of 600 are not, and have no company."""
    columns = learn(pd.DataFrame({"a": ["u"] * (rows // 2) + ["v"] * (rows // 2 - 3) + ["w"] * 3}))
    assert columns.outputs[:2] == ["a=u", "a=v"]
    assert columns.outputs[2] == ("a=w" if names == 3 else "a=(other)")


def test_categories_of_numbers_are_texts_whatever_their_dtype_becomes():
    columns = learn(pd.DataFrame({"a": pd.Categorical([1, 2, 1, 2])}))
    assert columns.outputs == ["a=1", "a=2"]
    for later in ([2, 1], [2.0, 1.0], ["2", "1"]):
        np.testing.assert_array_equal(columns.transform(pd.DataFrame({"a": later})), [[0, 1], [1, 0]])


@pytest.mark.parametrize("dtype", [bool, "boolean", object])
def test_truth_is_one_and_zero(dtype):
    names, found = one(pd.Series([True, False, True], dtype=dtype))
    assert names == ["a"]
    np.testing.assert_array_equal(found[:, 0], [1, 0, 1])


def test_dates_are_taken_apart_on_request():
    days = pd.Series(pd.to_datetime(["2024-02-29 13:00", "2023-12-31 00:30", None]))
    for values in (days, days.dt.tz_localize("Asia/Tokyo"), days.dt.strftime("%Y-%m-%d %H:%M")):
        names, found = one(values, dates=True)
        assert names == ["a.year", "a.month", "a.weekday", "a.hour", "a is missing"]
        np.testing.assert_array_equal(found[:2], [[2024, 2, 3, 13, 0], [2023, 12, 6, 0, 0]])
        np.testing.assert_array_equal(found[2], [2023.5, 7, 4.5, 6.5, 1])
    names, _ = one(["2024-02-01", "2024-03-01", "2024-04-01"], dates=True)
    assert names == ["a.month", "a.weekday"]  # there is one year only, and no hours


def test_dates_are_refused_all_of_them_at_once():
    frame = pd.DataFrame({"d": pd.to_datetime(["2024-02-29", "2024-03-01"]), "e": ["2024-1-1", "2023-1-1"]})
    with pytest.raises(DataError, match=r"columns 'd', 'e' hold dates: --dates makes .* --drop d,e leaves"):
        learn(frame)
    with pytest.raises(DataError, match=r"row 0 .*, column 'a': '29/02/2024' is a date or a time, .*2024-12"):
        one(["29/02/2024", "28/02/2024"], dates=True)
    with pytest.raises(DataError, match="'12:30' is a date or a time"):
        one(["12:30", "11:15 pm"], dates=True)


def test_constants_and_columns_of_names_are_left_out_with_a_warning():
    frame = passengers(200).drop(columns=["survived", "boarded"])
    with pytest.warns(UserWarning, match=r"left out: 'name' \(nearly every row .* 'ship' \(it is 'Titanic'"):
        columns = learn(frame)
    assert "name" not in columns.names and "ship" not in columns.names
    frame["three"], frame["nothing"] = 0.1 + 0.2, None
    with pytest.warns(
        UserWarning, match=r"'three' \(it is 0\.3 in every row\); 'nothing' \(it has no values"
    ):
        learn(frame.drop(columns=["name", "ship"]))
    with pytest.raises(DataError, match="no column is left to learn from: 'three'"):
        learn(frame[["three"]])


def test_the_report_has_a_line_for_each_column():
    frame = passengers(200).drop(columns=["survived"])
    with pytest.warns(UserWarning, match="left out"):
        columns = learn(frame, dates=True)
    lines = {line.name: line for line in columns.lines}
    assert list(lines) == [*frame.columns]
    assert lines["age"].missing == frame.age.isna().sum() and lines["age"].values == frame.age.nunique()
    assert lines["sex"].what == "an input for each of 2 values"
    assert str(columns).count("\n") == len(lines)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.inf, 3], r"row 1 .counted from 0., column 'a': 'inf' is not a finite number"),
        ([1e308, -1e308, 1e308], "column 'a' are too large to be standardised"),
        ([1, 1 + 1e-9, 1e-300], None),
        (pd.to_timedelta([1, 2, 3], "h"), "column 'a' holds values of dtype timedelta64"),
        ([[1], [2], [3]], "column 'a' holds values of type list"),
        ([1j, 2, 3], "column 'a' holds values of dtype complex128"),
    ],
)
def test_what_cannot_be_used_is_named(values, message):
    if message is None:
        assert one(values)
        return
    with pytest.raises(DataError, match=message):
        one(values)


def test_all_mistakes_at_once_at_prediction_and_missing_columns():
    columns = learn(pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4], "c": [5.0, 7]}))
    later = pd.DataFrame({"c": ["7", "red"], "z": 1, "b": ["12,9", "1"], "a": [1, 2]})
    with pytest.raises(
        DataError, match=r"row 0 .*'b': '12,9' is not a number, but one with a decimal comma.*'c'"
    ):
        columns.transform(later)
    later["b"] = [3, 4]
    with pytest.raises(DataError, match=r"row 1 .*'c': 'red' is not a number$"):
        columns.transform(later)
    with pytest.raises(DataError, match="lacks 2 of the 3 columns that the model was trained on: 'a', 'c'"):
        columns.transform(later[["b"]])
    later["c"] = ["7", "8"]
    np.testing.assert_array_equal(columns.transform(later), [[1, 3, 7], [2, 4, 8]])  # by name


def test_more_columns_than_asked_for():
    frame = pd.DataFrame({"a": [f"t{i % 30}" for i in range(300)], "b": np.arange(300)})
    with pytest.raises(
        DataError, match=r"become 31 inputs .'a' 30, 'b' 1., more than --max-columns 20: .*--drop a"
    ):
        learn(frame, max_columns=20)


def test_a_column_of_very_many_texts(monkeypatch):
    from fastbp.tables import survey

    monkeypatch.setattr(survey, "DISTINCT_TEXTS", 50)
    with pytest.raises(
        DataError, match="column 'a' has more than 50 different texts, too many for categories"
    ):
        one([f"t{i % 60}" for i in range(300)])
    with pytest.raises(DataError, match="holds dates"):
        one([f"2024-01-{i % 28 + 1:02} {i % 20}:00" for i in range(300)])


def test_unknown_names_and_frames():
    frame = pd.DataFrame({"a": [1.0, 2], "y": [1, 2]})
    with pytest.raises(DataError, match=r"no column 'z' .--target."):
        Columns.learn(frame, target="z")
    with pytest.raises(DataError, match=r"no column 'b' .--drop."):
        Columns.learn(frame, target="y", drop=["b"])
    with pytest.raises(DataError, match="two columns are called 'a'"):
        Columns.learn(frame.set_axis(["a", "a"], axis=1), target="a")
    with pytest.raises(TypeError, match="a DataFrame is expected, got list"):
        Columns.learn([[1, 2]], target="a")


# ---- JSON ------------------------------------------------------------------------------------------------


def learnt():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return Columns.learn(passengers(), target="survived", dates=True)


def test_json_keeps_everything():
    columns = learnt()
    again = Columns.from_json(json.loads(json.dumps(columns.to_json())), "survived")
    assert again == columns
    assert {kind.kind for kind in again.features} == {"number", "text", "boolean", "date"}
    later = passengers(50, seed=1)
    assert again.transform(later).tobytes() == columns.transform(later).tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_altered_json_is_refused_or_something_else_that_works(seed):
    """Each number, text and list of it in turn is replaced by something else."""
    rng = np.random.default_rng(seed)
    stored = learnt().to_json()
    paths = [*_paths(stored)]
    for at in rng.permutation(len(paths))[:60]:
        for value in (None, 1, -1.5, "x", [], {}, True, float("nan"), [1], 10**400):
            altered = json.loads(json.dumps(stored))
            owner = altered
            for key in paths[at][:-1]:
                owner = owner[key]
            owner[paths[at][-1]] = value
            try:
                columns = Columns.from_json(altered, "survived")
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                continue
            assert json.dumps(columns.to_json())


def _paths(value, before=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from _paths(inner, (*before, key))
