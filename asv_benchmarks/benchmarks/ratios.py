"""Time of the NumPy reference, and of scikit-learn, over time of fastbp, measured in turn: more is better.

All are measured in setup_cache, and looked up. Steadier than times where the machine's clock changes; a busy
machine disturbs both.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .common import (
    ESTIMATORS,
    IMPLEMENTATIONS,
    LR,
    QUICK,
    Fit,
    LookUp,
    OverShapes,
    estimator_fit,
    require,
    steps_of_an_epoch,
    those_that_exist,
    two_layers,
)

SECONDS_A_ROUND = 0.01  # of each of the two; a slower call is made once
WARMING_SECONDS = 0.01 if QUICK else 0.15  # before that: fastbp finds out whether threads pay
ROUNDS = 1 if QUICK else 5
# Idle threads of OpenBLAS and OpenMP spin for that long, on cores that the other needs.
PAUSE = 0.0 if QUICK else 0.1
SECONDS = 1.5  # after which no further round begins


def ratio(slow: Callable[[], object], fast: Callable[[], object]) -> float:
    """Shortest time of `slow` over shortest time of `fast`, in rounds that take turns; both are warmed up.

    The shortest, since another process on the machine makes some rounds slow, and not both functions alike.
    """
    runs = []
    for function in (slow, fast):
        seconds = max(_usual_seconds(function), 1e-7)
        runs.append((function, max(1, round(SECONDS_A_ROUND / seconds))))
    measured = []
    end = time.perf_counter() + SECONDS
    while not measured or (len(measured) < ROUNDS and time.perf_counter() < end):
        measured.append([_rested(function, times) / times for function, times in runs])
    slow_seconds, fast_seconds = np.min(measured, axis=0)
    return float(slow_seconds / fast_seconds)


def _usual_seconds(function: Callable[[], object]) -> float:
    """The shortest call while it is warmed up, from threads at rest."""
    function()
    time.sleep(PAUSE)
    calls = []
    end = time.perf_counter() + WARMING_SECONDS
    while not calls or time.perf_counter() < end:
        calls.append(_seconds(function, 1))
    return min(calls)


def _rested(function: Callable[[], object], times: int) -> float:
    time.sleep(PAUSE)
    if times > 1:  # a single long call outweighs the waking of the threads
        function()
    return _seconds(function, times)


def _seconds(function: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        function()
    return time.perf_counter() - start


class _Ratio(LookUp):
    params = OverShapes.params[:2]
    param_names = OverShapes.param_names[:2]


def measure(pair: Callable[[str, str], dict[str, Callable[[], object]]]) -> dict[Any, Any]:
    """{(shape, dtype): ratio}, or {"missing": name}. `pair` makes what is timed of each implementation."""
    figures: dict[Any, Any] = {}
    for shape, dtype in itertools.product(*_Ratio.params):
        try:
            runs = pair(shape, dtype)
        except NotImplementedError as reason:
            return {"missing": str(reason).removeprefix("this commit has no ")}
        figures[shape, dtype] = ratio(runs["reference"], runs["fastbp"])
    return figures


# asv runs one setup_cache for all classes that inherit it, so each has its own.


class TrainStep(_Ratio):
    def setup_cache(self) -> dict[Any, Any]:
        return measure(
            lambda shape, dtype: {name: _train_step(shape, dtype, name) for name in IMPLEMENTATIONS}
        )

    def track_ratio_train_step(self, figures: dict[Any, Any], shape: str, dtype: str) -> float:
        return round(figures[shape, dtype], 3)

    track_ratio_train_step.pretty_name = "train_step: reference / fastbp (more is better)"
    track_ratio_train_step.unit = "x"


class Epoch(_Ratio):
    def setup_cache(self) -> dict[Any, Any]:
        return measure(
            lambda shape, dtype: {
                name: Fit(shape, dtype, name, steps_of_an_epoch(shape)).epoch for name in IMPLEMENTATIONS
            }
        )

    def track_ratio_epoch(self, figures: dict[Any, Any], shape: str, dtype: str) -> float:
        return round(figures[shape, dtype], 3)

    track_ratio_epoch.pretty_name = "epoch of fit: reference / fastbp (more is better)"
    track_ratio_epoch.unit = "x"


def _train_step(shape: str, dtype: str, implementation: str) -> Callable[[], object]:
    train_step = require(implementation, "train_step")
    n = two_layers(shape, dtype)
    return lambda: train_step(n.X, n.Y, n.W1, n.b1, n.W2, n.b2, LR)


class EstimatorFit(LookUp):
    params = [list(ESTIMATORS)]
    param_names = ["data"]

    def setup_cache(self) -> dict[Any, Any]:
        return those_that_exist(
            self.params[0],
            lambda name: ratio(estimator_fit(name, "sklearn.neural_network"), estimator_fit(name)),
        )

    def track_ratio_fit(self, figures: dict[Any, Any], name: str) -> float:
        return round(figures[name], 3)

    track_ratio_fit.pretty_name = "fit of an estimator: scikit-learn / fastbp.sklearn (more is better)"
    track_ratio_fit.unit = "x"
