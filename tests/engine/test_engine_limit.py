"""fastbp.engine.probes: the speed that other figures are shares of."""

from __future__ import annotations

import pytest

from fastbp.engine.probes import multiply_add_limit, tile_speed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tallest_tile_is_much_faster_than_the_lowest(dtype: str) -> None:
    # A single accumulator waits for itself, and the tile's beginning and end are most of its work.
    assert 0 < 4 * tile_speed(1, 1, 4, dtype, legs=3) < multiply_add_limit(dtype)


def test_more_threads_than_there_are_count_as_those_there_are() -> None:
    assert multiply_add_limit(threads=1000) < 100 * multiply_add_limit()
