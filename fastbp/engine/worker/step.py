"""One worker's way through training steps: everything between two entries of Python.

A network is trained by a team of workers that share memory. All work is cut by position: a matrix is a sequence of panels, each one
vector wide, and a panel is a sequence of rows; worker t of n takes the t-th n-th of all panels' rows. So whoever computes columns of
an activation also owns those columns of the weights, and they stay in its cache. Between phases stands a barrier.

    forward, layer 1 .. L    a[l] = act(a[l-1] @ W[l] + b[l]);  at L also the error d[L] and the loss
    backward, layer L .. 2   d[l-1] = (d[l] @ W[l].T) * act'(z[l-1])
    update, layer L .. 1     W[l] += a[l-1].T @ d[l]  (plain SGD: d carries -lr), or the optimizer on each tile of that product
    and only if asked for    clip_norm: the norm of all gradients, then the optimizer; max_norm: the norms of the columns of W[l]

In a normalised layer z is not the product plus the bias, but g[l] * normalised(product) + b[l]. That needs whole rows: one more phase behind
the product, and on the way back another one that leads from dz[l] = (d[l+1] @ W[l+1].T) * act'(z[l]) to d[l]. Elsewhere dz is d.

Who computes an element does not change its value: every element is one chain of multiply-adds (see matmul.py), elementwise work has no
order, and sums over the batch are taken by whoever owns the column, in the order of the rows.

The matrices inside (V = lanes of a vector):

    W[l]         [fan_out / V] panels of [fan_in rounded up to V, then the bias, then perhaps the gain][V]
    WT[l]        [fan_in / V] panels of [fan_out rounded up to V][V]: the transpose, renewed after each update, for the backward pass
    z, a, d[l]   [fan_out / (chunk V)] chunks of [batch][chunk V]: a few panels side by side, so that the rows which a tile walks
                 through are adjacent in memory and no two workers write to neighbouring cache lines

A last layer of few outputs would leave most lanes idle; it lies the other way round, with the batch or fan_in along the lanes:

    W[L]         [fan_in / V] panels of [fan_out][V];  b[L] [fan_out];  z, d[L] [fan_out][batch rounded up to V]

Then the forward pass takes dot products (narrow_output.dots), no transposed copy is needed, and whoever owns columns of a[L-1] owns those
rows of W[L], too. For a batch of one row z and d lie with fan_out along the lanes, as in other layers.

Where fan_in is many panels, the dot products are sums of a few parts of it. Workers that own whole parts (`own_parts`) meet once over such a
layer: each takes the dot products of its own columns, and after the barrier all of them add up the parts and take the error, each for itself.
In a network of one hidden layer nobody needs more of another worker, so that is the only barrier of a step.

Numbers that the shape alone decides come in a table of 64-bit integers, made by plan.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call, cpu_pause, observe, peek, publish, yield_core
from fastbp.engine.compile.jit import inner
from fastbp.engine.kernels.matmul import FROM_C, FROM_ROW, ZERO

HEADER = (
    "task",                 # what to do: the sum of the constants below
    "layers", "lanes", "vector", "itemsize", "many_registers",
    # addresses of compiled callbacks (kernels)
    "tile_along_k", "tile_along_rows", "total", "copy_in", "copy_out", "copy_sliver", "column_sums", "add_products", "transpose", "gather", "update",
    "touch", "dots", "dots_of_rows", "add_parts", "row_sums", "columns_in", "columns_out",
    "squares", "clip_factor", "update_of_clipped", "constrain", "constrain_across",
    # the callbacks of this file (CALLBACKS), or 0 where a plan does without
    "run_forward", "run_backward", "gather_batch", "finish_update", "exchange_parameters", "train", "evaluate", "gradients",
    "states", "state",      # arrays that the optimizer keeps; bytes from a parameter to its first state, and to the next
    "clip",                 # 0, or bytes from a step's settings to clip_norm: then the gradient is kept, in front of the states
    "norms", "norm_count",  # sums of squares of parts of the gradient
    "max_norm",             # 0, or the address of the limit that the norm of a unit's incoming weights has
    "depth",                # so many rows of a batch are added to the weights in one sweep over them
    "block",                # bytes of activations that stay in the second-level cache during a sweep over weights
    "sliver_rows",          # rows of a batch from which slivers are worth their copies
    "team", "scratch", "sliver", "sliver_row", "sliver_bytes",     # memory: the team's flags; per worker a tile and a packed sliver
    "x", "x_row", "y", "y_row", "y_columns", "samples", "batch", "steps_per_epoch",
    # where rows are converted as they are gathered (reading.py): callbacks, or 0; bytes between columns; factors and summands of x
    "read_x", "x_column", "x_scale", "x_offset", "read_y", "y_column",
    "order",                # 0, or the address of the rows' order, one permutation for each epoch
    "gathered_x", "gathered_x_row", "gathered_x_bytes", "gathered_y", "gathered_y_row", "gathered_y_bytes",    # two batches, or 0
    "first_step", "last_step", "hyper", "hyper_step", "losses",
    "noise", "noise_stream",    # callback that adds noise to gathered rows, and its settings, or 0
    "steps_before",         # training steps of the model's life before step 0 of this run: what random numbers are counted by
    # a thin layer's dot products: how many parts they have; their memory, twice, for steps alternate; bytes of a part; a row of zeros
    "parts", "partial", "part_bytes", "zeros",
    "own_bytes",            # of a thin layer's z, and of its d, which each worker may have for itself
    "stop",                 # address of a flag: not 0 ends the work early, its results are then void
)  # fmt: skip
LAYER = (
    "fan_in", "fan_out", "panels", "in_panels", "thin",
    "w", "w_panel", "w_k", "bias", "bias_panel",    # w_k: from one k to the next; bias_panel: from one panel's bias to the next
    "in_place", "rows_in_place",                    # 1: w is the caller's array, in rows as it is; z and a are
    "direct",               # ADDED to the weights (plain SGD) or REPLACED by it: what the product does; 0: `update` gets each tile of it
    "wt", "wt_panel", "mirror",                     # mirror: whether WT is renewed with each square of W
    "first_norm",
    "z", "a", "d", "row", "chunk", "chunk_bytes",   # chunk: panels side by side; chunk_bytes: from one such group to the next
    "dz",                                           # the deltas of z: d, unless the layer is normalised
    # layer normalisation: callbacks and arrays, or 0; a gain lies a vector behind its bias; inverse_std has one number a row
    "normalise", "normalise_back", "gain_sums", "gain", "n", "inverse_std",
    "activate", "slope", "error",                   # callbacks; error: the last layer's
    "drop", "drop_slope", "stream",                 # callbacks that stand for activate and slope with dropout, and their settings, or 0
    "softmax", "row_error",                         # where the last layer needs whole rows, instead of activate and error; else 0
    # the caller's C-ordered arrays, or 0: parameters, then the optimizer's first and second state of each
    "outside_w", "outside_b", "outside_w_1", "outside_b_1", "outside_w_2", "outside_b_2", "outside_z", "outside_a",
    "outside_g", "outside_g_1", "outside_g_2", "outside_n", "outside_inverse_std",
)  # fmt: skip
PACK, TRAIN, FORWARD, BACKWARD, UNPACK, UNPACK_STATES, FINISH_UPDATE = 1, 2, 4, 8, 16, 32, 64

_h = {name: i for i, name in enumerate(HEADER)}
_l = {name: i for i, name in enumerate(LAYER)}
HEADER_SIZE, LAYER_SIZE = len(HEADER), len(LAYER)
# Numba takes module-level integers as constants, but cannot look names up in a dict.
TASK, LAYERS, LANES, VECTOR, ITEMSIZE = (_h[k] for k in ("task", "layers", "lanes", "vector", "itemsize"))
MANY_REGISTERS, TILE_K, TILE_ROWS = (_h[k] for k in ("many_registers", "tile_along_k", "tile_along_rows"))
TOTAL, COPY_IN, COPY_OUT, COPY_SLIVER, COLUMN_SUMS = (_h[k] for k in ("total", "copy_in", "copy_out", "copy_sliver", "column_sums"))
ADD_PRODUCTS, TRANSPOSE, GATHER, UPDATE, TOUCH = (_h[k] for k in ("add_products", "transpose", "gather", "update", "touch"))
RUN_FORWARD, RUN_BACKWARD, GATHER_BATCH = (_h[k] for k in ("run_forward", "run_backward", "gather_batch"))
FINISH, EXCHANGE = _h["finish_update"], _h["exchange_parameters"]
DO_TRAIN, DO_EVALUATE, DO_GRADIENTS = (_h[k] for k in ("train", "evaluate", "gradients"))
DOTS, DOTS_OF_ROWS, ADD_PARTS, ROW_SUMS = (_h[k] for k in ("dots", "dots_of_rows", "add_parts", "row_sums"))
PARTS, PARTIAL, PART_BYTES, ZEROS, OWN_BYTES = (_h[k] for k in ("parts", "partial", "part_bytes", "zeros", "own_bytes"))
COLUMNS_IN, COLUMNS_OUT = _h["columns_in"], _h["columns_out"]
SQUARES, CLIP_FACTOR, UPDATE_OF_CLIPPED = (_h[k] for k in ("squares", "clip_factor", "update_of_clipped"))
CONSTRAIN, CONSTRAIN_ACROSS = _h["constrain"], _h["constrain_across"]
CLIP, NORMS, NORM_COUNT, MAX_NORM = (_h[k] for k in ("clip", "norms", "norm_count", "max_norm"))
STATES, STATE = _h["states"], _h["state"]
DEPTH, BLOCK, TEAM, SCRATCH = (_h[k] for k in ("depth", "block", "team", "scratch"))
SLIVER_ROWS, SLIVER, SLIVER_ROW, SLIVER_BYTES = (_h[k] for k in ("sliver_rows", "sliver", "sliver_row", "sliver_bytes"))
X, X_ROW, Y, Y_ROW, Y_COLUMNS, SAMPLES, BATCH = (_h[k] for k in ("x", "x_row", "y", "y_row", "y_columns", "samples", "batch"))
STEPS_PER_EPOCH, ORDER = _h["steps_per_epoch"], _h["order"]
READ_X, X_COLUMN, X_SCALE, X_OFFSET = (_h[k] for k in ("read_x", "x_column", "x_scale", "x_offset"))
READ_Y, Y_COLUMN = _h["read_y"], _h["y_column"]
GX, GX_ROW, GX_BYTES = (_h[k] for k in ("gathered_x", "gathered_x_row", "gathered_x_bytes"))
GY, GY_ROW, GY_BYTES = (_h[k] for k in ("gathered_y", "gathered_y_row", "gathered_y_bytes"))
FIRST, LAST, HYPER, HYPER_STEP, LOSSES = (_h[k] for k in ("first_step", "last_step", "hyper", "hyper_step", "losses"))
STOP, STEPS_BEFORE, NOISE, NOISE_STREAM = (_h[k] for k in ("stop", "steps_before", "noise", "noise_stream"))
FAN_IN, FAN_OUT, PANELS, IN_PANELS, THIN = (_l[k] for k in ("fan_in", "fan_out", "panels", "in_panels", "thin"))
W, W_PANEL, W_K, BIAS, BIAS_PANEL, WT, WT_PANEL = (_l[k] for k in ("w", "w_panel", "w_k", "bias", "bias_panel", "wt", "wt_panel"))
MIRROR, FIRST_NORM, DIRECT, IN_PLACE, ROWS_IN_PLACE = (_l[k] for k in ("mirror", "first_norm", "direct", "in_place", "rows_in_place"))
Z, A, D, ROW, CHUNK, CHUNK_BYTES = (_l[k] for k in ("z", "a", "d", "row", "chunk", "chunk_bytes"))
ACTIVATE, SLOPE, ERROR, SOFTMAX, ROW_ERROR = (_l[k] for k in ("activate", "slope", "error", "softmax", "row_error"))
DROP, DROP_SLOPE, STREAM = (_l[k] for k in ("drop", "drop_slope", "stream"))
NORMALISE, NORMALISE_BACK, GAIN_SUMS, GAIN = (_l[k] for k in ("normalise", "normalise_back", "gain_sums", "gain"))
DZ, N, INVERSE_STD = (_l[k] for k in ("dz", "n", "inverse_std"))
OUTSIDE_W, OUTSIDE_B, OUTSIDE_Z, OUTSIDE_A = (_l[k] for k in ("outside_w", "outside_b", "outside_z", "outside_a"))
OUTSIDE_G, OUTSIDE_N, OUTSIDE_INVERSE_STD = (_l[k] for k in ("outside_g", "outside_n", "outside_inverse_std"))

# What a product does to the weights, if `update` is not asked.
ADDED, REPLACED = 1, 2
# How a layer is thin, if it is: z and d as [fan_out][rows], or the one row.
OF_MANY_ROWS, OF_ONE_ROW = 1, 2
# A sliver is worth its copy when it meets at least so many panels (measured on 784-256-10).
SLIVER_PANELS = 6
# The targets of so many tiles are asked for at a time.
TILES_A_TOUCH = 2
# The team's memory: one cache line for each worker's flag.
LINE = 64
# How often a waiting worker looks before it lets others have the core: some 20 us.
SPINS = 2000


@inner
def layer_at(plan, i):
    return plan + 8 * (HEADER_SIZE + i * LAYER_SIZE)


@inner
def barrier(plan, t, n):
    """Wait until all n workers have come here."""
    if n > 1:
        team = peek(plan, TEAM)
        generation = peek(team + t * LINE, 0) + 1  # of this barrier: whoever is there has said so
        publish(team + t * LINE, generation)
        for other in range(n):
            spins = 0
            while observe(team + other * LINE) < generation:
                spins += 1
                if spins < SPINS:
                    cpu_pause()
                else:
                    yield_core()  # more workers than free cores: let the one that is waited for run


# ---- cutting ------------------------------------------------------------------------------------------


@inner
def tallest(plan, width):
    """The height of the tallest tile of that width; the same table as tile.shapes()."""
    if peek(plan, MANY_REGISTERS):
        return 16 if width == 1 else 14 if width == 2 else 7 if width == 4 else 3 if width == 8 else 1
    return 8 if width == 1 else 6 if width == 2 else 3


@inner
def width_for(plan, rows, panels):
    """How many panels a tile takes at once: more where rows are few."""
    if peek(plan, MANY_REGISTERS) and (rows == 1 or (rows <= 3 and panels >= 8)):
        return min(8, panels)
    if panels >= 4 and rows <= tallest(plan, 4):
        return 4
    return 2 if panels >= 2 else 1


@inner
def panel_at(plan, me, p):
    """Where panel p begins in z, a and d of a layer."""
    chunk = peek(me, CHUNK)
    return p // chunk * peek(me, CHUNK_BYTES) + p % chunk * peek(plan, VECTOR)


@inner
def side_by_side(me, p, p1):
    """How many panels from p on, below p1, lie in p's chunk."""
    chunk = peek(me, CHUNK)
    return min(p1, p // chunk * chunk + chunk) - p


@inner
def share(panels, rows, t, n, at):
    """The next rectangle of worker t's part of `panels` x `rows`, from position `at` on: first row, row after the last, first panel,
    panel after the last, next position. There is none if the first panel is the one after the last."""
    end = panels * rows * (t + 1) // n
    if at >= end:
        return 0, 0, 0, 0, at
    p = at // rows
    r0 = at - p * rows
    if r0 == 0 and end - at >= rows:
        p1 = end // rows
        return 0, rows, p, p1, p1 * rows
    r1 = min(rows, r0 + end - at)
    return r0, r1, p, p + 1, p * rows + r1


# ---- forward ------------------------------------------------------------------------------------------


@inner
def own_parts(plan, n):
    """Whether each worker has, of a thin last layer and the layer below, whole parts to itself."""
    return n > 1 and peek(plan, PARTS) % n == 0


@inner
def forward_thin(plan, t, n, rows, x, x_row, x_chunk, x_chunk_bytes, y, y_row, hyper, training):
    """Worker t's part of a thin last layer in training: z, the error and the loss, for blocks of as many rows as a vector has lanes; few rows
    are one worker's, one by one. With `own_parts` z, the error and the loss are worker t's own."""
    me, below = layer_at(plan, peek(plan, LAYERS) - 1), layer_at(plan, peek(plan, LAYERS) - 2)
    lanes, vector, row = peek(plan, LANES), peek(plan, VECTOR), peek(me, ROW)
    if peek(plan, DOTS_OF_ROWS) != 0:
        if t == 0:
            z, d, outputs = peek(me, Z), peek(me, D), peek(me, FAN_OUT)
            call(peek(plan, DOTS_OF_ROWS), (x, x_row, rows, peek(me, IN_PANELS), peek(me, W), peek(me, W_PANEL), outputs, peek(me, BIAS), z, row))
            if peek(me, THIN) == OF_ONE_ROW:
                call(peek(me, ERROR), (z, z, d, y, y_row, rows, outputs, row, hyper))
            else:
                call(peek(me, ERROR), (z, d, y, y_row, rows, outputs, row, hyper))
        return
    blocks = (rows + lanes - 1) // lanes
    lo, hi = blocks * t // n, blocks * (t + 1) // n
    q0, q1, own = 0, peek(plan, PARTS), 0
    if own_parts(plan, n):
        lo, hi, q0, q1, own = 0, blocks, q1 * t // n, q1 * (t + 1) // n, t * peek(plan, OWN_BYTES)
    elif lo == hi:
        return
    z, d = peek(me, Z) + own + lo * vector, peek(me, D) + own + lo * vector
    parts, part_bytes = z, 0
    if peek(plan, PARTS) > 1:
        part_bytes = peek(plan, PART_BYTES)
        parts = peek(plan, PARTIAL) + (training & 1) * peek(plan, PARTS) * part_bytes + lo * vector
    for q in range(q0, q1):
        p0, p1 = peek(me, IN_PANELS) * q // peek(plan, PARTS), peek(me, IN_PANELS) * (q + 1) // peek(plan, PARTS)
        call(peek(plan, DOTS), (x + panel_at(plan, below, p0) + lo * lanes * x_row, x_row, x_chunk // lanes, x_chunk_bytes, p1 - p0,
                                peek(me, W) + p0 * peek(me, W_PANEL), peek(me, W_PANEL), peek(me, FAN_OUT),
                                peek(me, BIAS) if q == 0 else peek(plan, ZEROS), parts + q * part_bytes, row, hi - lo))  # fmt: skip
    if own_parts(plan, n):
        barrier(plan, t, n)
    if peek(plan, PARTS) > 1:
        call(peek(plan, ADD_PARTS), (parts, part_bytes, peek(plan, PARTS), z, peek(me, FAN_OUT), row, hi - lo))
    call(peek(me, ERROR), (z, d, y + lo * lanes * y_row, y_row, min(rows, hi * lanes) - lo * lanes, peek(me, FAN_OUT), row, hyper))


@inner
def forward(plan, i, t, n, rows, x, x_row, x_chunk, x_chunk_bytes, y, y_row, hyper, training):
    """Worker t's part of layer i: z, and then a, or (training, last layer) the error and the loss. Of a normalised layer it is the product.

    training: 0, or the number of the step, counted from 1 over the model's life.
    """
    me = layer_at(plan, i)
    z, row, vector, lanes = peek(me, Z), peek(me, ROW), peek(plan, VECTOR), peek(plan, LANES)
    depth = peek(me, FAN_IN)
    error = peek(me, ERROR) if training and i == peek(plan, LAYERS) - 1 else 0
    normalised = peek(me, NORMALISE) != 0
    start = ZERO if normalised else FROM_ROW
    at = peek(me, PANELS) * rows * t // n
    while True:
        r0, r1, p0, p1, at = share(peek(me, PANELS), rows, t, n, at)
        if p0 == p1:
            return
        blocks = 1 + (r1 - r0) * depth * peek(plan, ITEMSIZE) // peek(plan, BLOCK)
        for b in range(blocks):
            top, bottom = r0 + (r1 - r0) * b // blocks, r0 + (r1 - r0) * (b + 1) // blocks
            p = p0
            while p < p1 and not stopped(plan):
                width = width_for(plan, bottom - top, side_by_side(me, p, p1))
                here = panel_at(plan, me, p)
                if error == 0:
                    product(plan, me, top, bottom, p, width, x, x_row, x_chunk, x_chunk_bytes, start)
                else:
                    if p == p0:
                        touch_targets(plan, me, y, y_row, top, bottom, p, p + width)
                    product_and_targets(plan, me, top, bottom, p, p1, width, x, x_row, x_chunk, x_chunk_bytes, y, y_row)
                here += top * row
                if error != 0:
                    columns = min(peek(me, FAN_OUT) - p * lanes, width * lanes)
                    call(error, (z + here, z + here, peek(me, D) + here, y + top * y_row + p * vector, y_row, bottom - top, columns, row,
                                 hyper))  # fmt: skip
                elif not normalised:
                    activate(plan, me, here, top, bottom, p, width, training)
                p += width


@inner
def product(plan, me, top, bottom, p, width, x, x_row, x_chunk, x_chunk_bytes, start):
    """Rows top .. bottom of panels p .. p + width of z: the inputs times the weights."""
    row, vector, depth = peek(me, ROW), peek(plan, VECTOR), peek(me, FAN_IN)
    z = peek(me, Z) + panel_at(plan, me, p) + top * row
    call(peek(plan, TILE_K), (bottom - top, width, depth, x + top * x_row, x_row, x_row, x_chunk, x_chunk_bytes,
                              peek(me, W) + p * peek(me, W_PANEL), peek(me, W_PANEL), peek(me, W_K), z, vector, row,
                              peek(me, BIAS) + p * peek(me, BIAS_PANEL), peek(me, BIAS_PANEL), start))  # fmt: skip


@inner
def product_and_targets(plan, me, top, bottom, p, p1, width, x, x_row, x_chunk, x_chunk_bytes, y, y_row):
    """`product` in the last layer. In between it asks for the targets of the panels to come, below p1: all at once would hold it up."""
    tiles = (bottom - top + tallest(plan, width) - 1) // tallest(plan, width)
    pieces = (tiles + TILES_A_TOUCH - 1) // TILES_A_TOUCH
    r1 = top
    for k in range(1, pieces + 1):
        r0, r1 = r1, top + (bottom - top) * (tiles * k // pieces) // tiles
        if p + width < p1:
            touch_targets(plan, me, y, y_row, r0, r1, p + width, min(p + 2 * width, p1))
        product(plan, me, r0, r1, p, width, x, x_row, x_chunk, x_chunk_bytes, FROM_ROW)


@inner
def touch_targets(plan, me, y, y_row, r0, r1, p, p1):
    """Ask for rows r0 .. r1 of the targets that belong to panels p .. p1: they may come from far away."""
    lanes = peek(plan, LANES)
    columns = min(peek(me, FAN_OUT), p1 * lanes) - p * lanes
    call(peek(plan, TOUCH), (y + r0 * y_row + p * peek(plan, VECTOR), y_row, r1 - r0, columns * peek(plan, ITEMSIZE)))


@inner
def activate(plan, me, here, top, bottom, p, width, training):
    """a from z, for rows top .. bottom of panels p .. p + width, which lie at `here`."""
    z, a, row, lanes = peek(me, Z) + here, peek(me, A) + here, peek(me, ROW), peek(plan, LANES)
    columns = min(peek(me, FAN_OUT) - p * lanes, width * lanes)
    if peek(me, ACTIVATE) != 0:
        call(peek(me, ACTIVATE), (z, a, bottom - top, width, row, columns))
    elif peek(me, DROP) != 0:
        call(peek(me, DROP), (z, a, bottom - top, width, row, columns, peek(me, STREAM), top, p * lanes, training))


@inner
def normalise(plan, i, t, n, rows, training):
    """Where layer i is normalised, worker t's rows of its n, z and a, from the products."""
    me = layer_at(plan, i)
    if peek(me, NORMALISE) == 0:
        return
    r0, r1, row = rows * t // n, rows * (t + 1) // n, peek(me, ROW)
    call(peek(me, NORMALISE), (peek(me, Z) + r0 * row, peek(me, N) + r0 * row, peek(me, INVERSE_STD) + r0 * peek(plan, ITEMSIZE), r1 - r0,
                               peek(me, FAN_OUT), row, peek(me, CHUNK), peek(me, CHUNK_BYTES), peek(me, GAIN), peek(me, BIAS),
                               peek(me, BIAS_PANEL)))  # fmt: skip
    p = 0
    while p < peek(me, PANELS):
        width = side_by_side(me, p, peek(me, PANELS))
        activate(plan, me, panel_at(plan, me, p) + r0 * row, r0, r1, p, width, training)
        p += width
    barrier(plan, t, n)


@inner
def softmax(plan, t, n, rows):
    """Worker t's rows of the last layer's a, from z."""
    me = layer_at(plan, peek(plan, LAYERS) - 1)
    lo, hi = rows * t // n, rows * (t + 1) // n
    here = lo * peek(me, ROW)
    call(peek(me, SOFTMAX), (peek(me, Z) + here, peek(me, A) + here, hi - lo, peek(me, FAN_OUT), peek(me, ROW), peek(me, CHUNK),
                             peek(me, CHUNK_BYTES)))  # fmt: skip


@inner
def row_error(plan, t, n, rows, y, y_row, hyper):
    """Worker t's rows of the last layer's error and loss, from z or (trace) a."""
    me = layer_at(plan, peek(plan, LAYERS) - 1)
    lo, hi = rows * t // n, rows * (t + 1) // n
    here = lo * peek(me, ROW)
    call(peek(me, ROW_ERROR), (peek(me, Z) + here, peek(me, A) + here, peek(me, D) + here, y + lo * y_row, y_row, hi - lo, peek(me, FAN_OUT),
                               peek(me, ROW), peek(me, CHUNK), peek(me, CHUNK_BYTES), hyper))  # fmt: skip


@inner
def stopped(plan):
    return observe(peek(plan, STOP)) != 0


# ---- backward -----------------------------------------------------------------------------------------


@inner
def deltas(plan, me, t, n):
    """Where worker t finds the deltas of a layer."""
    return peek(me, D) + t * peek(plan, OWN_BYTES) if peek(me, THIN) and own_parts(plan, n) else peek(me, D)


@inner
def backward(plan, i, t, n, rows):
    """Worker t's part of the deltas of layer i - 1 with respect to z, from those of layer i."""
    me, below = layer_at(plan, i), layer_at(plan, i - 1)
    d, row, depth, vector = peek(below, DZ), peek(below, ROW), peek(me, FAN_OUT), peek(plan, VECTOR)
    d_above = deltas(plan, me, t, n)
    at = peek(below, PANELS) * rows * t // n
    while True:
        r0, r1, p0, p1, at = share(peek(below, PANELS), rows, t, n, at)
        if p0 == p1:
            return
        blocks = 1 + (r1 - r0) * depth * peek(plan, ITEMSIZE) // peek(plan, BLOCK)
        for b in range(blocks):
            top, bottom = r0 + (r1 - r0) * b // blocks, r0 + (r1 - r0) * (b + 1) // blocks
            p = p0
            while p < p1 and not stopped(plan):
                width = width_for(plan, bottom - top, side_by_side(below, p, p1))
                here = panel_at(plan, below, p)
                c, d_row = d + here + top * row, peek(me, ROW)
                if peek(me, THIN):
                    call(peek(plan, TILE_ROWS), (
                        bottom - top, width, depth, d_above + top * peek(plan, ITEMSIZE), peek(plan, ITEMSIZE), d_row, depth, 0,
                        peek(me, W) + p * peek(me, W_PANEL), peek(me, W_PANEL), vector, c, vector, row, 0, 0, ZERO))  # fmt: skip
                else:
                    call(peek(plan, TILE_K), (
                        bottom - top, width, depth, d_above + top * d_row, d_row, d_row, peek(me, CHUNK) * peek(plan, LANES),
                        peek(me, CHUNK_BYTES), peek(me, WT) + p * peek(me, WT_PANEL), peek(me, WT_PANEL), vector, c, vector, row, 0, 0,
                        ZERO))  # fmt: skip
                here += top * row
                if peek(below, SLOPE) != 0:
                    call(peek(below, SLOPE), (d + here, peek(below, Z) + here, peek(below, A) + here, bottom - top, width, row))
                elif peek(below, DROP_SLOPE) != 0:
                    call(peek(below, DROP_SLOPE), (d + here, peek(below, Z) + here, peek(below, A) + here, bottom - top, width, row,
                                                   peek(below, STREAM)))  # fmt: skip
                p += width


@inner
def normalise_back(plan, i, t, n, rows):
    """Where layer i is normalised, worker t's rows of its deltas, from those with respect to z."""
    me = layer_at(plan, i)
    if peek(me, NORMALISE) == 0:
        return
    r0, r1, row = rows * t // n, rows * (t + 1) // n, peek(me, ROW)
    call(peek(me, NORMALISE_BACK), (peek(me, DZ) + r0 * row, peek(me, N) + r0 * row, peek(me, INVERSE_STD) + r0 * peek(plan, ITEMSIZE),
                                    peek(me, D) + r0 * row, r1 - r0, peek(me, FAN_OUT), row, peek(me, CHUNK), peek(me, CHUNK_BYTES),
                                    peek(me, GAIN), peek(me, BIAS_PANEL)))  # fmt: skip
    barrier(plan, t, n)


# ---- update -------------------------------------------------------------------------------------------


@inner
def update(plan, i, t, n, rows, x, x_row, x_chunk, x_chunk_bytes, hyper):
    """Worker t's part of the weights and biases of layer i: gradient and optimizer step."""
    me = layer_at(plan, i)
    blocks, lanes, fan_in = peek(me, IN_PANELS), peek(plan, LANES), peek(me, FAN_IN)
    at = peek(me, PANELS) * blocks * t // n
    while True:
        k0, k1, p0, p1, at = share(peek(me, PANELS), blocks, t, n, at)
        if p0 == p1:
            return
        first, end = k0 * lanes, min(k1 * lanes, fan_in)
        while first < end:  # chunk by chunk of the inputs
            chunk = first // x_chunk
            stop = min(end, (chunk + 1) * x_chunk)
            x_here = x + chunk * x_chunk_bytes + (first - chunk * x_chunk) * peek(plan, ITEMSIZE)
            update_rectangle(plan, me, t, first, stop, p0, p1, rows, x_here, x_row, hyper)
            first = stop
        if k1 == blocks:
            update_biases(plan, me, t, p0, p1, rows, hyper)
        if peek(me, MIRROR):
            transpose(plan, me, k0, k1, p0, p1)


@inner
def transpose(plan, me, k0, k1, p0, p1):
    """Renew the part of WT that mirrors blocks k0 .. k1 of panels p0 .. p1 of W."""
    lanes, square = peek(plan, LANES), peek(plan, LANES) * peek(plan, VECTOR)
    rows = min(peek(me, FAN_IN), k1 * lanes) - k0 * lanes  # W may be the caller's own, which has no more rows
    for p in range(p0, p1):
        call(peek(plan, TRANSPOSE), (peek(me, W) + p * peek(me, W_PANEL) + k0 * lanes * peek(me, W_K), peek(me, W_K),
                                     peek(me, WT) + k0 * peek(me, WT_PANEL) + p * square, rows, peek(me, WT_PANEL)))  # fmt: skip


@inner
def update_rectangle(plan, me, t, first, end, p0, p1, rows, x, x_row, hyper):
    """Rows first .. end of panels p0 .. p1 of the weights; x: where column `first` of the inputs begins.

    Where many panels meet the same inputs, a sliver of these (as many columns as a tile is high) is copied so that its rows are
    adjacent, and swept over as many panels of deltas as stay in the second-level cache.
    """
    vector, itemsize = peek(plan, VECTOR), peek(plan, ITEMSIZE)
    if p1 - p0 < SLIVER_PANELS or rows < peek(plan, SLIVER_ROWS):
        p = p0
        while p < p1 and not stopped(plan):
            width = side_by_side(me, p, p1)
            if peek(plan, ADD_PRODUCTS) == 0:  # a sweep takes all panels that are side by side
                width = width_for(plan, end - first, width)
            update_rows(plan, me, t, first, end - first, p, width, np.int64(0), rows, x, x_row, hyper)
            p += width
        return
    sliver, sliver_row = peek(plan, SLIVER) + t * peek(plan, SLIVER_BYTES), peek(plan, SLIVER_ROW)
    tiles = (end - first + tallest(plan, 2) - 1) // tallest(plan, 2)
    # Products that are added to the weights may come a piece of the batch at a time, so that more panels' deltas have room in the cache
    # and the sliver meets them all; an optimizer wants whole sums.
    pieces = 1 + (rows - 1) // peek(plan, DEPTH) if peek(me, DIRECT) else 1
    for piece in range(pieces):
        r0, r1 = rows * piece // pieces, rows * (piece + 1) // pieces
        sweep = max(2, peek(plan, BLOCK) // ((r1 - r0) * vector) // 2 * 2)
        for q in range(p0, p1, sweep):
            q1 = min(p1, q + sweep)
            top = first
            for i in range(1, tiles + 1):
                bottom = first + (end - first) * i // tiles
                if stopped(plan):
                    return
                call(peek(plan, COPY_SLIVER), (x + r0 * x_row + (top - first) * itemsize, x_row, sliver, sliver_row, r1 - r0, bottom - top))
                p = q
                while p < q1:
                    width = min(2, side_by_side(me, p, q1))
                    update_rows(plan, me, t, top, bottom - top, p, width, r0, r1 - r0, sliver, sliver_row, hyper)
                    p += width
                top = bottom


@inner
def update_rows(plan, me, t, top, rows_of_w, p, width, r0, rows, x, x_row, hyper):
    """Rows top .. top + rows_of_w of panels p .. p + width of the weights, from `rows` rows of the batch, beginning with row r0.
    x: where their columns of the inputs begin in that row."""
    vector, panel, w_row, itemsize = peek(plan, VECTOR), peek(me, W_PANEL), peek(me, W_K), peek(plan, ITEMSIZE)
    d = peek(me, D) + panel_at(plan, me, p) + r0 * peek(me, ROW)
    w = peek(me, W) + p * panel + top * w_row
    if peek(plan, ADD_PRODUCTS) != 0:
        call(peek(plan, ADD_PRODUCTS), (x, rows_of_w, d, width, w, panel, w_row))
        return
    if peek(me, DIRECT):
        start = FROM_C if peek(me, DIRECT) == ADDED or r0 > 0 else ZERO
        call(peek(plan, TILE_ROWS), (rows_of_w, width, rows, x, itemsize, x_row, rows, 0, d, vector, peek(me, ROW), w, panel, w_row, 0, 0,
                                     start))  # fmt: skip
        return
    g = peek(plan, SCRATCH) + t * 32 * vector
    tiles = (rows_of_w + tallest(plan, width) - 1) // tallest(plan, width)
    first = 0
    for i in range(1, tiles + 1):
        end = rows_of_w * i // tiles
        call(peek(plan, TILE_ROWS), (end - first, width, rows, x + first * itemsize, itemsize, x_row, rows, 0, d, vector, peek(me, ROW),
                                     g, vector, width * vector, 0, 0, ZERO))  # fmt: skip
        call(peek(plan, UPDATE), (g, vector, width * vector, w + first * w_row, panel, w_row, peek(plan, STATE), end - first, width, hyper))
        first = end


@inner
def update_biases(plan, me, t, p0, p1, rows, hyper):
    """Biases, and gains where there are any, of panels p0 .. p1."""
    vector = peek(plan, VECTOR)
    g = peek(plan, SCRATCH) + t * 32 * vector
    p = p0
    while p < p1:
        width = min(8, side_by_side(me, p, p1))
        here, of_panel = panel_at(plan, me, p), p * peek(me, BIAS_PANEL)
        call(peek(plan, COLUMN_SUMS), (peek(me, DZ) + here, rows, width, peek(me, ROW), g, vector))
        call(peek(plan, UPDATE), (g, vector, 0, peek(me, BIAS) + of_panel, peek(me, BIAS_PANEL), 0, peek(plan, STATE), 1, width, hyper))
        if peek(me, NORMALISE) != 0:
            call(peek(me, GAIN_SUMS), (peek(me, DZ) + here, peek(me, N) + here, rows, width, peek(me, ROW), g, vector))
            call(peek(plan, UPDATE), (g, vector, 0, peek(me, GAIN) + of_panel, peek(me, BIAS_PANEL), 0, peek(plan, STATE), 1, width, hyper))
        p += width


@inner
def update_thin(plan, t, n, rows, hyper):
    """Worker t's part of a thin last layer's weights; the biases are that worker's who adds them in the forward pass, or else the last one's."""
    me, below = layer_at(plan, peek(plan, LAYERS) - 1), layer_at(plan, peek(plan, LAYERS) - 2)
    vector, panel, outputs = peek(plan, VECTOR), peek(me, W_PANEL), peek(me, FAN_OUT)
    d, d_row, step = deltas(plan, me, t, n), peek(me, ROW), peek(plan, UPDATE)
    g = peek(plan, SCRATCH) + t * 32 * vector
    p, p1 = peek(me, IN_PANELS) * t // n, peek(me, IN_PANELS) * (t + 1) // n
    while p < p1:
        width = width_for(plan, outputs, side_by_side(below, p, p1))
        a, a_row, w = peek(below, A) + panel_at(plan, below, p), peek(below, ROW), peek(me, W) + p * panel
        if peek(me, DIRECT):
            call(peek(plan, TILE_K), (outputs, width, rows, d, d_row, d_row, rows, 0, a, vector, a_row, w, panel, vector, 0, 0, FROM_C))
        else:  # few outputs: all of them fit the worker's scratch memory
            call(
                peek(plan, TILE_K),
                (outputs, width, rows, d, d_row, d_row, rows, 0, a, vector, a_row, g, vector, width * vector, 0, 0, ZERO),
            )
            call(step, (g, vector, width * vector, w, panel, vector, peek(plan, STATE), outputs, width, hyper))
        p += width
    if t == (0 if own_parts(plan, n) else n - 1):
        lanes = peek(plan, LANES)
        if peek(me, THIN) == OF_ONE_ROW:
            g = d
        else:
            call(peek(plan, ROW_SUMS), (d, outputs, (rows + lanes - 1) // lanes, d_row, g))
        call(step, (g, vector, 0, peek(me, BIAS), vector, 0, peek(plan, STATE), 1, (outputs + lanes - 1) // lanes, hyper))


# ---- after the update: what needs all of a gradient, or all of a column ---------------------------------
#
# With clip_norm, `update` has only kept the gradient. Parts of it, cut by the shape, are each summed by one worker; every worker then
# adds up all parts. From here on panels are owned whole, however many workers there are.


@inner
def own_panels(me, t, n):
    panels = peek(me, IN_PANELS) if peek(me, THIN) else peek(me, PANELS)
    return panels * t // n, panels * (t + 1) // n


@inner
def sum_squares(plan, t, n):
    for i in range(peek(plan, LAYERS)):
        me = layer_at(plan, i)
        out, state, panel = peek(plan, NORMS) + 8 * peek(me, FIRST_NORM), peek(plan, STATE), peek(me, W_PANEL)
        p0, p1 = own_panels(me, t, n)
        for p in range(p0, p1):
            call(peek(plan, SQUARES), (peek(me, W) + state + p * panel, panel // peek(plan, VECTOR), out + 8 * p))
        if peek(me, THIN) and t == n - 1:
            call(peek(plan, SQUARES), (peek(me, BIAS) + state, bias_vectors(plan, me), out + 8 * peek(me, IN_PANELS)))


@inner
def bias_vectors(plan, me):
    return (peek(me, FAN_OUT) + peek(plan, LANES) - 1) // peek(plan, LANES)


@inner
def update_by_clipped(plan, t, n, hyper):
    """The optimizer's step on whole panels, from the gradients kept there."""
    factor = peek(plan, SCRATCH) + t * 32 * peek(plan, VECTOR)
    call(peek(plan, CLIP_FACTOR), (peek(plan, NORMS), peek(plan, NORM_COUNT), hyper + peek(plan, CLIP), factor))
    step, state = peek(plan, UPDATE_OF_CLIPPED), peek(plan, STATE)
    for i in range(peek(plan, LAYERS)):
        me = layer_at(plan, i)
        p0, p1 = own_panels(me, t, n)
        for p in range(p0, p1):
            w = peek(me, W) + p * peek(me, W_PANEL)
            if peek(me, THIN):
                call(step, (w, state, peek(me, FAN_OUT), hyper, factor))
            else:
                call(step, (w, state, peek(me, FAN_IN), hyper, factor))
                call(step, (peek(me, BIAS) + p * peek(me, BIAS_PANEL), state, 1 if peek(me, NORMALISE) == 0 else 2, hyper, factor))
        if peek(me, THIN) and t == n - 1:
            call(step, (peek(me, BIAS), state, bias_vectors(plan, me), hyper, factor))


@inner
def limit_norms(plan, t, n):
    """Scale the weights into each unit whose norm is above max_norm."""
    for i in range(peek(plan, LAYERS)):
        me = layer_at(plan, i)
        if peek(me, THIN):
            for o in range(peek(me, FAN_OUT) * t // n, peek(me, FAN_OUT) * (t + 1) // n):
                call(peek(plan, CONSTRAIN_ACROSS), (peek(me, W) + o * peek(plan, VECTOR), peek(me, IN_PANELS), peek(me, W_PANEL),
                                                    peek(plan, MAX_NORM)))  # fmt: skip
        else:
            p0, p1 = own_panels(me, t, n)
            for p in range(p0, p1):
                call(peek(plan, CONSTRAIN), (peek(me, W) + p * peek(me, W_PANEL), peek(me, FAN_IN), peek(plan, VECTOR), peek(plan, MAX_NORM)))


def finish_update(plan, t, n, hyper):
    if peek(plan, CLIP) != 0:
        sum_squares(plan, t, n)
        barrier(plan, t, n)
        update_by_clipped(plan, t, n, hyper)
    if peek(plan, MAX_NORM) != 0:
        if peek(plan, CLIP) != 0:
            barrier(plan, t, n)
        limit_norms(plan, t, n)
    for i in range(peek(plan, LAYERS)):
        me = layer_at(plan, i)
        if peek(me, WT) != 0:
            p0, p1 = own_panels(me, t, n)
            transpose(plan, me, np.int64(0), peek(me, IN_PANELS), p0, p1)
    barrier(plan, t, n)


# ---- in and out ---------------------------------------------------------------------------------------


def exchange_parameters(plan, t, n, k, inward):
    """Copy the parameters (k = 0) or the k-th state of each between the caller's arrays and the panels."""
    copy = peek(plan, COPY_IN) if inward else peek(plan, COPY_OUT)
    vector, lanes, itemsize = peek(plan, VECTOR), peek(plan, LANES), peek(plan, ITEMSIZE)
    slot = k + 1 if k > 0 and peek(plan, CLIP) != 0 else k
    state = slot * peek(plan, STATE)
    for i in range(peek(plan, LAYERS)):
        me = layer_at(plan, i)
        fan_in, fan_out = peek(me, FAN_IN), peek(me, FAN_OUT)
        outside_w, outside_b = peek(me, OUTSIDE_W + 2 * k), peek(me, OUTSIDE_B + 2 * k)
        if peek(me, THIN):
            p0, p1 = peek(me, IN_PANELS) * t // n, peek(me, IN_PANELS) * (t + 1) // n
            call(peek(plan, COLUMNS_IN) if inward else peek(plan, COLUMNS_OUT), (
                outside_w + p0 * lanes * fan_out * itemsize, fan_out * itemsize, peek(me, W) + state + p0 * peek(me, W_PANEL), peek(me, W_PANEL),
                min(fan_in, p1 * lanes) - p0 * lanes, fan_out))  # fmt: skip
            if t == 0:
                call(copy, (outside_b, 0, peek(me, BIAS) + state, 0, vector, 1, fan_out))
            continue
        p0, p1 = peek(me, PANELS) * t // n, peek(me, PANELS) * (t + 1) // n
        columns = min(fan_out - p0 * lanes, (p1 - p0) * lanes)
        if p0 == p1:
            continue
        if outside_w != 0 and peek(me, IN_PLACE) == 0:
            call(copy, (outside_w + p0 * vector, fan_out * itemsize, peek(me, W) + state + p0 * peek(me, W_PANEL), vector,
                        peek(me, W_PANEL), fan_in, columns))  # fmt: skip
        if outside_b != 0:
            call(copy, (outside_b + p0 * vector, 0, peek(me, BIAS) + state + p0 * peek(me, BIAS_PANEL), 0,
                        peek(me, BIAS_PANEL), 1, columns))  # fmt: skip
        if peek(me, NORMALISE) != 0:
            call(copy, (peek(me, OUTSIDE_G + k) + p0 * vector, 0, peek(me, GAIN) + state + p0 * peek(me, BIAS_PANEL), 0,
                        peek(me, BIAS_PANEL), 1, columns))  # fmt: skip
        if inward and k == 0 and peek(me, WT) != 0:
            transpose(plan, me, np.int64(0), peek(me, IN_PANELS), p0, p1)


@inner
def exchange_activations(plan, i, t, n, first, rows, inward):
    """Copy z, a, n and inverse_std of layer i, for `rows` rows, from or to rows `first` .. of the caller's arrays, where there are any."""
    me = layer_at(plan, i)
    copy = peek(plan, COPY_IN) if inward else peek(plan, COPY_OUT)
    vector, lanes = peek(plan, VECTOR), peek(plan, LANES)
    fan_out, row = peek(me, FAN_OUT), peek(me, ROW)
    outside_row = fan_out * peek(plan, ITEMSIZE)
    r0, r1 = rows * t // n, rows * (t + 1) // n
    p = 0
    while p < peek(me, PANELS):
        width = side_by_side(me, p, peek(me, PANELS))
        here, there = panel_at(plan, me, p) + r0 * row, (first + r0) * outside_row + p * vector
        columns = min(fan_out - p * lanes, width * lanes)
        if peek(me, OUTSIDE_Z) != 0:
            call(copy, (peek(me, OUTSIDE_Z) + there, outside_row, peek(me, Z) + here, row, vector, r1 - r0, columns))
        if peek(me, OUTSIDE_A) != 0:
            call(copy, (peek(me, OUTSIDE_A) + there, outside_row, peek(me, A) + here, row, vector, r1 - r0, columns))
        if peek(me, OUTSIDE_N) != 0:
            call(copy, (peek(me, OUTSIDE_N) + there, outside_row, peek(me, N) + here, row, vector, r1 - r0, columns))
        p += width
    if peek(me, OUTSIDE_INVERSE_STD) != 0 and t == 0:  # whole vectors are written: not a part for each worker
        call(copy, (peek(me, OUTSIDE_INVERSE_STD) + first * peek(plan, ITEMSIZE), 0, peek(me, INVERSE_STD), 0, vector, 1, rows))


def gather_batch(plan, t, n, step):
    """Copy worker t's share of a batch, as floats, to where its rows are consecutive; two batches alternate."""
    samples, batch, per_epoch = peek(plan, SAMPLES), peek(plan, BATCH), peek(plan, STEPS_PER_EPOCH)
    epoch = step // per_epoch
    start = (step - epoch * per_epoch) * batch
    rows = min(batch, samples - start)
    order = peek(plan, ORDER)
    to_x, to_y = peek(plan, GX) + (step & 1) * peek(plan, GX_BYTES), peek(plan, GY) + (step & 1) * peek(plan, GY_BYTES)
    fan_in, y_columns = peek(layer_at(plan, np.int64(0)), FAN_IN), peek(plan, Y_COLUMNS)
    read_x, read_y = peek(plan, READ_X), peek(plan, READ_Y)
    copied_x, copied_y = 0 if read_x != 0 else fan_in, 0 if read_y != 0 else y_columns
    for r in range(rows * t // n, rows * (t + 1) // n):
        i = start + r if order == 0 else peek(order, epoch * samples + start + r)
        x, y = peek(plan, X) + i * peek(plan, X_ROW), peek(plan, Y) + i * peek(plan, Y_ROW)
        gx, gy = to_x + r * peek(plan, GX_ROW), to_y + r * peek(plan, GY_ROW)
        call(peek(plan, GATHER), (x, gx, copied_x, y, gy, copied_y))
        if read_x != 0:
            call(read_x, (x, peek(plan, X_COLUMN), gx, fan_in, peek(plan, X_SCALE), peek(plan, X_OFFSET)))
        if read_y != 0:
            call(read_y, (y, peek(plan, Y_COLUMN), gy, y_columns, np.int64(0), np.int64(0)))
    if peek(plan, NOISE) != 0:
        call(peek(plan, NOISE), (to_x, peek(plan, GX_ROW), rows * t // n, rows * (t + 1) // n, fan_in, peek(plan, NOISE_STREAM),
                                 peek(plan, STEPS_BEFORE) + step + 1))  # fmt: skip


# ---- the whole ----------------------------------------------------------------------------------------
#
# What follows are callbacks of their own, which call each other by address: a network compiles or loads those that it needs, and none
# is linked into another one and optimised again.


def run_forward(plan, t, n, rows, x, x_row, y, y_row, hyper, training):
    last_hidden = peek(plan, LAYERS) - 2 if own_parts(plan, n) else -1  # after which there is no barrier
    forward(plan, np.int64(0), t, n, rows, x, x_row, peek(layer_at(plan, np.int64(0)), FAN_IN), np.int64(0), y, y_row, hyper, training)
    if last_hidden != 0:
        barrier(plan, t, n)
    normalise(plan, np.int64(0), t, n, rows, training)
    for i in range(1, peek(plan, LAYERS)):
        below = layer_at(plan, i - 1)
        if peek(layer_at(plan, i), THIN):
            forward_thin(plan, t, n, rows, peek(below, A), peek(below, ROW), peek(below, CHUNK) * peek(plan, LANES), peek(below, CHUNK_BYTES),
                         y, y_row, hyper, training)  # fmt: skip
            if last_hidden < 0:
                barrier(plan, t, n)
            return
        forward(plan, i, t, n, rows, peek(below, A), peek(below, ROW), peek(below, CHUNK) * peek(plan, LANES), peek(below, CHUNK_BYTES),
                y, y_row, hyper, training)  # fmt: skip
        if i != last_hidden:
            barrier(plan, t, n)
        normalise(plan, i, t, n, rows, training)
    top = layer_at(plan, peek(plan, LAYERS) - 1)
    if training and peek(top, ROW_ERROR) != 0:
        row_error(plan, t, n, rows, y, y_row, hyper)
        barrier(plan, t, n)
    elif not training and peek(top, SOFTMAX) != 0:
        softmax(plan, t, n, rows)
        barrier(plan, t, n)


def run_backward(plan, t, n, rows, x, x_row, hyper):
    apart = own_parts(plan, n) and peek(plan, LAYERS) == 2  # workers need nothing of each other
    for i in range(peek(plan, LAYERS) - 1, 0, -1):
        backward(plan, i, t, n, rows)
        if not apart:
            barrier(plan, t, n)
        normalise_back(plan, i - 1, t, n, rows)
        if peek(layer_at(plan, i), THIN):
            update_thin(plan, t, n, rows, hyper)
            continue
        below = layer_at(plan, i - 1)
        update(plan, i, t, n, rows, peek(below, A), peek(below, ROW), peek(below, CHUNK) * peek(plan, LANES), peek(below, CHUNK_BYTES), hyper)
    update(plan, np.int64(0), t, n, rows, x, x_row, peek(layer_at(plan, np.int64(0)), FAN_IN), np.int64(0), hyper)
    if not apart or peek(plan, GX) != 0 or peek(plan, CLIP) != 0 or peek(plan, MAX_NORM) != 0:
        barrier(plan, t, n)


def train(plan, t, n):
    batch, samples, per_epoch = peek(plan, BATCH), peek(plan, SAMPLES), peek(plan, STEPS_PER_EPOCH)
    first, last = peek(plan, FIRST), peek(plan, LAST)
    gathering = peek(plan, GX) != 0
    finishing = peek(plan, CLIP) != 0 or peek(plan, MAX_NORM) != 0
    top = layer_at(plan, peek(plan, LAYERS) - 1)
    if gathering and first < last:
        call(peek(plan, GATHER_BATCH), (plan, t, n, first))
        barrier(plan, t, n)
    for step in range(first, last):
        start = step % per_epoch * batch
        rows = min(batch, samples - start)
        hyper = peek(plan, HYPER) + (step - first) * peek(plan, HYPER_STEP)
        x, x_row, y, y_row = (
            peek(plan, X) + start * peek(plan, X_ROW),
            peek(plan, X_ROW),
            peek(plan, Y) + start * peek(plan, Y_ROW),
            peek(plan, Y_ROW),
        )
        if gathering:
            x, x_row = peek(plan, GX) + (step & 1) * peek(plan, GX_BYTES), peek(plan, GX_ROW)
            y, y_row = peek(plan, GY) + (step & 1) * peek(plan, GY_BYTES), peek(plan, GY_ROW)
            if step + 1 < last:
                call(peek(plan, GATHER_BATCH), (plan, t, n, step + 1))
        number = peek(plan, STEPS_BEFORE) + step + 1
        call(peek(plan, RUN_FORWARD), (plan, t, n, rows, x, x_row, y, y_row, hyper, number))
        if t == 0 and peek(top, THIN) == OF_MANY_ROWS:
            blocks = (rows + peek(plan, LANES) - 1) // peek(plan, LANES)
            call(
                peek(plan, TOTAL),
                (peek(top, Z), peek(top, FAN_OUT), blocks, blocks, peek(top, ROW), 0, peek(plan, LOSSES) + (step - first) * 8),
            )
        elif t == 0:
            chunk = peek(top, CHUNK)
            call(peek(plan, TOTAL), (peek(top, Z), rows, peek(top, PANELS), chunk, peek(top, ROW), peek(top, CHUNK_BYTES),
                                     peek(plan, LOSSES) + (step - first) * 8))  # fmt: skip
        call(peek(plan, RUN_BACKWARD), (plan, t, n, rows, x, x_row, hyper))
        if finishing:
            call(peek(plan, FINISH), (plan, t, n, hyper))
    barrier(plan, t, n)


def evaluate(plan, t, n):
    """Forward, a batch at a time, and z and a to the caller's arrays."""
    batch, samples = peek(plan, BATCH), peek(plan, SAMPLES)
    for start in range(0, samples, batch):
        rows = min(batch, samples - start)
        x, x_row = peek(plan, X) + start * peek(plan, X_ROW), peek(plan, X_ROW)
        if peek(plan, GX) != 0:  # there is room for a single batch, and no Y
            call(peek(plan, GATHER_BATCH), (plan, t, n, start // batch))
            barrier(plan, t, n)
            x, x_row = peek(plan, GX), peek(plan, GX_ROW)
        call(peek(plan, RUN_FORWARD), (plan, t, n, rows, x, x_row, 0, 0, 0, 0))
        for i in range(peek(plan, LAYERS)):
            exchange_activations(plan, i, t, n, start, rows, np.int64(0))
        barrier(plan, t, n)


def gradients(plan, t, n):
    """Backward from z and a that the caller brings."""
    rows = peek(plan, SAMPLES)
    for i in range(peek(plan, LAYERS)):
        exchange_activations(plan, i, t, n, np.int64(0), rows, np.int64(1))
    barrier(plan, t, n)
    top = layer_at(plan, peek(plan, LAYERS) - 1)
    if peek(top, ROW_ERROR) != 0:
        row_error(plan, t, n, rows, peek(plan, Y), peek(plan, Y_ROW), peek(plan, HYPER))
    elif t == 0:
        p = 0
        while p < peek(top, PANELS):
            width = side_by_side(top, p, peek(top, PANELS))
            here = panel_at(plan, top, p)
            columns = min(peek(top, FAN_OUT) - p * peek(plan, LANES), width * peek(plan, LANES))
            call(peek(top, ERROR), (peek(top, Z) + here, peek(top, A) + here, peek(top, D) + here, peek(plan, Y) + p * peek(plan, VECTOR),
                                    peek(plan, Y_ROW), rows, columns, peek(top, ROW), peek(plan, HYPER)))  # fmt: skip
            p += width
    barrier(plan, t, n)
    call(peek(plan, RUN_BACKWARD), (plan, t, n, rows, peek(plan, X), peek(plan, X_ROW), peek(plan, HYPER)))


def work(t, n, plan):
    """What worker t of n does: the tasks of the plan, in this order."""
    task = peek(plan, TASK)
    if task & PACK:
        call(peek(plan, EXCHANGE), (plan, t, n, 0, 1))
        if task & TRAIN:
            for k in range(1, peek(plan, STATES) + 1):
                call(peek(plan, EXCHANGE), (plan, t, n, k, 1))
        barrier(plan, t, n)
    if task & TRAIN:
        call(peek(plan, DO_TRAIN), (plan, t, n))
    if task & FORWARD:
        call(peek(plan, DO_EVALUATE), (plan, t, n))
    if task & BACKWARD:
        call(peek(plan, DO_GRADIENTS), (plan, t, n))
    if task & FINISH_UPDATE:
        call(peek(plan, FINISH), (plan, t, n, peek(plan, HYPER)))
    if task & UNPACK:
        call(peek(plan, EXCHANGE), (plan, t, n, 0, 0))
    if task & UNPACK_STATES:
        for k in range(1, peek(plan, STATES) + 1):
            call(peek(plan, EXCHANGE), (plan, t, n, k, 0))


# A plan's table has their addresses under these names. The last one is what threads enter.
CALLBACKS: dict[str, Any] = {
    "run_forward": run_forward,
    "run_backward": run_backward,
    "gather_batch": gather_batch,
    "finish_update": finish_update,
    "exchange_parameters": exchange_parameters,
    "train": train,
    "evaluate": evaluate,
    "gradients": gradients,
    "work": work,
}


@cache
def address(name: str) -> int:
    """The callback of that name, compiled."""
    function = CALLBACKS[name]
    return jit.address_of(name, jit.void(function.__code__.co_argcount), lambda: function, driver=True)
