"""The network that an estimator's parameters ask for, and what it draws from `random_state`: scikit-learn's
initial weights, and whatever else."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

import fastbp
from fastbp.engine.threads.locks import lock_of
from fastbp.network.architecture import Architecture
from fastbp.pages import aligned
from fastbp.sklearn.parameters import ACTIVATIONS

Array = NDArray[Any]

# How many draws are remembered, up to how many bytes of each, and of all.
MOST_DRAWS, MOST_BYTES, MOST_IN_ALL = 8, 2 << 20, 8 << 20

# Numbers that are drawn at a time: to make large arrays for them would take as long as half of the drawing.
PIECE = 8192

Draw = Callable[[np.random.RandomState], tuple[Array, ...]]


class Memory:
    """What was drawn lately from generators made of a number, by that number and all draws up to it. Several
    Python threads may put and look up."""

    def __init__(self) -> None:
        self._lock = lock_of(self)
        self._known: dict[tuple[Any, ...], tuple[Array, ...]] = {}

    def get(self, key: tuple[Any, ...]) -> tuple[Array, ...] | None:
        with self._lock:
            return self._known.get(key)

    def put(self, key: tuple[Any, ...], drawn: tuple[Array, ...]) -> None:
        """Keep it, if it is not too large, and let the oldest ones go."""
        if _bytes_of(drawn) > MOST_BYTES:
            return
        for array in drawn:
            array.flags.writeable = False
        with self._lock:
            self._known[key] = drawn
            while len(self._known) > MOST_DRAWS or sum(map(_bytes_of, self._known.values())) > MOST_IN_ALL:
                del self._known[next(iter(self._known))]


def _bytes_of(drawn: tuple[Array, ...]) -> int:
    return sum(array.nbytes for array in drawn)


MEMORY = Memory()


class Draws:
    """What one fit draws from its `random_state`.

    All fits of a grid search with random_state=0 draw the same initial weights and the same orders of epochs,
    which takes as long as some of their training steps: they are looked up. The generator is made, and
    brought to where it should be, when something is asked for that nobody has drawn before.
    """

    def __init__(self, random_state: Any) -> None:
        self._random: np.random.RandomState | None = None
        # The number and what was drawn so far, as long as that is known; of it, what was looked up only.
        self._asked: tuple[Any, ...] | None = None
        self._owed: list[Draw] = []
        if isinstance(random_state, Integral):
            self._asked = (int(random_state),)
        else:
            self._random = check_random_state(random_state)

    def generator(self) -> np.random.RandomState:
        """For whoever draws himself; what comes after that is not remembered."""
        random = self._caught_up()
        self._asked = None
        return random

    def once(self, what: Hashable, draw: Draw) -> tuple[Array, ...]:
        """draw(generator), which depends on nothing but `what` and what was drawn up to now; perhaps not to
        be written into."""
        if self._asked is None:
            return draw(self._caught_up())
        self._asked = (*self._asked, what)
        drawn = MEMORY.get(self._asked)
        if drawn is None:
            drawn = draw(self._caught_up())
            MEMORY.put(self._asked, drawn)
        else:
            self._owed.append(draw)
        return drawn

    def _caught_up(self) -> np.random.RandomState:
        if self._random is None:
            assert self._asked is not None
            self._random = np.random.RandomState(self._asked[0])
        for draw in self._owed:
            draw(self._random)
        self._owed.clear()
        return self._random


class Options(NamedTuple):
    """What `Architecture` is told of an estimator's network; all else is the same for all of them."""

    layer_sizes: tuple[int, ...]
    hidden: str | tuple[str, ...]
    output: str
    loss: str
    l2: float
    dtype: str
    dropout: Any
    layer_norm: bool
    threads: int | None
    seed: int = 0
    reduction: str = "weighted_mean"


def hidden_activations(activation: str | Sequence[str]) -> str | tuple[str, ...]:
    """fastbp's names of the hidden layers' activations."""
    if isinstance(activation, str):
        return ACTIVATIONS.get(activation, activation)
    return tuple(ACTIVATIONS.get(name, name) for name in activation)


def most_threads(threads: int | None) -> int | None:
    """How many threads a network may take: in a thread of somebody's pool just that one, unless it was said
    otherwise, as the pool has one for each core already (joblib's backend "threading")."""
    if threads is None and threading.current_thread() is not threading.main_thread():
        return 1
    return threads


def draw(
    layer_sizes: Sequence[int], activation: str | Sequence[str], draws: Draws, dtype: np.dtype[Any]
) -> tuple[Sequence[Array], Sequence[Array]]:
    """Weights (fan_in, fan_out) and biases (fan_out,) of each layer, uniform within
    ±sqrt(factor / (fan_in + fan_out)); factor is 2 with logistic units, else 6.

    Glorot and Bengio, AISTATS 2010. Drawn in float64, layer by layer, weights before biases, as in
    scikit-learn: the same numbers from the same generator.
    """
    names = (activation,) if isinstance(activation, str) else tuple(activation)

    def drawn(random: np.random.RandomState) -> tuple[Array, ...]:
        arrays = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(layer_sizes)):
            name = names[min(i, len(names) - 1)]
            bound = np.sqrt((2.0 if name == "logistic" else 6.0) / (fan_in + fan_out))
            for shape in ((fan_in, fan_out), (fan_out,)):
                flat = aligned(math.prod(shape) * dtype.itemsize).view(dtype)
                for start in range(0, len(flat), PIECE):
                    part = flat[start : start + PIECE]
                    part[:] = random.uniform(-bound, bound, len(part))
                arrays.append(flat.reshape(shape))
        return tuple(arrays)

    arrays = draws.once((tuple(layer_sizes), names, dtype), drawn)
    return arrays[::2], arrays[1::2]


def network(options: Options, weights: Sequence[Array], biases: Sequence[Array]) -> fastbp.MLP:
    """The network of these options with copies of these weights and biases. ValueError where shapes do not
    fit."""
    a_number = type(options.dropout) in (float, int)  # a list may be changed, and cannot be looked up
    make = _architecture if a_number else _architecture.__wrapped__
    return fastbp.MLP.with_parameters(make(*options), weights, biases)


@lru_cache(64, typed=True)  # to check all of it again would take as long as a step of a small network
def _architecture(*options: Any) -> Architecture:
    return Architecture(
        **Options(*options)._asdict(),
        init="auto",
        max_norm=None,
        input_scale=1.0,
        input_offset=0.0,
        input_noise=0.0,
    )
