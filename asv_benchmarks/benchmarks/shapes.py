"""Training steps and epochs by shape, for networks of many sizes, optimizers and both dtypes; and what a call
costs when there is next to nothing to do in it: checks, conversions, the way into compiled code."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .common import THREADS, Fit, LookUp, OverShapes, missing, require, steps_of_an_epoch, those_that_exist
from .measuring import STEPS, seconds_each


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


# ---- calls ------------------------------------------------------------------------------------------------

BATCH = 32


def _data(rows: int, inputs: int, outputs: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, inputs), np.float32), rng.random((rows, outputs), np.float32)


def _fit(steps: int, shuffle: bool = True) -> Callable[[], Any]:
    X, Y = _data(BATCH * steps, 8, 1)
    model, optimizer = require("fastbp", "MLP")((8, 16, 1), seed=0), require("fastbp", "SGD")(1e-4)
    return lambda: model.fit(
        X, Y, epochs=1, batch_size=BATCH, optimizer=optimizer, shuffle=shuffle, progress=False
    )


def _train_step() -> Callable[[], Any]:
    X, Y = _data(BATCH, 8, 1)
    model, optimizer = require("fastbp", "MLP")((8, 16, 1), seed=0), require("fastbp", "SGD")(1e-4)
    return lambda: model.train_step(X, Y, optimizer)


def _predict(*sizes: int, rows: int = 1) -> Callable[[], Any]:
    X, _ = _data(rows, sizes[0], 1)
    model = require("fastbp", "MLP")(sizes, seed=0)
    return lambda: model.predict(X)


# asv stores results under the names.
CALLS: dict[str, Callable[[], Callable[[], Any]]] = {
    "fit, 1 step of 32 x 8-16-1": lambda: _fit(1),
    "fit, 10 steps of 32 x 8-16-1": lambda: _fit(10),
    "fit, 10 steps of 32 x 8-16-1 in order": lambda: _fit(10, shuffle=False),
    "MLP.train_step, 32 x 8-16-1": _train_step,
    "predict, 1 x 8-16-1": lambda: _predict(8, 16, 1),
    "predict, 1 x 784-128-10": lambda: _predict(784, 128, 10),
    "predict, 16 x 784-128-10": lambda: _predict(784, 128, 10, rows=16),
    "predict, 256 x 30-64-32-1": lambda: _predict(30, 64, 32, 1, rows=256),
}


class Call:
    timeout = 900  # seconds, of setup, too: it compiles, which takes long on a busy machine
    params = [list(CALLS)]
    param_names = ["call"]

    def setup(self, call: str) -> None:
        function = CALLS[call]()

        def run(times: int) -> None:
            for _ in range(times):
                function()

        self.seconds = seconds_each(run, legs=20)

    def track_seconds(self, call: str) -> float:
        return self.seconds

    track_seconds.pretty_name = "a call with next to nothing to do"
    track_seconds.unit = "seconds"
