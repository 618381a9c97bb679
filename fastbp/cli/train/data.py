"""What `fastbp train` reads, and its parts: rows to train on, to watch, and to hold out for the end."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.cli.tables import idx
from fastbp.cli.tables.reading import read_for_prediction, read_for_training
from fastbp.cli.tables.table import Table
from fastbp.cli.train.options import TEST_SIZE
from fastbp.cli.train.task import Task, scaling_of_images, split_rows
from fastbp.tables.targets import Target, check_classes, choose_kind

Array = NDArray[Any]


@dataclass(frozen=True)
class Part:
    """Some of the rows, as the network gets them."""

    name: str
    X: Array  # (rows, features), of the network's dtype; images as they are stored
    Y: Array  # (rows, outputs), of the network's dtype
    target: Target  # (rows,), as it was read
    weights: NDArray[np.float64] | None  # (rows,)

    def __len__(self) -> int:
        return len(self.X)


@dataclass(frozen=True)
class Data:
    task: Task
    training: Part
    validation: Part | None
    held_out: Part | None
    image: tuple[int, ...] | None  # the shape of an image, where each row is one
    scaling: tuple[float, float]  # scale and offset that the network applies to its inputs

    @property
    def parts(self) -> list[Part]:
        return [part for part in (self.training, self.validation, self.held_out) if part is not None]


def load(settings: argparse.Namespace) -> Data:
    """Read the files and divide the rows. DataError if that does not work."""
    table, test = _read(settings)
    assert table.target is not None
    kind = _kind(table) if settings.task == "auto" else settings.task
    if kind == "classification":
        check_classes(table.target, table.columns.target)
    rows = np.arange(len(table))
    strata = Task.fit(table, rows, kind).codes(table.target) if kind == "classification" else None
    training, held = rows, rows[:0]
    if test is None:
        share = TEST_SIZE if settings.test_size is None else settings.test_size
        training, held = split_rows(strata, len(table), share, settings.seed)
    watched = held[:0]
    if settings.validation:
        within = None if strata is None else strata[training]
        seed = (settings.seed, 1)  # not the draw that chose the rows to hold out
        kept, out = split_rows(within, len(training), settings.validation, seed, "--validation")
        training, watched = training[kept], training[out]
    task = Task.fit(table, training, kind)

    def part(name: str, of: Table) -> Part | None:
        return _part(name, of, task, settings.dtype) if len(of) else None

    first = _part("training", table.pick(training), task, settings.dtype)
    validation = part("validation", table.pick(watched))
    try:
        held_out = part("held out", table.pick(held) if test is None else test)
    except DataError as error:
        raise DataError(f"{settings.test}: {error}" if test is not None else str(error)) from None
    scaling = (1.0, 0.0) if table.image is None else scaling_of_images(first.X)
    return Data(task, first, validation, held_out, table.image, scaling)


def _part(name: str, table: Table, task: Task, dtype: str) -> Part:
    assert table.target is not None
    X, Y = task.inputs(table), task.encode(table.target).astype(dtype)
    return Part(name, X if table.image else X.astype(dtype), Y, table.target, table.weights)


def _kind(table: Table) -> str:
    """Whole numbers that images are labelled with are classes, however many."""
    target = table.target
    assert target is not None
    if table.image is not None and isinstance(target, np.ndarray) and (target == np.floor(target)).all():
        return "classification"
    return choose_kind(target, table.columns.target)


def _read(settings: argparse.Namespace) -> tuple[Table, Table | None]:
    """The data, and what --test names (or a folder has)."""
    if settings.data is None:
        raise DataError("DATA is needed: a file or folder to train on")
    if Path(settings.data).is_dir():
        _refuse(settings, "a folder with four IDX files", "target", "drop", "weights", "labels")
        _refuse(settings, "a folder with a test part of its own", "test", "test_labels", "test_size")
        (images, labels), (test_images, test_labels) = idx.find(settings.data)
    elif idx.is_idx(settings.data):
        _refuse(settings, "an IDX file", "target", "drop", "weights")
        images, labels, test_images, test_labels = (
            settings.data,
            settings.labels,
            settings.test,
            settings.test_labels,
        )
        if labels is None or (test_images is not None and test_labels is None):
            option, of = ("--labels", images) if labels is None else ("--test-labels", test_images)
            raise DataError(f"{option} is needed: the IDX file with a label for each image of {of}")
    else:
        return _read_tables(settings)
    table = idx.read_table(images, labels)
    if test_images is None:
        return table, None
    test = idx.read_table(test_images, test_labels)
    _require_alike(table, test, test_images)
    return table, test


def _read_tables(settings: argparse.Namespace) -> tuple[Table, Table | None]:
    _refuse(settings, "a table", "labels", "test_labels")
    if settings.target is None:
        raise DataError("--target is needed: the column to predict")
    table = read_for_training(settings.data, settings.target, settings.drop or [], settings.weights)
    if settings.test is None:
        return table, None
    test = read_for_prediction(settings.test, table.columns)
    if test.target is None:
        raise DataError(f"{settings.test} has no target {table.columns.target!r} to compare predictions with")
    return table, test


def _refuse(settings: argparse.Namespace, data: str, *attributes: str) -> None:
    for attribute in attributes:
        if getattr(settings, attribute) is not None:
            raise DataError(f"--{attribute.replace('_', '-')} is not for {settings.data}, {data}")


def _require_alike(table: Table, test: Table, path: str) -> None:
    expected, found = (t.image or t.features.shape[1:] for t in (table, test))
    if found != expected:
        raise DataError(f"{path} has rows of shape {found}, those to train on have {expected}")
