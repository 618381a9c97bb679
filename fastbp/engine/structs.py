"""What Python tells compiled code of one network: a `Plan`, followed in memory by a `Layer` for each layer.

Every field is a 64-bit integer: a count, a number of bytes from one thing to the next, or an address (of an
array, or of a compiled callback; 0 where there is none). V stands for the lanes of a vector register. `at`
gives Python a struct, `plan_at` and `layer_at` compiled code.

Three ways in which matrices lie:

    panels   [columns / V][rows][V]                weights; the packed copy of a caller's matrix
    blocks   [columns / (group V)][rows][group V]  z, a and the deltas: `group` panels side by side
    rows     [rows][columns]                       as the caller has them, C order

A row of a group of blocks is what the microkernel reads, and no cache lines of two workers are neighbours.
"""

from __future__ import annotations

from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, size_of, struct, view_of


@struct
class Panels(Struct):
    """A matrix in panels, or a caller's rows taken for panels."""

    address: int
    panel: int  # bytes from a panel to the next
    row: int  # bytes from a row to the next


@struct
class Blocks(Struct):
    """How z, a and the deltas of a layer lie."""

    row: int  # bytes from a row to the next
    group: int  # panels side by side
    group_bytes: int  # from one group to the next


@struct
class Rounded(Struct):
    """Activations and deltas rounded to bfloat16, where pairs are kept (`Plan.keeps_pairs`)."""

    along: int  # (rows, pairs of columns): those of a; from the backward pass on, of the deltas
    a: int  # (pairs of rows, columns); for tiles (columns, pairs of rows)
    delta: int  # (pairs of rows, columns) of the deltas
    row: int  # bytes from a row of `along` to the next
    column: int  # from a column of `a` to the next, for tiles
    blocks: Blocks  # how the deltas lie, and `a` otherwise


@struct
class Activation(Struct):
    """Callbacks: a from z, the deltas of z from those of a; with dropout also a stream's settings."""

    forward: int
    backward: int
    stream: int


@struct
class Normalisation(Struct):
    """Layer normalisation, where a layer has it: callbacks and arrays, else 0."""

    forward: int
    backward: int
    gain_sums: int
    gain: int  # the gain of a panel lies a vector behind its bias
    n: int  # (batch, fan_out) in blocks: the normalised products
    inverse_std: int  # (batch,)


@struct
class Output(Struct):
    """What the last layer calls for the error and the loss, or for softmax; 0 where it does not."""

    delta: int  # of a block of rows and columns, or all of a narrow layer
    delta_of_rows: int  # where whole rows are needed
    softmax: int


@struct
class Parameters(Struct):
    """A layer's parameters, or what the optimizer keeps of each: the caller's arrays."""

    W: int  # (fan_in, fan_out)
    b: int  # (fan_out,)
    g: int  # (fan_out,), in a normalised layer


@struct
class CallerArrays(Struct):
    """The arrays of the caller that a layer is packed from and unpacked to, all in C order."""

    parameters: Parameters
    first_state: Parameters
    second_state: Parameters
    z: int  # (rows, fan_out)
    a: int  # (rows, fan_out)
    n: int  # (rows, fan_out)
    inverse_std: int  # (rows,)


