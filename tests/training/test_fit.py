"""MLP.fit: batches, shuffling, history, callbacks, progress, symmetry, numbers that blow up."""

import re
import sys
import types
import warnings

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.training import run as run_module


def data(rows=50, inputs=3, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, inputs)), rng.random((rows, outputs))


def arrays(model):
    return [*model.weights, *model.biases]


# ---- it learns, and both implementations do the same --------------------------------------------------


def test_xor(module):
    X = [[0, 0], [0, 1], [1, 0], [1, 1]]
    Y = [[0], [1], [1], [0]]
    model = module.MLP([2, 8, 1], loss="binary_crossentropy", seed=0)
    history = model.fit(X, Y, epochs=500, batch_size=4, optimizer=module.Adam(0.05))
    assert np.array_equal(model.predict(X).round(), Y)
    assert history.loss[-1] < 0.05 < history.loss[0]
    assert history.epochs == 500


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 50, 1000])
def test_same_training_in_both_implementations(dtype, batch_size, shuffle):
    X, Y = data()
    results = []
    for module in (fastbp, fastbp.reference):
        model = module.MLP([3, 9, 5, 2], hidden="tanh", dtype=dtype, seed=7)
        history = model.fit(
            X,
            Y,
            epochs=4,
            batch_size=batch_size,
            optimizer=module.SGD(0.5, momentum=0.5),
            shuffle=shuffle,
            validation_data=data(10, seed=1),
        )
        results.append((model, history))
    (ours, our_history), (theirs, their_history) = results
    tolerance = 1e-12 if dtype == np.float64 else 1e-4
    for a, b in zip(arrays(ours), arrays(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
    np.testing.assert_allclose(our_history.loss, their_history.loss, rtol=tolerance)
    np.testing.assert_allclose(our_history.val_loss, their_history.val_loss, rtol=tolerance)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_of_an_epoch(module, reduction):
    """The batches' losses before their updates: as train_step gives them, the last batch being smaller."""
    X, Y = data(50)
    model, by_hand = (module.MLP([3, 6, 2], reduction=reduction, dtype="float64", seed=0) for _ in range(2))
    history = model.fit(X, Y, epochs=3, batch_size=16, optimizer=module.SGD(0.05), shuffle=False)
    optimizer = module.SGD(0.05)
    expected = []
    for _ in range(3):
        losses = []
        for start in range(0, 50, 16):
            x, y = X[start : start + 16], Y[start : start + 16]
            loss = by_hand.train_step(x, y, optimizer)
            losses.append(loss * len(x) if reduction == "mean" else loss)
        expected.append(sum(losses) / 50 if reduction == "mean" else sum(losses))
    np.testing.assert_allclose(history.loss, expected, rtol=1e-12)
    for a, b in zip(arrays(model), arrays(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)
    assert history.loss.dtype == np.float64
    assert history.val_loss.shape == (0,)
    assert history.seconds > 0
    assert not history.interrupted
    assert "epochs=3" in repr(history)


def test_shuffling_uses_every_sample_once_an_epoch(module):
    """With zero weights and lr so small that nothing changes, an epoch's loss is that of all the data."""
    X, Y = data(23)
    model = module.MLP([3, 4, 2], dtype="float64", seed=0)
    seen = []
    original = model._train_chunk

    def spy(X, Y, order, first, last, *rest, **options):
        if last > first:
            seen.append(order.copy())
        return original(X, Y, order, first, last, *rest, **options)

    model._train_chunk = spy
    history = model.fit(X, Y, epochs=4, batch_size=5, optimizer=module.SGD(0.0), callbacks=lambda *_: None)
    np.testing.assert_allclose(history.loss, model.loss(X, Y), rtol=1e-12)
    assert all(sorted(order) == list(range(23)) for order in seen)
    assert len({order.tobytes() for order in seen}) == 4


def test_chunks_do_not_change_the_result(module, monkeypatch):
    """Epochs trained many at a time, one by one, and in pieces of a few steps, give the same bits."""
    X, Y = data(23)
    results = []
    for seconds in (1e-9, 3e-4, 10.0):
        monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", seconds)
        for callbacks in ((), [lambda model, epoch, history: False]):
            model = module.MLP([3, 4, 2], seed=0)
            optimizer = module.Adam()
            history = model.fit(X, Y, epochs=30, batch_size=5, optimizer=optimizer, callbacks=callbacks)
            assert history.epochs == 30
            history = model.fit(X, Y, epochs=3, batch_size=5, optimizer=optimizer, callbacks=callbacks)
            results.append((model._parameters.tobytes(), history.loss.round(12).tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("seconds_per_step", "guess", "most_chunks"), [(1e-6, 1e-6, 20), (1e-6, 1e-3, 30), (0.02, 1e-6, 2000)]
)
def test_a_chunk_spans_epochs_and_takes_no_longer_than_it_should(
    module, monkeypatch, seconds_per_step, guess, most_chunks
):
    """Tiny data do not pay for Python in every epoch; long steps leave room for Ctrl-C."""
    now, chunks = 0.0, []

    def train_chunk(self, X, Y, order, first, last, *rest, **options):
        nonlocal now
        rest[3][:] = 1.0  # the losses
        now += (last - first) * seconds_per_step
        chunks.append((last - first) * seconds_per_step)
        return True

    monkeypatch.setattr(module.MLP, "_train_chunk", train_chunk)
    monkeypatch.setattr(module.MLP, "_step_overhead_seconds", guess)
    monkeypatch.setattr(run_module, "time", types.SimpleNamespace(perf_counter=lambda: now))
    X, Y = data(20)
    module.MLP([3, 8, 2], seed=0).fit(X, Y, epochs=2000, batch_size=4, optimizer=module.SGD(0.1))
    assert len(chunks) < most_chunks
    # the first is cut by a guess, and may be as wrong as that; the next one knows better
    assert max(chunks[2:], default=0) <= run_module.CHUNK_SECONDS + seconds_per_step


def test_data_may_be_read_only_and_are_not_changed(module):
    X, Y = data()
    before = X.copy(), Y.copy()
    X.flags.writeable = Y.flags.writeable = False
    for dtype in ("float32", "float64"):
        model = module.MLP([3, 4, 2], dtype=dtype, seed=0)
        model.fit(X.astype(dtype), Y, epochs=2, optimizer=module.SGD(0.1))
        model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1), validation_data=(X, Y))
    assert np.array_equal(X, before[0])
    assert np.array_equal(Y, before[1])


# ---- around the loop ----------------------------------------------------------------------------------


def test_parameters_as_data_are_those_before_training(module):
    trained = []
    for of in (lambda W: W, np.copy):
        model, optimizer = module.MLP([4, 4], output="identity", seed=0), module.SGD(0.1)
        model.fit(of(model.weights[0]), of(model.weights[0]), epochs=3, batch_size=2, optimizer=optimizer)
        model.train_step(of(model.weights[0]), of(model.weights[0]), optimizer)
        trained.append(model._parameters.tobytes())
    assert trained[0] == trained[1]


def test_callbacks(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    calls = []

    def watch(model_given, epoch, history):
        calls.append((model_given is model, epoch, len(history.loss), len(history.val_loss)))

    def stop(model_given, epoch, history):
        return epoch == 3

    history = model.fit(
        X, Y, epochs=10, optimizer=module.SGD(0.1), validation_data=(X, Y), callbacks=[stop, watch]
    )
    assert calls == [(True, e, e, e) for e in (1, 2, 3)]
    assert history.epochs == 3
    assert not history.interrupted
    assert model.fit(X, Y, epochs=5, optimizer=module.SGD(0.1), callbacks=stop).epochs == 3
    with pytest.raises(TypeError, match="callbacks must be functions of"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), callbacks=[3])


def test_a_callback_may_replace_parameters(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)

    def reset(model, epoch, history):
        model.weights[0] = np.full((3, 4), 0.5)

    model.fit(X, Y, epochs=3, optimizer=module.SGD(0.0), callbacks=reset)
    assert np.all(model.weights[0] == 0.5)
    model.predict(X)


def test_errors_of_callbacks_come_through(module):
    X, Y = data()

    def fail(model, epoch, history):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        module.MLP([3, 4, 2]).fit(X, Y, epochs=3, optimizer=module.SGD(0.1), callbacks=fail)


def test_validation_loss(module):
    X, Y = data()
    V, W = data(11, seed=3)
    model = module.MLP([3, 4, 2], seed=0)
    history = model.fit(X, Y, epochs=3, optimizer=module.SGD(0.1), validation_data=(V, W))
    assert history.val_loss.shape == (3,)
    assert history.val_loss[-1] == model.loss(V, W)
    with pytest.raises(TypeError, match=re.escape("validation_data must be a pair (X, Y)")):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), validation_data=V)
    with pytest.raises(ValueError, match=re.escape("validation_data[1] has shape (10, 2), expected (11, 2)")):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), validation_data=(V, W[:10]))


