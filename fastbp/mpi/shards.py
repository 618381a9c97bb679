"""A step's batch in parts, whose gradients are added along one fixed tree, whoever computes them.

The tree over `count` shards: an even number of them is the sum of its two halves, an odd number is added from
left to right. P processes, a power of two that divides `count`, own count / P neighbouring shards each: the
lower part of the tree lies within a process, the upper part is a butterfly between them. So the sum has the
same bits with 1, 2, 4, ... processes. (a + b and b + a are the same bits, so both sides of a pair may add.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Others(Protocol):
    """The processes that share a training, as far as sums go; `Communicator` is one."""

    rank: int
    size: int

    def add(self, values: Array) -> None:
        """Make `values` the sum over all ranks, along the tree of their numbers, in place."""


class Shards:
    """How each step's batch is cut, and which of the parts are this process's own.

    Parameters
    ----------
    count : parts of a batch. Of R rows, part k has rows R k // count to R (k + 1) // count, perhaps none.
    others : the processes that share them; None: all are this one's.
    rows : how many rows each rank has, where each has brought its own (fit's local=True); None: every rank
        has all of them. With rows of its own a rank takes count / size parts of its own share of the batch.
    threads : at most so many for this process; None: no limit but the model's.
    """

    def __init__(
        self,
        count: int,
        others: Others | None = None,
        rows: Sequence[int] | None = None,
        threads: int | None = None,
    ) -> None:
        self.count, self.others, self.rows, self.threads = count, others, rows, threads
        rank, ranks = (0, 1) if others is None else (others.rank, others.size)
        if count % ranks or ranks & (ranks - 1):
            raise ValueError(f"{count} shards cannot be divided among {ranks} ranks")
        self.own = count // ranks
        self.first = rank * self.own  # of this process's parts
        self._buffers: list[Array] = []

    @property
    def _cuts(self) -> int:
        """Into how many parts the rows at hand are cut."""
        return self.count if self.rows is None else self.own

    def most_rows(self, batch_size: int) -> int:
        """The rows of the largest part of so many."""
        return -(-batch_size // self._cuts)

    def bounds(self, shard: int, begin: int, end: int) -> tuple[int, int]:
        """Where a part of the rows begin to end begins and ends; shard: one of this process's, from 0."""
        rows, cuts = end - begin, self._cuts
        k = shard + (self.first if self.rows is None else 0)
        return begin + rows * k // cuts, begin + rows * (k + 1) // cuts

    def rows_of_steps(self, first: int, last: int, batch_size: int) -> NDArray[np.int64]:
        """(steps,) how many rows these steps have on all ranks together, which bring their own: `batch_size`
        each, as far as an epoch of theirs has them."""
        assert self.rows is not None
        rows = np.array(self.rows)[:, None]  # (ranks, 1)
        steps = np.arange(first, last) % -(-rows // batch_size)
        total: NDArray[np.int64] = np.minimum(batch_size, rows - steps * batch_size).sum(axis=0)
        return total

    def total(self, part: Callable[[int], Array]) -> Array:
        """The sum over all parts, on every process; valid until the next call of this or of `part`.

        part(shard) : the gradient of a part of this process, valid until the next call.
        """
        with np.errstate(all="ignore"):  # fit itself watches for NaN and infinity
            result = self._tree(part, 0, self.own, 0)
            if self.others is not None and self.others.size > 1:
                if self.own == 1:
                    result = self._kept(result, 0)
                self.others.add(result)
        return result

    def total_of_losses(self, losses: NDArray[np.float64]) -> NDArray[np.float64]:
        """(steps, own) losses of this process's parts: (steps,) those of all parts."""
        if not len(losses):
            return np.empty(0)
        total = self._tree(lambda k: losses[:, k], 0, self.own, 0, fresh=True).copy()
        if self.others is not None and self.others.size > 1:
            self.others.add(total)
        return total

    def _tree(
        self, part: Callable[[int], Array], first: int, count: int, depth: int, *, fresh: bool = False
    ) -> Array:
        if count == 1:
            return part(first)
        if count % 2:
            total = self._kept(part(first), depth, fresh=fresh)
            for k in range(first + 1, first + count):
                np.add(total, part(k), out=total)
            return total
        half = count // 2
        total = self._tree(part, first, half, depth, fresh=fresh)
        if half == 1:
            total = self._kept(total, depth, fresh=fresh)
        np.add(total, self._tree(part, first + half, half, depth + 1, fresh=fresh), out=total)
        return total

    def _kept(self, values: Array, depth: int, *, fresh: bool = False) -> Array:
        """A copy in memory that is kept for it."""
        if fresh:
            return values.copy()
        while len(self._buffers) <= depth:
            self._buffers.append(np.empty_like(values))
        buffer = self._buffers[depth]
        np.copyto(buffer, values)
        return buffer
