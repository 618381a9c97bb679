"""What the phases hand to kernels, and the kernels that several of them call.

In training in bfloat16 what products read is rounded once, by whoever has just computed it, and kept as pairs
of neighbours along the depth of the product:

    each batch             X       along its rows for forward, across them for the update
    forward                a       the same, for the layer above
    last layer, backward   deltas  along their rows for backward, across them for the update
    update                 W, W.T  across their rows, for forward and backward

"Along" and "across" say which numbers make a pair: neighbours along the depth of the product. Everything is
there in float32, too, from which it is rounded. Two rows that make pairs are one worker's: where rows are
cut, they are counted in pairs. The copies of W are whole when parameters have been packed, and are renewed
with each update, as W.T is elsewhere.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.kernels import matmul
from fastbp.engine.structs import layer_at, layer_view, plan_at
from fastbp.engine.worker.partition import (
    Rectangle,
    columns_of,
    panel_in,
    part_of_rows,
    pieces_of,
    place_of,
    side_by_side,
)

# Rows of the inputs that are rounded at a time, once in each way.
INPUT_ROWS = 8

# Vectors that a tile of a product has at most; a worker's scratch memory has room for two of a gradient.
TILE_VECTORS = 32

BYTES = 2  # of a bfloat16 number

# Bytes that a row should not be a multiple of: all rows then share sets of the first-level cache.
BAD_STRIDE = 4096


class Batch(NamedTuple):
    """One step's rows, inputs, targets and numbers."""

    rows: int
    number: int  # of the step, counted from 1 over the model's life; 0: this is no training
    x: int  # address of the inputs, (rows, inputs)
    x_row: int  # bytes from a row to the next
    y: int  # address of the targets, (rows, outputs)
    y_row: int
    coefficients: int  # address: the factor of the output's deltas, then the optimizer's numbers


class Operand(NamedTuple):
    """The inputs of a layer, (rows, fan_in): X as it lies, or the activations of the layer below."""

    address: int
    row: int  # bytes from a row to the next
    group: int  # columns side by side
    group_bytes: int  # from one group of columns to the next


class Size(NamedTuple):
    """Of a product: rows and vectors of C, and how many products are added up for each number."""

    rows: int
    vectors: int
    depth: int


class Left(NamedTuple):
    """A. Its numbers are adjacent along k, or along the rows of C, as the microkernel wants them."""

    address: int
    row: int  # bytes from a row of C to the next
    stride: int  # bytes of what is not adjacent: from row to row, or from k to k
    group: int  # k side by side
    group_bytes: int  # from one group of k to the next


class Block(NamedTuple):
    """B or C, or a block of parameters: vectors in rows."""

    address: int
    vector: int  # bytes from a vector to the next
    row: int


class Start(NamedTuple):
    """What the sums begin with, and whether they end with the ReLU: matmul.ZERO, ..."""

    row: int  # address
    vector: int  # bytes from a vector to the next
    kind: int


@inner
def batch_of(plan, step, training, worker):
    """The batch of a step, where it lies or where it was gathered."""
    start = step % plan.steps_per_epoch * plan.batch
    rows = min(plan.batch, plan.samples - start)
    x, x_row = plan.x.address + start * plan.x.row, plan.x.row
    y, y_row = plan.y.address + start * plan.y.row, plan.y.row
    if plan.gathered_x.address != 0:
        x, x_row = gathered_at(plan, plan.gathered_x, step, worker), plan.gathered_x.row
        if plan.gathered_y.address != 0:  # in training
            y, y_row = gathered_at(plan, plan.gathered_y, step, worker), plan.gathered_y.row
    number = plan.steps_before + step + 1 if training else 0
    coefficients = plan.coefficients + (step - plan.first_step) * plan.coefficients_row
    return Batch(rows, number, x, x_row, y, y_row, coefficients)


@inner
def gathered_at(plan, room, step, worker):
    """Where the worker finds what was gathered of X or Y for a step."""
    return room.address + (worker.t if plan.own_batches else step & 1) * room.batch


@inner
def with_rows(batch, rows):
    """A batch of so many rows, with all else of this one."""
    return Batch(rows, batch.number, batch.x, batch.x_row, batch.y, batch.y_row, batch.coefficients)


@inner
def input_of(plan, batch):
    """The rows of a batch as the first layer's operand."""
    fan_in = layer_at(plan, np.int64(0)).fan_in
    if plan.keeps_pairs:
        return along(plan.x_rounded, fan_in)
    return Operand(batch.x, batch.x_row, fan_in, np.int64(0))


