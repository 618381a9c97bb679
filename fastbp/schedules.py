"""Learning rates that change from step to step: give one as `lr` to any optimizer, Adam(Cosine(1e-3, 5000)).

A step is one batch. Steps are counted for each model from 0 on, beginning with the first that the optimizer
did for it; `fit` goes on where the last one ended. A schedule is called with an array of step numbers and
returns the learning rate of each: compiled training finds them in a table. Definitions are those of
torch.optim.lr_scheduler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp._validation import count, number

Steps = NDArray[np.int64]
Rates = NDArray[np.float64]


class Schedule:
    """Base class: `schedule(steps)` is (n,) learning rates for (n,) step numbers from 0."""

    def __call__(self, steps: Steps) -> Rates:
        raise NotImplementedError


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


def rate(name: str, lr: Any) -> None:
    """Raise TypeError or ValueError unless lr is a number of at least 0 or a schedule."""
    if not isinstance(lr, Schedule):
        number(name, lr, low=0)


def rates(lr: float | Schedule, steps: Steps) -> Rates:
    """The learning rate of each of the steps."""
    return lr(steps) if isinstance(lr, Schedule) else np.full(len(steps), float(lr))
