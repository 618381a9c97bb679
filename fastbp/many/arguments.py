"""What may be one for all networks or one for each; errors name the argument and the network."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.schedules import Schedule


class Naming:
    """A context in which what is raised says which of the networks it is about."""

    def __init__(self) -> None:
        self.i = 0

    def __enter__(self) -> Naming:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (ValueError, TypeError, OSError)):
            error.add_note(f"(of models[{self.i}])")


def networks(models: object) -> list[Network]:
    """The networks; ValueError if one of them is there twice, since nobody could train it twice at once."""
    if isinstance(models, Network):
        raise TypeError("models must be a sequence of models, got a single one: give [model], or use its fit")
    try:
        listed: list[Any] = list(models)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"models must be a sequence of models, got {checks.shown(models)}") from None
    if not listed:
        raise ValueError("models is empty, expected at least one model")
    seen: dict[int, int] = {}
    for i, model in enumerate(listed):
        if not isinstance(model, Network):
            raise TypeError(f"models[{i}] must be a model like MLP, got {checks.shown(model)}")
        if id(model) in seen:
            raise ValueError(f"models[{i}] is models[{seen[id(model)]}] again: each model may be there once")
        seen[id(model)] = i
    return listed


def reading_of(model: Network) -> tuple[Any, ...]:
    """Equal for networks that read data alike; the first four are about inputs."""
    reader = model.reader
    scaling = reader.scaling and tuple(part.tobytes() for part in reader.scaling)
    inputs = reader.input_count, reader.dtype, scaling, reader.feature_names
    return *inputs, reader.output_count, reader.loss.name


def _is_data(value: object, dimensions: tuple[int, ...]) -> bool:
    """Whether it is a data set, and not a row of one."""
    if isinstance(value, (str, os.PathLike)):
        return True
    return getattr(value, "ndim", None) in dimensions


def data(name: str, value: Any, count: int, dimensions: tuple[int, ...]) -> list[Any]:
    """A data set for each network: a list of arrays, tables or paths is one for each, anything else is one
    for all."""
    if isinstance(value, (list, tuple)) and value and all(_is_data(item, dimensions) for item in value):
        return _each(name, value, count)
    return [value] * count


def _each(name: str, values: Sequence[Any] | NDArray[Any], count: int) -> list[Any]:
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} entries for {count} models, expected one for each")
    return list(values)


def numbers(name: str, value: Any, count: int, low: int) -> list[int]:
    """An integer for each network."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [
            checks.count(f"{name}[{i}]", item, low=low) for i, item in enumerate(_each(name, value, count))
        ]
    return [checks.count(name, value, low=low)] * count


def optimizers(value: Any, count: int) -> list[Optimizer]:
    """An optimizer for each network. What several share has its states of each of them, but only one
    schedule, which knows the course of one training: so each gets a copy of it as it is now."""
    listed = _each("optimizers", value, count) if isinstance(value, (list, tuple)) else [value] * count
    uses: dict[int, int] = {}
    for i, optimizer in enumerate(listed):
        if not isinstance(optimizer, Optimizer):
            name = f"optimizers[{i}]" if isinstance(value, (list, tuple)) else "optimizers"
            raise TypeError(
                f"{name} must be an object like SGD(0.1) or Adam(), got {checks.shown(optimizer)}"
            )
        uses[id(optimizer)] = uses.get(id(optimizer), 0) + 1
        if isinstance(optimizer.lr, Schedule):
            uses[id(optimizer.lr)] = uses.get(id(optimizer.lr), 0) + 1
    own = []
    for optimizer in listed:
        shared = uses[id(optimizer)] > 1 or uses.get(id(optimizer.lr), 0) > 1
        if shared and isinstance(optimizer.lr, Schedule):
            optimizer, lr = optimizer.snapshot(), copy.copy(optimizer.lr)
            optimizer.lr = lr
        own.append(optimizer)
    return own


def row_sets(value: Any, count: int) -> list[NDArray[np.int64] | None]:
    """The rows of each network: None (all), or indices, in range as far as they can be without the data."""
    if value is None:
        return [None] * count
    if not isinstance(value, (list, tuple)) and getattr(value, "ndim", 0) != 2:
        raise TypeError(
            f"rows must be a list with the rows of each model (indices, or None for all of them), "
            f"got {checks.shown(value)}"
        )
    return [_rows(f"rows[{i}]", rows) for i, rows in enumerate(_each("rows", value, count))]


def _rows(name: str, rows: Any) -> NDArray[np.int64] | None:
    if rows is None:
        return None
    array = np.asarray(rows)
    if array.ndim != 1 or array.dtype.kind not in "iub" or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}, expected (n,) integers, at least one, "
            "or a flag for each row"
        )
    return array if array.dtype.kind == "b" else array.astype(np.int64)


def in_range(i: int, rows: NDArray[Any], samples: int) -> NDArray[np.int64]:
    """Indices of rows that are there."""
    if rows.dtype.kind == "b":
        if len(rows) != samples:
            raise ValueError(f"rows[{i}] has {len(rows)} flags, X has {samples} rows")
        if not rows.any():
            raise ValueError(f"rows[{i}] leaves no row")
        return np.flatnonzero(rows)
    if rows.min() < 0 or rows.max() >= samples:
        bad = int(rows[(rows < 0) | (rows >= samples)][0])
        raise ValueError(f"rows[{i}] holds {bad}, expected 0 to {samples - 1}: X has {samples} rows")
    return rows


def callback_lists(value: Any, count: int) -> list[Any]:
    """Callbacks of each network: lists within a list are one for each; else all have the same, of those with
    a state (`EarlyStopping`) each a copy."""
    if value is None:
        return [()] * count
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (list, tuple)) for item in value):
        return _each("callbacks", value, count)
    listed = value if isinstance(value, (list, tuple)) else [value]
    return [[copy.deepcopy(c) if hasattr(c, "state_dict") else c for c in listed] for _ in range(count)]


def validation_sets(value: Any, count: int) -> list[Any]:
    """validation_data as of `fit`: a tuple for all, or a list of such, one for each."""
    if isinstance(value, list) and value and all(v is None or isinstance(v, (tuple, list)) for v in value):
        return _each("validation_data", value, count)
    return [value] * count
