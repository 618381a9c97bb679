"""Dtypes: what float64 costs, and products in bfloat16. Of float64 half as many numbers fit into a vector, so
twice the time is to be expected; bfloat16 is to take less, where the CPU has the instruction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .common import LookUp, missing, those_that_exist
from .measuring import STEPS

NETWORKS = [
    "tiny 32 x 8-16-1",
    "tabular 128 x 64-128-10",
    "tabular 128 x 64-128-10 Adam",
    "mnist 128 x 784-256-10",
    "deep 64 x 32-300-300-300-300-5 tanh",
]

OF_PRODUCTS = [
    "tabular 128 x 64-128-10",
    "mnist 128 x 784-256-10",
    "mnist 256 x 784-1024-10",
    "wide 1024 x 1024-2048-128",
]


class Float64(LookUp):
    params = [NETWORKS]
    param_names = ["network"]

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing():
            return absent
        from .measuring import seconds_of_a_step

        return {
            name: seconds_of_a_step(replace(STEPS[name], dtype="float64"), 1)
            / seconds_of_a_step(STEPS[name], 1)
            for name in NETWORKS
        }

    def track_cost(self, figures: dict[Any, Any], network: str) -> float:
        return round(figures[network], 3)

    track_cost.pretty_name = "time of a training step in float64 over float32, one thread"
    track_cost.unit = "x"


class Bfloat16(LookUp):
    params = [OF_PRODUCTS]
    param_names = ["network"]

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing():
            return absent
        from .measuring import seconds_of_a_step

        return those_that_exist(
            OF_PRODUCTS,
            lambda name: (
                seconds_of_a_step(replace(STEPS[name], precision="bfloat16"), 1)
                / seconds_of_a_step(STEPS[name], 1)
            ),
        )

    def track_cost(self, figures: dict[Any, Any], network: str) -> float:
        return round(figures[network], 3)

    track_cost.pretty_name = "time of a training step with products in bfloat16 over float32, one thread"
    track_cost.unit = "x"
