"""A network among many: what it is trained on, how, and what came out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.training.interrupt import Interrupts
from fastbp.training.options import FitOptions
from fastbp.training.run import Run
from fastbp.training.start import run_of_samples
from fastbp.training.validation import Validation

Array = NDArray[Any]

# Is called with those that have ended.
Told = Callable[[Sequence["Member"]], None]
# What runs call (see `Callbacks`).
HOOKS = ("train_begin", "chunk_end", "epoch_end", "train_end")


class Flag(Interrupts):
    """For runs in threads that get no signals: they end after the chunk in which the flag is set."""

    def __init__(self, stop: NDArray[np.int64]) -> None:
        super().__init__(lambda: None)
        self._stop = stop

    def check(self) -> None:
        if self._stop[0]:
            raise KeyboardInterrupt


@dataclass
class Member:
    """One of many: index, its network, its samples (perhaps shared with others; `rows` of them are its own),
    and what `fit` would be told.

    kind : the same number for those of one call whose networks are alike and that share all else but rows.
    seconds : how long it will take, to tell long ones from short ones.
    """

    index: int
    model: Network
    optimizer: Optimizer
    samples: Samples
    rows: NDArray[np.int64] | None
    held_out: Samples | None
    options: FitOptions
    kind: int
    steps: int
    seconds: float
    ended: bool = False  # by itself, whether or not with an error

    @cached_property
    def history(self) -> History:
        """Of its training; empty until then."""
        return History()

    def __len__(self) -> int:
        return len(self.samples) if self.rows is None else len(self.rows)

    @property
    def step_multiply_adds(self) -> int:
        """Of one training step, roughly."""
        return self.model.backend.step_multiply_adds(self.options.batch_size)

    def run(self) -> tuple[Run, Validation | None]:
        """What `fit` would make of it. Rows of its own are copied now, and let go with the run."""
        samples = self.samples if self.rows is None else self.samples.picked(self.rows)
        samples.require_some_weight("sample_weight", "trained on")
        self.model.reader.learns(samples)
        return run_of_samples(self.model, samples, self.held_out, self.options)

    def train(self, spare: Any, stop: NDArray[np.int64] | None, turn: threading.RLock) -> None:
        """Train it; `stop`: where this thread gets no signals, the flag that ends it. `turn`: callbacks are
        called by one thread at a time."""
        self.model.backend.share_plans(spare)
        try:
            run, validation = self.run()
            if stop is not None:
                run.interrupts = Flag(stop)
            self.history = run.history
            callbacks = self.options.sorted_callbacks
            run.train(validation, in_turn(callbacks, turn), False)
            self.ended = not self.history.interrupted
        except FloatingPointError as error:
            self.history.diverged, self.ended = str(error), True
        finally:
            self.model.backend.give_plans_back()


def has_any(callbacks: Callbacks) -> bool:
    """Whether there is one to be called."""
    return any(getattr(callbacks, hook) for hook in HOOKS)


def in_turn(callbacks: Callbacks, turn: threading.RLock) -> Callbacks:
    """The same callbacks, which wait for one another."""
    if not has_any(callbacks):
        return callbacks
    waiting = Callbacks(())
    for hook in HOOKS:
        setattr(waiting, hook, [_waiting(function, turn) for function in getattr(callbacks, hook)])
    return waiting


def _waiting(function: Callable[..., Any], turn: threading.RLock) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        with turn:
            return function(*arguments)

    return call
