"""A step of several ranks, on paper: P ranks with S / P shards each, B rows, n bytes of gradient.

    step(P) = gradients + local sums + sum over ranks + update
    gradients       = B g / P + (S / P) c         g: a row, by multiply-adds; c: an entry for a shard
    local sums      = (S / P - 1) n a             a: seconds a byte to add
    sum over ranks  = log2(P) (l + n b + n a)                                below 64 KB, or of two ranks
                      2 log2(P) l + (P - 1) / P (2 n b + n a)                above, by halves
    update          = n u

l, b: latency and seconds a byte between two ranks. Nothing overlaps. Ranks that are not equally fast wait
for each other: `simulated` goes through the butterfly with times that scatter as measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

HALVES_FROM_BYTES = 1 << 16


@dataclass(frozen=True)
class Machine:
    """What a rank measures of itself; seconds."""

    flops: float  # multiply-adds count twice; a second
    entry: float  # of one shard, whatever its rows
    add: float  # a byte
    update: float  # a byte of gradient
    scatter: float  # standard deviation of a step's gradients, as a share of their time


def parameters(sizes: Sequence[int]) -> int:
    return sum((m + 1) * n for m, n in itertools.pairwise(sizes))


def flops_of_row(sizes: Sequence[int]) -> int:
    products = [m * n for m, n in itertools.pairwise(sizes)]
    return 2 * (3 * sum(products) - products[0])


def sum_over_ranks(ranks: int, size: int, network: tuple[float, float], add: float) -> float:
    """Seconds to add `size` bytes of all ranks."""
    latency, byte = network
    rounds = math.log2(ranks)
    if ranks <= 2 or size < HALVES_FROM_BYTES:
        return rounds * (latency + size * (byte + add))
    return 2 * rounds * latency + (ranks - 1) / ranks * size * (2 * byte + add)


def step(
    machine: Machine, sizes: Sequence[int], batch: int, shards: int, ranks: int, network: tuple[float, float]
) -> float:
    """Seconds of a step, float32."""
    size, own = 4 * parameters(sizes), shards // ranks
    gradients = batch * flops_of_row(sizes) / ranks / machine.flops + own * machine.entry
    local = (own - 1) * size * machine.add
    return gradients + local + sum_over_ranks(ranks, size, network, machine.add) + size * machine.update


def simulated(
    machine: Machine,
    sizes: Sequence[int],
    batch: int,
    ranks: int,
    network: tuple[float, float],
    steps: int = 200,
) -> float:
    """Seconds of a step of so many ranks (a shard each) whose times scatter: each pair waits for its slower
    one."""
    rng, numbers = np.random.default_rng(0), np.arange(ranks)
    size = 4 * parameters(sizes)
    mean = batch * flops_of_row(sizes) / ranks / machine.flops + machine.entry
    ready = np.zeros(ranks)
    rounds = round(math.log2(ranks))
    halves = ranks > 2 and size >= HALVES_FROM_BYTES
    ways = [1 << k for k in range(rounds)]
    parts = [2.0 ** -(k + 1) if halves else 1.0 for k in range(rounds)]
    for _ in range(steps):
        ready = ready + mean * np.exp(rng.normal(0, machine.scatter, ranks))
        for distance, part in zip(ways, parts, strict=True):
            wait = network[0] + part * size * (network[1] + machine.add)
            ready = np.maximum(ready, ready[numbers ^ distance]) + wait
        for distance, part in zip(reversed(ways), reversed(parts), strict=True) if halves else ():
            ready = np.maximum(ready, ready[numbers ^ distance]) + network[0] + part * size * network[1]
        ready = ready + size * machine.update
    return float(ready.max()) / steps


def pays_from(machine: Machine, sizes: Sequence[int], network: tuple[float, float]) -> int:
    """The smallest batch (a power of two) at which two ranks are faster than one, by the model."""
    batch = 2
    while step(machine, sizes, batch, 2, 2, network) >= step(machine, sizes, batch, 1, 1, network):
        batch *= 2
    return batch


def overlap(machine: Machine, sizes: Sequence[int], batch: int, network: tuple[float, float]) -> float:
    """The share of a step of two ranks that overlap could save at most."""
    backward = 2 / 3 * batch * flops_of_row(sizes) / 2 / machine.flops
    added = sum_over_ranks(2, 4 * parameters(sizes), network, machine.add)
    return min(backward, added) / step(machine, sizes, batch, 2, 2, network)
