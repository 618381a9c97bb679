"""A network, ready to run: its memory, the tables that compiled code reads, and the ways into compiled code.

A `Plan` belongs to one architecture, dtype, optimizer rule and batch size. It owns the packed parameters and
the activations of one batch; the caller's arrays are bound to it for the duration of one run.
"""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import structs, tables
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.struct import at
from fastbp.engine.kernels.finite import is_finite
from fastbp.engine.kernels.reading import label_reader, row_reader, sparse_reader
from fastbp.engine.memory import Design, Memory, aligned, most_workers
from fastbp.engine.threads import own_thread, team
from fastbp.engine.threads.choice import Choice
from fastbp.engine.worker import train
from fastbp.inputs.sources import Labels, Rows
from fastbp.inputs.sparse import Sparse

Array = NDArray[Any]

# Multiply-adds of a single step or forward pass from which a team is worth its barriers. Training tries both
# ways between the two other bounds and keeps the faster.
TEAM_FROM_MULTIPLY_ADDS = 1_000_000
TRY_TEAM_FROM_MULTIPLY_ADDS, ALWAYS_TEAM_FROM_MULTIPLY_ADDS = 200_000, 200_000_000
# The same among MANY_STEPS and more of one entry: half of a step (0.5 us) is more than its barriers.
TRY_TEAM_FROM_IN_MANY_STEPS, MANY_STEPS = 30_000, 100
# What may take longer than this is done in a thread of its own, so that Ctrl-C is heard; before anything is
# measured, a multiply-add counts as much as on a slow core. (Not for more: OpenMP starts new threads for it,
# which may begin on one and the same core.)
LONG_SECONDS, SLOW_MULTIPLY_ADD = 0.4, 1e-10
# Bytes of parameters from which threads copy them.
TEAM_FROM_BYTES = 1 << 20
# A single step or forward pass copies so many rows and more of X first if they share cache sets and meet so
# many panels of weights (predicting 512 x 1024-1024 takes 5.5 ms instead of 8.3). In `fit` each batch is.
CROWDED_ROWS, CROWDED_PANELS = 64, 8
# The stop flag of entries that nobody may end early. A long one gets a flag of its own, which nobody looks at
# any more when it is over.
NO_STOP = np.zeros(1, np.int64)
NO_STOP.setflags(write=False)


