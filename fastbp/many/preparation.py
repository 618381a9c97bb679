"""From what `fit_many` is given to members: all is checked before anything trains, data that several share
are read and converted once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

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
    all_options, kinds = AllOptions(common), dict[Any, Kind]()
    reading = Reading(networks, data)
    members = []
    with arguments.Naming() as naming:
        for i, (model, rule, given) in enumerate(zip(networks, rules, reading.given, strict=True)):
            naming.i = i
            same = (
                id(model.architecture.alike),
                type(model),
                model.reader.feature_names,
                id(rule),
                all_epochs[i],
                sizes[i],
                i if listed[i] else -1,
                given,
            )
            kind = kinds.get(same)
            if kind is None:
                options = all_options.of(i, rule, all_epochs[i], sizes[i], listed[i])
                read, seconds = reading.of(i), model.backend.guessed_step_seconds(sizes[i])
                reading.judge(model, read.held_out, options)
                kind = kinds[same] = Kind(len(kinds), i, options, read, seconds)
            rows = reading.rows_of(i, kind.read)
            make_ready(model, rule)
            kind.places.append((model.parameters.address, len(model.parameters)))
            samples = kind.read.samples
            steps = all_epochs[i] * -(-(len(samples) if rows is None else len(rows)) // sizes[i])
            of_kind = rows, kind.read.held_out, kind.options, kind.number, steps, steps * kind.step_seconds
            members.append(Member(i, model, rule, samples, *of_kind))
        _require_finite(members, kinds.values(), naming)
    return members


def _require_finite(members: Sequence[Member], kinds: Collection[Kind], naming: arguments.Naming) -> None:
    """ValueError for the first network whose parameters are not. Those of the engine are seen through
    together."""
    places: dict[np.dtype[Any], list[tuple[int, int]]] = {}
    for kind in kinds:
        places.setdefault(members[kind.first].model.parameters.flat.dtype, []).extend(kind.places)
    compiled = all(isinstance(members[kind.first].model.backend, CompiledBackend) for kind in kinds)
    if compiled and all(are_finite(of_dtype, dtype) for dtype, of_dtype in places.items()):
        return
    for member in members:
        naming.i = member.index
        require_finite_parameters(member.model)


class Read(NamedTuple):
    """A data set as some networks read it: samples, their weights, and what is held out."""

    samples: Samples
    weights: Array | None
    held_out: Samples | None


@dataclass
class Kind:
    """What members share whose networks are alike and that are given the same objects.

    number, first : from 0, of the kind and of the first of its members. step_seconds : that a step takes,
    roughly. places : of the parameters: address and size.
    """

    number: int
    first: int
    options: FitOptions
    read: Read
    step_seconds: float
    places: list[tuple[int, int]] = field(default_factory=list)


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
        # Of each network the objects that it is given.
        arguments_of = self._X, self._Y, self._weights, self._validation
        self.given = list(zip(*(map(id, values) for values in arguments_of), strict=True))
        self._read: dict[Any, Samples] = {}
        self._held_out: dict[Any, Samples | None] = {}
        self._judged: set[Any] = set()

    def of(self, i: int) -> Read:
        """The data of network i."""
        way, held = arguments.reading_of(self._networks[i]), self._validation[i]
        key = way, self.given[i][:3]
        if key not in self._read:
            self._read[key] = self._samples_of(i)
        held_key = way, id(held)
        if held_key not in self._held_out:
            self._held_out[held_key] = self._networks[i].reader.validation(held, self._check_finite)
        samples = self._read[key]
        return Read(samples, samples.stored_weights, self._held_out[held_key])

    def rows_of(self, i: int, read: Read) -> NDArray[np.int64] | None:
        """The rows of network i, None for all of them."""
        rows, weights = self._rows[i], read.weights
        if rows is not None:
            rows = arguments.in_range(i, rows, len(read.samples))
        if weights is not None and not (weights if rows is None else weights[rows]).any():
            raise ValueError("sample_weight is 0 for all rows that are trained on, expected one above 0")
        return rows

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
