"""One way of training in a process of its own: what `fastbp bench --against` lets take turns.

As a program (`python -m fastbp.cli.bench.peers`), it reads lines of JSON on stdin and answers each on stdout:
first {"variant", "shape"}, prepared and checked against the reference; then the seconds to measure for.
While it waits for a line it sleeps.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any

import numpy as np

from fastbp.cli.bench.problems import Array, Problem, Shape, problem_of
from fastbp.cli.bench.ways import Unsupported, made, make_numpy_reference

# The largest difference from the reference's parameters after one epoch, as a share of how far they moved:
# float32 rounds parameters of size 1 to 6e-8 at every step, and a step moves them by some 1e-5.
# With bfloat16 all round the operands, but not all of them what comes next.
TOLERANCES = {"float32": 2e-3, "float64": 1e-7, "bfloat16": 1e-2}
PREFIX = "@"  # of a line that is an answer: libraries print, too


def difference(result: list[Array], problem: Problem) -> float:
    """Of parameters after one epoch from the reference's: the largest distance over the largest change."""
    judge, expected = make_numpy_reference(problem)
    judge(1)
    pairs = list(zip(result, expected(), problem.parameters, strict=True))
    moved = max(float(np.max(np.abs(right - before))) for _, right, before in pairs)
    return max(float(np.max(np.abs(mine - right))) for mine, right, _ in pairs) / moved


class Worker:
    """A variant, prepared, checked and ready to be measured again and again."""

    def __init__(self, variant: str, shape: Shape) -> None:
        self.shape, tolerance = shape, TOLERANCES[shape.precision or shape.dtype]
        problem = problem_of(shape)
        start = time.perf_counter()
        self.run, parameters = made(variant, problem)
        self.run(1)
        self.first = time.perf_counter() - start  # seconds: compiling, and one epoch
        self.difference = difference(parameters(), problem)
        if not self.difference <= tolerance:
            raise ArithmeticError(
                f"its parameters differ from the reference's by {self.difference:.1e} of their change, "
                f"more than {tolerance:.0e}: not the same training"
            )

    def seconds(self, budget: float) -> float:
        """Seconds of a step: the median over some ten legs of whole epochs that take `budget` together."""
        self.run(1)  # after a sleep memory and caches are cold: that is not the time of an epoch
        # Entering a run may take longer than an epoch: only a leg that is long says how many epochs fill one.
        leg, epochs = budget / 10, 1
        while (spent := self._spent(epochs)) < leg / 2:
            epochs = min(16 * epochs, max(2 * epochs, round(epochs * leg / max(spent, 1e-6))))
        legs: list[float] = []
        end = time.perf_counter() + budget
        while not legs or time.perf_counter() < end:
            legs.append(self._spent(epochs))
        return statistics.median(legs) / (epochs * self.shape.steps)

    def _spent(self, epochs: int) -> float:
        start = time.perf_counter()
        self.run(epochs)
        return time.perf_counter() - start


def serve() -> None:
    order = json.loads(sys.stdin.readline())
    shape = Shape(**{**order["shape"], "sizes": tuple(order["shape"]["sizes"])})
    answer: dict[str, Any]
    try:
        worker = Worker(order["variant"], shape)
        answer = {"difference": worker.difference, "first": worker.first}
    except Unsupported as reason:
        answer = {"unsupported": str(reason)}
    except Exception as error:  # said in the table, and the others go on
        answer = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    _say(answer)
    for line in sys.stdin:
        _say({"seconds": worker.seconds(float(line))})


def _say(answer: dict[str, Any]) -> None:
    print(PREFIX + json.dumps(answer), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    serve()
