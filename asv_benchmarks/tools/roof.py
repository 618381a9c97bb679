"""The time that a training step cannot beat on a machine: a roofline model of the engine, on paper.

    roof = max(multiply-adds, L1, L2, L3, memory) + barriers              of T cores that work alike
    multiply-adds = 2 B (3 sum n[l-1] n[l] - n[0] n[1]) / limit           layers l = 1 .. L, B rows
    L1       = bytes that elementwise work, sums and copies touch / bandwidth of L1
    L2       = bytes that a core wants and L1 does not hold / bandwidth of L2;  L3 and memory likewise
    barriers = 2 L b, the most there are                                  b: for T cores to meet once

`limit` is what the microkernel reaches on operands in L1, so its own loads are in it. Bandwidths are
those of reading, or of reading and writing back where a phase changes an array in place. Where a single core
is faster than a team, the roof is the single core's, since the engine works alone then.

What a core wants, with s bytes a number and N = n[l] / T columns of layer l its own (engine/README.md):

    forward   a[l-1] (B n[l-1] s), for each two panels of columns again; its panels of W[l], for each tile of
              rows again; its columns of a[l], written. Rows are cut into blocks of 768 KB of a[l-1], and
              each of them meets all of W[l].
    backward  the same with d[l], the transposed copy of W[l], and d[l-1]: for l = L .. 2
    update    its panels of W[l], changed in place, for each 512 rows of the batch again; its columns of d[l],
              for each tile of rows of W[l] again; a[l-1], for each sweep over them again; its part of the
              transposed copy, written

How much of that a cache does not hold: of what is wanted again after x other bytes, max(0, 1 - C / x) with C
the bytes of the cache, as if it kept a fixed part of them. For the first touch in a phase, x is all that the
core touches in a step; for X, all of the data. What another core has just written comes from the first level
that both see.

Assumed: multiply-adds hide every wait for memory; all lanes are useful; calls, TLB misses and lines that
change owners cost nothing. A share of the roof says what they do cost. The model is not a theorem: a cache
may do better than to keep a fixed part, and a share above 100% would mean just that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastbp.engine.probes import blocking

MULTIPLY_ADDS, BARRIERS = "multiply-adds", "barriers"
CUT = blocking()  # of the engine on this machine
FEW = ((3, 8), (7, 4))  # up to so many rows a tile takes so many panels at once (AVX-512); else two


@dataclass(frozen=True)
class Machine:
    """What a core has for itself while `threads` of them work."""

    threads: int
    lanes: int  # numbers in a vector register
    height: int  # rows of the tallest tile of two vectors
    flops: float  # a second
    capacity: tuple[float, ...]  # bytes of each level of cache
    private: int  # so many of the levels belong to one core
    read: tuple[float, ...]  # bytes/s from each level, memory last
    update: tuple[float, ...]
    barrier: float  # seconds

    @property
    def levels(self) -> list[str]:
        return [*(f"L{i + 1}" for i in range(len(self.capacity))), "memory"]


@dataclass(frozen=True)
class Stream:
    """Bytes that a core touches after it has touched `distance` others since it last had them."""

    bytes: float
    distance: float
    writes: bool = False
    crossing: float = 0.0  # the share that another core has written


def missed(distance: float, cache: float) -> float:
    """The share of what is wanted again after `distance` bytes that a cache of that size does not hold."""
    return max(0.0, 1 - cache / distance) if distance else 0.0


def product(rows: float, depth: float, columns: float, itemsize: int, machine: Machine) -> Iterator[Stream]:
    """What A (rows x depth) @ B (depth x columns) wants again within its phase."""
    a, b, c = rows * depth * itemsize, depth * columns * itemsize, rows * columns * itemsize
    blocks = 1 + a // CUT.block
    width = next((width for most, width in FEW if rows / blocks <= most), 2) * machine.lanes
    tall = rows if rows / blocks <= FEW[-1][0] else machine.height
    sweeps, tiles = max(1, columns / width), max(1, rows / blocks / tall)
    panels = b / sweeps
    yield Stream(a * (sweeps - 1), (a + c) / blocks + panels)
    yield Stream(b * blocks * (tiles - 1), panels + tall * depth * itemsize)
    yield Stream(b * (blocks - 1), (a + c) / blocks + b)


def weight_gradient(
    rows: float, fan_in: float, columns: float, itemsize: int, machine: Machine
) -> Iterator[Stream]:
    """What W (fan_in x columns) += A.T (fan_in x rows) @ D (rows x columns) wants again within its phase."""
    a, d, w = rows * fan_in * itemsize, rows * columns * itemsize, fan_in * columns * itemsize
    pairs, tiles = max(1, columns / (2 * machine.lanes)), max(1, fan_in / machine.height)
    packed, pair = a / tiles, d / pairs
    if columns < CUT.packed_panels * machine.lanes or rows < CUT.packed_rows:
        yield Stream(a * (pairs - 1), a + pair + w / pairs)
        yield Stream(d * (tiles - 1), pair + packed)
        return
    pieces = 1 + (rows - 1) // CUT.depth
    sweeps = max(1, d / pieces / CUT.block)
    yield Stream(a * (sweeps - 1), (a + d / sweeps) / pieces + w / sweeps)
    yield Stream(a * (pairs - 1), (packed + pair) / pieces + w / pairs / tiles)
    yield Stream(d * (tiles - 1), (d / sweeps + packed) / pieces)
    yield Stream(w * (pieces - 1), w + (a + d) / pieces, writes=True)


def mirrored(sizes: Sequence[int]) -> list[bool]:
    """Which layers have a transposed copy of their weights: not the first, nor a last one of few outputs."""
    last = len(sizes) - 2
    return [i > 0 and not (i == last and sizes[-1] <= CUT.narrow_outputs) for i in range(last + 1)]


def streams(
    sizes: Sequence[int], batch: int, itemsize: int, samples: int, machine: Machine
) -> Iterator[Stream]:
    """All that a core wants in a step of plain SGD from beyond L1. samples: rows of all the data."""
    layers, threads, copied = list(itertools.pairwise(sizes)), machine.threads, mirrored(sizes)
    weights = [m * n * itemsize / threads for m, n in layers]  # a core's own
    values = [batch * n * itemsize for n in sizes]  # of all cores
    copies = sum(w for w, has in zip(weights, copied, strict=True) if has)
    step = sum(weights) + copies + sum(values) + sum(values[1:]) + values[-1]  # X, a, d and Y
    others = (threads - 1) / threads
    for i, (m, n) in enumerate(layers):
        data = samples * m * itemsize
        yield Stream(values[i], max(step, data) if i == 0 else step, crossing=others if i else 0.0)
        yield Stream(weights[i], step)
        yield Stream(values[i + 1] / threads, step, writes=True)
        yield from product(batch, m, n / threads, itemsize, machine)
        if i:
            yield Stream(values[i + 1], step, crossing=others)
            yield Stream(weights[i], step)  # the transposed copy
            yield Stream(values[i] / threads, step, writes=True)
            yield from product(batch, n, m / threads, itemsize, machine)
        yield Stream(values[i], step)
        yield Stream(values[i + 1] / threads, step)
        yield Stream(weights[i], step, writes=True)
        yield from weight_gradient(batch, m, n / threads, itemsize, machine)
        if copied[i]:
            yield Stream(weights[i], step, writes=True)  # the transposed copy, renewed


def elementwise(sizes: Sequence[int], batch: int, itemsize: int, machine: Machine) -> tuple[float, float]:
    """Bytes that a core reads, and that it changes, in L1, besides the microkernel's."""
    values = [batch * n * itemsize / machine.threads for n in sizes]
    hidden, outputs = values[1:-1], values[-1]
    pairs = zip(itertools.pairwise(sizes), mirrored(sizes), strict=True)
    mirrors = sum(m * n * itemsize / machine.threads for (m, n), copied in pairs if copied)
    # read: a for the derivative, y and the losses, deltas for the biases; W for its transposed copy
    read = sum(hidden) + 2 * outputs + sum(values[1:]) + mirrors
    # changed: z becomes a, d takes the derivative; z and d of the last layer; the copy
    return read, 2 * sum(hidden) + 2 * outputs + mirrors


