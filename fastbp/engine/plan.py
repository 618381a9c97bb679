"""A network, ready to run: its memory, the tables that compiled code reads, and the ways into compiled code.

A `Plan` belongs to one architecture, dtype, optimizer rule and batch size. It owns the packed parameters and
the activations of one batch; the caller's arrays are bound to it for the duration of one run.
"""

from __future__ import annotations

import ctypes
import time
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import structs, tables
from fastbp.engine.binding import Bound, numbers_at
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.kernels.finite import is_finite, not_finite
from fastbp.engine.memory import Design, aligned, most_workers
from fastbp.engine.threads import own_thread, team
from fastbp.engine.threads.choice import Choice
from fastbp.engine.worker import train
from fastbp.engine.worker.patience import Patience
from fastbp.inputs.sources import Rows

Array = NDArray[Any]

# Multiply-adds of a single step or forward pass from which a team is worth its barriers. Training tries both
# ways between the two other bounds and keeps the faster. (Beyond, a step alone is a trial that is felt:
# two epochs of 784-256-10 at batch 200 lost a tenth by three of them.)
TEAM_FROM_MULTIPLY_ADDS = 1_000_000
TRY_TEAM_FROM_MULTIPLY_ADDS, ALWAYS_TEAM_FROM_MULTIPLY_ADDS = 200_000, 50_000_000
# The same among MANY_STEPS and more of one entry: half of a step (0.5 us) is more than its barriers.
TRY_TEAM_FROM_IN_MANY_STEPS, MANY_STEPS = 30_000, 100
# And up to so many of all steps of an entry, to have a team takes longer than it saves: `MLP.train_step` of
# 128 x 30-64-32-1 took 97 us, and takes 66, of 32 x 784-128-10 201 and 178.
ALONE_MULTIPLY_ADDS = 6_000_000
# What may take longer than this is done in a thread of its own, so that Ctrl-C is heard; before anything is
# measured, a multiply-add counts as much as on a slow core. (Not for more: OpenMP starts new threads for it,
# which may begin on one and the same core.)
LONG_SECONDS, SLOW_MULTIPLY_ADD = 0.4, 1e-10
# Bytes of parameters from which threads copy them.
TEAM_FROM_BYTES = 1 << 20
# The stop flag of entries that nobody may end early. A long one gets a flag of its own, which nobody looks at
# any more when it is over.
NO_STOP = np.zeros(1, np.int64)
NO_STOP.setflags(write=False)


