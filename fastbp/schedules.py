"""Learning rates that change from step to step: give one as `lr` to any optimizer, Adam(Cosine(1e-3, 5000)).

A step is one batch. Steps are counted for each model from 0 on, beginning with the first that the optimizer
did for it; `fit` goes on where the last one ended. A schedule is called with an array of step numbers and
returns the learning rate of each: compiled training finds them in a table. Definitions are those of
torch.optim.lr_scheduler.

A schedule may also depend on how training goes (`ReduceOnPlateau`). What such a one does:

    watches                  True: `fit` asks for rates one epoch at a time
    check_columns(names)     told before the first step what columns the history will have: ValueError refuses
    epoch_ended(history)     told after each epoch and its validation, before callbacks for the epoch
    state_dict()             what it has learned: a dict that can be written as JSON; {} for other schedules
    load_state_dict(state)   goes on from there
    reset()                  forgets what it has learned; `MLP.reset` asks for it

What it learns belongs to one model at a time, which an optimizer tells it of (`serve`): another model begins
anew, and when the first one is trained again, it goes on where it was with that one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.checks import count, known_name, number, shown
from fastbp.history import History

Steps = NDArray[np.int64]
Rates = NDArray[np.float64]


class Learned:
    """What a schedule has learned from the epochs of one model; kept while it serves another one."""

    def __init__(self) -> None:
        self.by: type[Schedule] | None = None  # None: nothing was learned yet
        self.state: dict[str, Any] = {}


class Schedule:
    """Base class: `schedule(steps)` is (n,) learning rates for (n,) step numbers from 0."""

    _serves: Learned | None = None

    def serve(self, learned: Learned) -> None:
        """Go on with the training of another model, unless it is the one that is served already.

        The first one takes the schedule as it is, others begin anew.
        """
        before = self._serves
        if before is learned:
            return
        if before is not None:
            before.by, before.state = type(self), self.state_dict()
            if learned.by is type(self):
                self.load_state_dict(learned.state)
            else:
                self.reset()
        object.__setattr__(self, "_serves", learned)  # most schedules are frozen

    def __call__(self, steps: Steps) -> Rates:
        raise NotImplementedError

    @property
    def watches(self) -> bool:
        """Whether it wants to hear of each epoch."""
        return False

    def check_columns(self, names: Sequence[str]) -> None:
        """Raise ValueError if a history with these columns does not have what the schedule looks at."""

    def epoch_ended(self, history: History) -> None:
        """Told after each epoch."""

    def state_dict(self) -> dict[str, Any]:
        """What it has learned from the epochs so far."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. ValueError if that was another kind of schedule's."""
        _require_keys(self, state, ())

    def reset(self) -> None:
        """Forget the epochs so far."""


@dataclass(frozen=True)
class Constant(Schedule):
    """lr, always."""

    lr: float

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)

    def __call__(self, steps: Steps) -> Rates:
        return np.full(len(steps), float(self.lr))


@dataclass(frozen=True)
class Step(Schedule):
    """lr * factor^(steps // every). As StepLR."""

    lr: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)
        count("every", self.every)
        number("factor", self.factor, low=0)

    def __call__(self, steps: Steps) -> Rates:
        rates: Rates = self.lr * np.float64(self.factor) ** (steps // self.every)
        return rates


@dataclass(frozen=True)
class Exponential(Schedule):
    """lr * factor^step. As ExponentialLR."""

    lr: float
    factor: float

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)
        number("factor", self.factor, low=0)

    def __call__(self, steps: Steps) -> Rates:
        rates: Rates = self.lr * np.float64(self.factor) ** steps
        return rates


