"""Measuring in turns, comparing models, and what a figure depends on: the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import fastbp


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


# Idle threads of OpenMP and OpenBLAS pools spin for that long, on the cores that the next one needs.
PAUSE = 0.15


def in_turn(ways: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each way, one a round; a first call of each is not counted."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, measured in zip(ways, seconds, strict=True):
            time.sleep(PAUSE)
            began = time.perf_counter()
            way()
            if number:
                measured.append(time.perf_counter() - began)
    return seconds


def largest_difference(a: Any, b: Any) -> float:
    """Between the parameters of two models of one architecture."""
    pairs = zip([*a.weights, *a.biases], [*b.weights, *b.biases], strict=True)
    return max(float(np.max(np.abs(p - q))) for p, q in pairs)


def cpu() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """So many that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """What a figure depends on, in one line."""
    return (
        f"{cpu()}, {cores()} cores; Python {platform.python_version()}, fastbp {fastbp.__version__}, "
        f"NumPy {np.__version__}, Numba {version('numba')}"
    )
