"""`fastbp train`: from a table or images to a model file, and a report of what came out."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Sequence
from typing import Any

import fastbp
from fastbp.cli import errors, files, output, pictures
from fastbp.cli.errors import DataError
from fastbp.cli.output import duration
from fastbp.cli.train import data as train_data
from fastbp.cli.train import ensemble, folds, picture, report, setup
from fastbp.cli.train.options import EPOCHS, LEARNING_RATES
from fastbp.mpi.communicator import Communicator, joined
from fastbp.optimizer_base import Optimizer
from fastbp.tables.model import complete, metadata
from fastbp.tables.parts import Data
from fastbp.training.checkpoint import OtherTraining

SHARDS_OF_RANKS = 8


def train(settings: argparse.Namespace) -> int:
    """Train, write the model, report; return the exit code. With --mpi rank 0 writes and reports."""
    if not settings.mpi:
        return _train(settings, None)
    comm = _world()
    if comm.rank == 0:
        with joined(comm) as ranks:
            return _train(settings, ranks)
    try:
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), joined(comm) as ranks:
            return _train(settings, ranks)
    except Exception:  # rank 0 says what has happened, wherever it was
        if os.environ.get("FASTBP_TRACEBACK"):
            raise
        return errors.REFUSED


def _world() -> Any:
    """All ranks that mpiexec has started. ImportError says what is missing."""
    try:
        from mpi4py import MPI
    except ImportError:
        raise ImportError("--mpi needs mpi4py: pip install 'fastbp[mpi]'") from None
    return MPI.COMM_WORLD


def _train(settings: argparse.Namespace, ranks: Communicator | None) -> int:
    _check_outputs(settings)
    output.progress(f"reading {settings.data} ...")
    data = train_data.load(settings)
    output.progress("")
    folds.check(settings, data)
    answer = data.answer
    if settings.ensemble is not None:
        return _train_ensemble(settings, data)
    model = setup.network(settings, data)
    model.metadata.update(metadata(data.columns, answer, standardised_outside=True))
    columns = setup.columns(settings, answer)
    optimizer = setup.optimizer(settings, data, columns)
    callbacks = setup.callbacks(settings, columns)
    class_weights = setup.class_weights(settings, answer)
    _describe(settings, data, model)
    diverged: FloatingPointError | None = None
    try:
        history = _fit(settings, data, model, optimizer, callbacks, class_weights, ranks)
    except FloatingPointError as error:
        so_far: fastbp.History | None = getattr(error, "history", None)
        if so_far is None or so_far.best_epoch is None:
            raise
        history, diverged = so_far, error  # the model has the best epoch's parameters
    if ranks is not None and ranks.rank:
        return errors.OK
    complete(model, data).save(settings.out)  # before anything else can go wrong
    print(_what_was_done(settings, history, len(data.training)) + "\n")
    outputs = [model.predict(part.X) for part in data.parts]
    print(report.quality_table(data, [model.loss(part.X, part.Y) for part in data.parts], outputs))
    if data.image is None:
        print("\n" + report.columns_table(data, model, settings))
    if settings.folds is not None:
        print("\n" + folds.cross_validate(settings, _fold))
    print(f"\nwrote {settings.out}")
    if settings.plot is not None:
        picture.draw(settings.plot, settings.data, model, history, data, outputs[-1])
        print(f"wrote {settings.plot}")
    if diverged is not None:
        output.complain(
            f"{settings.out} has the best epoch, {history.best_epoch}, but training diverged after it: "
            + errors.one_line(diverged)
        )
        return errors.NOT_AS_EXPECTED
    return errors.INTERRUPTED if history.interrupted else errors.OK


def _train_ensemble(settings: argparse.Namespace, data: Data) -> int:
    """The same with several networks, in one file."""
    networks = ensemble.networks(settings, data)
    columns = setup.columns(settings, data.answer)
    optimizer = setup.optimizer(settings, data, columns)
    callbacks = setup.callbacks(settings, columns)
    class_weights = setup.class_weights(settings, data.answer)
    _describe(settings, data, setup.network(settings, data))
    histories = ensemble.fit(settings, data, networks, optimizer, callbacks, class_weights)
    fastbp.Ensemble([complete(network, data).network for network in networks]).save(settings.out)
    print(ensemble.what_was_done(settings, histories, len(data.training)) + "\n")
    outputs = [networks.mean(part.X) for part in data.parts]
    losses = [ensemble.loss(networks, part.X, part.Y) for part in data.parts]
    print(report.quality_table(data, losses, outputs))
    print(f"\nwrote {settings.out}: {len(networks)} networks")
    if any(history.diverged for history in histories):
        return errors.NOT_AS_EXPECTED
    return errors.INTERRUPTED if any(history.interrupted for history in histories) else errors.OK


def _fold(settings: argparse.Namespace, data: Data) -> dict[str, float]:
    """Train on one fold's data, and measure the part that is held out."""
    model = setup.network(settings, data)
    columns = setup.columns(settings, data.answer)
    optimizer = setup.optimizer(settings, data, columns)
    callbacks = setup.callbacks(settings, columns)
    _fit(settings, data, model, optimizer, callbacks, setup.class_weights(settings, data.answer))
    part = data.parts[-1]
    return data.answer.quality(model.predict(part.X), part.target, standardised=True)


