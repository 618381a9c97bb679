"""What the benchmarks share: shapes, data, and how to reach a name that an old commit may lack."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

# name -> (rows of a batch, layer sizes). asv shows the key and stores results under it, so it says both.
SHAPES = {
    "xor 4 x 2-8-1": (4, (2, 8, 1)),
    "tiny 32 x 8-16-1": (32, (8, 16, 1)),
    "small 32 x 32-64-1": (32, (32, 64, 1)),
    "tabular 128 x 64-128-10": (128, (64, 128, 10)),
    "mnist 32 x 784-128-10": (32, (784, 128, 10)),
    "mnist 128 x 784-256-10": (128, (784, 256, 10)),
    "mnist 256 x 784-1024-10": (256, (784, 1024, 10)),
}
# Of forward and backward alone: fewer than of the whole training step, so that a run stays short.
SHAPES_OF_PASSES = [
    *("tiny 32 x 8-16-1", "small 32 x 32-64-1", "tabular 128 x 64-128-10"),
    *("mnist 32 x 784-128-10", "mnist 128 x 784-256-10"),
]
DTYPES = ["float32", "float64"]
IMPLEMENTATIONS = {"fastbp": "fastbp", "reference": "fastbp.reference"}
THREADS = [1, 2]
LR = 1e-3
Key = TypeVar("Key")
# Set by .ci/run, which asks whether everything executes: figures are then measured once, and mean nothing.
QUICK = "FASTBP_BENCH_QUICK" in os.environ


class OverShapes:
    """Shape x dtype x implementation, and how long to measure each: the whole suite takes a few minutes."""

    params = [list(SHAPES), DTYPES, list(IMPLEMENTATIONS)]
    param_names = ["shape", "dtype", "implementation"]
    timeout = 900  # seconds; setup compiles, which takes long on a busy machine
    rounds = 1
    repeat = (3, 10, 1.0)  # at least 3 samples, then up to 10 within a second
    warmup_time = 0.05


def require(implementation: str, name: str) -> Any:
    """The function or class `name` of an implementation.

    Raises NotImplementedError, for which asv skips a benchmark, on a commit that does not have it yet.
    """
    try:
        return getattr(importlib.import_module(IMPLEMENTATIONS[implementation]), name)
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"this commit has no {IMPLEMENTATIONS[implementation]}.{name}") from error


def missing(*probes: str) -> dict[str, str]:
    """{}, or {"missing": what this commit does not have yet}: fastbp.MLP, or one of these probes."""
    for module, name in (("fastbp", "MLP"), *(("fastbp.engine.probes", probe) for probe in probes)):
        try:
            if not hasattr(importlib.import_module(module), name):
                return {"missing": f"{module}.{name}"}
        except ImportError:
            return {"missing": f"{module}.{name}"}
    return {}


def skip_if(found: dict[Any, Any]) -> None:
    """asv skips a benchmark whose setup raises NotImplementedError."""
    if "missing" in found:
        raise NotImplementedError(f"this commit has no {found['missing']}")


def those_that_exist(keys: Iterable[Key], measure: Callable[[Key], float]) -> dict[Any, Any]:
    """{key: measure(key)}, without those for which it raises NotImplementedError on this commit."""
    figures = {}
    for key in keys:
        with contextlib.suppress(NotImplementedError):
            figures[key] = measure(key)
    return figures


class LookUp:
    """Its setup_cache measures everything in one process: {parameters: figure}, or {"missing": name}.

    Parameters without a figure are skipped.
    """

    timeout = 900  # seconds, of setup_cache, too: it compiles, which takes long on a busy machine

    def setup(self, figures: dict[Any, Any], *parameters: Any) -> None:
        skip_if(figures)
        key = parameters if len(parameters) > 1 else parameters[0]
        if key not in figures:
            raise NotImplementedError(f"this commit has no fastbp for {key}")


@dataclass
class TwoLayers:
    """Data and parameters of a two-layer network, the same on every machine and for every implementation."""

    X: np.ndarray  # (batch, inputs)
    Y: np.ndarray  # (batch, outputs), in [0, 1)
    W1: np.ndarray  # (inputs, hidden)
    b1: np.ndarray  # (hidden,)
    W2: np.ndarray  # (hidden, outputs)
    b2: np.ndarray  # (outputs,)


def two_layers(shape: str, dtype: str) -> TwoLayers:
    batch, (inputs, hidden, outputs) = SHAPES[shape]
    rng = np.random.default_rng(0)

    def normal(rows: int, columns: int, std: float) -> np.ndarray:
        return (std * rng.standard_normal((rows, columns))).astype(dtype)

    return TwoLayers(
        X=normal(batch, inputs, 1.0),
        Y=rng.random((batch, outputs)).astype(dtype),
        W1=normal(inputs, hidden, np.sqrt(2 / inputs)),
        b1=np.zeros(hidden, dtype),
        W2=normal(hidden, outputs, np.sqrt(1 / hidden)),
        b2=np.zeros(outputs, dtype),
    )


class Fit:
    """One epoch of `MLP.fit` after another, over `steps` batches of a shape."""

    def __init__(self, shape: str, dtype: str, implementation: str, steps: int) -> None:
        mlp, sgd = require(implementation, "MLP"), require(implementation, "SGD")
        self.batch, sizes = SHAPES[shape]
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((self.batch * steps, sizes[0])).astype(dtype)
        self.Y = rng.random((self.batch * steps, sizes[-1])).astype(dtype)
        self.model = mlp(sizes, dtype=dtype, seed=0)
        self.optimizer = sgd(LR)

    def epoch(self) -> None:
        self.model.fit(
            self.X, self.Y, epochs=1, batch_size=self.batch, optimizer=self.optimizer, progress=False
        )


def steps_of_an_epoch(shape: str) -> int:
    """Batches of an epoch, so many that the cost of calling fit does not hide the steps."""
    batch, sizes = SHAPES[shape]
    weights = sum(a * b for a, b in itertools.pairwise(sizes))
    return int(np.clip(2**27 // (batch * weights), 4, 256))


# ---- scikit-learn's estimators, and those of fastbp.sklearn ----------------------------------------------

# What `fastbp bench --against sklearn` fits, by the names that asv stores results under.
ESTIMATORS = {
    "digits 64-100-10": "digits",
    "wine 13-100-3": "wine",
    "breast_cancer 30-100-1": "breast-cancer",
    "diabetes 10-100-1": "diabetes",
    "random 784-256-10": "random-classes",
    "random 784-256-1": "random-quantity",
}


def estimator_fit(name: str, module: str = "fastbp.sklearn") -> Callable[[], Any]:
    """Fits a new estimator of `module`, with defaults but for the number of epochs, to standardised data.

    Raises NotImplementedError on a commit whose `fastbp bench` has no estimators, and without scikit-learn.
    """
    require("fastbp", "MLP")
    try:
        estimators = importlib.import_module("fastbp.cli.bench.estimators")
        fit = estimators.ESTIMATORS[ESTIMATORS[name]]
        return estimators.call_of(fit, module, *((1, 200) if QUICK else ()))  # type: ignore[no-any-return]
    except (ImportError, KeyError) as error:
        raise NotImplementedError("this commit has no such estimator, or nothing has scikit-learn") from error
