"""Predictions for other people's compiled code: a function with a C interface, and what it reads.

Such code calls from any thread, without Python and without a lock. So a network has several slots, each with
plans of its own, and a call takes one for as long as it lasts. The address of all that is an argument, never
a constant: compiled code may be kept on disk, and read by a process in which nothing lies where it did.

Parameters are read where the model has them, at each call: whatever writes to them is seen by the next one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import (
    call,
    exchange,
    load_number,
    observe,
    publish,
    room,
    store_number,
    yield_core,
)
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import at, size_of
from fastbp.engine.entries.embedded_structs import Embedded, Slot, embedded_at, slot_at
from fastbp.engine.kernels.finite import not_finite
from fastbp.engine.memory import Memory, most_workers
from fastbp.engine.plan import Plan
from fastbp.engine.structs import FORWARD, PACK, SLOT_BYTES, plan_at, top_layer
from fastbp.engine.threads.locks import free_after_fork

Array = NDArray[Any]

# Rows from which a call packs the parameters: it has to read and write all of them for that, and gains less
# than half of the time that a row takes.
PACKED_ROWS = 32
# Slots are twice as many as threads that compute, and never fewer than that.
FEWEST_SLOTS = 4


@inner
def take_slot(network):
    """A slot that nobody else has until `give_back`. A thread finds the same one again, unless it is taken:
    the search begins where the place of its stack says (stacks are some megabytes apart)."""
    stack, tried = room(), 0
    place = (stack >> 16) ^ (stack >> 20) ^ (stack >> 23)
    while True:
        slot = slot_at(network.slot + ((place + tried) & (network.slots - 1)) * SLOT_BYTES)
        if observe(slot.here) == 0 and exchange(slot.here, 1) == 0:
            return slot
        tried += 1
        if tried & (network.slots - 1) == 0:  # whoever has them computes, and will not be long
            yield_core()


@inner
def give_back(slot):
    publish(slot.here, 0)


@inner
def run(network, slot, x, rows, out):
    """out (rows, outputs) = the network's output for x (rows, inputs): addresses."""
    packs = rows >= PACKED_ROWS
    plan = plan_at(slot.many if packs else slot.few)
    plan.x.address, plan.samples, plan.task = x, rows, FORWARD + PACK if packs else FORWARD
    plan.steps_per_epoch = (rows + plan.batch - 1) // plan.batch
    top_layer(plan).caller.a = out
    call(network.work, (0, 1, plan.here))


def predict(x, rows, out, address):
    """out (rows, outputs) = the network's output for x (rows, inputs), both C-ordered and of its dtype."""
    network = embedded_at(address)
    if rows < 1:
        return
    slot = take_slot(network)
    run(network, slot, x, rows, out)
    give_back(slot)


def _integrand(zero: Any) -> Any:
    """The integrand for a network whose numbers are of the type of `zero`."""

    number = type(zero)

    def integrand(n, x, address):
        """The output for one row of n doubles; NaN unless there are as many as inputs."""
        network = embedded_at(address)
        if n != network.inputs:
            return np.nan
        slot = take_slot(network)
        sample, size = slot.sample, network.row // network.inputs
        for i in range(n):
            store_number(sample + i * size, number(load_number(x + i * 8, np.float64(0))))
        run(network, slot, sample, np.int64(1), sample + network.row)
        y = np.float64(load_number(sample + network.row, zero))
        give_back(slot)
        return y

    return integrand


def predict_address() -> int:
    """The address of `predict`: void (const T *X, int64_t rows, T *out, void *network)."""
    return jit.address_of("embedded_predict", jit.void(4), lambda: predict, driver=True)


def integrand_address(dtype: str) -> int:
    """The address of an integrand as SciPy calls it: double (int n, double *x, void *network)."""
    signature = types.float64(types.intc, types.int64, types.int64)
    zero = np.dtype(dtype).type(0)
    return jit.address_of(f"embedded_integrand-{dtype}", signature, lambda: _integrand(zero), driver=True)


class EmbeddedNetwork:
    """What compiled code reads of one network, at `address`, for as long as this object lives.

    few, many : as many plans as there are slots (`slots()`), with the parameters bound; the first read them
        in place.
    parameters : the flat array.
    """

    def __init__(self, few: list[Plan], many: list[Plan], parameters: Array) -> None:
        self._plans, self._memory, self._parameters = (few, many), Memory(), parameters
        design = few[0].design
        self.address = self._memory.new(size_of(Embedded))
        table = at(Embedded, self.address)
        table.predict, table.finite, table.work = (
            predict_address(),
            not_finite(design.dtype.name),
            few[0].work,
        )
        table.inputs, table.outputs = design.layer_sizes[0], design.layer_sizes[-1]
        table.row = table.inputs * design.dtype.itemsize
        table.parameters = parameters.ctypes.data
        table.parameters_end = table.parameters + parameters.nbytes
        table.slots, table.slot = len(few), self._memory.new(len(few) * SLOT_BYTES)
        self._slots = [at(Slot, table.slot + i * SLOT_BYTES) for i in range(len(few))]
        sample = (table.inputs + table.outputs) * design.dtype.itemsize
        for slot, for_few, for_many in zip(self._slots, few, many, strict=True):
            slot.few, slot.many, slot.sample = for_few.address, for_many.address, self._memory.new(sample)
            for plan in (for_few, for_many):
                plan.table.x.row = table.row
        free_after_fork(self)

    def free(self) -> None:
        """Have all slots free: in a child process, where those who had them do not exist."""
        for slot in self._slots:
            slot.busy = 0


def slots() -> int:
    """How many slots a network has: a power of two."""
    return 1 << (max(FEWEST_SLOTS, 2 * most_workers()) - 1).bit_length()
