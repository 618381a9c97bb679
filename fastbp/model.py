"""MLP: the model API on the engine. Holds parameters, hands them to the compiled worker."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.engine import structs
from fastbp.engine.entries import few_rows
from fastbp.engine.kernels.finite import is_finite
from fastbp.engine.memory import FEW_ROWS, Design
from fastbp.engine.plan import Plan
from fastbp.engine.settings import rule_of, settings_of
from fastbp.engine.threads.locks import lock_of
from fastbp.inputs.sources import Rows
from fastbp.network.base import BaseMLP
from fastbp.network.results import Trace
from fastbp.optimizers import Optimizer, State

Array = NDArray[Any]

# Rows that a forward pass takes at a time: enough for the tile's speed, few enough for the level-2 cache.
FORWARD_ROWS = 512
# Rows that one entry predicts, in multiply-adds: some 0.1 s, after which Ctrl-C is heard.
ENTRY_MULTIPLY_ADDS = 1_500_000_000
# From so many parameters on, even a few rows are worth a team.
FEW_ROWS_PARAMETERS = 4_000_000


class MLP(BaseMLP):
    __doc__ = BaseMLP.__doc__

    _chunks_are_atomic = True
    _slack = few_rows.SLACK  # where parameters are read in place, the last vector may reach beyond them
    _step_overhead_seconds = 1e-6
    _seconds_per_multiply_add = 1e-10

    def _set_up(self) -> None:
        self._plans: dict[tuple[Any, ...], Plan] = {}
        # The plan whose packed parameters are those of the model, if these have this version.
        self._packed: tuple[Plan, int] | None = None
        self._few_rows: few_rows.FewRows | None = None
        self._stop = np.zeros(1, np.int64)  # of the main thread's chunk; nobody reads it when that is over
        self._lock = lock_of(self)  # plans have room for one call at a time

    def _take_plan(
        self, use: str, rule: str, batch: int, *, weighted: bool = False, clip_norm: bool = False
    ) -> Plan:
        """The plan for a use: "train", "trace" (forward, backward) or "predict".

        It is the caller's alone until `_put_back`: whoever asks meanwhile (a signal handler, a finaliser, a
        child that was forked) gets another one. If the call ends with an exception, it is not put back, so
        that nobody finds what that call has left behind.
        """
        key = (use, rule, batch, weighted, clip_norm, self._noise_key)  # the last changes at `reset`
        plan = self._plans.pop(key, None)
        if plan is None:
            names = [activation.name for activation in self._activations]
            design = Design(
                self._layer_sizes,
                tuple(names),
                self._loss.name,
                self._dtype,
                rule,
                batch,
                use,
                weighted=weighted,
                dropout=self._dropout,
                input_noise=self._input_noise,
                key=self._noise_key,
                clip_norm=clip_norm,
                max_norm=self._max_norm if use == "train" and rule != "sum" else None,
                layer_norm=self._layer_norm,
            )
            plan = Plan(design)
            plan.key = key
        return plan

    def _put_back(self, plan: Plan) -> None:
        self._plans.pop(plan.key, None)
        while len(self._plans) >= 4:
            self._plans.pop(next(iter(self._plans)))
        self._plans[plan.key] = plan  # the one used last stands last

    def _is_weighted(self, Y: Array | Rows) -> bool:
        """Whether these prepared targets have the samples' weights behind them."""
        return bool(Y.shape[1] > self._layer_sizes[-1])

    @staticmethod
    def _is_finite(array: Array) -> bool:
        return array.flags.c_contiguous and array.size > 0 and is_finite(array)

    def _request_stop(self) -> None:
        self._stop[0] = 1  # signals are the main thread's

    def predict(self, X: ArrayLike, *, check_finite: bool = True) -> Array:
        # What is looked at here would cost compiled code more to refuse; it refuses all else.
        if (
            type(X) is np.ndarray
            and X.ndim == 2
            and 0 < X.shape[0] <= FEW_ROWS
            and X.dtype == self._dtype
            and X.flags.carray
            and self._scaling is None
        ):
            self._adopt_parameters()
            with self._lock:
                short_way = self._few_rows or self._predict_few_rows()
                out = None if short_way is None else short_way.predict(X, check_finite)
            if out is not None:
                return out
        return super().predict(X, check_finite=check_finite)

    predict.__doc__ = BaseMLP.predict.__doc__

    def _predict_few_rows(self) -> few_rows.FewRows | None:
        """What reads parameters in place, unless they are so many that it would not pay."""
        if self.n_parameters >= FEW_ROWS_PARAMETERS:
            return None
        names = [activation.name for activation in self._activations]
        self._few_rows = few_rows.FewRows(
            self._layer_sizes, names, self._loss.name, self._parameters, self._layer_norm
        )
        return self._few_rows

    def _forward_pass(self, X: Array) -> Trace:
        rows = len(X)
        z, a = ([np.empty((rows, n), self._dtype) for n in self._layer_sizes[1:]] for _ in range(2))
        n = [np.empty_like(z_i) for z_i in z[: len(self.gains)]]
        trace = Trace(X, z, a, n, [np.empty(rows, self._dtype) for _ in n])
        with self._lock:
            plan = self._take_plan("trace", "gradient", min(rows, FORWARD_ROWS))
            plan.bind_parameters(self._parameters)
            plan.bind_data(X, None)
            plan.bind_activations(trace.z, trace.a, trace.n, trace.inverse_std)
            plan.run(structs.PACK + structs.FORWARD, self._threads)
            self._put_back(plan)
        return trace

    def _predict(self, X: Array) -> Array:
        out = np.empty((len(X), self._layer_sizes[-1]), self._dtype)
        rows = min(len(X), FORWARD_ROWS)
        rows_per_entry = max(rows, ENTRY_MULTIPLY_ADDS // self.n_parameters)
        with self._lock:
            plan = self._take_plan("predict", "add", rows)
            plan.bind_parameters(self._parameters)
            for start in range(0, len(X), rows_per_entry):
                part = out[start : start + rows_per_entry]
                plan.bind_data(X[start : start + rows_per_entry], None)
                plan.bind_output(part)
                plan.run(structs.FORWARD + (structs.PACK if start == 0 else 0), self._threads)
            self._put_back(plan)
        return out

    def _backward_pass(self, trace: Trace, Y: Array) -> Array:
        gradient: Array = np.empty_like(self._parameters)
        rows = len(Y)
        X = np.ascontiguousarray(trace.X, self._dtype)
        with self._lock:
            plan = self._take_plan("trace", "gradient", rows, weighted=self._is_weighted(Y))
            plan.bind_parameters(self._parameters, [gradient])
            plan.bind_data(X, Y)
            lent = [
                [np.ascontiguousarray(v, self._dtype) for v in values]
                for values in (trace.z, trace.a, trace.n, trace.inverse_std)
            ]
            plan.bind_activations(*lent)
            plan.coefficients[0] = 1 / rows if self._reduction == "mean" else 1
            plan.run(structs.PACK + structs.BACKWARD + structs.UNPACK_STATES, self._threads)
            self._put_back(plan)
        return gradient

    def _train_chunk(
        self,
        X: Array | Rows,
        Y: Array | Rows,
        order: NDArray[np.int64] | None,
        first_step: int,
        last_step: int,
        batch_size: int,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        *,
        only_if_finite: bool = False,
        part: int | None = None,
    ) -> bool:
        stop = np.zeros(1, np.int64)
        if threading.current_thread() is threading.main_thread():
            self._stop = stop
        if part is not None and part < batch_size:
            return self._train_in_parts(
                X, Y, order, first_step, last_step, batch_size, part, optimizer, state, losses_out, stop
            )
        with self._lock:
            plan = self._take_plan(
                "train",
                rule_of(optimizer),
                batch_size,
                weighted=self._is_weighted(Y),
                clip_norm=optimizer.clip_norm is not None,
            )
            if first_step == last_step and plan.is_ready_for(X, Y, order):
                self._put_back(plan)
                return True
            plan.bind_data(X, Y, order)
            plan.bind_parameters(self._parameters, state.buffers)
            settings = self._settings_of(optimizer, state, first_step, last_step, len(X), batch_size)
            plan.table.steps_before = self.streams.steps_trained - first_step
            pack = self._packed != (plan, self.parameters.version)
            self._packed = None
            plan.train(
                first_step, last_step, settings, losses_out, pack=pack, threads=self._threads, stop=stop
            )
            keep = not only_if_finite or (math.isfinite(losses_out.sum()) and plan.parameters_are_finite())
            if keep:
                plan.unpack(self._threads)
                self._packed = plan, self.parameters.version
                state.steps += last_step - first_step
                self.streams.steps_trained += last_step - first_step
            self._put_back(plan)
        return keep

    def _settings_of(
        self, optimizer: Optimizer, state: State, first_step: int, last_step: int, samples: int, batch: int
    ) -> Array:
        mean = self._reduction == "mean"
        return settings_of(optimizer, state.steps, first_step, last_step, samples, batch, mean, self._dtype)

    def _train_in_parts(
        self,
        X: Array | Rows,
        Y: Array | Rows,
        order: NDArray[np.int64] | None,
        first_step: int,
        last_step: int,
        batch_size: int,
        part: int,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        stop: NDArray[np.int64],
    ) -> bool:
        """`_train_chunk` in memory for activations of `part` rows. Nothing is updated unless all is finite.

        One plan adds up the gradients of a step's parts; another one, in which no batch is ever run, keeps
        parameters and optimizer state packed and does the step.
        """
        in_step, in_epoch, steps_per_epoch = (
            -(-n // m) for n, m in ((batch_size, part), (len(X), part), (len(X), batch_size))
        )
        settings = self._settings_of(optimizer, state, first_step, last_step, len(X), batch_size)
        losses = np.empty(in_step)
        trained = self.streams.steps_trained
        parameters, nothing = self._parameters.copy(), np.zeros_like(self._parameters)
        with self._lock:
            self._packed = None
            weighted, clip_norm = self._is_weighted(Y), optimizer.clip_norm is not None
            sums = self._take_plan("train", "sum", part, weighted=weighted)
            plan = self._take_plan("train", rule_of(optimizer), 1, weighted=weighted, clip_norm=clip_norm)
            plan.bind_parameters(parameters, state.buffers)
            plan.bind_data(X, Y, order)
            plan.train(0, 0, settings, losses, pack=True, threads=self._threads, stop=stop)
            sums.bind_parameters(parameters, [nothing])  # each step begins with a sum of 0
            sums.bind_data(X, Y, order)
            if first_step == last_step:
                sums.train(0, 0, settings, losses, pack=True, threads=self._threads, stop=stop)
            for s in range(first_step, last_step):
                epoch, step_of_epoch = divmod(s, steps_per_epoch)
                first = epoch * in_epoch + step_of_epoch * in_step
                last = min(first + in_step, (epoch + 1) * in_epoch)
                row = settings[s - first_step]
                scales = np.repeat(row[:1, None], last - first, axis=0)
                sums.table.steps_before = trained - first
                sums.train(first, last, scales, losses, pack=True, threads=self._threads, stop=stop)
                losses_out[s - first_step] = losses[: last - first].sum()
                trained += last - first
                plan.step_with(sums, row)
                plan.unpack_parameters(self._threads)
            keep = math.isfinite(losses_out.sum()) and plan.parameters_are_finite()
            if keep:
                plan.unpack(self._threads)
                self._parameters[...] = parameters
                state.steps += last_step - first_step
                self.streams.steps_trained = trained
            self._put_back(sums)
            self._put_back(plan)
        return keep
