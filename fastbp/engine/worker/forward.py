"""Forward: a[l] = act(a[l-1] @ W[l] + b[l]), and at the last layer in training also the deltas and the loss.

    z = x @ W + b                          (batch, fan_out)
    a = act(z)                             (batch, fan_out)
    delta = scale * d(loss)/dz             (batch, fan_out), last layer, in training

The loss of each element of the last layer stands where its z was.

In a normalised layer z is not the product plus the bias, but gain * normalised(product) + bias. That needs
whole rows: one more phase behind the product. So do softmax and the weights of samples in the last layer.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.kernels.matmul import FROM_ROW, RECTIFIED, ZERO
from fastbp.engine.structs import layer_at, plan_at, top_layer
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.narrow_output import forward_narrow
from fastbp.engine.worker.operands import (
    Block,
    Left,
    Size,
    Start,
    batch_of,
    depth_of,
    input_of,
    matmul_along_k,
    output_of,
    round_activations,
    round_deltas,
    round_inputs,
)
from fastbp.engine.worker.output import output_delta, output_delta_of_rows, softmax_of_rows
from fastbp.engine.worker.partition import (
    Rectangle,
    Worker,
    block_of,
    blocks_of,
    columns_of,
    first_of_share,
    lie_of,
    owns_partial_sums,
    part_of_rows,
    pieces_of,
    place_of,
    rows_of,
    share_of_rows,
    side_by_side,
    stopped,
    tallest,
    whole_rows,
    width_for,
)

# The targets of so many microkernels are asked for at a time.
PRODUCTS_A_PREFETCH = 2


@inner
def forward(plan, layer, x, batch, worker):
    """The worker's part of z = x @ W + b, and of a = act(z) or (training, last layer) of delta and the loss.
    Of a normalised layer it is the product alone."""
    takes_delta = batch.number != 0 and layer.output.delta != 0
    normalised = layer.normalisation.forward != 0
    first, rows, worker = rows_of(plan, batch, worker)
    depth = depth_of(plan, layer.fan_in)
    at = first_of_share(layer.panels, pieces_of(plan, rows), worker)
    while True:
        r0, r1, p0, p1, at = share_of_rows(plan, layer, rows, worker, at)
        if p0 == p1:
            return
        blocks = blocks_of((r1 - r0) * depth * plan.itemsize, plan)
        for b in range(blocks):
            top, bottom = block_of(plan, first + r0, first + r1, b, blocks)
            p = p0
            while p < p1 and not stopped(plan):
                width = width_for(plan, bottom - top, side_by_side(layer, p, p1))
                rectangle = Rectangle(top, bottom, p, width)
                if takes_delta:
                    if p == p0:
                        prefetch_targets(plan, layer, batch, rectangle)
                    product_and_targets(plan, layer, x, batch, rectangle, p1)
                    output_delta(plan, layer, batch, rectangle)
                    round_deltas(plan, layer, rectangle)
                else:
                    rectified = RECTIFIED if layer.in_products != 0 else FROM_ROW
                    product(plan, layer, x, rectangle, ZERO if normalised else rectified)
                    if not normalised:
                        activate(plan, layer, rectangle, batch.number)
                        round_activations(plan, layer, rectangle)
                p += width


@inner
def product(plan, layer, x, rectangle, start):
    """x @ W, from zero or from the bias, into a rectangle of z; rectified it is a."""
    W, bias, p = layer.W_pairs if plan.keeps_pairs else layer.W, layer.bias, rectangle.panel
    matmul_along_k(
        plan,
        Size(rectangle.bottom - rectangle.top, rectangle.width, depth_of(plan, layer.fan_in)),
        Left(x.address + rectangle.top * x.row, x.row, x.row, x.group, x.group_bytes),
        Block(W.address + p * W.panel, W.panel, W.row),
        Block(layer.z + place_of(plan, layer, rectangle), plan.vector, layer.blocks.row),
        Start(bias.address + p * bias.panel, bias.panel, start),
    )


@inner
def product_and_targets(plan, layer, x, batch, rectangle, p1):
    """`product` in the last layer. In between it asks for the targets of the panels to come, below p1: all at
    once would hold it up."""
    top, bottom, p, width = rectangle
    height = tallest(plan, width)
    products = (bottom - top + height - 1) // height
    pieces = (products + PRODUCTS_A_PREFETCH - 1) // PRODUCTS_A_PREFETCH
    r1 = top
    for k in range(1, pieces + 1):
        r0, r1 = r1, top + (bottom - top) * (products * k // pieces) // products
        if p + width < p1:
            following = p + width
            prefetch_targets(plan, layer, batch, Rectangle(r0, r1, following, min(width, p1 - following)))
        product(plan, layer, x, Rectangle(r0, r1, p, width), np.int64(FROM_ROW))


@inner
def prefetch_targets(plan, layer, batch, rectangle):
    """Ask for the targets of a rectangle: they may come from far away."""
    at = batch.y + rectangle.top * batch.y_row + rectangle.panel * plan.vector
    width = columns_of(plan, layer, rectangle) * plan.itemsize
    call(plan.kernels.prefetch, (at, batch.y_row, rectangle.bottom - rectangle.top, width))


@inner
def activate(plan, layer, rectangle, number):
    """a = act(z) in a rectangle, with dropout where the layer has it; number: of the training step."""
    here = place_of(plan, layer, rectangle)
    z, a, row, rows = layer.z + here, layer.a + here, layer.blocks.row, rectangle.bottom - rectangle.top
    columns = columns_of(plan, layer, rectangle)
    if layer.activation.forward != 0:
        call(layer.activation.forward, (z, a, rows, rectangle.width, row, columns))
    elif layer.dropout.forward != 0:
        first = (rectangle.top, rectangle.panel * plan.lanes)  # row and unit
        block = (z, a, rows, rectangle.width, row, columns)
        call(layer.dropout.forward, (block, layer.dropout.stream, first, number))


# ---- phases over whole rows ----------------------------------------------------------------------------


@inner
def normalise(plan, layer, batch, worker):
    """Where the layer is normalised, the worker's rows of its n, z and a, from the products."""
    norm, bias = layer.normalisation, layer.bias
    if norm.forward == 0:
        return
    r0, r1 = part_of_rows(plan, batch.rows, worker)
    here = r0 * layer.blocks.row
    z, n, inverse_std = layer.z + here, norm.n + here, norm.inverse_std + r0 * plan.itemsize
    shape, parameters = (r1 - r0, layer.fan_out), (norm.gain, bias.address, bias.panel)
    call(norm.forward, (z, n, inverse_std, shape, lie_of(layer), parameters))
    p = 0
    while p < layer.panels:
        width = side_by_side(layer, p, layer.panels)
        activate(plan, layer, Rectangle(r0, r1, p, width), batch.number)
        p += width
    round_activations(plan, layer, whole_rows(layer, r0, r1))
    barrier(plan, worker)


