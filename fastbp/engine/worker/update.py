"""Update: W and b take the optimizer's step on the gradient.

    dW = x.T @ delta            (fan_in, fan_out), summed over the batch
    db = the column sums of dz  (fan_out,);  dgain = those of dz * n

With plain SGD delta carries -lr already, and the product is added to W as it is: the gradient exists in
registers only. Other rules take each block of the product. What needs all of a gradient comes afterwards, in
after_update.py.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import ADDED, REPLACED
from fastbp.engine.worker.exchange import next_piece
from fastbp.engine.worker.operands import (
    TILE_VECTORS,
    Block,
    Left,
    Operand,
    Size,
    apply_rule,
    column_of,
    depth_of,
    from_itself,
    from_zero,
    matmul_along_rows,
    of_biases,
    renew_transpose,
    round_weights,
    scratch_of,
    with_rows,
)
from fastbp.engine.worker.partition import (
    Rectangle,
    block_of,
    blocks_of,
    first_of_share,
    panel_at,
    panel_in,
    share_of_layer,
    side_by_side,
    stopped,
    tallest,
    width_for,
)

# Inputs are packed when they meet at least so many panels (measured on 784-256-10).
PACKING_PANELS = 6


@inner
def update(plan, layer, x, batch, worker):
    """The worker's part of the weights and biases of a layer: gradient and optimizer's step."""
    blocks, lanes = layer.in_panels, plan.lanes
    at = first_of_share(layer.panels, blocks, worker)
    while True:
        k0, k1, p0, p1, at = share_of_layer(plan, layer, blocks, worker, at)
        if p0 == p1:
            return
        rows = k0 * lanes, min(k1 * lanes, layer.fan_in)
        if plan.tiles:
            update_by_rows(plan, layer, x, batch, worker, rows, (p0, p1))
        else:
            sweep = sweep_of(plan, batch.rows) if plan.keeps_pairs else p1 - p0
            for q in range(p0, p1, sweep):
                update_panels(plan, layer, x, batch, worker, rows, (q, min(p1, q + sweep)))
        if k1 == blocks:
            update_biases(plan, layer, batch, worker, p0, p1)
        if layer.mirrors:
            renew_transpose(plan, layer, k0, k1, p0, p1)


@inner
def update_by_rows(plan, layer, x, batch, worker, rows, panels):
    """All panels of the weights for as many rows at a time as there is room for in the second-level cache,
    which is room for their columns of the inputs: each panel meets them all."""
    first, end = rows
    blocks = blocks_of((end - first) * x.row, plan)
    for b in range(blocks):
        update_panels(plan, layer, x, batch, worker, block_of(plan, first, end, b, blocks), panels)


@inner
def sweep_of(plan, rows):
    """How many panels of deltas of so many rows stay in the second-level cache."""
    return max(2, plan.block // (depth_of(plan, rows) * plan.vector) // 2 * 2)


@inner
def update_panels(plan, layer, x, batch, worker, rows, panels):
    """Some rows of some panels of the weights, group by group of the inputs."""
    (first, end), (p0, p1) = rows, panels
    while first < end:
        group = first // x.group
        stop = min(end, (group + 1) * x.group)
        here = x.address + group * x.group_bytes + (first - group * x.group) * column_of(plan, x)
        inputs, rectangle = Operand(here, x.row, x.group, x.group_bytes), Rectangle(first, stop, p0, p1 - p0)
        update_rectangle(plan, layer, inputs, batch, worker, rectangle)
        first = stop


@inner
def update_rectangle(plan, layer, x, batch, worker, rectangle):
    """A rectangle of the weights; x begins with the rectangle's first column of the inputs."""
    first, end, p0, panels = rectangle
    p1 = p0 + panels
    # (Rows of a group of activations are adjacent already.)
    apart = x.group_bytes == 0 or batch.rows > plan.depth
    if apart and panels >= PACKING_PANELS and batch.rows >= plan.packing_rows:
        update_by_packed_inputs(plan, layer, x, batch, worker, rectangle)
        return
    p = p0
    while p < p1 and not stopped(plan):
        width = side_by_side(layer, p, p1)
        if plan.kernels.add_products == 0:  # (a sweep takes all panels that are side by side)
            width = width_for(plan, end - first, width)
        update_rows(plan, layer, x, batch, worker, Rectangle(first, end, p, width), np.int64(0))
        if plan.keeps_pairs and layer.mirrors:
            round_weights(plan, layer, first, end, p, p + width)
        p += width


@inner
def update_by_packed_inputs(plan, layer, x, batch, worker, rectangle):
    """Where many panels meet the same inputs, a packed panel of these (as many columns as the microkernel is
    high: the literature calls it a sliver of A) is copied to where its rows are adjacent, and swept over as
    many panels of deltas as stay in the second-level cache."""
    first, end, p0, panels = rectangle
    p1, height = p0 + panels, tallest(plan, np.int64(2))
    packed, row = plan.scratch.packed + worker.t * plan.scratch.packed_worker, plan.scratch.packed_row
    products = (end - first + height - 1) // height
    # Products that are added to the weights may come a piece of the batch at a time, so that more panels'
    # deltas have room in the cache and the packed panel meets them all; an optimizer wants whole sums.
    pieces = 1 + (batch.rows - 1) // plan.depth if layer.direct else 1
    for piece in range(pieces):
        r0, r1 = batch.rows * piece // pieces, batch.rows * (piece + 1) // pieces
        rows_of_piece = with_rows(batch, r1 - r0)
        sweep = sweep_of(plan, r1 - r0)
        for q in range(p0, p1, sweep):
            q1 = min(p1, q + sweep)
            top = first
            for i in range(1, products + 1):
                bottom = first + (end - first) * i // products
                if stopped(plan):
                    return
                source = x.address + r0 * x.row + (top - first) * plan.itemsize
                call(plan.kernels.pack_inputs, (source, x.row, packed, row, r1 - r0, bottom - top))
                p = q
                while p < q1:
                    width = min(2, side_by_side(layer, p, q1))
                    inputs = Operand(packed, row, x.group, x.group_bytes)
                    rows_of_w = Rectangle(top, bottom, p, width)
                    if layer.direct == ADDED and p + width < q1:
                        prefetch_sums(plan, layer, Rectangle(top, bottom, p + width, np.int64(2)))
                    update_rows(plan, layer, inputs, rows_of_piece, worker, rows_of_w, r0)
                    p += width
                top = bottom


