"""Random numbers by counter, for what training draws anew in every step: dropout masks, input noise.

A counter-based generator has no state that advances. It encrypts a counter, here "this unit in this row of
this layer's batch in this step", and whoever asks in whatever order gets the same number. So neither threads
nor tiles nor vector widths can change a mask, and a step can be repeated. The engine computes the same
numbers in vector registers (engine/simd/philox.py).

The generator is Philox-4x32 with 10 rounds: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy
as 1, 2, 3, SC 2011, section 4.3. One counter gives four words of 32 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Words = list[NDArray[np.uint64]]  # each below 2^32

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)

# A mask takes 16 of the bits, so p is rounded to a multiple of 2^-16, and kept units are scaled to match.
RESOLUTION = 1 << 16
ROWS_PER_MASK_COUNTER, ROWS_PER_NOISE_COUNTER = 8, 4


def philox(counter: Sequence[Array], key: Sequence[int]) -> Words:
    """The four words of a counter (four arrays of integers below 2^32 that broadcast) under a key of two."""
    c0, c1, c2, c3 = (np.asarray(c, np.uint64) for c in counter)
    m0, m1 = map(np.uint64, MULTIPLIERS)
    for i in range(ROUNDS):
        k0, k1 = (np.uint64((k + i * step) & 0xFFFFFFFF) for k, step in zip(key, KEY_STEPS, strict=True))
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
    return [np.asarray(c) for c in np.broadcast_arrays(c0, c1, c2, c3)]


def counter(step: int, layer: int, groups: int, units: int) -> tuple[Array, Array, Array, Array]:
    """For (groups, units): unit, group of rows, step's low half, step's high half and layer.

    Steps count from 1 over the model's life, up to 2^48. Layer 0 is the input.
    """
    return (
        np.arange(units),
        np.arange(groups)[:, None],
        np.array(step & 0xFFFFFFFF),
        np.array(step >> 32 | layer << 16),
    )


def threshold(p: float) -> int:
    """How many of RESOLUTION values of a mask's bits mean "dropped"; 0 only for p = 0."""
    return min(max(round(p * RESOLUTION), 1), RESOLUTION - 1) if p else 0


def keep(p: float) -> float:
    """The share of units that are kept, 1 - p up to the resolution; exact in float32."""
    return (RESOLUTION - threshold(p)) / RESOLUTION


def kept(key: Sequence[int], step: int, layer: int, rows: int, units: int, p: float) -> NDArray[np.bool_]:
    """Dropout's mask (rows, units): which units are kept, each with probability `keep(p)`.

    The row is in the counter but for its last three bits: these choose 16 of the 128 bits.
    """
    groups = -(-rows // ROWS_PER_MASK_COUNTER)
    words = philox(counter(step, layer, groups, units), key)
    parts = np.stack(
        [part for word in words for part in (word & np.uint64(0xFFFF), word >> np.uint64(16))], axis=1
    )
    return parts.reshape(-1, units)[:rows] >= threshold(p)


def standard_normal(key: Sequence[int], step: int, rows: int, columns: int) -> NDArray[np.float64]:
    """Independent normal numbers (rows, columns) with mean 0 and variance 1; none is larger than 6.8.

        r = sqrt(-2 log u);  r cos(2 pi v) and r sin(2 pi v)

    for uniform u = (word + 1/2) / 2^32 and v = word / 2^32. Box and Muller, Annals of Mathematical Statistics
    29 (1958) 610. A counter's words are u and v of rows 4 g and 4 g + 1, then u and v of the next two rows.
    """
    groups = -(-rows // ROWS_PER_NOISE_COUNTER)
    words = philox(counter(step, 0, groups, columns), key)
    normals = []
    for u, v in (words[:2], words[2:]):
        r, angle = np.sqrt(-2 * np.log((u + 0.5) / 2**32)), v * (2 * np.pi / 2**32)
        normals += [r * np.cos(angle), r * np.sin(angle)]
    return np.stack(normals, axis=1).reshape(-1, columns)[:rows]
