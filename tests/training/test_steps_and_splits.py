"""How much `fit` trains and on what: steps, validation splits, pieces, starting again."""

import re
import sys

import numpy as np
import pytest
from fit_data import data

from fastbp.training import run as run_module
from fastbp.training.start import split_rows

# ---- how much, and on what ----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-9, 10.0])
@pytest.mark.parametrize("validation", [False, True])
def test_steps_instead_of_epochs(module, monkeypatch, seconds, validation):
    """Whole epochs and a part of one, whose loss is that of the rows it had."""
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", seconds)
    X, Y = data(23)
    model, by_hand = (module.MLP([3, 4, 2], dtype="float64", seed=0) for _ in range(2))
    optimizer, by_hand_optimizer = module.Adam(), module.Adam()
    options = {"validation_data": (X, Y)} if validation else {}
    history = model.fit(X, Y, steps=13, batch_size=5, optimizer=optimizer, **options)
    assert history.epochs == 3
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == 13
    losses = []
    for epoch in range(3):
        order = by_hand.streams.shuffling.permutation(23)
        for step in range(5 if epoch < 2 else 3):
            rows = order[5 * step : 5 * step + 5]
            losses.append(by_hand.train_step(X[rows], Y[rows], by_hand_optimizer) * len(rows))
    expected = [sum(losses[:5]) / 23, sum(losses[5:10]) / 23, sum(losses[10:]) / 15]
    np.testing.assert_allclose(history.loss, expected, rtol=1e-12)
    np.testing.assert_allclose(model.parameters.flat, by_hand.parameters.flat, rtol=0, atol=1e-13)
    if validation:
        assert history.val_loss.shape == (3,)
        assert history.val_loss[-1] == model.loss(X, Y)


def test_steps_within_one_epoch_and_none(module):
    X, Y = data(23)
    model = module.MLP([3, 4, 2], seed=0)
    assert model.fit(X, Y, steps=2, batch_size=5, optimizer=module.SGD(0.1)).epochs == 1
    assert model.fit(X, Y, steps=0, batch_size=5, optimizer=module.SGD(0.1)).epochs == 0
    assert model.fit(X, Y, steps=5, batch_size=5, optimizer=module.SGD(0.1)).epochs == 1


def test_epochs_or_steps(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    for options in ({}, {"epochs": 1, "steps": 1}):
        with pytest.raises(ValueError, match="give epochs or steps, one of them; got epochs="):
            model.fit(X, Y, optimizer=module.SGD(0.1), **options)
    with pytest.raises(ValueError, match="steps is -1, expected at least 0"):
        model.fit(X, Y, steps=-1, optimizer=module.SGD(0.1))


def test_validation_split(module):
    """It is the same as fitting on some rows and validating on the others, the same ones in each call."""
    X, Y = data(50)
    seen = []
    for call in range(2):
        model = module.MLP([3, 4, 2], seed=5)
        for _ in range(call + 1):
            run = model.streams.shuffling.bit_generator.state
            history = model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1), validation_split=0.3)
            rows, held = split_rows(model, 50, 0.3)
            seen.append(held.tobytes())
            assert history.val_loss.shape == (2,)
            assert history.val_loss[-1] == model.loss(X[held], Y[held])
            assert len(held) == 15
            assert sorted([*rows, *held]) == list(range(50))
            by_hand = module.MLP([3, 4, 2], seed=5)
            by_hand.streams.shuffling.bit_generator.state = run
            if call == 0:
                by_hand.fit(X[rows], Y[rows], epochs=2, optimizer=module.SGD(0.1))
                assert by_hand.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert len(set(seen)) == 1
    other = split_rows(module.MLP([3, 4, 2], seed=6), 50, 0.3)[1]
    assert other.tobytes() not in seen


def test_validation_split_that_makes_no_sense(module):
    X, Y = data(10)
    model = module.MLP([3, 4, 2], seed=0)
    for message, options in [
        ("validation_split=0.04 of 10 rows leaves nothing for validation", {"validation_split": 0.04}),
        ("validation_split=0.96 of 10 rows leaves nothing for training", {"validation_split": 0.96}),
        ("validation_split is 1.0, expected a number in [0, 1)", {"validation_split": 1}),
        (
            "give validation_data or validation_split, not both",
            {"validation_split": 0.5, "validation_data": (X, Y)},
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), **options)


