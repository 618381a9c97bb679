"""`fastbp train` and `fastbp predict`: from a table to a model file, and from both to predictions."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp._files import check_writable, replacing, text_table
from fastbp._table_data import DataError, Table, read_for_prediction, read_for_training
from fastbp._task import Task, choose_kind, classification_quality, regression_quality, split_rows
from fastbp.cli import INTERRUPTED, LEARNING_RATES


def train(arguments: argparse.Namespace) -> int:
    check_writable(arguments.out)
    _refuse_same_file(arguments.out, arguments.data)
    table = read_for_training(arguments.data, arguments.target, arguments.drop)
    assert table.target is not None
    kind = choose_kind(table.target, table.columns.target) if arguments.task == "auto" else arguments.task
    rows = len(table)
    strata = None
    if kind == "classification":
        strata = Task.fit(table, np.arange(rows), kind).codes(table.target)
    train_rows, held_rows = split_rows(strata, rows, arguments.test_size, arguments.seed)
    task = Task.fit(table, train_rows, kind)

    X, Y = task.inputs(table), task.encode(table.target)
    X, Y = X.astype(arguments.dtype), Y.astype(arguments.dtype)
    if task.classes is None:
        output, loss = "identity", "mse"
    elif task.outputs == 1:
        output, loss = "sigmoid", "binary_crossentropy"
    else:
        output, loss = "softmax", "categorical_crossentropy"
    model = fastbp.MLP(
        [X.shape[1], *arguments.hidden, task.outputs],
        hidden=arguments.activation,
        output=output,
        loss=loss,
        dtype=arguments.dtype,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    model.metadata.update(task.to_metadata())
    _describe(arguments, table, task, model)
    optimizer_class = getattr(fastbp, arguments.optimizer)
    optimizer = optimizer_class(
        lr=arguments.lr or LEARNING_RATES[arguments.optimizer], weight_decay=arguments.weight_decay
    )
    history = model.fit(
        X[train_rows],
        Y[train_rows],
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        optimizer=optimizer,
        validation_data=(X[held_rows], Y[held_rows]) if len(held_rows) else None,
    )
    print(f"training   {_rows(train_rows)}, {len(history.loss)} epochs of batches of {arguments.batch_size}")
    if history.interrupted:
        print(f"           interrupted after {len(history.loss)} of {arguments.epochs} epochs")
    print()
    print(_quality_table(task, table, model, X, Y, train_rows, held_rows))
    model.save(arguments.out)
    print(f"\nwrote {arguments.out}")
    return INTERRUPTED if history.interrupted else 0


def predict(arguments: argparse.Namespace) -> int:
    if arguments.out is not None:
        check_writable(arguments.out)
        _refuse_same_file(arguments.out, arguments.data, arguments.model)
        if Path(arguments.out).suffix.lower() not in (".csv", ".npy", ".npz"):
            raise DataError(f"{arguments.out}: predictions can be written as .csv, .npy or .npz")
    if not Path(arguments.model).is_file():
        raise DataError(f"no such model file: {arguments.model}")
    model = fastbp.MLP.load(arguments.model)
    task = Task.from_metadata(arguments.model, model.metadata, model.layer_sizes[0], model.layer_sizes[-1])
    table = read_for_prediction(arguments.data, task.columns)
    y_pred = model.predict(task.inputs(table).astype(model.dtype))
    decided = task.decide(y_pred)
    labels = decided if task.classes is None else np.array(task.classes)[decided]
    scores = None if task.classes is None else task.scores(y_pred)
    if arguments.out is None:
        _write_csv(sys.stdout, task, labels, scores)
        return 0
    with replacing(arguments.out) as temporary:
        suffix = temporary.suffix.lower()
        if suffix == ".csv":
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                _write_csv(file, task, labels, scores)
        elif suffix == ".npy":
            np.save(temporary, labels, allow_pickle=False)
        elif scores is None:
            np.savez(temporary, prediction=labels)
        else:
            np.savez(temporary, prediction=labels, scores=scores, classes=np.array(task.classes))
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


def _describe(arguments: argparse.Namespace, table: Table, task: Task, model: fastbp.MLP) -> None:
    columns = f"{_rows(table)}, {len(task.columns.features)} features"
    if task.classes is None:
        print(f"data       {arguments.data}: {columns}, target {task.columns.target!r} (a quantity)")
    else:
        shown = ", ".join(str(label) for label in task.classes[:10])
        more = ", ..." if len(task.classes) > 10 else ""
        print(
            f"data       {arguments.data}: {columns}, target {task.columns.target!r} "
            f"with {len(task.classes)} classes ({shown}{more})"
        )
    parameters = sum(p.size for p in [*model.weights, *model.biases])
    layers = "-".join(str(size) for size in model.layer_sizes)
    print(
        f"network    {layers}, {arguments.activation}, {parameters:,} parameters in {arguments.dtype}; "
        f"{arguments.optimizer} with lr {arguments.lr or LEARNING_RATES[arguments.optimizer]:g}",
        flush=True,
    )


def _quality_table(
    task: Task,
    table: Table,
    model: fastbp.MLP,
    X: NDArray[Any],
    Y: NDArray[Any],
    train_rows: NDArray[np.intp],
    held_rows: NDArray[np.intp],
) -> str:
    """Loss and measures on both parts, and what the best constant answer would reach."""
    assert table.target is not None
    target = np.array(table.target)
    parts = [("training", train_rows)] + ([("held out", held_rows)] if len(held_rows) else [])
    lines = []
    for name, rows in parts:
        quality = task.quality(model.predict(X[rows]), _pick(table, rows))
        lines.append([name, str(len(rows)), f"{model.loss(X[rows], Y[rows]):.4g}", *_figures(quality)])
    rows = parts[-1][1]
    if task.classes is None:
        values = target.astype(np.float64)
        constant = values[train_rows].mean()
        quality = regression_quality(np.full(len(rows), constant), values[rows])
        name = f"always {constant:.4g}"
    else:
        codes = task.codes(table.target)
        constant = np.bincount(codes[train_rows]).argmax()
        quality = classification_quality(np.full(len(rows), constant), codes[rows])
        name = f"always {task.classes[constant]!r}"
    lines.append([f"({name}, for comparison)", str(len(rows)), "", *_figures(quality)])
    return text_table(["part", "rows", "loss", *quality], lines)


def _figures(quality: dict[str, float]) -> Iterable[str]:
    return (f"{value:.4f}" if abs(value) < 10 else f"{value:,.4g}" for value in quality.values())


def _pick(table: Table, rows: NDArray[np.intp]) -> list[str] | NDArray[np.float64]:
    assert table.target is not None
    return table.target[rows] if isinstance(table.target, np.ndarray) else [table.target[i] for i in rows]


def _rows(sized: Any) -> str:
    return f"{len(sized):,} row" + ("" if len(sized) == 1 else "s")


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


def _refuse_same_file(out: str, *inputs: str) -> None:
    for path in inputs:
        if os.path.realpath(out) == os.path.realpath(path):
            raise DataError(f"--out {out} would overwrite an input")
