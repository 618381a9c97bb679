"""A last layer of few outputs, in training: it lies the other way round, since otherwise most lanes would be
idle.

    W[L]        [fan_in / V] panels of [fan_out][V]
    b[L]        (fan_out,)
    z, delta    [fan_out][batch rounded up to V]

The forward pass takes dot products, backward and update are products as elsewhere, and no transposed copy is
needed. Whoever owns columns of a[L-1] owns those rows of W[L], too. For a batch of one row z and delta lie
with fan_out along the lanes, as in other layers.

Where fan_in is several panels, the dot products are sums of a few parts of it. Workers that own whole parts
meet once over such a layer: each takes the dot products of its own columns, and after the barrier all add
up the parts and take the deltas, each for itself. In a network of one hidden layer nobody needs more of
another worker, so that is the only barrier of a step.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import OF_ONE_ROW, layer_at, top_layer
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.operands import (
    Block,
    Left,
    Size,
    apply_rule,
    from_itself,
    from_zero,
    matmul_along_k,
    of_biases,
    scratch_of,
)
from fastbp.engine.worker.output import narrow_output_delta, output_delta
from fastbp.engine.worker.partition import (
    Rectangle,
    own_panels,
    owns_partial_sums,
    panel_at,
    part_of,
    side_by_side,
    width_for,
)


@inner
def forward_narrow(plan, x, batch, worker):
    """The worker's part of z, delta and the loss, for blocks of as many rows as a vector has lanes; a few
    rows are one worker's, one by one. Where it owns partial sums, z, delta and the loss are the worker's
    own."""
    layer, below = top_layer(plan), layer_at(plan, plan.layers - 2)
    if plan.kernels.dots_of_rows != 0:
        if worker.t == 0:
            forward_of_few_rows(plan, layer, x, batch)
        return
    parts, lanes = plan.parts, plan.lanes
    blocks = (batch.rows + lanes - 1) // lanes
    lo, hi = part_of(blocks, worker)
    q0, q1, own = 0, parts.count, 0
    if owns_partial_sums(plan, worker):
        lo, hi, own = 0, blocks, worker.t * parts.own
        q0, q1 = part_of(parts.count, worker)
    elif lo == hi:
        return
    offset = own + lo * plan.vector
    sums, part = layer.z + offset, 0
    if parts.count > 1:
        part = parts.part
        sums = parts.address + (batch.number & 1) * parts.count * part + lo * plan.vector
    for q in range(q0, q1):
        p0, p1 = part_of_dots(plan, layer, q)
        a, group = x.address + panel_at(plan, below, p0) + lo * lanes * x.row, below.blocks.group
        start = layer.bias.address if q == 0 else parts.zeros
        inputs = (a, x.row, group, side_by_side(below, p0, p0 + group), x.group_bytes, p1 - p0)
        weights = (layer.W.address + p0 * layer.W.panel, layer.W.panel, layer.fan_out)
        call(plan.kernels.dots, (inputs, weights, start, sums + q * part, layer.blocks.row, hi - lo))
    if owns_partial_sums(plan, worker):
        barrier(plan, worker)
    if parts.count > 1:
        z, row = layer.z + offset, layer.blocks.row
        call(plan.kernels.add_parts, (sums, part, parts.count, z, layer.fan_out, row, hi - lo))
    narrow_output_delta(layer, batch, offset, lo * lanes, min(batch.rows, hi * lanes))


@inner
def part_of_dots(plan, layer, q):
    """The panels of part q."""
    if plan.parts.count == 1:
        return 0, layer.in_panels
    return q * layer.part, min(layer.in_panels, (q + 1) * layer.part)


@inner
def forward_of_few_rows(plan, layer, x, batch):
    """All of a few rows."""
    z, W, row, outputs = layer.z, layer.W, layer.blocks.row, layer.fan_out
    inputs, weights = (x.address, x.row, batch.rows, layer.in_panels), (W.address, W.panel, outputs)
    call(plan.kernels.dots_of_rows, (inputs, weights, layer.bias.address, z, row))
    if layer.narrow == OF_ONE_ROW:
        output_delta(plan, layer, batch, Rectangle(np.int64(0), batch.rows, np.int64(0), layer.panels))
    else:
        narrow_output_delta(layer, batch, np.int64(0), np.int64(0), batch.rows)


@inner
def deltas(plan, layer, worker):
    """Where the worker finds the deltas of a layer."""
    own = layer.narrow and owns_partial_sums(plan, worker)
    return layer.delta + worker.t * plan.parts.own if own else layer.delta


@inner
def update_narrow(plan, batch, worker):
    """W += delta x a, the worker's panels; the biases are that worker's who adds them in the forward pass, or
    else the last one's."""
    layer, below = top_layer(plan), layer_at(plan, plan.layers - 2)
    W, row, outputs, scratch = layer.W, layer.blocks.row, layer.fan_out, scratch_of(plan, worker)
    delta = deltas(plan, layer, worker)
    p, p1 = own_panels(plan, layer, worker)
    while p < p1:
        width = width_for(plan, outputs, side_by_side(below, p, p1))
        size = Size(outputs, width, batch.rows)
        left = Left(delta, row, row, batch.rows, np.int64(0))
        a = Block(below.a + panel_at(plan, below, p), plan.vector, below.blocks.row)
        weights = Block(W.address + p * W.panel, W.panel, plan.vector)
        if layer.direct:
            matmul_along_k(plan, size, left, a, weights, from_itself())
        else:  # few outputs: all of them fit the worker's scratch memory
            gradient = Block(scratch, plan.vector, width * plan.vector)
            matmul_along_k(plan, size, left, a, gradient, from_zero())
            apply_rule(plan, gradient, weights, outputs, width, batch.coefficients)
        p += width
    if worker.t == (0 if owns_partial_sums(plan, worker) else worker.n - 1):
        sums = delta
        if layer.narrow != OF_ONE_ROW:
            sums = scratch
            vectors = (batch.rows + plan.lanes - 1) // plan.lanes
            call(plan.kernels.row_sums, (delta, outputs, vectors, row, sums))
        update_narrow_biases(plan, layer, sums, batch.coefficients)


@inner
def update_narrow_biases(plan, layer, sums, coefficients):
    """b takes the optimizer's step on the sums over the batch, which are adjacent like the biases
    themselves."""
    gradient = Block(sums, plan.vector, np.int64(0))
    biases = Block(layer.bias.address, plan.vector, np.int64(0))
    vectors = vectors_of_outputs(plan, layer)
    apply_rule(plan, gradient, biases, np.int64(1), vectors, of_biases(plan, coefficients))


@inner
def vectors_of_outputs(plan, layer):
    return (layer.fan_out + plan.lanes - 1) // plan.lanes
