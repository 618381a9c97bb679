"""`fastbp predict`: from a model file and a table or images to predictions."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.cli import files
from fastbp.cli.errors import OK, DataError
from fastbp.cli.output import Results, progress
from fastbp.cli.tables import idx
from fastbp.cli.tables.reading import is_array, read_for_prediction
from fastbp.cli.tables.table import Columns as ArrayColumns
from fastbp.cli.tables.table import wrong_width
from fastbp.cli.train.data import source_of
from fastbp.storage import atomic, model_file
from fastbp.tables.model import TableModel, of_network
from fastbp.tables.targets import Collector, Target

KINDS = (".csv", ".npy", ".npz")


def predict(arguments: argparse.Namespace, results: Results) -> int:
    """Write the predictions to a file, or as CSV in UTF-8 to standard output; return the exit code."""
    path = arguments.out
    files.check_outputs({"--out": path}, (arguments.data, arguments.model, arguments.labels))
    if path is None and results.is_closed:
        raise DataError("standard output is closed, nobody could read the predictions: give --out FILE")
    kind = ".csv" if path is None else Path(path).suffix.lower()
    if kind not in KINDS:
        raise DataError(f"{path}: predictions can be written as .csv, .npy or .npz")
    loaded = _load(arguments.model, arguments.data)
    ensemble = loaded if isinstance(loaded, fastbp.Ensemble) else None
    first = loaded[0] if isinstance(loaded, fastbp.Ensemble) else loaded
    assert isinstance(first, fastbp.MLP)
    model = of_network(arguments.model, first)
    progress(f"predicting {arguments.data} (compiling the engine, once) ...")
    y_pred, target = _outputs(arguments, model, ensemble)
    progress("")
    spread = None
    if ensemble is not None:
        y_pred, spread = np.split(y_pred, 2, axis=1)
    content = _content(kind, model, y_pred, spread)
    if path is None:
        results.write_file(content)
        return OK
    atomic.write(path, content)
    print(f"wrote {path}: predictions of {len(y_pred)} rows")
    if target is not None:
        try:
            quality = model.measures(y_pred, target)
        except DataError as error:
            print(f"not compared with column {model.target!r}: {error}")
        else:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in quality.items())
            print(f"compared with column {model.target!r}: {figures}")
    return OK


def _load(path: str, data: str) -> fastbp.MLP | fastbp.Ensemble:
    """The model or ensemble in a file. DataError if there is none, or if the other file is the model."""
    if not Path(path).exists():
        raise DataError(f"no such model file: {path}")
    try:
        if _format(path) == model_file.ENSEMBLE_FORMAT:
            return fastbp.Ensemble.load(path)
        return fastbp.MLP.load(path)
    except ValueError:
        if _format(data) is not None:
            raise DataError(
                f"{data} is the model and {path} the data: swap them, the model comes first"
            ) from None
        raise


def _format(path: str) -> str | None:
    """What kind of file of fastbp's it is; None: none."""
    try:
        return model_file.read(path, "model")[1]["format"]
    except (OSError, ValueError):
        return None


def _outputs(
    arguments: argparse.Namespace, model: TableModel, ensemble: fastbp.Ensemble | None
) -> tuple[NDArray[Any], Target | None]:
    """What the network puts out (rows, outputs), and the target where the file has it.

    Of an ensemble, (rows, 2 * outputs): means, and beside them the members' standard deviations.
    """
    compute = None if ensemble is None else lambda X: np.hstack(ensemble.mean_and_std(X))
    path, labels = arguments.data, arguments.labels
    columns = ArrayColumns(model.columns.names, model.target, model.columns.named, model.columns.width)
    if idx.is_idx(path):
        table, expected = idx.read_table(path, labels), len(columns.features)
        if len(table.columns.features) != expected:
            raise DataError(
                f"{path} has {len(table.columns.features)} values a row, the model was trained on {expected}"
            )
    elif labels is not None:
        raise DataError(f"--labels is for IDX files, not for {path}")
    elif is_array(path):
        table = read_for_prediction(path, columns)
    else:
        return _of_file(arguments, model, columns, compute)
    return model.outputs(table.features, compute=compute), table.target


def _of_file(
    arguments: argparse.Namespace,
    model: TableModel,
    columns: ArrayColumns,
    compute: Callable[[NDArray[Any]], NDArray[Any]] | None,
) -> tuple[NDArray[Any], Target | None]:
    """The same of a table that pandas reads, piece by piece."""
    source = source_of(arguments.data, arguments)
    if not {*columns.features} <= {*source.names}:
        source.check_header(model.target)
    if model.columns.named:
        model.columns.require_names(source.names, source.label)
    elif len(source.names) != len(columns.features):  # only the order of the columns can be matched
        raise wrong_width(source.label, len(source.names), columns)
    collector = Collector(model.target) if model.columns.named and model.target in source.names else None
    source.read_as_written(model.target)
    source.read_as_text([kind.name for kind in model.columns.features if kind.kind != "number"])
    found = []
    for start, frame in source.frames():

        def place(row: int, name: str, start: int = start) -> str:
            return source.place(start + row, name)

        features = frame if model.columns.named else frame.set_axis(columns.features, axis=1)
        found.append(model.outputs(features, place, compute))
        if collector is not None:
            collector.add(frame[model.target])
    return np.concatenate(found), None if collector is None else collector.collected()


def _content(kind: str, model: TableModel, y_pred: NDArray[Any], spread: NDArray[Any] | None) -> bytes:
    """The predictions as a file of this kind; y_pred: (rows, outputs); spread: of an ensemble, the standard
    deviation of its members."""
    labels = model.labels(y_pred)
    scores = None if model.classes is None else model.answer.scores(y_pred)
    stds = None if spread is None else model.spread(spread)
    content = io.BytesIO()
    if kind == ".csv":
        return _csv(model, labels, scores, stds).encode()
    if kind == ".npy":
        np.save(content, labels, allow_pickle=False)
        return content.getvalue()
    arrays: dict[str, Any] = {"prediction": labels}
    if scores is not None:
        arrays |= {"scores": scores, "classes": np.array(model.classes)}
    if stds is not None:
        arrays["std"] = stds
    np.savez(content, **arrays)
    return content.getvalue()


def _csv(
    model: TableModel,
    labels: NDArray[Any],
    scores: NDArray[np.float64] | None,
    stds: NDArray[np.float64] | None,
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if scores is None or model.classes is None:
        columns = [[f"{value:.9g}" for value in labels]]
        names = ["prediction"]
    else:
        columns = [list(labels), *([f"{score:.6f}" for score in column] for column in scores.T)]
        names = ["prediction", *(f"score_{label}" for label in model.classes)]
    if stds is not None:
        single = model.classes is None
        names += ["std"] if single else [f"std_{label}" for label in model.classes or ()]
        columns += [[f"{value:.9g}" if single else f"{value:.6f}" for value in std] for std in stds.T]
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
