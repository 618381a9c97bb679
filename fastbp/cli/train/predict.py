"""`fastbp predict`: from a model file and a table or images to predictions."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.cli import files
from fastbp.cli.errors import OK, DataError
from fastbp.cli.output import Results, progress
from fastbp.cli.tables import idx
from fastbp.cli.tables.reading import read_for_prediction
from fastbp.cli.tables.table import Table
from fastbp.cli.train.task import Task
from fastbp.storage import atomic, model_file

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
    model = _load(arguments.model, arguments.data)
    first = model[0] if isinstance(model, fastbp.Ensemble) else model
    task = Task.from_metadata(arguments.model, first.metadata, first.architecture)
    progress(f"reading {arguments.data} ...")
    table = _read(arguments.data, arguments.labels, task)
    progress(f"predicting {len(table):,} rows (compiling the engine, once) ...")
    spread = None
    if isinstance(model, fastbp.Ensemble):
        y_pred, spread = model.mean_and_std(task.inputs(table))
    else:
        y_pred = model.predict(task.inputs(table))
    progress("")
    content = _content(kind, task, y_pred, spread)
    if path is None:
        results.write_file(content)
        return OK
    atomic.write(path, content)
    print(f"wrote {path}: predictions of {len(table)} rows")
    if table.target is not None:
        try:
            quality = task.quality(y_pred, table.target)
        except DataError as error:
            print(f"not compared with column {task.columns.target!r}: {error}")
        else:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in quality.items())
            print(f"compared with column {task.columns.target!r}: {figures}")
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


def _read(path: str, labels: str | None, task: Task) -> Table:
    if not idx.is_idx(path):
        if labels is not None:
            raise DataError(f"--labels is for IDX files, not for {path}")
        return read_for_prediction(path, task.columns)
    table, expected = idx.read_table(path, labels), len(task.columns.features)
    if len(table.columns.features) != expected:
        raise DataError(
            f"{path} has {len(table.columns.features)} values a row, the model was trained on {expected}"
        )
    return table


def _content(kind: str, task: Task, y_pred: NDArray[Any], spread: NDArray[Any] | None) -> bytes:
    """The predictions as a file of this kind; y_pred: (rows, outputs); spread: of an ensemble, the standard
    deviation of its members."""
    decided = task.decide(y_pred)
    labels = decided if task.classes is None else np.array(task.classes)[decided]
    scores = None if task.classes is None else task.scores(y_pred)
    stds = None if spread is None else task.spread(spread)
    content = io.BytesIO()
    if kind == ".csv":
        return _csv(task, labels, scores, stds).encode()
    if kind == ".npy":
        np.save(content, labels, allow_pickle=False)
        return content.getvalue()
    arrays: dict[str, Any] = {"prediction": labels}
    if scores is not None:
        arrays |= {"scores": scores, "classes": np.array(task.classes)}
    if stds is not None:
        arrays["std"] = stds
    np.savez(content, **arrays)
    return content.getvalue()


def _csv(
    task: Task,
    labels: NDArray[Any],
    scores: NDArray[np.float64] | None,
    stds: NDArray[np.float64] | None,
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if scores is None or task.classes is None:
        columns = [[f"{value:.9g}" for value in labels]]
        names = ["prediction"]
    else:
        columns = [list(labels), *([f"{score:.6f}" for score in column] for column in scores.T)]
        names = ["prediction", *(f"score_{label}" for label in task.classes)]
    if stds is not None:
        single = task.classes is None
        names += ["std"] if single else [f"std_{label}" for label in task.classes or ()]
        columns += [[f"{value:.9g}" if single else f"{value:.6f}" for value in std] for std in stds.T]
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()