@inner
def across_input(plan, batch):
    """The same as the operand of the first layer's update."""
    if plan.keeps_pairs:
        return across(plan, plan.x_rounded, layer_at(plan, np.int64(0)).fan_in)
    return input_of(plan, batch)


@inner
def across_output(plan, layer):
    """The activations of a layer as the operand of the next layer's update."""
    if plan.keeps_pairs:
        return across(plan, layer.rounded, layer.fan_out)
    return output_of(plan, layer)


@inner
def along(rounded, columns):
    """What is rounded along its rows, of so many columns at most; a k is a pair."""
    return Operand(rounded.along, rounded.row, columns, np.int64(0))


@inner
def across(plan, rounded, columns):
    """What is rounded across its rows; for tiles `row` is from a column to the next."""
    if plan.tiles:
        return Operand(rounded.a, rounded.column, columns, np.int64(0))
    blocks = rounded.blocks
    return Operand(rounded.a, blocks.row, blocks.group * plan.lanes, blocks.group_bytes)


@inner
def column_of(plan, x):
    """Bytes from a column of an update's inputs to the next."""
    return x.row if plan.tiles else plan.itemsize


@inner
def depth_of(plan, count):
    """How many k a product of the engine has that adds up so many numbers: as many, or pairs of them, or
    pairs in whole tiles."""
    return pieces_of(plan, count) * (plan.keeps_pairs >> 1) if plan.keeps_pairs else count


@inner
def output_of(plan, layer):
    """The activations of a layer as the next layer's operand."""
    if plan.keeps_pairs:
        return along(layer.rounded, layer.fan_out)
    return Operand(layer.a, layer.blocks.row, layer.blocks.group * plan.lanes, layer.blocks.group_bytes)


@inner
def from_zero():
    return Start(np.int64(0), np.int64(0), np.int64(matmul.ZERO))


@inner
def from_itself():
    return Start(np.int64(0), np.int64(0), np.int64(matmul.FROM_C))


@inner
def masked_by(address):
    """From zero, and in the end 0 where the matrix at that address is not above 0."""
    return Start(address, np.int64(0), np.int64(matmul.MASKED))


@inner
def matmul_along_k(plan, size, a, b, c, start):
    """C = start + A @ B, where the numbers of a row of A are adjacent."""
    multiply(plan.kernels.product_along_k, size, a, b, c, start)


@inner
def matmul_along_rows(plan, size, a, b, c, start):
    """C = start + A @ B, where the numbers of a column of A are adjacent: A is read as the transpose of what
    lies there."""
    multiply(plan.kernels.product_along_rows, size, a, b, c, start)


@inner
def multiply(kernel, size, a, b, c, start):
    call(kernel, (size, a, b, c, start))


@inner
def scratch_of(plan, worker):
    """The address of the worker's scratch memory: 2 x TILE_VECTORS vectors, or PAIRED_ROWS x MOST_VECTORS."""
    return plan.scratch.vectors + worker.t * plan.scratch.own


@inner
def apply_rule(plan, gradient, parameters, rows, vectors, coefficients):
    """The optimizer's step on a block of parameters and its states."""
    call(plan.kernels.update, (gradient, parameters, plan.state, rows, vectors, coefficients))


@inner
def of_biases(plan, coefficients):
    """The optimizer's numbers for biases and gains, from those for weights."""
    return coefficients + plan.bias_coefficients


@inner
def transpose(plan, layer, k0, k1, p0, p1):
    """Renew the part of WT that mirrors rows k0 V .. k1 V of panels p0 .. p1 of W."""
    W, WT = layer.W, layer.WT
    square = plan.lanes * plan.vector
    # W may be the caller's own, which has no more rows.
    rows = min(layer.fan_in, k1 * plan.lanes) - k0 * plan.lanes
    for p in range(p0, p1):
        source = W.address + p * W.panel + k0 * plan.lanes * W.row
        target = WT.address + k0 * WT.panel + p * square
        call(plan.kernels.transpose, (source, W.row, target, rows, WT.panel))


# ---- what is kept rounded ------------------------------------------------------------------------------


@inner
def round_inputs(plan, batch, worker):
    """The worker's rows of a batch."""
    to, columns = plan.x_rounded, layer_at(plan, np.int64(0)).fan_in
    r0, r1 = part_of_rows(plan, batch.rows, worker)
    if plan.tiles:
        source = batch.x + r0 * batch.x_row, batch.x_row
        call(plan.kernels.round_tiles, (source, r1 - r0, columns, tiles_at(to, r0, np.int64(0))))
        return
    for top in range(r0, r1, INPUT_ROWS):
        rows, source = min(INPUT_ROWS, r1 - top), batch.x + top * batch.x_row
        along, across = to.along + top * to.row, to.a + (top >> 1) * to.blocks.row
        lie = to.blocks.row, to.blocks.group, to.blocks.group_bytes
        call(plan.kernels.round_pairs, (source, batch.x_row, rows, columns, along, to.row, across, lie))


