"""Callbacks of fit: the protocol, what they may do, and early stopping."""

import re

import numpy as np
import pytest

import fastbp


def data(rows=50, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 3)), rng.random((rows, 2))


class Recorder:
    def __init__(self):
        self.calls = []

    def on_train_begin(self, model, history):
        self.calls.append(("begin", history.epochs))

    def on_chunk_end(self, model, step, history):
        self.calls.append(("chunk", step))

    def on_epoch_end(self, model, epoch, history):
        self.calls.append(("epoch", epoch, history.epochs, len(history.val_loss)))

    def on_train_end(self, model, history):
        self.calls.append(("end", history.epochs))


def test_protocol(module, monkeypatch):
    X, Y = data(50)
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)  # each step a chunk
    recorder = Recorder()
    model = module.MLP([3, 4, 2], seed=0)
    model.fit(
        X, Y, epochs=2, batch_size=20, optimizer=module.SGD(0.1), callbacks=recorder, validation_data=(X, Y)
    )
    chunks = [("chunk", step) for step in range(1, 7)]
    epochs = [("epoch", 1, 1, 1), ("epoch", 2, 2, 2)]
    assert recorder.calls == [("begin", 0), *chunks[:3], epochs[0], *chunks[3:], epochs[1], ("end", 2)]


def test_chunks_span_epochs_for_who_wants_chunks_only(module, monkeypatch):
    X, Y = data(20)
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e9)

    class Chunks:
        steps = ()

        def on_chunk_end(self, model, step, history):
            self.steps += (step,)
            assert history.epochs == step / 5

    chunks = Chunks()
    module.MLP([3, 4, 2], seed=0).fit(
        X, Y, epochs=40, batch_size=4, optimizer=module.SGD(0.1), callbacks=[chunks]
    )
    assert chunks.steps == (200,)


@pytest.mark.parametrize("hook", ["on_chunk_end", "on_epoch_end"])
def test_a_true_value_ends_training(module, monkeypatch, hook):
    X, Y = data(50)
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)

    class Stop:
        pass

    setattr(Stop, hook, lambda self, model, count, history: count == 4)
    recorder = Recorder()
    model, optimizer = module.MLP([3, 4, 2], seed=0), module.SGD(0.1, momentum=0.5)
    history = model.fit(X, Y, epochs=9, batch_size=20, optimizer=optimizer, callbacks=[Stop(), recorder])
    steps = 4 if hook == "on_chunk_end" else 12
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == steps
    assert recorder.calls[-2:] == [("chunk", 4) if steps == 4 else ("epoch", 4, 4, 0), ("end", steps // 3)]
    assert history.epochs == steps // 3
    assert not history.stopped_early


@pytest.mark.parametrize("hook", ["on_train_begin", "on_chunk_end", "on_epoch_end"])
@pytest.mark.parametrize("in_place", [True, False])
def test_what_callbacks_write_is_trained_on(module, monkeypatch, hook, in_place):
    X, Y = data()
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)

    class Write:
        done = False

    def write(self, model, *rest):
        if self.done:
            return
        self.done = True
        if in_place:
            model.weights[0][...] = np.arange(12).reshape(3, 4)
        else:
            model.weights[0] = np.arange(12.0).reshape(3, 4)

    setattr(Write, hook, write)
    model = module.MLP([3, 4, 2], seed=0)
    model.fit(X, Y, epochs=4, optimizer=module.SGD(0.0, momentum=0.5), callbacks=Write())
    assert np.array_equal(model.weights[0], np.arange(12).reshape(3, 4))


@pytest.mark.parametrize("hook", ["on_train_begin", "on_chunk_end", "on_epoch_end", "on_train_end"])
def test_an_error_in_a_callback_leaves_a_usable_model(module, hook):
    X, Y = data()

    class Fail:
        pass

    def fail(self, *_):
        raise RuntimeError("mine")

    setattr(Fail, hook, fail)
    model, again = module.MLP([3, 4, 2], seed=0), module.MLP([3, 4, 2], seed=0)
    optimizer, again_optimizer = module.Adam(), module.Adam()
    with pytest.raises(RuntimeError, match="mine"):
        model.fit(X, Y, epochs=1, optimizer=optimizer, callbacks=Fail())
    if hook != "on_train_begin":
        again.fit(X, Y, epochs=1, optimizer=again_optimizer)
    assert model.parameters.flat.tobytes() == again.parameters.flat.tobytes()
    for m, o in ((model, optimizer), (again, again_optimizer)):
        m.fit(X, Y, epochs=2, optimizer=o)
    assert model.parameters.flat.tobytes() == again.parameters.flat.tobytes()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (
            [3],
            "or objects with some of the methods on_train_begin, on_chunk_end, on_epoch_end, on_train_end",
        ),
        (3, "got 3"),
        ([object()], "got <object"),
        ([fastbp.EarlyStopping], "callbacks must be objects, got the class EarlyStopping: call it"),
    ],
)
def test_what_is_no_callback(module, callbacks, message):
    X, Y = data()
    with pytest.raises(TypeError, match=re.escape(message)):
        module.MLP([3, 4, 2]).fit(X, Y, epochs=1, optimizer=module.SGD(0.1), callbacks=callbacks)


# ---- early stopping -----------------------------------------------------------------------------------


