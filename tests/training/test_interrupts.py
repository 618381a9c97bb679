"""What is left behind when a training ends before its end: by Ctrl-C at any moment, by errors of others."""

import os
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest
from interrupted import Subject, differences, everything

PROGRAM = pathlib.Path(__file__).parents[1] / "programs" / "interrupts.py"
# For each of twelve things that are interrupted; FASTBP_STORM_SIGNALS=400 for a long look.
SIGNALS = int(os.environ.get("FASTBP_STORM_SIGNALS", "20"))


def run_storm(*arguments, seconds=120):
    """In a process of its own, which a write into freed memory may end."""
    program = [sys.executable, "-X", "faulthandler", PROGRAM, *map(str, arguments)]
    return subprocess.run(
        program, capture_output=True, text=True, timeout=seconds + 10 * SIGNALS, check=False
    )


@pytest.mark.parametrize(("name", "seed"), [("fastbp", 1), ("fastbp.reference", 2)])
def test_after_ctrl_c_at_any_moment_all_is_as_if_it_had_not_come(name, seed):
    signals = SIGNALS if name == "fastbp" else max(2, SIGNALS // 3)
    result = run_storm("--module", name, "--signals", signals, "--seed", seed)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 12, result.stdout
    assert all(line.endswith(" 0 faults") for line in lines)
    ended = [int(line.split()[line.split().index("ended") - 1]) for line in lines]
    assert sum(ended) > 3 * signals  # most of them came while something ran


def test_after_what_a_signal_handler_raises_anywhere_the_model_is_a_sound_one():
    """No handler of ours keeps that waiting: it comes in the middle of anything."""
    result = run_storm("--alarm", "--signals", SIGNALS // 2, "--seed", 4)
    assert result.returncode == 0, result.stdout + result.stderr
    assert len(result.stdout.splitlines()) == 11


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_ctrl_c_in_a_large_step_ends_it_before_its_arrays_are_gone(times):
    result = run_storm("--large", times, seconds=60 + 10 * times)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ended") > times // 2, result.stdout


@pytest.mark.slow
def test_ctrl_c_while_the_engine_is_compiled_leaves_a_sound_engine():
    result = run_storm("--cold", 2, "--seed", 3, seconds=400)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_storm_finds_what_is_wrong(monkeypatch):
    """A model that keeps something of an interrupted training is told from one that does not."""
    import fastbp

    def make():
        return fastbp.MLP([20, 40, 3], seed=3), fastbp.Adam(0.01)

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((200, 20)).astype(np.float32), rng.random((200, 3)).astype(np.float32)
    subject = Subject(fastbp, make, X, Y)
    subject.model.fit(X, Y, epochs=1, optimizer=subject.optimizer)
    twin = subject.twin()
    twin.state.buffers[0][3] += 1e-3
    assert differences(everything(subject), everything(twin)) == ["after train_step", "fit"]


# ---- errors of others ----------------------------------------------------------------------------------


class Mine(Exception):
    pass


def subject_of(module):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((200, 20)).astype(np.float32), rng.random((200, 3)).astype(np.float32)
    return Subject(module, lambda: (module.MLP([20, 40, 3], seed=3), module.Adam(0.01)), X, Y)


def failing(at, error):
    """A function of anything that raises at its at-th call."""
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise error
        return 0.0

    return call


def fit_that_fails(subject, source, at, error):
    """The epochs done when what comes from the source raises."""
    fail = failing(at, error)
    X, Y, options = subject.X, subject.Y, {"epochs": 5, "batch_size": 40}
    if source == "generator":

        def batches():
            for start in range(0, 200, 40):
                if start == 0:
                    fail()
                yield X[start : start + 40], Y[start : start + 40]

        return subject.model.fit(batches, epochs=5, optimizer=subject.optimizer)
    if source == "metric":
        options |= {"validation_data": (X[:50], Y[:50]), "metrics": [fail]}
    elif source == "on_epoch_end":
        options["callbacks"] = lambda model, epoch, history: fail()
    else:

        class Fail:
            pass

        setattr(Fail, source, lambda self, *arguments: fail() and None)
        options["callbacks"] = [Fail()]
    return subject.model.fit(X, Y, shuffle=False, optimizer=subject.optimizer, **options)


@pytest.mark.parametrize("error", [Mine("mine"), KeyboardInterrupt()], ids=["error", "KeyboardInterrupt"])
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("source", ["generator", "metric", "on_epoch_end", "on_chunk_end", "on_train_begin"])
def test_after_an_error_of_others_the_model_is_one_of_so_many_steps(module, monkeypatch, source, at, error):
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)
    subject, error = subject_of(module), type(error)(*error.args)  # without the history of another test's
    if source == "on_train_begin" and at > 1:
        pytest.skip("it is called once")
    history = None
    try:
        history = fit_that_fails(subject, source, at, error)
    except Mine as caught:
        history = getattr(caught, "history", None)  # before the first batch there is none
    except KeyboardInterrupt:  # before fit had begun: the first batch
        assert source == "generator" and at == 1
    assert history is None or history.interrupted == isinstance(error, KeyboardInterrupt)
    steps = {"generator": 5 * (at - 1), "on_chunk_end": at, "on_train_begin": 0}.get(source, 5 * at)
    assert subject.state.steps == steps
    if history is not None:
        assert history.epochs == steps // 5
    unbroken = subject.fresh()
    unbroken.model.fit(
        subject.X, subject.Y, steps=steps, batch_size=40, shuffle=False, optimizer=unbroken.optimizer
    )
    assert [a.tobytes() for a in subject.arrays()] == [a.tobytes() for a in unbroken.arrays()]
    twin = subject.twin()
    assert differences(everything(subject), everything(twin)) == []


@pytest.mark.parametrize("at", ["on_train_begin", "on_chunk_end", "on_epoch_end", "on_train_end"])
def test_every_error_has_the_history_so_far(module, at):
    subject = subject_of(module)

    class Fail:
        pass

    setattr(Fail, at, lambda self, *arguments: failing(1, Mine())())
    with pytest.raises(Mine) as caught:
        subject.model.fit(subject.X, subject.Y, epochs=1, optimizer=subject.optimizer, callbacks=Fail())
    assert caught.value.history.epochs == (at != "on_train_begin")


def test_ctrl_c_in_a_training_within_a_callback_ends_both(module):
    subject, inner = subject_of(module), []
    other = subject.fresh()

    class Press:
        def on_epoch_end(self, model, epoch, history):
            if epoch == 2:
                os.kill(os.getpid(), 2)

    def callback(model, epoch, history):
        if epoch == 3:
            inner.append(
                other.model.fit(subject.X, subject.Y, epochs=50, optimizer=other.optimizer, callbacks=Press())
            )

    history = subject.model.fit(
        subject.X, subject.Y, epochs=9, optimizer=subject.optimizer, callbacks=callback
    )
    assert inner[0].interrupted and inner[0].epochs == 2
    assert history.interrupted and history.epochs == 3


# ---- Python threads ------------------------------------------------------------------------------------


def test_two_threads_with_one_model_and_one_optimizer_lose_no_step():
    """From the very first step on, which begins the optimizer's state; and what is left is a sound model."""
    import fastbp

    for _ in range(10):
        subject = subject_of(fastbp)
        start = threading.Barrier(4)

        def work(subject=subject, start=start):
            start.wait()
            for _ in range(5):
                subject.model.train_step(subject.X, subject.Y, subject.optimizer)
            subject.model.fit(
                subject.X, subject.Y, steps=5, batch_size=40, optimizer=subject.optimizer, shuffle=False
            )

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert subject.state.steps == 40
        assert subject.model.streams.steps_trained == 40
        twin = subject.twin()
        assert differences(everything(subject), everything(twin)) == []
