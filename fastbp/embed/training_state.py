"""A model's training state for steps in compiled code: what they read and advance of an optimizer."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastbp import checks
from fastbp.embed.errors import OtherModelError, TooManyRowsError
from fastbp.engine.entries.embedded_training import EmbeddedTraining, bands
from fastbp.engine.plan import Plan
from fastbp.engine.settings import factors_of, has_biases_apart, rule_of, settings_of
from fastbp.inputs.sources import Rows
from fastbp.losses import Loss
from fastbp.network.compiled import CompiledBackend
from fastbp.network.network import Network
from fastbp.network.plans import Kind
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule
from fastbp.training.start import make_ready

if TYPE_CHECKING:
    from fastbp.embed.numba_types import StateType

# Of an optimizer whose numbers do not change from step to step.
NO_END = 1 << 62


class TrainingState:
    """What `model.train_step(X, Y, state)` needs besides the model; made by `model.training_state`.

    It has no numbers of its own: the parameters are the model's, moments and count of steps are those that
    the optimizer keeps for this model, so `fit` and other states of the same optimizer go on from there.
    Whenever compiled code is entered with it, it takes the optimizer as it is then (hyper-parameters that
    were set, a schedule's rates), and the model (after `reset` the optimizer begins anew).

    Attributes
    ----------
    model, optimizer : whose state it is.
    batch_size : rows of a step, at most.
    steps : so many steps are possible in compiled code before it is entered again.
    """

    def __init__(self, model: Network, embedded_at: int, optimizer: Optimizer, batch_size: int, steps: int):
        if not isinstance(model.backend, CompiledBackend):
            raise TypeError(
                "compiled code needs a model of fastbp.MLP: one of fastbp.reference computes in NumPy"
            )
        make_ready(model, optimizer)
        self.model, self.optimizer = model, optimizer
        self.batch_size, self.steps = checks.count("batch_size", batch_size), checks.count("steps", steps)
        self._backend, self._network = model.backend, embedded_at
        self._embedded: EmbeddedTraining | None = None
        self._made_for: tuple[Any, ...] = ()
        self._retired: list[EmbeddedTraining] = []  # some other thread may still be in code that has one
        self._numbers_of: tuple[Any, ...] = ()

    def embedded(self) -> EmbeddedTraining:
        """What compiled code reads, of the model and the optimizer as they are now."""
        model = self.model
        make_ready(model, self.optimizer)
        rule = self.optimizer.snapshot()
        if has_biases_apart(rule, model.architecture.l2):
            raise ValueError(
                f"l2 is {model.architecture.l2:g}, decay_biases is {rule.decay_biases}: steps in compiled "
                "code train weights and biases alike; fit and train_step do not"
            )
        state = rule.state(model.parameters.owner, len(model.parameters), model.architecture.dtype)
        made_for = (rule_of(rule), rule.clip_norm is not None, self._backend.noise_key)
        if self._embedded is None or made_for != self._made_for:
            if self._embedded is not None:
                self._retired.append(self._embedded)
            self._embedded, self._made_for, self._numbers_of = self._make(rule), made_for, ()
        embedded = self._embedded
        embedded.take()
        try:
            embedded.bind(model.parameters.flat, state.buffers, state.counter)
            self._set_numbers(embedded, rule, state)
        finally:
            embedded.free()
        return embedded

    def _make(self, rule: Optimizer) -> EmbeddedTraining:
        architecture, rounded = self.model.architecture, self.model.reader.rounded_scaling
        X = np.zeros((1, architecture.inputs), architecture.dtype)
        Y = np.zeros((1, architecture.outputs), architecture.dtype)

        def plan(rows: int) -> Plan:
            kind = Kind("train", rule_of(rule), rows, clip_norm=rule.clip_norm is not None)
            made = Plan(self._backend.design(kind))
            made.bind_data(X if rounded is None else Rows(X, X.dtype, rounded), Y)
            return made

        sizes = bands(self.batch_size)
        plans = {rows: plan(rows) for rows in sizes}
        mean, trained = architecture.reduction != "sum", self.model.streams.counter
        of_sizes = [plans[rows] for rows in sizes]
        return EmbeddedTraining(of_sizes, self._network, _targets(architecture.loss), mean, trained)

    def _set_numbers(self, embedded: EmbeddedTraining, rule: Optimizer, state: State) -> None:
        """The optimizer's numbers for the steps to come, unless there are enough of the same optimizer."""
        first, dtype = state.steps, self.model.architecture.dtype
        options = {name: value for name, value in vars(rule).items() if not name.startswith("_")}
        options["learned"] = rule.lr.state_dict() if isinstance(rule.lr, Schedule) else None
        known = self._numbers_of
        if known and known[0] is state and known[1] == options and known[2] <= first <= known[3] - self.steps:
            return
        alike = all(np.ndim(value) == 0 for value in rule.coefficients(first, first + 2).values())
        count = 1 if alike else 2 * self.steps
        numbers = settings_of(rule, first, count, 1.0, dtype)
        last = NO_END if alike else first + count
        embedded.set_numbers(first, last, factors_of(rule, first, count), numbers)
        self._numbers_of = (state, options, first, last)

    @property
    def _embedded_at_(self) -> int:
        """The address of that, which compiled code asks for whenever it is given the state."""
        return self.embedded().address

    @cached_property
    def _numba_type_(self) -> StateType:
        """The state's type in functions that Numba compiles."""
        from fastbp.embed.numba_types import state_type_of  # Numba's compiler comes with it

        return state_type_of(self.model)

    def optimizer_for(self, model: Network, X: Any) -> Optimizer:
        """The optimizer, for a step in Python on X. ValueError where compiled code would have one."""
        if self.model is not model:
            raise OtherModelError
        rows = len(X) if hasattr(X, "__len__") else 0
        if rows > self.batch_size:
            raise TooManyRowsError(rows, self.batch_size)
        return self.optimizer

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.model, self.optimizer, self.batch_size, self.steps)


def _again(model: Any, *arguments: Any) -> TrainingState:
    optimizer, batch_size, steps = arguments
    state: TrainingState = model.training_state(optimizer, batch_size=batch_size, steps=steps)
    return state


def _targets(loss: Loss) -> tuple[float, float, bool, bool]:
    """Which targets the loss takes: the lowest and the highest, whether no others, whether rows have the sum
    1."""
    if loss.targets_are_signs:
        return -1.0, 1.0, True, False
    if loss.targets_in_unit_interval:
        return 0.0, 1.0, False, False
    if loss.of_classes or loss.targets_are_counts:
        return 0.0, math.inf, False, loss.of_classes
    return -math.inf, math.inf, False, False