def test_bad_settings_are_refused_before_training(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    before = model._parameters.copy()
    for error, message, options in [
        (ValueError, "epochs is -1, expected at least 0", {"epochs": -1}),
        (TypeError, "epochs must be an integer, got 1.5", {"epochs": 1.5}),
        (ValueError, "batch_size is 0, expected at least 1", {"batch_size": 0}),
        (TypeError, "batch_size must be an integer, got None", {"batch_size": None}),
        (TypeError, "shuffle must be True or False, got 'no'", {"shuffle": "no"}),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            model.fit(X, Y, **{"epochs": 1, "optimizer": module.SGD(0.1)} | options)
    assert np.array_equal(model._parameters, before)
    assert model.fit(X, Y, epochs=0, optimizer=module.SGD(0.1)).loss.shape == (0,)


def test_progress_bar_on_a_terminal_only(module, capsys, monkeypatch):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    model.fit(X, Y, epochs=3, optimizer=module.SGD(0.1))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    model.fit(X, Y, epochs=3, optimizer=module.SGD(0.1))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "loss" in shown.err
    assert "epoch 3/3" in shown.err
    model.fit(X, Y, epochs=3, optimizer=module.SGD(0.1), progress=False)
    assert capsys.readouterr() == ("", "")


# ---- symmetry -----------------------------------------------------------------------------------------


def test_all_zero_weights_warn_once_and_name_the_layer(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], hidden="tanh", seed=0)
    for W in model.weights:
        W[...] = 0
    with pytest.warns(
        UserWarning, match="hidden units of layer 1 will stay identical.*zero.*symmetry"
    ) as seen:
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    assert len(seen) == 1
    assert seen[0].filename == __file__
    model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))  # a second warning would be an error here
    # and it is true: all hidden units are still the same
    assert np.all(model.weights[0] == model.weights[0][:, :1])


