"""Epochs in compiled code, in scikit-learn's order, and the learning rates of its optimizers."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.engine.entries.shuffling import shuffled
from fastbp.engine.worker.patience import Patience
from fastbp.inputs.samples import Samples
from fastbp.network.backend import Steps
from fastbp.optimizer_base import Optimizer, State
from fastbp.sklearn.initial import Draws
from fastbp.training.interrupt import Interrupts

# A call of compiled code takes about so long: Ctrl-C need not wait longer, nor the question whether a team is
# faster by now.
CALL_SECONDS = 0.2
# The first call's steps are guessed, too slow by half at least, and as on a slow core where it would take as
# long as this; the next ones grow by this factor at most. (Each call packs and unpacks: three of them took
# 1.5% of two epochs of 784-256-10.)
FIRST_CALL_SECONDS, CALL_GROWTH = 0.6, 8
# Indices of shuffled rows made at a time.
ORDER_ENTRIES = 1 << 20
# Below that a rate that is divided by 5 again and again ends the training.
SMALLEST_ADAPTIVE_RATE = 1e-6


class Rates:
    """An optimizer for one training, and what becomes of its learning rate at the end of an epoch.

    Hyper-parameters are those that the estimator has now; scikit-learn's `partial_fit`, too, goes on with
    those of the first call. learning_rate is the rate of the next step.
    """

    def __init__(self, estimator: Any) -> None:
        lr = float(estimator.learning_rate_init)
        self.learning_rate_init = self.learning_rate = lr
        self.kind, self.power_t = "constant", float(estimator.power_t)
        self.rule: Optimizer
        if estimator.solver == "sgd":
            self.kind = estimator.learning_rate
            # 1 is allowed there, but not by SGD; in float32 it is 1 again.
            momentum = min(float(estimator.momentum), float(np.nextafter(1.0, 0.0)))
            nesterov = bool(estimator.nesterovs_momentum) and momentum > 0
            self.rule = fastbp.SGD(lr, momentum, nesterov, lr_in_velocity=True)
        else:
            betas = (float(estimator.beta_1), float(estimator.beta_2))
            self.rule = fastbp.Adam(lr, betas, float(estimator.epsilon), epsilon_hat=True)

    def state(self, model: fastbp.MLP) -> State:
        """What the optimizer remembers of the model."""
        parameters = model.parameters
        return self.rule.state(parameters.owner, len(parameters), model.architecture.dtype)

    @property
    def changes_each_epoch(self) -> bool:
        """Whether the rate of the next epoch is another one in any case."""
        return self.kind == "invscaling"

    def iteration_ends(self, samples_seen: int) -> None:
        """After an epoch: learning_rate_init / (t + 1)^power_t with learning_rate="invscaling"."""
        if self.kind == "invscaling":
            self._set(self.learning_rate_init / (samples_seen + 1) ** self.power_t)

    def ends_training(self, message: str, verbose: bool) -> bool:
        """Whether training ends as nothing improves; with learning_rate="adaptive" it goes on at a fifth of
        the rate until that is too small."""
        if self.kind != "adaptive":
            ends, end = True, "Stopping."
        elif self.learning_rate <= SMALLEST_ADAPTIVE_RATE:
            ends, end = True, "Learning rate too small. Stopping."
        else:
            self._set(self.learning_rate / 5.0)
            ends, end = False, f"Setting learning rate to {self.learning_rate:f}"
        if verbose:
            print(f"{message} {end}")
        return ends

    def _set(self, rate: float) -> None:
        self.learning_rate = self.rule.lr = rate


class Epochs:
    """Runs epochs of a training; what comes after each is others' business.

    draws : for the order of each epoch, a permutation of the one before; None: samples as they lie.
    loss_divisor : what losses, without the penalty, are divided by before they are reported.
    """

    def __init__(
        self,
        model: fastbp.MLP,
        samples: Samples,
        batch_size: int,
        rates: Rates,
        draws: Draws | None,
        loss_divisor: int,
    ) -> None:
        self.model, self.samples, self.batch_size = model, samples, batch_size
        self.rates, self._draws = rates, draws
        self.per_epoch = -(-len(samples) // batch_size)
        guessed = model.backend.guessed_step_seconds(batch_size)
        self._most_steps = max(1, int(FIRST_CALL_SECONDS / guessed))
        # The orders drawn last, and how many of them were used; at first the one that is permuted.
        self._orders, self._used = np.arange(len(samples))[None], 1
        self._divisor = loss_divisor
        weights = samples.stored_weights
        self._weighted = weights is not None
        self._may_skip = weights is not None and not weights.all()
        self._state = rates.state(model)
        model.parameters.changed()  # perhaps before this call; whoever is called meanwhile says so
        self.interrupts = Interrupts(model.backend.request_stop)

    def most(self, epochs: float) -> int:
        """At most so many epochs, as are worth an entry into compiled code."""
        fitting = max(1, min(self._most_steps // self.per_epoch, ORDER_ENTRIES // len(self.samples)))
        return int(min(epochs, fitting))

    def run(self, epochs: int, patience: Patience | None = None) -> NDArray[np.float64]:
        """Run so many epochs, or fewer where there is patience. Returns the loss of each: the mean over its
        samples of their batches' losses.

        KeyboardInterrupt after Ctrl-C, with the steps done so far.
        """
        order = self._order(epochs)
        if order is not None:
            epochs = len(order) // len(self.samples)
        steps, first = epochs * self.per_epoch, 0
        losses = np.empty(steps)
        while first < steps:
            self.interrupts.check()
            last = min(steps, first + self._most_steps)
            began = time.perf_counter()
            of_call, batches = losses[first:last], self._of(order, first, last)
            batches.patience = patience
            self.model.backend.train(batches, self.rates.rule, self._state, of_call)
            done = last - first if patience is None else patience.steps_done
            seconds = (time.perf_counter() - began) / done
            fitting = int(CALL_SECONDS / max(seconds, 1e-9))
            self._most_steps = max(1, min(fitting, CALL_GROWTH * self._most_steps))
            first += done
            steps = first if first < last else steps
        epochs = steps // self.per_epoch
        self._used += epochs
        losses = losses[:steps] / self._divisor  # now those of the batches, times their rows
        sums = losses.reshape(epochs, self.per_epoch).sum(axis=1)
        of_epochs: NDArray[np.float64] = sums / self._counted(order, epochs)
        return of_epochs

    def patience(self, tol: float, best: float, count: int, most: float) -> Patience | None:
        """For the next run, if it may have one: best and count are those of the epochs before it."""
        if self._weighted or not self.model.backend.has_patience:
            return None
        return Patience(tol, best, count, most, self._divisor * len(self.samples))

    def _order(self, epochs: int) -> NDArray[np.int64] | None:
        """Of the next epochs, one after another: of so many, or of those that were drawn in vain."""
        if self._draws is None:
            return None
        if self._used == len(self._orders):
            before, rows = self._orders[-1], len(self.samples)
            (self._orders,) = self._draws.once(
                ("orders", rows, epochs), lambda random: (shuffled(random, before, epochs),)
            )
            self._used = 0
        return self._orders[self._used : self._used + epochs].reshape(-1)

    def _of(self, order: NDArray[np.int64] | None, first: int, last: int) -> Steps:
        # The penalty is part of the loss that comes back, and is not to be divided.
        times = self._divisor
        return Steps(self.samples, order, first, last, self.batch_size, penalty_times=times)

    def _counted(self, order: NDArray[np.int64] | None, epochs: int) -> Any:
        """How many samples each epoch's loss is a mean over: those of batches that have any weight."""
        if not self._may_skip:
            return len(self.samples)
        steps = self._of(order, 0, epochs * self.per_epoch)
        weights = steps.weights()
        assert weights is not None
        counted = np.where(weights != 0, steps.rows(), 0).reshape(epochs, self.per_epoch).sum(axis=1)
        return np.maximum(counted, 1)
