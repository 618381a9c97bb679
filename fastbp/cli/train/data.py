"""What `fastbp train` reads, and its parts: rows to train on, to watch, and to hold out for the end."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.cli.tables import idx
from fastbp.cli.tables.reading import is_array, read_for_prediction, read_for_training, table_file
from fastbp.cli.tables.table import Table
from fastbp.cli.train.options import TEST_SIZE
from fastbp.tables import parts
from fastbp.tables.answer import Answer
from fastbp.tables.columns import MAX_COLUMNS, Columns
from fastbp.tables.files.reading import FileSource
from fastbp.tables.kinds import Number, Scale
from fastbp.tables.learning import Line, Numbers
from fastbp.tables.parts import Choices, Data, Part
from fastbp.tables.targets import check_classes, choose_kind, picked, quantities

ROWS_AT_ONCE = 4096  # of images whose spread is computed
# Options that arrays and images have no use for.
OF_NAMED_COLUMNS = ("separator", "decimal", "encoding", "dates", "rare", "max_columns", "missing_target")


def load(settings: argparse.Namespace) -> Data:
    """Read the files and divide the rows. DataError if that does not work."""
    if settings.data is None:
        raise DataError("DATA is needed: a file or folder to train on")
    if Path(settings.data).is_dir() or idx.is_idx(settings.data):
        return _of_arrays(settings, *_read_images(settings))
    _refuse(settings, "a table", "labels", "test_labels")
    if settings.target is None:
        raise DataError("--target is needed: the column to predict")
    if is_array(settings.data):
        return _of_arrays(settings, *_read_arrays(settings))
    source = source_of(settings.data, settings)
    source.check_header(settings.target)
    source.check_names([*(settings.drop or []), settings.target, settings.weights])
    chosen = choices(settings)
    looked = parts.look(source, chosen)
    division = parts.division_of(looked.target, looked.kind, chosen, _fold(settings))
    data = parts.assemble(source, chosen, looked, division)
    return data if settings.test is None else _with_test(settings, data)


def _fold(settings: argparse.Namespace) -> tuple[int, int] | None:
    """Of the cross-validation, the number of the fold whose rows are held out, and how many there are."""
    fold: int | None = getattr(settings, "fold", None)
    return None if fold is None else (fold, settings.folds)


def choices(settings: argparse.Namespace) -> Choices:
    share = TEST_SIZE if settings.test_size is None else settings.test_size
    return Choices(
        settings.target,
        drop=tuple(settings.drop or ()),
        weights=settings.weights,
        task=settings.task,
        test_size=share if settings.test is None else 0.0,
        validation=settings.validation,
        dates=settings.dates,
        rare=settings.rare,
        max_columns=settings.max_columns or MAX_COLUMNS,
        missing_target=settings.missing_target,
        seed=settings.seed,
        dtype=settings.dtype,
    )


def source_of(path: str, settings: argparse.Namespace) -> FileSource:
    """A table in a file that is read by pandas."""
    return FileSource(
        table_file(path), separator=settings.separator, decimal=settings.decimal, encoding=settings.encoding
    )


def _with_test(settings: argparse.Namespace, data: Data) -> Data:
    """The data, with the table that --test names as the part that is held out."""
    if is_array(settings.test):
        raise DataError(f"{settings.test} is an array, {settings.data} a table with names: give a table")
    source = source_of(settings.test, settings)
    try:
        return parts.held_out_of(source, data, settings.dtype)
    except DataError as error:
        raise DataError(_of_file(settings.test, error)) from None


def _of_file(path: str, error: Exception) -> str:
    return str(error) if str(error).startswith(path) else f"{path}: {error}"


# ---- arrays ----------------------------------------------------------------------------------------------


def _of_arrays(settings: argparse.Namespace, table: Table, test: Table | None) -> Data:
    assert table.target is not None
    _refuse(settings, "which holds numbers without names", *OF_NAMED_COLUMNS)
    name = table.columns.target
    kind = _kind(table) if settings.task == "auto" else settings.task
    if kind == "classification":
        check_classes(table.target, name)
    chosen = replace(choices(settings), target=name, test_size=0.0 if test else choices(settings).test_size)
    division = parts.division_of(table.target, kind, chosen, _fold(settings))
    columns, answer = _learn(table, division.training, kind)
    made = [
        _part(part, table.pick(at), columns, answer, settings.dtype) if len(at) else None
        for part, at in zip(("training", "validation", "held out"), division, strict=True)
    ]
    if test is not None:
        try:
            made[2] = _part("held out", test, columns, answer, settings.dtype)
        except DataError as error:
            raise DataError(f"{settings.test}: {error}") from None
    assert made[0] is not None
    scaling = (1.0, 0.0) if table.image is None else scaling_of_images(made[0].X)
    return Data(columns, answer, made[0], made[1], made[2], table.image, scaling)


def _learn(table: Table, training: parts.Rows, kind: str) -> tuple[Columns, Answer]:
    """Of arrays every column is kept, so that the network's inputs are those of the array."""
    assert table.target is not None
    features, lines = [], []
    for i, name in enumerate(table.columns.features):
        numbers = Numbers(name)
        if table.image is None:
            numbers.add_numbers(table.features[training, i])
            lines.append(Line(name, "standardised", numbers.values(), 0))
        scale = Scale() if table.image else numbers.scale()
        features.append(Number(name, scale, None, False))
    columns = Columns([*features], table.columns.target, table.columns.named, table.columns.width, lines)
    if kind == "classification":
        return columns, Answer.of_classes(table.target, columns.target)
    values = quantities(picked(table.target, training), columns.target)
    return columns, Answer.of_quantity(values, columns.target)


