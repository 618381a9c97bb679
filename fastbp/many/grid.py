"""From a grid of hyper-parameters to configurations, and from those to models and optimizers."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fastbp import checks
from fastbp.network.architecture import Architecture
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer

OF_MODEL = tuple(name for name in inspect.signature(Architecture).parameters if name != "threads")
OF_FIT = ("epochs", "batch_size", "optimizer")
HIDDEN = "hidden_sizes"


def configurations(
    grid: Mapping[str, Any], optimizer: Optimizer, random: int | None, seed: int
) -> list[dict[str, Any]]:
    """All combinations, the last parameter changing fastest; or so many of them, drawn from the seed.

    ValueError for names that neither a model nor the optimizer nor `fit` has, and for empty lists.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise TypeError(f"grid must be a dict of lists, with at least one, got {checks.shown(grid)}")
    lists = {_name(key, optimizer, grid): _values(key, values, random) for key, values in grid.items()}
    if random is not None:
        return _drawn(lists, checks.count("random", random), np.random.default_rng(seed))
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _name(key: object, optimizer: Optimizer, grid: Mapping[str, Any]) -> str:
    name = str(key).replace(" ", "_").replace("-", "_")
    optimizers = [optimizer, *(grid["optimizer"] if isinstance(grid.get("optimizer"), Sequence) else ())]
    known = {n for o in optimizers if isinstance(o, Optimizer) for n in vars(o) if not n.startswith("_")}
    checks.known_name("grid", name, sorted({HIDDEN, *OF_MODEL, *OF_FIT, *known}))
    return name


def _values(key: object, values: Any, random: int | None) -> Any:
    if hasattr(values, "rvs"):
        if random is None:
            raise ValueError(f"grid[{key!r}] is a distribution: say how many to draw with random=")
        return values
    if not isinstance(values, (list, tuple, np.ndarray)) or not len(values):
        raise TypeError(
            f"grid[{key!r}] must be a list of values, or a distribution with a method rvs, "
            f"got {checks.shown(values)}"
        )
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _drawn(lists: Mapping[str, Any], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Of lists alone no combination twice, and all of them if there are no more."""
    if all(isinstance(values, list) for values in lists.values()):
        total = math.prod(len(values) for values in lists.values())
        chosen = rng.permutation(total)[:count] if total < 1 << 24 else rng.integers(0, total, count)
        shape = [len(values) for values in lists.values()]
        return [
            {name: values[k] for (name, values), k in zip(lists.items(), places, strict=True)}
            for places in zip(*np.unravel_index(chosen, shape), strict=True)
        ]
    return [
        {
            name: values[rng.integers(len(values))]
            if isinstance(values, list)
            else _plain(values.rvs(random_state=rng))
            for name, values in lists.items()
        }
        for _ in range(count)
    ]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and not np.ndim(value) else value


def model_of(base: Network, configuration: Mapping[str, Any]) -> Network:
    """A new model: what the configuration does not say is the base's."""
    options = base.architecture.to_json()
    changes = {name: value for name, value in configuration.items() if name in OF_MODEL}
    if HIDDEN in configuration:
        sizes = configuration[HIDDEN]
        sizes = [sizes] if isinstance(sizes, (int, np.integer)) else list(sizes)
        changes["layer_sizes"] = [base.layer_sizes[0], *sizes, base.layer_sizes[-1]]
    made: Network = type(base)(**{**options, **changes})
    made.reader.feature_names = base.reader.feature_names
    return made


def optimizer_of(default: Optimizer, configuration: Mapping[str, Any]) -> Optimizer:
    """A new optimizer: a copy of the default, or of the configuration's own, with what is set of it."""
    optimizer = copy.copy(configuration.get("optimizer", default))
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"grid['optimizer'] must be a list of optimizers, got {checks.shown(optimizer)}")
    own = (set(vars(optimizer)) & set(configuration)) - set(OF_MODEL) - set(OF_FIT)
    if own:
        optimizer.assign({name: configuration[name] for name in own})
    return optimizer
