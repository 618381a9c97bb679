"""The target column: missing labels, labels as they are written, numbers in other forms, too many classes."""

import csv

import numpy as np
import pytest

import fastbp
from fastbp.cli.errors import DataError
from fastbp.cli.main import main
from fastbp.tables import cells
from fastbp.tables.targets import check_classes, choose_kind, labels, quantities


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(target, path="d.csv"):
    """A table with a feature and this target."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "y"])
        writer.writerows([i % 7, value] for i, value in enumerate(target))


@pytest.fixture
def refused(capsys):
    def refused(target, options=""):
        write(target)
        assert main(["train", "d.csv", "--target", "y", "--epochs", "1", "--out", "m", *options.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return refused


def trained(target, options=""):
    write(target)
    assert main(["train", "d.csv", "--target", "y", "--epochs", "1", "--out", "m", *options.split()]) == 0
    return fastbp.load("m").classes


# ---- missing labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["", "--task classification", "--task regression"])
@pytest.mark.parametrize("mark", ["NaN", "nan", "NA", "?", "None", "null", "N/A", "<NA>", "#N/A", ""])
@pytest.mark.parametrize("others", [["yes", "no"], ["0", "1"], ["0.5", "1.25"]], ids=str)
def test_a_missing_label_is_refused_and_its_row_named(refused, mark, others, options):
    line = refused([*others * 20, mark], options)
    if options == "--task regression" and others[0] == "yes":
        assert "row 1, column 'y' (the target): 'yes' is not a number" in line
    else:
        assert "row 41, column 'y' (the target)" in line
        assert ("is empty" if mark == "" else f"'{mark}' marks a missing value") in line


def test_a_missing_label_in_an_array_of_text(capsys):
    np.savez("d.npz", X=np.arange(20.0)[:, None], y=np.array(["u", "v", "?", "u"] * 5))
    assert main(["train", "d.npz", "--target", "y", "--out", "m"]) == 2
    assert "row 3, column 'y' (the target): '?' marks a missing value" in capsys.readouterr().err


@pytest.mark.parametrize("label", ["none", "-", "nano", "n", "Na", "0"])
def test_classes_that_only_resemble_such_marks_are_kept(label):
    assert label in map(str, trained(["mild", "severe", label] * 10))


def test_an_unknown_target_is_no_reason_not_to_predict(capsys):
    """In every kind of file; what it would have been compared with is said to be missing."""
    for target in (["u", "v"], ["0.5", "1.5"]):
        trained(target * 10)
        write([*target, "?"], "later.csv")
        capsys.readouterr()
        assert main(["predict", "m", "later.csv", "--out", "p.csv"]) == 0
        said = capsys.readouterr().out
        assert "not compared with column 'y': row 3, column 'y'" in said and "missing" in said


# ---- labels as they are written ----------------------------------------------------------------------------


def test_labels_with_zeros_in_front_stay_apart_and_as_written(capsys):
    assert trained(["01", "1", "001"] * 20, "--epochs 200 --lr 0.05 --hidden 16") == ["001", "01", "1"]
    capsys.readouterr()
    assert main(["predict", "m", "d.csv"]) == 0
    predicted = {line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]}
    assert predicted <= {"001", "01", "1"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["007", "7"], ["007", "7"]),
        (["1", "2.0", "2"], [1, 2, 2]),
        (["-1", "+1"], [-1, 1]),
        (["-01", "1"], ["-01", "1"]),
        (["1.000e+00", "2e0", "1e3"], [1, 2, 1000]),  # as np.savetxt writes them
        (["0", "00"], ["0", "00"]),
        (["1.0", "1a"], ["1.0", "1a"]),
        (["0.50", "2"], ["0.50", "2"]),
        (["9007199254740993", "9007199254740992"], ["9007199254740993", "9007199254740992"]),
    ],
)
def test_only_plain_whole_numbers_become_numbers(written, expected):
    found = labels(written, "y")
    assert [found[cell] for cell in written] == expected


# ---- numbers in other forms --------------------------------------------------------------------------------

FORMS = {
    "12,9": "a decimal comma",
    "1.234,56": "a decimal comma",
    "-0,5": "a decimal comma",
    "0,451": "a decimal comma",
    "15%": "a percent sign",
    "12.5 %": "a percent sign",
    "46,451": "a thousands mark",
    "1,046,451.25": "a thousands mark",
    "1'046": "a thousands mark",
    "1 046": "a thousands mark",
    "1\u202f046": "a thousands mark",
    "1.046.451": "a thousands mark",
    "$12.50": "a currency sign",
    "12,50 €": "a currency sign",
    "1_000": "an underscore",
    "\u22125.5": "a dash for a minus sign",
}


@pytest.mark.parametrize("cell", FORMS)
def test_a_number_in_another_form_is_an_error_that_names_it(refused, cell):
    """However many rows are written so; in either task."""
    form = FORMS[cell]
    for target in ([cell] * 20, [*["12.5", "13.5"] * 10, cell], [cell, "7", "8", "9"] * 5):
        row = target.index(cell) + 1
        assert f"row {row}, column 'y' (the target): {cell!r} is a number with {form}" in refused(target)
        regression = refused(target, "--task regression")
        assert (
            f"row {row}, column 'y' (the target): {cell!r} is not a number, but one with {form}" in regression
        )
    with open("f.csv", "w", encoding="utf-8") as file:
        file.write(f'a,y\n1,2\n"{cell}",3\n')
    assert main(["train", "f.csv", "--target", "y", "--out", "m"]) == 2


def test_a_feature_in_another_form_is_an_error_that_names_it(capsys):
    for cell, form in FORMS.items():
        with open("f.csv", "w", encoding="utf-8") as file:
            file.write(f'a,y\n1,2\n"{cell}",3\n')
        assert main(["train", "f.csv", "--target", "y", "--out", "m"]) == 2
        expected = f"row 2 (line 3), column 'a': {cell!r} is not a number, but one with {form}"
        assert expected in capsys.readouterr().err


def test_hundreds_of_numbers_with_a_comma_are_no_classes(refused):
    rng = np.random.default_rng(0)
    target = [f"{value:.1f}".replace(".", ",") for value in rng.uniform(1, 99, 200)]
    assert "is a number with a decimal comma" in refused(target)
    line = refused(target, "--task classification")
    assert "different values in 200 rows" in line and "a decimal comma" in line
    # 46,451 may have either; another row tells.
    assert "'3,5' is a number with a decimal comma" in refused(["46,451", "3,5"] * 10)


def test_few_of_them_are_classes_for_those_who_say_so():
    assert trained(["10%", "20%"] * 10, "--task classification") == ["10%", "20%"]
    assert trained(["10%", "20%", "more"] * 10) == ["10%", "20%", "more"]  # text beside them: they are names


@pytest.mark.parametrize(
    "cell", ["12", "-1.5e3", ".5", "+7", "1a", "a,b", "10 to 12", "1,2,3", "12,34,5", "%"]
)
def test_what_is_no_number_in_another_form(cell):
    assert cells.unusual_form(cell) is None


# ---- too many classes --------------------------------------------------------------------------------------


def test_a_quantity_with_nearly_as_many_values_as_rows_is_not_for_classification(refused):
    rng = np.random.default_rng(0)
    for rows in (10, 200):
        target = [f"{value:.6f}" for value in rng.standard_normal(rows)]
        line = refused(target, "--task classification")
        assert f"the target 'y' has {rows} different values in {rows} rows, too many for classes" in line
        assert "it is a quantity: --task regression" in line
    assert "--task regression" in refused([str(i) for i in range(100)], "--task classification")
    assert "text of that kind cannot be predicted" in refused([f"name {i}" for i in range(100)])


def test_numbers_that_are_classes_stay_classes():
    check_classes([str(i % 30) for i in range(100)], "y")
    check_classes([f"{i % 5 / 2}" for i in range(100)], "y")
    check_classes(["0.5", "1.5"], "y")
    check_classes([str(i) for i in range(20)], "y")
    check_classes(np.arange(100) % 40.0, "y")
    with pytest.raises(DataError, match="100 different values in 100 rows"):
        check_classes(np.arange(100.0) / 3, "y")


def test_numbers_that_are_not_finite_are_named():
    with pytest.raises(DataError, match=r"row 2, column 'y' \(the target\): inf is not a finite number"):
        quantities(np.array([1, np.inf]), "y")
    with pytest.raises(DataError, match=r"row 2, column 'y' \(the target\): 'inf' is not a number"):
        quantities(["1", "inf"], "y")
    assert choose_kind(np.array([1.0, 2.0] * 5), "y") == "classification"
