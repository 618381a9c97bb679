"""The last layer's end: its deltas and the loss in training, softmax in predictions.

    delta = scale * d(loss)/dz             (batch, fan_out); the loss of each element takes the place of z

The formulas are in kernels/losses.py; here stands for which elements they are called, in each way in which a
last layer may lie: in blocks, by whole rows (softmax, or weights of samples), or the other way round.
"""

from __future__ import annotations

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import top_layer
from fastbp.engine.worker.operands import round_deltas
from fastbp.engine.worker.partition import (
    Rectangle,
    columns_of,
    lie_of,
    part_of,
    part_of_rows,
    place_of,
    side_by_side,
    whole_rows,
)


@inner
def output_delta(plan, layer, batch, rectangle):
    """delta = scale * d(loss)/dz in a rectangle of the last layer, and the loss in the place of z. (With a
    trace it is taken from a.)"""
    here, row = place_of(plan, layer, rectangle), layer.blocks.row
    z, a, delta = layer.z + here, layer.a + here, layer.delta + here
    y = batch.y + rectangle.top * batch.y_row + rectangle.panel * plan.vector
    rows, columns = rectangle.bottom - rectangle.top, columns_of(plan, layer, rectangle)
    call(layer.output.delta, (z, a, delta, y, batch.y_row, rows, columns, row, batch.coefficients))


@inner
def output_delta_of_trace(plan, layer, batch, worker):
    """The same in the worker's rows."""
    r0, r1 = part_of(batch.rows, worker)
    p = 0
    while p < layer.panels:
        width = side_by_side(layer, p, layer.panels)
        output_delta(plan, layer, batch, Rectangle(r0, r1, p, width))
        p += width


@inner
def output_delta_of_rows(plan, batch, worker):
    """The worker's rows of the last layer's delta and loss."""
    layer = top_layer(plan)
    r0, r1 = part_of_rows(plan, batch.rows, worker)
    here, y = r0 * layer.blocks.row, batch.y + r0 * batch.y_row
    z, a, delta = layer.z + here, layer.a + here, layer.delta + here
    shape = (r1 - r0, layer.fan_out)
    call(layer.output.delta_of_rows, (z, a, delta, y, batch.y_row, shape, lie_of(layer), batch.coefficients))
    round_deltas(plan, layer, whole_rows(layer, r0, r1))


@inner
def narrow_output_delta(layer, batch, offset, r0, r1):
    """delta = scale * d(loss)/dz of rows r0 .. r1, which lie at that offset, and the loss in the place of
    z."""
    z, delta, y = layer.z + offset, layer.delta + offset, batch.y + r0 * batch.y_row
    rows, outputs, row = r1 - r0, layer.fan_out, layer.blocks.row
    call(layer.output.delta, (z, delta, y, batch.y_row, rows, outputs, row, batch.coefficients))


@inner
def softmax_of_rows(plan, batch, worker):
    """The worker's rows of the last layer's a = softmax(z)."""
    layer = top_layer(plan)
    r0, r1 = part_of(batch.rows, worker)
    here = r0 * layer.blocks.row
    call(layer.output.softmax, (layer.z + here, layer.a + here, r1 - r0, layer.fan_out, lie_of(layer)))
