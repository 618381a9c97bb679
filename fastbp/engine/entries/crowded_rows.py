"""The two-layer functions on rows that crowd the cache: where a row of the hidden layer is a multiple of 4096
bytes, and rows are many.

All lines of a column then want the same few places in the cache, so nothing is read down a column where the
caller has it. Each worker copies, along the rows and for himself alone, what he will read more than once: no
line crosses from core to core, and results are written once, where the caller gets them.

    forward     W1 some panels at a time, as many as stay in the second-level cache, and swept over all rows
                of X; of each rectangle a1, as soon as it is there, for the layer above
    backward    a1, and X where its rows crowd the cache, too: the columns of which the worker takes the
                gradient's rows. The first layer's deltas take a1's place when that has been used
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import ALIGNED, call
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.kernels import copies
from fastbp.engine.kernels.matmul import FROM_ROW
from fastbp.engine.memory import most_workers
from fastbp.engine.plan import Plan
from fastbp.engine.structs import layer_at, plan_at, top_layer
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.backward import backward
from fastbp.engine.worker.exchange import exchange_activations
from fastbp.engine.worker.forward import activate, forward
from fastbp.engine.worker.operands import (
    BAD_STRIDE,
    Block,
    Left,
    Operand,
    Size,
    Start,
    across_input,
    across_output,
    batch_of,
    input_of,
    matmul_along_k,
)
from fastbp.engine.worker.output import output_delta_of_trace
from fastbp.engine.worker.partition import (
    Rectangle,
    Worker,
    part_in_pieces,
    place_of,
    rows_of,
    stopped,
    tallest,
)
from fastbp.engine.worker.update import update_biases, update_panels

# Rows of a batch from which copies pay.
CROWDED_ROWS = 64
# Panels of a pair, which lie side by side in what is copied.
PAIR = np.int64(2)
# Bytes of packed weights that stay in the second-level cache while rows of X go by.
ROOM = 520 << 10


@struct
class Crowded(Struct):
    """What is copied, besides what every plan has."""

    pack_pairs: int  # callback
    copy: int  # address of a1 in blocks of two panels, for the layer above
    copy_group: int  # bytes from one of them to the next
    panels: int  # of W1 that are packed at a time
    panel: int  # bytes of one, packed
    packed: int  # address of the first worker's
    own: int  # bytes from one worker's to the next one's


_crowded_at = view_of(Crowded)


def crowds(inputs: int, itemsize: int, rows: int) -> bool:
    """Whether so many rows of so many numbers do."""
    return inputs * itemsize % BAD_STRIDE == 0 and rows >= CROWDED_ROWS


# ---- forward -------------------------------------------------------------------------------------------


@inner
def forward_of_crowded(plan, layer, more, x, batch, worker):
    """z, a and the copy of a, in rectangles of some packed panels by as many rows as a microkernel is
    high."""
    first, rows, part = rows_of(plan, batch, worker)
    p0, p1 = part_in_pieces(layer.panels, PAIR, part)
    height, row, packed = tallest(plan, PAIR), layer.blocks.row, more.packed + worker.t * more.own
    tiles = (rows + height - 1) // height
    for q in range(p0, p1, more.panels):
        q1 = min(p1, q + more.panels)
        source = layer.caller.parameters.W + q * plan.vector, row
        call(
            plan.kernels.copy_in,
            (source, packed, plan.vector, more.panel, layer.fan_in, (q1 - q) * plan.lanes),
        )
        bottom = first
        for i in range(1, tiles + 1):
            if stopped(plan):
                return
            top, bottom = bottom, first + rows * i // tiles
            left = Left(x.address + top * x.row, x.row, x.row, x.group, x.group_bytes)
            size = Size(bottom - top, PAIR, layer.fan_in)
            for p in range(q, q1, PAIR):
                bias = Start(layer.bias.address + p * layer.bias.panel, layer.bias.panel, FROM_ROW)
                here = Block(layer.z + top * row + p * plan.vector, plan.vector, row)
                panels = Block(packed + (p - q) * more.panel, more.panel, plan.vector)
                matmul_along_k(plan, size, left, panels, here, bias)
            rectangle = Rectangle(top, bottom, q, q1 - q)
            activate(plan, layer, rectangle, np.int64(0))
            source = layer.a + place_of(plan, layer, rectangle), row
            copy = more.copy + (q >> 1) * more.copy_group + top * PAIR * plan.vector
            call(more.pack_pairs, (source, copy, more.copy_group, bottom - top, (q1 - q) >> 1))


def run_forward_of_crowded(address, t, n, step, training):
    """Both layers, with a barrier after each unless each worker has rows of his own."""
    plan, worker = plan_at(address), Worker(t, n)
    first, more = layer_at(plan, np.int64(0)), _crowded_at(plan.crowded)
    batch = batch_of(plan, step, training, worker)
    _, _, meeting = rows_of(plan, batch, worker)
    forward_of_crowded(plan, first, more, input_of(plan, batch), batch, worker)
    barrier(plan, meeting)
    a = Operand(more.copy, PAIR * plan.vector, PAIR * plan.lanes, more.copy_group)
    forward(plan, top_layer(plan), a, batch, worker)
    barrier(plan, meeting)


# ---- backward ------------------------------------------------------------------------------------------


@inner
def gather_own_columns(plan, rows, k0, k1):
    """X, to rows an odd number of cache lines apart."""
    x, to, offset = plan.x, plan.gathered_x, k0 * plan.itemsize
    source, target = (x.address + offset, x.row), (to.address + offset, to.row)
    call(plan.kernels.gather, (np.int64(0), np.int64(0), rows, source, target, k1 - k0))


@inner
def copy_own_columns(plan, layer, more, rows, worker):
    """a1, to blocks of two panels."""
    p0, p1 = part_in_pieces(layer.panels, PAIR, worker)
    source = layer.caller.a + p0 * plan.vector, layer.fan_out * plan.itemsize
    here = layer.a + (p0 >> 1) * layer.blocks.group_bytes
    call(more.pack_pairs, (source, here, layer.blocks.group_bytes, rows, (p1 - p0) >> 1))


@inner
def own_part(plan, layer, i, worker):
    """The rows of layer i's gradient that are the worker's: those of inputs that he has copied. Else, and of
    biases, panels."""
    panels = part_in_pieces(layer.panels, PAIR, worker)
    if i == 0 and plan.gathered_x.address == 0:
        return (np.int64(0), layer.fan_in), panels, panels
    k0, k1 = part_in_pieces(layer.in_panels, PAIR, worker)
    return (k0 * plan.lanes, min(k1 * plan.lanes, layer.fan_in)), (np.int64(0), layer.panels), panels


def gradients_of_crowded(address, t, n):
    """Backward from a1 and y_pred, as `gradients` in worker/train.py."""
    plan, worker, zero = plan_at(address), Worker(t, n), np.int64(0)
    batch, first, top = batch_of(plan, zero, np.int64(1), worker), layer_at(plan, zero), top_layer(plan)
    if plan.gathered_x.address != 0:
        (k0, k1), _, _ = own_part(plan, first, zero, worker)
        if k0 < k1:
            gather_own_columns(plan, batch.rows, k0, k1)
    copy_own_columns(plan, first, _crowded_at(plan.crowded), batch.rows, worker)
    exchange_activations(plan, top, worker, zero, batch.rows, np.int64(1))
    output_delta_of_trace(plan, top, batch, worker)
    barrier(plan, worker)
    for i in range(1, -1, -1):
        layer = layer_at(plan, i)
        x = across_output(plan, first) if i > 0 else across_input(plan, batch)
        rows, panels, (p0, p1) = own_part(plan, layer, i, worker)
        update_panels(plan, layer, x, batch, worker, rows, panels)
        update_biases(plan, layer, batch, worker, p0, p1)
        if i > 0:
            backward(plan, layer, first, batch, worker)
        barrier(plan, worker)


# ---- what a plan is told -------------------------------------------------------------------------------


def _prepare(plan: Plan) -> Crowded:
    plan.table.crowded = plan.memory.new(size_of(Crowded))
    more = at(Crowded, plan.table.crowded)
    more.pack_pairs = copies.pack_panels(plan.design.dtype.name)
    return more


def prepare_forward(plan: Plan) -> None:
    """Leave the first layer in place, and have `forward` work like this where its weights are, too."""
    table, first = plan.table, plan.layers[0]
    own, group_bytes = first.a, first.blocks.group_bytes
    if not plan.leave_in_place(0):
        return
    more = _prepare(plan)
    more.copy, more.copy_group = own, group_bytes
    more.panel = first.fan_in * plan.design.vector + ALIGNED
    more.panels = max(2, min(ROOM // more.panel, first.panels) // 2 * 2)
    more.own = more.panels * more.panel
    more.packed = plan.memory.new(most_workers() * more.own)
    table.phases.run_forward = jit.address_of(
        "run_forward_of_crowded", jit.void(5), lambda: run_forward_of_crowded, driver=True
    )


def prepare_backward(plan: Plan) -> None:
    """Have `backward` work like this, and leave the first layer's gradient in place."""
    _prepare(plan)
    first = plan.layers[0]
    first.delta = first.dz = first.a
    plan.leave_in_place(0, rows=False)
    plan.table.phases.gradients = jit.address_of(
        "gradients_of_crowded", jit.void(3), lambda: gradients_of_crowded, driver=True
    )
