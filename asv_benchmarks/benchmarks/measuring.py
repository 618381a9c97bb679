"""Measurements of the engine's layers, many in one process, for benchmarks/engine.py and for sweep.py.

All are the best of several legs: whatever else the machine does makes a leg slower, never faster.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .common import QUICK

# ---- products: one layer, one of the three phases of a step ----------------------------------------------

# name -> (rows of a batch, fan_in, fan_out)
PRODUCTS = {
    "32 x 784-128": (32, 784, 128),
    "64 x 300-300": (64, 300, 300),
    "128 x 784-256": (128, 784, 256),
    "256 x 784-1024": (256, 784, 1024),
    "1024 x 1024-2048": (1024, 1024, 2048),
}
# Of fastbp.engine.probes.PHASES, which an old commit may lack.
PHASES = ["forward", "backward", "update"]


def product_speed(
    product: str, phase: str, dtype: str = "float32", threads: int = 1, precision: str | None = None
) -> float:
    """flop/s of one phase of a layer: X @ W + b, the deltas of the layer below, or W += X.T @ d."""
    from fastbp.engine.probes import one_phase

    rows, fan_in, fan_out = PRODUCTS[product]
    others = {} if precision is None else {"precision": precision}  # (which old commits do not have)
    run = one_phase(phase, rows, fan_in, fan_out, dtype, threads, **others)
    return 2 * rows * fan_in * fan_out / seconds_each(run)


# ---- steps of whole networks -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    batch: int
    sizes: tuple[int, ...]
    hidden: str = "relu"
    optimizer: str = "SGD"
    dtype: str = "float32"
    ragged: bool = False  # the batch does not divide the data
    output: str = "sigmoid"
    loss: str = "mse"
    precision: str | None = None

    @property
    def flops(self) -> int:
        """Of one step: 2 for each weight and row forward, 4 backward; no gradient goes into X."""
        pairs = list(itertools.pairwise(self.sizes))
        return self.batch * (sum(6 * a * b for a, b in pairs) - 2 * pairs[0][0] * pairs[0][1])


# asv shows the name and stores results under it, so it says all
STEPS = {
    "xor 4 x 2-8-1": Network(4, (2, 8, 1)),
    "tiny 32 x 8-16-1": Network(32, (8, 16, 1)),
    "small 32 x 32-64-1": Network(32, (32, 64, 1)),
    "tabular 128 x 64-128-10": Network(128, (64, 128, 10)),
    "tabular 128 x 64-128-10 Adam": Network(128, (64, 128, 10), optimizer="Adam"),
    "tabular 128 x 64-128-10 float64": Network(128, (64, 128, 10), dtype="float64"),
    "tabular 128 x 64-128-10 softmax": Network(
        128, (64, 128, 10), output="softmax", loss="categorical_crossentropy"
    ),
    "deep 64 x 64-128-128-128-10": Network(64, (64, 128, 128, 128, 10)),
    "mnist 32 x 784-128-10": Network(32, (784, 128, 10)),
    "mnist 128 x 784-256-10": Network(128, (784, 256, 10)),
    "mnist 256 x 784-1024-10": Network(256, (784, 1024, 10)),
    "wide 1024 x 1024-2048-128": Network(1024, (1024, 2048, 128)),
    "single rows 1 x 30-30-1 tanh": Network(1, (30, 30, 1), hidden="tanh"),
    "deep 64 x 32-300-300-300-300-5 tanh": Network(64, (32, 300, 300, 300, 300, 5), hidden="tanh"),
    "autoencoder 128 x 784-64-784 Adam": Network(128, (784, 64, 784), optimizer="Adam"),
    "narrow 32 x 10-20-20-20-20-1": Network(32, (10, 20, 20, 20, 20, 1)),
    "middle 100 x 100-200-50 tanh float64": Network(100, (100, 200, 50), hidden="tanh", dtype="float64"),
    "odd 77 x 37-131-67-3 tanh Adam": Network(
        77, (37, 131, 67, 3), hidden="tanh", optimizer="Adam", ragged=True
    ),
}


def epochs_of(
    net: Network, threads: int | None, module: str, most_steps: int
) -> tuple[Callable[[int], None], int]:
    """run(epochs), and the steps of an epoch: so many that the cost of calling fit does not hide them.

    NotImplementedError on a commit that lacks something of the network.
    """
    import importlib

    library = importlib.import_module(module)
    steps = int(np.clip(2**30 // net.flops, 4, most_steps))
    samples = net.batch * steps - net.batch // 3 * net.ragged
    rng = np.random.default_rng(0)
    X = rng.standard_normal((samples, net.sizes[0]), np.float32).astype(net.dtype, copy=False)
    Y = rng.random((samples, net.sizes[-1]), np.float32).astype(net.dtype, copy=False)
    if net.output == "softmax":
        Y = Y.argmax(axis=1)
    options = {"hidden": net.hidden, "output": net.output, "loss": net.loss, "dtype": net.dtype}
    if net.precision is not None:
        options["precision"] = net.precision
    try:
        model = library.MLP(net.sizes, **options, seed=0, threads=threads)
        optimizer = getattr(library, net.optimizer)(lr=1e-4)
    except (AttributeError, TypeError, ValueError) as error:  # a name or an option that came later
        raise NotImplementedError(f"this commit has no {module} for {options}: {error}") from error

    def run(epochs: int) -> None:
        model.fit(
            X, Y, epochs=epochs, batch_size=net.batch, optimizer=optimizer, shuffle=False, progress=False
        )

    return run, steps


def seconds_of_a_step(
    net: Network,
    threads: int | None,
    module: str = "fastbp",
    *,
    leg: float = 0.02,
    legs: int = 5,
    most_steps: int = 512,
) -> float:
    run, steps = epochs_of(net, threads, module, most_steps)
    return seconds_each(run, leg=leg, legs=legs) / steps


# ---- how all of them measure -----------------------------------------------------------------------------


def seconds_each(run: Callable[[int], None], *, leg: float = 0.01, legs: int = 5) -> float:
    """Seconds of one time in run(times): the best of several legs of about `leg` seconds, after a warm-up."""
    run(1)
    if QUICK:
        return _seconds(run, 1)
    times = 1
    while (seconds := min(_seconds(run, times) for _ in range(2))) < leg / 2:
        times = min(16 * times, max(2 * times, int(times * leg / max(seconds, 1e-7))))
    return min(seconds, *(_seconds(run, times) for _ in range(legs))) / times


def _seconds(run: Callable[[int], None], times: int) -> float:
    start = time.perf_counter()
    run(times)
    return time.perf_counter() - start
