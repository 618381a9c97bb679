"""`fastbp train --folds N`: how good such a network is, by cross-validation."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from fastbp.cli import output
from fastbp.cli.errors import DataError
from fastbp.cli.output import text_table
from fastbp.cli.train import data as train_data
from fastbp.cli.train.report import figures
from fastbp.tables.parts import Data

# Trains a network on such data, and returns the measures of its last part.
Train = Callable[[argparse.Namespace, Data], dict[str, float]]


def check(settings: argparse.Namespace, data: Data) -> None:
    """DataError, before anything is trained, for more folds than there are rows."""
    rows = sum(map(len, data.parts))
    if settings.folds is not None and settings.folds > rows:
        raise DataError(f"--folds {settings.folds} is more than there are rows, {rows}")


def cross_validate(settings: argparse.Namespace, train: Train) -> str:
    """Mean and spread of the measures over the folds, as a table.

    Each fold is held out once; everything, the columns' means and categories too, is learnt from the others.
    """
    found: list[dict[str, float]] = []
    for fold in range(settings.folds):
        output.progress(f"fold {fold + 1} of {settings.folds} ...")
        without_files = {**vars(settings), "checkpoint": None, "every": None, "plot": None}
        chosen = argparse.Namespace(**without_files, fold=fold)
        found.append(train(chosen, train_data.load(chosen)))
    output.progress("")
    rows = []
    for name in found[0]:
        values = np.array([measures[name] for measures in found])
        rows.append([name, *figures([values.mean(), values.std(ddof=1), values.min(), values.max()])])
    return text_table([f"{settings.folds} folds", "mean", "spread", "least", "most"], rows)
