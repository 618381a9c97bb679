"""bfloat16 in training: what products read is rounded once, by whoever has just computed it, and kept.

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

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import layer_at
from fastbp.engine.worker.operands import transpose
from fastbp.engine.worker.partition import (
    Rectangle,
    columns_of,
    panel_in,
    part_of_rows,
    place_of,
    side_by_side,
)

# Rows of the inputs that are rounded at a time, once in each way.
INPUT_ROWS = 8


@inner
def round_inputs(plan, batch, worker):
    """The worker's rows of a batch."""
    to, columns = plan.x_rounded, layer_at(plan, np.int64(0)).fan_in
    r0, r1 = part_of_rows(plan, batch.rows, worker)
    for top in range(r0, r1, INPUT_ROWS):
        rows, source = min(INPUT_ROWS, r1 - top), batch.x + top * batch.x_row
        along, across = to.along + top * to.row, to.a + (top >> 1) * to.blocks.row
        lie = to.blocks.row, to.blocks.group, to.blocks.group_bytes
        call(plan.kernels.round_pairs, (source, batch.x_row, rows, columns, along, to.row, across, lie))


@inner
def round_activations(plan, layer, rectangle):
    """A rectangle of a."""
    if plan.keeps_pairs:
        _round(plan, layer, rectangle, layer.a, layer.rounded.along, layer.rounded.a)


@inner
def round_deltas(plan, layer, rectangle):
    """A rectangle of the deltas; along their rows where a layer below wants its own."""
    if plan.keeps_pairs:
        along = layer.rounded.along if layer.WT.address != 0 else 0
        _round(plan, layer, rectangle, layer.delta, along, layer.rounded.delta)


@inner
def round_rows(plan, layer, r0, r1, deltas):
    """The same of whole rows."""
    p = 0
    while plan.keeps_pairs and p < layer.panels:
        width = side_by_side(layer, p, layer.panels)
        if deltas:
            round_deltas(plan, layer, Rectangle(r0, r1, p, width))
        else:
            round_activations(plan, layer, Rectangle(r0, r1, p, width))
        p += width


@inner
def _round(plan, layer, rectangle, source, along, across):
    to, row, columns = layer.rounded, layer.blocks.row, columns_of(plan, layer, rectangle)
    rows, source = rectangle.bottom - rectangle.top, source + place_of(plan, layer, rectangle)
    if along != 0:
        along += rectangle.panel * (plan.vector >> 1) + rectangle.top * to.row
    across += panel_in(plan, to.blocks, rectangle.panel) + (rectangle.top >> 1) * to.blocks.row
    lie = to.blocks.row, rectangle.width, np.int64(0)
    call(plan.kernels.round_pairs, (source, row, rows, columns, along, to.row, across, lie))


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
        round_panels(plan, layer.WT, layer.WT_pairs, p0 * plan.lanes, rows, k0, k1)


@inner
def round_weights(plan, layer, first, end, p0, p1):
    """Rows of panels p0 .. p1 of W; the first one is even."""
    round_panels(plan, layer.W, layer.W_pairs, first, end - first, p0, p1)


@inner
def round_panels(plan, source, target, first, rows, p0, p1):
    for p in range(p0, p1):
        there, here = (
            source.address + p * source.panel + first * source.row,
            target.address + p * target.panel + (first >> 1) * target.row,
        )
        lie, zero = (target.row, np.int64(1), np.int64(0)), np.int64(0)
        call(plan.kernels.round_pairs, (there, source.row, rows, plan.lanes, zero, zero, here, lie))
