"""Training steps for other people's compiled code, as `embedded` has predictions: plans for batches of up to
so many rows, and the optimizer's numbers for steps to come.

A step packs the parameters, trains, and unpacks them, as one step of `MLP.train_step` does: so whoever writes
to parameters in between is heard, and whoever reads them sees what was learned. Steps of one state that
several threads ask for are done one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import (
    call,
    exchange,
    load_number,
    peek,
    publish,
    store_number,
    yield_core,
)
from fastbp.engine.compile.struct import at, size_of
from fastbp.engine.entries.embedded_structs import Training, training_at
from fastbp.engine.kernels.finite import not_finite
from fastbp.engine.memory import FEW_ROWS, SINGLE_ROWS, Memory
from fastbp.engine.plan import Plan
from fastbp.engine.structs import PACK, TRAIN, UNPACK, UNPACK_STATES, plan_at
from fastbp.engine.threads.locks import free_after_fork

Array = NDArray[Any]

# Steps of these many rows, and of more, are computed in different ways: each has a plan of its own, so that a
# step has the bits of one of a plan made for so many rows.
BANDS = (1, SINGLE_ROWS, FEW_ROWS)
# What a step comes to.
DONE, NO_NUMBERS = 0, 1


def bands(most_rows: int) -> list[int]:
    """The batch sizes of the four plans for steps of up to so many rows, some of them alike."""
    return [*(min(rows, most_rows) for rows in BANDS), most_rows]


def _step(zero: Any) -> Any:
    """The step for a network whose numbers are of the type of `zero`."""
    number = type(zero)

    def embedded_step(x, y, rows, loss, outcome, address):
        """One step on x (rows, inputs) and y (rows, outputs). loss: room for a float64, outcome: for an
        integer, DONE or NO_NUMBERS; then nothing was done."""
        training = training_at(address)
        while exchange(training.here, 1) != 0:
            yield_core()
        step = peek(training.steps, np.int64(0))
        if step < training.first or step >= training.last:
            publish(outcome, np.int64(NO_NUMBERS))
            publish(training.here, np.int64(0))
            return
        plan = plan_at(training.many)
        if rows <= BANDS[0]:
            plan = plan_at(training.of_one)
        elif rows <= BANDS[1]:
            plan = plan_at(training.of_single)
        elif rows <= BANDS[2]:
            plan = plan_at(training.of_few)
        k, divisor = step - training.first, float(rows) if training.mean else 1.0
        coefficients = training.coefficients + k * training.coefficients_row
        factor = load_number(training.factors + k * training.factors_row, np.float64(0)) * (1.0 / divisor)
        store_number(coefficients, number(factor))
        trained = peek(training.trained, np.int64(0))
        plan.x.address, plan.y.address, plan.samples = x, y, rows
        plan.coefficients, plan.steps_before = coefficients, trained
        plan.task = PACK + TRAIN + UNPACK + UNPACK_STATES
        call(training.work, (0, 1, plan.here))
        store_number(loss, load_number(plan.losses, np.float64(0)) / divisor)
        publish(training.steps, step + 1)
        publish(training.trained, trained + 1)
        publish(outcome, np.int64(DONE))
        publish(training.here, np.int64(0))

    return embedded_step


def _step_address(dtype: str) -> int:
    zero = np.dtype(dtype).type(0)
    return jit.address_of(f"embedded_step-{dtype}", jit.void(6), lambda: _step(zero), driver=True)


def _take(busy: int) -> None:
    while exchange(busy, 1) != 0:
        yield_core()


@cache
def _entry() -> Any:
    return jit.dispatcher(_take, (jit.types.int64,))


class EmbeddedTraining:
    """What compiled code reads of one network in training, at `address`, for as long as this object lives.

    plans : of the sizes that `bands` says, with data like those of the steps bound.
    network : address of the same network embedded for predictions.
    targets : lowest and highest, whether no others are allowed, and whether each row has the sum 1.
    mean : whether the loss of a step is divided by its rows.
    trained : the model's count of steps, one integer in memory that the steps add to.
    """

    def __init__(
        self,
        plans: Sequence[Plan],
        network: int,
        targets: tuple[float, float, bool, bool],
        mean: bool,
        trained: NDArray[np.int64],
    ) -> None:
        self.plans, self._memory = list(plans), Memory()
        design = plans[0].design
        self.address = self._memory.new(size_of(Training))
        self._table = table = at(Training, self.address)
        table.train, table.work = _step_address(design.dtype.name), plans[0].work
        table.finite, table.network = not_finite(design.dtype.name), network
        table.of_one, table.of_single, table.of_few, table.many = (plan.address for plan in plans)
        for plan in plans:
            plan.table.first_step, plan.table.last_step, plan.table.steps_per_epoch = 0, 1, 1
        table.inputs, table.outputs = design.layer_sizes[0], design.layer_sizes[-1]
        table.most_rows, table.mean = plans[-1].design.batch, mean
        table.trained = trained.ctypes.data
        low, high, table.signs, sums = targets
        self._targets = np.array([low, high, sums], np.float64)
        table.targets = self._targets.ctypes.data
        self._kept: tuple[Any, ...] = (trained,)
        free_after_fork(self)

    def free(self) -> None:
        """In a child process: whoever had it does not exist there."""
        self._table.busy = 0

    def take(self) -> None:
        """Have it for oneself, until `free`: no step runs meanwhile. It may take as long as a step."""
        _entry()(self.address)

    def bind(self, parameters: Array, buffers: Sequence[Array], steps: NDArray[np.int64]) -> None:
        """The parameters, the optimizer's arrays of state, and its count of steps, which the steps add to."""
        for plan in self.plans:
            plan.bind_parameters(parameters, buffers)
        self._table.steps = steps.ctypes.data
        self._kept = (self._kept[0], steps, parameters, *buffers)

    def set_numbers(self, first: int, last: int, factors: NDArray[np.float64], coefficients: Array) -> None:
        """For the steps first <= s < last: what 1 / rows is multiplied by for the factor of the output's
        deltas, (steps,), and the optimizer's numbers (steps, n), see settings.py. A single row is that of
        all."""
        table, self._numbers = self._table, (factors, coefficients)
        table.first, table.last = first, last
        table.factors, table.coefficients = factors.ctypes.data, coefficients.ctypes.data
        table.factors_row = 0 if len(factors) == 1 else factors.strides[0]
        table.coefficients_row = 0 if len(coefficients) == 1 else coefficients.strides[0]
