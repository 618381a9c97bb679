"""One object that predicts for tables: a network with what its columns and its target mean."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.history import History
from fastbp.model import MLP
from fastbp.network.architecture import Architecture
from fastbp.network.network import Network
from fastbp.tables import targets
from fastbp.tables.answer import Answer
from fastbp.tables.columns import ROWS_AT_ONCE, Columns, Place, named_frame, place_in_frame
from fastbp.tables.kinds import Number, Scale
from fastbp.tables.parts import Data
from fastbp.tables.targets import Label
from fastbp.tables.wording import DataError

Compute: TypeAlias = Callable[[NDArray[Any]], NDArray[Any]]

FORMAT = 2  # of the metadata below; raised when an older fastbp could misread it
# A mean so many times as large as the spread leaves float32 too few digits for what differs.
MANY_SPREADS, LARGE = 1e3, 1e30


class TableModel:
    """What `fastbp train` and `train_table` make, and `load` reads.

    Attributes
    ----------
    network : the MLP. Its inputs are `columns.outputs`, not standardised, its output the target in its own
        units or the classes' scores; of a file that an earlier version wrote, both are standardised.
    columns : what becomes of each column, see `Columns`.
    classes : the labels, int or str, in the order of the scores; None where a quantity is predicted.
    target : the name of the column that is predicted.
    history : of the training, a `History`; None of a model that was loaded.
    quality : the measures of each part of the data, by its name, after training; empty of a model that was
        loaded.
    """

    def __init__(
        self, network: MLP, columns: Columns, answer: Answer, *, standardised_outside: bool = False
    ) -> None:
        self.network, self.columns, self.answer = network, columns, answer
        self.standardised_outside = standardised_outside
        self.history: History | None = None
        self.quality: dict[str, dict[str, float]] = {}

    @property
    def classes(self) -> list[Label] | None:
        return self.answer.classes

    @property
    def target(self) -> str:
        return self.answer.name

    # ---- predicting ----

    def predict(self, data: ArrayLike) -> NDArray[Any]:
        """(rows,): labels, or the target's values in its own units as float64.

        data : a DataFrame, in which columns are found by their names, or a matrix (rows, columns) of numbers
            with the columns in their order. Missing values and texts that training has not seen are treated
            as `columns` says.

        Raises DataError, a ValueError, for missing columns and for cells that are no numbers where numbers
        are needed, all columns at once.
        """
        return self.labels(self.outputs(data))

    def predict_proba(self, data: ArrayLike) -> NDArray[np.float64]:
        """(rows, classes): a score from 0 to 1 for each class. Errors as `predict`, and of quantities."""
        if self.classes is None:
            raise DataError(f"the target {self.target!r} is a quantity, which has no classes")
        return self.answer.scores(self.outputs(data))

    def outputs(
        self, data: Any, place: Place = place_in_frame, compute: Compute | None = None
    ) -> NDArray[Any]:
        """(rows, outputs) of the network; place: how errors say where a cell is.

        compute: what is asked instead of the network, with its inputs (rows, inputs).
        """
        compute = compute or self.network.predict
        if not hasattr(data, "iloc"):
            return self._outputs(self.columns.matrix(np.asarray(data)), place, compute)
        frame = named_frame(data)
        pieces = []
        for start in range(0, max(1, len(frame)), ROWS_AT_ONCE):

            def place_in_piece(row: int, name: str, start: int = start) -> str:
                return place(start + row, name)

            pieces.append(self._outputs(frame.iloc[start : start + ROWS_AT_ONCE], place_in_piece, compute))
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _outputs(self, data: Any, place: Place, compute: Compute) -> NDArray[Any]:
        X = self.columns.transform(data, place)
        if not len(X):
            return np.empty((0, self.answer.outputs), self.network.dtype)
        if self.standardised_outside:
            scales = self.columns.scales
            if any(scale != Scale() for scale in scales):
                X = (X - [scale.mean for scale in scales]) / [scale.spread for scale in scales]
        return compute(X)

    def labels(self, y_pred: NDArray[Any]) -> NDArray[Any]:
        """What the network's outputs (rows, outputs) mean: (rows,)."""
        decided = self.answer.decide(y_pred, standardised=self.standardised_outside)
        return decided if self.classes is None else np.array(self.classes)[decided]

    def spread(self, std: NDArray[Any]) -> NDArray[np.float64]:
        """(rows, classes), or (rows, 1) in the target's units: the standard deviation of predictions.

        std: (rows, outputs), that of the outputs.
        """
        wide = std.astype(np.float64)
        if self.answer.scale is not None:
            return wide * self.answer.scale.spread if self.standardised_outside else wide
        return np.hstack([wide, wide]) if self.answer.outputs == 1 else wide

    def measures(self, y_pred: NDArray[Any], target: targets.Target) -> dict[str, float]:
        """How good the network's outputs (rows, outputs) are, by the measures' names."""
        return self.answer.quality(y_pred, target, standardised=self.standardised_outside)

    def __repr__(self) -> str:
        what = "a quantity" if self.classes is None else f"{len(self.classes)} classes"
        layers = "-".join(map(str, self.network.layer_sizes))
        return (
            f"TableModel({self.target!r}, {what}, from {len(self.columns.features)} columns; "
            f"a {layers} network)"
        )

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a model file, whole or not at all. Errors as `MLP.save`."""
        self.network.save(path)


def metadata(columns: Columns, answer: Answer, *, standardised_outside: bool) -> dict[str, Any]:
    """What a model file says about a table."""
    return {
        "fastbp_table": FORMAT,
        "target": answer.to_json(),
        "columns": columns.to_json(),
        "standardised_outside": standardised_outside,
    }


def complete(network: Network, data: Data) -> TableModel:
    """A model of a network that was trained with standardised parts of the data.

    Its own network standardises what it is given, and puts out the target in its own units. It is of float64
    where float32 had too few digits for that.
    """
    columns, answer = data.columns, data.answer
    given = network.architecture
    scales = [Scale()] * given.inputs if data.image is not None else columns.scales
    options = given.to_json()
    if any(scale != Scale() for scale in scales):
        options["input_scale"] = [1 / scale.spread for scale in scales]
        options["input_offset"] = [-scale.mean / scale.spread for scale in scales]
    whole = [scale for scale in (*scales, answer.scale) if scale is not None]
    if any(max(abs(scale.mean), scale.spread) > LARGE for scale in whole) or (
        answer.scale is not None and abs(answer.scale.mean) > MANY_SPREADS * answer.scale.spread
    ):
        options["dtype"], options["precision"] = "float64", None
    made = MLP(**options, threads=given.threads)
    made.parameters.replace(network.parameters.flat)
    if answer.scale is not None:
        made.weights[-1][...] = network.weights[-1].astype(np.float64) * answer.scale.spread
        made.biases[-1][...] = network.biases[-1].astype(np.float64) * answer.scale.spread + answer.scale.mean
    if columns.named:
        made.reader.feature_names = tuple(columns.outputs)
    made.metadata = {
        **network.metadata,
        **metadata(columns, answer, standardised_outside=False),
    }
    return TableModel(made, columns, answer)


def load(path: str | os.PathLike[str]) -> TableModel:
    """The model in a file that `fastbp train` or `TableModel.save` wrote, also an earlier version's.

    Loading runs no code. Raises OSError, or ValueError in one sentence if the file is damaged or says nothing
    about a table.
    """
    name = os.fspath(path)
    return of_network(os.fsdecode(name), MLP.load(path))


def of_network(path: str, network: MLP) -> TableModel:
    """The model of a network that was loaded; the file may come from anybody, so everything is checked."""
    found = network.metadata
    if "fastbp_table" not in found:
        raise DataError(
            f"{path} says nothing about its columns: it was not written by `fastbp train` "
            "(a model saved from Python is used from Python: fastbp.MLP.load)"
        )
    if found["fastbp_table"] not in (1, FORMAT):
        raise DataError(
            f"{path} was written by another version of fastbp (table format {found['fastbp_table']})"
        )
    try:
        model = (_read if found["fastbp_table"] == FORMAT else _read_1)(network, found)
        fitting = _fits(model, network.architecture)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        fitting = False
    if not fitting:
        raise DataError(f"{path} is damaged: what it says about its columns does not fit its network")
    return model


def _fits(model: TableModel, network: Architecture) -> bool:
    answer = model.answer
    fitting = len(model.columns.outputs) == network.inputs and answer.outputs == network.outputs
    fitting = fitting and network.output in answer.activations
    return fitting and (answer.classes is not None or network.loss.of_quantities)


def _read(network: MLP, found: dict[str, Any]) -> TableModel:
    answer = Answer.from_json(found["target"])
    columns = Columns.from_json(found["columns"], answer.name)
    if type(found["standardised_outside"]) is not bool:
        raise ValueError
    return TableModel(network, columns, answer, standardised_outside=found["standardised_outside"])


def _read_1(network: MLP, found: dict[str, Any]) -> TableModel:
    """Of version 0.1.0: columns of numbers alone, standardised outside of the network."""
    features = found["features"]
    scales = _scales(found["feature_mean"], found["feature_scale"])
    entries = [
        {"name": name, "kind": "number", **Number(name, scale, None, False).to_json()}
        for name, scale in zip(features, scales, strict=True)
    ]
    if not isinstance(features, list):
        raise ValueError
    columns = {"features": entries, "named": found["named"], "width": found["width"], "lines": []}
    answer = {"name": found["target"], "classes": found["classes"], "scale": None}
    if found["classes"] is None:
        (scale,) = _scales(found["target_mean"], found["target_scale"])
        answer["scale"] = scale.to_json()
    read = Answer.from_json(answer)
    return TableModel(network, Columns.from_json(columns, read.name), read, standardised_outside=True)


def _scales(means: Sequence[Any], spreads: Sequence[Any]) -> list[Scale]:
    return [Scale.from_json([mean, spread]) for mean, spread in zip(means, spreads, strict=True)]
