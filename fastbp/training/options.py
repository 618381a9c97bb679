"""What one call of `fit` was asked for, besides the data: checked before anything is looked at or changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks
from fastbp.callbacks import Callback, Callbacks
from fastbp.inputs.samples import ClassWeight, Samples
from fastbp.metrics import Function
from fastbp.mpi.communicator import Communicator
from fastbp.network.architecture import Architecture
from fastbp.optimizer_base import Optimizer
from fastbp.training.checkpoint import ON_ERROR, Checkpoints

BATCH_SIZE = 32
NO_CALLBACKS = Callbacks(())
# From an epoch, counted from 1, to the numbers of the rows in the order in which it takes them.
RowOrder = Callable[[int], ArrayLike]

# What goes with arrays only, and what to do instead.
_FOR_ARRAYS = {
    "batch_size": "batches have their sizes",
    "order": "batches come in their own",
    "sample_weight": "give each batch its own, as (X, Y, sample_weight)",
    "class_weight='balanced'": "it counts all labels first; give the weight of each class",
    "validation_split": "give validation_data",
    "comm": "ranks find their rows in arrays",
    "shards": "what they share is known by its rows",
    "checkpoint": "the order of an iterable, and how far it has come, cannot be restored from a file",
}


@dataclass
class FitOptions:
    """The arguments of `MLP.fit`, of the same names; TypeError or ValueError for what does not fit."""

    optimizer: Optimizer
    epochs: int | None = None
    steps: int | None = None
    steps_per_epoch: int | None = None
    batch_size: int = BATCH_SIZE
    accumulate: int = 1
    shuffle: bool = True
    order: RowOrder | None = None
    sample_weight: ArrayLike | None = None
    class_weight: ClassWeight | None = None
    validation_data: tuple[ArrayLike, ...] | None = None
    validation_split: float = 0.0
    metrics: str | Function | Sequence[str | Function] = ()
    callbacks: Callback | Sequence[Callback] = ()
    checkpoint: str | os.PathLike[str] | None = None
    every: int | None = None
    every_steps: int | None = None
    on_checkpoint_error: str = "raise"
    progress: bool = True
    check_finite: bool = True
    shards: int = 1
    ranks: Communicator | None = None  # fit's comm, joined
    local: bool = False

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(
                f"give epochs or steps, one of them; got epochs={checks.shown(self.epochs)}, "
                f"steps={checks.shown(self.steps)}"
            )
        if self.epochs is not None:
            self.epochs = checks.count("epochs", self.epochs, low=0)
        if self.steps is not None:
            self.steps = checks.count("steps", self.steps, low=0)
        self.batch_size = checks.count("batch_size", self.batch_size)
        self.accumulate = checks.count("accumulate", self.accumulate)
        self.shards = checks.count("shards", self.shards)
        self.local = checks.flag("local", self.local)
        if self.shards > 1 and self.accumulate > 1:
            raise ValueError(
                f"give shards or accumulate, not both; got {self.shards} and {self.accumulate}. (Shards cut "
                "batches into parts already: a larger batch_size takes no more memory.)"
            )
        self.shuffle = checks.flag("shuffle", self.shuffle)
        if self.order is not None and not callable(self.order):
            raise TypeError(
                "order must be a function that gives each epoch's row numbers, as order=lambda epoch: rows, "
                f"got {checks.shown(self.order)}"
            )
        self.progress = checks.flag("progress", self.progress)
        if self.steps_per_epoch is not None:
            self.steps_per_epoch = checks.count("steps_per_epoch", self.steps_per_epoch)
        none = type(self.callbacks) is tuple and not self.callbacks
        self.sorted_callbacks = NO_CALLBACKS if none else Callbacks(self.callbacks)
        checks.known_name("on_checkpoint_error", self.on_checkpoint_error, ON_ERROR)
        self.checkpoints = self._checkpoints()
        self.validation_split = checks.number("validation_split", self.validation_split, low=0, below=1)
        if self.validation_split and self.validation_data is not None:
            raise ValueError("give validation_data or validation_split, not both")
        self._check_ranks()
        # Whether nothing is asked for that happens between steps, or to the data, and nothing rare.
        self.is_plain = (
            self.steps is None
            and self.steps_per_epoch is None
            and self.order is None
            and self.sample_weight is None
            and self.class_weight is None
            and self.validation_data is None
            and self.checkpoint is None
            and self.ranks is None
            and self.accumulate == self.shards == 1
            and none
            and type(self.metrics) is tuple
            and not (self.metrics or self.validation_split or self.local)
        )

    def _check_ranks(self) -> None:
        if self.local and self.ranks is None:
            raise ValueError("local=True is for the ranks of comm, which is not given")
        if self.local:
            for name, is_given in {
                "validation_split": self.validation_split > 0,
                "class_weight='balanced'": isinstance(self.class_weight, str),
            }.items():
                if is_given:
                    raise ValueError(f"{name} needs all of the data: local=True gives each rank a part")
        if self.local and self.batch_size % self.ranks_in_all:
            raise ValueError(
                f"batch_size={self.batch_size} cannot be divided among {self.ranks_in_all} ranks, each of "
                "which takes its share from data of its own (local=True)"
            )

    @property
    def ranks_in_all(self) -> int:
        """How many processes make this call together."""
        return 1 if self.ranks is None else self.ranks.size

    @property
    def leads(self) -> bool:
        """Whether this process is the one with callbacks, validation, progress and a checkpoint."""
        return self.ranks is None or self.ranks.rank == 0

    @property
    def batch_size_of_rank(self) -> int:
        """The rows of a batch that each rank takes from data of its own."""
        return self.batch_size // self.ranks_in_all

    def _checkpoints(self) -> Checkpoints | None:
        if self.checkpoint is not None:
            return Checkpoints(self.checkpoint, self.every, self.every_steps, self.on_checkpoint_error)
        if self.every is not None or self.every_steps is not None:
            raise ValueError(
                "every and every_steps say when to write the checkpoint: give checkpoint= as well"
            )
        return None

    def require_for_batches(self) -> None:
        """ValueError if one of the options needs arrays, for data that are an iterable of batches."""
        balanced = isinstance(self.class_weight, str) and self.class_weight == "balanced"
        given: Mapping[str, bool] = {
            "batch_size": self.batch_size != BATCH_SIZE,
            "order": self.order is not None,
            "sample_weight": self.sample_weight is not None,
            "class_weight='balanced'": balanced,
            "validation_split": self.validation_split > 0,
            "checkpoint": self.checkpoint is not None,
            "shards": self.shards > 1,
            "comm": self.ranks is not None,
        }
        for name, is_given in given.items():
            if is_given:
                why = _FOR_ARRAYS[name]
                raise ValueError(
                    f"{name} is for arrays, but X is an iterable of batches (Y is left out): {why}"
                )

    def require_for_arrays(self) -> None:
        """ValueError if one of the options needs an iterable of batches."""
        if self.steps_per_epoch is not None:
            raise ValueError(
                "steps_per_epoch is for an iterable of batches: an epoch of arrays is all samples"
            )

    def described(
        self, architecture: Architecture, samples: Samples, held_out: Samples | None
    ) -> dict[str, Any]:
        """What must be the same for a training to go on from a checkpoint."""
        shards: dict[str, Any] = {} if self.shards == 1 else {"shards": self.shards}
        if self.local:
            shards["ranks with data of their own"] = self.ranks_in_all
        return {
            "model": architecture.to_json(),
            "optimizer": self.optimizer,
            "X": samples.X,
            "Y": samples.targets,
            "sample_weight": samples.stored_weights,
            "class_weight": self.class_weight,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "shuffle": self.shuffle,
            **({} if self.order is None else {"order": self.order}),
            "validation_data": held_out and {"X": held_out.X, "Y": held_out.Y},
            "validation_split": self.validation_split,
            "metrics": self.metrics,
            "callbacks": self.sorted_callbacks.with_state,
            **shards,
        }


def order_of(row_order: RowOrder, epoch: int, rows: int) -> NDArray[np.int64]:
    """(rows,): what the caller's function says of an epoch, checked, as compiled code trusts it."""
    given = np.asarray(row_order(epoch))
    name = f"order({epoch})"
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} has dtype {given.dtype}, expected integers, the numbers of rows")
    if given.shape != (rows,):
        raise ValueError(f"{name} has shape {given.shape}, expected ({rows},), a row number for each row")
    bad = (given < 0) | (given >= rows)
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(f"{name}[{first}] is {given[first]}, expected row numbers 0 to {rows - 1}")
    return given.astype(np.int64)  # a copy, which nobody else can change
