"""The random streams of a model: initial weights, shuffling, rows held out, dropout and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.entries.shuffling import bit_generator_at, permutations, shuffle_call


class Streams:
    """Separate streams from one seed, so that how many weights there are does not change the batches. They
    begin with `restart`.

    shuffling : draws the order of each epoch; located : it, and where compiled code finds it.
    splitting : what `validation_split` draws the rows held out from, in each call anew.
    noise_key : two integers of 32 bits; with the number of the training step they decide dropout and noise.
    steps_trained : of the model so far, parts of a step counted one by one.
    """

    located: tuple[np.random.Generator, int]
    splitting: np.random.SeedSequence
    noise_key: tuple[int, ...]

    def __init__(self, seed: int | None) -> None:
        self._seed, self.counter = seed, np.zeros(1, np.int64)

    def _begin(self, shuffling: np.random.Generator) -> None:
        self.located = shuffling, bit_generator_at(shuffling)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name != "located"}
        return kept | {"shuffling": self.shuffling}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._begin(state.pop("shuffling"))
        vars(self).update(state)

    @property
    def shuffling(self) -> np.random.Generator:
        return self.located[0]

    @property
    def steps_trained(self) -> int:
        """What `counter` says, in memory that compiled code may count in."""
        return int(self.counter[0])

    @steps_trained.setter
    def steps_trained(self, steps: int) -> None:
        self.counter[0] = steps

    def restart(self) -> np.random.Generator:
        """Go to the beginning, without a seed to another one each time; return what draws the initial
        weights."""
        for_weights, for_shuffling, self.splitting, for_noise = np.random.SeedSequence(self._seed).spawn(4)
        self._begin(np.random.default_rng(for_shuffling))
        self.noise_key = tuple(for_noise.generate_state(2).tolist())
        self.steps_trained = 0
        return np.random.default_rng(for_weights)

    def permutations(self, rows: int, epochs: int) -> NDArray[np.int64]:
        """(epochs * rows,) the order of the rows in so many epochs, one after another; drawing two at a time
        is the same as one by one."""
        return permutations(*self.located, rows, epochs)

    @property
    def can_shuffle(self) -> bool:
        """Whether `permutations` is compiled."""
        return shuffle_call.cache_info().currsize > 0

    def state(self) -> dict[str, Any]:
        """Where the generators are that training draws from, as JSON."""
        return {
            "shuffling": self.shuffling.bit_generator.state,
            "noise_key": list(self.noise_key),
            "steps_trained": self.steps_trained,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go where they were at `state`."""
        self.shuffling.bit_generator.state = state["shuffling"]
        self.noise_key, self.steps_trained = tuple(state["noise_key"]), state["steps_trained"]
