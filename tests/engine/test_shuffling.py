"""The orders of epochs are NumPy's."""

import numpy as np
import pytest

from fastbp.engine.entries import shuffling


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937])
@pytest.mark.parametrize(("rows", "count"), [(0, 2), (1, 3), (2, 7), (3, 5), (64, 3), (1000, 4), (70_000, 1)])
@pytest.mark.parametrize("most", [shuffling.MOST_ROWS, 50])
def test_numbers_and_draws_are_numpys(kind, rows, count, most, monkeypatch):
    """Also behind an odd number of draws of 32 bits, and where NumPy does it."""
    monkeypatch.setattr(shuffling, "MOST_ROWS", most)
    ours, numpys = (np.random.Generator(kind(5)) for _ in range(2))
    expected = np.tile(np.arange(rows), (count, 1))
    for _ in range(2):
        order = shuffling.permutations(ours, shuffling.bit_generator_at(ours), rows, count)
        assert order.dtype == np.int64
        assert order.tolist() == numpys.permuted(expected, axis=1).ravel().tolist()
        assert ours.bit_generator.random_raw() == numpys.bit_generator.random_raw()


def test_rows_of_ones_own():
    """Permuting some rows is taking them in a permuted order."""
    rows = np.array([7, 7, 3, 90, 2])
    ours, numpys = np.random.default_rng(1), np.random.default_rng(1)
    order = np.empty((3, 5), np.int64)
    at = shuffling.bit_generator_at(ours)
    shuffling.shuffle_call()(at, rows.ctypes.data, len(rows), order.ctypes.data, len(order))
    assert order.tolist() == [rows[numpys.permutation(5)].tolist() for _ in range(3)]


def test_positions_of_generators_are_where_they_are_read():
    """With another layout networks would be trained one by one, which takes several times as long."""
    assert shuffling.knows_positions()


@pytest.mark.parametrize("kind", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("rows", [1, 2, 64, 65, 1198])
@pytest.mark.parametrize("drawn", [0, 1, 227, 623, 624, 625])
def test_what_numpys_older_generator_shuffles_again_and_again(kind, rows, drawn):
    """From anywhere in its block of 624 words, over several of them."""
    ours, theirs = (np.random.RandomState(kind(5)) for _ in range(2))
    for random in (ours, theirs):
        random.randint(0, 1 << 32, drawn, dtype=np.uint32)
    first = np.arange(rows)[::-1].copy()
    orders, expected = shuffling.shuffled(ours, first, 3), first
    for order in orders:
        permutation = np.arange(rows)
        theirs.shuffle(permutation)
        expected = expected[permutation]
        assert order.tolist() == expected.tolist()
    assert first.tolist() == list(range(rows))[::-1]
    # as many draws, and so all draws to come
    assert repr(ours.get_state(legacy=False)) == repr(theirs.get_state(legacy=False))
    assert ours.randint(1 << 30, size=2000).tolist() == theirs.randint(1 << 30, size=2000).tolist()


def test_rows_that_need_numbers_of_64_bits_are_shuffled_by_numpy(monkeypatch):
    orders = shuffling.shuffled(np.random.RandomState(5), np.arange(70), 3)
    monkeypatch.setattr(shuffling, "MOST_ROWS", 64)
    monkeypatch.setattr(shuffling, "shuffle_call", None)
    assert orders.tolist() == shuffling.shuffled(np.random.RandomState(5), np.arange(70), 3).tolist()
