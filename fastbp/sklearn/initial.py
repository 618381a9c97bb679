"""The network that an estimator's parameters ask for, and scikit-learn's initial weights."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state

import fastbp
from fastbp.network.architecture import Architecture
from fastbp.sklearn.parameters import ACTIVATIONS

Array = NDArray[Any]

# Generators that nobody draws from at the moment. To make one takes as long as a training step of a small
# network, for a seed from the operating system that is not wanted.
_SPARE: list[np.random.RandomState] = []


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


def generator(random_state: Any) -> np.random.RandomState:
    """As scikit-learn's `check_random_state`; one that was made of a number is the caller's until `spare`."""
    if not isinstance(random_state, Integral):
        found: np.random.RandomState = check_random_state(random_state)
        return found
    try:
        random = _SPARE.pop()
    except IndexError:
        return np.random.RandomState(int(random_state))
    random.seed(int(random_state))
    return random


def spare(random: np.random.RandomState, random_state: Any) -> None:
    """Nobody needs this generator any more, which `generator` made of that."""
    if isinstance(random_state, Integral):
        _SPARE.append(random)


def draw(
    layer_sizes: Sequence[int], activation: str | Sequence[str], random: np.random.RandomState, dtype: Any
) -> tuple[list[Array], list[Array]]:
    """Weights (fan_in, fan_out) and biases (fan_out,) of each layer, uniform within
    ±sqrt(factor / (fan_in + fan_out)); factor is 2 with logistic units, else 6.

    Glorot and Bengio, AISTATS 2010. Drawn in float64, layer by layer, weights before biases, as in
    scikit-learn: the same numbers from the same generator.
    """
    weights, biases = [], []
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(layer_sizes)):
        name = activation if isinstance(activation, str) else activation[min(i, len(activation) - 1)]
        bound = np.sqrt((2.0 if name == "logistic" else 6.0) / (fan_in + fan_out))
        weights.append(random.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
        biases.append(random.uniform(-bound, bound, fan_out).astype(dtype, copy=False))
    return weights, biases


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
