"""The model's penalty on its weights: what it adds to the loss of a step. Only where it was asked for.

    loss += l2 / 2 * the sum of squared weights, as they are before the step

Its gradient, l2 * W, is the first thing that the optimizer's rule adds (kernels/optimizers.py). Each worker
takes the squares of panels that it owns: those it has written itself, or all others after a barrier. They are
added up, in the order of the panels, by whoever adds up the losses, behind a barrier of the forward pass.
"""

from __future__ import annotations

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import layer_at, plan_at
from fastbp.engine.worker.partition import Worker, own_panels


@inner
def squares_of(plan, step):
    """Where a step's sums of squares are: a worker may be in the next step while they are added up."""
    return plan.penalty.squares + (step & 1) * plan.penalty.count * 8


def sum_weights(address, t, n, step):
    """The sum of squares of the weights in each of the worker's panels, biases and gains left out."""
    plan, worker = plan_at(address), Worker(t, n)
    out = squares_of(plan, step)
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        p0, p1 = own_panels(plan, layer, worker)
        vectors = layer.fan_out if layer.narrow else layer.fan_in
        for p in range(p0, p1):
            call(plan.penalty.sum_squares, (layer.W.address + p * layer.W.panel, vectors, out + 8 * p))
        out += 8 * (layer.in_panels if layer.narrow else layer.panels)


@inner
def add_penalty(plan, step, loss):
    """Add it to the loss of the step, which is at that address."""
    penalty = plan.penalty
    call(penalty.add, (squares_of(plan, step), penalty.count, penalty.factor, loss))
