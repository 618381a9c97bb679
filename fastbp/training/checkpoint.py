"""Checkpoints of `fit`: what a run must know to go on as if it had never ended, in one file.

The file is safetensors like a model's: arrays (parameters, the optimizer's buffers, the history), and JSON
for the rest. Whether it belongs to a call is decided by what that call was given: the model's architecture,
the optimizer, the data's shapes and a digest of some of their values, and fit's settings.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.network.network import Network
from fastbp.optimizers import OPTIMIZERS
from fastbp.schedules import Schedule
from fastbp.storage import atomic, model_file
from fastbp.training.course import Course
from fastbp.training.settings import described, differences

Array = NDArray[Any]

ON_ERROR = ("raise", "warn")


@dataclasses.dataclass
class Saved:
    """What a file holds: what the call was given, how far it has come (both JSON), and arrays."""

    settings: dict[str, Any]
    progress: dict[str, Any]
    arrays: dict[str, Array]

    def array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        """One of the arrays; ValueError if it is not there or not of this kind."""
        array = self.arrays.get(name)
        if array is None or array.shape != shape or array.dtype != dtype:
            found = "missing" if array is None else f"{array.dtype} {array.shape}"
            raise ValueError(f"{name} is {found}, expected {np.dtype(dtype)} {shape}")
        return array


class OtherTraining(ValueError):
    """A checkpoint that is not of this training; `differences` has a line for each setting."""

    def __init__(self, path: str, differences: list[str]) -> None:
        self.path, self.differences = path, differences
        super().__init__(
            f"{path} is the checkpoint of another training:\n  "
            + "\n  ".join(differences)
            + "\nGive what was given then, or another path, or delete the file"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return OtherTraining, (self.path, self.differences)


class Checkpoints:
    """The file of one run: when it is written, what is in it, and how a run goes on from it."""

    def __init__(
        self, path: str | os.PathLike[str], every: int | None, every_steps: int | None, on_error: str
    ) -> None:
        self.path = atomic.file_name(path, "checkpoint")
        if every is None and every_steps is None:
            every = 1
        self.every = None if every is None else checks.count("every", every)
        self.every_steps = None if every_steps is None else checks.count("every_steps", every_steps)
        self.on_error = on_error
        self.settings: dict[str, Any] = {}
        self.saved: Saved | None = None  # what the run begins with
        self.finished = False  # nothing is left to be done
        self._restored = False
        self._metadata = "{}"
        self._last: Saved | None = None
        self._states_before: tuple[dict[str, Any], list[dict[str, Any]]] = {}, []

    # ---- reading ------------------------------------------------------------------------------------------

    def open(self, model: Network, settings: Mapping[str, Any]) -> None:
        """Read the file if there is one. ValueError if it is not for these settings, or damaged.

        OSError (or a warning), or TypeError because of the metadata, if it could not be written later.
        """
        model_file.metadata_as_json(model)
        self.settings = described(settings)
        try:
            atomic.check_writable(self.path)
        except OSError as error:
            self._report(error)
        else:
            atomic.remove_leftovers(self.path)
        try:
            self.saved = read(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        different = list(differences(self.saved.settings, self.settings))
        if different:
            # The optimizer may be the very object whose numbers a callback has changed since.
            now = {**self.saved.settings, "optimizer": self.saved.progress.get("optimizer")}
            if any(differences(now, self.settings)):
                raise OtherTraining(self.path, different)
            self.settings = self.saved.settings

    def splitting(self, given: np.random.SeedSequence) -> np.random.SeedSequence:
        """What validation_split draws from: without a seed, another process would draw other rows."""
        if self.saved is None:
            return given
        with self._read_strictly():
            return np.random.SeedSequence(self.saved.progress["split"], spawn_key=given.spawn_key)

    def compare(self, run: Course) -> None:
        """Find out whether the run is finished; ValueError if it cannot go on from here."""
        if self.saved is None:
            return
        with self._read_strictly():
            done = checks.count("done", self.saved.progress["done"], low=0)
            stopped, finished, unsettled = (
                checks.flag(name, self.saved.progress[name]) for name in ("stopped", "finished", "unsettled")
            )
            self._check(run)
        if done > run.steps:
            raise ValueError(f"{self.path} has {done} steps done, more than the {run.steps} asked for")
        self.finished = finished and (stopped or done == run.steps)
        if (finished or unsettled) and done < run.steps and done % run.steps_per_epoch:
            raise ValueError(
                f"{self.path} is the checkpoint of a training that ended after {done} steps, within an epoch "
                f"of {run.steps_per_epoch}: it cannot go on to {run.steps} steps"
            )

    def _check(self, run: Course) -> None:
        """ValueError, KeyError or TypeError if something is missing in what was saved."""
        assert self.saved is not None
        progress, parameters = self.saved.progress, run.model.parameters.flat
        for name in ("parameters", *(["result"] if "result" in self.saved.arrays else [])):
            self.saved.array(name, parameters.shape, parameters.dtype)
        if set(progress["optimizer"]) != set(self.settings["optimizer"]):
            raise ValueError("the optimizer's settings are missing")
        optimizer = copy.copy(run.optimizer)
        optimizer.assign(self._changed())
        for k in range(optimizer.buffers):
            self.saved.array(f"optimizer.{k}", parameters.shape, parameters.dtype)
        self.saved.array("epoch_losses", (progress["done"] % run.steps_per_epoch,), np.float64)
        if len(progress["callbacks"]) != len(self.settings["callbacks"]):
            raise ValueError("the callbacks' states are missing")
        random = progress["random"]
        key_0, key_1 = random["noise_key"]
        for name, value, limit in (
            ("done", progress["done"], sys.maxsize),
            ("optimizer_steps", progress["optimizer_steps"], sys.maxsize),
            ("steps_trained", random["steps_trained"], sys.maxsize),
            ("noise_key", key_0, 1 << 32),
            ("noise_key", key_1, 1 << 32),
        ):
            if checks.count(name, value, low=0) >= limit:
                raise ValueError(f"{name} is {value}")
        if isinstance(optimizer.lr, Schedule):
            copy.deepcopy(optimizer.lr).load_state_dict(progress["schedule"])
        np.random.PCG64().state = random["shuffling"]
        self._history()

    @contextlib.contextmanager
    def _read_strictly(self) -> Iterator[None]:
        """Within, what is missing or of the wrong kind is an error that names the file."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"{self.path} does not describe a training: {error!r}") from error

    def _changed(self) -> dict[str, Any]:
        """The hyper-parameters that a callback had set. ValueError if that cannot be done again."""
        assert self.saved is not None
        changed = {}
        for name, value in self.saved.progress["optimizer"].items():
            if value != self.settings["optimizer"][name]:
                if isinstance(value, (dict, str)):
                    raise ValueError(f"a callback had set {name} to {value}, which cannot be restored")
                changed[name] = value
        return changed

    def _history(self) -> History:
        assert self.saved is not None
        values, arrays = self.saved.progress["history"], self.saved.arrays
        columns = {name: arrays[f"history.{name}"] for name in values["columns"]}
        return History.from_dict({**values, "columns": columns, "interrupted": False})

    def restore(self, run: Course, callbacks: Callbacks) -> None:
        """Put the run where it was. ValueError if what callbacks had saved is not what they expect."""
        self._restored = True
        if self.saved is not None:
            with self._read_strictly():
                self._restore(self.saved, run, callbacks)

    def _restore(self, saved: Saved, run: Course, callbacks: Callbacks) -> None:
        progress, arrays, model = saved.progress, saved.arrays, run.model
        name = "result" if self.finished and "result" in arrays else "parameters"
        model.parameters.flat[...] = arrays[name]
        run.optimizer.assign(self._changed())
        run.meet_optimizer()
        for k, buffer in enumerate(run.state.buffers):
            buffer[...] = arrays[f"optimizer.{k}"]
        run.state.steps = int(progress["optimizer_steps"])
        if isinstance(run.optimizer.lr, Schedule):
            run.optimizer.lr.load_state_dict(progress["schedule"])
        vars(run.history).update(vars(self._history()))
        run.done, run.unsettled = int(progress["done"]), bool(progress["unsettled"])
        run.epoch_losses[: run.epoch_step] = arrays["epoch_losses"]
        run.epoch_random = progress["random"]
        model.streams.restore(run.epoch_random)
        model.parameters.changed()
        if self.finished and run.epoch_step:
            run.order(1)  # the generator goes where it was at the end
        ended = self.finished and "ended" in progress  # on_train_end may have changed states
        name = "ended" if ended else "callbacks"
        for i, callback in enumerate(callbacks.with_state):
            prefix = f"{name}.{i}."
            own = {k.removeprefix(prefix): a.copy() for k, a in arrays.items() if k.startswith(prefix)}
            callback.load_state_dict({**progress[name][i], **own})

    # ---- writing ------------------------------------------------------------------------------------------

    def next_due(self, done: int, steps_per_epoch: int) -> int:
        """After how many steps the file is to be written next."""
        spans = [self.every_steps] if self.every_steps is not None else []
        spans += [self.every * steps_per_epoch] if self.every is not None else []
        return min((done // span + 1) * span for span in spans)

    def save_if_due(self, run: Course, callbacks: Callbacks, epoch_ended: bool) -> None:
        after_steps = self.every_steps is not None and run.done % self.every_steps == 0
        after_epochs = self.every is not None and epoch_ended and run.history.epochs % self.every == 0
        if after_steps or after_epochs:
            self._write(self._collect(run, callbacks, finished=False))

    def note_states(self, run: Course, callbacks: Callbacks) -> None:
        """Schedule and callbacks are about to be told of an epoch; not all of them, if Ctrl-C comes."""
        self._states_before = _states(run, callbacks)

    def ending(self, run: Course, callbacks: Callbacks) -> None:
        """The steps are done, or Ctrl-C came; callbacks that may change the parameters come next."""
        if not self._restored:  # Ctrl-C came first
            return
        if run.history.interrupted:
            self._write(self._collect(run, callbacks, finished=False), on_error="warn")
        else:
            self._last = self._collect(run, callbacks, finished=True)

    def ended(self, run: Course, callbacks: Callbacks) -> None:
        """All is done, on_train_end, too."""
        if self._last is None:
            return
        run.model.parameters.adopt()
        if not np.array_equal(run.model.parameters.flat, self._last.arrays["parameters"]):
            self._last.arrays["result"] = run.model.parameters.flat.copy()
        self._last.progress["history"] = _history_values(run.history)
        self._last.progress["ended"] = _taken_apart("ended", _states(run, callbacks)[1], self._last.arrays)
        self._write(self._last)

    def _collect(self, run: Course, callbacks: Callbacks, *, finished: bool) -> Saved:
        model, history = run.model, run.history
        model.parameters.adopt()
        arrays = {
            "parameters": model.parameters.flat.copy(),
            "epoch_losses": run.epoch_losses[: run.epoch_step],
        }
        arrays |= {f"optimizer.{k}": buffer.copy() for k, buffer in enumerate(run.state.buffers)}
        arrays |= {f"history.{name}": history._array(name) for name in history.names}
        of_schedule, of_callbacks = self._states_before if run.unsettled else _states(run, callbacks)
        states = _taken_apart("callbacks", of_callbacks, arrays)
        self._metadata = model_file.metadata_as_json(model)
        progress = {
            "done": run.done,
            "unsettled": run.unsettled,
            "stopped": run.stopped,
            "finished": finished,
            "random": {**model.streams.state(), "shuffling": run.epoch_random["shuffling"]},
            "split": model.streams.splitting.entropy,
            "optimizer": described(run.optimizer),
            "optimizer_steps": run.state.steps,
            "schedule": of_schedule,
            "callbacks": states,
            "history": _history_values(history),
        }
        return Saved(self.settings, progress, arrays)

    def _write(self, saved: Saved, on_error: str | None = None) -> None:
        """Write it, or report that it cannot be written: then the file that was there still is."""
        texts = {
            "format": model_file.CHECKPOINT_FORMAT,
            "settings": json.dumps(saved.settings),
            "progress": json.dumps(saved.progress),
            "metadata": self._metadata,
        }
        try:
            model_file.write(self.path, saved.arrays, texts)
        except OSError as error:
            self._report(error, on_error)

    def _report(self, error: OSError, on_error: str | None = None) -> None:
        message = f"the checkpoint {self.path} cannot be written: {error}"
        if (on_error or self.on_error) == "raise":
            raise type(error)(error.errno, message) from error
        checks.warn(message, RuntimeWarning)


def _states(run: Course, callbacks: Callbacks) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the schedule and the callbacks have learned from the epochs so far."""
    lr = run.optimizer.lr
    of_schedule = lr.state_dict() if isinstance(lr, Schedule) else {}
    return of_schedule, [callback.state_dict() for callback in callbacks.with_state]


def _taken_apart(
    name: str, states: Sequence[Mapping[str, Any]], arrays: dict[str, Array]
) -> list[dict[str, Any]]:
    """What can be written as JSON of the callbacks' states; the rest becomes arrays called after them."""
    rest = []
    for i, state in enumerate(states):
        arrays |= {f"{name}.{i}.{k}": v for k, v in state.items() if isinstance(v, np.ndarray)}
        rest.append({k: v for k, v in state.items() if not isinstance(v, np.ndarray)})
    return rest


def _history_values(history: History) -> dict[str, Any]:
    """The history without its columns, which are kept as arrays."""
    return {**history.to_dict(), "columns": list(history.names)}


def read(path: str | os.PathLike[str]) -> Saved:
    """The checkpoint in a file. OSError if there is none, ValueError if it is something else, or damaged."""
    arrays, texts = model_file.read(path, "checkpoint")
    if texts["format"] != model_file.CHECKPOINT_FORMAT:
        raise ValueError(f"{path} is a model that was saved, not a checkpoint of a training")
    try:
        settings, progress = (
            model_file.json_object(texts, "settings"),
            model_file.json_object(texts, "progress"),
        )
        if isinstance(settings.get("model"), dict):
            settings["model"] = {**model_file.LATER_OPTIONS, **settings["model"]}
        for of_file in (settings, progress):
            optimizer = of_file.get("optimizer")
            if isinstance(optimizer, dict) and (kind := OPTIMIZERS.get(str(optimizer.get("")))):
                later = {name: value for name, value in kind.later.items() if name not in optimizer}
                of_file["optimizer"] = optimizer | later
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} does not describe a training: {error!r}") from None
    return Saved(settings, progress, arrays)