def bounds(
    sizes: Sequence[int], batch: int, itemsize: int, samples: int, machine: Machine
) -> dict[str, float]:
    """Seconds of a step: multiply-adds, each level, and barriers."""
    pairs = [m * n for m, n in itertools.pairwise(sizes)]
    found = {MULTIPLY_ADDS: 2 * batch * (3 * sum(pairs) - pairs[0]) / machine.threads / machine.flops}
    read, changed = elementwise(sizes, batch, itemsize, machine)
    found["L1"] = read / machine.read[0] + changed / machine.update[0]
    wanted = list(streams(sizes, batch, itemsize, samples, machine))
    for i, capacity in enumerate(machine.capacity):
        seconds = 0.0
        for stream in wanted:
            share = missed(stream.distance, capacity)
            if i < machine.private:
                share = max(share, stream.crossing)
            speed = (machine.update if stream.writes else machine.read)[i + 1]
            seconds += stream.bytes * share / speed
        found[machine.levels[i + 1]] = seconds
    found[BARRIERS] = 2 * len(pairs) * machine.barrier
    return found


@dataclass(frozen=True)
class Roof:
    threads: int  # how many are fastest
    parts: dict[str, float]  # what `bounds` found for them

    @property
    def seconds(self) -> float:
        return max(self._besides_barriers().values()) + self.parts[BARRIERS]

    @property
    def bound(self) -> str:
        """The part that the roof is made of; barriers only where they are longer than all else."""
        return max(self.parts, key=self.parts.__getitem__)

    def _besides_barriers(self) -> dict[str, float]:
        return {name: seconds for name, seconds in self.parts.items() if name != BARRIERS}


def roof(sizes: Sequence[int], batch: int, itemsize: int, samples: int, machines: Sequence[Machine]) -> Roof:
    """The roof of the fastest of several teams: `machines` has one for each number of threads."""
    found = [Roof(m.threads, bounds(sizes, batch, itemsize, samples, m)) for m in machines]
    return min(found, key=lambda r: r.seconds)
