"""Training steps and epochs by shape: seconds, for networks of many sizes, optimizers and both dtypes."""

from __future__ import annotations

import itertools
from typing import Any

from .common import THREADS, Fit, LookUp, OverShapes, missing, steps_of_an_epoch, those_that_exist
from .measuring import STEPS


class Step(LookUp):
    """Without the cost of entering fit: enough steps in one call."""

    params = [list(STEPS), THREADS]
    param_names = ["network", "threads"]

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing():
            return absent
        from .measuring import seconds_of_a_step

        # Some networks are of later commits.
        return those_that_exist(
            itertools.product(*self.params), lambda key: seconds_of_a_step(STEPS[key[0]], key[1])
        )

    def track_seconds(self, figures: dict[Any, Any], network: str, threads: int) -> float:
        return figures[network, threads]

    track_seconds.pretty_name = "a training step inside fit"
    track_seconds.unit = "seconds"


class Epoch(OverShapes):
    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.fit = Fit(shape, dtype, implementation, steps_of_an_epoch(shape))
        self.fit.epoch()

    def time_epoch(self, shape: str, dtype: str, implementation: str) -> None:
        self.fit.epoch()

    time_epoch.pretty_name = "an epoch of MLP.fit"