def _fit(
    settings: argparse.Namespace,
    data: Data,
    model: fastbp.MLP,
    optimizer: Optimizer,
    callbacks: Sequence[fastbp.EarlyStopping],
    class_weights: str | dict[int, float] | None,
    ranks: Communicator | None = None,
) -> fastbp.History:
    training, validation = data.training, data.validation
    try:
        return model.fit(
            training.X,
            training.Y,
            epochs=None if settings.steps else settings.epochs or EPOCHS,
            steps=settings.steps,
            batch_size=settings.batch_size,
            accumulate=settings.accumulate,
            shards=settings.shards or (SHARDS_OF_RANKS if settings.mpi else 1),
            comm=ranks,
            shuffle=settings.shuffle,
            optimizer=optimizer,
            sample_weight=training.weights,
            class_weight=class_weights,
            validation_data=None if validation is None else (validation.X, validation.Y),
            metrics=setup.watched_metrics(settings, data.answer),
            callbacks=callbacks,
            checkpoint=settings.checkpoint,
            every=settings.every,
        )
    except OtherTraining as error:
        raise DataError(_refusal(error)) from None


# What `fit` calls that which a checkpoint is compared by, and the options that it is made of.
OPTIONS_OF_SETTINGS = {
    "X": "the data",
    "Y": "the data",
    "validation_data": "the data or --validation",
    "sample_weight": "--weights",
    "class_weight": "--class-weights",
    "callbacks": "--patience",
    "optimizer.lr": "the learning rate",
    "model.layer_sizes": "--hidden or the columns",
    "model.hidden": "--activation",
    "model.input_scale": "the data",
    "model.input_offset": "the data",
}


def _refusal(error: OtherTraining) -> str:
    """Why a checkpoint is not gone on from, and what to do, in one sentence."""
    options: dict[str, str] = {}
    for difference in error.differences:
        name, _, what = difference.partition(": ")
        section, _, own = name.partition(".")
        option = OPTIONS_OF_SETTINGS.get(name) or OPTIONS_OF_SETTINGS.get(section)
        if option is None:
            option = f"--{(own or section).replace('_', '-')}"
        if option.startswith("the data") or len(what) > 60:
            what = ""
        options.setdefault(option, f"{option} ({what})" if what else option)
    return (
        f"{error.path} is the checkpoint of another training, which differs in "
        f"{', '.join(options.values())}: give what was given then, or start anew with another file as "
        "--checkpoint"
    )


def _check_outputs(settings: argparse.Namespace) -> None:
    """Raise now, rather than after minutes of training, if a file cannot be written."""
    if settings.out is None:
        raise ValueError("--out is needed: the model file to write")
    if settings.ensemble is not None:
        ensemble.check(settings)
    if settings.plot is not None:
        pictures.check(settings.plot)
    files.check_outputs(
        {f"--{option}": getattr(settings, option) for option in ("out", "plot", "checkpoint")},
        (settings.data, settings.labels, settings.test, settings.test_labels, settings.config),
    )


def _describe(settings: argparse.Namespace, data: Data, model: fastbp.MLP) -> None:
    answer = data.answer
    size = f"{_rows(sum(map(len, data.parts)))}, {len(data.columns.features)} features"
    if data.image is not None:
        size += f" ({' x '.join(map(str, data.image))} images)"
    target = f"target {answer.name!r}"
    if answer.classes is None:
        target += " (a quantity)"
    else:
        shown = ", ".join(str(label) for label in answer.classes[:10])
        more = ", ..." if len(answer.classes) > 10 else ""
        target += f" with {len(answer.classes)} classes ({shown}{more})"
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


def _rows(rows: int) -> str:
    return f"{rows:,} row" + ("" if rows == 1 else "s")
