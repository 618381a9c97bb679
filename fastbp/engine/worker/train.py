"""One worker's way through its tasks: everything between two entries of Python.

A network is trained by a team of workers that share memory; between phases stands a barrier.

    forward, layer 1 .. L    a[l] = act(a[l-1] @ W[l] + b[l]);  at L also delta[L] and the loss
    backward, layer L .. 2   dz[l-1] = (delta[l] @ W[l].T) * act'(z[l-1])
    update, layer L .. 1     W[l] += a[l-1].T @ delta[l]  (plain SGD: delta carries -lr),
                             or the optimizer's rule on that product
    and only if asked for    clip_norm: the norm of all gradients, then the optimizer;
                             max_norm: the norms of the columns of W[l]

Who computes an element does not change its value: every element is one chain of multiply-adds (see
matmul.py), elementwise work has no order, and sums over the batch are taken by whoever owns the column, in
the order of the rows.

The functions here are callbacks of their own, which call each other by address: a network compiles or loads
those that it needs, and none is linked into another one and optimised again.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import boolean, int64

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, load_number, peek, room
from fastbp.engine.compile.jit import inner
from fastbp.engine.structs import (
    BACKWARD,
    FINISH_UPDATE,
    FORWARD,
    OF_MANY_ROWS,
    PACK,
    TRAIN,
    UNPACK,
    UNPACK_STATES,
    layer_at,
    plan_at,
    top_layer,
)
from fastbp.engine.threads.barrier import arrive, barrier, wait
from fastbp.engine.worker.after_update import finish_update
from fastbp.engine.worker.backward import run_backward
from fastbp.engine.worker.exchange import begin_ahead, exchange_activations, exchange_parameters, gather_batch
from fastbp.engine.worker.forward import run_forward
from fastbp.engine.worker.operands import batch_of, round_panels, round_rows
from fastbp.engine.worker.output import output_delta_of_rows, output_delta_of_trace
from fastbp.engine.worker.partition import Worker, are_apart
from fastbp.engine.worker.patience import lose_patience
from fastbp.engine.worker.penalty import add_penalty, sum_weights


@inner
def sum_losses(plan, rows, out):
    """The loss of a step: the sum of what stands in the place of the last layer's z."""
    top = top_layer(plan)
    z, row, blocks = top.z, top.blocks.row, (rows + plan.lanes - 1) // plan.lanes
    if top.narrow == OF_MANY_ROWS:
        call(plan.kernels.total, (z, top.fan_out, blocks, blocks, row, 0, out))
    else:
        call(plan.kernels.total, (z, rows, top.panels, top.blocks.group, row, top.blocks.group_bytes, out))


def train(address, t, n):
    """The steps first_step <= s < last_step, or those before `ending.step`."""
    plan, worker, phases = plan_at(address), Worker(t, n), plan_at(address).phases
    first, last = plan.first_step, plan.last_step
    gathering, own = plan.gathered_x.address != 0, plan.own_batches != 0
    finishing = plan.clipping.limit != 0 or plan.max_norm.limit != 0
    patient = plan.ending.patience != 0
    meeting = n > 1 and (not are_apart(plan, worker) or (gathering and not own) or finishing)
    if gathering and first < last:
        call(phases.gather_batch, (address, t, n, first))
        if not own:
            barrier(plan, worker)
    for step in range(first, last):
        gathers_next = gathering and step + 1 < last
        if gathers_next and plan.ahead != 0:
            begin_ahead(plan, worker, step + 1)
        if phases.sum_weights != 0:
            call(phases.sum_weights, (address, t, n, step))
        call(phases.run_forward, (address, t, n, step, 1))
        if t == 0:
            rows = min(plan.batch, plan.samples - step % plan.steps_per_epoch * plan.batch)
            sum_losses(plan, rows, plan.losses + (step - first) * 8)
            if phases.sum_weights != 0:
                add_penalty(plan, step, plan.losses + (step - first) * 8)
            if patient:
                call(phases.lose_patience, (address, step, plan.losses + (step - first) * 8))
        call(phases.run_backward, (address, t, n, step))
        if gathers_next and not own:  # what was not gathered on the way
            call(phases.gather_batch, (address, t, n, step + 1))
        generation = arrive(plan, worker) if meeting else 0
        if gathers_next and own:  # while others are still at this one
            call(phases.gather_batch, (address, t, n, step + 1))
        if meeting:
            wait(plan, worker, generation)
        if finishing:
            call(phases.finish_update, (address, t, n, step))
        if patient and (step + 1) % plan.steps_per_epoch == 0:
            if not meeting:
                barrier(plan, worker)
            if plan.ending.step != 0:
                break
    barrier(plan, worker)


