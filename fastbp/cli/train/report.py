"""The report of `fastbp train`: the measures of each part, and for each column what it is worth."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.cli.output import text_table
from fastbp.tables.parts import Data
from fastbp.tables.targets import picked

IMPORTANCE_ROWS = 50_000  # of the last part, at most, of which columns are shuffled
SHOWN = 60  # columns with a line of their own; of more, those that matter most


def quality_table(data: Data, losses: list[float], outputs: list[NDArray[Any]]) -> str:
    """Loss and measures of each part, and what the best constant answer would reach on the last one."""
    answer, parts = data.answer, data.parts
    lines = []
    for part, loss, y_pred in zip(parts, losses, outputs, strict=True):
        quality = answer.quality(y_pred, part.target, standardised=True)
        lines.append([part.name, str(len(part)), f"{loss:.4g}", *figures(quality.values())])
    names = list(quality)
    name, of_constant = answer.baseline(parts[0].target, parts[-1].target)
    cells = [*figures(of_constant.values()), *[""] * (len(names) - len(of_constant))]
    lines.append([f"({name}, for comparison)", str(len(parts[-1])), "", *cells])
    return text_table(["part", "rows", "loss", *names], lines)


def figures(values: Iterable[float]) -> list[str]:
    return [f"{value:.4f}" if not abs(value) >= 10 else f"{value:,.4g}" for value in values]


def main_measure(data: Data) -> str:
    return "R2" if data.answer.classes is None else "accuracy"


def importance(data: Data, model: fastbp.MLP, seed: int) -> dict[str, float]:
    """By how much R2 or the accuracy of the last part falls if the values of a column are shuffled.

    Permutation importance, Breiman, Machine Learning 45 (2001) 5: a column's inputs change their rows
    together, the others stay. One prediction for each column; NaN where the measure is none.
    """
    part, name = data.parts[-1], main_measure(data)
    rng = np.random.default_rng((seed, 3))
    rows = np.arange(len(part))
    if len(rows) > IMPORTANCE_ROWS:
        rows = np.sort(rng.choice(rows, IMPORTANCE_ROWS, replace=False))
    X = np.ascontiguousarray(part.X[rows])
    target = picked(part.target, rows)

    def measure() -> float:
        return data.answer.quality(model.predict(X), target, standardised=True)[name]

    whole, order = measure(), rng.permutation(len(rows))
    found = {}
    for column, block in data.columns.blocks().items():
        kept = X[:, block].copy()
        X[:, block] = kept[order]
        found[column] = whole - measure()
        X[:, block] = kept
    return found


def columns_table(data: Data, model: fastbp.MLP, settings: argparse.Namespace) -> str:
    """A line for each column of a table: what was done with it, and what it is worth."""
    worth, lines = importance(data, model, settings.seed), data.columns.lines
    if len(lines) > SHOWN:
        best = sorted(lines, key=lambda line: -worth.get(line.name, -np.inf))[:SHOWN]
        lines = [line for line in lines if line in best]
    rows = [
        [
            line.name,
            f"{line.values:,}",
            f"{line.missing:,}",
            f"{worth[line.name]:.4f}" if line.name in worth else "-",
            line.what,
        ]
        for line in lines
    ]
    fall = f"{main_measure(data)} lost if shuffled"
    more = len(data.columns.lines) - len(lines)
    table = text_table(["column", "values", "missing", fall, "what becomes of it"], rows)
    return table + (f"\n({more} columns that matter less)" if more else "")
