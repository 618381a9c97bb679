"""Predictions: of a few rows, or by a small network, and of any number of rows by one plan."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import structs
from fastbp.engine.entries.few_rows import FewRows
from fastbp.engine.memory import FEW_ROWS
from fastbp.engine.plan import TEAM_FROM_MULTIPLY_ADDS, Plan
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads import team
from fastbp.engine.worker.operands import BAD_STRIDE
from fastbp.network.architecture import Architecture
from fastbp.network.parameters import Parameters

# From so many parameters on, even a few rows are worth a team.
FEW_ROWS_PARAMETERS = 4_000_000
# Up to so many multiply-adds, and rows, they are not, nor is it worth while to pack parameters: 16 rows of
# 784-128-10 took 84 us so, and take 25; 512 rows of 30-64-32-1 73 and 38.
SMALL_MULTIPLY_ADDS, SMALL_ROWS = 20_000_000, 1024


class InPlace:
    """Predictions that read a model's parameters where they are. One call at a time."""

    def __init__(self, architecture: Architecture, parameters: Parameters) -> None:
        self._architecture, self._parameters = architecture, parameters
        self._few: FewRows | None = None  # as few as the microkernel is made for
        self._small: FewRows | None = None
        # In bfloat16 weights that meet more rows are worth being packed. And rows of X that displace each
        # other from the cache are worth a copy, unless they are there again in time.
        crowded = isa().two_passes and architecture.inputs * architecture.dtype.itemsize % BAD_STRIDE == 0
        pays = architecture.precision is None and not crowded
        self._most = min(SMALL_ROWS, SMALL_MULTIPLY_ADDS // len(parameters)) if pays else 0

    def predict(self, X: Any, check_finite: bool, *, few_only: bool) -> NDArray[Any] | None:
        """The outputs for X, if that is an array as kernels take it, which does not hold too many rows (or
        more than a few), and finite if that is asked for; else None."""
        if type(X) is not np.ndarray or type(check_finite) is not bool or X.ndim != 2:
            return None
        if len(X) <= FEW_ROWS:
            rows = self._few = self._few or self._for_rows(FEW_ROWS)
        elif len(X) <= self._most and not few_only:
            rows = self._small = self._small or self._for_rows(self._most)
        else:
            return None
        try:
            return rows.enter(check_finite, X)
        except TypeError:
            return None

    def _for_rows(self, most: int) -> FewRows:
        architecture, parameters = self._architecture, self._parameters
        return FewRows(
            architecture.layer_sizes,
            architecture.activation_names,
            architecture.loss.name,
            parameters.flat,
            parameters.held,
            architecture.layer_norm,
            architecture.precision,
            most,
        )


def predict(plan: Plan, X: Any, out: NDArray[Any], threads: int | None, most_rows: int) -> None:
    """The outputs (rows, outputs) of X (rows, inputs), which is sliced, with the parameters bound.

    An entry takes at most so many rows, a trial of threads (see `choice`) only some batches: it would take as
    long as everything that the choice is for.
    """
    most = team.available(threads) if plan.multiply_adds >= TEAM_FROM_MULTIPLY_ADDS else 1
    batch, start, pack = plan.design.batch, 0, structs.PACK
    while start < len(X):
        left = -(-min(most_rows, len(X) - start) // batch)
        began = time.perf_counter()
        n, batches = plan.way(most, left, began)
        rows = slice(start, start + batches * batch)
        plan.bind_data(X[rows], None)
        plan.bind_output(out[rows])
        plan.run_as(structs.FORWARD + pack, n, batches)
        now = time.perf_counter()
        plan.choice.note(n, batches, now - began, now)
        start, pack = rows.stop, 0
