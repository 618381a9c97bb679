"""One call of `fit` that all ranks of a communicator make.

All ranks do the same steps and have the same parameters. Rank 0 alone has callbacks, validation data, a
progress bar and a checkpoint. Before each chunk of steps the ranks confer: rank 0 says how long the chunk is
and what its callbacks have changed, and each says whether Ctrl-C has come.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.mpi.communicator import Communicator
from fastbp.mpi.shards import Shards
from fastbp.network.network import Network
from fastbp.training.course import Chunk
from fastbp.training.divergence import Diverged
from fastbp.training.interrupt import Interrupts
from fastbp.training.options import FitOptions
from fastbp.training.progress import Progress
from fastbp.training.run import Run
from fastbp.training.shared import state as states
from fastbp.training.validation import Validation

# Steps of the first chunk, when nobody knows how long they take.
FIRST_STEPS = 4


def cut_into(shards: Shards, run: Run) -> None:
    """Have each step's batch of a run cut."""
    run.shards, run.most_steps = shards, min(run.most_steps, FIRST_STEPS)


class JointInterrupts(Interrupts):
    """Ctrl-C waits until the ranks confer, so that it ends all of them at the same step."""

    def __init__(self) -> None:
        super().__init__(on_press=lambda: None)
        self.agreed = False  # one has come to some rank, and all know it

    def check(self) -> None:
        """KeyboardInterrupt if the ranks have agreed on it."""
        if self.agreed:
            self.agreed = self.pressed = False
            raise KeyboardInterrupt

    def heard(self) -> contextlib.AbstractContextManager[None]:
        """Not here: one rank must not leave alone."""
        return contextlib.nullcontext()


