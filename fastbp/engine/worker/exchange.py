"""In and out: between the caller's arrays, in C order, and the panels and blocks that the engine works on."""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call, peek
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, struct, view_of
from fastbp.engine.structs import REPLACED, SLOT_BYTES, caller_parameters, layer_at, plan_at
from fastbp.engine.worker.operands import gathered_at, renew_copies
from fastbp.engine.worker.partition import Worker, panel_at, part_of, side_by_side


def exchange_parameters(address, t, n, k, inward):
    """Copy the parameters (k = 0) or the k-th state of each between the caller's arrays and the panels."""
    plan, worker = plan_at(address), Worker(t, n)
    slot = k + 1 if k > 0 and plan.clipping.limit != 0 else k
    state = slot * plan.state
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        if layer.narrow:
            exchange_narrow(plan, layer, caller_parameters(layer, k), state, inward, worker)
            continue
        if layer.direct == REPLACED and layer.in_place != 0 and inward and k == 0:
            # Of W the transpose alone is wanted: each worker's part of what he will read.
            k0, k1 = part_of(layer.in_panels, worker)
            renew_copies(plan, layer, k0, k1, np.int64(0), layer.panels)
            continue
        p0, p1 = part_of(layer.panels, worker)
        if p0 == p1:
            continue
        exchange_panels(plan, layer, caller_parameters(layer, k), state, inward, p0, p1)
        if inward and k == 0:
            renew_copies(plan, layer, np.int64(0), layer.in_panels, p0, p1)


@inner
def exchange_narrow(plan, layer, caller, state, inward, worker):
    """The worker's part of a narrow output layer's parameters; `state` bytes behind them lies what is
    meant."""
    W, row = layer.W, layer.fan_out * plan.itemsize
    p0, p1 = part_of(layer.in_panels, worker)
    rows = min(layer.fan_in, p1 * plan.lanes) - p0 * plan.lanes
    copy_columns = plan.kernels.copy_columns_in if inward else plan.kernels.copy_columns_out
    outside, inside = (caller.W + p0 * plan.lanes * row, row), (W.address + state + p0 * W.panel, W.panel)
    call(copy_columns, (outside, inside, rows, layer.fan_out))
    if worker.t == 0:
        copy = plan.kernels.copy_in if inward else plan.kernels.copy_out
        call(copy, (caller.b, 0, layer.bias.address + state, 0, plan.vector, 1, layer.fan_out))


@inner
def exchange_panels(plan, layer, caller, state, inward, p0, p1):
    """Panels p0 .. p1 of a layer's parameters, where the caller has given such arrays."""
    copy = plan.kernels.copy_in if inward else plan.kernels.copy_out
    W, bias, vector = layer.W, layer.bias, plan.vector
    columns = min(layer.fan_out - p0 * plan.lanes, (p1 - p0) * plan.lanes)
    if caller.W != 0 and layer.in_place == 0:
        outside = (caller.W + p0 * vector, layer.fan_out * plan.itemsize)
        inside = (W.address + state + p0 * W.panel, vector, W.panel)
        call(copy, (outside, inside, layer.fan_in, columns))
    if caller.b != 0:
        inside = (bias.address + state + p0 * bias.panel, 0, bias.panel)
        call(copy, (caller.b + p0 * vector, 0, inside, 1, columns))
    if layer.normalisation.forward != 0:
        gain = layer.normalisation.gain + state + p0 * bias.panel
        call(copy, (caller.g + p0 * vector, 0, gain, 0, bias.panel, 1, columns))


@inner
def exchange_activations(plan, layer, worker, first, rows, inward):
    """Copy z, a, n and inverse_std of a layer, for `rows` rows, from or to rows `first` .. of the caller's
    arrays, where there are any."""
    copy = plan.kernels.copy_in if inward else plan.kernels.copy_out
    caller, norm, row, vector = layer.caller, layer.normalisation, layer.blocks.row, plan.vector
    caller_row = layer.fan_out * plan.itemsize
    r0, r1 = part_of(rows, worker)
    p = 0
    while p < layer.panels:
        width = side_by_side(layer, p, layer.panels)
        here, there = panel_at(plan, layer, p) + r0 * row, (first + r0) * caller_row + p * vector
        columns = min(layer.fan_out - p * plan.lanes, width * plan.lanes)
        if caller.z != 0:
            call(copy, (caller.z + there, caller_row, layer.z + here, row, vector, r1 - r0, columns))
        if caller.a != 0:
            call(copy, (caller.a + there, caller_row, layer.a + here, row, vector, r1 - r0, columns))
        if caller.n != 0:
            call(copy, (caller.n + there, caller_row, norm.n + here, row, vector, r1 - r0, columns))
        p += width
    if caller.inverse_std != 0 and worker.t == 0:  # whole vectors are written: not a part for each worker
        call(copy, (caller.inverse_std + first * plan.itemsize, 0, norm.inverse_std, 0, vector, 1, rows))


