"""Ctrl-C during fit: a real SIGINT to a real process."""

import gc
import json
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import fastbp
from fastbp.engine.compile import jit
from fastbp.training import run, validation

CHILD = """
    import json, sys, time
    import numpy as np
    import {module} as module

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal(({rows}, 20)), rng.random(({rows}, 2))
    model = module.MLP([20, 50, 2], seed=0)
    model.fit(X[:100], Y[:100], epochs=1, optimizer=module.SGD(0.01))
    optimizer = module.SGD(0.01, momentum=0.5)
    print("training", flush=True)
    history = model.fit(X, Y, epochs=10**9, optimizer=optimizer{options})
    stopped = time.time()
    again = model.fit(X, Y, epochs=1, optimizer=optimizer)
    try:
        print(json.dumps({{
            "stopped": stopped,
            "interrupted": history.interrupted,
            "epochs": history.epochs,
            "losses": history.loss[:5].tolist(),
            "finite": bool(np.isfinite(history.loss).all() and np.isfinite(model.predict(X[:9])).all()),
            "steps": optimizer.state(model.parameters.owner, 0, model.dtype).steps,
            "again": [again.epochs, again.interrupted],
        }}), flush=True)
        time.sleep(60)  # Ctrl-C means what it meant before
    except KeyboardInterrupt:
        print("KeyboardInterrupt", flush=True)
"""


@pytest.mark.parametrize("module", ["fastbp", "fastbp.reference"])
@pytest.mark.parametrize(
    ("rows", "options"),
    [(1000, ""), (64, ""), (64, ", callbacks=lambda *_: None"), (20000, ", validation_data=(X, Y)")],
)
def test_ctrl_c_ends_training_with_a_usable_model(module, rows, options):
    code = textwrap.dedent(CHILD).format(module=module, rows=rows, options=options)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "training\n"
            time.sleep(1.0)
            sent = time.time()
            child.send_signal(signal.SIGINT)
            result = json.loads(child.stdout.readline())
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "KeyboardInterrupt\n"
            assert child.wait(20) == 0
        finally:
            child.kill()
    assert result["stopped"] - sent < 3  # chunks take 0.2 s; a busy machine takes longer
    assert result["interrupted"]
    assert result["finite"]
    assert result["epochs"] > 0
    assert len(result["losses"]) == min(5, result["epochs"])
    assert result["again"] == [1, False]
    per_epoch = -(-rows // 32)
    assert result["epochs"] * per_epoch <= result["steps"] - per_epoch < (result["epochs"] + 1) * per_epoch


def test_ctrl_c_right_after_a_chunk_waits_for_the_history(module, monkeypatch):
    """Steps that were taken are in the history, whenever the signal comes."""
    record = run.Run._note_epochs

    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGINT)
        record(self, *arguments)

    monkeypatch.setattr(run.Run, "_note_epochs", interrupted)
    model, optimizer = module.MLP([1, 1]), module.SGD(0.1, momentum=0.5)
    history = model.fit([[1.0]], [[1.0]], epochs=10**6, optimizer=optimizer)
    assert history.interrupted
    assert history.epochs == optimizer.state(model.parameters.owner, 0, model.dtype).steps > 0


def test_ctrl_c_during_validation(module, monkeypatch):
    """The epoch was trained, so it is in the history, without what was not computed. The best is restored."""
    X = np.random.default_rng(0).standard_normal((40, 3))
    model, best = module.MLP([3, 4, 1], seed=0), module.MLP([3, 4, 1], seed=0)
    best.fit(X, X[:, :1] > 0, epochs=2, optimizer=module.Adam())
    evaluate = validation.Validation.evaluate

    def interrupted(self, model):
        if model.streams.shuffling.bit_generator.state == third:
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, model)

    twin = module.MLP([3, 4, 1], seed=0)
    twin.fit(X, X[:, :1] > 0, epochs=3, optimizer=module.SGD(0.0))
    third = twin.streams.shuffling.bit_generator.state
    monkeypatch.setattr(validation.Validation, "evaluate", interrupted)
    history = model.fit(
        X,
        X[:, :1] > 0,
        epochs=10,
        optimizer=module.Adam(),
        validation_data=(X, X[:, :1] > 0),
        metrics="accuracy",
        callbacks=module.EarlyStopping(),
    )
    assert history.interrupted
    assert not history.stopped_early
    assert {len(column) for column in history.to_dict()["columns"].values()} == {3}
    assert np.isfinite(history.loss).all()
    assert np.isnan(history.val_loss).tolist() == [False, False, True]
    assert np.isnan(history.val_metrics["accuracy"]).tolist() == [False, False, True]
    assert history.best_epoch == 2
    assert model.parameters.flat.tobytes() == best.parameters.flat.tobytes()


def test_ctrl_c_waits_for_the_end_of_training(module):
    """What callbacks do at the end is done, whenever the signal comes."""
    ended = []

    class First:
        def on_train_end(self, model, history):
            signal.raise_signal(signal.SIGINT)

    class Second:
        def on_train_end(self, model, history):
            ended.append(history.epochs)

    model = module.MLP([1, 1])
    history = model.fit([[1.0]], [[1.0]], epochs=2, optimizer=module.SGD(0.1), callbacks=[First(), Second()])
    assert ended == [2]
    assert history.interrupted


def test_the_handler_is_put_back(module):
    before = signal.getsignal(signal.SIGINT)
    model = module.MLP([1, 1])
    model.fit([[1.0]], [[1.0]], epochs=3, optimizer=module.SGD(0.1))
    assert signal.getsignal(signal.SIGINT) is before

    def fail(*_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        model.fit([[1.0]], [[1.0]], epochs=3, optimizer=module.SGD(0.1), callbacks=fail)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_callback_that_raises_keyboard_interrupt_ends_training(module):
    def stop(model, epoch, history):
        if epoch == 2:
            raise KeyboardInterrupt

    model = module.MLP([1, 1])
    history = model.fit([[1.0]], [[1.0]], epochs=9, optimizer=module.SGD(0.1), callbacks=stop)
    assert history.interrupted
    assert history.epochs == 2
    assert "interrupted" in repr(history)


def test_fit_in_a_thread(module):
    """Threads other than the main one get no signals, and may not handle them."""
    X = np.random.default_rng(0).standard_normal((40, 3))
    histories = []

    def work():
        model = module.MLP([3, 4, 1], seed=0)
        histories.append(model.fit(X, X[:, :1] > 0, epochs=3, optimizer=fastbp.SGD(0.1)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert histories[0].epochs == 3


def test_ctrl_c_while_compiling():
    """It is heard at once; what is being compiled is compiled to its end, in a thread without signals."""
    began, end, ended = threading.Event(), threading.Event(), threading.Event()

    def compile():
        began.set()
        assert end.wait(60)
        ended.set()

    def press():
        assert began.wait(60)
        signal.raise_signal(signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt):
        jit.uninterrupted(compile)
    assert not ended.is_set()
    finger.join()
    end.set()
    assert ended.wait(60)
    with pytest.raises(ZeroDivisionError):
        jit.uninterrupted(lambda: 1 // 0)


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_waits_for_the_compiler_and_is_as_before_then(collects):
    seen = []
    (gc.enable if collects else gc.disable)()
    try:
        jit.uninterrupted(lambda: seen.append(gc.isenabled()))
        with pytest.raises(ZeroDivisionError):
            jit.uninterrupted(lambda: 1 // 0)
        assert (seen, gc.isenabled()) == ([False], collects)
    finally:
        gc.enable()