def test_the_bar_shows_what_validation_found(module, capsys, monkeypatch):
    X, Y = data()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    history = module.MLP([3, 4, 2], seed=0).fit(
        X, Y, epochs=3, optimizer=module.SGD(0.1), validation_split=0.2, metrics="mae"
    )
    shown = capsys.readouterr().err
    for name in ("loss", "val_loss", "val_mae"):
        assert f"{name} {history.last(name):.4g}" in shown


def test_a_split_of_integers_and_scaled_data(module):
    """Rows that are converted as they are read: the same as the converted data."""
    X, Y = np.random.default_rng(0).integers(0, 255, (50, 3), np.uint8), data()[1] > 0.5
    results = []
    for x, options in ((X, {"input_scale": 1 / 255}), (X * np.float32(1 / 255), {})):
        model = module.MLP([3, 4, 2], seed=0, **options)
        fit = {"optimizer": module.SGD(0.5), "validation_split": 0.3, "metrics": "mae"}
        history = model.fit(x, Y, epochs=3, **fit)
        results.append([model.parameters.flat, history.loss, history.val_loss, history.val_metrics["mae"]])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


# ---- pieces, and starting again -----------------------------------------------------------------------


def test_partial_fit(module):
    """One epoch of fit after another: parameters, optimizer and shuffling go on."""
    pieces = [data(rows, seed=rows) for rows in (50, 3, 33)]
    model, by_hand = module.MLP([3, 4, 2], seed=0), module.MLP([3, 4, 2], seed=0)
    optimizer, by_hand_optimizer = module.Adam(0.01), module.Adam(0.01)
    for X, Y in pieces:
        loss = model.partial_fit(X, Y, optimizer=optimizer, batch_size=8)
        assert type(loss) is float
        assert loss == by_hand.fit(X, Y, epochs=1, optimizer=by_hand_optimizer, batch_size=8).loss[0]
    assert model.parameters.flat.tobytes() == by_hand.parameters.flat.tobytes()
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == 7 + 1 + 5
    X, Y = data()
    for error, message, options in [
        (ValueError, "batch_size is 0", {"batch_size": 0}),
        (TypeError, "optimizer must be an object", {"optimizer": "adam"}),
    ]:
        with pytest.raises(error, match=message):
            model.partial_fit(X, Y, **{"optimizer": optimizer} | options)
    with pytest.raises(ValueError, match=re.escape("Y has shape (49, 2), expected (50, 2)")):
        model.partial_fit(X, Y[:49], optimizer=optimizer)


