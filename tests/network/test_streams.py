"""The random streams of a model are those that NumPy's SeedSequence spawns of its seed."""

import copy
import pickle

import numpy as np
import pytest

from fastbp.network.streams import Streams


@pytest.mark.parametrize("seed", [0, 2**70])
def test_streams_are_what_numpy_spawns(seed):
    """Whichever is asked for first, and again after a restart."""
    weights, shuffling, splitting, noise = np.random.SeedSequence(seed).spawn(4)
    streams = Streams(seed)
    for _ in range(2):
        streams.restart()
        of_weights = streams.of_weights().bit_generator.state
        assert of_weights == np.random.default_rng(weights).bit_generator.state
        assert streams.noise_key == tuple(noise.generate_state(2).tolist())
        assert streams.shuffling.bit_generator.state == np.random.default_rng(shuffling).bit_generator.state
        assert streams.splitting.state == splitting.state
        streams.permutations(5, 1)


def test_without_a_seed_each_restart_is_another():
    streams = Streams(None)
    keys = set()
    for _ in range(3):
        streams.restart()
        assert streams.noise_key == streams.noise_key
        keys.add((streams.noise_key, streams.splitting.entropy))
    assert len(keys) == 3


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda streams: pickle.loads(pickle.dumps(streams))])
def test_copies_go_on_by_themselves(copied):
    streams = Streams(None)
    streams.restart()
    streams.permutations(7, 1)
    twin = copied(streams)
    assert twin.state() == streams.state() and twin.splitting.entropy == streams.splitting.entropy
    assert twin.permutations(7, 2).tolist() == streams.permutations(7, 2).tolist()
    twin.permutations(7, 1)
    assert twin.state() != streams.state()
    twin.restart()
    assert twin.noise_key != streams.noise_key
