"""The backend on the engine: prepared plans for each use of a model, and what is packed in them."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import structs
from fastbp.engine.entries import few_rows
from fastbp.engine.kernels.finite import is_finite, is_within
from fastbp.engine.plan import Plan
from fastbp.engine.settings import is_alike, is_constant, rule_of, settings_of
from fastbp.inputs.samples import split_weights
from fastbp.mpi.shards import Shards
from fastbp.mpi.steps import ShardedSteps, fewest, kept_apart
from fastbp.network import prediction
from fastbp.network.architecture import Architecture
from fastbp.network.backend import ANY_ORDER, Steps
from fastbp.network.evaluation import penalty
from fastbp.network.parameters import Parameters
from fastbp.network.plans import Kind, PlanningBackend
from fastbp.network.results import Trace
from fastbp.network.streams import Streams
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule

Array = NDArray[Any]

# Rows that a forward pass takes at a time: enough for the microkernel, few enough for the level-2 cache.
FORWARD_ROWS = 512
# Rows that one entry predicts, in multiply-adds: some 0.1 s, after which Ctrl-C is heard.
ENTRY_MULTIPLY_ADDS = 1_500_000_000
# Steps for which an optimizer's numbers are made at once: for one they take nearly as long as for all these.
SETTINGS_AHEAD = 128


class CompiledBackend(PlanningBackend):
    """Numba kernels on plans."""

    chunks_are_atomic = takes_ranks = has_patience = True
    step_overhead_seconds = 1e-6
    seconds_per_multiply_add = 1e-10
    slack = few_rows.SLACK  # where parameters are read in place, the last vector may reach beyond them

    def __init__(self, architecture: Architecture, parameters: Parameters, streams: Streams) -> None:
        super().__init__(architecture, parameters, streams)
        # An optimizer as it was, the divisor of its steps, the first of them, and what each takes of it.
        self._ahead: tuple[Optimizer, float, int, Array] | None = None
        pays = architecture.scaling is None and len(parameters) < prediction.FEW_ROWS_PARAMETERS
        self._in_place = prediction.InPlace(architecture, parameters) if pays else None
        self._stop = np.zeros(1, np.int64)  # of the main thread's chunk; nobody reads it when that is over

    @staticmethod
    def is_finite(array: Array) -> bool:
        """A look at every number, in compiled code; of arrays that are not C-ordered none at all."""
        return array.flags.c_contiguous and array.size > 0 and is_finite(array)

    @staticmethod
    def is_within(array: Array, low: float, high: float) -> bool:
        """In compiled code, of arrays that are C-ordered."""
        return array.flags.carray and is_within(array, low, high)

    # ---- the passes -----------------------------------------------------------------------------------

    def forward(self, X: Array) -> Trace:
        """One entry into compiled code, which writes into the trace's arrays."""
        rows, architecture = len(X), self.architecture
        z, a = (
            [np.empty((rows, n), architecture.dtype) for n in architecture.layer_sizes[1:]] for _ in range(2)
        )
        n = [np.empty_like(z_i) for z_i in z[: len(self.parameters.gains)]]
        trace = Trace(X, z, a, n, [np.empty(rows, architecture.dtype) for _ in n])
        with self._lock:
            plan = self._take_plan(Kind("trace", "gradient", min(rows, FORWARD_ROWS)))
            plan.bind_parameters(self.parameters.flat)
            plan.bind_data(X, None)
            plan.bind_activations(trace.z, trace.a, trace.n, trace.inverse_std)
            plan.run(structs.PACK + structs.FORWARD, architecture.threads)
            self._put_back(plan)
        return trace

    def backward(self, trace: Trace, Y: Array) -> Array:
        """One entry, which takes the rule "gradient" for an optimizer whose state the gradient is."""
        gradient: Array = np.empty_like(self.parameters.flat)
        rows, architecture = len(Y), self.architecture
        with self._lock:
            plan = self._take_plan(Kind("trace", "gradient", rows, Y.shape[1] > architecture.outputs))
            plan.bind_parameters(self.parameters.flat, [gradient])
            plan.bind_data(trace.X, Y)
            plan.bind_activations(trace.z, trace.a, trace.n, trace.inverse_std)
            divisor = architecture.divisor(rows, split_weights(Y, architecture.outputs)[1])
            plan.coefficients[0] = 1 / divisor if divisor else 0
            plan.run(structs.PACK + structs.BACKWARD + structs.UNPACK_STATES, architecture.threads)
            self._put_back(plan)
        if architecture.l2 and divisor:
            for dW, W in zip(self.parameters.split(gradient)[0], self.parameters.weights, strict=True):
                dW += architecture.l2 / divisor * W
        return gradient

    def predict(self, X: Array) -> Array:
        """Entries of as many rows as Ctrl-C may wait for; parameters are packed once."""
        small = self.predict_few_rows(X, False)
        if small is not None:
            return small
        architecture = self.architecture
        out = np.empty((len(X), architecture.outputs), architecture.dtype)
        rows = min(len(X), FORWARD_ROWS)
        rows_per_entry = max(rows, ENTRY_MULTIPLY_ADDS // len(self.parameters))
        with self._lock:
            plan = self._take_plan(Kind("predict", "add", rows))
            plan.bind_parameters(self.parameters.flat)
            prediction.predict(plan, X, out, architecture.threads, rows_per_entry)
            self._put_back(plan)
        return out

    def predict_few_rows(self, X: Any, check_finite: bool) -> Array | None:
        """Where it pays to read parameters in place. Of networks that share plans, nothing that is prepared
        for more rows is kept."""
        if self._in_place is None:
            return None
        with self._lock:
            return self._in_place.predict(X, check_finite, few_only=self._spare is not None)

    # ---- training -------------------------------------------------------------------------------------

    def request_stop(self) -> None:
        """Have the chunk that the main thread is in return soon: signals are the main thread's."""
        self._stop[0] = 1

    def train(
        self,
        steps: Steps,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        *,
        only_if_finite: bool = False,
    ) -> bool:
        """One entry for all steps; parameters and state are unpacked at the end."""
        buffers = state.buffers  # kept alive to the end, also if another thread gives the state others
        if steps.shards is not None:
            return self._train_in_shards(steps, steps.shards, optimizer, state, losses_out)
        if steps.part is not None and steps.part < steps.batch_size:
            return self._train_in_parts(steps, steps.part, optimizer, state, losses_out)
        samples, parameters, count = steps.samples, self.parameters, len(steps)
        threads, patience = self.architecture.threads, steps.patience
        with self._lock:
            plan = self._take_plan(self._kind_of(steps, optimizer))
            runs, settings = self._settings_of(optimizer, state, steps)
            if not runs:  # none of these rows has any weight
                self._put_back(plan)
                losses_out[:] = 0
                self.streams.steps_trained += count
                return True
            plan.bind_data(samples.X, samples.Y, steps.order)
            plan.bind_parameters(parameters.flat, buffers)
            trained = self.streams.steps_trained
            plan.table.steps_before = trained - steps.first
            if patience is not None:
                plan.bind_patience(patience)
            pack, done = self._packed != (plan, parameters.version), 0
            self._packed = None
            if not samples.weighted and plan.trains_alone(count, threads):
                done, check = count, only_if_finite
                keep = plan.train_alone(steps.first, steps.last, settings, losses_out, pack=pack, check=check)
            else:
                options: dict[str, Any] = {"threads": threads, "stop": self._new_stop()}
                for first, last in runs:
                    losses = losses_out[first - steps.first : last - steps.first]
                    unpack = not only_if_finite and last == runs[-1][1]  # else when they have been looked at
                    plan.train(first, last, settings[done:], losses, pack=pack, unpack=unpack, **options)
                    pack, done = False, done + last - first
                steps.weigh(losses_out, self.architecture.reduction)
                keep = not only_if_finite or self._are_finite(plan, losses_out)
                if keep and only_if_finite:
                    plan.unpack(threads)
            if patience is not None:
                count = done = patience.steps_done = (plan.unbind_patience() or steps.last) - steps.first
            if keep:
                self._packed = plan, parameters.version
                state.steps += done
                self.streams.steps_trained = trained + count
            self._put_back(plan)
        return keep

    def train_at_once(self, steps: Steps, epochs: int, optimizer: Optimizer) -> NDArray[np.float64] | None:
        """By a plan that has run."""
        samples, parameters, streams, count = steps.samples, self.parameters, self.streams, steps.last
        if epochs and not (streams.can_shuffle and streams.has_position):
            return None
        with self._lock:
            rule, key = self._rule_and_key(steps, optimizer)
            plan = self._plans.pop(key, None)
            if plan is None:
                return None
            keep = False
            ready = plan.is_ready_for(samples.X, samples.Y, ANY_ORDER if epochs else None)
            if ready and plan.trains_alone(count, self.architecture.threads):
                state = rule.state(parameters.owner, len(parameters), parameters.flat.dtype)
                buffers, losses = state.buffers, np.empty(count)  # as in `train`
                position = streams.position if epochs else None
                order = streams.permutations(len(samples), epochs) if epochs else None
                plan.bind_data(samples.X, samples.Y, order)
                plan.bind_parameters(parameters.flat, buffers)
                trained = plan.table.steps_before = streams.steps_trained
                _, settings = self._settings_of(rule, state, steps)
                self._packed = None
                keep = plan.train_alone(0, count, settings, losses, pack=True, check=True)
                if keep:
                    state.steps += count
                    streams.steps_trained = trained + count
                elif position is not None:
                    streams.position = position
            self._put_back(plan)
        return losses if keep else None

    def is_ready_for(self, steps: Steps, optimizer: Optimizer) -> bool:
        """By a plan that has run. (Of steps that are cut nothing is known.)"""
        if steps.shards is not None or steps.part is not None:
            return False
        with self._lock:
            plan = self._plans.get(self._key(self._kind_of(steps, optimizer)))
            samples = steps.samples
            return plan is not None and plan.is_ready_for(samples.X, samples.Y, steps.order)

    def _new_stop(self) -> NDArray[np.int64]:
        """A flag for one chunk of steps, which `request_stop` sets if it is the main thread's."""
        stop = np.zeros(1, np.int64)
        if threading.current_thread() is threading.main_thread():
            self._stop = stop
        return stop

    @staticmethod
    def _are_finite(plan: Plan, losses: NDArray[np.float64]) -> bool:
        """Whether the losses are, and the parameters that stand packed."""
        return math.isfinite(losses.sum()) and plan.parameters_are_finite()

    def _settings_of(
        self, optimizer: Optimizer, state: State, steps: Steps
    ) -> tuple[list[tuple[int, int]], Array]:
        """The runs of steps that are not skipped, and what each of their steps takes from the optimizer."""
        reduction, dtype, l2 = self.architecture.reduction, self.architecture.dtype, self.architecture.l2
        divisors, runs, count = steps.divisors(reduction), [(steps.first, steps.last)], len(steps)
        if isinstance(divisors, np.ndarray):
            if reduction == "weighted_mean" and not divisors.all():
                runs, divisors = steps.taken(divisors), divisors[divisors != 0]
                count = len(divisors)
            return runs, settings_of(optimizer, state.steps, count, divisors, dtype, l2)
        steps_done, known = state.steps, self._ahead  # read once: another thread may replace it
        if known and known[1] == divisors and is_alike(known[0], optimizer):
            start = 0 if is_constant(known[3]) else steps_done - known[2]
            if 0 <= start <= len(known[3]) - count:
                return runs, known[3][start : start + count]
        if count > SETTINGS_AHEAD or isinstance(optimizer.lr, Schedule):  # whose course may change any time
            return runs, settings_of(optimizer, steps_done, count, divisors, dtype, l2)
        settings = settings_of(optimizer, steps_done, SETTINGS_AHEAD, divisors, dtype, l2)
        self._ahead = optimizer.snapshot(), divisors, steps_done, settings
        return runs, settings[:count]

    def _train_in_parts(
        self,
        steps: Steps,
        part: int,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
    ) -> bool:
        """`train` in memory for activations of `part` rows. Nothing is updated unless all is finite.

        One plan adds up the gradients of a step's parts; another one, in which no batch is ever run, keeps
        parameters and optimizer state packed and does the step.
        """
        buffers = state.buffers  # as in `train`
        samples, threads = steps.samples, self.architecture.threads
        in_step = -(-steps.batch_size // part)
        runs, settings = self._settings_of(optimizer, state, steps)
        losses, rows = np.empty(in_step), iter(settings)
        trained = self.streams.steps_trained
        parameters, nothing = self.parameters.flat.copy(), np.zeros_like(self.parameters.flat)
        stop = self._new_stop()
        with self._lock:
            self._packed = None
            rule, clips = rule_of(optimizer, self.architecture.l2), optimizer.clip_norm is not None
            sums = self._take_plan(Kind("train", "sum", part, samples.weighted))
            plan = self._take_plan(Kind("train", rule, 1, samples.weighted, clips))
            plan.bind_parameters(parameters, buffers)
            plan.bind_data(samples.X, samples.Y, steps.order)
            plan.train(0, 0, settings, losses, pack=True, threads=threads, stop=stop)
            sums.bind_parameters(parameters, [nothing])  # each step begins with a sum of 0
            sums.bind_data(samples.X, samples.Y, steps.order)
            if not len(steps):
                sums.train(0, 0, settings, losses, pack=True, threads=threads, stop=stop)
            for s in range(steps.first, steps.last):
                first, last = steps.parts_of(s, part)
                if not any(a <= s < b for a, b in runs):
                    losses_out[s - steps.first] = 0
                    trained += last - first
                    continue
                row = next(rows)
                scales = np.repeat(row[:1, None], last - first, axis=0)
                sums.table.steps_before = trained - first
                sums.train(first, last, scales, losses, pack=True, threads=threads, stop=stop)
                loss = losses[: last - first].sum()
                weights = self.parameters.split(parameters)[0]
                losses_out[s - steps.first] = loss + steps.penalty_times * penalty(self.architecture, weights)
                trained += last - first
                plan.step_with(sums, row)
                plan.unpack_parameters(threads)
            steps.weigh(losses_out, self.architecture.reduction)
            keep = self._are_finite(plan, losses_out)
            if keep:
                plan.unpack(threads)
                self.parameters.flat[...] = parameters
                state.steps += len(settings)
                self.streams.steps_trained = trained
            self._put_back(sums)
            self._put_back(plan)
        return keep

    def _train_in_shards(
        self,
        steps: Steps,
        shards: Shards,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
    ) -> bool:
        """`train` with gradients of shards added up. Nothing is updated unless all is finite.

        The plan is one that clips the gradient's norm: it keeps gradients apart, and its update, which is
        done when they are added up, takes place where the parameters lie packed.
        """
        buffers = state.buffers  # as in `train`
        samples, parameters = steps.samples, self.parameters
        rule = kept_apart(optimizer)
        threads = fewest(self.architecture.threads, shards.threads)
        order = np.arange(len(samples)) if steps.order is None else steps.order
        stop = self._new_stop()
        with self._lock:
            rows = shards.most_rows(steps.batch_size)
            plan = self._take_plan(Kind("train", rule_of(rule), rows, samples.weighted, True))
            plan.bind_data(samples.X, samples.Y, order)
            plan.bind_parameters(parameters.flat, buffers)
            runs, settings = self._settings_of(rule, state, steps)
            if shards.rows is not None and self.architecture.reduction != "sum":
                settings = settings.copy()
                settings[:, 0] = 1 / shards.rows_of_steps(steps.first, steps.last, steps.batch_size)
            pack = self._packed != (plan, parameters.version)
            self._packed = None
            plan.train(0, 0, settings, np.empty(0), pack=pack, threads=threads, stop=stop)
            plan.hold_updates()
            losses_out[:], done = 0, 0
            for first, last in runs:
                trained = self.streams.steps_trained + (first - steps.first) * shards.count
                run = ShardedSteps(plan, shards, order, len(samples), steps.batch_size, trained, stop)
                of_run = run.train(first, settings[done : done + last - first], threads)
                losses_out[first - steps.first : last - steps.first] = of_run
                done += last - first
            steps.weigh(losses_out, self.architecture.reduction)
            plan.release_updates()
            keep = self._are_finite(plan, losses_out)
            if keep:
                plan.unpack(threads)
                self._packed = plan, parameters.version
                state.steps += done
                self.streams.steps_trained += len(steps) * shards.count
            self._put_back(plan)
        return keep