def evaluate(address, t, n):
    """Forward, a batch at a time, and z and a to the caller's arrays."""
    plan, worker = plan_at(address), Worker(t, n)
    for start in range(0, plan.samples, plan.batch):
        step = start // plan.batch
        if plan.gathered_x.address != 0:  # there is room for a single batch, and no Y
            call(plan.phases.gather_batch, (address, t, n, step))
            barrier(plan, worker)
        call(plan.phases.run_forward, (address, t, n, step, 0))
        rows = min(plan.batch, plan.samples - start)
        for i in range(plan.layers):
            exchange_activations(plan, layer_at(plan, i), worker, start, rows, np.int64(0))
        barrier(plan, worker)


def gradients(address, t, n):
    """Backward from z and a that the caller brings, in a single batch."""
    plan, worker, first = plan_at(address), Worker(t, n), np.int64(0)
    batch, top = batch_of(plan, first, np.int64(1), worker), top_layer(plan)
    if plan.gathered_x.address != 0:
        call(plan.phases.gather_batch, (address, t, n, 0))
    for i in range(plan.layers):
        exchange_activations(plan, layer_at(plan, i), worker, first, batch.rows, np.int64(1))
    # (Of the last layer each worker has copied these rows himself.)
    if top.output.delta_of_rows != 0:
        output_delta_of_rows(plan, batch, worker)
    else:
        output_delta_of_trace(plan, top, batch, worker)
    barrier(plan, worker)
    call(plan.phases.run_backward, (address, t, n, 0))
    barrier(plan, worker)


def work(t, n, address):
    """What worker t of n does: the tasks of the plan, in this order."""
    plan = plan_at(address)
    task, phases = plan.task, plan.phases
    if task & PACK:
        call(phases.exchange_parameters, (address, t, n, 0, 1))
        if task & TRAIN:
            for k in range(1, plan.states + 1):
                call(phases.exchange_parameters, (address, t, n, k, 1))
        barrier(plan, Worker(t, n))
    if task & TRAIN:
        call(phases.train, (address, t, n))
    if task & FORWARD:
        call(phases.evaluate, (address, t, n))
    if task & BACKWARD:
        call(phases.gradients, (address, t, n))
    if task & FINISH_UPDATE:
        call(phases.finish_update, (address, t, n, plan.first_step))
    if task & UNPACK:
        call(phases.exchange_parameters, (address, t, n, 0, 0))
    if task & UNPACK_STATES:
        for k in range(1, plan.states + 1):
            call(phases.exchange_parameters, (address, t, n, k, 0))


# The plan has their addresses under these names (structs.Phases). The last one is what threads enter.
CALLBACKS: dict[str, Any] = {
    "run_forward": run_forward,
    "run_backward": run_backward,
    "gather_batch": gather_batch,
    "finish_update": finish_update,
    "exchange_parameters": exchange_parameters,
    "sum_weights": sum_weights,
    "train": train,
    "evaluate": evaluate,
    "gradients": gradients,
    "lose_patience": lose_patience,
    "round_rows": round_rows,
    "round_panels": round_panels,
    "work": work,
}
# Those that each use of a plan calls, whatever its network.
CALLED = {
    "train": ("exchange_parameters", "run_forward", "run_backward", "train"),
    "predict": ("exchange_parameters", "run_forward", "evaluate"),
    "trace": ("exchange_parameters", "run_forward", "run_backward", "evaluate", "gradients"),
}


def address_of(name: str) -> int:
    """The callback of that name, compiled."""
    function = CALLBACKS[name]
    return jit.address_of(name, jit.void(function.__code__.co_argcount), lambda: function, driver=True)


# What `alone` is told once for all runs, as integers: the addresses of the plan, of its worker and of
# not_finite, where packed parameters lie, and how many they are.
PLAN, WORK, FINITE, PACKED, SIZE = range(5)


def _train_alone(known, task, first, last, coefficients, losses, check):
    address, work = peek(known, PLAN), peek(known, WORK)
    plan = plan_at(address)
    plan.task, plan.first_step, plan.last_step = task, first, last
    plan.coefficients, plan.losses = coefficients, losses
    call(work, (0, 1, address))
    if check:
        total = 0.0
        for step in range(last - first):
            total += load_number(losses + step * 8, np.float64(0))
        bad = room()
        call(peek(known, FINITE), (peek(known, PACKED), peek(known, SIZE), bad))
        if peek(bad, 0) != 0 or not abs(total) < np.inf:
            return False
    plan.task = UNPACK + UNPACK_STATES
    call(work, (0, 1, address))
    return True


@cache
def alone() -> Any:
    """(known, task, first step, last step, coefficients of the first one, losses, check): the task by one
    worker, then parameters and states to the caller's arrays, in one entry, for runs so short that each
    further one would be felt. With `check` only if parameters and the sum of losses are finite; whether it
    was done."""
    return jit.dispatcher(_train_alone, (*[int64] * 6, boolean))
