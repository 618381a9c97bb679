"""Memory and addresses for the compiled worker: the table that step.py reads, and the arrays behind it.

A `Plan` belongs to one architecture, dtype, optimizer rule and batch size. It owns the packed parameters and the activations of one batch;
the caller's arrays are lent to it for the duration of one run.
"""

from __future__ import annotations

import ctypes
import itertools
import time
import weakref
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastbp.engine.kernels import activations as activation_kernels
from fastbp.engine.kernels import copies, losses, matmul, narrow_output, optimizers, reductions
from fastbp.engine.kernels import dropout as dropout_kernels
from fastbp.engine.kernels import layer_norm as norm
from fastbp.engine.kernels.noise import add_noise
from fastbp.engine.kernels.reading import label_reader, row_reader
from fastbp.engine.simd import philox
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads import own_thread, team
from fastbp.engine.worker import step
from fastbp.formulas import philox as philox_numbers
from fastbp.inputs.sources import Labels, Rows

Array = NDArray[Any]

# Panels of activations that lie side by side. Two: then a row is what one tile reads of it, and a product walks through consecutive
# cache lines (784-1024-10 at batch 256: 168 GFLOP/s instead of 155 on one core). All of them for a few rows, which take wide tiles.
CHUNK, FEW_ROWS = 2, 7
# Rows that a thin layer takes one by one, instead of a vector of rows at a time.
SINGLE_ROWS = 3
# Outputs up to which the last layer is laid out for few of them (see step.py).
# Whatever the batch size: plans of one architecture share packed parameters (`Plan.step_with`).
THIN = 12
# Panels that a part of a thin layer's dot products has at least: a part ends with a tree of additions, as long as 3 or 4 panels take.
PART_PANELS = 4
# Bytes of activations kept in the second-level cache during a sweep over the weights; a core here has 2 MB.
BLOCK = 768 * 1024
# Rows of a batch whose part of a weight gradient is summed in one sweep (1024 x 1024-2048: 4% faster than all of them at once).
DEPTH = 512
# Multiply-adds of a step from which tiles prefetch: about where the matrices outgrow the first-level cache.
PREFETCH_FROM_MULTIPLY_ADDS = 30_000_000
# Multiply-adds of a single step or forward pass from which a team is worth its barriers. Training tries both ways between the two other
# bounds and keeps the faster.
TEAM_FROM_MULTIPLY_ADDS = 1_000_000
TRY_TEAM_FROM_MULTIPLY_ADDS, ALWAYS_TEAM_FROM_MULTIPLY_ADDS = 200_000, 200_000_000
# What may take longer than this is done in a thread of its own, so that Ctrl-C is heard; before anything is measured, a multiply-add
# counts as much as on a slow core. (Not for more: OpenMP starts new threads for it, which may begin on one and the same core.)
LONG_SECONDS, SLOW_MULTIPLY_ADD = 0.4, 1e-10
# Rows of a batch from which slivers are worth their copies. Not where a multiply-add takes two passes: then there is time for the loads of a
# strided column behind it, and none for a copy of it first (Zen 4: steps up to 1.2 times as fast, 784-256-10 at batch 128 1.09 times).
SLIVER_ROWS, NEVER = 48, 1 << 62
# Bytes between two workers' slivers: prefetching runs on behind the end of one's own, and would take lines that the other is about to write
# (784-256-10 at batch 128: the second worker's copies took twice as long). A page, so that both have the same place in the cache.
SLIVER_APART = 4096
# Bytes of parameters from which threads copy them.
TEAM_FROM_BYTES = 1 << 20
# The callbacks of step.py that each use of a plan calls, whatever its network.
CALLED = {
    "train": ("exchange_parameters", "run_forward", "run_backward", "train"),
    "predict": ("exchange_parameters", "run_forward", "evaluate"),
    "trace": ("exchange_parameters", "run_forward", "run_backward", "evaluate", "gradients"),
}
# Bytes that a row should not be a multiple of: rows then share cache sets. In `fit` each batch of X is copied then. A single step or forward
# pass copies so many rows and more, if they meet so many panels of weights (predicting 512 x 1024-1024 takes 5.5 ms instead of 8.3).
BAD_STRIDE = 4096
CROWDED_ROWS, CROWDED_PANELS = 64, 8
# The stop flag of entries that nobody may end early. A long one gets a flag of its own, which nobody looks at any more when it is over.
NO_STOP = np.zeros(1, np.int64)
NO_STOP.setflags(write=False)