@struct
class Layer(Struct):
    fan_in: int
    fan_out: int
    panels: int  # of fan_out columns
    in_panels: int  # of fan_in columns
    part: int  # panels that are one worker's where they are cut in parts, see `Parts`; else 0
    narrow: int  # NOT_NARROW, OF_MANY_ROWS or OF_ONE_ROW
    W: Panels  # fan_in rows; a narrow layer's: [fan_in / V][fan_out][V]
    bias: Panels  # a vector in each panel; a narrow layer's: (fan_out,)
    WT: Panels  # the transpose of W, renewed after each update; 0 where nobody needs it
    mirrors: int  # whether copies of W are renewed with each piece of it
    W_pairs: Panels  # W and WT, rounded, (pairs of rows, columns): where pairs are kept
    WT_pairs: Panels
    direct: int  # what x.T @ delta does to W: ADDED, REPLACED or NOT_DIRECT (the rule gets it)
    gradient: int  # REPLACED: bytes from W to where x.T @ delta goes
    first_square: int  # where this layer's sums of squares begin, see Clipping
    z: int  # (batch, fan_out) in blocks; a narrow layer's: [fan_out][batch]
    a: int
    delta: int  # of the products
    dz: int  # of z: the same array as delta, unless the layer is normalised
    blocks: Blocks
    rounded: Rounded
    in_products: int  # whether the products themselves apply the activation, which then has no callbacks
    activation: Activation
    dropout: Activation
    normalisation: Normalisation
    output: Output
    caller: CallerArrays
    in_place: int  # whether W is the caller's array
    rows_in_place: int  # whether z and a are


NOT_NARROW, OF_MANY_ROWS, OF_ONE_ROW = 0, 1, 2  # Layer.narrow: z of many rows is [fan_out][batch]
# Where products round for themselves: the rows of A that are rounded at once, and the vectors of B.
PAIRED_ROWS, MOST_VECTORS = 64, 8
NOT_DIRECT, ADDED, REPLACED = 0, 1, 2  # Layer.direct


@struct
class Kernels(Struct):
    """Callbacks of kernels that all layers share."""

    product_along_k: int  # the microkernel, with A's numbers adjacent along k
    product_along_rows: int  # along the rows of C
    add_products: int  # the update from a batch of one row, where it is the plain one; else 0
    pack_inputs: int
    column_sums: int
    row_sums: int
    total: int
    update: int  # the optimizer's rule on a block of parameters
    product_and_update: int  # the same on the way of a product along the rows of C, or 0
    copy_in: int
    copy_out: int
    copy_columns_in: int
    copy_columns_out: int
    transpose: int
    gather: int
    prefetch: int
    prefetch_parameters: int  # the same, where weights and states come from far away, else 0
    dots: int
    dots_of_rows: int  # for a few rows, else 0
    add_parts: int
    round_pairs: int  # where pairs are kept
    round_tiles: int  # and products are of tiles
    clear: int


@struct
class Phases(Struct):
    """Callbacks of fastbp/engine/worker, which call each other by address; 0 where a plan does without."""

    run_forward: int
    run_backward: int
    gather_batch: int
    finish_update: int
    exchange_parameters: int
    sum_weights: int
    train: int
    evaluate: int
    gradients: int
    lose_patience: int
    round_rows: int  # where pairs are kept
    round_panels: int


@struct
class Clipping(Struct):
    """The gradient's norm. Where it is clipped, the gradient is kept in front of the optimizer's states."""

    limit: int  # 0, or bytes from a step's coefficients to the limit
    squares: int  # (count,) float64: sums of squares, one a panel and one for a narrow layer's biases
    count: int
    sum_squares: int  # callbacks
    factor: int
    update: int


@struct
class Penalty(Struct):
    """The model's own penalty on its weights, which is part of the loss."""

    count: int  # of the sums of squares, one a panel of weights; 0: there is no penalty
    squares: int  # (2, count) float64, since steps alternate
    factor: int  # address of one float64: what their sum is multiplied by
    sum_squares: int  # callbacks
    add: int


@struct
class MaxNorm(Struct):
    """The norm of a unit's incoming weights."""

    limit: int  # 0, or the address of it
    constrain: int  # callbacks, for panels and for a narrow layer
    constrain_across: int


@struct
class Source(Struct):
    """X or Y, as the caller has it."""

    address: int
    row: int  # bytes from a row to the next
    column: int  # bytes from a column to the next, where rows are converted
    read: int  # a callback that converts a row, or 0
    scale: int  # (columns,), or 0
    offset: int


@struct
class Gathered(Struct):
    """Room for two batches, for one, or for one of each worker; address 0: they are read where they lie."""

    address: int
    row: int
    batch: int  # bytes from one batch to the next


