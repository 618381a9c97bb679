"""The network that an estimator's parameters ask for, and scikit-learn's initial weights."""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.network.architecture import Architecture
from fastbp.sklearn.parameters import ACTIVATIONS

Array = NDArray[Any]

_PARAMETERS = inspect.signature(fastbp.MLP).parameters.values()
DEFAULTS = {given.name: given.default for given in _PARAMETERS if given.default is not given.empty}


def hidden_activations(activation: str | Sequence[str]) -> str | list[str]:
    """fastbp's names of the hidden layers' activations."""
    if isinstance(activation, str):
        return ACTIVATIONS.get(activation, activation)
    return [ACTIVATIONS.get(name, name) for name in activation]


def most_threads(threads: int | None) -> int | None:
    """How many threads a network may take: in a thread of somebody's pool just that one, unless it was said
    otherwise, as the pool has one for each core already (joblib's backend "threading")."""
    if threads is None and threading.current_thread() is not threading.main_thread():
        return 1
    return threads


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


def network(options: dict[str, Any], weights: Sequence[Array], biases: Sequence[Array]) -> fastbp.MLP:
    """The network of these options (the rest are `MLP`'s defaults) with copies of these weights and biases.
    ValueError where shapes do not fit."""
    architecture = Architecture(**{**DEFAULTS, **options})
    return fastbp.MLP.with_parameters(architecture, weights, biases)


def write(model: fastbp.MLP, weights: Sequence[Array], biases: Sequence[Array]) -> None:
    """Copy these weights and biases into the model. ValueError where shapes do not fit."""
    model.weights, model.biases = list(weights), list(biases)
    model.parameters.adopt()
