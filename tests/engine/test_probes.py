"""fastbp.engine.probes: what benchmarks may call does what it says."""

from __future__ import annotations

import numpy as np
import pytest

from fastbp.engine import probes
from fastbp.engine.probes import multiply_add_limit, tile_speed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_tallest_tile_is_much_faster_than_the_lowest(dtype: str) -> None:
    # A single accumulator waits for itself, and the tile's beginning and end are most of its work.
    assert 0 < 4 * tile_speed(1, 1, 4, dtype, legs=3) < multiply_add_limit(dtype)


def test_more_threads_than_there_are_count_as_those_there_are() -> None:
    assert multiply_add_limit(threads=1000) < 100 * multiply_add_limit()


@pytest.mark.parametrize("changes", [False, True])
def test_every_number_is_walked_through(changes: bool) -> None:
    memory, sums = np.ones(2048, np.float32), np.zeros(16, np.float32)
    probes.walk(memory[:1024], sums, 1, changes=changes)(3)
    assert sums.sum() == (0 if changes else 1024)  # of each pass
    changed = -1 if changes else 1  # and changed back, and once more
    assert set(memory[:1024]) == {changed} and set(memory[1024:]) == {1}


def test_memory_that_is_no_whole_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="memory has 1028 bytes and sums 64"):
        probes.walk(np.ones(257, np.float32), np.zeros(16, np.float32), 1, changes=False)


def test_teams_walk_and_meet() -> None:
    probes.meetings(1)(100)
    if probes.available_threads(2) < 2:
        pytest.skip("needs two cores")
    probes.meetings(2)(100)
    memory, sums = np.ones(2048, np.float32), np.zeros(32, np.float32)
    probes.walk(memory, sums, 2, changes=False)(1)
    assert sums.sum() == 2048


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("phase", probes.PHASES)
def test_one_phase_of_one_layer_runs(phase: str, dtype: str) -> None:
    for threads in (1, 2):
        probes.one_phase(phase, 33, 37, 35, dtype, threads)(2)


def test_a_phase_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'sideways'"):
        probes.one_phase("sideways", 4, 4, 4)


def test_products_in_bfloat16_have_a_limit_and_phases():
    assert 0 < multiply_add_limit(precision="bfloat16") < 100 * multiply_add_limit()
    for phase in probes.PHASES:
        probes.one_phase(phase, 33, 37, 35, precision="bfloat16")(2)


def test_blocking_names_what_this_machine_has() -> None:
    cut = probes.blocking()
    assert cut.vector in (16, 32, 64) and cut.tile_rows[2] >= cut.tile_rows[4] >= 1
    assert cut.block > cut.vector and cut.depth > 0
