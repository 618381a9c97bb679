"""bfloat16: the upper half of a float32's bits, so its range with 8 bits of precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def rounded(x: NDArray[Any]) -> NDArray[np.float32]:
    """The bfloat16 number nearest to each float32, of two equally near ones that with an even last bit, as
    float32.

    What is at least 2**128 - 2**119 in magnitude becomes infinite; a NaN stays one; subnormal numbers are
    rounded as all others. IEEE 754 (2019), section 4.3.1, with p = 8.
    """
    x = np.asarray(x, np.float32)
    bits = x.view(np.uint32)
    last = bits >> np.uint32(16) & np.uint32(1)
    nearest = bits + (np.uint32(0x7FFF) + last) & np.uint32(0xFFFF0000)
    quiet = (bits | np.uint32(0x400000)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), quiet, nearest).view(np.float32)
