"""What a run shows of itself to those that keep it, repeat it, or say what became of it."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule


class Chunk(NamedTuple):
    """Steps that run without Python: first <= s < last, counted from the beginning of epoch `epoch` (from 0).

    They take the rows of the data that `order` lists, see `Steps`; None: as they lie.
    """

    order: NDArray[np.int64] | None
    epoch: int
    first: int
    last: int


class Course(Protocol):
    """Where a run is, and how one puts it there; `Run` is one. Checkpoints and divergence know no more of it.

    done : steps.
    epoch_losses : of the epoch in progress, a sum for each step.
    epoch_random : the state of the random streams that this epoch's order was drawn from.
    unsettled : whether what follows the last epoch (validation, callbacks) is still to be done.
    stopped : by a callback.
    """

    model: Network
    samples: Samples
    optimizer: Optimizer
    state: State
    history: History
    steps: int
    steps_per_epoch: int
    batch_size: int
    done: int
    epoch_losses: NDArray[np.float64]
    epoch_random: dict[str, Any]
    unsettled: bool
    stopped: bool

    @property
    def epoch_step(self) -> int:
        """Steps done of the epoch in progress."""

    @property
    def epoch_limit(self) -> int | None:
        """How many steps an epoch may have; None: nobody knows."""

    def numbers(self, epoch: int, step: int) -> tuple[int, int]:
        """Epoch and step, counted from 1, of a step counted from the beginning of an epoch."""

    def meet_optimizer(self) -> None:
        """Take the optimizer as it is now."""

    def order(self, epochs: int) -> NDArray[np.int64] | None:
        """One permutation of the samples after another; None: they are taken as they lie."""

    def chunk(
        self, order: NDArray[np.int64] | None, first: int, last: int, losses: NDArray[np.float64]
    ) -> bool:
        """Do these steps; whether all stayed finite."""


def last_rates(rule: Optimizer, steps_done: int, steps: int, epochs: int) -> list[float]:
    """The learning rate of the last step of each of the last epochs, of so many steps each."""
    if not isinstance(rule.lr, Schedule):
        return [float(rule.lr)] * epochs
    last = steps_done - 1 - steps * np.arange(epochs)[::-1]
    rates: list[float] = rule.lr(np.maximum(last, 0)).tolist()  # below 0: where all steps were skipped
    return rates
