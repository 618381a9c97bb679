"""How much of the past Adam's moments hold after so many steps, and NAdam's momentum."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
# Steps whose corrections of Adam's moments are computed at once.
CORRECTIONS = 256


def bias_corrections(beta1: float, beta2: float, first_step: int, last_step: int) -> tuple[Column, Column]:
    """1 - beta1^t and 1 / sqrt(1 - beta2^t) of steps first_step <= s < last_step, t = s + 1."""
    block, start = divmod(first_step, CORRECTIONS)
    stop = start + last_step - first_step
    if stop > CORRECTIONS:
        return _corrections_of(beta1, beta2, np.arange(first_step + 1, last_step + 1))
    grown, unbias = _corrections_of_block(beta1, beta2, block)
    return grown[start:stop], unbias[start:stop]


def _corrections_of(beta1: float, beta2: float, t: Any) -> tuple[Column, Column]:
    return 1 - beta1**t, 1 / np.sqrt(1 - beta2**t)


@lru_cache(maxsize=8)
def _corrections_of_block(beta1: float, beta2: float, block: int) -> tuple[Column, Column]:
    """Of so many steps at once: for a call of one or few steps each of them would take as long."""
    first = block * CORRECTIONS
    corrections = _corrections_of(beta1, beta2, np.arange(first + 1, first + CORRECTIONS + 1))
    for column in corrections:  # which calls to come shall find as it is
        column.setflags(write=False)
    return corrections


def nadam_momentum(beta1: float, decay: float, t: NDArray[np.int64]) -> NDArray[np.float64]:
    mu: NDArray[np.float64] = beta1 * (1 - 0.5 * np.power(0.96, t * decay))
    return mu


@lru_cache(maxsize=8)
def nadam_products(beta1: float, decay: float, bits: int) -> NDArray[np.float64]:
    """M(1), M(2), ..., M(2^bits): a call for each step would otherwise multiply up all those before."""
    steps = np.arange(1, (1 << bits) + 1)
    return np.cumprod(nadam_momentum(beta1, decay, steps), dtype=np.float64)