def follow(module, values, epochs=20, **options):
    """Fit with a metric of the given values; returns history, model and the parameters after each epoch."""
    X, Y = data()
    coming, kept = iter([*values, *[values[-1]] * epochs]), []

    def figure(y_true, y_pred):
        return next(coming)

    model = module.MLP([3, 4, 2], seed=0)
    history = model.fit(
        X,
        Y,
        epochs=epochs,
        optimizer=module.Adam(0.01),
        validation_data=(X, Y),
        metrics=[figure],
        callbacks=[
            module.EarlyStopping("val_figure", **{"mode": "min"} | options),
            lambda model, epoch, history: kept.append(model.parameters.flat.tobytes()),
        ],
    )
    return history, model, kept


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([5, 4, 3, 4, 5, 6], {"patience": 2}, 5, 3),
        ([5, 4, 3, 4, 2, 6], {"patience": 2}, 7, 5),
        ([5, 4, 3, 4, 2, 6], {"patience": 1}, 4, 3),
        ([5, 6, 7, 7, 6], {"patience": 2, "mode": "max"}, 5, 3),
        ([5, 4.9, 4.8, 4.7, 4.6], {"patience": 3, "min_delta": 0.25}, 7, 4),  # 4.7 is 0.3 better than 5
        ([5, 4, 3, 2, 1], {"patience": 16}, 20, 5),
        ([np.nan, 3, np.nan, 4], {"patience": 2}, 4, 2),
        ([np.nan], {"patience": 3}, 3, None),
    ],
)
def test_early_stopping(module, values, options, epochs, best):
    history, model, kept = follow(module, values, **options)
    assert history.epochs == epochs
    assert history.best_epoch == best
    assert history.stopped_early == (epochs < 20)
    assert not history.interrupted
    assert model.parameters.flat.tobytes() == kept[(best or epochs) - 1]


def test_without_restoring(module):
    history, model, kept = follow(module, [5, 4, 5], patience=2, restore_best=False)
    assert history.best_epoch == 2
    assert model.parameters.flat.tobytes() == kept[-1]


def test_the_best_is_restored_after_the_last_epoch_and_after_ctrl_c(module):
    history, model, kept = follow(module, [3, 1, 2], epochs=3)
    assert (history.best_epoch, history.stopped_early) == (2, False)
    assert model.parameters.flat.tobytes() == kept[1]
    X, Y = data()
    kept = []

    def interrupt(model, epoch, history):
        kept.append(model.parameters.flat.tobytes())
        if epoch == 4:
            raise KeyboardInterrupt

    model = module.MLP([3, 4, 2], seed=0)
    # Training moves away from what is best for these targets.
    history = model.fit(
        X,
        Y,
        epochs=9,
        optimizer=module.SGD(1.0),
        validation_data=(X, 1 - model.predict(X).round()),
        callbacks=[module.EarlyStopping(mode="max"), interrupt],
    )
    assert history.interrupted
    assert history.best_epoch == np.argmax(history.val_loss) + 1
    assert model.parameters.flat.tobytes() == kept[history.best_epoch - 1]


def test_after_restoring_training_goes_on_from_the_best(module):
    """The engine's packed copy is renewed, too."""
    X, Y = data()
    _, model, _ = follow(module, [3, 1, 2], epochs=3)
    best = model.parameters.flat.copy()
    model.fit(X, Y, epochs=1, optimizer=module.SGD(0.0))
    assert np.array_equal(model.parameters.flat, best)


def test_auto_mode(module):
    X, Y = data()
    Y = Y[:, :1] > 0.5
    for monitor, metric, best in [
        ("loss", (), np.argmin),
        ("val_loss", (), np.argmin),
        ("val_mae", "mae", np.argmin),
        ("val_auc", "auc", np.argmax),
        ("val_accuracy", "accuracy", np.argmax),
    ]:
        model = module.MLP([3, 4, 1], seed=0)
        history = model.fit(
            X,
            Y,
            epochs=15,
            optimizer=module.Adam(0.1),
            validation_split=0.3,
            metrics=metric,
            callbacks=[module.EarlyStopping(monitor, patience=20)],
        )
        column = history.to_dict()["columns"][monitor]
        assert history.best_epoch == best(column) + 1


def test_early_stopping_checks_its_arguments(module):
    for error, message, options in [
        (ValueError, "patience is 0, expected at least 1", {"patience": 0}),
        (TypeError, "patience must be an integer, got 1.5", {"patience": 1.5}),
        (ValueError, "min_delta is -1.0, expected a number finite and at least 0", {"min_delta": -1}),
        (ValueError, "unknown mode 'maximum', expected one of 'max'", {"mode": "maximum"}),
        (TypeError, "monitor must be the name of a column of the history, got 3", {"monitor": 3}),
    ]:
        with pytest.raises(error, match=re.escape(message)):
            module.EarlyStopping(**options)
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    before = model.parameters.flat.copy()
    for stopping, options, message in [
        (module.EarlyStopping(), {}, "EarlyStopping monitors 'val_loss', which is not in the history"),
        (
            module.EarlyStopping("val_mea"),
            {"validation_data": (X, Y), "metrics": "mae"},
            "expected one of 'loss', 'lr', 'epoch_seconds', 'val_loss', 'val_mae'",
        ),
        (
            module.EarlyStopping("val_mine"),
            {
                "validation_data": (X, Y),
                "metrics": [type("mine", (), {"__call__": None, "__name__": "mine"})()],
            },
            "cannot tell whether more or less of 'val_mine' is better: use mode=",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), callbacks=stopping, **options)
    assert np.array_equal(model.parameters.flat, before)
    assert repr(module.EarlyStopping(patience=3)) == (
        "EarlyStopping('val_loss', patience=3, min_delta=0.0, mode='auto', restore_best=True)"
    )
