"""What callers have instead of arrays: converted without loss, or refused with what to do."""

import datetime
import re

import numpy as np
import pytest
from tables import Column, Table

import fastbp
from fastbp import checks

X = np.arange(8.0).reshape(4, 2)
Y = np.ones((4, 1))


def refused(call, error, *parts):
    with pytest.raises(error) as caught:
        call()
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def net(module, sizes=(2, 3, 1), **options):
    return module.MLP(list(sizes), output="identity", seed=0, **options)


def calls(module, X, Y):
    """Every way to hand over data."""
    model, sgd = net(module), module.SGD(0.1)
    trace = model.forward(np.ones((4, 2)))
    return {
        "forward": lambda: model.forward(X),
        "predict": lambda: model.predict(X),
        "loss": lambda: model.loss(X, Y),
        "train_step": lambda: model.train_step(X, Y, sgd),
        "partial_fit": lambda: model.partial_fit(X, Y, optimizer=sgd),
        "fit": lambda: model.fit(X, Y, epochs=1, optimizer=sgd),
        "batches": lambda: model.fit([(X, Y)], epochs=1, optimizer=sgd),
        "validation": lambda: model.fit(
            np.ones((4, 2)), np.ones((4, 1)), epochs=1, optimizer=sgd, validation_data=(X, Y)
        ),
        "backward": lambda: model.backward(trace, Y),
        "diagnose": lambda: model.diagnose(X, Y),
        "check_gradients": lambda: model.check_gradients(X, Y),
    }


ONLY_X, ONLY_Y = ("forward", "predict"), ("backward",)


def test_masked_arrays_are_refused(module):
    masked_x, masked_y = (np.ma.masked_greater(a, 5.0) for a in (X, Y))
    for name, call in calls(module, masked_x, Y).items():
        if name not in ONLY_Y:
            refused(call, TypeError, "is a masked array", ".filled(")
    for name, call in calls(module, X, masked_y).items():
        if name not in ONLY_X:
            refused(call, TypeError, "is a masked array")
    refused(lambda: net(module).predict(list(masked_x)), TypeError, "X is a list of masked arrays")
    refused(lambda: net(module).predict((X[0], masked_x[3])), TypeError, "X is a list of masked arrays")
    weights = np.ma.masked_equal([1.0, 1, 0, 1], 0)
    refused(lambda: net(module).loss(X, Y, sample_weight=weights), TypeError, "sample_weight is a masked")


def test_masked_arrays_are_refused_by_the_functions(module):
    W1, b1, W2, b2 = np.ones((2, 3)), np.ones(3), np.ones((3, 1)), np.ones(1)
    arguments = {"X": X, "y_true": Y, "W1": W1, "b1": b1, "W2": W2, "b2": b2}
    for name, array in arguments.items():
        given = {**arguments, name: np.ma.masked_less(array, 0.5)}
        refused(
            lambda given=given: module.train_step(**given, lr=0.1), TypeError, f"{name} is a masked array"
        )
    refused(lambda: module.sgd_update([np.ma.ones(3)], [np.ones(3)], 0.1), TypeError, "params[0] is a masked")
    refused(lambda: module.sgd_update([np.ones(3)], [np.ma.ones(3)], 0.1), TypeError, "grads[0] is a masked")


def test_sparse_matrices_are_refused_but_as_X_of_a_model(module):
    sparse = pytest.importorskip("scipy.sparse")
    for matrix in (sparse.csr_matrix(X), sparse.coo_array(X)):
        for name, call in calls(module, matrix, Y).items():
            if name not in ONLY_Y:
                call()
    for name, call in calls(module, X, sparse.csr_matrix(Y)).items():
        if name not in ONLY_X:
            refused(call, TypeError, "sparse matrix", ".toarray() makes an array of it")
    with pytest.raises(TypeError, match="X is a sparse matrix"):
        module.forward(sparse.csr_matrix(X), np.ones((2, 3)), np.ones(3), np.ones((3, 1)), np.ones(1))


def test_booleans_of_other_bytes_than_0_and_1(module):
    mask = (np.arange(8).reshape(4, 2) % 3 == 0).astype(np.uint8) * 255
    models = [net(module) for _ in range(2)]
    for model, given in zip(models, (mask.view(bool), mask > 0), strict=True):
        model.fit(given, given[:, :1], epochs=3, optimizer=module.SGD(0.1), progress=False)
    assert np.array_equal(models[0].weights[0], models[1].weights[0])
    assert np.array_equal(models[0].predict(mask.view(bool)), models[0].predict(mask > 0))
    assert checks.as_array("X", mask.view(bool)).view(np.uint8).max() == 1


def test_columns_that_convert_without_loss():
    table = Table(
        yes=Column([True, False]), small=Column([1, 2], "i2"), real=Column([0.5, 2.5], "f4"),
        mixed=Column([1, True], object),
    )  # fmt: skip
    array = checks.as_array("X", table)
    assert array.dtype == np.float64
    assert array.tolist() == [[1, 1, 0.5, 1], [0, 2, 2.5, 1]]
    assert net(fastbp, (4, 3, 1)).predict(table).shape == (2, 1)


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        (
            Column(["a", "b"], object),
            TypeError,
            "holds text, 'a' in row 0: expected real numbers; make a column",
        ),
        (
            Column([1.5, None], object),
            ValueError,
            "has no value in row 1 (None): fill such rows, or leave them",
        ),
        (Column(["2024-01-01", "2024-01-02"], "M8[ns]"), TypeError, "holds dates or times (datetime64[ns])"),
        (Column([datetime.date(2024, 1, 1), 1], object), TypeError, "holds dates or times"),
        (Column([1j, 2], object), TypeError, "holds 1j in row 0, expected real numbers"),
    ],
)
def test_columns_that_are_refused(module, column, error, message):
    table = Table(first=Column([1.0, 2.0]), second=column)
    refused(lambda: net(module).predict(table), error, "column 'second' of X " + message)


