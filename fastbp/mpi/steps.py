"""Steps on the engine whose gradients are sums over shards of the batch (see shards.py)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.plan import Plan
from fastbp.mpi.shards import Shards
from fastbp.optimizer_base import Optimizer

Array = NDArray[Any]


def kept_apart(optimizer: Optimizer) -> Optimizer:
    """The optimizer with a limit of the gradient's norm, infinite if it has none.

    The engine then keeps gradients apart from parameters, and does the update when it is told to.
    """
    if optimizer.clip_norm is not None:
        return optimizer
    rule = optimizer.snapshot()
    vars(rule)["clip_norm"] = math.inf  # which nobody may set
    return rule


def fewest(*limits: int | None) -> int | None:
    """The smallest limit; None: there is none."""
    return min((limit for limit in limits if limit is not None), default=None)


class ShardedSteps:
    """Some steps on a plan that holds its updates, with the caller's data bound in this order.

    Random numbers of dropout and noise go by the shard: each counts as a step of its own in the model's life,
    of which `trained` are over, an empty one as well.
    """

    def __init__(
        self,
        plan: Plan,
        shards: Shards,
        order: NDArray[np.int64],
        samples: int,
        batch_size: int,
        trained: int,
        stop: NDArray[np.int64],
    ) -> None:
        self._plan, self._shards, self._stop = plan, shards, stop
        self._order, self._samples, self._batch_size = order, samples, batch_size
        self._trained = trained
        self._gradient = plan.gradient
        self._nothing = np.zeros_like(self._gradient)

    def train(self, first: int, settings: Array, threads: int | None) -> NDArray[np.float64]:
        """Steps from `first` on, a row of settings for each; (steps,) losses of whole batches."""
        self._first, self._settings, self._threads = first, settings, threads
        self._losses = np.zeros((len(settings), self._shards.own))
        for i in range(len(settings)):
            self._i = i
            total = self._shards.total(self._gradient_of)
            if total is not self._gradient:
                np.copyto(self._gradient, total)
            self._plan.update(settings[i])
        return self._shards.total_of_losses(self._losses)

    def _gradient_of(self, k: int) -> Array:
        """Of one of this process's shards, in step i of these; KeyboardInterrupt if somebody wants to
        stop."""
        i, shards, plan, samples, batch_size = (
            self._i,
            self._shards,
            self._plan,
            self._samples,
            self._batch_size,
        )
        epoch, step = divmod(self._first + i, -(-samples // batch_size))
        begin, end = step * batch_size, min((step + 1) * batch_size, samples)
        first, last = shards.bounds(k, begin, end)
        if self._stop[0]:
            raise KeyboardInterrupt
        if first == last:
            return self._nothing
        if len(self._order) > samples:  # a permutation for each epoch
            first, last = first + epoch * samples, last + epoch * samples
        plan.take_rows(self._order.ctypes.data + first * self._order.itemsize, last - first)
        plan.table.steps_before = self._trained + i * shards.count + shards.first + k
        row, loss = self._settings[i : i + 1], self._losses[i, k : k + 1]
        plan.train(0, 1, row, loss, pack=False, threads=self._threads, stop=self._stop)
        return self._gradient
