"""`fastbp train` and `fastbp predict`: from a table to a model file, and from both to predictions."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.cli import pictures
from fastbp.cli.main import INTERRUPTED
from fastbp.cli.train import data as train_data
from fastbp.cli.train import idx, picture, setup
from fastbp.cli.train.data import Data
from fastbp.cli.train.options import EPOCHS, LEARNING_RATES
from fastbp.cli.train.tables import DataError, Table, read_for_prediction
from fastbp.cli.train.task import Task, classification_quality, regression_quality
from fastbp.cli.words import duration, text_table
from fastbp.storage import atomic


def train(settings: argparse.Namespace) -> int:
    _check_outputs(settings)
    data = train_data.load(settings)
    task, training, validation = data.task, data.training, data.validation
    model = setup.network(settings, data)
    model.metadata.update(task.to_metadata())
    columns = setup.columns(settings, task)
    optimizer = setup.optimizer(settings, data, columns)
    callbacks = setup.callbacks(settings, columns)
    class_weights = setup.class_weights(settings, task)
    _describe(settings, data, model)
    history = model.fit(
        training.X,
        training.Y,
        epochs=None if settings.steps else settings.epochs or EPOCHS,
        steps=settings.steps,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        shuffle=settings.shuffle,
        optimizer=optimizer,
        sample_weight=training.weights,
        class_weight=class_weights,
        validation_data=None if validation is None else (validation.X, validation.Y),
        metrics=setup.watched_metrics(settings, task),
        callbacks=callbacks,
        checkpoint=settings.checkpoint,
        every=settings.every,
    )
    print(_what_was_done(settings, history, len(training)) + "\n")
    outputs = [model.predict(part.X) for part in data.parts]
    print(_quality_table(data, model, outputs))
    model.save(settings.out)
    print(f"\nwrote {settings.out}")
    if settings.plot is not None:
        picture.draw(settings.plot, settings.data, model, history, data, outputs[-1])
        print(f"wrote {settings.plot}")
    return INTERRUPTED if history.interrupted else 0


def _check_outputs(settings: argparse.Namespace) -> None:
    """Raise now, rather than after minutes of training, if a file cannot be written."""
    if settings.out is None:
        raise ValueError("--out is needed: the model file to write")
    if settings.plot is not None:
        pictures.check(settings.plot)
    inputs = [settings.data, settings.labels, settings.test, settings.test_labels, settings.config]
    written: list[str] = []
    for option in ("out", "plot", "checkpoint"):
        path = getattr(settings, option)
        if path is not None:
            atomic.check_writable(path)
            _refuse_same_file(path, *filter(None, inputs), option=f"--{option}")
            if os.path.realpath(path) in written:
                raise ValueError(f"--{option} {path} is the name of another file that is to be written")
            written.append(os.path.realpath(path))


def predict(arguments: argparse.Namespace) -> int:
    if arguments.out is not None:
        atomic.check_writable(arguments.out)
        _refuse_same_file(arguments.out, *filter(None, (arguments.data, arguments.model, arguments.labels)))
        if Path(arguments.out).suffix.lower() not in (".csv", ".npy", ".npz"):
            raise DataError(f"{arguments.out}: predictions can be written as .csv, .npy or .npz")
    if not Path(arguments.model).is_file():
        raise DataError(f"no such model file: {arguments.model}")
    model = fastbp.MLP.load(arguments.model)
    task = Task.from_metadata(arguments.model, model.metadata, model.layer_sizes[0], model.layer_sizes[-1])
    table = _read_for_prediction(arguments.data, arguments.labels, task)
    y_pred = model.predict(task.inputs(table))
    decided = task.decide(y_pred)
    labels = decided if task.classes is None else np.array(task.classes)[decided]
    scores = None if task.classes is None else task.scores(y_pred)
    if arguments.out is None:
        _write_csv(sys.stdout, task, labels, scores)
        return 0
    atomic.write(arguments.out, _content(Path(arguments.out).suffix.lower(), task, labels, scores))
    print(f"wrote {arguments.out}: predictions of {len(table)} rows")
    if table.target is not None:
        try:
            quality = task.quality(y_pred, table.target)
        except DataError as error:
            print(f"not compared with column {task.columns.target!r}: {error}")
        else:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in quality.items())
            print(f"compared with column {task.columns.target!r}: {figures}")
    return 0


def _content(kind: str, task: Task, labels: NDArray[Any], scores: NDArray[np.float64] | None) -> bytes:
    """The predictions as a file of this kind."""
    if kind == ".csv":
        text = io.StringIO()
        _write_csv(text, task, labels, scores)
        return text.getvalue().encode()
    content = io.BytesIO()
    if kind == ".npy":
        np.save(content, labels, allow_pickle=False)
    elif scores is None:
        np.savez(content, prediction=labels)
    else:
        np.savez(content, prediction=labels, scores=scores, classes=np.array(task.classes))
    return content.getvalue()


def _read_for_prediction(path: str, labels: str | None, task: Task) -> Table:
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


def _describe(settings: argparse.Namespace, data: Data, model: fastbp.MLP) -> None:
    task = data.task
    size = f"{_rows(sum(map(len, data.parts)))}, {len(task.columns.features)} features"
    if data.image is not None:
        size += f" ({' x '.join(map(str, data.image))} images)"
    target = f"target {task.columns.target!r}"
    if task.classes is None:
        target += " (a quantity)"
    else:
        shown = ", ".join(str(label) for label in task.classes[:10])
        more = ", ..." if len(task.classes) > 10 else ""
        target += f" with {len(task.classes)} classes ({shown}{more})"
    layers = "-".join(str(n) for n in model.layer_sizes)
    rate = settings.lr or LEARNING_RATES[settings.optimizer]
    schedule = "" if settings.schedule == "constant" else f", {settings.schedule}"
    print(f"data       {settings.data}: {size}, {target}")
    print(
        f"network    {layers}, {settings.activation}, {model.n_parameters:,} parameters in {settings.dtype}; "
        f"{settings.optimizer} with lr {rate:g}{schedule}",
        flush=True,
    )


def _what_was_done(settings: argparse.Namespace, history: fastbp.History, rows: int) -> str:
    text = (
        f"training   {_rows(rows)}, {history.epochs} epochs of batches of {settings.batch_size}, "
        f"{duration(history.seconds)}"
    )
    if history.stopped_early:
        text += "; stopped early"
    if history.best_epoch is not None:
        text += f"; the best epoch was {history.best_epoch}"
    if history.interrupted:
        text += "\n           interrupted"
        if settings.checkpoint is not None:
            text += f"; the same command goes on from {settings.checkpoint}"
    return text


def _quality_table(data: Data, model: fastbp.MLP, outputs: list[NDArray[Any]]) -> str:
    """Loss and measures of each part, and what the best constant answer would reach on the last one."""
    task, parts = data.task, data.parts
    lines = []
    for part, y_pred in zip(parts, outputs, strict=True):
        quality = task.quality(y_pred, part.target)
        loss = model.loss(part.X, part.Y)
        lines.append([part.name, str(len(part)), f"{loss:.4g}", *_figures(quality.values())])
    last, names = parts[-1], list(quality)
    if task.classes is None:
        mean = np.array(parts[0].target, dtype=np.float64).mean()
        quality = regression_quality(np.full(len(last), mean), np.array(last.target, dtype=np.float64))
        name = f"always {mean:.4g}"
    else:
        most = int(np.bincount(task.codes(parts[0].target)).argmax())
        quality = classification_quality(np.full(len(last), most), task.codes(last.target))
        name = f"always {task.classes[most]!r}"
    figures = [*_figures(quality.values()), *[""] * (len(names) - len(quality))]
    lines.append([f"({name}, for comparison)", str(len(last)), "", *figures])
    return text_table(["part", "rows", "loss", *names], lines)


def _figures(values: Iterable[float]) -> list[str]:
    return [f"{value:.4f}" if not abs(value) >= 10 else f"{value:,.4g}" for value in values]


def _rows(rows: int) -> str:
    return f"{rows:,} row" + ("" if rows == 1 else "s")


def _write_csv(file: IO[str], task: Task, labels: NDArray[Any], scores: NDArray[np.float64] | None) -> None:
    writer = csv.writer(file, lineterminator="\n")
    if scores is None:
        writer.writerow(["prediction"])
        writer.writerows([f"{value:.9g}"] for value in labels)
        return
    assert task.classes is not None
    writer.writerow(["prediction", *(f"score_{label}" for label in task.classes)])
    for label, row in zip(labels, scores, strict=True):
        writer.writerow([label, *(f"{score:.6f}" for score in row)])


def _refuse_same_file(out: str, *inputs: str, option: str = "--out") -> None:
    for path in inputs:
        if os.path.realpath(out) == os.path.realpath(path):
            raise DataError(f"{option} {out} would overwrite an input")
