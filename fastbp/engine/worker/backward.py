"""Backward: the deltas of the layer below.

    dz[l-1] = (delta[l] @ W[l].T) * act'(z[l-1])       (batch, fan_in)

act' is the ReLU's mask, the sigmoid's a (1 - a), ...: see kernels/activations.py. In a normalised layer one
more phase over whole rows leads from dz to delta; elsewhere they are the same.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import layer_at, plan_at
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.narrow_output import deltas, update_narrow
from fastbp.engine.worker.operands import (
    Block,
    Left,
    Size,
    across_input,
    across_output,
    batch_of,
    depth_of,
    from_zero,
    masked_by,
    matmul_along_k,
    matmul_along_rows,
    output_of,
    round_deltas,
)
from fastbp.engine.worker.partition import (
    Rectangle,
    Worker,
    are_apart,
    block_of,
    blocks_of,
    first_of_share,
    lie_of,
    part_of_rows,
    pieces_of,
    place_of,
    share_of_rows,
    side_by_side,
    stopped,
    whole_rows,
    width_for,
)
from fastbp.engine.worker.update import update


@inner
def backward(plan, layer, below, batch, worker):
    """The worker's part of below.dz = (layer.delta @ W.T) * act'(below.z)."""
    delta = deltas(plan, layer, worker)
    depth = depth_of(plan, layer.fan_out)
    at = first_of_share(below.panels, pieces_of(plan, batch.rows), worker)
    while True:
        r0, r1, p0, p1, at = share_of_rows(plan, below, batch.rows, worker, at)
        if p0 == p1:
            return
        blocks = blocks_of((r1 - r0) * depth * plan.itemsize, plan)
        for b in range(blocks):
            top, bottom = block_of(plan, r0, r1, b, blocks)
            p = p0
            while p < p1 and not stopped(plan):
                width = width_for(plan, bottom - top, side_by_side(below, p, p1))
                rectangle = Rectangle(top, bottom, p, width)
                product_with_transpose(plan, layer, delta, below, rectangle)
                activation_backward(plan, below, rectangle)
                if below.normalisation.forward == 0:
                    round_deltas(plan, below, rectangle)
                p += width


@inner
def product_with_transpose(plan, layer, delta, below, rectangle):
    """delta @ W.T into a rectangle of below.dz; where products apply the ReLU, times act'(z)."""
    top, p, row = rectangle.top, rectangle.panel, layer.blocks.row
    size = Size(rectangle.bottom - top, rectangle.width, layer.fan_out)
    here = place_of(plan, below, rectangle)
    c = Block(below.dz + here, plan.vector, below.blocks.row)
    start = masked_by(below.a + here) if below.in_products != 0 else from_zero()
    if layer.narrow:
        left = Left(delta + top * plan.itemsize, plan.itemsize, row, layer.fan_out, np.int64(0))
        right = Block(layer.W.address + p * layer.W.panel, layer.W.panel, plan.vector)
        matmul_along_rows(plan, size, left, right, c, start)
    elif plan.keeps_pairs:
        d, right = output_of(plan, layer), layer.WT_pairs
        size = Size(size.rows, size.vectors, depth_of(plan, layer.fan_out))
        left = Left(d.address + top * d.row, d.row, d.row, d.group, d.group_bytes)
        right = Block(right.address + p * right.panel, right.panel, plan.vector)
        matmul_along_k(plan, size, left, right, c, start)
    else:
        left = Left(delta + top * row, row, row, layer.blocks.group * plan.lanes, layer.blocks.group_bytes)
        right = Block(layer.WT.address + p * layer.WT.panel, layer.WT.panel, plan.vector)
        matmul_along_k(plan, size, left, right, c, start)


@inner
def activation_backward(plan, below, rectangle):
    """dz *= act'(z) in a rectangle; with dropout, 0 where a unit was dropped."""
    here = place_of(plan, below, rectangle)
    dz, z, a, row = below.dz + here, below.z + here, below.a + here, below.blocks.row
    rows, width = rectangle.bottom - rectangle.top, rectangle.width
    if below.activation.backward != 0:
        call(below.activation.backward, (dz, z, a, rows, width, row))
    elif below.dropout.backward != 0:
        call(below.dropout.backward, (dz, z, a, rows, width, row, below.dropout.stream))


@inner
def normalise_backward(plan, layer, batch, worker):
    """Where the layer is normalised, the worker's rows of its delta, from dz."""
    norm = layer.normalisation
    if norm.forward == 0:
        return
    r0, r1 = part_of_rows(plan, batch.rows, worker)
    here, panel = r0 * layer.blocks.row, layer.bias.panel
    dz, n, delta = layer.dz + here, norm.n + here, layer.delta + here
    inverse_std, shape = norm.inverse_std + r0 * plan.itemsize, (r1 - r0, layer.fan_out)
    call(norm.backward, (dz, n, inverse_std, delta, shape, lie_of(layer), norm.gain, panel))
    round_deltas(plan, layer, whole_rows(layer, r0, r1))
    barrier(plan, worker)


def run_backward(address, t, n, step):
    """From the last layer's deltas to all parameters' steps, with a barrier after each backward phase; behind
    the updates the caller needs one."""
    plan, worker = plan_at(address), Worker(t, n)
    batch = batch_of(plan, step, np.int64(1), worker)
    apart = are_apart(plan, worker)
    for i in range(plan.layers - 1, 0, -1):
        layer, below = layer_at(plan, i), layer_at(plan, i - 1)
        backward(plan, layer, below, batch, worker)
        if not apart:
            barrier(plan, worker)
        normalise_backward(plan, below, batch, worker)
        if layer.narrow:
            update_narrow(plan, batch, worker)
        else:
            update(plan, layer, across_output(plan, below), batch, worker)
    update(plan, layer_at(plan, np.int64(0)), across_input(plan, batch), batch, worker)
