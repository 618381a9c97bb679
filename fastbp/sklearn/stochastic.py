"""adam and sgd: epochs until nothing improves any more, as scikit-learn decides it."""

from __future__ import annotations

import math
import warnings
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from fastbp.sklearn.attributes import Attributes
from fastbp.sklearn.epochs import Epochs, Rates
from fastbp.sklearn.inputs import Data
from fastbp.sklearn.watching import Watchers

Array = NDArray[Any]

# min(200, samples) rows make a batch with batch_size="auto".
AUTO_BATCH_SIZE = 200


class Stochastic(Attributes):
    """What an estimator does with solver "adam" or "sgd"; a part of `base.Network`."""

    def _fit_stochastic(self, data: Data, held_out: Data | None, incremental: bool) -> None:
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = Rates(self)
        if self.early_stopping:
            if incremental:
                raise ValueError("partial_fit does not support early_stopping=True")
            if held_out is None:
                data, held_out = self._split(data)
        batch_size = self._rows_of_batch(len(data))
        model = self.model_
        self._begin_curves(held_out is not None)
        samples = model.reader.samples(data.X, data.y, data.weights, False)
        samples = samples.apart_from(model.parameters.flat)
        draws = self._draws if self.shuffle else None
        epochs = Epochs(model, samples, batch_size, self._optimizer, draws, self._loss_divisor())
        self.n_iter_ = 0
        judged = None
        if held_out is not None:
            judged = model.reader.samples(held_out.X, held_out.y, held_out.weights, False)
        watchers = Watchers(model, self.callbacks, judged, epochs.interrupts)
        try:
            with epochs.interrupts:
                self._run_epochs(epochs, held_out, watchers, 1 if incremental else self.max_iter)
        except KeyboardInterrupt:
            epochs.interrupts.deafen()
            warnings.warn("Training interrupted by user.", stacklevel=4)
        finally:
            watchers.close()
            model.parameters.changed()
        watchers.end()
        if not incremental and self.n_iter_ == self.max_iter and not self._converged:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization "
                "hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if self.early_stopping:
            model.parameters.replace(self._best_flat)

    def _rows_of_batch(self, samples: int) -> int:
        if self.batch_size == "auto":
            return min(AUTO_BATCH_SIZE, samples)
        if self.batch_size > samples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=5,
            )
        return int(min(self.batch_size, samples))

    def _split(self, data: Data) -> tuple[Data, Data]:
        """Samples to train on, and samples held out for early stopping."""
        rows, held = train_test_split(
            np.arange(len(data)),
            random_state=self._draws.generator(),
            test_size=self.validation_fraction,
            stratify=self._strata(data),
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return data.picked(rows), data.picked(held)

    def _begin_curves(self, scored: bool) -> None:
        """What epochs add to, where an earlier call has not begun it."""
        begun = vars(self)
        begun.setdefault("t_", 0)
        begun.setdefault("loss_curve_", [])
        begun.setdefault("_no_improvement_count", 0)
        if begun.get("validation_scores_") is None:
            self.validation_scores_ = [] if scored else None
            self.best_validation_score_ = -math.inf if scored else None
        if self.early_stopping:
            self.best_loss_ = None
            if begun.get("_best_flat") is None:
                self._best_flat = self.model_.parameters.flat.copy()
        elif begun.get("best_loss_") is None:
            self.best_loss_ = math.inf

    # ---- from epoch to epoch ------------------------------------------------------------------------------

    def _run_epochs(self, epochs: Epochs, held_out: Data | None, watchers: Watchers, most: int) -> None:
        """Run epochs, and note what comes after each. Several run in one piece: where compiled code knows
        when training ends, or where none of them but the last can end it, since each adds at most one to the
        count that does."""
        self._converged = False
        watchers.begin(self.progress, most * epochs.per_epoch)
        each = held_out is not None or self.verbose or self._optimizer.changes_each_epoch
        each |= watchers.are_called
        # Whose generator it is sees how many orders were drawn, unless it is made of a number for each call.
        may_draw_more = not self.shuffle or isinstance(self.random_state, Integral)
        while self.n_iter_ < most and not self._converged:
            count, patience = 1, None
            if not each:
                so_far, limit = self._no_improvement_count, self.n_iter_no_change
                if may_draw_more and most > 1:
                    patience = epochs.patience(self.tol, self.best_loss_, so_far, limit)
                certain = math.inf if patience is not None else max(1, limit + 1 - so_far)
                count = epochs.most(min(certain, most - self.n_iter_))
            for loss in epochs.run(count, patience).tolist():
                lr = self._optimizer.learning_rate
                self._converged = self._epoch_ends(loss, len(epochs.samples), held_out)
                score = self.validation_scores_[-1] if held_out is not None else None
                steps = self.n_iter_ * epochs.per_epoch
                self._converged |= watchers.epoch_ends(self.n_iter_, loss, lr, score, steps)
            if not math.isfinite(self.loss_) and not self.early_stopping:
                self._require_finite()

    def _epoch_ends(self, loss: float, samples: int, held_out: Data | None) -> bool:
        """Note an epoch; whether training ends with it."""
        self.n_iter_ += 1
        self.loss_ = loss
        self.t_ += samples
        self.loss_curve_.append(loss)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {loss:.8f}")
        if held_out is not None:
            self._note_validation(held_out)
        if not self.early_stopping:
            self._note_loss(loss)
        self._optimizer.iteration_ends(self.t_)
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        what = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive "
            "epochs."
        )
        if self._optimizer.ends_training(message, bool(self.verbose)):
            return True
        self._no_improvement_count = 0
        return False

    def _note_loss(self, loss: float) -> None:
        if loss > self.best_loss_ - self.tol:
            self._no_improvement_count += 1
        else:
            self._no_improvement_count = 0
        if loss < self.best_loss_:
            self.best_loss_ = loss

    def _note_validation(self, held_out: Data) -> None:
        """The score of samples that are not trained on, and with early stopping what follows from it."""
        score = self._score(held_out)
        self.validation_scores_.append(score)
        if self.verbose:
            print(f"Validation score: {score:f}")
        best = self.best_validation_score_
        if self.early_stopping:
            self._no_improvement_count = self._no_improvement_count + 1 if score < best + self.tol else 0
        if score > best:
            self.best_validation_score_ = score
            if self.early_stopping:
                self._best_flat = self.model_.parameters.flat.copy()