@inner
def prefetch_sums(plan, layer, rectangle):
    """Ask for a tile of weights, which its product begins with."""
    top, bottom, p, width = rectangle
    for j in range(p, p + width):
        at = layer.W.address + j * layer.W.panel + top * layer.W.row
        call(plan.kernels.prefetch, (at, layer.W.row, bottom - top, plan.vector))


@inner
def update_rows(plan, layer, x, batch, worker, rectangle, r0):
    """A rectangle of panels that are side by side, from batch.rows rows of the batch, of which r0 is the
    first; x begins there, too, with the rectangle's first column of the inputs."""
    top, bottom, p, width = rectangle
    W = layer.W
    row = layer.blocks.row
    depth = depth_of(plan, batch.rows)
    if plan.keeps_pairs:  # (r0 is 0)
        delta = Block(layer.rounded.delta + panel_in(plan, layer.rounded.blocks, p), plan.vector, row)
    else:
        delta = Block(layer.delta + panel_at(plan, layer, p) + r0 * row, plan.vector, row)
    gradient = layer.gradient if layer.direct == REPLACED else 0
    w = Block(W.address + gradient + p * W.panel + top * W.row, W.panel, W.row)
    if plan.kernels.add_products != 0:
        call(plan.kernels.add_products, (x.address, bottom - top, delta.address, width, w))
        return
    if layer.direct:
        start = from_itself() if layer.direct == ADDED or r0 > 0 else from_zero()
        left = Left(x.address, column_of(plan, x), x.row, depth, np.int64(0))
        matmul_along_rows(plan, Size(bottom - top, width, depth), left, delta, w, start)
        return
    update_tiles(plan, x, delta, w, batch, worker, (bottom - top, width, depth))


@inner
def update_tiles(plan, x, delta, w, batch, worker, size):
    """The optimizer's step on a block of weights, tile by tile of its gradient. Each tile's step is taken on
    the way of the next one's product, where there is a kernel that does both (and asks for the parameters of
    the tile to come, and copies a piece of the next batch)."""
    rows, width, depth = size
    height, column = tallest(plan, width), column_of(plan, x)
    products = (rows + height - 1) // height
    both = plan.kernels.product_and_update if width == 2 and depth >= 2 * height else 0
    first, before = 0, 0
    for i in range(1, products + 1):
        end = rows * i // products
        left = Left(x.address + first * column, column, x.row, depth, np.int64(0))
        rows_of_w = Block(w.address + first * w.row, w.vector, w.row)
        if plan.kernels.prefetch_parameters != 0 and (i == 1 or not both):
            prefetch_parameters(plan, rows_of_w, end - first, width)
        gradient = gradient_room(plan, worker, i & 1 if both else 0, width)
        if both and i > 1:
            other = gradient_room(plan, worker, (i - 1) & 1, width)
            product = Size(end - first, width, depth), left, delta, gradient, from_zero()
            parameters = w.address + before * w.row, w.vector, w.row, plan.state
            step = first - before, batch.coefficients
            piece = next_piece(plan, worker, 2 * (first - before))
            call(both, (*product, other.address, parameters, step, piece))
        else:
            matmul_along_rows(plan, Size(end - first, width, depth), left, delta, gradient, from_zero())
        if not both or i == products:
            apply_rule(plan, gradient, rows_of_w, end - first, width, batch.coefficients)
        first, before = end, first


@inner
def gradient_room(plan, worker, k, width):
    """Room for a tile of the gradient; there are two."""
    return Block(scratch_of(plan, worker) + k * TILE_VECTORS * plan.vector, plan.vector, width * plan.vector)


@inner
def prefetch_parameters(plan, w, rows, width):
    """Ask for a block of weights and its states, which come while the product is taken."""
    for k in range(plan.states + 1):
        call(plan.kernels.prefetch_parameters, (w.address + k * plan.state, w.vector, width, rows * w.row))


@inner
def update_biases(plan, layer, batch, worker, p0, p1):
    """Biases, and gains where there are any, of panels p0 .. p1."""
    bias, norm, row = layer.bias, layer.normalisation, layer.blocks.row
    zero, one = np.int64(0), np.int64(1)
    sums = Block(scratch_of(plan, worker), plan.vector, zero)
    coefficients = of_biases(plan, batch.coefficients)
    p = p0
    while p < p1:
        width = min(8, side_by_side(layer, p, p1))
        here, of_panel = panel_at(plan, layer, p), p * bias.panel
        call(plan.kernels.column_sums, (layer.dz + here, batch.rows, width, row, sums.address, sums.vector))
        biases = Block(bias.address + of_panel, bias.panel, zero)
        apply_rule(plan, sums, biases, one, width, coefficients)
        if norm.forward != 0:
            out, gains = (sums.address, sums.vector), Block(norm.gain + of_panel, bias.panel, zero)
            call(norm.gain_sums, (layer.dz + here, norm.n + here, batch.rows, width, row, out))
            apply_rule(plan, sums, gains, one, width, coefficients)
        p += width
