"""A training step with each optimizer, heavier activation and regularisation, inside MLP.fit.

One network of tabular size, one core, no shuffling: what differs is what the parameter says. Each case takes
some 0.2 s.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .common import ESTIMATORS, QUICK, estimator_fit, require
from .measuring import seconds_each

BATCH, SIZES, STEPS = 128, (64, 128, 10), 64
# name -> class and options of the optimizer, options of MLP. asv stores results under the names.
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 1e-4}, {}),
    "SGD, momentum": ("SGD", {"lr": 1e-4, "momentum": 0.9}, {}),
    "SGD, Nesterov": ("SGD", {"lr": 1e-4, "momentum": 0.9, "nesterov": True}, {}),
    "Adam": ("Adam", {"lr": 1e-4}, {}),
    "AdamW": ("AdamW", {"lr": 1e-4}, {}),
    "RMSprop": ("RMSprop", {"lr": 1e-4}, {}),
    "Adagrad": ("Adagrad", {"lr": 1e-4}, {}),
    "SGD, l1 and clip_value": ("SGD", {"lr": 1e-4, "l1": 1e-5, "clip_value": 1e-2}, {}),
    "SGD, clip_norm": ("SGD", {"lr": 1e-4, "clip_norm": 1e-2}, {}),
    "Adam, clip_norm": ("Adam", {"lr": 1e-4, "clip_norm": 1e-2}, {}),
    "SGD, max_norm": ("SGD", {"lr": 1e-4}, {"max_norm": 1.0}),
}
REGULARISATION: dict[str, dict[str, Any]] = {
    "none": {},
    "dropout 0.5": {"dropout": 0.5},
    "layer_norm": {"layer_norm": True},
}
ACTIVATIONS = ["relu", "gelu", "gelu_tanh", "silu", "elu", "softplus", "tanh"]


def seconds_of_a_step(optimizer: str, options: dict[str, Any], **network: Any) -> float:
    """The best of several legs. NotImplementedError on a commit that lacks something of it."""
    mlp, optimizer_class = require("fastbp", "MLP"), require("fastbp", optimizer)
    try:
        model = mlp(SIZES, seed=0, threads=1, **network)
        made = optimizer_class(**options)
    except (TypeError, ValueError) as error:  # an option or a name that came later
        raise NotImplementedError(f"this commit has no fastbp for {optimizer} {options} {network}") from error
    rng = np.random.default_rng(0)
    X = rng.standard_normal((BATCH * STEPS, SIZES[0]), np.float32)
    Y = rng.random((BATCH * STEPS, SIZES[-1]), np.float32)

    def run(epochs: int) -> None:
        model.fit(X, Y, epochs=epochs, batch_size=BATCH, optimizer=made, shuffle=False, progress=False)

    return seconds_each(run, leg=0.02, legs=5) / STEPS


class OptimizerStep:
    timeout = 900  # seconds, of setup, too: it compiles, which takes long on a busy machine
    params = [list(OPTIMIZERS)]
    param_names = ["optimizer"]

    def setup(self, optimizer: str) -> None:
        name, options, network = OPTIMIZERS[optimizer]
        self.seconds = seconds_of_a_step(name, options, **network)

    def track_step(self, optimizer: str) -> float:
        return self.seconds

    track_step.pretty_name = "a training step with an optimizer, 128 x 64-128-10"
    track_step.unit = "seconds"


class ActivationStep:
    timeout = 900
    params = [ACTIVATIONS]
    param_names = ["hidden"]

    def setup(self, hidden: str) -> None:
        self.seconds = seconds_of_a_step("SGD", {"lr": 1e-4}, hidden=hidden)

    def track_step(self, hidden: str) -> float:
        return self.seconds

    track_step.pretty_name = "a training step with a hidden activation, 128 x 64-128-10"
    track_step.unit = "seconds"


class RegularisationStep:
    timeout = 900
    params = [list(REGULARISATION)]
    param_names = ["regularisation"]

    def setup(self, regularisation: str) -> None:
        self.seconds = seconds_of_a_step("SGD", {"lr": 1e-4}, **REGULARISATION[regularisation])

    def track_step(self, regularisation: str) -> float:
        return self.seconds

    track_step.pretty_name = "a training step with a regularisation, 128 x 64-128-10"
    track_step.unit = "seconds"


class EstimatorFit:
    """fit of fastbp.sklearn's estimators; its ratio to scikit-learn's is in ratios.py."""

    timeout = 900
    params = [list(ESTIMATORS)]
    param_names = ["data"]
    rounds = 1
    repeat = (3, 10, 1.0)
    warmup_time = 0.05

    def setup(self, name: str) -> None:
        self.fit = estimator_fit(name)
        self.fit()

    def time_fit(self, name: str) -> None:
        self.fit()

    time_fit.pretty_name = "fit of an estimator of fastbp.sklearn"


# ---- many networks in one call -------------------------------------------------------------------------

NETWORKS, ROWS, ROWS_OF_STEP = (4 if QUICK else 100), 1024, 32
# Layer sizes and epochs: some milliseconds for each network.
MANY_SHAPES = {"8-16-1": ((8, 16, 1), 50), "64-128-10": ((64, 128, 10), 10)}


class ManyNetworks:
    timeout = 900  # seconds, of setup, too: it compiles
    params = [list(MANY_SHAPES)]
    param_names = ["network"]
    rounds = 1

    def setup(self, shape: str) -> None:
        self.fit_many, self.mlp = require("fastbp", "fit_many"), require("fastbp", "MLP")
        self.adam = require("fastbp", "Adam")
        self.sizes, self.epochs = MANY_SHAPES[shape]
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((ROWS, self.sizes[0]), np.float32)
        self.Y = rng.random((ROWS, self.sizes[-1]), np.float32)
        self.seconds(2)

    def seconds(self, threads: int, rows: int = ROWS, epochs: int = 0) -> float:
        models: list[Any] = [self.mlp(self.sizes, seed=i) for i in range(NETWORKS)]
        options = {
            "epochs": epochs or self.epochs,
            "batch_size": ROWS_OF_STEP,
            "threads": threads,
            "progress": False,
        }
        began = time.perf_counter()
        self.fit_many(models, self.X[:rows], self.Y[:rows], optimizers=self.adam(), **options)
        return time.perf_counter() - began

    def track_one_core(self, shape: str) -> float:
        return min(self.seconds(1) for _ in range(3)) / NETWORKS

    track_one_core.pretty_name = "a network among 100, one core"
    track_one_core.unit = "seconds"

    def track_two_steps(self, shape: str) -> float:
        """Hardly more than what Python does for each."""
        return min(self.seconds(1, 2 * ROWS_OF_STEP, 1) for _ in range(10)) / NETWORKS

    track_two_steps.pretty_name = "a network among 100, two steps of each"
    track_two_steps.unit = "seconds"

    def track_two_cores(self, shape: str) -> float:
        return min(self.seconds(2) for _ in range(3)) / NETWORKS

    track_two_cores.pretty_name = "a network among 100, two cores"
    track_two_cores.unit = "seconds"

    def track_two_cores_pay(self, shape: str) -> float:
        """One core's time, in times of two; in turns."""
        return max(self.seconds(1) / self.seconds(2) for _ in range(3))

    track_two_cores_pay.pretty_name = "one core's time of 100 networks, in times of two's"
    track_two_cores_pay.unit = "x"