@dataclass(frozen=True)
class Cosine(Schedule):
    """low + (lr - low) (1 + cos(pi step / steps)) / 2: half a cosine from lr to `low` over `steps` steps.

    Then it stays at `low`; with restarts=True it starts again from lr, each period `growth` times as long as
    the one before. As CosineAnnealingLR (which rises again) and CosineAnnealingWarmRestarts.
    Loshchilov and Hutter, ICLR 2017.
    """

    lr: float
    steps: int
    low: float = 0.0
    restarts: bool = False
    growth: int = 1

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)
        count("steps", self.steps)
        number("low", self.low, low=0)
        count("growth", self.growth)
        if self.growth > 1 and not self.restarts:
            raise ValueError(f"growth is {self.growth}, which means something with restarts=True only")

    def __call__(self, steps: Steps) -> Rates:
        if self.restarts and self.growth == 1:
            done = steps % self.steps / self.steps
        elif self.restarts:
            # period n begins at step (growth^n - 1) / (growth - 1) * self.steps
            starts, period = [0], self.steps
            while starts[-1] + period <= steps.max(initial=0):
                starts.append(starts[-1] + period)
                period *= self.growth
            n = np.searchsorted(starts, steps, side="right") - 1
            done = (steps - np.array(starts)[n]) / (self.steps * float(self.growth) ** n)
        else:
            done = np.minimum(steps, self.steps) / self.steps
        rates: Rates = self.low + (self.lr - self.low) * (1 + np.cos(math.pi * done)) / 2
        return rates


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A straight line from start * lr to lr over `steps` steps, then `after`: a number or any schedule.

    lr is what `after` begins with, and it begins when the warm-up is over. As LinearLR in front of another
    scheduler in SequentialLR.
    """

    after: float | Schedule
    steps: int
    start: float = 1 / 3

    def __post_init__(self) -> None:
        rate("after", self.after)
        count("steps", self.steps)
        number("start", self.start, low=0)

    def __call__(self, steps: Steps) -> Rates:
        after = rates(self.after, np.maximum(steps - self.steps, 0))
        line = self.start + (1 - self.start) * np.minimum(steps, self.steps) / self.steps
        result: Rates = after * line
        return result

    @property
    def watches(self) -> bool:
        return isinstance(self.after, Schedule) and self.after.watches

    def check_columns(self, names: Sequence[str]) -> None:
        if isinstance(self.after, Schedule):
            self.after.check_columns(names)

    def epoch_ended(self, history: History) -> None:
        if isinstance(self.after, Schedule):
            self.after.epoch_ended(history)

    def state_dict(self) -> dict[str, Any]:
        return self.after.state_dict() if isinstance(self.after, Schedule) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if isinstance(self.after, Schedule):
            self.after.load_state_dict(state)
        else:
            super().load_state_dict(state)

    def reset(self) -> None:
        if isinstance(self.after, Schedule):
            self.after.reset()


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Half a cosine from start * lr to lr, for the share `up` of `steps`, and one down to end * start * lr.

    Afterwards it stays there. As OneCycleLR. Smith and Topin, arXiv 1708.07120.
    """

    lr: float
    steps: int
    up: float = 0.3
    start: float = 1 / 25
    end: float = 1e-4

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)
        count("steps", self.steps, low=2)
        number("up", self.up, low=0, below=1)
        number("start", self.start, low=0)
        number("end", self.end, low=0)

    def __call__(self, steps: Steps) -> Rates:
        first, last = self.lr * self.start, self.lr * self.start * self.end
        top, bottom = self.up * self.steps - 1, self.steps - 1  # the steps at which it is lr, and last
        falling = steps > top
        done = np.where(
            falling, (np.minimum(steps, bottom) - top) / (bottom - top), steps / top if top > 0 else 1
        )
        begin, end = np.where(falling, self.lr, first), np.where(falling, last, self.lr)
        rates: Rates = end + (begin - end) * (1 + np.cos(math.pi * done)) / 2
        return rates


