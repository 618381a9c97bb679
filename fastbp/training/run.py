"""One training run: cuts steps into chunks, keeps the history, and steps back when numbers blow up."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbp import metrics
from fastbp.callbacks import Callbacks
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.inputs.sources import Rows, is_on_disk
from fastbp.metrics import Metric
from fastbp.optimizers import Optimizer, State
from fastbp.schedules import Schedule, rates
from fastbp.training.checkpoint import Checkpoints
from fastbp.training.interrupt import DeferredInterrupt

if TYPE_CHECKING:
    from fastbp.network.base import BaseMLP

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
# The progress bar is not drawn more often than that within an epoch.
SHOWN_SECONDS = 0.1


def _stored(data: Array | Rows) -> Array:
    """The numbers as the caller has them."""
    return data.values if isinstance(data, Rows) else data


@dataclass
class Validation:
    """What judges the model after each epoch."""

    samples: Samples
    metrics: Sequence[Metric] = ()

    def evaluate(self, model: BaseMLP) -> dict[str, float]:
        """The loss, and each metric by its name."""
        X, Y = self.samples.X, self.samples.Y
        if not self.metrics:
            return {"loss": model._evaluate(X, Y)}
        y_pred = np.empty((len(X), model.architecture.layer_sizes[-1]), model.architecture.dtype)
        loss = model._evaluate(X, Y, y_pred)
        return {"loss": loss} | metrics.evaluate(self.metrics, self.samples.targets[:], y_pred)


class Chunk(NamedTuple):
    """Steps that run without Python: first <= s < last, counted from the beginning of epoch `epoch` (from 0).

    They take the rows of the data that `order` lists, see `_train_chunk`; None: as they lie.
    """

    order: NDArray[np.int64] | None
    epoch: int
    first: int
    last: int


class Run:
    """One call of `fit`, its data and settings checked.

    `steps` are to be done, of `batch_size` rows each, which are taken `part` at a time (None: all at once).
    """

    def __init__(
        self,
        model: BaseMLP,
        X: Array | Rows,
        Y: Array | Rows,
        steps: int,
        batch_size: int,
        optimizer: Optimizer,
        state: State,
        shuffle: bool,
        part: int | None = None,
    ) -> None:
        self.model, self.X, self.Y = model, X, Y
        self.steps, self.batch_size, self.part = steps, batch_size, part
        self.optimizer, self.state, self.shuffle = optimizer, state, shuffle
        self.steps_per_epoch = -(-len(X) // batch_size)
        measured = model._measured_step
        if measured and measured[0] == (batch_size, part):
            self.step_seconds = measured[1]
        else:
            work = 3 * batch_size * model.n_parameters
            self.step_seconds = model._step_overhead_seconds + work * model._seconds_per_multiply_add
        self.most_steps = max(1, int(CHUNK_SECONDS / self.step_seconds))
        if is_on_disk(_stored(X)) or is_on_disk(_stored(Y)):  # nobody knows yet how fast the disk is
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
        self._whole, self._drawn = 1, False  # epochs of a chunk; whether there is an order for them
        self._rows: NDArray[np.int64] | None = None  # that order
        self._shown = 0.0  # when the progress bar was

    @property
    def epoch_step(self) -> int:
        """Steps done of the epoch in progress."""
        return self.done % self.steps_per_epoch

    @property
    def shortage(self) -> str | None:
        """Why there were fewer steps than asked for, if it is the data's fault."""
        return None

    def train(self, validation: Validation | None, callbacks: Callbacks, progress: bool) -> History:
        history, started, saved = self.history, time.perf_counter(), self.checkpoints
        if validation is not None:
            for name in ("loss", *(metric.name for metric in validation.metrics)):
                history._add_column(name)
        if isinstance(self.optimizer.lr, Schedule):
            self.optimizer.lr.check_columns(history.names)
        if saved is not None:
            self.epoch_random = self.model.streams.state()
            if saved.finished:
                saved.restore(self, callbacks)
                return history
        bar = None
        with DeferredInterrupt() as interrupt:
            try:
                for begin in callbacks.train_begin:
                    begin(self.model, history)
                if saved is not None:
                    with interrupt.held(lambda: None):
                        saved.restore(self, callbacks)
                bar = self._bar(progress)
                self._run(validation, callbacks, bar, interrupt)
            except KeyboardInterrupt:
                history.interrupted = True
            finally:
                if bar is not None:
                    bar.close()
                history.seconds += time.perf_counter() - started
                self.model._measured_step = (self.batch_size, self.part), self.step_seconds
            try:
                with interrupt.held(lambda: None):
                    if saved is not None:
                        saved.ending(self, callbacks)
                    for end in callbacks.train_end:
                        end(self.model, history)
                    if saved is not None:
                        saved.ended(self)
            except KeyboardInterrupt:
                history.interrupted = True
            finally:
                self.model.parameters.changed()
        return history

    def _bar(self, progress: bool) -> Any:
        if not (progress and sys.stderr is not None and sys.stderr.isatty()):
            return None
        from tqdm import tqdm

        return tqdm(total=self._steps_expected(), initial=self.done, unit="step", dynamic_ncols=True)

    def _run(
        self, validation: Validation | None, callbacks: Callbacks, bar: Any, interrupt: DeferredInterrupt
    ) -> None:
        saved, lr = self.checkpoints, self.optimizer.lr
        watches = isinstance(lr, Schedule) and lr.watches
        spans_epochs = validation is None and not callbacks.epoch_end and not watches
        # Compile now, where Ctrl-C need not wait and no clock runs.
        self._chunk(np.empty(0, np.int64) if self.shuffle else None, 0, 0, np.empty(0))
        began = time.perf_counter()  # the epoch
        if self.unsettled:  # Ctrl-C had come between an epoch and what follows it
            assert saved is not None
            saved.note_states(self, callbacks)
            self._validate(validation)
            self.stopped = self._end_of_epoch(callbacks)
        while self._goes_on() and not self.stopped:
            chunk = self._next_chunk(spans_epochs)
            with interrupt.held(self.model._request_stop):  # what was trained is in the history, always
                losses = self._watched_chunk(chunk) if chunk else np.empty(0)
                self.done += len(losses)
                ended = self._take(chunk, losses, began)
                self.unsettled = ended
                if saved is not None and ended:
                    saved.note_states(self, callbacks)
                    if self.epoch_step == 0:
                        self.epoch_random = self.model.streams.state()
            if chunk:
                self.stopped = self._call(callbacks.chunk_end, self.done)
            if ended:
                self._validate(validation)
            if bar is not None:
                self._show(bar, ended)
            if ended:
                self.stopped |= self._end_of_epoch(callbacks)
                began = time.perf_counter()
            if saved is not None and self.done < self.steps and not self.stopped:
                saved.save_if_due(self, callbacks, ended)

    def _goes_on(self) -> bool:
        """Whether there is more to be done."""
        return self.done < self.steps

    def _next_chunk(self, spans_epochs: bool) -> Chunk | None:
        """The steps to run next; None: the epoch has turned out to be over."""
        per_epoch = self.steps_per_epoch
        epoch, step = divmod(self.done, per_epoch)
        left = self.steps - self.done
        if self.checkpoints is not None:
            left = min(left, self.checkpoints.next_due(self.done, per_epoch) - self.done)
        if step == 0:
            whole = min(self.most_steps // per_epoch, ORDER_ENTRIES // len(self.X), left // per_epoch)
            self._whole = max(1, whole) if spans_epochs else 1
        if step == 0 or not self._drawn:
            self._rows, self._drawn = self._order(self._whole), True
        if self._whole > 1:
            return Chunk(self._rows, epoch, step, self._whole * per_epoch)
        return Chunk(self._rows, epoch, step, min(step + min(self.most_steps, left), per_epoch))

    def _take(self, chunk: Chunk | None, losses: NDArray[np.float64], began: float) -> bool:
        """Note what a chunk's steps have given; whether it has ended an epoch, which began then."""
        assert chunk is not None
        per_epoch = self.steps_per_epoch
        if chunk.last > per_epoch:
            self._note(losses.reshape(-1, per_epoch).sum(axis=1), per_epoch, began)
            return True
        self.epoch_losses[chunk.first : chunk.last] = losses
        ended = chunk.last == per_epoch or self.done == self.steps
        if ended:
            self._note(self.epoch_losses[: chunk.last].sum(keepdims=True), chunk.last, began)
        return ended

    def _validate(self, validation: Validation | None) -> None:
        if validation is not None:
            began = time.perf_counter()
            values = validation.evaluate(self.model)
            self.history._add_validation(values, time.perf_counter() - began)

    def _end_of_epoch(self, callbacks: Callbacks) -> bool:
        """What comes after the validation; whether a callback wants to stop."""
        if isinstance(self.optimizer.lr, Schedule):
            self.optimizer.lr.epoch_ended(self.history)
        stop = self._call(callbacks.epoch_end, self.history.epochs)
        self.unsettled = False
        return stop

    def _call(self, hooks: Sequence[Callable[[Any, int, History], Any]], count: int) -> bool:
        """Whether one of the callbacks wants to stop; every one is called, also if an earlier one does."""
        if not hooks:
            return False
        answers = [hook(self.model, count, self.history) for hook in hooks]
        self.model.parameters.changed()  # they may have written to them
        return any(answers)

    def _show(self, bar: Any, ended: bool) -> None:
        now = time.perf_counter()
        if not ended and now - self._shown < SHOWN_SECONDS:
            return
        self._shown = now
        loss = self.history.last("loss") if ended else self._loss_so_far()
        epochs = self._epochs_wanted()
        text = f"epoch {self.history.epochs}{f'/{epochs}' if epochs else ''}, loss {loss:.4g}"
        if self.history.epochs:
            names = [name for name in self.history.names if name.startswith("val_")]
            text += "".join(f", {name} {self.history.last(name):.4g}" for name in names)
        bar.set_postfix_str(text)
        bar.update(self.done - bar.n)

    def _loss_so_far(self) -> float:
        """Of the epoch in progress."""
        step = self.epoch_step
        return float(self.epoch_losses[:step].sum()) / self._divisor(max(1, step))

    def _steps_expected(self) -> int | None:
        return self.steps

    def _epochs_wanted(self) -> int | None:
        return -(-self.steps // self.steps_per_epoch)

    def _note(self, sums: NDArray[np.float64], steps: int, began: float) -> None:
        """Put epochs of so many steps into the history; sums: of their samples' losses."""
        first = self.state.steps - len(sums) * steps
        lr = rates(self.optimizer.lr, first + steps * np.arange(1, len(sums) + 1) - 1)
        seconds = (time.perf_counter() - began) / len(sums)
        self.history._add_epochs(self._epoch_losses(sums, steps), lr.tolist(), seconds)

    def _divisor(self, steps: int) -> int:
        """What a sum over the losses of an epoch's first steps is divided by."""
        return min(steps * self.batch_size, len(self.X)) if self.model.architecture.reduction == "mean" else 1

    def _epoch_losses(self, sums: NDArray[np.float64], steps: int) -> list[float]:
        return list((sums / self._divisor(steps)).tolist())

    def _order(self, epochs: int) -> NDArray[np.int64] | None:
        """One permutation of the samples after another; drawing two at a time is the same as one by one."""
        if not self.shuffle:
            return None
        rows = np.tile(np.arange(len(self.X), dtype=np.int64), (epochs, 1))
        return self.model.streams.shuffling.permuted(rows, axis=1, out=rows).ravel()

    def _chunk(
        self, order: NDArray[np.int64] | None, first: int, last: int, losses: NDArray[np.float64]
    ) -> bool:
        return self.model._train_chunk(
            self.X,
            self.Y,
            order,
            first,
            last,
            self.batch_size,
            self.optimizer,
            self.state,
            losses,
            only_if_finite=True,
            part=self.part,
        )

    def _snapshot(self) -> tuple[Array, list[Array], int, int]:
        buffers = [b.copy() for b in self.state.buffers]
        return self.model.parameters.flat.copy(), buffers, self.state.steps, self.model.streams.steps_trained

    def _watched_chunk(self, chunk: Chunk) -> NDArray[np.float64]:
        """Run a chunk, timed. FloatingPointError (see _step_back) if it blows up."""
        order, epoch, first, last = chunk
        model = self.model
        model.parameters.adopt()  # a callback may have put arrays in their place
        before = None if model._chunks_are_atomic else self._snapshot()
        losses = np.empty(last - first)
        started = time.perf_counter()
        finite = self._chunk(order, first, last, losses)
        seconds = time.perf_counter() - started
        if before is not None:
            finite = finite and math.isfinite(losses.sum()) and model.parameters.are_finite()
        if not finite:
            self._step_back(order, epoch, first, losses, before or self._snapshot())
        self.step_seconds = seconds / (last - first)
        fitting = int(CHUNK_SECONDS / max(self.step_seconds, 1e-9))
        self.most_steps = max(1, min(fitting, CHUNK_GROWTH * self.most_steps))
        return losses

    def _step_back(
        self,
        order: NDArray[np.int64] | None,
        epoch: int,
        first: int,
        losses: NDArray[np.float64],
        before: tuple[Array, list[Array], int, int],
    ) -> None:
        """Restore the last finite parameters and raise FloatingPointError.

        A chunk can be repeated to any of its steps, with the same results. Parameters that are not finite
        stay so, hence bisection finds the last finite ones.
        """
        from fastbp.inspection.diagnosis import examine

        model, state = self.model, self.state
        bad = np.flatnonzero(~np.isfinite(losses))
        scratch = np.empty_like(losses)

        def repeat(steps: int) -> bool:
            model.parameters.flat[...] = before[0]
            for buffer, values in zip(state.buffers, before[1], strict=True):
                buffer[...] = values
            state.steps, model.streams.steps_trained = before[2:]
            model.parameters.changed()
            updated = self._chunk(order, first, first + steps, scratch[:steps])
            return updated and model.parameters.are_finite()

        good, too_many = 0, (int(bad[0]) if len(bad) else len(losses)) + 1
        while too_many - good > 1:
            middle = (good + too_many) // 2
            if repeat(middle):
                good = middle
            else:
                too_many = middle
        if len(bad):
            good = min(good, int(bad[0]))
            failed, what = int(bad[0]), f"the loss became {losses[bad[0]]}"
        else:
            failed, what = good, "a parameter became NaN or infinite"
        repeat(good)
        # The step that these parameters do not survive.
        next_epoch, next_step = divmod(first + good, self.steps_per_epoch)
        rows: Any = slice(next_step * self.batch_size, min((next_step + 1) * self.batch_size, len(self.X)))
        if order is not None:
            rows = order[next_epoch * len(self.X) :][: len(self.X)][rows]
        diagnosis = examine(model, self.X[rows], self.Y[rows])
        (at_epoch, at_step), (before_epoch, before_step) = (
            self._numbers(epoch, first + step) for step in (failed, good)
        )
        of = f" of {self._epoch_limit}" if self._epoch_limit < NO_LIMIT else ""
        raise FloatingPointError(
            f"{what} at epoch {at_epoch}, step {at_step}{of}. The model has the last finite parameters, "
            f"those before step {before_step} of epoch {before_epoch}. "
            f"With them: {'; '.join(diagnosis.verdicts)}"
        )

    @property
    def _epoch_limit(self) -> int:
        """How many steps an epoch may have."""
        return self.steps_per_epoch

    def _numbers(self, epoch: int, step: int) -> tuple[int, int]:
        """Epoch and step, counted from 1, of a step counted from the beginning of an epoch."""
        epochs, in_epoch = divmod(step, self.steps_per_epoch)
        return epoch + epochs + 1, in_epoch + 1
