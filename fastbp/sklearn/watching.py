"""Who watches a training: the caller's callbacks, which are those of `MLP.fit`, and the progress bar."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fastbp
from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.network.evaluation import evaluate
from fastbp.training.interrupt import Interrupts
from fastbp.training.progress import Progress


class Watchers:
    """Tells callbacks and the progress bar of each epoch; callbacks see a history as `MLP.fit` makes it.

    held_out : samples that are not trained on; the history then has val_loss, and val_score, which is the
        accuracy or R2 that `validation_scores_` has, too.
    """

    def __init__(
        self, model: fastbp.MLP, callbacks: Any, held_out: Samples | None, interrupts: Interrupts
    ) -> None:
        self._model, self._held_out, self._interrupts = model, held_out, interrupts
        self._callbacks = Callbacks(() if callbacks is None else callbacks)
        self._history = History()
        if held_out is not None:
            self._history._add_columns(("loss", "score"))
        hooks = self._callbacks
        self.are_called = bool(hooks.chunk_end or hooks.epoch_end or hooks.train_begin or hooks.train_end)
        self._bar: Progress | None = None
        self._began = time.perf_counter()

    def begin(self, progress: bool, steps: int) -> None:
        """Before the first step; ValueError of a callback that cannot work here."""
        self._bar = Progress(progress, steps, 0)
        self._call(self._callbacks.train_begin, self._history)

    def epoch_ends(self, epoch: int, loss: float, lr: float, score: float | None, steps: int) -> bool:
        """After each epoch, counted from 1, `steps` done so far; whether a callback wants to stop."""
        if self._bar is not None and self._bar.is_due(True):
            scored = "" if score is None else f", val_score {score:.4g}"
            self._bar.show(steps, f"epoch {epoch}, loss {loss:.4g}{scored}")
        if not self.are_called:
            return False
        now = time.perf_counter()
        self._history._add_epochs(np.array([loss]), np.array([lr]), now - self._began)
        if self._held_out is not None:
            values = {
                "loss": evaluate(self._model.backend, self._held_out),
                "score": math.nan if score is None else score,
            }
            self._history._add_validation(values, time.perf_counter() - now)
        self._began = time.perf_counter()
        stops = self._call(self._callbacks.chunk_end, steps, self._history)
        return self._call(self._callbacks.epoch_end, self._history.epochs, self._history) or stops

    def end(self) -> None:
        """After the last step, also if Ctrl-C made it the last."""
        for hook in self._callbacks.train_end:
            hook(self._model, self._history)
        self._model.parameters.adopt()
        self._model.parameters.changed()

    def close(self) -> None:
        """Whatever has come: the progress bar ends."""
        if self._bar is not None:
            self._bar.close()

    def _call(self, hooks: Sequence[Callable[..., Any]], *arguments: Any) -> bool:
        if not hooks:
            return False
        with self._interrupts.heard():
            answers = [hook(self._model, *arguments) for hook in hooks]
        self._model.parameters.adopt()
        self._model.parameters.changed()  # they may have written to them
        self._model.parameters.require_updatable()
        return any(answers)