def test_pandas(module):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2, 3, 4], "b": [True, False, True, False]})
    expected = net(module).predict([[1, 1], [2, 0], [3, 1], [4, 0]])
    for changed in (frame, frame.astype({"a": "Int64", "b": "boolean"}), frame.astype({"a": "category"})):
        assert np.array_equal(net(module).predict(changed), expected)
    for values, message in [
        (pandas.Series([1, None, 2, pandas.NA], dtype=object), "has no value in row 1 (None)"),
        (pandas.Categorical(list("abab")), "holds text, 'a' in row 0"),
        (pandas.to_datetime(["2024-01-01"] * 4), "holds dates or times"),
        (["x"] * 4, "holds text, 'x' in row 0"),
    ]:
        table = frame.assign(b=values)
        refused(
            lambda table=table: net(module).predict(table),
            (TypeError, ValueError),
            "column 'b' of X " + message,
        )
    missing = frame.assign(b=pandas.array([1, None, 2, 3], "Int64"))
    with pytest.raises(
        ValueError, match=r"'b' of X has no value in row 1|X\[1, 1\] = nan"
    ):  # as pandas has it
        net(module).predict(missing)
    for targets in (pandas.Series([1.0, 2, 3, 4]), pandas.DataFrame({"y": [1, 2, 3, 4]})):
        assert net(module).loss(frame, targets) == net(module).loss(frame, [[1.0], [2], [3], [4]])


def test_class_weights_by_the_index_of_a_series(module):
    pandas = pytest.importorskip("pandas")
    data = {"epochs": 2, "optimizer": module.SGD(0.1), "progress": False}
    results = []
    for weights in ({0: 0.5, 2: 3.0, 1: 1.0}, pandas.Series({2: 3.0, 0: 0.5, 1: 1.0})):
        model = module.MLP([2, 3], output="softmax", loss="categorical_crossentropy", seed=0)
        model.fit(X, [0, 1, 2, 1], class_weight=weights, **data | {"optimizer": module.SGD(0.1)})
        results.append(model.weights[0])
    assert np.array_equal(*results)


def test_targets_of_one_dimension_for_one_output(module, tmp_path):
    y = np.array([1.0, 2, 3, 4])
    np.save(tmp_path / "y.npy", y)
    expected = net(module)
    expected.fit(X, y[:, None], epochs=2, optimizer=module.SGD(0.1), validation_data=(X, y[:, None]))
    for given in (y, list(y), tmp_path / "y.npy"):
        model = net(module)
        model.fit(X, given, epochs=2, optimizer=module.SGD(0.1), validation_data=(X, given))
        assert np.array_equal(model.weights[0], expected.weights[0])
    for call in calls(module, X, y).values():
        call()
    refused(lambda: net(module).loss(X, y[:3]), ValueError, "Y has shape (3, 1), expected (4, 1)")


def test_text(module):
    labels = np.array(["cat", "dog", "cat", "cow"])
    model = module.MLP([2, 3], output="softmax", loss="categorical_crossentropy")
    for given in (labels, list(labels), labels.astype(object)):
        refused(
            lambda given=given: model.loss(X, given), TypeError, "names, labels = np.unique(Y, return_inv"
        )
    names, numbers = np.unique(labels, return_inverse=True)
    assert names[numbers].tolist() == labels.tolist()
    model.fit(X, numbers, epochs=1, optimizer=module.SGD(0.1))
    refused(lambda: model.predict([["1", "2"]]), TypeError, "X has dtype <U1", "astype(float)")


def test_not_finite(module):
    refused(lambda: net(module).loss(X, [[1.0], [1e300], [1], [1]]), ValueError, "are infinite in float32")
    message = "Y[2, 0] = nan): fill in what is missing, or leave such rows out"
    refused(lambda: net(module).loss(X, [[1.0], [1], [np.nan], [1]]), ValueError, message)
    refused(
        lambda: module.sgd_update([np.zeros(())], [np.nan], 0.1), ValueError, "grads[0] is nan, expected a fi"
    )


class Hostile:
    """Fails whatever it is asked."""

    def __repr__(self):
        raise RuntimeError("no")

    def __array__(self, *arguments, **options):
        raise RuntimeError("a tensor that requires grad")

    def __float__(self):
        raise RuntimeError("no number")


def test_whatever_an_object_raises_the_argument_is_named(module):
    for name, call in calls(module, Hostile(), Y).items():
        if name not in ONLY_Y:
            with pytest.raises(
                (TypeError, ValueError), match=re.escape("is a Hostile, which gives no array")
            ):
                call()
    refused(lambda: module.SGD(Hostile()), TypeError, "lr must be a number, got a Hostile")
    refused(lambda: module.SGD(np.zeros(3000)), TypeError, "lr must be a number, got array(", "...")
