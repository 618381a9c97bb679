"""Numbers that blow up: back to the last finite parameters, and what to say about it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.history import History
from fastbp.inspection.diagnosis import FINE, examine
from fastbp.network.network import Network
from fastbp.training.course import Chunk, Course

Array = NDArray[Any]


class Diverged(Exception):
    """A chunk has blown up. The model has the last finite parameters; `fit` raises FloatingPointError.

    what : what happened, and when.
    before : the step that the last finite parameters are from before.
    diagnosis : what is to be seen with them.
    """

    def __init__(self, what: str, before: str, diagnosis: str) -> None:
        super().__init__(what, before, diagnosis)
        self.what, self.before, self.diagnosis = what, before, diagnosis

    def as_error(self, model: Network, history: History, last: Array) -> FloatingPointError:
        """What the user is told of a model whose callbacks may have put other parameters in the place of the
        last."""
        model.parameters.adopt()
        if np.array_equal(last, model.parameters.flat):
            now = f"The model has the last finite parameters, those before {self.before}. With them"
        else:
            best = history.best_epoch
            of = "a callback" if best is None else f"the best epoch, {best}"
            finite = f"the last finite parameters, those before {self.before}"
            now = f"The model has the parameters of {of}. With {finite}"
        return FloatingPointError(f"{self.what}. {now}: {self.diagnosis}")


class Snapshot:
    """What a chunk changes, as it was before."""

    def __init__(self, run: Course) -> None:
        self.parameters = run.model.parameters.flat.copy()
        self.buffers = [buffer.copy() for buffer in run.state.buffers]
        self.steps, self.steps_trained = run.state.steps, run.model.streams.steps_trained

    def restore(self, run: Course) -> None:
        run.model.parameters.flat[...] = self.parameters
        for buffer, values in zip(run.state.buffers, self.buffers, strict=True):
            buffer[...] = values
        run.state.steps, run.model.streams.steps_trained = self.steps, self.steps_trained
        run.model.parameters.changed()


def step_back(run: Course, chunk: Chunk, losses: NDArray[np.float64], before: Snapshot) -> Diverged:
    """Restore the last finite parameters, and say what has happened. ValueError if there were none.

    A chunk can be repeated to any of its steps, with the same results. Parameters that are not finite stay
    so, hence bisection finds the last finite ones.
    """
    model, first = run.model, chunk.first
    if not np.isfinite(before.parameters).all():
        before.restore(run)
        epoch, step = run.numbers(chunk.epoch, first)
        raise ValueError(
            "weights, biases or gains hold NaN or infinity, which somebody (a callback?) has written there "
            f"before step {step} of epoch {epoch}: training cannot go on from them"
        )
    bad = np.flatnonzero(~np.isfinite(losses))
    scratch = np.empty_like(losses)

    def repeat(steps: int) -> bool:
        before.restore(run)
        updated = run.chunk(chunk.order, first, first + steps, scratch[:steps])
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
    at_epoch, at_step = run.numbers(chunk.epoch, first + failed)
    before_epoch, before_step = run.numbers(chunk.epoch, first + good)
    of = "" if run.epoch_limit is None else f" of {run.epoch_limit}"
    # The step that these parameters do not survive.
    rows = _rows_of_step(run, chunk, first + good)
    return Diverged(
        f"{what} at epoch {at_epoch}, step {at_step}{of}",
        f"step {before_step} of epoch {before_epoch}",
        _diagnosis(run, rows),
    )


def _diagnosis(run: Course, rows: Any) -> str:
    """What is to be seen with the model's parameters, of the rows of the step that they do not survive."""
    verdicts = examine(run.model, run.samples.X[rows], run.samples.Y[rows]).verdicts
    if verdicts != [FINE]:
        return "; ".join(verdicts)
    (rate,) = run.optimizer.rates(run.state.steps, run.state.steps + 1)
    return (
        f"signals and gradients pass through every layer, so it is the step that is too long: use a smaller "
        f"learning rate than {rate:g}"
    )


def _rows_of_step(run: Course, chunk: Chunk, step: int) -> Any:
    """Which rows of the data a step takes, counted as in `Chunk`."""
    epoch, step = divmod(step, run.steps_per_epoch)
    samples = len(run.samples)
    rows: Any = slice(step * run.batch_size, min((step + 1) * run.batch_size, samples))
    return rows if chunk.order is None else chunk.order[epoch * samples :][:samples][rows]
