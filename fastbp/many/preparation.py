"""From what `fit_many` is given to members: all is checked before anything trains, data that several share
are read and converted once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.kernels.finite import are_finite
from fastbp.inputs.samples import Samples
from fastbp.many import arguments
from fastbp.many.members import Member
from fastbp.network.compiled import CompiledBackend
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.training.options import FitOptions
from fastbp.training.start import make_ready, require_finite_parameters, validation_of

Array = NDArray[Any]


@dataclass
class Data:
    """The data arguments of `fit_many`, of the same names."""

    X: Any
    Y: Any
    rows: Any = None
    sample_weight: Any = None
    validation_data: Any = None
    check_finite: bool = True


def prepared(
    models: Any,
    data: Data,
    epochs: Any,
    optimizers: Any,
    batch_size: Any,
    callbacks: Any,
    common: Mapping[str, Any],
) -> list[Member]:
    """A member for each model. ValueError or TypeError for whatever does not fit, with nothing trained."""
    networks = arguments.networks(models)
    count = len(networks)
    all_epochs = arguments.numbers("epochs", epochs, count, 0)
    sizes = arguments.numbers("batch_size", batch_size, count, 1)
    rules = arguments.optimizers(optimizers, count)
    listed = arguments.callback_lists(callbacks, count)
    all_options = AllOptions(common)
    reading = Reading(networks, data)
    members = []
    with arguments.Naming() as naming:
        for i, (model, rule) in enumerate(zip(networks, rules, strict=True)):
            naming.i = i
            options = all_options.of(i, rule, all_epochs[i], sizes[i], listed[i])
            samples, rows, held_out = reading.of(i)
            make_ready(model, rule)
            reading.judge(model, held_out, options)
            count = len(samples) if rows is None else len(rows)
            steps = all_epochs[i] * -(-count // sizes[i])
            seconds = steps * model.backend.guessed_step_seconds(sizes[i])
            members.append(Member(i, model, rule, samples, rows, held_out, options, steps, seconds))
        _require_finite(networks, naming)
    return members


def _require_finite(networks: Sequence[Network], naming: arguments.Naming) -> None:
    """ValueError for the first whose parameters are not. Those of the engine are seen through together."""
    places: dict[np.dtype[Any], list[tuple[int, int]]] = {}
    compiled = True
    for model in networks:
        parameters = model.parameters
        flat = parameters.flat
        places.setdefault(flat.dtype, []).append((parameters.address, flat.size))
        compiled = compiled and isinstance(model.backend, CompiledBackend)
    if compiled and all(are_finite(of_dtype, dtype) for dtype, of_dtype in places.items()):
        return
    for naming.i, model in enumerate(networks):
        require_finite_parameters(model)


class AllOptions:
    """What each member's own `fit` would be told, made and checked once for those that may share it."""

    def __init__(self, common: Mapping[str, Any]) -> None:
        self._common, self._made = common, dict[Any, FitOptions]()

    def of(self, i: int, rule: Optimizer, epochs: int, batch_size: int, callbacks: Any) -> FitOptions:
        """The options of member i: those with callbacks have their own."""
        key = i if len(callbacks) else (id(rule), epochs, batch_size)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = FitOptions(
                rule, epochs=epochs, batch_size=batch_size, callbacks=callbacks, **self._common
            )
        return made


class Reading:
    """Reads each data set once for each way in which networks read: width, dtype, scaling, loss."""

    def __init__(self, networks: list[Network], data: Data) -> None:
        count = len(networks)
        self._networks, self._check_finite = networks, data.check_finite
        self._X = arguments.data("X", data.X, count, (2,))
        self._Y = arguments.data("Y", data.Y, count, (1, 2))
        self._rows = arguments.row_sets(data.rows, count)
        self._weights = arguments.data("sample_weight", data.sample_weight, count, (1,))
        self._validation = arguments.validation_sets(data.validation_data, count)
        if any(y is None for y in self._Y):
            raise TypeError("Y must be given: fit_many takes arrays, no iterables of batches")
        self._read: dict[Any, tuple[Samples, Array | None]] = {}  # with the samples' weights
        self._held_out: dict[Any, Samples | None] = {}
        self._judged: set[Any] = set()

    def of(self, i: int) -> tuple[Samples, NDArray[np.int64] | None, Samples | None]:
        """Samples of network i, its rows of them, and what is held out."""
        way, held = arguments.reading_of(self._networks[i]), self._validation[i]
        key = way, id(self._X[i]), id(self._Y[i]), id(self._weights[i])
        known = self._read.get(key)
        if known is None:
            new = self._samples_of(i)
            known = self._read[key] = new, new.stored_weights
        held_out = None
        if held is not None:
            held_key = way, id(held)
            if held_key not in self._held_out:
                self._held_out[held_key] = self._networks[i].reader.validation(held, self._check_finite)
            held_out = self._held_out[held_key]
        (samples, weights), rows = known, self._rows[i]
        if rows is not None:
            rows = arguments.in_range(i, rows, len(samples))
        if weights is not None and not (weights if rows is None else weights[rows]).any():
            raise ValueError("sample_weight is 0 for all rows that are trained on, expected one above 0")
        return samples, rows, held_out

    def _samples_of(self, i: int) -> Samples:
        reader, given = self._networks[i].reader, (self._X[i], self._Y[i], self._weights[i])
        samples = reader.samples(*given, self._check_finite)
        starts, ends = self._places
        for data in (samples.X, samples.Y):  # whoever trains would change what the others read
            if isinstance(data, np.ndarray):
                low, high = np.lib.array_utils.byte_bounds(data)
                for other in np.flatnonzero((starts < high) & (ends > low)).tolist():
                    samples = samples.apart_from(self._networks[other].parameters.flat)
        return samples

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the parameters of each network begin and end in memory."""
        starts = np.array([network.parameters.address for network in self._networks])
        return starts, starts + [network.parameters.flat.nbytes for network in self._networks]

    def judge(self, model: Network, held_out: Samples | None, options: FitOptions) -> None:
        """ValueError for metrics that cannot be computed on what is held out."""
        if held_out is None and not options.metrics:
            return
        key = (id(held_out), model.architecture.outputs, model.architecture.loss.name)
        if key not in self._judged:
            validation_of(model, held_out, options)
            self._judged.add(key)
