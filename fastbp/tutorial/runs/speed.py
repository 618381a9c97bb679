"""The tutorial's functions and `MLP.fit`, in NumPy and compiled, measured side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastbp
import fastbp.reference
from fastbp.cli.bench.measuring import interleaved
from fastbp.training.interrupt import or_interrupt

ROUNDS = 5
SECONDS = 0.06  # of one measurement
FIT_BATCHES = 32


@dataclass(frozen=True)
class Size:
    batch: int
    inputs: int
    hidden: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.batch} × {self.inputs}-{self.hidden}-{self.outputs}"


SIZES = (Size(4, 2, 3, 1), Size(32, 64, 32, 10))


@dataclass(frozen=True)
class Timing:
    """Seconds of a call (of `fit`: of a step), of the fastest round: what other programs do, only adds."""

    what: str
    numpy: float
    fast: float

    @property
    def ratio(self) -> float:
        """How many times fastbp's go into NumPy's."""
        return self.numpy / self.fast


def run(size: Size) -> list[Timing]:
    return [
        _timing("forward", size, _forward),
        _timing("backward", size, _backward),
        _timing("sgd_update", size, _sgd_update),
        _timing("train_step", size, _train_step),
        _timing("MLP.fit", size, _fit),
    ]


def _timing(what: str, size: Size, make: Callable[[Any, Size], tuple[Callable[[], Any], int]]) -> Timing:
    calls = [make(module, size) for module in (fastbp.reference, fastbp)]

    def repeated(call: Callable[[], Any]) -> Callable[[int], None]:
        def run(times: int) -> None:
            for _ in range(times):
                call()

        return run

    slow, fast = interleaved(
        [repeated(call) for call, _ in calls], calls[0][1], rounds=ROUNDS, seconds=SECONDS
    )
    return Timing(what, min(slow), min(fast))


def _arrays(size: Size) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((size.batch, size.inputs))
    y = rng.random((size.batch, size.outputs))
    W1 = rng.standard_normal((size.inputs, size.hidden)) / np.sqrt(size.inputs)
    W2 = rng.standard_normal((size.hidden, size.outputs)) / np.sqrt(size.hidden)
    return tuple(a.astype(np.float32) for a in (X, y, W1, np.zeros(size.hidden), W2, np.zeros(size.outputs)))


def _forward(module: Any, size: Size) -> tuple[Callable[[], Any], int]:
    X, _, *params = _arrays(size)
    return lambda: module.forward(X, *params), 1


def _backward(module: Any, size: Size) -> tuple[Callable[[], Any], int]:
    X, y, W1, b1, W2, b2 = _arrays(size)
    z1, a1, _, y_pred = module.forward(X, W1, b1, W2, b2)
    return lambda: module.backward(X, y, z1, a1, y_pred, W2), 1


def _sgd_update(module: Any, size: Size) -> tuple[Callable[[], Any], int]:
    _, _, *params = _arrays(size)
    grads = [1e-6 * p for p in params]
    return lambda: module.sgd_update(params, grads, 1e-3), 1


def _train_step(module: Any, size: Size) -> tuple[Callable[[], Any], int]:
    X, y, *params = _arrays(size)
    return lambda: module.train_step(X, y, *params, 1e-3), 1


def _fit(module: Any, size: Size) -> tuple[Callable[[], Any], int]:
    X, y, *_ = _arrays(Size(size.batch * FIT_BATCHES, size.inputs, size.hidden, size.outputs))
    model = module.MLP([size.inputs, size.hidden, size.outputs], seed=0)
    sgd = module.SGD(lr=1e-3)

    def call() -> None:
        or_interrupt(model.fit(X, y, epochs=4, batch_size=size.batch, optimizer=sgd, progress=False))

    return call, 4 * FIT_BATCHES