class Plan(Bound):
    """What `design` says, ready to run; see `Bound` for what it has in memory.

    work : the address of the compiled worker.
    coefficients : room for one step's, for whoever has no row of them for each step. loss : room for its
    loss.
    """

    def __init__(self, design: Design) -> None:
        super().__init__(design)
        self.key: tuple[Any, ...] = ()  # what its owner keeps it under
        self.work = train.address_of("work")
        self.arrivals = aligned(team.arrivals_bytes(most_workers())).view(np.int64)
        self.loss, self.bad, self.coefficients = np.zeros(1), np.zeros(1, np.int64), np.zeros(1, design.dtype)
        self.table.flags = team.flags_of(self.arrivals)
        self.table.stop, self.table.losses = data_at(NO_STOP), data_at(self.loss)
        self.table.coefficients = data_at(self.coefficients)
        self.choice = Choice()
        self.threads = 0  # that did the last run
        self._limits = 0, 0  # while updates are held

    # ---- what is done -----------------------------------------------------------------------------------

    def leave_in_place(self, i: int, *, rows: bool = True) -> bool:
        """If the rows of layer i are whole vectors: let it work on the caller's own z and a (a trace's, with
        `rows`) and, if worth it, weights, whose addresses are set for each run. Whether on those."""
        layer, vector, trains = self.layers[i], self.design.vector, self.design.use == "train"
        row = layer.fan_out * self.design.dtype.itemsize
        if row % vector or layer.narrow or (trains and self.takes_long):
            return False
        self._in_place = trains
        if not tables.crowds(layer, self.design):
            layer.in_place, layer.W.panel, layer.W.row = 1, vector, row
        if rows and layer.z != layer.a:
            layer.rows_in_place = 1
            layer.blocks.row, layer.blocks.group, layer.blocks.group_bytes = row, row // vector, row
        return bool(layer.in_place)

    @property
    def takes_long(self) -> bool:
        """Whether a single step is to hear Ctrl-C; then the caller's arrays shall be as they were. (Other
        uses only write to new ones.)"""
        return self.multiply_adds * SLOW_MULTIPLY_ADD >= LONG_SECONDS

    def is_ready_for(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether it has run, and such data, as of `bind_data`, need nothing that has still to be
        compiled."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return self.threads > 0 and not reads and (self._gathered_x > 0 or not self._gathers(X, Y, order))

    def run(self, task: int, threads: int | None) -> int:
        """Do the task (structs.PACK, ... added up); returns how many threads did it."""
        most = team.available(threads) if self.multiply_adds >= TEAM_FROM_MULTIPLY_ADDS else 1
        batches = -(-self.table.samples // self.design.batch)
        started = time.perf_counter()
        n, _ = self.way(most, 1, started)
        self.run_as(task, n, batches)
        now = time.perf_counter()
        self.choice.note(n, batches, now - started, now)
        return self.threads

    def run_as(self, task: int, threads: int, steps: int, stop: NDArray[np.int64] | None = None) -> int:
        """Do the task with so many threads; steps: how many times `multiply_adds` it is.

        stop : a flag made for this call, which ends it early where it is long: it then raises
        KeyboardInterrupt, and what was bound is as it was.
        """
        if self._in_place or self._is_short(steps):
            self._enter(task, threads)
        else:
            unpacking = task & (structs.UNPACK + structs.UNPACK_STATES)
            self._enter_interruptibly(
                task - unpacking, threads, np.zeros(1, np.int64) if stop is None else stop
            )
            if unpacking:
                self._enter(unpacking, threads)
        return self.threads

    def _is_short(self, steps: int) -> bool:
        """Whether Ctrl-C may wait for so many steps."""
        known = self.choice.seconds_per_step
        seconds = min(known.values()) if known else self.multiply_adds * SLOW_MULTIPLY_ADD
        return steps * seconds < LONG_SECONDS

    def _enter(self, task: int, threads: int, stop: NDArray[np.int64] = NO_STOP) -> None:
        self.table.task, self.table.stop = task, data_at(stop)
        try:
            self.threads = team.run(self.work, self.address, threads, self.arrivals)
        finally:
            self.table.stop = data_at(NO_STOP)

    def _enter_interruptibly(self, task: int, threads: int, stop: NDArray[np.int64]) -> None:
        """Work in another thread, so that this one hears Ctrl-C."""
        own_thread.run(lambda: self._enter(task, threads, stop), stop)
        if stop[0]:  # perhaps only when the work was over, but nobody knows that
            raise KeyboardInterrupt

    def train(
        self,
        first_step: int,
        last_step: int,
        coefficients: Array,
        losses: NDArray[np.float64],
        *,
        pack: bool,
        threads: int | None,
        stop: NDArray[np.int64],
        unpack: bool = False,
    ) -> None:
        """Steps first_step <= s < last_step on the data bound, fewer where patience ends; the parameters
        bound stay as they are until `unpack`, which may be part of it.

        coefficients: (steps, numbers), see settings.py; losses: one a step; stop: as in `run_as`.
        """
        table, most = self.table, self.most_threads(threads, last_step - first_step)
        self.bind_coefficients(coefficients)
        step = first_step
        while True:
            started = time.perf_counter()
            n, steps = self.way(most, last_step - step, started)
            done = step - first_step
            table.first_step, table.last_step = step, step + steps
            table.coefficients = data_at(coefficients) + done * coefficients.strides[0]
            table.losses = data_at(losses) + done * losses.itemsize
            task = structs.TRAIN + (structs.PACK if pack and step == first_step else 0)
            step += steps
            if unpack and step >= last_step:
                task += structs.UNPACK + structs.UNPACK_STATES
            self.run_as(task, n, steps, stop)
            ended = table.ending.step
            if ended:
                steps -= step - ended
                step = ended
            if steps:
                now = time.perf_counter()
                self.choice.note(n, steps, now - started, now)
            if ended or step >= last_step:
                break
        if unpack and not task & structs.UNPACK:
            self.unpack(threads)

    def bind_patience(self, patience: Patience) -> None:
        """Until it is unbound, steps may end early."""
        self.table.phases.lose_patience = train.address_of("lose_patience")
        self.table.ending.patience, self.table.ending.step = data_at(patience.numbers), 0

    def unbind_patience(self) -> int:
        """The step before which they ended, or 0."""
        ended = self.table.ending.step
        self.table.ending.patience = self.table.ending.step = 0
        return ended

    def trains_alone(self, steps: int, threads: int | None) -> bool:
        """Whether so many steps are for `train_alone`."""
        few = steps * self.multiply_adds <= ALONE_MULTIPLY_ADDS
        return self._is_short(steps) and (few or self.most_threads(threads, steps) == 1)

    def train_alone(
        self,
        first_step: int,
        last_step: int,
        coefficients: Array,
        losses: NDArray[np.float64],
        *,
        pack: bool,
        check: bool,
    ) -> bool:
        """`train` and `unpack` by this thread, in one entry; see there. Whether it unpacked: with `check`,
        which goes without patience, not if losses or parameters are not finite."""
        self.bind_coefficients(coefficients)
        task = structs.TRAIN + structs.PACK if pack else structs.TRAIN
        steps = first_step, last_step, data_at(coefficients), data_at(losses)
        self.threads = 1
        return bool(self._alone(task, *steps, check))

    @cached_property
    def _alone(self) -> Any:
        """Its entry, with what does not change from run to run."""
        finite, packed = not_finite(self.design.dtype.name), self.packed
        known = self.memory.new(5 * 8)
        numbers = self.address, self.work, finite, data_at(packed), packed.size
        for i, number in enumerate(numbers):
            ctypes.c_int64.from_address(known + 8 * i).value = number
        return partial(train.alone(), known)

    def most_threads(self, threads: int | None, steps: int = 1) -> int:
        """How many threads may be tried in so many training steps."""
        small = steps >= MANY_STEPS and self.multiply_adds >= TRY_TEAM_FROM_IN_MANY_STEPS
        return team.available(threads) if small or self.may_have_a_team else 1

    @property
    def may_have_a_team(self) -> bool:
        """Whether a single training step is large enough for threads to be tried."""
        return self.multiply_adds >= TRY_TEAM_FROM_MULTIPLY_ADDS

    def way(self, threads: int, steps: int, now: float) -> tuple[int, int]:
        """How many threads to take for the next steps, and for how many of them. `choice.note` wants to hear
        how long it took."""
        if threads == 1 or self.multiply_adds >= ALWAYS_TEAM_FROM_MULTIPLY_ADDS:
            return threads, steps
        return self.choice.next(threads, steps, now)

    def unpack(self, threads: int | None) -> None:
        """Write parameters and states to the arrays bound."""
        self._enter(structs.UNPACK + structs.UNPACK_STATES, self._threads_for_copies(threads))

    def unpack_parameters(self, threads: int | None) -> None:
        self._enter(structs.UNPACK, self._threads_for_copies(threads))

    def _threads_for_copies(self, threads: int | None) -> int:
        return team.available(threads) if self.packed_bytes >= TEAM_FROM_BYTES else 1

    def step_with(self, sums: Plan, coefficients: Array) -> None:
        """One step of the rule, with the gradient that `sums`, of rule "sum", has added up; one row."""
        size, vector, table = self.packed_bytes, self.design.vector, self.table
        update = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)(table.kernels.update)
        to_sums, apart = sums.packed_at + size - self.packed_at, table.bias_coefficients
        for w, panel, rows, panels, of_biases in tables.blocks(self.layers, self.design):
            numbers = data_at(coefficients) + of_biases * apart
            update(w + to_sums, panel, vector, w, panel, vector, size, rows, panels, numbers)
        if table.clipping.limit or table.max_norm.limit:
            table.coefficients = data_at(coefficients)
            self._enter(structs.FINISH_UPDATE, 1)

    def hold_updates(self) -> None:
        """From now on a step leaves the parameters as they are, and its gradient in `gradient`, until
        `update` does what comes after. Of a design with clip_norm, when parameters and states are packed."""
        self._limits = self.table.clipping.limit, self.table.max_norm.limit
        self.table.clipping.limit = self.table.max_norm.limit = 0

    def release_updates(self) -> None:
        """The end of `hold_updates`."""
        self.table.clipping.limit, self.table.max_norm.limit = self._limits

    @property
    def gradient(self) -> Array:
        """What the design with clip_norm keeps of a step: packed like the parameters; what fills up vectors
        is zero. To read and to write into."""
        return numbers_at(self.packed_at + self.packed_bytes, self.packed_bytes, self.design.dtype)

    def update(self, coefficients: Array) -> None:
        """The optimizer's step with what stands in `gradient`, clipped; coefficients as one row for
        `train`."""
        self.release_updates()
        self.table.coefficients = data_at(coefficients)
        self._enter(structs.FINISH_UPDATE, self.threads)
        self.hold_updates()

    def take_rows(self, order: int, rows: int) -> None:
        """Train on the rows listed at that address, of the data that were bound with an order: a single
        batch."""
        self._alike = None
        self.table.order, self.table.samples, self.table.steps_per_epoch = order, rows, 1

    def parameters_are_finite(self) -> bool:
        return is_finite(self.packed)
