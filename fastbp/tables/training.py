"""`fastbp.train_table`: from a DataFrame to a model that predicts on the next one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastbp import losses
from fastbp.callbacks import Callback, EarlyStopping
from fastbp.model import MLP
from fastbp.optimizer_base import Optimizer
from fastbp.optimizers import Adam
from fastbp.tables.answer import Answer
from fastbp.tables.columns import MAX_COLUMNS
from fastbp.tables.model import TableModel, complete, metadata
from fastbp.tables.parts import (
    TEST_SIZE,
    Choices,
    Data,
    FrameSource,
    assemble,
    division_of,
    look,
)

EPOCHS, HIDDEN = 50, (64,)


def train_table(
    frame: Any,
    *,
    target: str,
    hidden: Sequence[int] = HIDDEN,
    epochs: int = EPOCHS,
    batch_size: int = 32,
    optimizer: Optimizer | None = None,
    drop: Sequence[str] = (),
    weights: str | None = None,
    task: str = "auto",
    test_size: float = TEST_SIZE,
    validation: float = 0.0,
    patience: int | None = None,
    dates: bool = False,
    rare: int | None = None,
    max_columns: int = MAX_COLUMNS,
    missing_target: str = "refuse",
    class_weight: Any = None,
    seed: int = 0,
    dtype: str = "float32",
    activation: str = "relu",
    loss: str | None = None,
    dropout: float | Sequence[float] = 0.0,
    threads: int | None = None,
    callbacks: Callback | Sequence[Callback] = (),
    progress: bool = True,
) -> TableModel:
    """Train a network on a table, as `fastbp train` does on a file.

    Parameters
    ----------
    frame : a DataFrame. Numbers are standardised, texts and categories become an input of 0 or 1 for each
        value, missing values have a mark of their own: `print(model.columns)` has a line for each column.
    target : the column to predict. Text, True and False, and whole numbers of few values are classes, other
        numbers a quantity.
    hidden, activation, loss, dropout, dtype, threads : of the network, see `MLP`; loss None: by the task.
    epochs, batch_size, class_weight, callbacks, progress : of the training, see `MLP.fit`.
    optimizer : None: Adam with a learning rate that suits standardised columns.
    drop : columns that are left out.
    weights : the column with the rows' weights in training.
    task : "auto", "classification" or "regression".
    test_size : the share of the rows that are held out to judge the model by (`model.quality`); 0: none.
    validation : the share of the others that are watched during training.
    patience : stop after so many epochs in which the loss of those has not improved, and keep the best one.
    dates, rare, max_columns : see `Columns.learn`.
    missing_target : "refuse" rows whose target is missing, or "drop" them.
    seed : of the split, weights and batches.

    Raises ValueError (as DataError for what is in the table) or TypeError before anything is trained.
    Everything is learnt from the rows to train on alone. Needs pandas: pip install 'fastbp[table]'.
    """
    watching = _watching(callbacks, patience, validation)
    of_table = (weights, task, test_size, validation, dates, rare, max_columns, missing_target, seed, dtype)
    choices = Choices(target, tuple(drop), *of_table)
    data = of_frame(frame, choices)
    output, loss = output_and_loss(data.answer, loss)
    network = MLP(
        [len(data.columns.outputs), *hidden, data.answer.outputs],
        hidden=activation,
        output=output,
        loss=loss,
        dtype=dtype,
        seed=seed,
        threads=threads,
        dropout=dropout,
    )
    network.metadata = metadata(data.columns, data.answer, standardised_outside=True)
    training, watched = data.training, data.validation
    history = network.fit(
        training.X,
        training.Y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=Adam(Adam.rate_for_tables) if optimizer is None else optimizer,
        sample_weight=training.weights,
        class_weight=class_weight,
        validation_data=None if watched is None else (watched.X, watched.Y),
        callbacks=watching,
        progress=progress,
    )
    model = complete(network, data)
    model.history, model.quality = history, quality(network, data)
    return model


def _watching(
    callbacks: Callback | Sequence[Callback], patience: int | None, validation: float
) -> list[Callback]:
    """The callbacks, and what ends the training early if that is asked for."""
    given = [*callbacks] if isinstance(callbacks, Sequence) else [callbacks]
    if patience is None:
        return given
    if not validation:
        raise ValueError("patience looks at the validation loss: give validation, the share of rows, as well")
    return [*given, EarlyStopping("val_loss", patience=patience)]


def of_frame(frame: Any, choices: Choices) -> Data:
    """The parts of a DataFrame."""
    source = FrameSource(frame)
    looked = look(source, choices)
    return assemble(source, choices, looked, division_of(looked.target, looked.kind, choices))


def output_and_loss(answer: Answer, loss: str | None) -> tuple[str, str]:
    """The output's activation and the loss by which a network learns such a target, unless one is given."""
    output = answer.activations[0]
    if loss is None:
        of_output = {"sigmoid": "binary_crossentropy", "softmax": "categorical_crossentropy"}
        loss = of_output.get(output, "mse")
    entry = losses.get(loss)
    if entry.output not in (None, output) or (answer.classes is None and not entry.of_quantities):
        raise ValueError(f"loss {loss!r} is not for the target {answer.name!r}, whose output is {output}")
    return output, loss


def quality(network: MLP, data: Data) -> dict[str, dict[str, float]]:
    """The measures of each part by its name, and those of the best constant answer on the last one."""
    parts = data.parts
    found = {
        part.name: data.answer.quality(network.predict(part.X), part.target, standardised=True)
        for part in parts
    }
    name, of_constant = data.answer.baseline(parts[0].target, parts[-1].target)
    return {**found, name: of_constant}
