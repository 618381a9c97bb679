"""What `MLP.fit` returns."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastbp import checks

Values = NDArray[np.float64]

ALWAYS = ("loss", "lr", "epoch_seconds")
VALIDATION = "val_"


class History:
    """The course of a training run: columns of one float64 value an epoch, and how it ended.

    Attributes
    ----------
    seconds : the time that `fit` took.
    interrupted : whether Ctrl-C ended it.
    best_epoch : the epoch (counted from 1) that `EarlyStopping` found best; None without it.
    stopped_early : whether `EarlyStopping` ended it.
    diverged : where a loss or the parameters became NaN or infinite among many networks (`fit_many`), what
        `fit` raises as FloatingPointError; else None.

    An epoch is in the history when all its steps were done; where Ctrl-C came during its validation,
    `val_loss` and metrics of that last epoch are NaN. `fit(steps=...)` may end within an epoch, whose part is
    then the last one here.

    A column takes 8 bytes an epoch: where each epoch is but one step, 10^8 of them make 2.4 GB.
    """

    seconds = 0.0
    interrupted = False
    best_epoch: int | None = None
    stopped_early = False
    diverged: str | None = None

    def __init__(self) -> None:
        self._columns: dict[str, array[float]] = {name: array("d") for name in ALWAYS}

    @classmethod
    def _of_run(
        cls,
        loss: bytes | Sequence[float],
        lr: bytes | Sequence[float],
        epoch_seconds: bytes | Sequence[float],
        seconds: float,
    ) -> Self:
        """Of a whole training, from the values of its columns, or their bytes."""
        history = cls.__new__(cls)
        history._columns = {
            "loss": array("d", loss),
            "lr": array("d", lr),
            "epoch_seconds": array("d", epoch_seconds),
        }
        history.seconds = seconds
        return history

    @property
    def loss(self) -> Values:
        """(epochs,): made of the losses of the epoch's batches, each before that batch's update.

        With reduction="mean" their mean over all samples, with "sum" their sum, with "weighted_mean" the mean
        of the batches' losses (each of which is divided by its weights), where a batch counts as often as it
        has rows, and one that is skipped does not count.
        """
        return self._array("loss")

    @property
    def val_loss(self) -> Values:
        """(epochs,): the loss on the validation data after the epoch; (0,) without validation data."""
        return self._array("val_loss") if "val_loss" in self._columns else np.empty(0)

    @property
    def val_metrics(self) -> dict[str, Values]:
        """(epochs,) for each metric that was asked for, on the validation data after the epoch."""
        names = [name for name in self._columns if name.startswith(VALIDATION) and name != "val_loss"]
        return {name.removeprefix(VALIDATION): self._array(name) for name in names}

    @property
    def lr(self) -> Values:
        """(epochs,): the learning rate of the epoch's last step."""
        return self._array("lr")

    @property
    def epoch_seconds(self) -> Values:
        """(epochs,): the time for training and validation; an equal share where several ran in one piece."""
        return self._array("epoch_seconds")

    @property
    def epochs(self) -> int:
        """The number of epochs that were finished."""
        return len(self._columns["loss"])

    @property
    def names(self) -> tuple[str, ...]:
        """The columns: loss, lr, epoch_seconds; with validation also val_loss and val_ before each metric."""
        return tuple(self._columns)

    def last(self, name: str) -> float:
        """The value of the last epoch in one of the columns (see `names`); IndexError if there is none."""
        return self._columns[checks.known_name("name", name, self._columns)][-1]

    def _array(self, name: str) -> Values:
        return np.array(self._columns[name], np.float64)

    def _add_columns(self, names: Sequence[str]) -> None:
        """Of what validation finds."""
        self._columns |= {VALIDATION + name: array("d") for name in names}

    def _add_epoch(self, loss: float, lr: float, seconds: float) -> None:
        """Note an epoch; what comes from validation is NaN until `_add_validation`."""
        known = {"loss": loss, "lr": lr, "epoch_seconds": seconds}
        for name, column in self._columns.items():
            column.append(known.get(name, math.nan))

    def _add_epochs(self, losses: Values, lr: Values | float, seconds: float) -> None:
        """The same of several."""
        known: dict[str, Any] = {"loss": losses, "lr": lr, "epoch_seconds": seconds}
        for name, column in self._columns.items():
            value = known.get(name, math.nan)
            if isinstance(value, float):
                column.fromlist([value] * len(losses))
            else:
                column.frombytes(np.asarray(value, np.float64).tobytes())

    def _add_validation(self, values: Mapping[str, float], seconds: float) -> None:
        """Note what was found on the validation data after the last epoch; `seconds` in addition."""
        for name, value in values.items():
            self._columns[VALIDATION + name][-1] = value
        self._columns["epoch_seconds"][-1] += seconds

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values that can be written as JSON (None for NaN and infinity)."""
        columns = {
            name: [value if math.isfinite(value) else None for value in column.tolist()]
            for name, column in self._columns.items()
        }
        return {
            "columns": columns,
            "seconds": self.seconds,
            "interrupted": self.interrupted,
            "best_epoch": self.best_epoch,
            "stopped_early": self.stopped_early,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The history that `to_dict` made `values` of. ValueError if it did not."""
        history = cls()
        try:
            columns = {
                str(name): array("d", (math.nan if value is None else float(value) for value in column))
                for name, column in values["columns"].items()
            }
            history.seconds = float(values["seconds"])
            history.interrupted = bool(values["interrupted"])
            best = values["best_epoch"]
            history.best_epoch = None if best is None else int(best)
            history.stopped_early = bool(values["stopped_early"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"this is not what History.to_dict returns: {error!r}") from None
        if not set(ALWAYS) <= set(columns) or len({len(column) for column in columns.values()}) != 1:
            raise ValueError(
                "this is not what History.to_dict returns: columns are missing, or not equally long"
            )
        history._columns = columns
        return history

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of the columns (see `names`), its index the epochs from 1 on.

        ImportError if pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "History.to_pandas needs pandas, which is not installed: pip install pandas"
            ) from None
        index = pandas.RangeIndex(1, self.epochs + 1, name="epoch")
        return pandas.DataFrame({name: self._array(name) for name in self._columns}, index=index)

    def plot(self) -> Any:
        """The curves of losses and metrics, as `fastbp.plot.history` draws them: a matplotlib Figure.

        ImportError if matplotlib is not installed.
        """
        from fastbp import plot

        return plot.history(self)

    def __repr__(self) -> str:
        text = f"History(epochs={self.epochs}"
        if self.epochs:
            shown = [name for name in self._columns if name == "loss" or name.startswith(VALIDATION)]
            text += "".join(f", {name}={self.last(name):.6g}" for name in shown)
        text += f", seconds={self.seconds:.3g}"
        if self.best_epoch is not None:
            text += f", best_epoch={self.best_epoch}"
        text += ", stopped early" if self.stopped_early else ""
        text += ", diverged" if self.diverged else ""
        return text + (", interrupted" if self.interrupted else "") + ")"
