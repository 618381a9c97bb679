"""MLP.fit: batches, shuffling, history, callbacks, progress."""

import re
import sys
import types

import numpy as np
import pytest
from fit_data import arrays, data

import fastbp
import fastbp.reference
from fastbp.training import run as run_module

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
    original = model.backend.train

    def spy(steps, *rest, **options):
        if len(steps):
            seen.append(steps.order.copy())
        return original(steps, *rest, **options)

    model.backend.train = spy
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
            results.append((model.parameters.flat.tobytes(), history.loss.round(12).tobytes()))
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("seconds_per_step", "guess", "most_chunks"), [(1e-6, 1e-6, 20), (1e-6, 1e-3, 30), (0.02, 1e-6, 2000)]
)
def test_a_chunk_spans_epochs_and_takes_no_longer_than_it_should(
    module, monkeypatch, seconds_per_step, guess, most_chunks
):
    """Tiny data do not pay for Python in every epoch; long steps leave room for Ctrl-C."""
    now, chunks = 0.0, []

    def train(self, steps, optimizer, state, losses, **options):
        nonlocal now
        losses[:] = 1.0
        now += len(steps) * seconds_per_step
        chunks.append(len(steps) * seconds_per_step)
        return True

    monkeypatch.setattr(module.MLP.backend_type, "train", train)
    monkeypatch.setattr(module.MLP.backend_type, "step_overhead_seconds", guess)
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
        trained.append(model.parameters.flat.tobytes())
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
    before = model.parameters.flat.copy()
    for error, message, options in [
        (ValueError, "epochs is -1, expected at least 0", {"epochs": -1}),
        (TypeError, "epochs must be an integer, got 1.5", {"epochs": 1.5}),
        (ValueError, "batch_size is 0, expected at least 1", {"batch_size": 0}),
        (TypeError, "batch_size must be an integer, got None", {"batch_size": None}),
        (TypeError, "shuffle must be True or False, got 'no'", {"shuffle": "no"}),
        (TypeError, "progress must be True or False, got 'x'", {"progress": "x"}),
        (ValueError, "unknown on_checkpoint_error 'ignore'", {"on_checkpoint_error": "ignore"}),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            model.fit(X, Y, **{"epochs": 1, "optimizer": module.SGD(0.1)} | options)
    assert np.array_equal(model.parameters.flat, before)
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
