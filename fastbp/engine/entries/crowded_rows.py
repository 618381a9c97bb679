"""The two-layer functions on rows that crowd the cache, where a row of the hidden layer is a multiple of 4096
bytes, and rows are many; and on others for which copies pay, too (see `copies_pay`).

All lines of a column then want the same few places in the cache, so nothing is read down a column where the
caller has it. Each worker copies, along the rows and for himself alone, what he will read more than once: no
line crosses from core to core, and results are written once, where the caller gets them.

    forward     W1 some panels at a time, as many as stay in the second-level cache, and swept over all rows
                of X; a1 some rows at a time, for the layer above
    backward    a1, and X where inputs are many: the columns of which the worker takes the gradient's rows, of
                X in packed panels. The first layer's deltas take a1's place when that has been used
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import ALIGNED, call
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.kernels import copies
from fastbp.engine.kernels.matmul import FROM_ROW, shapes
from fastbp.engine.memory import most_workers
from fastbp.engine.plan import Plan
from fastbp.engine.simd.vector import isa
from fastbp.engine.structs import layer_at, plan_at, top_layer
from fastbp.engine.tables import BLOCK
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.backward import backward
from fastbp.engine.worker.exchange import exchange_activations
from fastbp.engine.worker.forward import activate, product
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
    with_rows,
)
from fastbp.engine.worker.output import output_delta_of_trace
from fastbp.engine.worker.partition import (
    Rectangle,
    Worker,
    block_of,
    blocks_of,
    part_in_pieces,
    part_of,
    rows_of,
    side_by_side,
    stopped,
    tallest,
    width_for,
)
from fastbp.engine.worker.update import sweep_of, update_biases, update_panels, update_rows

# Rows of a batch from which copies pay. And bytes of W1 and of a1 from which they do for rows that do not
# crowd (see `copies_pay`): in the first-level cache there is nothing to win.
CROWDED_ROWS, LARGE_W1, LARGE_A1 = 64, 1 << 20, 96 << 10
# Panels of a pair, which lie side by side in what is copied.
PAIR = np.int64(2)
# Bytes of packed weights that stay in the second-level cache while rows of X go by.
ROOM = 520 << 10
# Packed panels of X from which workers pack and use their own ones.
MANY_SLIVERS = 16


@struct
class Crowded(Struct):
    """What is copied, besides what every plan has."""

    pack_pairs: int  # callback
    panels: int  # of W1 that are packed at a time
    pair: int  # bytes of two, packed
    packed: int  # address of the first worker's
    own: int  # bytes from one worker's to the next one's
    rows: int  # address of the first worker's rows of a1
    row: int  # bytes from one to the next
    own_rows: int  # bytes from one worker's to the next one's
    pack_slivers: int  # callback; 0: X is read where it lies
    slivers: int  # address of the first worker's packed panels of X
    sliver: int  # bytes from one to the next
    sliver_row: int  # bytes from a row of one to the next
    own_slivers: int  # bytes from one worker's to the next one's


_crowded_at = view_of(Crowded)


def copies_pay(use: str, inputs: int, hidden: int, itemsize: int, rows: int) -> bool:
    """Whether so many rows of the hidden layer are copied, or of W1.

    Not only where they crowd the cache: a core fetches lines ahead, beyond those that are its own, and in a
    copy of its own these are nobody else's. Backward takes 0.7 to 0.9 of the time so at any number of whole
    pairs of panels, forward 0.8 to 0.95 where rows are a multiple of half of that length, and W1 is large.
    (On CPUs with whole units; others were measured where rows crowd.)
    """
    row, pair = hidden * itemsize, int(PAIR) * isa().bytes
    if rows < CROWDED_ROWS or row % BAD_STRIDE == 0:
        return rows >= CROWDED_ROWS
    if not isa().whole_units:
        return False
    if use == "backward":
        return row % pair == 0 and rows * row >= LARGE_A1
    return row % (BAD_STRIDE // 2) == 0 and inputs * row >= LARGE_W1


# ---- forward -------------------------------------------------------------------------------------------


@inner
def forward_of_crowded(plan, layer, more, x, batch, worker):
    """z and a, in rectangles of some packed panels by as many rows as a microkernel is high."""
    first, rows, part = rows_of(plan, batch, worker)
    p0, p1 = part_in_pieces(layer.panels, PAIR, part)
    height, row, packed = tallest(plan, PAIR), layer.blocks.row, more.packed + worker.t * more.own
    tiles = (rows + height - 1) // height
    for q in range(p0, p1, more.panels):
        q1 = min(p1, q + more.panels)
        source = layer.caller.parameters.W + q * plan.vector, row
        call(more.pack_pairs, (source, packed, more.pair, layer.fan_in, (q1 - q) >> 1))
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
                panels = Block(packed + ((p - q) >> 1) * more.pair, plan.vector, PAIR * plan.vector)
                matmul_along_k(plan, size, left, panels, here, bias)
            activate(plan, layer, Rectangle(top, bottom, q, q1 - q), np.int64(0))


@inner
def forward_above_crowded(plan, below, more, batch, worker):
    """The worker's rows of the layer above, from copies of some rows of a at a time."""
    layer, (first, rows, part) = top_layer(plan), rows_of(plan, batch, worker)
    r0, r1 = part_of(rows, part)
    copy, row = more.rows + worker.t * more.own_rows, below.blocks.row
    blocks = blocks_of((r1 - r0) * row, plan)
    for b in range(blocks):
        top, bottom = block_of(plan, first + r0, first + r1, b, blocks)
        source, target = (below.a + top * row, row), (copy, more.row)
        call(plan.kernels.gather, (np.int64(0), np.int64(0), bottom - top, source, target, layer.fan_in))
        a = Operand(copy - top * more.row, more.row, layer.fan_in, np.int64(0))
        p = np.int64(0)
        while p < layer.panels and not stopped(plan):
            width = width_for(plan, bottom - top, side_by_side(layer, p, layer.panels))
            rectangle = Rectangle(top, bottom, p, width)
            product(plan, layer, a, rectangle, np.int64(FROM_ROW))
            activate(plan, layer, rectangle, np.int64(0))
            p += width


