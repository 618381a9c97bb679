"""One training run: cuts steps into chunks, keeps the history, and tells callbacks."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.mpi.shards import Shards
from fastbp.network.backend import ANY_ORDER, Steps
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule
from fastbp.training.checkpoint import Checkpoints
from fastbp.training.course import Chunk, last_rates
from fastbp.training.divergence import Diverged, Snapshot, step_back
from fastbp.training.interrupt import Interrupts
from fastbp.training.options import RowOrder, order_of
from fastbp.training.progress import Progress, described
from fastbp.training.validation import Validation

Array = NDArray[Any]

# A chunk is what runs without Python: as long as Ctrl-C, the progress bar and a clock may wait.
CHUNK_SECONDS = 0.2
# The first chunk's steps are guessed from their multiply-adds; the next ones grow by this factor at most.
CHUNK_GROWTH = 8
# Shuffled indices made at a time where a chunk spans several epochs.
ORDER_ENTRIES = 1 << 20
# Rows of the first chunk where data are read from a disk, perhaps at 10 ms each.
FIRST_ROWS_ON_DISK = 64
# Steps or epochs, where as many are wanted as there are.
NO_LIMIT = sys.maxsize


class Run:
    """One call of `fit`, its data and settings checked.

    `steps` are to be done, of `batch_size` rows each, which are taken `part` at a time (None: all at once).
    """

    def __init__(
        self,
        model: Network,
        samples: Samples,
        steps: int,
        batch_size: int,
        optimizer: Optimizer,
        shuffle: bool,
        part: int | None = None,
    ) -> None:
        # Arrays of our own over the same memory: whoever sets the shape of theirs does not change these.
        self.model, self.samples = model, samples.own_views()
        self.steps, self.batch_size, self.part = steps, batch_size, part
        self.optimizer, self.shuffle = optimizer, shuffle
        self.rule: Optimizer  # the optimizer as it is in this chunk, and its state, see `meet_optimizer`
        self.state: State
        self.shards: Shards | None = None  # how batches are cut, if they are
        self.steps_per_epoch = -(-len(samples) // batch_size)
        self.step_seconds = model.backend.expected_step_seconds(batch_size, part)
        self.most_steps = max(1, int(CHUNK_SECONDS / self.step_seconds))
        self._files = self.samples.mapped_files("X", "Y")
        if self._files:  # nobody knows yet how fast the disk is
            self.most_steps = min(self.most_steps, max(1, FIRST_ROWS_ON_DISK // batch_size))
        self.history = History()
        # Where it is: steps done; the losses of the epoch in progress, and the random state that its order
        # was drawn from; whether what follows the last epoch (validation, callbacks) is still to be done.
        self.done = 0
        self.epoch_losses = np.empty(self.steps_per_epoch)
        self.epoch_random: dict[str, Any] = {}  # kept for checkpoints only
        self.unsettled = False
        self.stopped = False  # by a callback
        self.checkpoints: Checkpoints | None = None
        self.validation: Validation | None = None
        self.callbacks: Callbacks
        self.interrupts = Interrupts(model.backend.request_stop)
        self._lr: float | Schedule | None = None  # what the history was last found to have the columns for
        self._met = False  # the optimizer and the parameters, and nobody else was called since
        self._whole, self._drawn = 1, False  # epochs of a chunk; whether there is an order for them
        self._rows: NDArray[np.int64] | None = None  # that order
        self._compiling = 0.0  # seconds before the first step
        self.row_order: RowOrder | None = None  # instead of `shuffle`
        self._may_skip = model.architecture.reduction == "weighted_mean" and samples.has_weights_of_zero

    # ---- what another kind of run decides for itself ------------------------------------------------------

    @property
    def epoch_step(self) -> int:
        """Steps done of the epoch in progress."""
        return self.done % self.steps_per_epoch

    @property
    def epoch_limit(self) -> int | None:
        """How many steps an epoch may have; None: nobody knows."""
        return self.steps_per_epoch

    @property
    def shortage(self) -> str | None:
        """Why there were fewer steps than asked for, if it is the data's fault."""
        return None

    def numbers(self, epoch: int, step: int) -> tuple[int, int]:
        """Epoch and step, counted from 1, of a step counted from the beginning of an epoch."""
        epochs, in_epoch = divmod(step, self.steps_per_epoch)
        return epoch + epochs + 1, in_epoch + 1

    def _goes_on(self) -> bool:
        """Whether there is more to be done."""
        return self.done < self.steps

    def _next_chunk(self) -> Chunk | None:
        """The steps to run next; None: the epoch has turned out to be over."""
        per_epoch = self.steps_per_epoch
        epoch, step = divmod(self.done, per_epoch)
        left = self._steps_left()
        if step == 0:
            whole = min(self.most_steps // per_epoch, ORDER_ENTRIES // len(self.samples), left // per_epoch)
            self._whole = max(1, whole) if self._spans_epochs else 1
        if step == 0 or not self._drawn:
            self._rows, self._drawn = self.order(self._whole), True
        if self._whole > 1:
            return Chunk(self._rows, epoch, step, self._whole * per_epoch)
        return Chunk(self._rows, epoch, step, min(step + min(self.most_steps, left), per_epoch))

    def _steps_left(self) -> int:
        """How many there are at most until a checkpoint is due, or all are done."""
        saved, done = self.checkpoints, self.done
        return min(self.steps, saved.next_due(done, self.steps_per_epoch) if saved else self.steps) - done

    def _take(self, chunk: Chunk | None, losses: NDArray[np.float64], began: float) -> bool:
        """Note what a chunk's steps have given; whether it has ended an epoch, which began then."""
        assert chunk is not None
        per_epoch = self.steps_per_epoch
        if chunk.last > per_epoch:
            self._note_epochs(losses.reshape(-1, per_epoch).sum(axis=1), began)
            return True
        self.epoch_losses[chunk.first : chunk.last] = losses
        if chunk.last == per_epoch or self.done == self.steps:
            self._note(self.epoch_losses[: chunk.last], began)
            return True
        return False

    def _divisor(self, steps: int) -> int:
        """What a sum over the losses of an epoch's first steps is divided by."""
        if self.model.architecture.reduction == "sum":
            return 1
        rows = min(steps * self.batch_size, len(self.samples))
        if self._may_skip:
            rows = Steps(self.samples, self._rows, 0, steps, self.batch_size).rows_with_weight()
        return max(1, rows)

    def _steps_expected(self) -> int | None:
        return self.steps

    def _epochs_wanted(self) -> int | None:
        return -(-self.steps // self.steps_per_epoch)

    # ---- from the first step to the last ------------------------------------------------------------------

    def train(self, validation: Validation | None, callbacks: Callbacks, progress: bool) -> History:
        """Do the steps. Whatever is raised has the history so far as its attribute `history`."""
        self.validation, self.callbacks = validation, callbacks
        history, saved = self.history, self.checkpoints
        if validation is not None:
            history._add_columns(validation.names)
        self.meet_optimizer()
        if saved is not None:
            self.epoch_random = self.model.streams.state()
            if saved.finished:
                saved.restore(self, callbacks)
                return history
        try:
            with self.interrupts:
                diverged = self._begin_to_end(progress)
                try:
                    self._end(diverged)
                except KeyboardInterrupt:  # raised by a callback
                    history.interrupted = True
        except Exception as error:
            error.history = history  # type: ignore[attr-defined]
            raise
        finally:
            self.model.parameters.changed()
        history.interrupted |= self.interrupts.pressed  # too late to end anything
        if history.interrupted:
            self.interrupts.pass_on()
        return history

    def _begin_to_end(self, progress: bool) -> Diverged | None:
        """All but what comes after the last step; how it has diverged, if it has."""
        started, bar = time.perf_counter(), None
        try:
            self._call_hooks(self.callbacks.train_begin, self.history)
            if self.checkpoints is not None:
                self.checkpoints.restore(self, self.callbacks)
            bar = Progress(progress, self._steps_expected(), self.done)
            self._compile(bar)
            self._run(bar)
        except KeyboardInterrupt:
            self.interrupts.deafen()
            self.history.interrupted = True
        except Diverged as diverged:
            return diverged
        finally:
            self.interrupts.deafen()
            if bar is not None:
                bar.close()
            self.history.seconds += time.perf_counter() - started - self._compiling
            self.model.backend.measured_step = (self.batch_size, self.part), self.step_seconds
        return None

    def _end(self, diverged: Diverged | None) -> None:
        """What comes after the last step, also if Ctrl-C or divergence made it the last; Ctrl-C waits."""
        saved, history = self.checkpoints, self.history
        last = None if diverged is None else self.model.parameters.flat.copy()
        if saved is not None and diverged is None:
            saved.ending(self, self.callbacks)
        for end in self.callbacks.train_end:
            end(self.model, history)
        if saved is not None and diverged is None:
            saved.ended(self, self.callbacks)
        if diverged is not None and last is not None:
            raise diverged.as_error(self.model, history, last)

    def _compile(self, bar: Progress) -> None:
        """Compile now, where Ctrl-C need not wait and no clock runs."""
        if self.validation is None and self._is_compiled():
            return
        started = time.perf_counter()
        bar.compiling()
        try:
            with self.interrupts.heard():
                none = self.model.streams.permutations(len(self.samples), 0) if self.shuffle else None
                self.chunk(none, 0, 0, np.empty(0))
                if self.validation is not None:
                    self.validation.compile(self.model)
        finally:
            bar.compiled()
        self._compiling = time.perf_counter() - started

    def _is_compiled(self) -> bool:
        """Whether it is known to be, from a run like this one."""
        order = ANY_ORDER if self.shuffle else None
        steps = Steps(self.samples, order, 0, 0, self.batch_size, self.part, self.shards)
        can_shuffle = not self.shuffle or self.model.streams.can_shuffle
        return can_shuffle and self.model.backend.is_ready_for(steps, self.rule)

    def _run(self, bar: Progress) -> None:
        saved = self.checkpoints
        began = time.perf_counter()  # the epoch
        if self.unsettled:  # Ctrl-C had come between an epoch and what follows it
            if saved is not None:  # of several ranks, one has it
                saved.note_states(self, self.callbacks)
            self._validate()
            self.stopped = self._end_of_epoch()
        while self._goes_on() and not self.stopped:
            self.interrupts.check()
            chunk = self._next_chunk()
            losses = self._watched_chunk(chunk) if chunk else np.empty(0)
            self.done += len(losses)
            ended = self._take(chunk, losses, began)
            self.unsettled = ended
            if saved is not None and ended:
                saved.note_states(self, self.callbacks)
                if self.epoch_step == 0:
                    self.epoch_random = self.model.streams.state()
            if chunk:
                self.stopped = self._call_hooks(self.callbacks.chunk_end, self.done, self.history)
            if ended:
                self._validate()
            if bar.is_due(ended):
                bar.show(self.done, self._text(ended))
            if ended:
                self.stopped |= self._end_of_epoch()
                began = time.perf_counter()
            if saved is not None and self.done < self.steps and not self.stopped:
                saved.save_if_due(self, self.callbacks, ended)

    # ---- callbacks and the optimizer -----------------------------------------------------------------------

    def heard(self) -> AbstractContextManager[None]:
        """A context for code of others, which hears Ctrl-C, and may change the optimizer and parameters."""
        self._met = False
        return self.interrupts.heard()

    def _call_hooks(self, hooks: Sequence[Callable[..., Any]], *arguments: Any) -> bool:
        """Whether one of the callbacks wants to stop; every one is called, also if an earlier one does."""
        if not hooks:
            return False
        with self.heard():
            answers = [hook(self.model, *arguments) for hook in hooks]
        self.model.parameters.changed()  # they may have written to them
        self.model.parameters.require_updatable()
        return any(answers)

    def meet_optimizer(self) -> None:
        """Take the optimizer as it is now: whoever is called between chunks may have changed it, so that it
        needs another state, or reset the model."""
        lr = self.optimizer.lr
        if lr is not self._lr:
            if isinstance(lr, Schedule):
                lr.check_columns(self.history.names)
            self._lr = lr
        parameters = self.model.parameters
        self.rule = self.optimizer.snapshot()
        self.state = self.rule.state(parameters.owner, len(parameters), parameters.flat.dtype)
        self._met = True

    @property
    def _spans_epochs(self) -> bool:
        """Whether a chunk may, because nobody wants to be asked after each epoch."""
        watches = isinstance(self.optimizer.lr, Schedule) and self.optimizer.lr.watches
        alone = self._may_skip or self.row_order is not None or self.validation is not None
        return not (alone or self.callbacks.epoch_end or watches)

    def _validate(self) -> None:
        if self.validation is not None:
            began = time.perf_counter()
            with self.heard():
                values = self.validation.evaluate(self.model)
            self.history._add_validation(values, time.perf_counter() - began)

    def _end_of_epoch(self) -> bool:
        """What comes after the validation; whether a callback wants to stop."""
        if isinstance(self.optimizer.lr, Schedule):
            self.meet_optimizer()  # it may be another one since a metric or a callback was called
            self.optimizer.lr.epoch_ended(self.history)
        stop = self._call_hooks(self.callbacks.epoch_end, self.history.epochs, self.history)
        self.unsettled = False
        return stop

    def _text(self, ended: bool) -> str:
        """What is shown beside the progress."""
        step = self.epoch_step  # of the epoch in progress
        so_far = None if ended else float(self.epoch_losses[:step].sum()) / self._divisor(max(1, step))
        return described(self.history, self._epochs_wanted(), so_far)

    def _note(self, losses: NDArray[np.float64], began: float) -> None:
        """Put an epoch into the history, which began then; losses: of its steps, sums over samples."""
        loss = float(np.add.reduce(losses)) / self._divisor(len(losses))
        lr = last_rates(self.rule, self.state.steps, len(losses), 1)[0]
        self.history._add_epoch(loss, lr, time.perf_counter() - began)

    def _note_epochs(self, sums: NDArray[np.float64], began: float) -> None:
        """The same of several that are whole; sums: of each one's losses."""
        steps, seconds = self.steps_per_epoch, (time.perf_counter() - began) / len(sums)
        lr = np.array(last_rates(self.rule, self.state.steps, steps, len(sums)))
        self.history._add_epochs(sums / self._divisor(steps), lr, seconds)

    # ---- chunks --------------------------------------------------------------------------------------------

    def order(self, epochs: int) -> NDArray[np.int64] | None:
        """One permutation of the samples after another, one for each epoch."""
        if self.row_order is not None:
            with self.heard():
                return order_of(self.row_order, self.done // self.steps_per_epoch + 1, len(self.samples))
        return self.model.streams.permutations(len(self.samples), epochs) if self.shuffle else None

    def chunk(
        self, order: NDArray[np.int64] | None, first: int, last: int, losses: NDArray[np.float64]
    ) -> bool:
        """Do these steps (see `Backend.train`); whether all stayed finite."""
        steps = Steps(self.samples, order, first, last, self.batch_size, self.part, self.shards)
        return self.model.backend.train(steps, self.rule, self.state, losses, only_if_finite=True)

    def _watched_chunk(self, chunk: Chunk) -> NDArray[np.float64]:
        """Run a chunk, timed. Diverged if it blows up."""
        model = self.model
        if not self._met:
            model.parameters.adopt()  # a callback may have put arrays in their place
            self.meet_optimizer()
        self._met = False
        for file in self._files:
            file.require_whole()
        before = None if model.backend.chunks_are_atomic else Snapshot(self)
        losses = np.empty(chunk.last - chunk.first)
        started = time.perf_counter()
        finite = self.chunk(chunk.order, chunk.first, chunk.last, losses)
        seconds = time.perf_counter() - started
        if before is not None:
            finite = finite and math.isfinite(losses.sum()) and model.parameters.are_finite()
        if not finite:
            # Steps are repeated now, which shall not be cut short.
            self.interrupts.on_press = lambda: None
            raise step_back(self, chunk, losses, before or Snapshot(self))
        self.step_seconds = seconds / len(losses)
        fitting = int(CHUNK_SECONDS / max(self.step_seconds, 1e-9))
        self.most_steps = max(1, min(fitting, CHUNK_GROWTH * self.most_steps))
        return losses