def test_partial_fit_does_not_swallow_ctrl_c(module, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module.Run, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        module.MLP([3, 4, 2]).partial_fit(*data(), optimizer=module.SGD(0.1))


def test_reset(module):
    X, Y = data()
    optimizer = module.Adam(0.01)
    model = module.MLP([3, 4, 2], seed=0)
    new = model.parameters.flat.copy()
    first = model.fit(X, Y, epochs=3, optimizer=optimizer)
    trained = model.parameters.flat.copy()
    for _ in range(2):
        weights = model.weights
        model.reset()
        assert np.array_equal(model.parameters.flat, new)
        assert all(a is b for a, b in zip(model.weights, weights, strict=True))
        again = model.fit(X, Y, epochs=3, optimizer=optimizer)
        assert np.array_equal(model.parameters.flat, trained)
        assert np.array_equal(first.loss, again.loss)
    model.weights[0] = np.zeros((3, 4))  # what was put in their place is forgotten, too
    model.reset()
    assert np.array_equal(model.weights[0], new[:12].reshape(3, 4))
    model.fit(X, Y, epochs=3, optimizer=optimizer)
    assert np.array_equal(model.parameters.flat, trained)


def test_a_network_of_given_parameters_is_one_in_which_they_are_put(module):
    X, Y = data()
    drawn = module.MLP([3, 5, 4, 2], layer_norm=True, dropout=0.5, seed=3)
    weights, biases = [w + 1 for w in drawn.weights], [b + 2 for b in drawn.biases]
    given = module.MLP.with_parameters(drawn.architecture, weights, biases)
    drawn.weights, drawn.biases = weights, biases
    for model in (drawn, given):
        model.fit(X, Y, epochs=2, optimizer=module.Adam(0.01))
    assert np.array_equal(given.parameters.flat, drawn.parameters.flat)
    assert not np.shares_memory(given.weights[0], weights[0])
    given.reset()
    drawn.reset()
    assert np.array_equal(given.parameters.flat, drawn.parameters.flat)
    with pytest.raises(ValueError, match="shape"):
        module.MLP.with_parameters(drawn.architecture, weights[::-1], biases)


def test_reset_begins_dropout_again(module):
    X, Y = data()
    model, optimizer = module.MLP([3, 9, 2], dropout=0.5, seed=0), module.SGD(0.1)
    results = []
    for _ in range(2):
        model.fit(X, Y, epochs=2, optimizer=optimizer)
        results.append(model.parameters.flat.tobytes())
        model.reset()
    assert results[0] == results[1]


def test_reset_without_a_seed(module):
    model = module.MLP([3, 4, 2])
    before = model.parameters.flat.copy()
    model.biases[0][...] = 1
    model.reset()
    assert not np.array_equal(model.weights[0].ravel(), before[:12])
    assert not model.biases[0].any()


# ---- a row order of the caller's -----------------------------------------------------------------------


def print_nothing(*_):
    """A callback."""


def orders(epoch):
    """Other rows in each epoch, some of them several times."""
    return np.random.default_rng(epoch).integers(0, 23, 23)


@pytest.mark.parametrize(
    "more", [{}, {"accumulate": 2}, {"callbacks": print_nothing}], ids=["plain", "parts", "callback"]
)
def test_the_order_may_be_given(module, more):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((23, 4)), rng.random((23, 2))
    asked = []

    def order(epoch):
        asked.append(epoch)
        return orders(epoch).astype(np.int32)

    model, twin = (module.MLP([4, 5, 2], dtype="float64", seed=1) for _ in range(2))
    options = {"batch_size": 5, "progress": False} | more
    model.fit(X, Y, epochs=4, order=order, optimizer=module.Adam(0.01), **options)
    assert asked == [1, 2, 3, 4]
    optimizer = module.Adam(0.01)
    for epoch in asked:
        rows = orders(epoch)
        twin.fit(X[rows], Y[rows], epochs=1, shuffle=False, optimizer=optimizer, **options)
    assert np.array_equal(model.parameters.flat, twin.parameters.flat)


def test_an_order_goes_on_from_a_checkpoint(module, tmp_path):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((23, 4)), rng.random((23, 2))

    def trained(steps, path=None):
        model = module.MLP([4, 5, 2], dtype="float64", seed=1)
        every = {} if path is None else {"checkpoint": path, "every_steps": 3}
        model.fit(X, Y, steps=steps, batch_size=5, order=orders, optimizer=module.Adam(0.01), **every)
        return model.parameters.flat

    trained(10, tmp_path / "run")
    assert np.array_equal(trained(20, tmp_path / "run"), trained(20))
    with pytest.raises(ValueError, match=r"order: .*orders' in the checkpoint, nothing given"):
        module.MLP([4, 5, 2], dtype="float64", seed=1).fit(
            X,
            Y,
            steps=20,
            batch_size=5,
            optimizer=module.Adam(0.01),
            checkpoint=tmp_path / "run",
            every_steps=3,
        )


@pytest.mark.parametrize(
    ("order", "error", "message"),
    [
        (np.arange(23), TypeError, "order must be a function that gives each epoch's row numbers"),
        (lambda epoch: np.arange(22), ValueError, r"order\(1\) has shape \(22,\), expected \(23,\)"),
        (lambda epoch: np.arange(23) / 1, TypeError, r"order\(1\) has dtype float64, expected integers"),
        (
            lambda epoch: np.arange(23) + 1,
            ValueError,
            r"order\(1\)\[22\] is 23, expected row numbers 0 to 22",
        ),
        (lambda epoch: np.arange(23) - 1, ValueError, r"order\(1\)\[0\] is -1, expected"),
        (lambda epoch: None, TypeError, r"order\(1\) has dtype object"),
    ],
)
def test_an_order_that_is_refused(module, order, error, message):
    model = module.MLP([4, 2], seed=0)
    before = model.parameters.flat.copy()
    with pytest.raises(error, match=message):
        model.fit(np.ones((23, 4)), np.ones((23, 2)), epochs=1, optimizer=module.SGD(0.1), order=order)
    assert np.array_equal(model.parameters.flat, before)


def test_batches_of_an_iterable_come_in_their_own_order(module):
    model = module.MLP([4, 2], seed=0)
    with pytest.raises(ValueError, match="order is for arrays"):
        model.fit(
            [(np.ones((2, 4)), np.ones((2, 2)))], epochs=1, optimizer=module.SGD(1), order=lambda e: [0]
        )
