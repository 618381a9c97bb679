"""One call of `fit` with an iterable of batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastbp.network.network import Network
from fastbp.training.batches import Batches
from fastbp.training.course import Chunk
from fastbp.training.options import FitOptions
from fastbp.training.run import NO_LIMIT, Run


class BatchRun(Run):
    """One call of `fit` with an iterable of batches: each chunk is one step, with the data of its own.

    epochs, steps : one of them. steps_per_epoch : None: an epoch is a pass over the iterable.
    """

    def __init__(self, model: Network, batches: Batches, options: FitOptions) -> None:
        self.batches, self.epochs, self._per_epoch = batches, options.epochs, options.steps_per_epoch
        steps = options.steps
        if self.epochs is not None and self._per_epoch is not None:
            steps = self.epochs * self._per_epoch
        first = batches.ahead
        assert first is not None
        super().__init__(
            model,
            first.samples,
            NO_LIMIT if steps is None else steps,
            len(first.samples),
            options.optimizer,
            shuffle=False,
            part=first.part,
        )
        self._steps_of_epoch, self._rows_of_epoch = 0, 0  # done of the one in progress

    @property
    def epoch_step(self) -> int:
        return self._steps_of_epoch

    @property
    def epoch_limit(self) -> int | None:
        return self._per_epoch

    @property
    def shortage(self) -> str | None:
        if not self.batches.exhausted:
            return None
        done, wanted, what = self.done, self.steps, "steps"
        if self.epochs is not None and self._per_epoch is None:
            done, wanted, what = self.history.epochs, self.epochs, "epochs"
        return (
            f"X has no more batches after {done} of {wanted} {what}: training has ended. (An iterator can be "
            "gone through once. A list, or a function that returns an iterator, begins again.)"
        )

    def _goes_on(self) -> bool:
        more_epochs = self.epochs is None or self.history.epochs < self.epochs
        return self.done < self.steps and more_epochs and not self.batches.exhausted

    def _next_chunk(self) -> Chunk | None:
        with self.heard():
            group = self.batches.take()
            if group is None and self._per_epoch is not None and not self.batches.exhausted:
                group = self.batches.take()  # an epoch may begin in one pass and end in the next
        if group is None:
            return None
        self.samples, part = group
        # Never smaller than before: what is made for a batch size is also used for fewer rows.
        self.batch_size = max(self.batch_size, len(self.samples))
        self.part = None if part is None else max(part, self.part or 0)
        return Chunk(None, self.history.epochs, 0, 1)

    def _take(self, chunk: Chunk | None, losses: NDArray[np.float64], began: float) -> bool:
        if chunk:
            step = self._steps_of_epoch
            if step == len(self.epoch_losses):
                self.epoch_losses = np.concatenate([self.epoch_losses, np.empty_like(self.epoch_losses)])
            self.epoch_losses[step] = losses[0]
            weights = self.samples.stored_weights
            counts = self.model.architecture.divisor(len(self.samples), weights) != 0
            self._steps_of_epoch = step + 1
            self._rows_of_epoch += len(self.samples) if counts else 0
        steps = self._steps_of_epoch
        full = steps == self._per_epoch or self.done == self.steps
        if not steps or (chunk and not full):
            return False
        self._note(self.epoch_losses[:steps], began)
        self._steps_of_epoch, self._rows_of_epoch = 0, 0
        return True

    def _divisor(self, steps: int) -> int:
        return 1 if self.model.architecture.reduction == "sum" else max(1, self._rows_of_epoch)

    def _steps_expected(self) -> int | None:
        if self.steps < NO_LIMIT or not self.batches.steps_in_pass:
            return self.steps if self.steps < NO_LIMIT else None
        assert self.epochs is not None
        return self.epochs * self.batches.steps_in_pass

    def _epochs_wanted(self) -> int | None:
        if self.epochs is None and self._per_epoch is not None:
            return -(-self.steps // self._per_epoch)
        return self.epochs

    def numbers(self, epoch: int, step: int) -> tuple[int, int]:
        return epoch + 1, self._steps_of_epoch + step + 1
