"""Predictions of any number of rows, by one plan."""

from __future__ import annotations

import time
from typing import Any

from numpy.typing import NDArray

from fastbp.engine import structs
from fastbp.engine.plan import TEAM_FROM_MULTIPLY_ADDS, Plan
from fastbp.engine.threads import team


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
