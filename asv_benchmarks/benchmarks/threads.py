"""Threads: how many times as fast as alone two of them are, and what the engine chooses by itself is."""

from __future__ import annotations

from typing import Any

from .common import LookUp, missing
from .measuring import STEPS

NETWORKS = [
    "small 32 x 32-64-1",
    "tabular 128 x 64-128-10",
    "deep 64 x 64-128-128-128-10",
    "mnist 32 x 784-128-10",
    "mnist 256 x 784-1024-10",
]


class Speedup(LookUp):
    params = [NETWORKS, ["two", "by default"]]
    param_names = ["network", "threads"]

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing():
            return absent
        from .measuring import seconds_of_a_step

        figures: dict[Any, Any] = {}
        for name in NETWORKS:
            alone = seconds_of_a_step(STEPS[name], 1)
            figures[name, "two"] = alone / seconds_of_a_step(STEPS[name], 2)
            figures[name, "by default"] = alone / seconds_of_a_step(STEPS[name], None)
        return figures

    def track_ratio_to_one_thread(self, figures: dict[Any, Any], network: str, threads: str) -> float:
        return round(figures[network, threads], 3)

    track_ratio_to_one_thread.pretty_name = (
        "speed of a training step over that of one thread (more is better)"
    )
    track_ratio_to_one_thread.unit = "x"