# ---- the whole -----------------------------------------------------------------------------------------


def run_forward(address, t, n, step, training):
    """All layers, with a barrier after each phase."""
    plan, worker = plan_at(address), Worker(t, n)
    batch, first = batch_of(plan, step, training, worker), layer_at(plan, np.int64(0))
    _, _, meeting = rows_of(plan, batch, worker)  # who they are that share a row
    # Behind the layer below a narrow output layer there is no barrier if workers own whole parts: there is
    # one within that layer.
    unmet = plan.layers - 2 if owns_partial_sums(plan, worker) else -1
    if plan.keeps_pairs:
        round_inputs(plan, batch, worker)
        barrier(plan, worker)
    forward(plan, first, input_of(plan, batch), batch, worker)
    if unmet != 0:
        barrier(plan, meeting)
    normalise(plan, first, batch, worker)
    for i in range(1, plan.layers):
        layer, below = layer_at(plan, i), layer_at(plan, i - 1)
        if layer.narrow:
            forward_narrow(plan, output_of(plan, below), batch, worker)
            if unmet < 0:
                barrier(plan, meeting)
            return
        forward(plan, layer, output_of(plan, below), batch, worker)
        if i != unmet:
            barrier(plan, meeting)
        normalise(plan, layer, batch, worker)
    output = top_layer(plan).output
    if training and output.delta_of_rows != 0:
        output_delta_of_rows(plan, batch, worker)
        barrier(plan, meeting)
    elif not training and output.softmax != 0:
        softmax_of_rows(plan, batch, worker)
        barrier(plan, meeting)