def _part(name: str, table: Table, columns: Columns, answer: Answer, dtype: str) -> Part:
    assert table.target is not None
    X = table.features
    if table.image is None:
        scales = columns.scales
        X = (X - [scale.mean for scale in scales]) / [scale.spread for scale in scales]
        X = X.astype(dtype)
    return Part(name, X, answer.encode(table.target, dtype), table.target, table.weights)


def _kind(table: Table) -> str:
    """Whole numbers that images are labelled with are classes, however many."""
    target = table.target
    assert target is not None
    if table.image is not None and isinstance(target, np.ndarray) and (target == np.floor(target)).all():
        return "classification"
    return choose_kind(target, table.columns.target)


def _read_arrays(settings: argparse.Namespace) -> tuple[Table, Table | None]:
    table = read_for_training(settings.data, settings.target, settings.drop or [], settings.weights)
    if settings.test is None:
        return table, None
    test = read_for_prediction(settings.test, table.columns)
    if test.target is None:
        raise DataError(f"{settings.test} has no target {table.columns.target!r} to compare predictions with")
    return table, test


def _read_images(settings: argparse.Namespace) -> tuple[Table, Table | None]:
    """The data, and what --test names (or a folder has)."""
    if Path(settings.data).is_dir():
        _refuse(settings, "a folder with four IDX files", "target", "drop", "weights", "labels")
        _refuse(settings, "a folder with a test part of its own", "test", "test_labels", "test_size", "folds")
        (images, labels), (test_images, test_labels) = idx.find(settings.data)
    else:
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
    table = idx.read_table(images, labels)
    if test_images is None:
        return table, None
    test = idx.read_table(test_images, test_labels)
    _require_alike(table, test, test_images)
    return table, test


def scaling_of_images(values: NDArray[Any]) -> tuple[float, float]:
    """(scale, offset) such that all of values * scale + offset together have mean 0 and spread 1.

    One for all pixels: a pixel that is nearly always dark would have a spread of nearly 0.
    """
    blocks = [values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE)]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / values.size
    squares = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks)
    scale = 1 / math.sqrt(squares / values.size) if squares else 1.0
    if not (math.isfinite(mean) and math.isfinite(squares)):
        raise DataError("the images' values are too large to be standardised in float64")
    return scale, -mean * scale


def _refuse(settings: argparse.Namespace, data: str, *attributes: str) -> None:
    for attribute in attributes:
        if getattr(settings, attribute) not in (None, False, "refuse"):  # which are the defaults
            raise DataError(f"--{attribute.replace('_', '-')} is not for {settings.data}, {data}")


def _require_alike(table: Table, test: Table, path: str) -> None:
    expected, found = (t.image or t.features.shape[1:] for t in (table, test))
    if found != expected:
        raise DataError(f"{path} has rows of shape {found}, those to train on have {expected}")
