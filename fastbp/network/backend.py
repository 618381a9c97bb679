"""What does a model's arithmetic: the interface of the compiled engine and of its NumPy twin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.worker.patience import Patience
from fastbp.inputs.samples import Samples
from fastbp.mpi.shards import Shards
from fastbp.network.architecture import Architecture
from fastbp.network.parameters import Parameters
from fastbp.network.results import Trace
from fastbp.network.streams import Streams
from fastbp.optimizer_base import Optimizer, State

Array = NDArray[Any]

# Where it matters only that there is one.
ANY_ORDER = np.empty(0, np.int64)


def rows_of_steps(samples: int, batch_size: int, first: int, last: int) -> NDArray[np.int64]:
    """(steps,) the number of rows of each of the steps first <= s < last, counted through all epochs."""
    starts = np.arange(first, last) % -(-samples // batch_size) * batch_size
    return np.minimum(batch_size, samples - starts)


def divisors_of_steps(
    samples: int, batch_size: int, first: int, last: int, reduction: str
) -> float | NDArray[np.int64]:
    """As `Steps.divisors`, where the rows' weights are no part of it."""
    if reduction == "sum":
        return 1.0
    return batch_size if samples % batch_size == 0 else rows_of_steps(samples, batch_size, first, last)


@dataclass(slots=True)
class Steps:
    """Training steps that run without Python in between: first <= s < last.

    An epoch has ceil(samples / batch_size) steps, the last of which may have fewer rows. Step s is step s mod
    (steps per epoch) of epoch s div (steps per epoch), and takes the rows of the samples in order (`order` is
    None) or those that `order` lists: one permutation of the samples after another, one for each epoch from
    epoch 0 on. It takes its rows `part` at a time, which is all that there are activations of (None: all).
    With `shards`, gradients of parts of each batch are added up as these say, perhaps by several processes.
    `penalty_times` is how often the penalty of l2 counts in the losses; in the gradients it counts once.
    With `patience` they may end behind an epoch, before the last one; not where samples have weights.
    """

    samples: Samples
    order: NDArray[np.int64] | None
    first: int
    last: int
    batch_size: int
    part: int | None = None
    shards: Shards | None = None
    penalty_times: int = 1
    patience: Patience | None = None

    def __len__(self) -> int:
        return self.last - self.first

    @property
    def per_epoch(self) -> int:
        """How many steps an epoch has."""
        return -(-len(self.samples) // self.batch_size)

    def parts_of(self, step: int, part: int) -> tuple[int, int]:
        """Where the parts of a step begin and end, counted through all epochs; part: rows of one."""
        rows, size = len(self.samples), self.batch_size
        in_step, in_epoch = -(-size // part), -(-rows // part)
        epoch, step_of_epoch = divmod(step, self.per_epoch)
        first = epoch * in_epoch + step_of_epoch * in_step
        return first, min(first + in_step, (epoch + 1) * in_epoch)

    def rows(self) -> NDArray[np.int64]:
        """(steps,) the number of rows of each step."""
        return rows_of_steps(len(self.samples), self.batch_size, self.first, self.last)

    def rows_with_weight(self) -> int:
        """How many rows the steps have that are not skipped."""
        weights = self.weights()
        return int(self.rows()[weights != 0 if weights is not None else slice(None)].sum())

    def weights(self) -> NDArray[np.float64] | None:
        """(steps,) the sum of the weights of each step's rows, or None where rows have no weights."""
        stored = self.samples.stored_weights
        if stored is None:
            return None
        samples, size, per_epoch = len(self.samples), self.batch_size, self.per_epoch
        epoch, step = divmod(self.first, per_epoch)
        last = self.last - epoch * per_epoch
        if last <= per_epoch:  # of a large epoch only the rows of these steps
            taken = slice(epoch * samples + step * size, epoch * samples + min(samples, last * size))
            rows = slice(step * size, last * size) if self.order is None else self.order[taken]
            of_rows = stored[rows].astype(np.float64)
            return np.add.reduceat(of_rows, np.arange(0, len(of_rows), size)) if len(self) else np.empty(0)
        epochs = -(-last // per_epoch)
        order = np.arange(samples)[None] if self.order is None else self._epochs(epoch, epochs)
        sums = np.add.reduceat(stored[order].astype(np.float64), np.arange(0, samples, size), axis=1)
        repeated = np.broadcast_to(sums, (epochs, per_epoch)).reshape(-1)
        return repeated[step:last].copy()

    def _epochs(self, first: int, count: int) -> NDArray[np.int64]:
        """(count, samples): the order of so many epochs."""
        assert self.order is not None
        samples = len(self.samples)
        return self.order[first * samples : (first + count) * samples].reshape(count, samples)

    def divisors(self, reduction: str) -> float | NDArray[Any]:
        """What each step's sum of losses is divided by: one number where they are all the same, as an array
        would take time, else (steps,). A step of divisor 0 is skipped."""
        weights = self.weights() if reduction == "weighted_mean" else None
        if weights is not None:
            return weights
        return divisors_of_steps(len(self.samples), self.batch_size, self.first, self.last, reduction)

    def weigh(self, losses: NDArray[np.float64], reduction: str) -> None:
        """Make the batches' sums of losses, of all steps, the losses of the batches times their rows."""
        weights = self.weights() if reduction == "weighted_mean" else None
        if weights is not None:
            weight = weights != 0
            losses *= np.divide(self.rows(), weights, out=np.zeros(len(self)), where=weight)
            losses[~weight] = 0

    def taken(self, divisors: NDArray[Any]) -> list[tuple[int, int]]:
        """The steps without those that are skipped: first and last of each run of steps."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], divisors != 0, [0]])))
        return [(self.first + int(a), self.first + int(b)) for a, b in edges.reshape(-1, 2)]


class Backend(ABC):
    """Computes with one model's parameters; its arguments are checked already, and of the model's dtype.

    Whoever writes to parameters or optimizer state calls `Parameters.changed` before the next step: a backend
    may keep them prepared in a form of its own.
    """

    # Whether a chunk of steps that is not finite leaves parameters and state as they were.
    chunks_are_atomic: ClassVar[bool] = False
    # Whether several processes may share its steps.
    takes_ranks: ClassVar[bool] = False
    # Whether steps may have patience.
    has_patience: ClassVar[bool] = False
    # For the first chunk of a training run, before anything was measured.
    step_overhead_seconds: ClassVar[float] = 1e-4
    seconds_per_multiply_add: ClassVar[float] = 1e-9
    # Bytes behind the parameters that it may read.
    slack: ClassVar[int] = 0

    def __init__(self, architecture: Architecture, parameters: Parameters, streams: Streams) -> None:
        self.architecture, self.parameters, self.streams = architecture, parameters, streams
        self.measured_step: tuple[Any, float] | None = None  # ((batch size, part), seconds)

    @property
    def noise_key(self) -> tuple[int, ...]:
        """What dropout and noise on the inputs are drawn with, `Streams.noise_key`; of networks that have
        neither, the same of all."""
        return self.streams.noise_key if self.architecture.is_noisy else (0, 0)

    def step_multiply_adds(self, rows: int) -> int:
        """Of a training step on so many rows, roughly."""
        return 3 * rows * len(self.parameters)

    def guessed_step_seconds(self, rows: int) -> float:
        """What such a step takes, before one was measured."""
        return self.step_overhead_seconds + self.step_multiply_adds(rows) * self.seconds_per_multiply_add

    def expected_step_seconds(self, rows: int, part: int | None) -> float:
        """The same, or what the last one took that was taken in such parts."""
        measured = self.measured_step
        known = measured is not None and measured[0] == (rows, part)
        return measured[1] if measured and known else self.guessed_step_seconds(rows)

    @abstractmethod
    def forward(self, X: Array) -> Trace:
        """Every layer's results for X (batch, inputs), as new arrays."""

    @abstractmethod
    def backward(self, trace: Trace, Y: Array) -> Array:
        """The gradient as a flat array in the order of the parameters, scaled as `reduction` says.

        Y is (batch, outputs), with weights one column more.
        """

    @abstractmethod
    def predict(self, X: Array) -> Array:
        """The last activation for X (rows, inputs), C-ordered, as a new array."""

    def predict_few_rows(self, X: Any, check_finite: bool) -> Array | None:
        """`predict` for what a caller gave, where that is quick to see through and the parameters' lists
        hold what they held; None elsewhere."""
        return None

    @abstractmethod
    def train(
        self,
        steps: Steps,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        *,
        only_if_finite: bool = False,
    ) -> bool:
        """Run these training steps; whether parameters and state were updated.

        losses_out[s - first] becomes the loss of step s before its update: summed over the batch, or, which
        with "mean" is the same, the batch's loss times its rows. A step whose rows all have weight 0 is
        skipped where weights are divided by: its loss is 0, and parameters and state stay as they are. With
        no steps to run, it compiles what is needed.
        `steps.patience` knows then how many steps there were.
        only_if_finite: where `chunks_are_atomic`, parameters and state are updated at the end, and only if
        parameters and losses are finite; elsewhere it means nothing.
        """

    def train_at_once(self, steps: Steps, epochs: int, optimizer: Optimizer) -> NDArray[np.float64] | None:
        """`train` with the optimizer as it is, all steps in one go by this thread, in an order of so many
        epochs (0: as the rows lie) that is drawn for them. Returns the losses; None: nothing has changed, as
        there would be something to compile, they are too many, or not all stays finite."""
        return None

    def is_ready_for(self, steps: Steps, optimizer: Optimizer) -> bool:
        """Whether such steps were run before, so that nothing is compiled for them any more; False: nobody
        knows."""
        return False

    def share_plans(self, spare: Any) -> None:  # noqa: B027 - there may be nothing to share
        """Take what is prepared for a use from there (`spare_plans.SparePlans`), if it is there: while many
        networks are trained one after another."""

    def give_plans_back(self) -> None:  # noqa: B027
        """Put all that is prepared there; what is needed later will be made anew."""

    def request_stop(self) -> None:  # noqa: B027 - there may be nothing to do
        """Ctrl-C came while steps run: a long run may raise KeyboardInterrupt instead of finishing."""

    @staticmethod
    def is_finite(array: Array) -> bool:
        """A quick look: False if the array may hold NaN or infinity, and has to be looked at in detail."""
        return False

    @staticmethod
    def is_within(array: Array, low: float, high: float) -> bool:
        """A quick look: False if a number may be below or above these."""
        return False
