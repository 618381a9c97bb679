"""The random streams of a model: initial weights, shuffling, rows held out, dropout and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.entries import shuffling
from fastbp.engine.entries.shuffling import (
    bit_generator_at,
    go_to,
    knows_positions,
    permutations,
    position_of,
)


class Streams:
    """Separate streams from one seed, so that how many weights there are does not change the batches. They
    begin with `restart`.

    shuffling : draws the order of each epoch; located : it, and where compiled code finds it.
    splitting : what `validation_split` draws the rows held out from, in each call anew.
    noise_key : two integers of 32 bits; with the number of the training step they decide dropout and noise.
    steps_trained : of the model so far, parts of a step counted one by one.
    """

    # Made when they are first asked for, as most models need neither; so is what shuffles.
    _splitting: np.random.SeedSequence | None
    _noise_key: tuple[int, ...] | None

    def __init__(self, seed: int | None) -> None:
        self._seed, self.counter = seed, np.zeros(1, np.int64)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_seed", "counter", "shuffling", "splitting", "noise_key")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shuffling = state.pop("shuffling")
        self._located = shuffling, bit_generator_at(shuffling)
        self._splitting, self._noise_key = state.pop("splitting"), state.pop("noise_key")
        vars(self).update(state)

    @property
    def located(self) -> tuple[np.random.Generator, int]:
        found: tuple[np.random.Generator, int] | None = vars(self).get("_located")
        if found is None:
            made = np.random.default_rng(self._child(1))
            # Of two threads that come here, both take the one that is there first.
            found = vars(self).setdefault("_located", (made, bit_generator_at(made)))
        return found

    @property
    def shuffling(self) -> np.random.Generator:
        return self.located[0]

    @property
    def splitting(self) -> np.random.SeedSequence:
        if self._splitting is None:
            self._splitting = self._child(2)
        return self._splitting

    @splitting.setter
    def splitting(self, sequence: np.random.SeedSequence) -> None:
        self._splitting = sequence

    @property
    def noise_key(self) -> tuple[int, ...]:
        if self._noise_key is None:
            self._noise_key = tuple(self._child(3).generate_state(2).tolist())
        return self._noise_key

    @property
    def steps_trained(self) -> int:
        """What `counter` says, in memory that compiled code may count in."""
        return int(self.counter[0])

    @steps_trained.setter
    def steps_trained(self, steps: int) -> None:
        self.counter[0] = steps

    def restart(self) -> None:
        """Go to the beginning, without a seed to another one each time."""
        self._entropy = np.random.SeedSequence(self._seed).entropy if self._seed is None else self._seed
        self._splitting = self._noise_key = None
        vars(self).pop("_located", None)
        self.steps_trained = 0

    def of_weights(self) -> np.random.Generator:
        """What draws the initial weights, from its beginning."""
        return np.random.default_rng(self._child(0))

    def _child(self, k: int) -> np.random.SeedSequence:
        """What the k-th of those is that `SeedSequence.spawn` makes."""
        return np.random.SeedSequence(self._entropy, spawn_key=(k,))

    def permutations(self, rows: int, epochs: int) -> NDArray[np.int64]:
        """(epochs * rows,) the order of the rows in so many epochs, one after another; drawing two at a time
        is the same as one by one."""
        return permutations(*self.located, rows, epochs)

    @property
    def can_shuffle(self) -> bool:
        """Whether `permutations` is compiled."""
        return shuffling.is_compiled()

    @property
    def position(self) -> tuple[int, ...]:
        """Where `shuffling` is; to set it takes it back there. Only where it `has_position`."""
        return position_of(self.located[1])

    @position.setter
    def position(self, position: tuple[int, ...]) -> None:
        go_to(self.located[1], position)

    @property
    def has_position(self) -> bool:
        return knows_positions()

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
        self._noise_key, self.steps_trained = tuple(state["noise_key"]), state["steps_trained"]