@dataclass
class ReduceOnPlateau(Schedule):
    """lr, times `factor` whenever a value has not improved for more than `patience` epochs.

    As ReduceLROnPlateau. An improvement on the best value so far is, for mode "min", value < best * (1 -
    threshold) with threshold_mode "rel", and value < best - threshold with "abs"; for mode "max", value >
    best * (1 + threshold) and value > best + threshold. NaN is none. After a reduction, `cooldown` epochs are
    not counted. The rate does not fall below min_lr, and a reduction by eps or less is not done.

    monitor : the column of `fit`'s history that it looks at, such as "val_accuracy" (with mode="max"); None:
        the validation loss if there is validation data, else the training loss.

    In a training loop of your own, call `observe(value)` after each epoch. `rate` is the learning rate now;
    it is kept when the training of this model goes on, as is the count of epochs; `reset` begins anew, and so
    does the training of another model.
    """

    lr: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    threshold_mode: str = "rel"
    cooldown: int = 0
    min_lr: float = 0.0
    mode: str = "min"
    monitor: str | None = None
    eps: float = 1e-8
    rate: float = field(init=False, repr=False)
    best: float | None = field(init=False, repr=False)  # None before the first epoch
    bad_epochs: int = field(init=False, repr=False)
    cooldown_left: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        number("lr", self.lr, low=0)
        number("factor", self.factor, low=0, below=1)
        count("patience", self.patience, low=0)
        number("threshold", self.threshold, low=0)
        known_name("threshold_mode", self.threshold_mode, ("rel", "abs"))
        count("cooldown", self.cooldown, low=0)
        number("min_lr", self.min_lr, low=0)
        known_name("mode", self.mode, ("min", "max"))
        if self.monitor is not None and not isinstance(self.monitor, str):
            raise TypeError(
                f"monitor must be the name of a column of the history or None, got {shown(self.monitor)}"
            )
        number("eps", self.eps, low=0)
        self.reset()

    def reset(self) -> None:
        self.rate, self.best, self.bad_epochs, self.cooldown_left = float(self.lr), None, 0, 0

    def __call__(self, steps: Steps) -> Rates:
        return np.full(len(steps), self.rate)

    @property
    def watches(self) -> bool:
        return True

    def check_columns(self, names: Sequence[str]) -> None:
        if self.monitor is not None:
            known_name("monitor", self.monitor, names)

    def epoch_ended(self, history: History) -> None:
        default = "val_loss" if "val_loss" in history.names else "loss"
        self.observe(history.last(self.monitor or default))

    def observe(self, value: float) -> None:
        """An epoch has ended with that value."""
        value = float(value)
        if self._improves(value):
            self.best, self.bad_epochs = value, 0
        else:
            self.bad_epochs += 1
        if self.cooldown_left > 0:
            self.cooldown_left, self.bad_epochs = self.cooldown_left - 1, 0
        if self.bad_epochs > self.patience:
            self.cooldown_left, self.bad_epochs = self.cooldown, 0
            reduced = max(self.rate * self.factor, self.min_lr)
            if self.rate - reduced > self.eps:
                self.rate = reduced

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return math.isfinite(value)
        sign = -1 if self.mode == "min" else 1
        margin = sign * self.threshold
        bound = self.best * (1 + margin) if self.threshold_mode == "rel" else self.best + margin
        return value < bound if self.mode == "min" else value > bound

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rate", "best", "bad_epochs", "cooldown_left")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _require_keys(self, state, self.state_dict())
        rate = number("rate", state["rate"], low=0)
        best = None if state["best"] is None else number("best", state["best"], low=-math.inf)
        bad_epochs = count("bad_epochs", state["bad_epochs"], low=0)
        cooldown_left = count("cooldown_left", state["cooldown_left"], low=0)
        self.rate, self.best, self.bad_epochs, self.cooldown_left = rate, best, bad_epochs, cooldown_left


def _require_keys(schedule: Schedule, state: Mapping[str, Any], keys: Iterable[str]) -> None:
    if set(state) != set(keys):
        raise ValueError(
            f"the state of {type(schedule).__name__} has {sorted(keys)}, got one that has {sorted(state)}"
        )


def rate(name: str, lr: Any) -> None:
    """Raise TypeError or ValueError unless lr is a number of at least 0 or a schedule."""
    if not isinstance(lr, Schedule):
        number(name, lr, low=0)


def rates(lr: float | Schedule, steps: Steps) -> Rates:
    """The learning rate of each of the steps."""
    return lr(steps) if isinstance(lr, Schedule) else np.full(len(steps), float(lr))
