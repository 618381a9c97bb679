"""One training run: cuts steps into chunks, keeps the history, and steps back when numbers blow up."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastbp._interrupt import DeferredInterrupt
from fastbp._sources import Rows, is_on_disk
from fastbp.history import History
from fastbp.optimizers import Optimizer, State

if TYPE_CHECKING:
    from fastbp._base import BaseMLP, Callback

Array = NDArray[Any]

# A chunk is what runs without Python: as long as Ctrl-C, the progress bar and a clock may wait.
CHUNK_SECONDS = 0.2
# The first chunk's steps are guessed from their multiply-adds; the next ones grow by this factor at most.
CHUNK_GROWTH = 8
# Shuffled indices made at a time where a chunk spans several epochs.
ORDER_ENTRIES = 1 << 20


# Rows of the first chunk where data are read from a disk, perhaps at 10 ms each.
FIRST_ROWS_ON_DISK = 64


def _stored(data: Array | Rows) -> Array:
    """The numbers as the caller has them."""
    return data.values if isinstance(data, Rows) else data


class Run:
    """One call of `fit`, its data and settings checked."""

    def __init__(
        self,
        model: BaseMLP,
        X: Array | Rows,
        Y: Array | Rows,
        epochs: int,
        batch_size: int,
        optimizer: Optimizer,
        state: State,
        shuffle: bool,
    ) -> None:
        self.model, self.X, self.Y = model, X, Y
        self.epochs, self.batch_size = epochs, batch_size
        self.optimizer, self.state, self.shuffle = optimizer, state, shuffle
        self.steps_per_epoch = -(-len(X) // batch_size)
        measured = model._measured_step
        if measured and measured[0] == batch_size:
            self.step_seconds = measured[1]
        else:
            work = 3 * batch_size * model.n_parameters
            self.step_seconds = model._step_overhead_seconds + work * model._seconds_per_multiply_add
        self.most_steps = max(1, int(CHUNK_SECONDS / self.step_seconds))
        if is_on_disk(_stored(X)) or is_on_disk(_stored(Y)):  # nobody knows yet how fast the disk is
            self.most_steps = min(self.most_steps, max(1, FIRST_ROWS_ON_DISK // batch_size))
        self.history = History()

    def train(
        self, validation: tuple[Array | Rows, Array | Rows] | None, callbacks: list[Callback], progress: bool
    ) -> History:
        started = time.perf_counter()
        bar = self._bar(progress)
        with DeferredInterrupt() as interrupt:
            try:
                self._run(validation, callbacks, bar, interrupt)
            except KeyboardInterrupt:
                self.history.interrupted = True
            finally:
                if bar is not None:
                    bar.close()
                self.history.seconds = time.perf_counter() - started
                self.model._measured_step = (self.batch_size, self.step_seconds)
        return self.history

    def _bar(self, progress: bool) -> Any:
        if not (progress and sys.stderr is not None and sys.stderr.isatty()):
            return None
        from tqdm import tqdm

        return tqdm(total=self.epochs * self.steps_per_epoch, unit="step", dynamic_ncols=True)

    def _run(
        self,
        validation: tuple[Array | Rows, Array | Rows] | None,
        callbacks: list[Callback],
        bar: Any,
        interrupt: DeferredInterrupt,
    ) -> None:
        per_epoch = self.steps_per_epoch
        spans_epochs = validation is None and not callbacks
        # Compile now, where Ctrl-C need not wait and no clock runs.
        self._chunk(None, 0, 0, np.empty(0))
        epoch, step, epoch_loss = 0, 0, 0.0
        order: NDArray[np.int64] | None = None
        while epoch < self.epochs:
            if step == 0:
                whole = min(self.most_steps // per_epoch, ORDER_ENTRIES // len(self.X), self.epochs - epoch)
                whole = max(1, whole) if spans_epochs else 1
                order = self._order(whole)
            last = min(step + self.most_steps, per_epoch) if whole == 1 else whole * per_epoch
            with interrupt.held(self.model._request_stop):  # what was trained is in the history, always
                losses = self._watched_chunk(order, epoch, step, last)
                if whole > 1:
                    self.history._loss += self._epoch_losses(losses.reshape(whole, per_epoch).sum(axis=1))
                    epoch, step = epoch + whole, 0
                else:
                    epoch_loss += losses.sum()
                    step = last
                    if step == per_epoch:
                        self.history._loss += self._epoch_losses(np.array([epoch_loss]))
                        epoch, step, epoch_loss = epoch + 1, 0, 0.0
            if bar is not None:
                bar.set_postfix_str(
                    f"epoch {epoch}/{self.epochs}, loss {self._shown_loss(epoch_loss, step):.4g}"
                )
                bar.update(len(losses))
            if step == 0 and not spans_epochs:
                if validation is not None:
                    self.history._val_loss.append(self.model._evaluate(*validation))
                # every callback is called, also if an earlier one wants to stop
                answers = [callback(self.model, epoch, self.history) for callback in callbacks]
                if any(answers):
                    return

    def _shown_loss(self, epoch_loss: float, step: int) -> float:
        if step == 0:
            return self.history._loss[-1]
        samples = step * self.batch_size
        return epoch_loss / samples if self.model._reduction == "mean" else epoch_loss

    def _epoch_losses(self, sums: NDArray[np.float64]) -> list[float]:
        values = sums / len(self.X) if self.model._reduction == "mean" else sums
        return list(values.tolist())

    def _order(self, epochs: int) -> NDArray[np.int64] | None:
        """One permutation of the samples after another; drawing two at a time is the same as one by one."""
        if not self.shuffle:
            return None
        rows = np.tile(np.arange(len(self.X), dtype=np.int64), (epochs, 1))
        return self.model._shuffling.permuted(rows, axis=1, out=rows).ravel()

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
        )

    def _snapshot(self) -> tuple[Array, list[Array], int]:
        return self.model._parameters.copy(), [b.copy() for b in self.state.buffers], self.state.steps

    def _watched_chunk(
        self,
        order: NDArray[np.int64] | None,
        epoch: int,
        first: int,
        last: int,
    ) -> NDArray[np.float64]:
        """Run a chunk, timed. FloatingPointError (see _step_back) if it blows up."""
        model = self.model
        model._adopt_parameters()  # a callback may have put arrays in their place
        before = None if model._chunks_are_atomic else self._snapshot()
        losses = np.empty(last - first)
        started = time.perf_counter()
        updated = self._chunk(order, first, last, losses)
        seconds = time.perf_counter() - started
        finite = updated and (before is None or model._parameters_are_finite())
        if not (finite and math.isfinite(losses.sum())):
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
        before: tuple[Array, list[Array], int],
    ) -> None:
        """Restore the last finite parameters and raise FloatingPointError.

        A chunk can be repeated to any of its steps, with the same results. Parameters that are not finite
        stay so, hence bisection finds the last finite ones.
        """
        from fastbp._diagnosis import diagnose

        model, state = self.model, self.state
        bad = np.flatnonzero(~np.isfinite(losses))
        scratch = np.empty_like(losses)

        def repeat(steps: int) -> bool:
            model._parameters[...] = before[0]
            for buffer, values in zip(state.buffers, before[1], strict=True):
                buffer[...] = values
            state.steps = before[2]
            model._parameters_changed()
            updated = self._chunk(order, first, first + steps, scratch[:steps])
            return updated and model._parameters_are_finite()

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
        diagnosis = diagnose(model, _stored(self.X)[rows], _stored(self.Y)[rows], check_finite=False)
        at_epoch, at_step = divmod(first + failed, self.steps_per_epoch)
        raise FloatingPointError(
            f"{what} at epoch {epoch + at_epoch + 1}, step {at_step + 1} of {self.steps_per_epoch}. "
            f"The model has the last finite parameters, those before step {next_step + 1} of epoch "
            f"{epoch + next_epoch + 1}. With them: {'; '.join(diagnosis.verdicts)}"
        )