@inner
def _gather(plan, source, order, rows, target, columns):
    """Rows (first, how many) of an order, or of the data if that is 0, to the target (address, row)."""
    first, count = rows
    if source.read == 0:
        call(plan.kernels.gather, (order, rows, source.address, source.row, target, columns))
        return
    here, row = target
    for r in range(count):
        i = first + r if order == 0 else peek(order, first + r)
        place = source.address + i * source.row, source.column, here + r * row
        call(source.read, (place, columns, source.scale, source.offset))


@inner
def part_of_batch(plan, worker, step):
    """The worker's rows r0 .. r1 of a batch, where it begins in its epoch, and that epoch's order, if any."""
    epoch = step // plan.steps_per_epoch
    start = (step - epoch * plan.steps_per_epoch) * plan.batch
    r0, r1 = np.int64(0), min(plan.batch, plan.samples - start)
    if not plan.own_batches:
        r0, r1 = part_of(r1, worker)
    order = plan.order
    if order != 0:
        order += epoch * plan.samples * 8
    return r0, r1, start, order


def gather_batch(address, t, n, step):
    """Copy the worker's share of a batch, as floats, to where its rows are consecutive; two batches
    alternate."""
    plan, worker = plan_at(address), Worker(t, n)
    r0, r1, start, order = part_of_batch(plan, worker, step)
    x, y = plan.x, plan.y
    to_x = gathered_at(plan, plan.gathered_x, step, worker)
    to_y = gathered_at(plan, plan.gathered_y, step, worker)
    fan_in = layer_at(plan, np.int64(0)).fan_in
    rows, first = (start + r0, r1 - r0), r0 + end_ahead(plan, worker)
    of_x = start + first, r1 - first
    _gather(plan, x, order, of_x, (to_x + first * plan.gathered_x.row, plan.gathered_x.row), fan_in)
    _gather(plan, y, order, rows, (to_y + r0 * plan.gathered_y.row, plan.gathered_y.row), plan.y_columns)
    if plan.noise != 0:
        number = plan.steps_before + step + 1
        call(plan.noise, (to_x, plan.gathered_x.row, r0, r1, fan_in, plan.noise_stream, number))


# ---- on the way of products ------------------------------------------------------------------------------


@struct
class Ahead(Struct):
    """What a worker gathers of the next batch of X while it multiplies for this one: row by row, in pieces of
    equal size, the last of which ends with the row. A copy by itself would wait for memory."""

    vectors: int  # of a piece
    in_row: int  # pieces of a row
    pieces: int  # of all of the worker's rows of the batch; 0: there is none
    done: int  # so many of them
    first: int  # the first row, in the order
    order: int  # or 0
    to: int  # where the first row goes


_ahead_at = view_of(Ahead)


@inner
def ahead_of(plan, worker):
    return _ahead_at(plan.ahead + worker.t * SLOT_BYTES)


@inner
def begin_ahead(plan, worker, step):
    """From now on pieces are those of the worker's rows of this step's batch."""
    ahead = ahead_of(plan, worker)
    r0, r1, start, order = part_of_batch(plan, worker, step)
    ahead.pieces, ahead.done = (r1 - r0) * ahead.in_row, 0
    ahead.first, ahead.order = start + r0, order
    ahead.to = gathered_at(plan, plan.gathered_x, step, worker) + r0 * plan.gathered_x.row


@inner
def end_ahead(plan, worker):
    """How many rows are whole; there are no more pieces."""
    if plan.ahead == 0:
        return 0
    ahead = ahead_of(plan, worker)
    rows = ahead.done // ahead.in_row
    ahead.pieces = ahead.done = 0
    return rows


@inner
def next_piece(plan, worker, most):
    """What is to be copied next, of at most so many vectors: from where, to where, how many vectors, and from
    where after that."""
    zero = np.int64(0)
    if plan.ahead == 0:
        return zero, zero, zero, zero
    ahead = ahead_of(plan, worker)
    piece = ahead.done
    if piece >= ahead.pieces or most < ahead.vectors:
        return zero, zero, zero, zero
    ahead.done = piece + 1
    there, here = place_of_piece(plan, ahead, piece)
    following, _ = place_of_piece(plan, ahead, min(piece + 1, ahead.pieces - 1))
    return there, here, ahead.vectors, following


@inner
def place_of_piece(plan, ahead, piece):
    """Where it is, and where it goes."""
    row = piece // ahead.in_row
    size, of_row = ahead.vectors * plan.vector, layer_at(plan, np.int64(0)).fan_in * plan.itemsize
    offset = min((piece - row * ahead.in_row) * size, of_row - size)
    i = ahead.first + row
    if ahead.order != 0:
        i = peek(ahead.order, i)
    return plan.x.address + i * plan.x.row + offset, ahead.to + row * plan.gathered_x.row + offset
