"""`fastbp bench`: a training step of fastbp and of the NumPy reference, measured side by side."""

from __future__ import annotations

import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastbp
import fastbp.reference
from fastbp._files import text_table


@dataclass(frozen=True)
class Shape:
    samples: int
    batch: int
    sizes: tuple[int, ...]
    optimizer: str = "SGD"
    dtype: str = "float32"

    @property
    def steps(self) -> int:
        return -(-self.samples // self.batch)

    @property
    def flops(self) -> int:
        """Of one step: 2 a weight and row forward, 4 backward; no gradient goes into X."""
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        return self.batch * (sum(6 * a * b for a, b in pairs) - 2 * pairs[0][0] * pairs[0][1])


SHAPES = {
    "xor": Shape(4, 4, (2, 8, 1)),
    "tiny": Shape(1024, 32, (8, 16, 1)),
    "small": Shape(4096, 32, (32, 64, 1)),
    "tabular": Shape(8192, 128, (64, 128, 10)),
    "tabular-adam": Shape(8192, 128, (64, 128, 10), optimizer="Adam"),
    "tabular-f64": Shape(8192, 128, (64, 128, 10), dtype="float64"),
    "deep": Shape(6400, 64, (64, 128, 128, 128, 10)),
    "mnist-b32": Shape(4096, 32, (784, 128, 10)),
    "mnist": Shape(8192, 128, (784, 256, 10)),
    "mnist-big": Shape(8192, 256, (784, 1024, 10)),
    "wide": Shape(8192, 1024, (1024, 2048, 128)),
}


@dataclass(frozen=True)
class Result:
    reference: float  # seconds a step, median over rounds
    fastbp: float
    ratios: list[float]  # reference / fastbp, one a round
    difference: float  # largest between the parameters of both after one epoch, as a share of their change


def interleaved(
    runs: Sequence[Callable[[int], None]], steps_per_epoch: int, *, rounds: int, seconds: float
) -> list[list[float]]:
    """Seconds a step of each run, one a round; the runs take turns, so that a slow moment hits all alike.

    A run is called with a number of epochs. Its first call (compilation, page faults) is not counted, and the
    number of epochs is chosen so that one measurement takes about `seconds`.
    """
    epochs = []
    for run in runs:
        run(1)
        start = time.perf_counter()
        run(1)
        epochs.append(max(1, round(seconds / max(time.perf_counter() - start, 1e-6))))
    measured: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for i, run in enumerate(runs):
            time.sleep(0.002)  # lets the other's pool of threads stop spinning
            start = time.perf_counter()
            run(epochs[i])
            measured[i].append((time.perf_counter() - start) / (epochs[i] * steps_per_epoch))
    return measured


def measure(shape: Shape, *, rounds: int = 5, seconds: float = 0.05) -> Result:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((shape.samples, shape.sizes[0])).astype(shape.dtype)
    Y = rng.random((shape.samples, shape.sizes[-1])).astype(shape.dtype)
    models: list[Any] = []
    runs: list[Callable[[int], None]] = []
    for module in (fastbp.reference, fastbp):
        model = module.MLP(shape.sizes, loss="mse", dtype=shape.dtype, seed=1)
        # A small rate: the time of a step does not depend on it, and no shape diverges.
        optimizer = getattr(module, shape.optimizer)(lr=1e-3)
        models.append(model)
        runs.append(_epochs(model, X, Y, shape.batch, optimizer))
    initial = copy.deepcopy(models[0])
    for run in runs:
        run(1)
    difference = largest_difference(*models) / largest_difference(models[0], initial)
    reference, fast = interleaved(runs, shape.steps, rounds=rounds, seconds=seconds)
    ratios = [a / b for a, b in zip(reference, fast, strict=True)]
    return Result(statistics.median(reference), statistics.median(fast), ratios, difference)


def _epochs(model: Any, X: Any, Y: Any, batch: int, optimizer: Any) -> Callable[[int], None]:
    def run(epochs: int) -> None:
        model.fit(X, Y, epochs=epochs, batch_size=batch, optimizer=optimizer, shuffle=False, progress=False)

    return run


def largest_difference(a: Any, b: Any) -> float:
    """Between the parameters of two models of one architecture."""
    pairs = zip([*a.weights, *a.biases], [*b.weights, *b.biases], strict=True)
    return max(float(np.max(np.abs(p - q))) for p, q in pairs)


def machine() -> str:
    """What a figure depends on, in one line."""
    from importlib.metadata import version

    cpu = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{cpu}, {cores} cores; Python {platform.python_version()}, fastbp {fastbp.__version__}, "
        f"NumPy {np.__version__}, Numba {version('numba')}"
    )


def bench(names: Iterable[str], *, rounds: int, seconds: float) -> None:
    """Measure the shapes called `names` and print the table."""
    print(machine())
    print(
        f"One training step, median of {rounds} interleaved rounds; compile time is excluded by a warm-up.\n"
        "ratio: reference / fastbp, with the lowest and highest round; difference: between the parameters\n"
        "of both after one epoch from the same weights, as a share of how far they moved (largest of each).\n"
    )
    rows = []
    for name in names:
        if sys.stderr.isatty():
            print(f"\r\033[Kmeasuring {name} ...", end="", file=sys.stderr, flush=True)
        shape = SHAPES[name]
        result = measure(shape, rounds=rounds, seconds=seconds)
        rows.append(
            [
                name,
                str(shape.batch),
                "-".join(map(str, shape.sizes)),
                shape.optimizer,
                shape.dtype,
                f"{result.reference * 1e6:,.1f}",
                f"{result.fastbp * 1e6:,.1f}",
                f"{statistics.median(result.ratios):.2f}",
                f"{min(result.ratios):.2f}-{max(result.ratios):.2f}",
                f"{shape.flops / result.fastbp / 1e9:.1f}",
                f"{result.difference:.0e}",
            ]
        )
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    header = "shape,batch,layers,optimizer,dtype,reference us,fastbp us,ratio,low-high,GFLOP/s,difference"
    print(text_table(header.split(","), rows))
