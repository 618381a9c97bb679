"""Checkpoints: a training that ended early, however, goes on as if it had not."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from trainings import Stop, X, Y, assert_same, training

import fastbp
import fastbp.reference
from fastbp.callbacks import EarlyStopping
from fastbp.schedules import ReduceOnPlateau, Step, WarmUp
from fastbp.training.settings import described, of_data

SETTINGS = {
    "each epoch": {},
    "each 5 steps": {"every_steps": 5},
    "both": {"every": 2, "every_steps": 4},
    "in order": {"shuffle": False, "every_steps": 3},
    "no validation": {"validation": {}, "every": 4},
    "momentum": {"optimizer": lambda: fastbp.SGD(0.1, momentum=0.9), "every_steps": 5},
    "part of an epoch": {"epochs": None, "steps": 40, "every_steps": 6},
    "float64": {"dtype": "float64"},
    "noise": {"dropout": 0.3, "input_noise": 0.1, "layer_norm": True, "every_steps": 3},
    "plateau": {"optimizer": lambda: fastbp.Adam(ReduceOnPlateau(0.05, patience=0)), "every_steps": 5},
    "parts of steps": {"accumulate": 2, "every_steps": 3},
}


def settled(settings):
    options = dict(settings)
    options |= options.pop("validation", {"validation_split": 0.2, "metrics": ["r2"]})
    if "optimizer" in options:
        options["optimizer"] = options["optimizer"]()
    return options


@pytest.mark.parametrize("name", SETTINGS)
def test_after_ctrl_c_or_an_error_it_goes_on_to_the_same_bits(module, name, tmp_path):
    def again(*callbacks, **more):
        options = settled(SETTINGS[name]) | more
        if "checkpoint" not in more:
            options.pop("every", None), options.pop("every_steps", None)
        listed = [*callbacks]
        if "validation_split" in options:
            listed.insert(len(listed) // 2, EarlyStopping(patience=100))
        return training(module, callbacks=listed, **options)

    expected = again()
    path = tmp_path / "run"
    for n in (1, 2, 2, 3):
        for hook in ("on_chunk_end", "on_epoch_end"):
            again(Stop(hook, n), Stop("on_epoch_end", n + 1), checkpoint=path)
            with contextlib.suppress(ZeroDivisionError):
                again(Stop(hook, n, ZeroDivisionError), checkpoint=path)
    assert_same(again(Stop("on_train_begin", 5), checkpoint=path), expected)
    assert_same(again(checkpoint=path), expected)  # it was finished
    assert os.listdir(tmp_path) == ["run"]


def test_ctrl_c_in_the_validation_leaves_no_gap(module, tmp_path):
    calls = []

    def metric(y_true, y_pred):
        calls.append(0)
        if len(calls) in interrupted_at:
            raise KeyboardInterrupt
        return float(y_pred.sum())

    interrupted_at = []

    def options():
        lr = WarmUp(ReduceOnPlateau(0.3, patience=0, threshold=0.05), 5)
        stopping = {"callbacks": [EarlyStopping(patience=9, min_delta=0.001)], "optimizer": module.Adam(lr)}
        return {"validation_split": 0.2, "metrics": [metric], "epochs": 9} | stopping

    expected = training(module, **options())
    assert len(set(expected[2].lr)) > 3
    interrupted_at, calls[:] = [2, 3, 6, 9], []
    for _ in range(4):
        history = training(module, checkpoint=tmp_path / "run", **options())[2]
        assert history.interrupted
        assert np.isnan(history.val_loss[-1])
    assert_same(training(module, checkpoint=tmp_path / "run", **options()), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize(("name", "seed"), [("fastbp", 5), ("fastbp.reference", 6)])
def test_killed_at_random_moments_it_gets_to_the_same_bits(tmp_path, name, seed):
    def result(*arguments):
        program = [
            sys.executable,
            pathlib.Path(__file__).parents[1] / "programs" / "killed_training.py",
            name,
        ]
        done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    killed = result(tmp_path / "run", 6, seed)
    steps = killed["found"]
    assert steps == sorted(steps)  # nothing is lost again
    assert len(steps) >= 3 and steps[-1] > 0
    assert result("-")["digest"] == killed["digest"]
    assert result(tmp_path / "run")["digest"] == killed["digest"]  # finished; a new process
    assert os.listdir(tmp_path) == ["run"]


def test_a_finished_training_returns_at_once(module, tmp_path, monkeypatch):
    expected = training(module, checkpoint=tmp_path / "run")
    before = (tmp_path / "run").read_bytes()
    monkeypatch.setattr(module.MLP.backend_type, "train", None)
    got = training(module, checkpoint=tmp_path / "run", callbacks=[Stop("on_train_begin", 1)])
    assert_same(got, expected)
    assert got[2].seconds == pytest.approx(expected[2].seconds, rel=0.5)
    assert (tmp_path / "run").read_bytes() == before


def test_stopped_early_is_finished(module, tmp_path):
    def stopped(**more):
        early = EarlyStopping("loss", patience=2, min_delta=10)  # never an improvement
        return training(module, callbacks=[early], **more)

    expected = stopped()
    assert expected[2].epochs == 3 and expected[2].stopped_early
    assert_same(stopped(checkpoint=tmp_path / "run"), expected)
    assert_same(stopped(checkpoint=tmp_path / "run", epochs=9), expected)
    loaded = module.MLP.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.parameters.flat, expected[0].parameters.flat)


class Counts:
    """A callback with a state, part of which its own end of training changes."""

    def __init__(self):
        self.epochs, self.ended = np.zeros(3), 0

    def on_epoch_end(self, model, epoch, history):
        self.epochs += epoch

    def on_train_end(self, model, history):
        self.ended += 1
        self.epochs[0] = -1

    def state_dict(self):
        return {"epochs": self.epochs.copy(), "ended": self.ended}

    def load_state_dict(self, state):
        self.epochs, self.ended = state["epochs"], state["ended"]


@pytest.mark.parametrize("stopped", [True, False])
def test_the_state_of_callbacks_comes_back_from_a_finished_training(module, tmp_path, stopped):
    """As it was after on_train_end; and as it was before that, where the training then goes on."""

    def run(epochs, path=None):
        callbacks = [Counts(), EarlyStopping("loss", patience=99, min_delta=0.2 if stopped else 0.0)]
        callbacks[1].patience = 2 if stopped else 99
        result = training(module, epochs=epochs, callbacks=callbacks, checkpoint=path)
        return result, [repr(callback.state_dict()) for callback in callbacks]

    expected, states = run(6, tmp_path / "run")
    again, states_again = run(6, tmp_path / "run")
    assert_same(again, expected)
    assert states_again == states
    if not stopped:
        longer, states = run(9)
        longer_again, states_again = run(9, tmp_path / "run")
        assert_same(longer_again, longer)
        assert states_again == states


def test_more_epochs_may_be_asked_for(module, tmp_path):
    def run(epochs, **more):
        return training(module, epochs=epochs, callbacks=[EarlyStopping("loss", patience=99)], **more)

    run(2, checkpoint=tmp_path / "run")
    assert_same(run(5, checkpoint=tmp_path / "run"), run(5))
    with pytest.raises(ValueError, match=r"run has 35 steps done, more than the 21 asked for"):
        run(3, checkpoint=tmp_path / "run")
    training(module, epochs=None, steps=10, checkpoint=tmp_path / "part")
    with pytest.raises(ValueError, match="ended after 10 steps, within an epoch of 7: it cannot go on to 20"):
        training(module, epochs=None, steps=20, checkpoint=tmp_path / "part")


def test_without_a_seed(module, tmp_path):
    """Another process has other weights, another order and another split, until it reads the checkpoint."""
    options = {
        "seed": None,
        "dropout": 0.5,
        "checkpoint": tmp_path / "run",
        "validation_split": 0.2,
        "every_steps": 3,
    }
    training(module, callbacks=[Stop("on_chunk_end", 4)], **options)
    a = (tmp_path / "run").read_bytes()
    results = []
    for _ in range(2):
        (tmp_path / "run").write_bytes(a)
        results.append(training(module, **options))
    assert_same(*results)


def test_what_a_callback_changes_is_kept(module, tmp_path):
    class Halve:
        def on_epoch_end(self, model, epoch, history):
            optimizers[-1].lr /= 2

        def state_dict(self):
            return {"halved": True, "array": np.arange(3)}

        def load_state_dict(self, state):
            assert state["halved"] is True
            np.testing.assert_array_equal(state["array"], np.arange(3))
            loaded.append(state)

    def run(*callbacks, **more):
        return training(module, optimizer=optimizers[-1], callbacks=[Halve(), *callbacks], **more)

    optimizers, loaded = [module.SGD(0.1)], []
    expected = run()
    optimizers.append(module.SGD(0.1))
    run(Stop("on_chunk_end", 3), checkpoint=tmp_path / "run")
    optimizers.append(module.SGD(0.1))
    run(Stop("on_chunk_end", 2), checkpoint=tmp_path / "run")  # in a new process
    assert optimizers[-1].lr < 0.1
    got = run(checkpoint=tmp_path / "run")  # in the same one, where the optimizer is as it was left
    assert_same(got, expected)
    assert len(loaded) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [5, 17, 2]}, r"model.layer_sizes: \[5, 16, 2\] in the checkpoint, \[5, 17, 2\] given"),
        ({"hidden": "relu"}, "model.hidden: 'tanh' in the checkpoint, 'relu' given"),
        ({"seed": 4}, "model.seed: 3 in the checkpoint, 4 given"),
        ({"dtype": "float64"}, "model.dtype: 'float32' in the checkpoint, 'float64' given"),
        ({"input_scale": 0.5}, "model.input_scale: 1.0 in the checkpoint, 0.5 given"),
        ({"batch_size": 9}, "batch_size: 8 in the checkpoint, 9 given"),
        ({"accumulate": 2}, "accumulate: 1 in the checkpoint, 2 given"),
        ({"shuffle": False}, "shuffle: True in the checkpoint, False given"),
        ({"optimizer": fastbp.Adam(0.02)}, "optimizer.lr: 0.01 in the checkpoint, 0.02 given"),
        (
            {"optimizer": fastbp.Adam(Step(0.01, 5))},
            r"optimizer.lr: 0.01 in .*, Step\(lr=0.01, every=5, .* given",
        ),
        ({"optimizer": fastbp.SGD(0.01)}, r"optimizer: Adam\(lr=0.01, .* in the checkpoint, SGD\(lr=0.01, "),
        ({"X": X[:-1], "Y": Y[:-1]}, r"X.shape: \[50, 5\] in the checkpoint, \[49, 5\] given\n"),
        ({"X": X + 1}, "X.values: 'digest .*' in the checkpoint, 'digest .*' given"),
        ({"Y": Y / 2}, "Y.values: 'digest"),
        ({"X": X.astype("f2")}, "X.dtype: 'float32' in the checkpoint, 'float16' given"),
        ({"sample_weight": np.ones(50)}, r"sample_weight: None in the checkpoint, \(shape=\[50\], "),
        ({"class_weight": {0: 2}}, r"class_weight: None in the checkpoint, \(0=2\) given"),
        ({"validation_split": 0.5}, "validation_split: 0.0 in the checkpoint, 0.5 given"),
        ({"validation_data": (X, Y)}, r"validation_data: None in the checkpoint, .*50, 5"),
        ({"callbacks": EarlyStopping("loss")}, r"callbacks: \[\] in the checkpoint, .*EarlyStopping"),
    ],
)
def test_another_training_is_refused(module, tmp_path, changes, message):
    training(module, checkpoint=tmp_path / "run", epochs=2)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(
        ValueError, match=rf"run is the checkpoint of another training:\n  (.*\n  )*{message}"
    ):
        training(module, checkpoint=tmp_path / "run", epochs=2, **changes)
    assert (tmp_path / "run").read_bytes() == before


def test_refused_before_anything_is_changed(module, tmp_path):
    training(module, checkpoint=tmp_path / "run", epochs=2)
    model = module.MLP([5, 16, 2], seed=9)
    before, random = model.parameters.flat.copy(), model.streams.state()
    with pytest.raises(ValueError, match="seed"):
        model.fit(X, Y, epochs=2, batch_size=8, optimizer=module.Adam(0.01), checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(model.parameters.flat, before)
    assert model.streams.state() == random


def test_settings_are_equal_in_every_process():
    assert described(np.float32(0.5)) == 0.5
    assert described(float("inf")) == "inf"
    assert described([len, np.mean, test_without_a_seed]) == [
        "builtins.len",
        "numpy.mean",
        f"{__name__}.test_without_a_seed",
    ]
    assert described(Step(0.1, 3)) == {"": "Step", "lr": 0.1, "every": 3, "factor": 0.1}
    data = np.arange(12.0).reshape(4, 3)
    same = [data, np.asfortranarray(data), data.astype(">f8"), np.repeat(data, 2, axis=0)[::2]]
    assert len({str(of_data(array)) for array in same}) == 1
