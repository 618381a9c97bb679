"""The functions on the caller's arrays: forward, backward and a training step of a two-layer network.

And models in other people's compiled code, what a prediction and a training step cost there and in Python."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from .common import DTYPES, LR, QUICK, OverShapes, require, two_layers

SIZES = {"3-16-1": (3, 16, 1), "64-128-10": (64, 128, 10)}
CALLS = 10 if QUICK else 1000


@njit
def predict(model: Any, X: Any, out: Any, calls: int) -> None:
    for _ in range(calls):
        out[...] = model.predict(X)


@njit
def predict_into(model: Any, X: Any, out: Any, calls: int) -> None:
    for _ in range(calls):
        model.predict_into(X, out)


@njit
def train(model: Any, X: Any, Y: Any, state: Any, calls: int) -> None:
    for _ in range(calls):
        model.train_step(X, Y, state)


WAYS: dict[str, Callable[..., None]] = {
    "predict in njit": predict,
    "predict_into in njit": predict_into,
    "predict from Python": predict.py_func,
}


def model_of(sizes: str, dtype: str) -> Any:
    """A model, which on old commits compiled code cannot take."""
    model = require("fastbp", "MLP")(SIZES[sizes], hidden="tanh", output="identity", dtype=dtype, seed=0)
    if not hasattr(model, "training_state"):
        raise NotImplementedError("on this commit compiled code takes no models")
    return model


class Forward(OverShapes):
    # fewer shapes than for the whole training step, so that a run stays short
    params = [
        ["tiny 32 x 8-16-1", "small 32 x 32-64-1", "tabular 128 x 64-128-10", "mnist 128 x 784-256-10"],
        *OverShapes.params[1:],
    ]

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward = require(implementation, "forward")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.W1, n.b1, n.W2, n.b2)
        self.forward(*self.arguments)

    def time_forward(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward(*self.arguments)

    time_forward.pretty_name = "forward, two layers"


class Backward(OverShapes):
    params = Forward.params

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward = require(implementation, "backward")
        n = two_layers(shape, dtype)
        z1, a1, _, y_pred = require(implementation, "forward")(n.X, n.W1, n.b1, n.W2, n.b2)
        self.arguments = (n.X, n.Y, z1, a1, y_pred, n.W2)
        self.backward(*self.arguments)

    def time_backward(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward(*self.arguments)

    time_backward.pretty_name = "backward, two layers"


class TrainStep(OverShapes):
    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step = require(implementation, "train_step")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.Y, n.W1, n.b1, n.W2, n.b2, LR)
        self.train_step(*self.arguments)

    def time_train_step(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step(*self.arguments)

    time_train_step.pretty_name = "train_step, two layers"


class Prediction:
    """Of one row, 1000 times."""

    params = [list(SIZES), DTYPES, list(WAYS)]
    param_names = ["network", "dtype", "way"]
    timeout = 300
    rounds = 1
    repeat = (3, 10, 1.0)

    def setup(self, sizes: str, dtype: str, way: str) -> None:
        model = model_of(sizes, dtype)
        X, out = np.ones((1, SIZES[sizes][0]), dtype), np.empty((1, SIZES[sizes][-1]), dtype)
        self.work = lambda: WAYS[way](model, X, out, CALLS)
        self.work()

    def time_1000_predictions(self, sizes: str, dtype: str, way: str) -> None:
        self.work()

    time_1000_predictions.pretty_name = "1000 predictions of one row"


class CompiledStep:
    """A training step on 32 rows with Adam, 1000 times."""

    params = [list(SIZES), ["njit", "Python"]]
    param_names = ["network", "way"]
    timeout = 300
    rounds = 1
    repeat = (3, 10, 1.0)

    def setup(self, sizes: str, way: str) -> None:
        model, optimizer = model_of(sizes, "float32"), require("fastbp", "Adam")()
        X, Y = (np.ones((32, n), np.float32) for n in (SIZES[sizes][0], SIZES[sizes][-1]))
        state = model.training_state(optimizer, batch_size=32)
        work, given = (train, state) if way == "njit" else (train.py_func, optimizer)
        self.work = lambda: work(model, X, Y, given, CALLS)
        self.work()

    def time_1000_steps(self, sizes: str, way: str) -> None:
        self.work()

    time_1000_steps.pretty_name = "1000 training steps of 32 rows, Adam"


class Gain:
    """How many times as long a prediction of one row takes from Python as in compiled code."""

    params = [list(SIZES), DTYPES]
    param_names = ["network", "dtype"]
    timeout = 300
    unit = "times"

    def setup(self, sizes: str, dtype: str) -> None:
        self.model = model_of(sizes, dtype)

    def track_python_over_njit(self, sizes: str, dtype: str) -> float:
        X, out = np.ones((1, SIZES[sizes][0]), dtype), np.empty((1, SIZES[sizes][-1]), dtype)
        best = {}
        for way in (predict_into, predict.py_func):
            way(self.model, X, out, CALLS)
            times = []
            for _ in range(3 if QUICK else 30):
                began = time.perf_counter()
                way(self.model, X, out, CALLS)
                times.append(time.perf_counter() - began)
            best[way] = min(times)
        return best[predict.py_func] / best[predict_into]

    track_python_over_njit.pretty_name = "a prediction from Python / in compiled code"
