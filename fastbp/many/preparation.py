"""From what `fit_many` is given to members: all is checked before anything trains, data that several share
are read and converted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.inputs.samples import Samples
from fastbp.many import arguments
from fastbp.many.members import Member
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.training.options import FitOptions
from fastbp.training.start import has_finite_parameters, make_ready, validation_of

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
    options: dict[Any, FitOptions] = {}
    reading = Reading(networks, data)
    members = []
    with arguments.Naming() as naming:
        for i, (model, rule) in enumerate(zip(networks, rules, strict=True)):
            naming.i = i
            key = _options_key(i, rule, all_epochs[i], sizes[i], listed[i])
            own = options.get(key)
            if own is None:
                own = options[key] = FitOptions(
                    rule, epochs=all_epochs[i], batch_size=sizes[i], callbacks=listed[i], **common
                )
            samples, rows, held_out = reading.of(i)
            make_ready(model, rule)
            if not has_finite_parameters(model):
                raise ValueError("weights, biases or gains hold NaN or infinity: training cannot start")
            reading.judge(model, held_out, own)
            members.append(Member(i, model, rule, samples, rows, held_out, own))
    return members


def _options_key(i: int, rule: Optimizer, epochs: int, batch_size: int, callbacks: Any) -> Any:
    """Equal for members that may share their options: those with callbacks have their own."""
    return i if len(callbacks) else (id(rule), epochs, batch_size)


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
        key = (way, id(self._X[i]), id(self._Y[i]), id(self._weights[i]))
        if key not in self._read:
            samples = self._samples_of(i)
            self._read[key] = samples, samples.stored_weights
        held_key = (way, id(held))
        if held_key not in self._held_out:
            self._held_out[held_key] = self._networks[i].reader.validation(held, self._check_finite)
        (samples, weights), rows = self._read[key], self._rows[i]
        if rows is not None:
            rows = arguments.in_range(i, rows, len(samples))
        if weights is not None and not (weights if rows is None else weights[rows]).any():
            raise ValueError("sample_weight is 0 for all rows that are trained on, expected one above 0")
        return samples, rows, self._held_out[held_key]

    def _samples_of(self, i: int) -> Samples:
        reader, given = self._networks[i].reader, (self._X[i], self._Y[i], self._weights[i])
        samples = reader.samples(*given, self._check_finite)
        for other in self._networks:  # whoever trains would change what the others read
            samples = samples.apart_from(other.parameters.flat)
        return samples

    def judge(self, model: Network, held_out: Samples | None, options: FitOptions) -> None:
        """ValueError for metrics that cannot be computed on what is held out."""
        if held_out is None and not options.metrics:
            return
        key = (id(held_out), model.architecture.outputs, model.architecture.loss.name)
        if key not in self._judged:
            validation_of(model, held_out, options)
            self._judged.add(key)