def run_forward_of_crowded(address, t, n, step, training):
    """Both layers, with a barrier between them unless each worker has rows of his own."""
    plan, worker = plan_at(address), Worker(t, n)
    first, more = layer_at(plan, np.int64(0)), _crowded_at(plan.crowded)
    batch = batch_of(plan, step, training, worker)
    _, _, meeting = rows_of(plan, batch, worker)
    forward_of_crowded(plan, first, more, input_of(plan, batch), batch, worker)
    barrier(plan, meeting)
    forward_above_crowded(plan, first, more, batch, worker)
    barrier(plan, meeting)


# ---- backward ------------------------------------------------------------------------------------------


@inner
def own_inputs(plan, layer, worker):
    """The inputs of which the worker takes the gradient's rows: whole packed panels."""
    return part_in_pieces(layer.fan_in, tallest(plan, PAIR), worker)


@inner
def pack_own_inputs(plan, layer, more, batch, worker):
    """X, along its rows."""
    if more.pack_slivers == 0:
        return
    k0, k1 = own_inputs(plan, layer, worker)
    source, target = (batch.x + k0 * plan.itemsize, batch.x_row), more.slivers + worker.t * more.own_slivers
    call(more.pack_slivers, (source, target, more.sliver_row, more.sliver, batch.rows, k1 - k0))


@inner
def copy_own_columns(plan, layer, more, rows, worker):
    """a1, to blocks of two panels."""
    p0, p1 = part_in_pieces(layer.panels, PAIR, worker)
    source = layer.caller.a + p0 * plan.vector, layer.fan_out * plan.itemsize
    here = layer.a + (p0 >> 1) * layer.blocks.group_bytes
    call(more.pack_pairs, (source, here, layer.blocks.group_bytes, rows, (p1 - p0) >> 1))


@inner
def update_from_slivers(plan, layer, more, batch, worker):
    """dW1's rows of the worker's inputs: as many panels of deltas as stay in the second-level cache meet each
    packed panel."""
    (k0, k1), height = own_inputs(plan, layer, worker), tallest(plan, PAIR)
    pieces = 1 + (batch.rows - 1) // plan.depth
    for piece in range(pieces):
        r0, r1 = batch.rows * piece // pieces, batch.rows * (piece + 1) // pieces
        here, sweep = (
            more.slivers + worker.t * more.own_slivers + r0 * more.sliver_row,
            sweep_of(plan, r1 - r0),
        )
        for q in range(0, layer.panels, sweep):
            x = here
            for top in range(k0, k1, height):
                if stopped(plan):
                    return
                packed, bottom = Operand(x, more.sliver_row, layer.fan_in, np.int64(0)), min(k1, top + height)
                for p in range(q, min(layer.panels, q + sweep), PAIR):
                    rectangle = Rectangle(top, bottom, p, PAIR)
                    update_rows(plan, layer, packed, with_rows(batch, r1 - r0), worker, rectangle, r0)
                x += more.sliver


