"""`fastbp train --ensemble N`: networks that differ in their seed, in one file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastbp
from fastbp.cli.output import duration
from fastbp.cli.train import setup
from fastbp.cli.train.options import EPOCHS
from fastbp.tables.model import metadata
from fastbp.tables.parts import Data

# What `fit_many` does not offer.
WITHOUT = ("folds", "steps", "checkpoint", "plot")


def check(settings: argparse.Namespace) -> None:
    """ValueError for options that are for a single network."""
    for name in WITHOUT:
        if getattr(settings, name) is not None:
            raise ValueError(f"--{name} is for a single network, not for --ensemble")


def networks(settings: argparse.Namespace, data: Data) -> fastbp.Ensemble:
    """As many as are asked for, with seeds from --seed on."""
    models = []
    for i in range(settings.ensemble):
        options = argparse.Namespace(**{**vars(settings), "seed": settings.seed + i})
        models.append(setup.network(options, data))
        models[-1].metadata.update(metadata(data.columns, data.answer, standardised_outside=True))
    return fastbp.Ensemble(models)


def fit(
    settings: argparse.Namespace,
    data: Data,
    ensemble: fastbp.Ensemble,
    optimizer: Any,
    callbacks: Sequence[fastbp.EarlyStopping],
    class_weights: Any,
) -> list[fastbp.History]:
    training, validation = data.training, data.validation
    return ensemble.fit(
        training.X,
        training.Y,
        epochs=settings.epochs or EPOCHS,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        shuffle=settings.shuffle,
        optimizers=optimizer,
        sample_weight=training.weights,
        class_weight=class_weights,
        validation_data=None if validation is None else (validation.X, validation.Y),
        metrics=setup.watched_metrics(settings, data.answer),
        callbacks=list(callbacks),
        threads=settings.threads,
    )


def what_was_done(settings: argparse.Namespace, histories: Sequence[fastbp.History], rows: int) -> str:
    epochs = [history.epochs for history in histories]
    said = f"{epochs[0]}" if len(set(epochs)) == 1 else f"{min(epochs)} to {max(epochs)}"
    text = (
        f"training   {len(histories)} networks, {rows:,} rows, {said} epochs of batches of "
        f"{settings.batch_size}, {duration(sum(history.seconds for history in histories))} of one core"
    )
    early = sum(history.stopped_early for history in histories)
    return text + (f"; {early} stopped early" if early else "")


def loss(ensemble: fastbp.Ensemble, X: Any, Y: Any) -> float:
    """The mean of the networks' losses."""
    networks: tuple[Any, ...] = ensemble.models
    return float(np.mean([model.loss(X, Y) for model in networks]))