@struct
class Parts(Struct):
    """A narrow output layer's dot products are sums of parts."""

    count: int
    owned: int  # so many are owned by single workers; 1: none
    address: int  # twice `count` parts, since steps alternate
    part: int  # bytes of one
    zeros: int  # a row of them: what all parts but the first begin with
    own: int  # bytes of z, and of delta, of which each worker has its own


@struct
class Ending(Struct):
    """Whether the steps end before the last one, see worker/patience.py."""

    patience: int  # address of its numbers, or 0: they do not
    step: int  # behind which they ended, or 0


@struct
class Scratch(Struct):
    """Memory of each worker: some vectors, and room for a packed panel of its inputs."""

    vectors: int
    own: int  # bytes of vectors from one worker's to the next one's
    packed: int
    packed_row: int
    packed_worker: int  # bytes from one worker's to the next one's


@struct
class Plan(Struct):
    """What does not belong to one layer."""

    task: int  # what to do: the sum of PACK, TRAIN, ...
    layers: int
    lanes: int
    vector: int  # bytes
    itemsize: int
    many_registers: int  # whether there are 32 vector registers
    rounds: int  # whether products round to bfloat16 what they read, see kernels/bfloat16/
    keeps_pairs: int  # where they read what was rounded before, rows that stay together, else 0
    tiles: int  # whether these products are of tiles
    kernels: Kernels
    phases: Phases
    states: int  # arrays that the optimizer keeps of each parameter
    state: int  # bytes from a parameter to its first state, and to the next
    clipping: Clipping
    penalty: Penalty
    max_norm: MaxNorm
    depth: int  # rows of a batch that are added to the weights in one sweep over them
    block: int  # bytes of activations that stay in the second-level cache during a sweep over the weights
    packing_rows: int  # rows of a batch from which a packed panel of the inputs is worth its copy
    flags: int  # a cache line for each worker: the team's barrier
    scratch: Scratch
    x: Source
    y: Source
    y_columns: int
    samples: int
    batch: int  # rows of a step, at most
    steps_per_epoch: int
    order: int  # 0, or the rows' order: one permutation (samples,) for each epoch
    gathered_x: Gathered
    gathered_y: Gathered
    x_rounded: Rounded  # where pairs are kept: the batch's inputs
    own_batches: int  # whether each worker gathers all of a batch, for nobody else
    ahead: int  # what workers gather on the way of products, see worker/exchange.py; 0: nothing
    first_step: int
    last_step: int
    coefficients: int  # one row a step: the factor of the output's deltas, then the optimizer's numbers
    coefficients_row: int
    bias_coefficients: int  # bytes from a step's numbers to those for biases and gains; 0: they are the same
    losses: int  # float64, one a step
    ending: Ending
    noise: int  # a callback, or 0
    noise_stream: int
    steps_before: int  # steps of the model's life before step 0 of this run, for random numbers
    parts: Parts
    crowded: int  # address of entries/crowded_rows.Crowded, or 0
    stop: int  # address of a flag: not 0 ends the work early, its results are then void


PACK, TRAIN, FORWARD, BACKWARD, UNPACK, UNPACK_STATES, FINISH_UPDATE = 1, 2, 4, 8, 16, 32, 64

PLAN_BYTES, LAYER_BYTES, PARAMETERS_BYTES = size_of(Plan), size_of(Layer), size_of(Parameters)
SLOT_BYTES = 128  # a pair of cache lines, which cores fetch together

plan_at = view_of(Plan)
layer_view, _parameters = view_of(Layer), view_of(Parameters)


@inner
def layer_at(plan, i):
    """Layer i of the plan, counted from 0."""
    return layer_view(plan.here + PLAN_BYTES + i * LAYER_BYTES)


@inner
def top_layer(plan):
    return layer_at(plan, plan.layers - 1)


@inner
def caller_parameters(layer, k):
    """The caller's parameters of a layer (k = 0), or the k-th state of each."""
    return _parameters(layer.caller.here + k * PARAMETERS_BYTES)
