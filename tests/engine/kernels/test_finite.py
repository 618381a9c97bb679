"""Whether numbers are finite, or within limits: at every length, wherever the one stands that is not."""

import numpy as np
import pytest

from fastbp.engine.kernels.finite import is_finite, is_within


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_is_looked_at(dtype):
    for size in (1, 2, 7, 16, 33, 70, 300, 601, 1100):
        numbers = np.full(size + 1, 9, dtype)[:size]  # behind it stands another one, beyond the limits
        numbers[:] = np.linspace(1, 2, size)
        assert is_finite(numbers)
        assert is_within(numbers, 1, 2)
        assert is_within(numbers, -np.inf, 2)
        for i in range(size):
            for value, finite, within in ((np.nan, False, True), (np.inf, False, False), (0.5, True, False)):
                changed = numbers.copy()
                changed[i] = value
                assert is_finite(changed) == finite
                assert is_within(changed, 1, 2) == within
