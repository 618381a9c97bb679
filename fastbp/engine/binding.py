"""What a plan is given for a run: the caller's arrays, and where it copies batches of them first.

Packing copies parameters in, and what is bound stays bound until other arrays are.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import structs, tables
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.struct import at
from fastbp.engine.kernels import matmul
from fastbp.engine.kernels.reading import label_reader, row_reader, sparse_reader
from fastbp.engine.memory import Design, Memory, most_workers
from fastbp.engine.worker import train
from fastbp.engine.worker.exchange import Ahead
from fastbp.engine.worker.operands import BAD_STRIDE
from fastbp.inputs.sources import Labels, Rows
from fastbp.inputs.sparse import Sparse

Array = NDArray[Any]

# A single step or forward pass copies so many rows and more of X first if they share cache sets and meet so
# many panels of weights (predicting 512 x 1024-1024 takes 5.5 ms instead of 8.3). In `fit` each batch is.
CROWDED_ROWS, CROWDED_PANELS = 64, 8
# Bytes of X, and of a batch of it, up to which each worker of a team gathers all of a batch for itself: lines
# that another core has just written may take longer to come than those of data that caches hold (64-100-10 at
# batch 200 in float64: while other programs use memory, a step takes 0.9 times as long). Not where rows come
# from further away: each would be fetched by all (60 MB, 784-128-10 at batch 32: 1.1 times).
NEAR_DATA, OWN_BATCH = 2 << 20, 512 << 10


class Bound:
    """The tables that compiled code reads of `design`, and their memory.

    address : of the tables (structs.py), which are `table` and `layers` for Python. packed : its own copy of
    the parameters, and what fills up vectors.
    """

    def __init__(self, design: Design) -> None:
        self.design, self.memory = design, Memory()
        depth = len(design.shapes)
        self.address = self.memory.new(structs.PLAN_BYTES + depth * structs.LAYER_BYTES)
        self.table = at(structs.Plan, self.address)
        self._x, self._y = self.table.x, self.table.y
        places = (self.address + structs.PLAN_BYTES + i * structs.LAYER_BYTES for i in range(depth))
        self.layers = [at(structs.Layer, place) for place in places]
        self.packed_at = tables.fill_in(self.table, self.layers, design, self.memory)
        self.packed_bytes = sum(design.packed)
        self.packed = numbers_at(self.packed_at, self.packed_bytes, design.dtype)
        self._gathered_x = 0  # where there is room for batches of X, once they had to be gathered
        self._ahead = 0  # and for what workers gather on the way of products, where these can
        self._in_place = False  # whether a layer works on the caller's own weights
        self._bound: tuple[weakref.ref[Array], ...] = ()  # parameters and states
        self._alike: tuple[Any, ...] | None = None  # of the data: what others like them leave as it is

    @property
    def multiply_adds(self) -> int:
        """Of a step, or of a forward pass of a batch."""
        return self.design.multiply_adds

    def can_be(self, design: Design) -> bool:
        """Whether it is of this design, but for how large l2 is. (A search over penalties would else prepare
        a plan for each, and try for each on how many threads it is fastest.)"""
        own = self.design
        return design == own or bool(design.l2 and own.l2 and design == replace(own, l2=design.l2))

    def become(self, design: Design) -> None:
        """Be of this design from now on, which it `can_be`."""
        if design.l2 != self.design.l2:
            tables.set_penalty(self.table, design.l2)
            self.design = design

    # ---- what is bound ----------------------------------------------------------------------------------

    def bind_parameters(self, flat: Array, states: Sequence[Array] = ()) -> None:
        """The caller's parameters, and what the rule keeps of each: flat arrays W1, b1, W2, b2, ... (see
        fastbp/network/layout.py)."""
        arrays = (flat, *states)
        if len(arrays) == len(self._bound):
            for known, array in zip(self._bound, arrays, strict=True):
                if known() is not array:
                    break
            else:
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
        self._bound, self._alike = (), None

    def read_in_place(self) -> None:
        """Forward passes from now on read the parameters where they were bound, in rows as they are, instead
        of packed copies."""
        for layer in self.layers:
            caller = layer.caller.parameters
            layer.W.address, layer.bias.address, layer.normalisation.gain = caller.W, caller.b, caller.g
            layer.W.panel = layer.bias.panel = self.design.vector
            layer.W.row = layer.fan_out * self.design.dtype.itemsize

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
        table, alike = self.table, None
        table.order = 0 if order is None else data_at(order)
        if type(X) is type(Y) is np.ndarray:
            alike = X.shape, Y.shape, order is None
            if alike == self._alike:  # mostly
                self._x.address, self._y.address = data_at(X), data_at(Y)
                return
        self._alike = None  # until all is done
        table.samples, table.steps_per_epoch = len(X), -(-len(X) // self.design.batch)
        self._bind_rows(self._x, X)
        if Y is None:
            table.y_columns = 0
            self.gather_if_crowded(len(X))
            return
        self._bind_rows(self._y, Y)
        table.y_columns = Y.shape[1]
        self._gather(self.design.use == "train" and self._gathers(X, Y, order), batches=2)
        near = len(X) * self._x.row <= NEAR_DATA and self._own_batches_fit
        table.own_batches = int(near and not table.noise)
        in_pieces = table.gathered_x.address and not table.own_batches and not self._x.read
        table.ahead = self._ahead if in_pieces else 0
        self._alike = alike

    def bind_coefficients(self, coefficients: Array) -> None:
        """How the numbers of steps lie, (steps, numbers) as in settings.py; where, each run says."""
        self.table.coefficients_row = coefficients.strides[0]
        self.table.bias_coefficients = tables.bias_coefficients(self.design, coefficients)

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
        self._bind_rows(self._x, rows)
        self._gather(True, batches=1)

    # ---- batches that are copied first ------------------------------------------------------------------

    def gather_if_crowded(self, rows: int) -> None:
        """Have single steps and forward passes of so many rows copy X first, where its rows share cache sets
        and are read often enough."""
        often = min(rows, self.design.batch) >= CROWDED_ROWS and self.layers[0].panels >= CROWDED_PANELS
        self._gather(often and self.is_crowded, batches=1)

    @property
    def is_crowded(self) -> bool:
        """Whether the rows of X share cache sets."""
        return self.design.layer_sizes[0] * self.design.dtype.itemsize % BAD_STRIDE == 0

    def _gathers(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether each batch of such data is copied to where its rows are consecutive and far from sharing
        cache sets."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return (
            order is not None
            or reads
            or (self.is_crowded and len(X) >= 8 and not self.design.keeps_pairs)
            or bool(self.table.noise)
        )

    def _gather(self, gathers: bool, batches: int) -> None:
        if gathers and not self._gathered_x:
            self._make_room_for_gathering(batches)
        self.table.gathered_x.address = self._gathered_x if gathers else 0

    def _make_room_for_gathering(self, batches: int) -> None:
        design, table = self.design, self.table
        table.phases.gather_batch = train.address_of("gather_batch")
        if batches > 1 and self._own_batches_fit:
            batches = max(batches, most_workers())
        if design.use == "train":
            y_row = (design.layer_sizes[-1] + design.weighted) * design.dtype.itemsize
            self._make_room(table.gathered_y, y_row, batches)
        self._make_room(table.gathered_x, self._gathered_row, batches)
        if table.kernels.product_and_update:
            self._make_room_ahead()
        self._gathered_x = table.gathered_x.address  # last: it says that there is room

    def _make_room_ahead(self) -> None:
        """Pieces of as many vectors as the first layer's products copy at least, or of a row."""
        fan_in, tallest = self.design.layer_sizes[0], matmul.shapes()[2]
        of_row = fan_in // self.design.lanes
        if not of_row:
            return
        vectors = min(2 * (fan_in // -(-fan_in // tallest)), of_row)
        memory = self.memory.new(most_workers() * structs.SLOT_BYTES)
        for t in range(most_workers()):
            ahead = at(Ahead, memory + t * structs.SLOT_BYTES)
            ahead.vectors = vectors
            ahead.in_row = -(-fan_in // (vectors * self.design.lanes))
        self._ahead = memory

    def _make_room(self, room: structs.Gathered, row: int, batches: int) -> None:
        # A pair of cache lines between two batches, which may be two workers'.
        apart = (-(-self.design.batch * row // 128) + 1) * 128
        room.row, room.batch = row, apart if batches > 1 else 0
        room.address = self.memory.new(batches * apart)

    @property
    def _gathered_row(self) -> int:
        """Bytes of a row of X where batches are gathered: an odd number of cache lines."""
        return -(-self.design.layer_sizes[0] * self.design.dtype.itemsize // 128) * 128 + 64

    @property
    def _own_batches_fit(self) -> bool:
        """Whether batches of X are so small that each worker may have its own."""
        return self.design.batch * self._gathered_row <= OWN_BATCH


def numbers_at(address: int, size: int, dtype: np.dtype[Any]) -> Array:
    """So many bytes at that address, as an array of numbers."""
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype)
