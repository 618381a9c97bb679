"""`fastbp sweep`: which hyper-parameters are best for a table, by cross-validation."""

from __future__ import annotations

import argparse
import io
import itertools
import tomllib
from pathlib import Path
from typing import Any

import fastbp
from fastbp.cli import errors, files, output, pictures
from fastbp.cli.errors import DataError
from fastbp.cli.train import data as train_data
from fastbp.cli.train import setup
from fastbp.cli.train.options import EPOCHS, TRAIN
from fastbp.storage import atomic
from fastbp.tables.model import complete


def sweep(settings: argparse.Namespace) -> int:
    """Train every configuration on every fold, show the table, write the best; return the exit code."""
    if settings.grid is None:
        raise ValueError("--grid is needed: a TOML file with lists of values, such as lr = [0.001, 0.01]")
    if settings.plot is not None:
        pictures.check(settings.plot)
    outputs = {"--out": settings.out, "--plot": settings.plot}
    files.check_outputs(outputs, (settings.data, settings.labels, settings.test, settings.grid))
    grid = read_grid(settings.grid)
    for option in itertools.chain.from_iterable(TRAIN.values()):  # what a sweep has no options for
        vars(settings).setdefault(option.attribute, option.default)
    output.progress(f"reading {settings.data} ...")
    data = train_data.load(settings)
    output.progress("")
    table = fastbp.sweep(
        setup.network(settings, data),
        grid,
        data.training.X,
        data.training.Y,
        cv=settings.cv,
        metric=settings.metric or ("r2" if data.answer.classes is None else "accuracy"),
        epochs=settings.epochs or EPOCHS,
        batch_size=settings.batch_size,
        optimizer=setup.optimizer(settings, data, ["loss"]),
        random=settings.random,
        halving=settings.halving,
        seed=settings.seed,
        threads=settings.threads,
    )
    print(f"{len(table)} configurations on {settings.cv} folds of {len(data.training):,} rows, best first:")
    print(table.text(settings.top))
    if settings.plot is not None:
        content = io.BytesIO()
        table.plot().savefig(content, format=Path(settings.plot).suffix[1:].lower())
        atomic.write(settings.plot, content.getvalue())
        print(f"wrote {settings.plot}")
    if settings.out is not None:
        model: Any = table.fit(data.training.X, data.training.Y)
        complete(model, data).save(settings.out)
        if data.held_out is not None:
            quality = data.answer.quality(
                model.predict(data.held_out.X), data.held_out.target, standardised=True
            )
            figures = ", ".join(f"{name} {value:.4g}" for name, value in quality.items())
            print(f"the best, trained on all {len(data.training):,} rows, on those held out: {figures}")
        print(f"wrote {settings.out}")
    return errors.OK


def read_grid(path: str) -> dict[str, Any]:
    """The lists in a TOML file. DataError if it is none, or has something else than lists."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    for name, values in content.items():
        if not isinstance(values, list):
            raise DataError(f"{path}: {name} must be a list of values: {name} = [...]")
    return content