@inner
def tiles_at(to, row, column):
    """Where round_tiles puts what begins with that row and column."""
    across = to.a + column * to.column + row * BYTES
    return to.along + row * to.row + column * BYTES, to.row, across, to.column


@inner
def round_activations(plan, layer, rectangle):
    """A rectangle of a."""
    if plan.keeps_pairs:
        call(plan.phases.round_rows, (plan.here, layer.here, rectangle, np.int64(0)))


@inner
def round_deltas(plan, layer, rectangle):
    """A rectangle of the deltas."""
    if plan.keeps_pairs:
        call(plan.phases.round_rows, (plan.here, layer.here, rectangle, np.int64(1)))


def round_rows(address, layer_address, top, bottom, first, panels, deltas):
    """So many panels of rows of a, or of the deltas: along their rows where a layer below wants its own."""
    plan, layer = plan_at(address), layer_view(layer_address)
    to, row = layer.rounded, layer.blocks.row
    source, across, wanted = layer.a, to.a, True
    if deltas:
        source, across, wanted = layer.delta, to.delta, layer.WT.address != 0
    p, end = first, first + panels
    while p < end:
        rectangle = Rectangle(top, bottom, p, side_by_side(layer, p, end))
        there, columns = source + place_of(plan, layer, rectangle), columns_of(plan, layer, rectangle)
        if plan.tiles and not deltas:
            of_tiles = tiles_at(to, top, p * plan.lanes)
            call(plan.kernels.round_tiles, (there, row, bottom - top, columns, of_tiles))
            p += rectangle.width
            continue
        along = to.along + p * (plan.vector >> 1) + top * to.row if wanted else 0
        here = across + panel_in(plan, to.blocks, p) + (top >> 1) * to.blocks.row
        lie = to.blocks.row, rectangle.width, np.int64(0)
        call(plan.kernels.round_pairs, (there, row, bottom - top, columns, along, to.row, here, lie))
        if plan.tiles:  # whole tiles, in what follows the batch's last row
            pairs = (bottom - top + 1) >> 1
            more = depth_of(plan, bottom - top) - pairs
            call(plan.kernels.clear, (here + pairs * to.blocks.row, to.blocks.row, more, rectangle.width))
        p += rectangle.width


@inner
def renew_copies(plan, layer, k0, k1, p0, p1):
    """All copies of rows k0 V .. k1 V of panels p0 .. p1 of W."""
    if plan.keeps_pairs:
        round_weights(plan, layer, k0 * plan.lanes, min(layer.fan_in, k1 * plan.lanes), p0, p1)
    renew_transpose(plan, layer, k0, k1, p0, p1)


@inner
def renew_transpose(plan, layer, k0, k1, p0, p1):
    """Of them WT, where there is one."""
    if layer.WT.address == 0:
        return
    transpose(plan, layer, k0, k1, p0, p1)
    if plan.keeps_pairs:
        rows = min(layer.fan_out, p1 * plan.lanes) - p0 * plan.lanes
        rectangle = Rectangle(p0 * plan.lanes, p0 * plan.lanes + rows, k0, k1 - k0)
        call(plan.phases.round_panels, (plan.here, layer.here, rectangle, np.int64(1)))


@inner
def round_weights(plan, layer, first, end, p0, p1):
    """Rows of panels p0 .. p1 of W; the first one is even."""
    call(plan.phases.round_panels, (plan.here, layer.here, Rectangle(first, end, p0, p1 - p0), np.int64(0)))


def round_panels(address, layer_address, top, bottom, first, panels, transposed):
    """Rows of so many panels of W, or of its transpose."""
    plan, layer = plan_at(address), layer_view(layer_address)
    source, target = layer.W, layer.W_pairs
    if transposed:
        source, target = layer.WT, layer.WT_pairs
    lie, zero = (target.row, np.int64(1), np.int64(0)), np.int64(0)
    for p in range(first, first + panels):
        there = source.address + p * source.panel + top * source.row
        here = target.address + p * target.panel + (top >> 1) * target.row
        call(plan.kernels.round_pairs, (there, source.row, bottom - top, plan.lanes, zero, zero, here, lie))
