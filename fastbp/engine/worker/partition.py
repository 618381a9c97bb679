"""Who computes what: all work is cut by position.

A matrix is a sequence of panels, each one vector wide, and a panel is a sequence of rows; worker t of n takes
the t-th n-th of all panels' rows. So whoever computes columns of an activation also owns those columns of the
weights, and they stay in its cache.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastbp.engine.compile.intrinsics import observe
from fastbp.engine.compile.jit import inner
from fastbp.engine.kernels.bfloat16.amx import HEIGHT
from fastbp.engine.structs import MOST_VECTORS, PACK, PAIRED_ROWS, layer_at

# Rows that a worker has at least where a forward pass is cut by rows.
ROWS_OF_A_WORKER = 16


class Worker(NamedTuple):
    """Worker t of n."""

    t: int
    n: int


class Rectangle(NamedTuple):
    """Rows top <= r < bottom of `width` panels that lie side by side, from `panel` on."""

    top: int
    bottom: int
    panel: int
    width: int


@inner
def part_of(count, worker):
    """The worker's part of so many things: the first one, and the one after the last."""
    if worker.n == 1:  # (divisions, here and below, would be a tenth of a small step)
        return 0, count
    return count * worker.t // worker.n, count * (worker.t + 1) // worker.n


@inner
def part_in_pieces(count, piece, worker):
    """The same, cut nowhere but between whole pieces of so many."""
    first, last = part_of((count + piece - 1) // piece, worker)
    return min(first * piece, count), min(last * piece, count)


@inner
def part_of_rows(plan, rows, worker):
    """The worker's part of the rows of a batch."""
    if plan.keeps_pairs == 0:
        return part_of(rows, worker)
    return part_in_pieces(rows, plan.keeps_pairs, worker)


@inner
def pieces_of(plan, rows):
    """Into how many pieces rows of a batch can be cut at most."""
    if plan.keeps_pairs == 0:
        return rows
    return (rows + plan.keeps_pairs - 1) // plan.keeps_pairs


@inner
def first_of_share(panels, rows, worker):
    """The first position of the worker's part of `panels` x `rows`."""
    return 0 if worker.t == 0 else panels * rows * worker.t // worker.n


@inner
def share(panels, rows, group, worker, at):
    """The next piece of the worker's part of `panels` x `rows`, from position `at` on: first row, row after
    the last, first panel, panel after the last, next position. There is none if the first panel is the one
    after the last.

    Pairs of panels that lie side by side (group: 2) stay together, and a pair that two workers share is cut
    by rows: for one panel alone the microkernel is less than half as wide, and a row of a pair may be a
    single cache line."""
    if worker.n == 1:
        return (0, rows, 0, panels, panels * rows) if at == 0 else (0, 0, 0, 0, at)
    end = panels * rows * (worker.t + 1) // worker.n
    if at >= end:
        return 0, 0, 0, 0, at
    together = 2 if group == 2 else 1
    p = at // (together * rows) * together
    width = min(together, panels - p)
    r0 = (at - p * rows) // width
    if r0 == 0 and end - p * rows >= width * rows:
        p1 = panels if end == panels * rows else end // (together * rows) * together
        return 0, rows, p, p1, p1 * rows
    r1 = min(rows, (end - p * rows) // width)
    if r0 == r1:
        return 0, 0, 0, 0, end
    return r0, r1, p, p + width, (p + width) * rows


@inner
def share_of_layer(plan, layer, rows, worker, at):
    """The same of a layer's panels x `rows` of whatever it may be. Panels whose parts are a worker's are
    his whole."""
    if layer.part == 0 or not owns_partial_sums(plan, worker):
        return share(layer.panels, rows, layer.blocks.group, worker, at)
    p0, p1 = own_panels(plan, layer, worker)
    end = layer.panels * rows * (worker.t + 1) // worker.n
    return (0, rows, p0, p1, end) if at < end else (0, 0, 0, 0, at)


@inner
def share_of_rows(plan, layer, rows, worker, at):
    """The same of a layer's panels x rows of a batch, where positions are counted in what stays together if
    pairs are kept."""
    if plan.keeps_pairs == 0:
        return share_of_layer(plan, layer, rows, worker, at)
    r0, r1, p0, p1, at = share(layer.panels, pieces_of(plan, rows), layer.blocks.group, worker, at)
    return r0 * plan.keeps_pairs, min(rows, r1 * plan.keeps_pairs), p0, p1, at


@inner
def shares_rows(plan, batch, worker):
    """Whether a forward pass is cut by rows of the batch, so that workers need nothing of each other: where
    it is no training, in which a column of the weights has one owner, nor normalised, where rows are many,
    where each worker's cache has room for all weights, and others have not just copied half of them."""
    first = layer_at(plan, np.int64(0))
    if worker.n == 1 or batch.number != 0 or first.normalisation.forward != 0:
        return False
    if plan.task & PACK and first.in_place == 0:
        return False
    return batch.rows >= ROWS_OF_A_WORKER * worker.n and plan.state <= 2 * plan.block


@inner
def rows_of(plan, batch, worker):
    """The rows of a batch that are the worker's and his team's, the first one and how many, and which worker
    of that team he is."""
    if shares_rows(plan, batch, worker):
        r0, r1 = part_of(batch.rows, worker)
        return r0, r1 - r0, Worker(np.int64(0), np.int64(1))
    return np.int64(0), batch.rows, worker


@inner
def blocks_of(size, plan):
    """In how many blocks a matrix of so many bytes is taken, each of which stays in the second-level
    cache."""
    return 1 if size < plan.block else 1 + size // plan.block


@inner
def block_of(plan, r0, r1, b, blocks):
    """Block b of so many of the rows r0 .. r1: the first row, and the one after the last."""
    if blocks == 1:
        return r0, r1
    top, bottom = (r1 - r0) * b // blocks, (r1 - r0) * (b + 1) // blocks
    if plan.keeps_pairs:
        top, bottom = top & -plan.keeps_pairs, bottom if b == blocks - 1 else bottom & -plan.keeps_pairs
    return r0 + top, r0 + bottom


@inner
def own_panels(plan, layer, worker):
    """The panels of W that are the worker's where panels are owned whole."""
    panels = layer.in_panels if layer.narrow else layer.panels
    if layer.part == 0 or not owns_partial_sums(plan, worker):
        return part_of(panels, worker)
    q0, q1 = part_of(plan.parts.count, worker)
    return q0 * layer.part, min(panels, q1 * layer.part)


@inner
def owns_partial_sums(plan, worker):
    """Whether each worker has, of a narrow output layer and the layer below, whole parts to itself (see
    narrow_output.py)."""
    return worker.n > 1 and plan.parts.owned % worker.n == 0


@inner
def are_apart(plan, worker):
    """Whether workers need nothing of each other in a step, but those sums."""
    return owns_partial_sums(plan, worker) and plan.layers == 2


@inner
def stopped(plan):
    """Whether somebody wants the work to end: its results are void then."""
    return observe(plan.stop) != 0


# ---- how the microkernel likes it ----------------------------------------------------------------------


@inner
def tallest(plan, width):
    """The height of the tallest microkernel of that width; the same table as matmul.shapes()."""
    if plan.tiles:
        return HEIGHT
    if plan.rounds:
        return PAIRED_ROWS
    if plan.many_registers:
        return 16 if width == 1 else 14 if width == 2 else 7 if width == 4 else 3 if width == 8 else 1
    return 8 if width == 1 else 6 if width == 2 else 3


@inner
def width_for(plan, rows, panels):
    """How many panels the microkernel takes at once: more where rows are few."""
    if plan.tiles:
        return min(2, panels)
    if plan.rounds:
        return min(MOST_VECTORS, panels)
    if plan.many_registers and (rows == 1 or (rows <= 3 and panels >= 8)):
        return min(8, panels)
    if panels >= 4 and rows <= tallest(plan, 4):
        return 4
    return 2 if panels >= 2 else 1


# ---- where things lie ----------------------------------------------------------------------------------


@inner
def panel_at(plan, layer, p):
    """Where panel p begins in z, a and the deltas of a layer."""
    return panel_in(plan, layer.blocks, p)


@inner
def panel_in(plan, blocks, p):
    """Where panel p begins in such blocks."""
    if p == 0:
        return 0
    return p // blocks.group * blocks.group_bytes + p % blocks.group * plan.vector


@inner
def side_by_side(layer, p, p1):
    """How many panels from p on, below p1, lie in p's group."""
    group = layer.blocks.group
    if p == 0:
        return min(p1, group)
    return min(p1, p // group * group + group) - p


@inner
def whole_rows(layer, r0, r1):
    """Rows of a layer, all panels of them."""
    return Rectangle(r0, r1, np.int64(0), layer.panels)


@inner
def lie_of(layer):
    """How z, a and the deltas of a layer lie, as kernels that go along whole rows take it."""
    return layer.blocks.row, layer.blocks.group, layer.blocks.group_bytes


@inner
def place_of(plan, layer, rectangle):
    """Where the rectangle begins in z, a and the deltas of a layer."""
    return panel_at(plan, layer, rectangle.panel) + rectangle.top * layer.blocks.row


@inner
def columns_of(plan, layer, rectangle):
    """How many columns the rectangle has that are not there to fill up vectors."""
    return min(layer.fan_out - rectangle.panel * plan.lanes, rectangle.width * plan.lanes)