def gradients_of_crowded(address, t, n):
    """Backward from a1 and y_pred, as `gradients` in worker/train.py."""
    plan, worker, zero = plan_at(address), Worker(t, n), np.int64(0)
    batch, first, top = batch_of(plan, zero, np.int64(1), worker), layer_at(plan, zero), top_layer(plan)
    more = _crowded_at(plan.crowded)
    pack_own_inputs(plan, first, more, batch, worker)
    copy_own_columns(plan, first, more, batch.rows, worker)
    exchange_activations(plan, top, worker, zero, batch.rows, np.int64(1))
    output_delta_of_trace(plan, top, batch, worker)
    barrier(plan, worker)
    k0, k1 = part_in_pieces(top.in_panels, PAIR, worker)
    rows, panels = (k0 * plan.lanes, min(k1 * plan.lanes, top.fan_in)), (zero, top.panels)
    update_panels(plan, top, across_output(plan, first), batch, worker, rows, panels)
    update_biases(plan, top, batch, worker, *part_in_pieces(top.panels, PAIR, worker))
    barrier(plan, worker)  # deltas take the place of a1, also of columns that were another worker's
    backward(plan, top, first, batch, worker)
    barrier(plan, worker)
    own_panels = part_in_pieces(first.panels, PAIR, worker)
    if more.pack_slivers != 0:
        update_from_slivers(plan, first, more, batch, worker)
    else:
        update_panels(plan, first, across_input(plan, batch), batch, worker, (zero, first.fan_in), own_panels)
    update_biases(plan, first, batch, worker, *own_panels)
    barrier(plan, worker)


# ---- what a plan is told -------------------------------------------------------------------------------


def _prepare(plan: Plan) -> Crowded:
    plan.table.crowded = plan.memory.new(size_of(Crowded))
    more = at(Crowded, plan.table.crowded)
    more.pack_pairs = copies.pack_panels(plan.design.dtype.name)
    return more


def prepare_forward(plan: Plan) -> None:
    """Leave the first layer in place, and have `forward` work like this where its weights are, too."""
    table, first, vector = plan.table, plan.layers[0], plan.design.vector
    if not plan.leave_in_place(0):
        return
    more, workers = _prepare(plan), most_workers()
    more.pair = 2 * (first.fan_in * vector + ALIGNED)
    more.panels = max(1, min(2 * ROOM // more.pair, first.panels) // 2) * 2
    more.own = more.panels // 2 * more.pair
    more.packed = plan.memory.new(workers * more.own)
    more.row = first.blocks.row + ALIGNED
    more.own_rows = min(plan.design.batch, 1 + BLOCK // first.blocks.row) * more.row
    more.rows = plan.memory.new(workers * more.own_rows)
    table.phases.run_forward = jit.address_of(
        "run_forward_of_crowded", jit.void(5), lambda: run_forward_of_crowded, driver=True
    )


def prepare_backward(plan: Plan) -> None:
    """Have `backward` work like this, and leave the first layer's gradient in place."""
    more, design, first = _prepare(plan), plan.design, plan.layers[0]
    height, itemsize = shapes()[int(PAIR)], design.dtype.itemsize
    if plan.is_crowded or (first.fan_in >= MANY_SLIVERS * height and design.batch >= plan.table.packing_rows):
        more.pack_slivers, more.sliver_row = copies.pack_slivers(design.dtype.name), height * itemsize
        # Behind the last row there is room for a vector more; an odd number of lines from one to the next.
        more.sliver = (design.batch * more.sliver_row + design.vector) // (2 * ALIGNED) * (
            2 * ALIGNED
        ) + 3 * ALIGNED
        more.own_slivers = -(-first.fan_in // height) * more.sliver
        more.slivers = plan.memory.new(most_workers() * more.own_slivers)
    first.delta = first.dz = first.a
    plan.leave_in_place(0, rows=False)
    plan.table.phases.gradients = jit.address_of(
        "gradients_of_crowded", jit.void(3), lambda: gradients_of_crowded, driver=True
    )
