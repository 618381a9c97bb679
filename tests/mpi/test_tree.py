"""The tree along which shards are added, and how rows are cut into them."""

import numpy as np
import pytest

from fastbp.mpi.shards import Shards

rng = np.random.default_rng(0)


class Of:
    """A rank that adds nothing: what the tree within a process is made of."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size

    def add(self, values):
        pass


@pytest.mark.parametrize("count", [1, 2, 3, 8, 12, 24])
def test_the_tree_of_one_process_is_that_of_several(count):
    """(1 / 3 as float32 and the like: another order of the sums gives other bits.)"""
    values = rng.standard_normal((count, 1000)).astype(np.float32)
    whole = Shards(count).total(lambda k: values[k]).copy()
    for ranks in (1, 2, 4, 8):
        if count % ranks:
            with pytest.raises(ValueError, match="cannot be divided"):
                Shards(count, Of(0, ranks))
            continue
        of_ranks = [Shards(count, Of(rank, ranks)) for rank in range(ranks)]
        sums = [of.total(lambda k, of=of: values[of.first + k]).copy() for of in of_ranks]
        while len(sums) > 1:  # neighbours in pairs, as in a butterfly
            sums = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
        assert sums[0].tobytes() == whole.tobytes()
    assert count < 8 or whole.tobytes() != np.add.reduce(values[::-1]).tobytes()


def test_every_row_is_in_one_shard():
    for rows in (0, 1, 7, 8, 30):
        cuts = [Shards(8).bounds(k, 5, 5 + rows) for k in range(8)]
        assert [row for first, last in cuts for row in range(first, last)] == list(range(5, 5 + rows))
        assert max(last - first for first, last in cuts) <= Shards(8).most_rows(rows)
