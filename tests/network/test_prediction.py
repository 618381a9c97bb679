"""Predictions of many rows: cut into entries, tried alone and as a team. Of few: with parameters as they are
now."""

import concurrent.futures

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.engine.plan import Plan
from fastbp.engine.threads import team
from fastbp.network import compiled


def test_trials_of_threads_take_some_batches_and_no_row_is_left_out(monkeypatch):
    """Entries of 4000 rows, so 8 batches of 512: 10 of them."""
    if team.available(2) < 2:
        pytest.skip("needs two cores")
    model = fastbp.MLP([64, 100, 10], dtype="float64", threads=2, seed=0)
    monkeypatch.setattr(compiled, "ENTRY_MULTIPLY_ADDS", 4000 * model.n_parameters)
    X = np.random.default_rng(0).random((40_000, 64))
    entries = []
    run_as = Plan.run_as

    def noted(plan, task, threads, batches, *more):
        entries.append((threads, batches))
        return run_as(plan, task, threads, batches, *more)

    monkeypatch.setattr(Plan, "run_as", noted)
    predicted = model.predict(X)
    assert entries[0] == (2, 1) and max(batches for _, batches in entries) <= 8
    assert sum(batches for _, batches in entries) * 512 >= len(X)
    alone = fastbp.MLP([64, 100, 10], dtype="float64", threads=1, seed=0)
    entries.clear()
    assert np.array_equal(alone.predict(X), predicted)
    assert {threads for threads, _ in entries} == {1}
    reference = fastbp.reference.MLP([64, 100, 10], dtype="float64", seed=0)
    np.testing.assert_allclose(predicted, reference.predict(X), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "sizes, options",
    [
        ([5, 4, 1], {}),
        ([30, 64, 32, 1], {"hidden": "tanh"}),
        ([33, 17, 140, 3], {"layer_norm": True, "hidden": "gelu"}),
        ([64, 100, 20], {"output": "softmax", "loss": "categorical_crossentropy"}),
    ],
)
def test_the_same_bits_for_a_row_alone_and_among_others(sizes, options, dtype):
    """Few and some are predicted with the parameters where they lie, many with packed ones."""
    model = fastbp.MLP(sizes, dtype=dtype, seed=0, **options)
    X = np.random.default_rng(0).standard_normal((3000, sizes[0])).astype(dtype)
    together = model.predict(X)
    assert model.backend._plans  # which is what packs
    reference = fastbp.reference.MLP(sizes, dtype="float64", seed=0, **options)
    reference.weights, reference.biases = model.weights, model.biases
    np.testing.assert_allclose(together, reference.predict(X), atol=1e-12 if dtype == "float64" else 2e-5)
    for rows in (1, 3, 7, 8, 9, 15, 64, 127, 128, 129, 300, 1024, 1025):
        for first in (0, 3000 - rows):
            assert np.array_equal(model.predict(X[first : first + rows]), together[first : first + rows]), (
                rows
            )
    with pytest.raises(ValueError, match=r"X\[40, 2\] = nan"):
        X[40, 2] = np.nan
        model.predict(X[:50])
    assert np.array_equal(model.predict(X[100:900]), together[100:900])


def test_threads_predict_small_batches_with_one_model_and_with_others():
    """Those who wait for a prediction let others run Python meanwhile."""
    models = [fastbp.MLP([64, 300, 10], seed=seed) for seed in range(2)]
    X = np.random.default_rng(0).standard_normal((700, 64)).astype(np.float32)
    expected = [model.predict(X) for model in models]

    def predict(number):
        first, rows, model = 13 * number % 200, (1, 40, 300, 500)[number % 4], number % 2
        got = models[model].predict(X[first : first + rows])
        return np.array_equal(got, expected[model][first : first + rows])

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(predict, range(600)))


def _replace_one(model):
    model.weights[1] = model.weights[1] * 2


def _replace_bias_of_one_number(model):
    model.biases[-1] = model.biases[-1] + 1


def _replace_gains(model):
    model.gains[0] = model.gains[0] * 3


def _write(model):
    model.weights[0][...] *= -1


def _put_other_lists(model):
    model.weights, model.biases = tuple(W * 2 for W in model.weights), [b + 1 for b in model.biases]


def _take_out_and_put_in(model):
    model.weights.insert(0, model.weights.pop(0) * 2)


@pytest.mark.parametrize(
    "change",
    [
        _replace_one,
        _replace_bias_of_one_number,
        _replace_gains,
        _write,
        _put_other_lists,
        _take_out_and_put_in,
    ],
)
@pytest.mark.parametrize("rows", [1, 20])
def test_a_row_is_predicted_with_what_was_put_in_the_place_of_parameters(change, rows):
    model, reference = (
        module.MLP([5, 4, 1], layer_norm=True, dtype="float64", seed=0)
        for module in (fastbp, fastbp.reference)
    )
    X = np.random.default_rng(0).random((rows, 5))
    before = model.predict(X)
    for network in (model, reference):
        change(network)
    after = model.predict(X)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, reference.predict(X), atol=1e-14, rtol=0)
    assert np.array_equal(model.predict(X), after)
    model.weights[0][...] = 0  # the parameters' own again
    reference.weights[0][...] = 0
    np.testing.assert_allclose(model.predict(X), reference.predict(X), atol=1e-14, rtol=0)


@pytest.mark.parametrize("change", [list.pop, list.clear, lambda arrays: arrays.append(arrays[0])])
@pytest.mark.parametrize("kind", ["weights", "biases", "gains"])
@pytest.mark.parametrize("rows", [1, 20])
def test_no_row_is_predicted_with_an_array_too_few_or_too_many(kind, change, rows):
    model = fastbp.MLP([5, 4, 4, 1], layer_norm=True, seed=0)
    X = np.random.default_rng(0).random((rows, 5), np.float32)
    before = model.predict(X)
    arrays = list(getattr(model, kind))
    change(getattr(model, kind))
    with pytest.raises(ValueError, match=kind.removesuffix("es")):
        model.predict(X)
    setattr(model, kind, arrays)
    assert np.array_equal(model.predict(X), before)


def test_a_row_that_is_no_array_of_the_models_numbers_is_converted():
    """Subclasses, other numbers and orders: none is read as what it is not."""
    model = fastbp.MLP([5, 4, 1], dtype="float32", seed=0)
    X = np.random.default_rng(0).random((1, 5), np.float32)
    expected = model.predict(X)
    others = [
        X.tolist(),
        X.astype(np.float64),
        X.astype(">f4"),
        np.lib.stride_tricks.as_strided(np.repeat(X, 2, axis=1), (1, 5), (40, 8)),
        np.frombuffer(b" " + X.tobytes(), np.uint8)[1:].view(np.float32).reshape(1, 5),
        np.rec.array(X).view(np.recarray),
    ]
    for other in others:
        assert np.array_equal(model.predict(other), expected)
    for wrong, message in ((X[0], "dimension"), (X[:, :4], "features|columns|shape"), (None, "X")):
        with pytest.raises((ValueError, TypeError), match=message):
            model.predict(wrong)