class SharedRun(Run):
    """One rank's part of a call of `fit`; `steps` and `batch_size` are the rank's own with local=True."""

    def __init__(
        self, model: Network, samples: Samples, steps: int, options: FitOptions, shards: Shards
    ) -> None:
        rows = options.batch_size_of_rank if options.local else min(options.batch_size, len(samples))
        super().__init__(model, samples, steps, rows, options.optimizer, options.shuffle)
        assert options.ranks is not None
        self.ranks: Communicator = options.ranks
        cut_into(shards, self)
        self._rows_of_ranks = shards.rows
        self.leads = self.ranks.rank == 0
        self.interrupts: JointInterrupts = JointInterrupts()
        # What rank 0 says of the next chunk.
        self._spans, self._due = False, self.steps
        # As they were when the ranks last conferred, and the bits of the parameters after the last chunk.
        self._set = states.hyper_parameters(self.optimizer)
        self._owner, self._bits = model.parameters.owner, 0
        self._watched = False  # whether rank 0 has validation data

    def train(self, validation: Validation | None, callbacks: Callbacks, progress: bool) -> History:
        """Do the steps, all ranks together. See `Run.train`."""
        finished = self.checkpoints is not None and self.checkpoints.finished
        names = () if validation is None else validation.names
        names, finished = self.ranks.share((names, finished))[0]
        self._watched = bool(names)
        if not self.leads:
            self.history._add_columns(names)
        if not finished:
            return super().train(validation, callbacks, progress)
        if self.leads:
            super().train(validation, callbacks, progress)
        states.send_all(self, self.ranks)
        return self.history

    # ---- where ranks meet ---------------------------------------------------------------------------------

    def _compile(self, bar: Progress) -> None:
        self.model.parameters.adopt()  # a callback may have put arrays in their place
        states.send_all(self, self.ranks)  # rank 0 may have read a checkpoint
        self._owner, self._set = self.model.parameters.owner, states.hyper_parameters(self.optimizer)
        self._bits = states.sum_of_bits(self.model.parameters.flat)
        super()._compile(bar)

    def _goes_on(self) -> bool:
        self._confer()
        return super()._goes_on()

    def _confer(self) -> None:
        """Before a chunk: see this module. RuntimeError if the ranks' parameters are not the same."""
        parameters = self.model.parameters
        parameters.adopt()
        everyone = self.ranks.share((self.interrupts.pressed, self._bits, self._said()))
        if len({bits for _, bits, _ in everyone}) > 1:
            raise RuntimeError(
                f"after step {self.done} the ranks have different parameters: their CPUs, libraries or data "
                "differ, or memory is faulty"
            )
        self.interrupts.agreed = any(pressed for pressed, _, _ in everyone)
        said = everyone[0][2]
        self._spans, self._due, self.most_steps = said["spans"], said["due"], said["most_steps"]
        self.stopped = said["stopped"]
        if not self.leads:
            if said["reset"]:
                self.model.reset()
            self.model.streams.restore(said["streams"])
            self.optimizer.assign(said["set"])
        if said["bits"] != self._bits or said["reset"]:
            states.send_parameters(self, self.ranks)
        self._set, self._owner = states.hyper_parameters(self.optimizer), parameters.owner

    def _said(self) -> dict[str, Any]:
        """What rank 0 says."""
        if not self.leads:
            return {}
        parameters = self.model.parameters
        return {
            "spans": super()._spans_epochs,
            "due": self.done + super()._steps_left(),
            "most_steps": self.most_steps,
            "stopped": self.stopped,
            "reset": parameters.owner is not self._owner,
            "bits": states.sum_of_bits(parameters.flat),
            "streams": self.model.streams.state(),
            "set": states.changed(self._set, states.hyper_parameters(self.optimizer)),
        }

    def _validate(self) -> None:
        if not self._watched:
            return
        began, values = time.perf_counter(), None
        if self.validation is not None:
            with self._interrupts_wait():
                values = self.validation.evaluate(self.model)
        values = self.ranks.share(values)[0]
        if values is not None:
            self.history._add_validation(values, time.perf_counter() - began)

    def _end(self, diverged: Diverged | None) -> None:
        """See `Run`; then what rank 0's callbacks have made of the parameters is everybody's."""
        error: FloatingPointError | None = None
        try:
            with self._interrupts_wait():
                super()._end(diverged)
        except FloatingPointError as raised:
            if diverged is None:
                raise
            error = raised
        history = self.history
        said = (history.interrupted or self.interrupts.pressed, history.best_epoch, history.stopped_early)
        history.interrupted, history.best_epoch, history.stopped_early = self.ranks.share(said)[0]
        states.send_parameters(self, self.ranks)
        if error is not None:
            raise error

    # ---- what rank 0 decides ------------------------------------------------------------------------------

    @property
    def _spans_epochs(self) -> bool:
        return self._spans

    def _steps_left(self) -> int:
        return self._due - self.done

    def _call_hooks(self, hooks: Sequence[Callable[..., Any]], *arguments: Any) -> bool:
        stop = False
        with self._interrupts_wait():
            stop = super()._call_hooks(hooks, *arguments)
        return stop

    @contextlib.contextmanager
    def _interrupts_wait(self) -> Any:
        """A callback that raises KeyboardInterrupt is a Ctrl-C, too, and ends all ranks when they confer."""
        try:
            yield
        except KeyboardInterrupt:
            self.interrupts.pressed = True

    # ---- steps --------------------------------------------------------------------------------------------

    def chunk(
        self, order: NDArray[np.int64] | None, first: int, last: int, losses: NDArray[np.float64]
    ) -> bool:
        """Do these steps together with the other ranks; whether all stayed finite."""
        self.ranks.within_steps = last > first
        finite = super().chunk(order, first, last, losses)
        self.ranks.within_steps = False
        return finite

    def _watched_chunk(self, chunk: Chunk) -> NDArray[np.float64]:
        self.ranks.within_steps = True
        losses = super()._watched_chunk(chunk)
        self.ranks.within_steps = False
        self._bits = states.sum_of_bits(self.model.parameters.flat)
        return losses

    def order(self, epochs: int) -> NDArray[np.int64] | None:
        """As `Run.order`; of rows of its own a rank draws an order of its own, from what all draw."""
        if self._rows_of_ranks is None or not self.shuffle:
            return super().order(epochs)
        seeds = self.model.streams.shuffling.integers(1 << 62, size=epochs)
        return np.concatenate(
            [np.random.default_rng((seed, self.ranks.rank)).permutation(len(self.samples)) for seed in seeds]
        )

    def _divisor(self, steps: int) -> int:
        if self._rows_of_ranks is None or self.model.architecture.reduction == "sum":
            return super()._divisor(steps)
        return sum(min(steps * self.batch_size, rows) for rows in self._rows_of_ranks)
