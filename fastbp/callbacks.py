"""Callbacks of `MLP.fit`, and early stopping.

A callback is a function, called after each epoch as callback(model, epoch, history), or an object with one or
more of these methods:

    on_train_begin(model, history)         before the first step; an error raised here changes nothing
    on_chunk_end(model, step, history)     after each chunk of steps, step being the steps done so far
    on_epoch_end(model, epoch, history)    after each epoch and its validation, epoch counted from 1
    on_train_end(model, history)           at the end, also after Ctrl-C and where the loss or the parameters
                                           became NaN or infinite, but not after any other error

A chunk is what compiled code runs without Python, some 0.2 s: fewer steps where each takes long, many epochs
where they are short. A callback for chunks costs nothing per step; one for epochs makes each epoch a chunk.
Where `fit` is given an iterable of batches, each step is a chunk.

A true return value of on_epoch_end or on_chunk_end (or of the function) ends the training; all callbacks are
called even so. Callbacks may read and write the model's parameters and set the optimizer's hyper-parameters,
which counts from the next step on. What they raise comes out of `fit`, with the history so far as its
attribute `history`; the model then has the parameters of the last step. `history` has the finished epochs;
`history.last(name)` is the newest value of a column.

What a callback knows of the course of the training goes into checkpoints if it has the methods

    state_dict()                           a dict of arrays and of what can be written as JSON
    load_state_dict(state)                 called after on_train_begin when a training goes on; where it turns
                                           out to be finished, nothing else is called
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks, metrics
from fastbp.history import History

Callback = Any  # a function of (model, epoch, history), or an object with one of:
ARGUMENTS = {
    "on_train_begin": ("model", "history"),
    "on_chunk_end": ("model", "step", "history"),
    "on_epoch_end": ("model", "epoch", "history"),
    "on_train_end": ("model", "history"),
}
HOOKS = tuple(ARGUMENTS)


class EarlyStopping:
    """A callback that ends training when a value has not improved for `patience` epochs.

    Parameters
    ----------
    monitor : a column of the history: "val_loss", "loss", or "val_" and the name of a metric.
    patience : so many epochs in a row without an improvement are one too many.
    min_delta : less than this is no improvement.
    mode : "min" if less is better, "max" if more is, "auto" to decide by the name.
    restore_best : at the end of training, give the model the parameters of the best epoch back, whether it
        was stopped early, by Ctrl-C, by a loss that became infinite (FloatingPointError), or had its number
        of epochs. (Not the optimizer its state.)

    `history.best_epoch` and `history.stopped_early` say what it found. One object can be used for one call of
    `fit` at a time; each begins anew. ValueError at the start if there is no such column.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        restore_best: bool = True,
    ) -> None:
        if not isinstance(monitor, str):
            raise TypeError(
                f"monitor must be the name of a column of the history, got {checks.shown(monitor)}"
            )
        self.monitor = monitor
        self.patience = checks.count("patience", patience)
        self.min_delta = checks.number("min_delta", min_delta, low=0)
        self.mode = checks.known_name("mode", mode, ("auto", "min", "max"))
        self.restore_best = restore_best
        self._sign, self._best, self._waited = 1.0, math.inf, 0
        self._parameters: NDArray[Any] | None = None

    def __repr__(self) -> str:
        options = ("patience", "min_delta", "mode", "restore_best")
        return (
            f"EarlyStopping({self.monitor!r}, "
            + ", ".join(f"{k}={getattr(self, k)!r}" for k in options)
            + ")"
        )

    def on_train_begin(self, model: Any, history: History) -> None:
        if self.monitor not in history.names:
            hint = ""
            if self.monitor.startswith("val_"):
                hint = " (validation_data=, validation_split= and metrics= add columns)"
            known = ", ".join(repr(name) for name in history.names)
            raise ValueError(
                f"EarlyStopping monitors {self.monitor!r}, which is not in the history of this training, "
                f"expected one of {known}{hint}"
            )
        self._sign = -1.0 if self._more_is_better() else 1.0
        self._best, self._waited, self._parameters = math.inf, 0, None

    def _more_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        if self.monitor in ("loss", "val_loss", "lr", "epoch_seconds"):
            return False
        better = metrics.more_is_better(self.monitor.removeprefix("val_"))
        if better is None:
            raise ValueError(
                f"EarlyStopping cannot tell whether more or less of {self.monitor!r} is better: use mode="
            )
        return better

    def on_epoch_end(self, model: Any, epoch: int, history: History) -> bool:
        value = self._sign * history.last(self.monitor)
        if value < self._best - (self.min_delta if math.isfinite(self._best) else 0.0):
            self._best, self._waited = value, 0
            history.best_epoch = epoch
            if self.restore_best:
                model.parameters.adopt()  # another callback may have put arrays in their place
                self._keep(model.parameters.flat)
            return False
        self._waited += 1
        if self._waited < self.patience:
            return False
        history.stopped_early = True
        return True

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"waited": self._waited}
        state["best"] = np.array(self._best)  # may be infinite
        if self._parameters is not None:
            state["parameters"] = self._parameters.copy()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._waited, self._best = int(state["waited"]), float(state["best"])
        if "parameters" in state:
            self._keep(state["parameters"])

    def _keep(self, parameters: NDArray[Any]) -> None:
        if self._parameters is None:
            self._parameters = np.empty_like(parameters)
        self._parameters[...] = parameters

    def on_train_end(self, model: Any, history: History) -> None:
        if self._parameters is not None:
            model.parameters.adopt()
            model.parameters.flat[...] = self._parameters
        self._parameters = None


class Callbacks:
    """Callbacks sorted by what they are called for."""

    def __init__(self, given: Callback | Sequence[Callback]) -> None:
        several = isinstance(given, (list, tuple))
        single = not several and (callable(given) or any(hasattr(given, hook) for hook in HOOKS))
        try:
            listed = [given] if single else list(given)
        except TypeError:
            listed = [given]
        # those whose state goes into checkpoints
        self.with_state = [c for c in listed if hasattr(c, "state_dict") and hasattr(c, "load_state_dict")]
        self.train_begin: list[Callable[[Any, History], Any]] = []
        self.chunk_end: list[Callable[[Any, int, History], Any]] = []
        self.epoch_end: list[Callable[[Any, int, History], Any]] = []
        self.train_end: list[Callable[[Any, History], Any]] = []
        for callback in listed:
            self._sort(callback)

    def _sort(self, callback: Callback) -> None:
        if isinstance(callback, type):
            raise TypeError(f"callbacks must be objects, got the class {callback.__name__}: call it")
        hooks = {hook: getattr(callback, hook) for hook in HOOKS if hasattr(callback, hook)}
        if not hooks:
            hooks = {"on_epoch_end": callback}
        for hook, function in hooks.items():
            if not callable(function):
                expected = ", ".join(HOOKS)
                raise TypeError(
                    "callbacks must be functions of (model, epoch, history) or objects with some of the "
                    f"methods {expected}, got {checks.shown(callback)}"
                )
            _require_arguments(callback, hook, function)
            getattr(self, hook.removeprefix("on_")).append(function)


def _require_arguments(callback: Callback, hook: str, function: Callable[..., Any]) -> None:
    """TypeError unless the function can be called with what it will be called with."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some built-in functions nobody knows it
        return
    try:
        signature.bind(*ARGUMENTS[hook])
    except TypeError as error:
        method = f"{type(callback).__name__}.{hook}" if hasattr(callback, hook) else repr(callback)
        raise TypeError(
            f"callbacks: {method}{signature} cannot be called with ({', '.join(ARGUMENTS[hook])}): {error}"
        ) from None
