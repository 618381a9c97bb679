"""After the update: what needs all of a gradient, or all of a column of the weights. Only where it was asked
for.

    clip_norm   g *= min(1, limit / ||g||), over the gradients of all parameters; then the optimizer's step
    max_norm    each column of W is scaled down to the limit of its norm

With clip_norm, the update has only kept the gradient. Parts of it, cut by the shape, are each summed by one
worker; every worker then adds up all parts. From here on panels are owned whole, however many workers there
are.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import layer_at, plan_at
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker.narrow_output import vectors_of_outputs
from fastbp.engine.worker.operands import batch_of, of_biases, renew_copies, scratch_of
from fastbp.engine.worker.partition import Worker, own_panels, part_of


@inner
def sum_squares(plan, worker):
    """The sum of squares of the gradient, for each of the worker's panels."""
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        out, W = plan.clipping.squares + 8 * layer.first_square, layer.W
        p0, p1 = own_panels(plan, layer, worker)
        vectors = layer.fan_out  # with bias and gain, except for a narrow layer's
        if not layer.narrow:
            vectors = layer.in_panels * plan.lanes + 1 + (layer.normalisation.forward != 0)
        for p in range(p0, p1):
            gradient = W.address + plan.state + p * W.panel
            call(plan.clipping.sum_squares, (gradient, vectors, out + 8 * p))
        if layer.narrow and worker.t == worker.n - 1:
            biases = layer.bias.address + plan.state
            out += 8 * layer.in_panels
            call(plan.clipping.sum_squares, (biases, vectors_of_outputs(plan, layer), out))


@inner
def update_by_clipped(plan, worker, coefficients):
    """The optimizer's step on whole panels, from the gradients kept there."""
    factor = scratch_of(plan, worker)
    clipping = plan.clipping
    call(clipping.factor, (clipping.squares, clipping.count, coefficients + clipping.limit, factor))
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        p0, p1 = own_panels(plan, layer, worker)
        for p in range(p0, p1):
            w = layer.W.address + p * layer.W.panel
            if layer.narrow:
                call(clipping.update, (w, plan.state, layer.fan_out, coefficients, factor))
            else:
                call(clipping.update, (w, plan.state, layer.fan_in, coefficients, factor))
                b = layer.bias.address + p * layer.bias.panel
                vectors = 1 if layer.normalisation.forward == 0 else 2  # the gain lies behind
                call(clipping.update, (b, plan.state, vectors, of_biases(plan, coefficients), factor))
        if layer.narrow and worker.t == worker.n - 1:
            vectors = vectors_of_outputs(plan, layer)
            biases = of_biases(plan, coefficients)
            call(clipping.update, (layer.bias.address, plan.state, vectors, biases, factor))


@inner
def limit_norms(plan, worker):
    """Scale the weights into each unit whose norm is above max_norm."""
    limit = plan.max_norm.limit
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        W = layer.W
        if layer.narrow:
            o0, o1 = part_of(layer.fan_out, worker)
            for o in range(o0, o1):
                weights = W.address + o * plan.vector
                call(plan.max_norm.constrain_across, (weights, layer.in_panels, W.panel, limit))
        else:
            p0, p1 = own_panels(plan, layer, worker)
            for p in range(p0, p1):
                call(plan.max_norm.constrain, (W.address + p * W.panel, layer.fan_in, plan.vector, limit))


def finish_update(address, t, n, step):
    plan, worker = plan_at(address), Worker(t, n)
    coefficients = batch_of(plan, step, np.int64(1), worker).coefficients
    clips = plan.clipping.limit != 0
    if clips:
        sum_squares(plan, worker)
        barrier(plan, worker)
        update_by_clipped(plan, worker, coefficients)
    if plan.max_norm.limit != 0:
        if clips:
            barrier(plan, worker)
        limit_norms(plan, worker)
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        p0, p1 = own_panels(plan, layer, worker)
        renew_copies(plan, layer, np.int64(0), layer.in_panels, p0, p1)
    barrier(plan, worker)