def aligned(size: int) -> NDArray[np.uint8]:
    """Zeros that begin on a cache line."""
    raw = np.zeros(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def sliver_rows() -> int:
    """Rows of a batch from which slivers are worth their copies, on this CPU."""
    return NEVER if isa().two_passes else SLIVER_ROWS


def parts_of(panels: int) -> int:
    """How many parts a thin layer's dot products over so many panels have: as many as workers may want to own, each of whole chunks."""
    parts = 1
    while panels % (2 * parts * CHUNK) == 0 and panels // (2 * parts) >= PART_PANELS:
        parts *= 2
    return parts


class Plan:
    """One architecture, ready to run.

    layer_sizes, activations, loss : as in MLP, an activation for each layer.
    rule : what becomes of a gradient, a name in optimizers.RULES.
    batch : rows of a step, at most.
    use : "train"; "predict", for forward passes; or "trace", which keeps z and a apart, for forward passes whose z is wanted and for backward
        passes from given z and a.
    dropout, input_noise : in training only, dropout for each hidden layer. key : of their random numbers, two integers of 32 bits.
    clip_norm, max_norm : in training, whether the gradient's norm is clipped (the settings of each step end with the limit), and the limit of
        the norm of each unit's incoming weights.
    weighted : Y will have one more column, the weight of each row.
    layer_norm : the hidden layers are normalised, and their parameters have gains behind the biases.
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        activations: Sequence[str],
        loss: str,
        dtype: np.dtype[Any],
        rule: str,
        batch: int,
        use: str,
        *,
        weighted: bool = False,
        dropout: Sequence[float] = (),
        input_noise: float = 0.0,
        key: Sequence[int] = (0, 0),
        clip_norm: bool = False,
        max_norm: float | None = None,
        layer_norm: bool = False,
    ) -> None:
        self.dtype, self.batch, self.rule, self._use, self._weighted = dtype, batch, rule, use, weighted
        trace = use == "trace"
        self.layer_sizes = tuple(layer_sizes)
        name = dtype.name
        vector = isa().bytes
        lanes = vector // dtype.itemsize
        shapes = list(itertools.pairwise(layer_sizes))
        self._lanes = lanes
        self._memory: list[NDArray[np.uint8]] = []
        states = optimizers.RULES[rule].states
        self.multiply_adds = batch * (3 * sum(m * n for m, n in shapes) - shapes[0][0] * shapes[0][1])
        far = self.multiply_adds >= PREFETCH_FROM_MULTIPLY_ADDS
        workers = max(1, numba.config.NUMBA_NUM_THREADS)

        self.table = np.zeros(step.HEADER_SIZE + len(shapes) * step.LAYER_SIZE, np.int64)
        self.address = self.table.ctypes.data
        self._layers = self.table[step.HEADER_SIZE :].reshape(len(shapes), step.LAYER_SIZE)
        self.work = step.address("work")
        self._door = aligned((2 + workers) * team.LINE).view(np.int64)
        self.key: tuple[Any, ...] = ()  # what its owner keeps it under
        self.out, self.bad = np.zeros(1), np.zeros(1, np.int64)
        self.set(
            layers=len(shapes), lanes=lanes, vector=vector, itemsize=dtype.itemsize, many_registers=int(isa().registers == 32),
            tile_along_k=matmul.address(name, matmul.ALONG_K, prefetch=far),
            tile_along_rows=matmul.address(name, matmul.ALONG_ROWS, prefetch=far),
            total=reductions.total(name), copy_in=copies.copy_rows(name, into=True), copy_out=copies.copy_rows(name, into=False),
            touch=copies.prefetch_rows(), column_sums=reductions.column_sums(name),
            add_products=optimizers.add_products(name) if use == "train" and rule == "add" and batch == 1 else 0,
            transpose=copies.transpose(name), gather=copies.gather(name),
            update=optimizers.update("gradient" if clip_norm else rule, name), states=states,
            depth=DEPTH, block=BLOCK, team=self._door.ctypes.data + 2 * team.LINE, stop=NO_STOP.ctypes.data,
            batch=batch, steps_per_epoch=1, last_step=1, losses=self.out.ctypes.data, parts=1,
        )  # fmt: skip
        self._call(*CALLED[use])
        if clip_norm or max_norm is not None:
            self._call("finish_update")

        up = [-(-n // lanes) * lanes for n in layer_sizes]  # rounded up to whole vectors
        softmax = activations[-1] == "softmax"
        by_rows = weighted or softmax  # the last layer's error is taken of whole rows, after the products
        thin = use == "train" and len(shapes) > 1 and layer_sizes[-1] <= THIN
        self._normalised = len(shapes) - 1 if layer_norm else 0  # layers
        panel = [(up[i] + 1 + (i < self._normalised)) * vector for i in range(len(shapes))]  # weights, the bias, the gain
        packed = [up[i + 1] // lanes * panel[i] for i in range(len(shapes))]
        transposed = [up[i] * up[i + 1] * dtype.itemsize for i in range(1, len(shapes))]
        few_rows = batch <= FEW_ROWS
        if thin:
            one_row, single = batch == 1 and not by_rows, batch <= SINGLE_ROWS
            self.set(
                dots=0 if single else narrow_output.dots(name), dots_of_rows=narrow_output.dots_of_rows(name) if single else 0,
                row_sums=0 if one_row else reductions.row_sums(name),
                columns_in=copies.copy_columns(name, into=True), columns_out=copies.copy_columns(name, into=False),
            )  # fmt: skip
            packed[-1] = (up[-2] * layer_sizes[-1] + up[-1]) * dtype.itemsize
            transposed[-1] = 0
        batch_up = -(-batch // lanes) * lanes  # dots takes whole vectors of rows
        w, wt = self._new(sum(packed) * (1 + clip_norm + states)), self._new(sum(transposed))
        self._packed = self._memory[0][: sum(packed)].view(dtype)
        self.set(state=sum(packed))
        norms = 0
        for i, (fan_in, fan_out) in enumerate(shapes):
            panels = up[i + 1] // lanes
            side = panels if few_rows else min(CHUNK, panels)
            row = side * vector
            size = -(-panels // side) * batch_up * row
            last = i == len(shapes) - 1
            few = last and thin
            keeps_z = trace or (use == "train" and not last and activation_kernels.ACTIVATIONS[activations[i]].needs_z)
            z, d = (0, 0) if few else (self._new(size), self._new(size))
            self.set_layer(
                i, fan_in=fan_in, fan_out=fan_out, panels=panels, in_panels=up[i] // lanes,
                w=w, w_panel=panel[i], w_k=vector, bias=w + up[i] * vector, bias_panel=panel[i], direct=step.ADDED if rule == "add" else 0,
                z=z, a=self._new(size) if keeps_z else z, d=d, dz=d, row=row, chunk=side, chunk_bytes=batch_up * row,
            )  # fmt: skip
            if i < self._normalised:
                self.set_layer(
                    i, normalise=norm.forward(name), gain=w + (up[i] + 1) * vector, n=self._new(size),
                    inverse_std=self._new(batch_up * dtype.itemsize),
                )  # fmt: skip
                if use != "predict":
                    self.set_layer(i, normalise_back=norm.backward(name), gain_sums=reductions.column_sums_of_products(name), dz=self._new(size))
            p = dropout[i] if use == "train" and dropout and not last else 0.0
            if p:
                self.set_layer(
                    i, drop=dropout_kernels.forward(activations[i], name), drop_slope=dropout_kernels.backward(activations[i], name),
                    stream=self._stream(key, i + 1, 1 / philox_numbers.keep(p), p),
                )  # fmt: skip
            elif not last or not by_rows or (use != "train" and not softmax):
                self.set_layer(i, activate=activation_kernels.forward(activations[i], name))
            elif use != "train":
                self.set_layer(i, softmax=activation_kernels.softmax(name))
            if not last:
                self.set_layer(i, slope=0 if p else activation_kernels.backward(activations[i], name))
            elif few:
                row, room = (dtype.itemsize, up[-1]) if one_row else (batch_up * dtype.itemsize, fan_out * batch_up)
                if one_row:
                    error = losses.output_delta(activations[i], loss, name, activated=False)
                else:
                    error = losses.narrow_output_delta(activations[i], loss, name, weighted=weighted)
                parts = 1 if single or i == self._normalised else parts_of(up[i] // lanes)
                own = -(-room * dtype.itemsize // 128) * 128  # pairs of cache lines: no two workers write to neighbouring ones
                owners = min(workers, parts)
                self.set_layer(
                    i, thin=step.OF_ONE_ROW if one_row else step.OF_MANY_ROWS, w_panel=fan_out * vector, bias=w + up[i] * fan_out * dtype.itemsize,
                    z=self._new(own * owners), d=self._new(own * owners), row=row, error=error,
                )  # fmt: skip
                self.set(parts=parts, own_bytes=own)
                if parts > 1:
                    self.set(
                        add_parts=narrow_output.add_parts(name), partial=self._new(2 * parts * own), part_bytes=own,
                        zeros=self._new(up[-1] * dtype.itemsize),
                    )  # fmt: skip
            elif by_rows and use != "predict":
                self.set_layer(i, row_error=losses.output_delta_of_rows(activations[i], loss, name, activated=trace, weighted=weighted))
            elif not by_rows:
                self.set_layer(i, error=losses.output_delta(activations[i], loss, name, activated=trace))
            if trace and activations[i] == "identity":
                self.set_layer(i, a=z)
            if i > 0 and not few:
                self.set_layer(i, wt=wt, wt_panel=up[i + 1] * vector, mirror=int(not clip_norm and max_norm is None))
                wt += transposed[i - 1]
            w += packed[i]
            self.set_layer(i, first_norm=norms)
            norms += up[i] // lanes + 1 if few else panels
        if clip_norm:
            self.set(
                squares=reductions.squares(name), clip_factor=reductions.clip_factor(name),
                update_of_clipped=optimizers.update_of_clipped(rule, name),
                clip=(1 + len(optimizers.RULES[rule].coefficients)) * dtype.itemsize, norms=self._new(8 * norms), norm_count=norms,
            )  # fmt: skip
        if max_norm is not None:
            self._max_norm = np.array([max_norm])
            self.set(
                constrain=reductions.constrain(name, across=False), constrain_across=reductions.constrain(name, across=True),
                max_norm=self._max_norm.ctypes.data,
            )  # fmt: skip
        self.set(scratch=self._new(workers * 32 * vector), sliver_rows=sliver_rows())
        if batch >= sliver_rows():
            sliver_row = -(-matmul.shapes()[2] // lanes) * vector
            sliver = batch * sliver_row + SLIVER_APART
            self.set(copy_sliver=copies.copy_sliver(name), sliver=self._new(workers * sliver), sliver_row=sliver_row, sliver_bytes=sliver)
        if input_noise and use == "train":
            self.set(noise=add_noise(name), noise_stream=self._stream(key, 0, input_noise))
        self.hyper = np.zeros(1, dtype)
        self.set(hyper=self.hyper.ctypes.data)
        self._gathered_x = 0  # where there is room for two batches of X, once they had to be gathered
        self.choice = team.Choice()
        self.threads = 0  # that did the last run
        self._in_place = False  # whether a layer works on the caller's own weights
        self._lent: tuple[weakref.ref[Array], ...] = ()  # parameters and states

    def _new(self, size: int) -> int:
        memory = aligned(size)
        self._memory.append(memory)
        return int(memory.ctypes.data)

    def _stream(self, key: Sequence[int], layer: int, factor: float, p: float = 0.0) -> int:
        """The settings of a layer's random numbers, as philox.py lists them."""
        at = self._new(philox.SETTINGS)
        memory = self._memory[-1][: philox.SETTINGS]
        memory.view(np.int64)[:4] = *key, philox_numbers.threshold(p), layer
        numbers = memory.view(self.dtype)[4 * 8 // self.dtype.itemsize :: 8 // self.dtype.itemsize]
        numbers[:] = factor, philox_numbers.keep(p)
        return at

    def _call(self, *names: str) -> None:
        """Compile these callbacks of step.py, or load them, and tell the others where they are."""
        self.set(**{name: step.address(name) for name in names})

    def set(self, **fields: int) -> None:
        for name, value in fields.items():
            self.table[step._h[name]] = value

    def set_layer(self, i: int, **fields: int) -> None:
        for name, value in fields.items():
            self._layers[i, step._l[name]] = value

    # ---- what is lent -------------------------------------------------------------------------------------

    def lend_parameters(self, flat: Array, states: Sequence[Array] = ()) -> None:
        """The caller's parameters, and what the rule keeps of each: flat arrays W1, b1, W2, b2, ... (see fastbp/network/layout.py)."""
        lent = (flat, *states)
        if len(lent) == len(self._lent) and all(known() is array for known, array in zip(self._lent, lent, strict=True)):
            return
        self._lent = ()  # if this is interrupted, nobody shall think it was done
        for k, array in enumerate(lent):
            at = array.ctypes.data
            suffix = f"_{k}" if k else ""
            for i, (fan_in, fan_out) in enumerate(zip(self.layer_sizes[:-1], self.layer_sizes[1:], strict=True)):
                bias_at = at + fan_in * fan_out * self.dtype.itemsize
                self.set_layer(i, **{f"outside_w{suffix}": at, f"outside_b{suffix}": bias_at})
                at = bias_at + fan_out * self.dtype.itemsize
                if i < self._normalised:
                    self.set_layer(i, **{f"outside_g{suffix}": at})
                    at += fan_out * self.dtype.itemsize
        self._lent = tuple(map(weakref.ref, lent))

    def read_in_place(self) -> None:
        """Forward passes from now on read the parameters where they were lent, in rows as they are, instead of packed copies."""
        vector = int(self.table[step.VECTOR])
        for me, fan_out in zip(self._layers, self.layer_sizes[1:], strict=True):
            me[[step.W, step.BIAS, step.GAIN]] = me[[step.OUTSIDE_W, step.OUTSIDE_B, step.OUTSIDE_G]]
            me[[step.W_PANEL, step.W_K, step.BIAS_PANEL]] = vector, fan_out * self.dtype.itemsize, vector

    def leave_in_place(self, i: int, *, weights: bool) -> bool:
        """If the rows of layer i are whole vectors: let it work on the caller's own z and a (trace) and, if asked for, weights, whose
        addresses are then set for each run. Whether it can."""
        row = self.layer_sizes[i + 1] * self.dtype.itemsize
        vector = int(self.table[step.VECTOR])
        long = self.multiply_adds * SLOW_MULTIPLY_ADD >= LONG_SECONDS  # to be interrupted, and then the arrays shall be as they were
        if row % vector or self._layers[i, step.THIN] or long:
            return False
        self._in_place = True
        # A panel's lines would all want the same few places in the cache. For one row weights are updated along their rows; many rows use a
        # line often enough.
        crowded = row % BAD_STRIDE == 0 and self._layers[i, step.DIRECT] and 1 < self.batch < SLIVER_ROWS
        if weights and not crowded:
            self.set_layer(i, in_place=1, w_panel=vector, w_k=row)
        if self._layers[i, step.Z] != self._layers[i, step.A]:
            panels = row // vector
            self.set_layer(i, rows_in_place=1, row=row, chunk=panels, chunk_bytes=row)
        return True

    def lend_activations(self, z: Sequence[Array], a: Sequence[Array], n: Sequence[Array], inverse_std: Sequence[Array]) -> None:
        """What a forward pass writes and a backward pass reads: of every layer z and a (rows, fan_out), of normalised ones n (rows, fan_out) and
        inverse_std (rows,)."""
        for i, (z_i, a_i) in enumerate(zip(z, a, strict=True)):
            self.set_layer(i, outside_z=z_i.ctypes.data, outside_a=a_i.ctypes.data)
        for i, (n_i, inverse_i) in enumerate(zip(n, inverse_std, strict=True)):
            self.set_layer(i, outside_n=n_i.ctypes.data, outside_inverse_std=inverse_i.ctypes.data)

    def lend_data(self, X: Array | Rows, Y: Array | Rows | None, order: NDArray[np.int64] | None = None) -> None:
        """X (samples, inputs) and Y (samples, outputs; weighted: a column more), and perhaps the order in which their rows are wanted: C-ordered
        arrays of the plan's dtype, or, in training, rows to be converted."""
        self.set(samples=len(X), order=0 if order is None else order.ctypes.data, steps_per_epoch=-(-len(X) // self.batch))
        self._lend_rows("x", X)
        if Y is None:
            self.set(y_columns=0)
            self.gather_if_crowded(len(X))
            return
        self._lend_rows("y", Y)
        self.set(y_columns=Y.shape[1])
        self._gather(self._use == "train" and self._gathers(X, Y, order), batches=2)

    def gather_if_crowded(self, rows: int) -> None:
        """Have single steps and forward passes of so many rows copy X first, where its rows share cache sets and are read often enough."""
        often = min(rows, self.batch) >= CROWDED_ROWS and self._layers[0, step.PANELS] >= CROWDED_PANELS
        self._gather(bool(often) and self._is_crowded, batches=1)

    def _gather(self, gathers: bool, batches: int) -> None:
        if gathers and not self._gathered_x:
            self._make_room_for_gathering(batches)
        self.set(gathered_x=self._gathered_x if gathers else 0)

    @property
    def _is_crowded(self) -> bool:
        """Whether the rows of X share cache sets."""
        return self.layer_sizes[0] * self.dtype.itemsize % BAD_STRIDE == 0

    def is_ready_for(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether it has run, and such data, as of `lend_data`, need nothing that has still to be compiled."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return self.threads > 0 and not reads and (self._gathered_x > 0 or not self._gathers(X, Y, order))

    def _gathers(self, X: Array | Rows, Y: Array | Rows, order: NDArray[np.int64] | None) -> bool:
        """Whether each batch of such data is copied to where its rows are consecutive and far from sharing cache sets."""
        reads = isinstance(X, Rows) or isinstance(Y, Rows)
        return order is not None or reads or (self._is_crowded and len(X) >= 8) or bool(self.table[step.NOISE])

    def _lend_rows(self, name: str, data: Array | Rows) -> None:
        if not isinstance(data, Rows):
            self.set(**{name: data.ctypes.data, f"{name}_row": data.shape[1] * data.itemsize, f"read_{name}": 0})
            return
        values = data.values
        if isinstance(data, Labels):
            reader = label_reader(self.dtype.name, weighted=data.weights is not None)
            self.set(**{name: values.ctypes.data, f"{name}_row": values.itemsize, f"read_{name}": reader})
            return
        reader = row_reader(values.dtype, self.dtype.name, scaled=data.scaling and data.scaling[0].dtype)
        self.set(**{name: values.ctypes.data, f"{name}_row": values.strides[0], f"{name}_column": values.strides[1], f"read_{name}": reader})
        if data.scaling is not None:
            self.set(x_scale=data.scaling[0].ctypes.data, x_offset=data.scaling[1].ctypes.data)

    def _make_room_for_gathering(self, batches: int) -> None:
        self._call("gather_batch")
        x_row = -(-self.layer_sizes[0] * self.dtype.itemsize // 128) * 128 + 64  # an odd number of cache lines
        self.set(gathered_x_row=x_row, gathered_x_bytes=self.batch * x_row if batches > 1 else 0)
        if self._use == "train":
            y_row = (self.layer_sizes[-1] + self._weighted) * self.dtype.itemsize
            self.set(
                gathered_y_row=y_row, gathered_y_bytes=self.batch * y_row if batches > 1 else 0, gathered_y=self._new(batches * self.batch * y_row),
            )  # fmt: skip
        self._gathered_x = self._new(batches * self.batch * x_row)  # last: it says that there is room

    # ---- what is done -------------------------------------------------------------------------------------

    def run(self, task: int, threads: int | None) -> int:
        """Do the task (step.PACK, ... added up); returns how many threads did it."""
        most = team.available(threads) if self.multiply_adds >= TEAM_FROM_MULTIPLY_ADDS else 1
        batches = -(-int(self.table[step.SAMPLES]) // self.batch)
        started = time.perf_counter()
        n, _ = self.way(most, 1, started)
        self.run_as(task, n, batches)
        now = time.perf_counter()
        self.choice.note(n, batches, now - started, now)
        return self.threads

    def run_as(self, task: int, threads: int, steps: int, stop: NDArray[np.int64] | None = None) -> int:
        """Do the task with so many threads; steps: how many times `multiply_adds` it is.

        stop : a flag made for this call, which ends it early where it is long: it then raises KeyboardInterrupt, and what was lent is as it was.
        """
        known = self.choice.seconds_per_step.values()
        if self._in_place or steps * (min(known) if known else self.multiply_adds * SLOW_MULTIPLY_ADD) < LONG_SECONDS:
            self._enter(task, threads)
        else:
            unpacking = task & (step.UNPACK + step.UNPACK_STATES)
            self._enter_interruptibly(task - unpacking, threads, np.zeros(1, np.int64) if stop is None else stop)
            if unpacking:
                self._enter(unpacking, threads)
        return self.threads

    def _enter(self, task: int, threads: int, stop: NDArray[np.int64] = NO_STOP) -> None:
        self.set(task=task, stop=stop.ctypes.data)
        try:
            self.threads = team.run(self.work, self.address, threads, self._door)
        finally:
            self.set(stop=NO_STOP.ctypes.data)

    def _enter_interruptibly(self, task: int, threads: int, stop: NDArray[np.int64]) -> None:
        """Work in another thread, so that this one hears Ctrl-C."""
        own_thread.run(lambda: self._enter(task, threads, stop), stop)
        if stop[0]:  # perhaps only when the work was over, but nobody knows that
            raise KeyboardInterrupt

    def train(
        self,
        first_step: int,
        last_step: int,
        settings: Array,
        losses: NDArray[np.float64],
        *,
        pack: bool,
        threads: int | None,
        stop: NDArray[np.int64],
    ) -> None:
        """Steps first_step <= s < last_step on the data lent; the parameters lent stay as they are until `unpack`.

        settings: (steps, numbers), see settings.py; losses: one a step; stop: as in `run_as`.
        """
        most = self.most_threads(threads)
        self.set(hyper_step=settings.strides[0])
        at = first_step
        while True:
            started = time.perf_counter()
            n, steps = self.way(most, last_step - at, started)
            done = at - first_step
            self.set(
                first_step=at, last_step=at + steps, hyper=settings.ctypes.data + done * settings.strides[0],
                losses=losses.ctypes.data + done * losses.itemsize,
            )  # fmt: skip
            self.run_as(step.TRAIN + (step.PACK if pack and at == first_step else 0), n, steps, stop)
            at += steps
            if steps:
                now = time.perf_counter()
                self.choice.note(n, steps, now - started, now)
            if at >= last_step:
                return

    def most_threads(self, threads: int | None) -> int:
        """How many threads may be tried in training."""
        return team.available(threads) if self.may_have_a_team else 1

    @property
    def may_have_a_team(self) -> bool:
        """Whether a training step is large enough for threads to be tried."""
        return bool(self.multiply_adds >= TRY_TEAM_FROM_MULTIPLY_ADDS)

    def way(self, threads: int, steps: int, now: float) -> tuple[int, int]:
        """How many threads to take for the next steps, and for how many of them. `choice.note` wants to hear how long it took."""
        if threads == 1 or self.multiply_adds >= ALWAYS_TEAM_FROM_MULTIPLY_ADDS:
            return threads, steps
        return self.choice.next(threads, steps, now)

    def unpack(self, threads: int | None) -> None:
        """Write parameters and states to the arrays lent."""
        large = self._packed.nbytes >= TEAM_FROM_BYTES
        self._enter(step.UNPACK + step.UNPACK_STATES, team.available(threads) if large else 1)

    def unpack_parameters(self, threads: int | None) -> None:
        """As `unpack`, without the states."""
        large = self._packed.nbytes >= TEAM_FROM_BYTES
        self._enter(step.UNPACK, team.available(threads) if large else 1)

    def step_with(self, sums: Plan, settings: Array) -> None:
        """One step of the rule on the packed parameters with the gradient that `sums`, a plan of rule "sum", has added up; settings as one
        row for `train`. Both lie in memory alike, and what fills up vectors stays zero."""
        size, vector = self._packed.nbytes, int(self.table[step.VECTOR])
        update = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 10)(int(self.table[step.UPDATE]))
        update(sums._memory[0].ctypes.data + size, vector, 0, self._memory[0].ctypes.data, vector, 0, size, 1, size // vector,
               settings.ctypes.data)  # fmt: skip
        if self.table[step.CLIP] or self.table[step.MAX_NORM]:
            self.set(hyper=settings.ctypes.data)
            self._enter(step.FINISH_UPDATE, 1)

    def parameters_are_finite(self) -> bool:
        """Whether the packed parameters are (what fills up vectors is)."""
        with np.errstate(all="ignore"):
            return bool(np.isfinite(self._packed.sum()) or np.isfinite(self._packed).all())
