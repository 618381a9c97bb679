"""How a training step grows with the batch, the width and the depth of a network: seconds, float32, SGD."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from .common import THREADS, LookUp, missing
from .measuring import Network

NETWORKS: dict[str, Callable[[int], Network]] = {
    "batch": lambda n: Network(n, (64, 128, 10)),
    "width": lambda n: Network(64, (64, n, n, 10)),
    "depth": lambda n: Network(64, (64, *[128] * n, 10)),
}
VALUES = {
    "batch": [1, 4, 16, 64, 256, 1024, 4096],
    "width": [8, 32, 128, 512, 1024, 4096],
    "depth": [1, 2, 4, 8, 16],
}


def measure(what: str) -> dict[Any, Any]:
    if absent := missing():
        return absent
    from .measuring import seconds_of_a_step

    return {
        (n, threads): seconds_of_a_step(NETWORKS[what](n), threads, legs=3)
        for n, threads in itertools.product(VALUES[what], THREADS)
    }


# asv runs one setup_cache for all classes that inherit it, so each has its own.


class Batch(LookUp):
    params = [VALUES["batch"], THREADS]
    param_names = ["batch", "threads"]

    def setup_cache(self) -> dict[Any, Any]:
        return measure("batch")

    def track_seconds(self, figures: dict[Any, Any], batch: int, threads: int) -> float:
        return figures[batch, threads]

    track_seconds.pretty_name = "a training step by batch size, n x 64-128-10"
    track_seconds.unit = "seconds"


class Width(LookUp):
    params = [VALUES["width"], THREADS]
    param_names = ["width", "threads"]

    def setup_cache(self) -> dict[Any, Any]:
        return measure("width")

    def track_seconds(self, figures: dict[Any, Any], width: int, threads: int) -> float:
        return figures[width, threads]

    track_seconds.pretty_name = "a training step by width, 64 x 64-n-n-10"
    track_seconds.unit = "seconds"


class Depth(LookUp):
    params = [VALUES["depth"], THREADS]
    param_names = ["hidden layers", "threads"]

    def setup_cache(self) -> dict[Any, Any]:
        return measure("depth")

    def track_seconds(self, figures: dict[Any, Any], depth: int, threads: int) -> float:
        return figures[depth, threads]

    track_seconds.pretty_name = "a training step by depth, 64 x 64-(128 n times)-10"
    track_seconds.unit = "seconds"