class Plan:
    """What `design` says, ready to run.

    address : of the tables (structs.py), which are `table` and `layers` for Python. work : of the compiled
    worker. packed : its own copy of the parameters, and what fills up vectors.
    coefficients : room for one step's, for whoever has no row of them for each step. loss : room for its
    loss.
    """

    def __init__(self, design: Design) -> None:
        self.design, self.memory = design, Memory()
        self.key: tuple[Any, ...] = ()  # what its owner keeps it under
        depth = len(design.shapes)
        self.address = self.memory.new(structs.PLAN_BYTES + depth * structs.LAYER_BYTES)
        self.table = at(structs.Plan, self.address)
        places = (self.address + structs.PLAN_BYTES + i * structs.LAYER_BYTES for i in range(depth))
        self.layers = [at(structs.Layer, place) for place in places]
        self._packed_at = tables.fill_in(self.table, self.layers, design, self.memory)
        self._packed_bytes = sum(design.packed)
        self.packed = _numbers(self._packed_at, self._packed_bytes, design.dtype)
        self.work = train.address_of("work")
        self.arrivals = aligned(team.arrivals_bytes(most_workers())).view(np.int64)
        self.loss, self.bad, self.coefficients = np.zeros(1), np.zeros(1, np.int64), np.zeros(1, design.dtype)
        self.table.flags = team.flags_of(self.arrivals)
        self.table.stop, self.table.losses = data_at(NO_STOP), data_at(self.loss)
        self.table.coefficients = data_at(self.coefficients)
        self._gathered_x = 0  # where there is room for batches of X, once they had to be gathered
        self.choice = Choice()
        self.threads = 0  # that did the last run
        self._in_place = False  # whether a layer works on the caller's own weights
        self._bound: tuple[weakref.ref[Array], ...] = ()  # parameters and states
        self._limits = 0, 0  # while updates are held

    # ---- what is bound ----------------------------------------------------------------------------------

    def bind_parameters(self, flat: Array, states: Sequence[Array] = ()) -> None:
        """The caller's parameters, and what the rule keeps of each: flat arrays W1, b1, W2, b2, ... (see
        fastbp/network/layout.py)."""
        arrays = (flat, *states)
        if len(arrays) == len(self._bound) and all(
            known() is array for known, array in zip(self._bound, arrays, strict=True)
        ):
            return
        self._bound = ()  # if this is interrupted, nobody shall think it was done
        itemsize = self.design.dtype.itemsize
        for k, array in enumerate(arrays):
            place = data_at(array)
            for i, layer in enumerate(self.layers):
                caller = (layer.caller.parameters, layer.caller.first_state, layer.caller.second_state)[k]
                caller.W, caller.b = place, place + layer.fan_in * layer.fan_out * itemsize
                place = caller.b + layer.fan_out * itemsize
                if i < self.design.normalised:
                    caller.g = place
                    place += layer.fan_out * itemsize
        self._bound = tuple(map(weakref.ref, arrays))

    def unbind(self) -> None:  # compiled code binds others
        self._bound = ()

    def read_in_place(self) -> None:
        """Forward passes from now on read the parameters where they were bound, in rows as they are, instead
        of packed copies."""
        for layer in self.layers:
            caller = layer.caller.parameters
            layer.W.address, layer.bias.address, layer.normalisation.gain = caller.W, caller.b, caller.g
            layer.W.panel = layer.bias.panel = self.design.vector
            layer.W.row = layer.fan_out * self.design.dtype.itemsize

    def leave_in_place(self, i: int, *, weights: bool) -> bool:
        """If the rows of layer i are whole vectors: let it work on the caller's own z and a (trace) and, if
        asked for and worth it, weights, whose addresses are then set for each run. Whether it works on
        those."""
        layer, vector = self.layers[i], self.design.vector
        row = layer.fan_out * self.design.dtype.itemsize
        if row % vector or layer.narrow or self.takes_long:
            return False
        self._in_place = True
        if weights and not tables.crowds(layer, self.design):
            layer.in_place, layer.W.panel, layer.W.row = 1, vector, row
        if layer.z != layer.a:
            layer.rows_in_place = 1
            layer.blocks.row, layer.blocks.group, layer.blocks.group_bytes = row, row // vector, row
        return bool(layer.in_place)

    def bind_activations(
        self, z: Sequence[Array], a: Sequence[Array], n: Sequence[Array], inverse_std: Sequence[Array]
    ) -> None:
        """What a forward pass writes and a backward pass reads: of every layer z and a (rows, fan_out), of
        normalised ones n (rows, fan_out) and inverse_std (rows,)."""
        for layer, z_i, a_i in zip(self.layers, z, a, strict=True):
            layer.caller.z, layer.caller.a = data_at(z_i), data_at(a_i)
        for layer, n_i, inverse_i in zip(self.layers, n, inverse_std, strict=False):
            layer.caller.n, layer.caller.inverse_std = data_at(n_i), data_at(inverse_i)

    def bind_output(self, a: Array) -> None:
        """Where a forward pass writes the last layer's a, (rows, outputs)."""
        self.layers[-1].caller.a = data_at(a)

    def bind_data(
        self, X: Array | Rows, Y: Array | Rows | None, order: NDArray[np.int64] | None = None
    ) -> None:
        """X (samples, inputs) and Y (samples, outputs; weighted: a column more), and perhaps the order in
        which their rows are wanted: C-ordered arrays of the plan's dtype, or, in training, rows to be
        converted."""
        table = self.table
        table.samples, table.steps_per_epoch = len(X), -(-len(X) // self.design.batch)
        table.order = 0 if order is None else data_at(order)
        self._bind_rows(table.x, X)
        if Y is None:
            table.y_columns = 0
            self.gather_if_crowded(len(X))
            return
        self._bind_rows(table.y, Y)
        table.y_columns = Y.shape[1]
        self._gather(self.design.use == "train" and self._gathers(X, Y, order), batches=2)

    def _bind_rows(self, source: structs.Source, data: Array | Rows) -> None:
        if not isinstance(data, Rows):
            source.address, source.row, source.read = data_at(data), data.shape[1] * data.itemsize, 0
            return
        values, scaling, dtype = data.values, data.scaling, self.design.dtype.name
        source.address, source.row = data_at(values), values.strides[0]
        if isinstance(data, Labels):
            source.read = label_reader(dtype, weighted=data.weights is not None)
            return
        if isinstance(data, Sparse):
            source.column = data_at(data.addresses)
            source.read = sparse_reader(dtype, data.numbers.dtype.name, scaled=bool(scaling))
        else:
            source.column = values.strides[1]
            source.read = row_reader(values.dtype, dtype, scaled=scaling and scaling[0].dtype)
        if scaling is not None:
            source.scale, source.offset = data_at(scaling[0]), data_at(scaling[1])

    def convert_rows(self, rows: Rows) -> None:
        """Forward passes from now on read X in rows stored like these, adjacent ones, and convert them."""
        self._bind_rows(self.table.x, rows)
        self._gather(True, batches=1)

    # ---- batches that are copied first ------------------------------------------------------------------

    def gather_if_crowded(self, rows: int) -> None:
        """Have single steps and forward passes of so many rows copy X first, where its rows share cache sets
        and are read often enough."""
        often = min(rows, self.design.batch) >= CROWDED_ROWS and self.layers[0].panels >= CROWDED_PANELS
        self._gather(often and self._is_crowded, batches=1)

    def is_ready_for(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether it has run, and such data, as of `bind_data`, need nothing that has still to be
        compiled."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return self.threads > 0 and not reads and (self._gathered_x > 0 or not self._gathers(X, Y, order))

    @property
    def _is_crowded(self) -> bool:
        """Whether the rows of X share cache sets."""
        return self.design.layer_sizes[0] * self.design.dtype.itemsize % tables.BAD_STRIDE == 0

    def _gathers(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether each batch of such data is copied to where its rows are consecutive and far from sharing
        cache sets."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return order is not None or reads or (self._is_crowded and len(X) >= 8) or bool(self.table.noise)

    def _gather(self, gathers: bool, batches: int) -> None:
        if gathers and not self._gathered_x:
            self._make_room_for_gathering(batches)
        self.table.gathered_x.address = self._gathered_x if gathers else 0

    def _make_room_for_gathering(self, batches: int) -> None:
        design, table = self.design, self.table
        table.phases.gather_batch = train.address_of("gather_batch")
        # An odd number of cache lines.
        row = -(-design.layer_sizes[0] * design.dtype.itemsize // 128) * 128 + 64
        table.gathered_x.row, table.gathered_x.batch = row, design.batch * row if batches > 1 else 0
        if design.use == "train":
            y_row = (design.layer_sizes[-1] + design.weighted) * design.dtype.itemsize
            table.gathered_y.row, table.gathered_y.batch = y_row, design.batch * y_row if batches > 1 else 0
            table.gathered_y.address = self.memory.new(batches * design.batch * y_row)
        self._gathered_x = self.memory.new(batches * design.batch * row)  # last: it says that there is room

    # ---- what is done -----------------------------------------------------------------------------------

    @property
    def multiply_adds(self) -> int:
        return self.design.multiply_adds

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
        known = self.choice.seconds_per_step.values()
        if (
            self._in_place
            or steps * (min(known) if known else self.multiply_adds * SLOW_MULTIPLY_ADD) < LONG_SECONDS
        ):
            self._enter(task, threads)
        else:
            unpacking = task & (structs.UNPACK + structs.UNPACK_STATES)
            self._enter_interruptibly(
                task - unpacking, threads, np.zeros(1, np.int64) if stop is None else stop
            )
            if unpacking:
                self._enter(unpacking, threads)
        return self.threads

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
    ) -> None:
        """Steps first_step <= s < last_step on the data bound; the parameters bound stay as they are until
        `unpack`.

        coefficients: (steps, numbers), see settings.py; losses: one a step; stop: as in `run_as`.
        """
        table, most = self.table, self.most_threads(threads, last_step - first_step)
        table.coefficients_row = coefficients.strides[0]
        table.bias_coefficients = tables.bias_coefficients(self.design, coefficients)
        step = first_step
        while True:
            started = time.perf_counter()
            n, steps = self.way(most, last_step - step, started)
            done = step - first_step
            table.first_step, table.last_step = step, step + steps
            table.coefficients = data_at(coefficients) + done * coefficients.strides[0]
            table.losses = data_at(losses) + done * losses.itemsize
            self.run_as(structs.TRAIN + (structs.PACK if pack and step == first_step else 0), n, steps, stop)
            step += steps
            if steps:
                now = time.perf_counter()
                self.choice.note(n, steps, now - started, now)
            if step >= last_step:
                return

    def most_threads(self, threads: int | None, steps: int = 1) -> int:
        """How many threads may be tried in so many training steps."""
        small = steps >= MANY_STEPS and self.multiply_adds >= TRY_TEAM_FROM_IN_MANY_STEPS
        return team.available(threads) if small or self.may_have_a_team else 1

    @property
    def takes_long(self) -> bool:
        """Whether a single step is to hear Ctrl-C; then the caller's arrays shall be as they were."""
        return self.multiply_adds * SLOW_MULTIPLY_ADD >= LONG_SECONDS

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
        return team.available(threads) if self._packed_bytes >= TEAM_FROM_BYTES else 1

    def step_with(self, sums: Plan, coefficients: Array) -> None:
        """One step of the rule, with the gradient that `sums`, of rule "sum", has added up; one row."""
        size, vector, table = self._packed_bytes, self.design.vector, self.table
        update = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)(table.kernels.update)
        to_sums, apart = sums._packed_at + size - self._packed_at, table.bias_coefficients
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
        return _numbers(self._packed_at + self._packed_bytes, self._packed_bytes, self.design.dtype)

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
        self.table.order, self.table.samples, self.table.steps_per_epoch = order, rows, 1

    def parameters_are_finite(self) -> bool:
        return is_finite(self.packed)


def _numbers(address: int, size: int, dtype: np.dtype[Any]) -> Array:
    """So many bytes at that address, as an array of numbers."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype)