def test_symmetry_in_several_layers(module):
    X, Y = data()
    model = module.MLP([3, 4, 5, 2], seed=0)
    for W in model.weights:
        W[...] = 0
    with pytest.warns(UserWarning, match="layers 1, 2 will stay identical") as seen:
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    assert len(seen) == 1


def test_symmetry_is_not_claimed_where_it_breaks(module):
    X, Y = data()
    for zero in (0, 1):  # with tanh, one random array of the two is enough for units to part
        model = module.MLP([3, 4, 2], hidden="tanh", seed=0)
        model.weights[zero][...] = 0
        model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1))
        assert not np.all(model.weights[0] == model.weights[0][:, :1])
    module.MLP([3, 1, 2], seed=0).fit(X, Y, epochs=1, optimizer=module.SGD(0.1))  # one unit is like itself
    # zero weights into ReLUs: no gradient passes, whatever follows
    model = module.MLP([3, 4, 2], seed=0)
    model.weights[0][...] = 0
    with pytest.warns(UserWarning, match="layer 1 will stay identical"):
        model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1))
    assert np.all(model.weights[0] == 0)


# ---- NaN and infinity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("callbacks", [(), [lambda *_: None]], ids=["chunks span epochs", "epoch by epoch"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_divergence_stops_with_the_last_finite_parameters(module, dtype, shuffle, callbacks):
    X, Y = data(40, 3, 2)
    model = module.MLP([3, 6, 2], output="identity", dtype=dtype, seed=0)
    optimizer = module.SGD(50.0, momentum=0.5)
    with pytest.raises(FloatingPointError, match=r"at epoch \d+, step \d+ of 5\. .*last finite") as caught:
        model.fit(X, Y, epochs=1000, batch_size=8, optimizer=optimizer, shuffle=shuffle, callbacks=callbacks)
    assert all(np.isfinite(p).all() for p in arrays(model))
    message = str(caught.value)
    assert re.search("explode|overflow|dead", message)  # what diagnose says
    # Both numbers are right: trained to there, a model has these parameters, and one step more is not finite.
    pattern = r"those before step (\d+) of epoch (\d+)"
    step, epoch = (int(n) for n in re.search(pattern, message).groups())
    again = module.MLP([3, 6, 2], output="identity", dtype=dtype, seed=0)
    again_optimizer = module.SGD(50.0, momentum=0.5)
    taken = (epoch - 1) * 5 + step - 1
    state = optimizer.state(model, 0, model.dtype)
    assert state.steps == taken
    order = np.tile(np.arange(40), (epoch, 1))
    order = again._shuffling.permuted(order, axis=1) if shuffle else order
    steps = [order[e][s * 8 : s * 8 + 8] for e in range(epoch) for s in range(5)]
    for rows in steps[:taken]:
        again.train_step(X[rows], Y[rows], again_optimizer)
    for a, b in zip(arrays(model), arrays(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == np.float32 else 1e-9)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = again.train_step(X[steps[taken]], Y[steps[taken]], again_optimizer)
        assert not (np.isfinite(loss) and all(np.isfinite(p).all() for p in arrays(again)))


def test_a_loss_that_overflows_at_once(module):
    """Finite parameters and data, but no finite loss at the first step: nothing has changed."""
    X, Y = data(10, 3, 2)
    model = module.MLP([3, 6, 2], output="identity", seed=0)
    # The reference takes the loss's squares in float64, so it comes a step further.
    first = "nan at epoch 2" if module is fastbp.reference else "inf at epoch 1"
    for factor, expected in [
        (1.0, f"the loss became {first}, step 1 of 1.*gradients explode"),
        (1e3, "the loss became nan at epoch 1, step 1 of 1.*numbers overflow in layer 1"),
    ]:
        model.weights[0] *= factor
        before = model._parameters.copy()
        with pytest.raises(FloatingPointError, match=expected) as caught:
            model.fit(X * 1e37, Y, epochs=3, optimizer=module.SGD(0.1))
        assert "before step 1 of epoch 1" in str(caught.value)
        assert np.array_equal(model._parameters, before)


def test_training_does_not_start_from_nan(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    model.weights[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="weights, biases or gains hold NaN or infinity"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))


def test_nan_in_data_is_met_in_the_loss_when_not_checked(module):
    X, Y = data()
    X[7, 1] = np.nan
    model = module.MLP([3, 4, 2], seed=0)
    with pytest.raises(ValueError, match="X holds NaN"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    with pytest.raises(FloatingPointError, match="epoch 1, step 2 of 10"):
        model.fit(X, Y, epochs=1, batch_size=5, optimizer=module.SGD(0.1), shuffle=False, check_finite=False)
    assert np.isfinite(model._parameters).all()


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
    assert optimizer.state(model, 0, model.dtype).steps == 13
    losses = []
    for epoch in range(3):
        order = by_hand._shuffling.permutation(23)
        for step in range(5 if epoch < 2 else 3):
            rows = order[5 * step : 5 * step + 5]
            losses.append(by_hand.train_step(X[rows], Y[rows], by_hand_optimizer) * len(rows))
    expected = [sum(losses[:5]) / 23, sum(losses[5:10]) / 23, sum(losses[10:]) / 15]
    np.testing.assert_allclose(history.loss, expected, rtol=1e-12)
    np.testing.assert_allclose(model._parameters, by_hand._parameters, rtol=0, atol=1e-13)
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
            run = model._shuffling.bit_generator.state
            history = model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1), validation_split=0.3)
            rows, held = model._split_rows(50, 0.3)
            seen.append(held.tobytes())
            assert history.val_loss.shape == (2,)
            assert history.val_loss[-1] == model.loss(X[held], Y[held])
            assert len(held) == 15
            assert sorted([*rows, *held]) == list(range(50))
            by_hand = module.MLP([3, 4, 2], seed=5)
            by_hand._shuffling.bit_generator.state = run
            if call == 0:
                by_hand.fit(X[rows], Y[rows], epochs=2, optimizer=module.SGD(0.1))
                assert by_hand._parameters.tobytes() == model._parameters.tobytes()
    assert len(set(seen)) == 1
    other = module.MLP([3, 4, 2], seed=6)._split_rows(50, 0.3)[1]
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
        results.append([model._parameters, history.loss, history.val_loss, history.val_metrics["mae"]])
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
    assert model._parameters.tobytes() == by_hand._parameters.tobytes()
    assert optimizer.state(model, 0, model.dtype).steps == 7 + 1 + 5
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
    new = model._parameters.copy()
    first = model.fit(X, Y, epochs=3, optimizer=optimizer)
    trained = model._parameters.copy()
    for _ in range(2):
        weights = model.weights
        model.reset()
        assert np.array_equal(model._parameters, new)
        assert all(a is b for a, b in zip(model.weights, weights, strict=True))
        again = model.fit(X, Y, epochs=3, optimizer=optimizer)
        assert np.array_equal(model._parameters, trained)
        assert np.array_equal(first.loss, again.loss)
    model.weights[0] = np.zeros((3, 4))  # what was put in their place is forgotten, too
    model.reset()
    assert np.array_equal(model.weights[0], new[:12].reshape(3, 4))
    model.fit(X, Y, epochs=3, optimizer=optimizer)
    assert np.array_equal(model._parameters, trained)


def test_reset_begins_dropout_again(module):
    X, Y = data()
    model, optimizer = module.MLP([3, 9, 2], dropout=0.5, seed=0), module.SGD(0.1)
    results = []
    for _ in range(2):
        model.fit(X, Y, epochs=2, optimizer=optimizer)
        results.append(model._parameters.tobytes())
        model.reset()
    assert results[0] == results[1]


def test_reset_without_a_seed(module):
    model = module.MLP([3, 4, 2])
    before = model._parameters.copy()
    model.biases[0][...] = 1
    model.reset()
    assert not np.array_equal(model.weights[0].ravel(), before[:12])
    assert not model.biases[0].any()
