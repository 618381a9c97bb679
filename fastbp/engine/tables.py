"""Fills in what compiled code reads of a network (structs.py): sizes, addresses of arrays, addresses of
compiled callbacks."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine import pairs
from fastbp.engine.compile import jit
from fastbp.engine.kernels import (
    activations,
    copies,
    layer_norm,
    losses,
    matmul,
    narrow_output,
    optimizers,
    reductions,
)
from fastbp.engine.kernels.bfloat16 import amx, products, rounding
from fastbp.engine.kernels.random import dropout, noise
from fastbp.engine.memory import APART, FEW_ROWS, GROUP, SINGLE_ROWS, Design, Memory, most_workers
from fastbp.engine.simd import philox
from fastbp.engine.simd.vector import isa
from fastbp.engine.structs import (
    ADDED,
    MOST_VECTORS,
    NOT_DIRECT,
    OF_MANY_ROWS,
    OF_ONE_ROW,
    PAIRED_ROWS,
    REPLACED,
    Layer,
    Plan,
)
from fastbp.engine.worker import train
from fastbp.engine.worker.operands import BAD_STRIDE, TILE_VECTORS
from fastbp.formulas import philox as philox_numbers
from fastbp.pages import LINE

# Bytes of activations kept in the second-level cache during a sweep over the weights; a core here has 2 MB.
BLOCK = 768 * 1024
# Rows of a batch whose part of a weight gradient is summed in one sweep (1024 x 1024-2048: 4% faster than all
# of them at once).
DEPTH = 512
# Multiply-adds of a step from which microkernels prefetch: about where the matrices outgrow the first-level
# cache. With AVX-512 only: the tiles of fewer registers want less of A and B in a cycle, which hardware
# foresees in time (AVX2, Zen 3: 784-256-10 took 1.2 times as long with it).
PREFETCH_FROM_MULTIPLY_ADDS = 30_000_000
# Bytes of parameters and states from which a block of them is asked for before the product that becomes their
# gradient: about half of a small second-level cache. (784-256-10 at batch 200 with Adam: 10% of a step; in
# smaller networks up to as much lost.)
PREFETCH_FROM_BYTES = 256 * 1024
# Rows of a batch from which packed panels of the inputs are worth their copies. Not where a multiply-add
# takes two passes: then there is time for the loads of a strided column behind it, and none for a copy of it
# first (Zen 4: steps up to 1.2 times as fast, 784-256-10 at batch 128 1.09 times).
PACKING_ROWS, NEVER = 48, 1 << 62
# The first-level cache has so many lines, in so many sets. From so many rows of a batch on,
# weights whose lines have to share sets are worth a copy (AVX2, Zen 3: 784-256-10 at 128 rows takes 0.87
# times as long, at 8 rows 1.1 times). Not for the taller microkernels of AVX-512, which meet each line less
# often (Zen 4: with a copy a step of 784-128-10 at 32 rows takes 1.1 times as long on one core, and 1.3 on
# two, between which lines then cross).
CACHE_LINES, CACHE_SETS, MANY_ROWS = 512, 64, 16
# Bytes between two workers' packed panels: prefetching runs on behind the end of one's own, and would take
# lines that the other is about to write (784-256-10 at batch 128: the second worker's copies took twice as
# long). A page, so that both have the same place in the cache.
PACKED_APART = 4096


def packing_rows() -> int:
    """Rows of a batch from which packed panels of the inputs are worth their copies, on this CPU."""
    return NEVER if isa().two_passes else PACKING_ROWS


def fill_in(plan: Plan, layers: list[Layer], design: Design, memory: Memory) -> int:
    """All that does not depend on the caller's arrays. Returns the address of the packed parameters, which
    are sum(design.packed) bytes; the optimizer's states lie behind them."""
    plan.layers, plan.lanes = len(layers), design.lanes
    plan.vector, plan.itemsize = design.vector, design.dtype.itemsize
    plan.many_registers, plan.depth, plan.block = int(isa().registers == 32), DEPTH, BLOCK
    plan.batch, plan.steps_per_epoch, plan.last_step = design.batch, 1, 1
    plan.parts.count = plan.parts.owned = 1
    plan.states, plan.state = design.states, sum(design.packed)
    if not jit.ahead(lambda: _called(plan, design)):
        _called(plan, design)
    w = packed = memory.new(sum(design.packed) * (1 + design.clip_norm + design.states))
    wt = memory.new(sum(design.transposed))
    squares = 0
    for i, layer in enumerate(layers):
        _sizes(layer, design, i)
        _parameters(layer, design, i, w, wt)
        if design.is_narrow(i):
            _narrow(plan, layer, design, memory)
        else:
            _activations(layer, design, memory, i)
        if design.keeps_pairs:
            pairs.of_layer(layer, design, memory, i)
        if i >= len(layers) - 2:
            layer.part = design.panels_of_part
        _callbacks(layer, design, memory, i)
        layer.first_square = squares
        squares += layer.in_panels + 1 if design.is_narrow(i) else layer.panels
        w += design.packed[i]
        wt += design.transposed[i]
    _limits(plan, design, memory, squares)
    if design.l2:
        _penalty(plan, layers, design, memory)
    _scratch(plan, design, memory)
    if design.keeps_pairs:
        pairs.of_batch(plan.x_rounded, design, memory, 0)
    if design.input_noise and design.use == "train":
        plan.noise = noise.add_noise(design.dtype.name)
        plan.noise_stream = _stream(design, memory, 0, design.input_noise)
    return packed


def _called(plan: Plan, design: Design) -> None:
    """The addresses of what all networks call."""
    _kernels(plan, design)
    finishes = design.clip_norm or design.max_norm is not None
    more = {"finish_update": finishes, "sum_weights": design.l2}
    more |= dict.fromkeys(("round_rows", "round_panels"), design.keeps_pairs)
    for name in (*train.CALLED[design.use], *(name for name, wanted in more.items() if wanted)):
        setattr(plan.phases, name, train.address_of(name))


def _kernels(plan: Plan, design: Design) -> None:
    """What all networks call, and what a narrow output layer does."""
    kernels, name = plan.kernels, design.dtype.name
    far = design.multiply_adds >= PREFETCH_FROM_MULTIPLY_ADDS and isa().registers == 32
    if design.precision is None:
        kernels.product_along_k = matmul.microkernel(name, matmul.ALONG_K, prefetch=far)
        kernels.product_along_rows = matmul.microkernel(name, matmul.ALONG_ROWS, prefetch=far)
    elif design.tiles:
        kernels.product_along_k = kernels.product_along_rows = amx.product()
        kernels.round_pairs, kernels.round_tiles = rounding.round_pairs(), rounding.round_tiles()
        kernels.clear = rounding.clear()
    elif design.keeps_pairs:
        kernels.product_along_k = products.product_of_pairs(matmul.ALONG_K, prefetch=far)
        kernels.product_along_rows = products.product_of_pairs(matmul.ALONG_ROWS, prefetch=far)
        kernels.round_pairs = rounding.round_pairs()
    else:
        kernels.product_along_k = products.microkernel(matmul.ALONG_K)
        kernels.product_along_rows = products.microkernel(matmul.ALONG_ROWS)
    kernels.total, kernels.column_sums = reductions.total(name), reductions.column_sums(name)
    kernels.copy_in, kernels.copy_out = copies.copy_rows(name, into=True), copies.copy_rows(name, into=False)
    kernels.transpose, kernels.gather = copies.transpose(name), copies.gather(name)
    kernels.prefetch = copies.prefetch_rows()
    if (1 + design.states) * sum(design.packed) >= PREFETCH_FROM_BYTES:
        kernels.prefetch_parameters = kernels.prefetch
    kept = "gradient" + (optimizers.L2 if design.rule.endswith(optimizers.L2) else "")
    kernels.update = optimizers.update(kept if design.clip_norm else design.rule, name)
    if design.updates_within_products:
        kernels.product_and_update = optimizers.product_and_update(design.rule, name, prefetch=far)
    if design.use == "train" and design.rule == "add" and design.batch == 1 and design.precision is None:
        kernels.add_products = optimizers.add_products(name)
    if not design.narrow:
        return
    if design.batch <= SINGLE_ROWS:
        kernels.dots_of_rows = narrow_output.dots_of_rows(name)
    else:
        kernels.dots = narrow_output.dots(name)
    if not design.of_one_row:
        kernels.row_sums = reductions.row_sums(name)
    if design.parts > 1:
        kernels.add_parts = narrow_output.add_parts(name)
    kernels.copy_columns_in = copies.copy_columns(name, into=True)
    kernels.copy_columns_out = copies.copy_columns(name, into=False)


def _sizes(layer: Layer, design: Design, i: int) -> None:
    layer.fan_in, layer.fan_out = design.shapes[i]
    layer.panels, layer.in_panels = design.rounded[i + 1] // design.lanes, design.rounded[i] // design.lanes
    most = MOST_VECTORS if design.rounds else GROUP
    group = layer.panels if design.batch <= FEW_ROWS else min(most, layer.panels)
    layer.blocks.group, layer.blocks.row = group, group * design.vector
    layer.blocks.group_bytes = design.rounded_batch * layer.blocks.row + design.apart(i + 1)


def _parameters(layer: Layer, design: Design, i: int, w: int, wt: int) -> None:
    """Where W, b, the gain and the transpose of W lie; w, wt: where there is room for them."""
    vector, panel = design.vector, design.panel_bytes(i)
    copied = design.keeps_pairs or (i > 0 and not design.is_narrow(i))
    layer.mirrors = int(copied and not design.clip_norm and design.max_norm is None)
    layer.direct = ADDED if design.rule == "add" else NOT_DIRECT
    layer.W.address, layer.W.panel, layer.W.row = w, panel, vector
    layer.bias.address, layer.bias.panel = w + design.rounded[i] * vector, panel
    if i < design.normalised:
        layer.normalisation.gain = w + (design.rounded[i] + 1) * vector
    if design.is_narrow(i):
        layer.bias.address = w + layer.in_panels * panel
    elif i > 0:
        layer.WT.address, layer.WT.panel, layer.WT.row = wt, design.rounded[i + 1] * vector, vector


def _activations(layer: Layer, design: Design, memory: Memory, i: int) -> None:
    """Room for z, a and the deltas."""
    name, last = design.activations[i], i == len(design.shapes) - 1
    size = -(-layer.panels // layer.blocks.group) * layer.blocks.group_bytes
    layer.z, layer.delta = memory.new(size), memory.new(size)
    layer.a, layer.dz = layer.z, layer.delta
    needed = not last and activations.ACTIVATIONS[name].needs_z
    if {"predict": False, "train": needed, "trace": name != "identity"}[design.use]:
        layer.a = memory.new(size)
    if i < design.normalised:
        layer.normalisation.n = memory.new(size)
        layer.normalisation.inverse_std = memory.new(design.rounded_batch * design.dtype.itemsize)
        if design.use != "predict":
            layer.dz = memory.new(size)


def _narrow(plan: Plan, layer: Layer, design: Design, memory: Memory) -> None:
    """Room for z and delta of a narrow output layer, and for the parts of its dot products."""
    itemsize, parts = design.dtype.itemsize, design.parts
    layer.narrow = OF_ONE_ROW if design.of_one_row else OF_MANY_ROWS
    layer.blocks.row = itemsize if design.of_one_row else design.rounded_batch * itemsize
    room = design.rounded[-1] if design.of_one_row else layer.fan_out * design.rounded_batch
    own = -(-room * itemsize // LINE) * LINE + APART  # no two workers write to neighbouring lines
    owners = min(most_workers(), parts)
    layer.z, layer.delta = memory.new(own * owners), memory.new(own * owners)
    layer.a, layer.dz = layer.z, layer.delta
    plan.parts.count, plan.parts.own, plan.parts.owned = parts, own, design.owned_parts
    if parts > 1:
        plan.parts.address, plan.parts.part = memory.new(2 * parts * own), own
        plan.parts.zeros = memory.new(design.rounded[-1] * itemsize)


def _callbacks(layer: Layer, design: Design, memory: Memory, i: int) -> None:
    """What the layer calls."""
    name, dtype, last = design.activations[i], design.dtype.name, i == len(design.shapes) - 1
    trains = design.use != "predict"
    if i < design.normalised:
        layer.normalisation.forward = layer_norm.forward(dtype)
        if trains:
            layer.normalisation.backward = layer_norm.backward(dtype)
            layer.normalisation.gain_sums = reductions.column_sums_of_products(dtype)
    if last:
        _output(layer, design)
        return
    p = design.dropout[i] if design.use == "train" and design.dropout else 0.0
    if p:
        layer.dropout.forward = dropout.forward(name, dtype)
        layer.dropout.backward = dropout.backward(name, dtype)
        layer.dropout.stream = _stream(design, memory, i + 1, 1 / philox_numbers.keep(p), p)
    elif name == "relu" and i >= design.normalised and not design.rounds and layer.z == layer.a:
        layer.in_products = 1
    else:
        layer.activation.forward = activations.forward(name, dtype)
        if trains:
            layer.activation.backward = activations.backward(name, dtype)


def _output(layer: Layer, design: Design) -> None:
    """What the last layer calls."""
    name, loss, dtype, weighted = design.activations[-1], design.loss, design.dtype.name, design.weighted
    trace = design.use == "trace"
    if design.use != "train":  # in training its deltas are taken instead
        if name == "softmax":
            layer.output.softmax = activations.softmax(dtype)
        else:
            layer.activation.forward = activations.forward(name, dtype)
    if design.use == "predict":
        return
    if layer.narrow == OF_MANY_ROWS:
        layer.output.delta = losses.narrow_output_delta(name, loss, dtype, weighted=weighted)
    elif design.by_rows:
        layer.output.delta_of_rows = losses.output_delta_of_rows(
            name, loss, dtype, activated=trace, weighted=weighted
        )
    else:
        layer.output.delta = losses.output_delta(name, loss, dtype, activated=trace)


def _limits(plan: Plan, design: Design, memory: Memory, squares: int) -> None:
    """Of the gradient's norm and of the weights'; squares: how many sums of squares there are."""
    name = design.dtype.name
    if design.clip_norm:
        clipping = plan.clipping
        clipping.limit = (1 + len(optimizers.RULES[design.rule].coefficients)) * design.dtype.itemsize
        clipping.squares, clipping.count = memory.new(8 * squares), squares
        clipping.sum_squares, clipping.factor = reductions.squares(name), reductions.clip_factor(name)
        clipping.update = optimizers.update_of_clipped(design.rule, name)
    if design.max_norm is not None:
        plan.max_norm.constrain = reductions.constrain(name, across=False)
        plan.max_norm.constrain_across = reductions.constrain(name, across=True)
        plan.max_norm.limit = memory.new(8)
        memory.arrays[-1].view(np.float64)[:] = design.max_norm


def _penalty(plan: Plan, layers: list[Layer], design: Design, memory: Memory) -> None:
    """Of the penalty on the weights, which is added to the loss."""
    penalty, name = plan.penalty, design.dtype.name
    penalty.count = sum(layer.in_panels if layer.narrow else layer.panels for layer in layers)
    penalty.squares, penalty.factor = memory.new(2 * 8 * penalty.count), memory.new(8)
    set_penalty(plan, design.l2)
    penalty.sum_squares, penalty.add = reductions.squares(name), reductions.add_sum(name)


def set_penalty(plan: Plan, l2: float) -> None:
    """What its sum of squares is multiplied by, for steps to come."""
    ctypes.c_double.from_address(plan.penalty.factor).value = l2 / 2


def _scratch(plan: Plan, design: Design, memory: Memory) -> None:
    """What each worker has for itself."""
    workers, scratch = most_workers(), plan.scratch
    plan.keeps_pairs, plan.tiles = design.together if design.keeps_pairs else 0, int(design.tiles)
    plan.rounds = int(design.rounds)
    scratch.own = (PAIRED_ROWS * MOST_VECTORS if plan.rounds else 2 * TILE_VECTORS) * design.vector
    scratch.vectors = memory.new(workers * scratch.own)
    # Products in bfloat16 pack for themselves. (And how many rows are taken at a time would depend on the
    # number of threads: which of them are pairs must not.)
    plan.packing_rows = packing_rows() if design.precision is None else NEVER
    if design.batch >= plan.packing_rows:
        plan.kernels.pack_inputs = copies.pack_inputs(design.dtype.name)
        scratch.packed_row = -(-matmul.shapes()[2] // design.lanes) * design.vector
        scratch.packed_worker = design.batch * scratch.packed_row + PACKED_APART
        scratch.packed = memory.new(workers * scratch.packed_worker)


def _stream(design: Design, memory: Memory, layer: int, factor: float, p: float = 0.0) -> int:
    """The settings of a layer's random numbers, as philox.py lists them."""
    address, itemsize = memory.new(philox.SETTINGS), design.dtype.itemsize
    settings = memory.arrays[-1][: philox.SETTINGS]
    settings.view(np.int64)[:4] = *design.key, philox_numbers.threshold(p), layer
    numbers = settings.view(design.dtype)[4 * 8 // itemsize :: 8 // itemsize]
    numbers[:] = factor, philox_numbers.keep(p)
    return address


def crowds(layer: Layer, design: Design) -> bool:
    """Whether panels of the caller's own rows of weights have lines that want the same few places in the
    cache, and are used so often that a copy in panels pays. (One row of a batch updates weights along their
    rows. A gradient is written once: copied from panels, that of 784-1024-10 at batch 256 took a sixteenth
    more.)"""
    row = layer.fan_out * design.dtype.itemsize
    if layer.direct == REPLACED:
        return False
    if layer.direct and row % BAD_STRIDE == 0:
        return design.batch > 1
    if isa().registers == 32:
        return False
    places = CACHE_LINES // math.gcd(max(row // LINE, 1), CACHE_SETS)
    return design.batch >= MANY_ROWS and layer.fan_in > places


def blocks(layers: Sequence[Layer], design: Design) -> list[tuple[int, int, int, int, int]]:
    """All packed parameters in blocks: address, bytes from a panel to the next, rows of vectors, panels, and
    whether they are biases and gains."""
    found, vector = [], design.vector
    for i, layer in enumerate(layers):
        w, b, panel = layer.W.address, layer.bias.address, layer.W.panel
        if layer.narrow:  # all weights, then all biases
            found += [(w, panel, layer.fan_out, layer.in_panels, 0), (b, vector, 1, layer.panels, 1)]
        else:
            found += [(w, panel, design.rounded[i], layer.panels, 0)]
            found += [(b, panel, 1 + (i < design.normalised), layer.panels, 1)]
    return found


def bias_coefficients(design: Design, coefficients: NDArray[Any]) -> int:
    """Bytes from a step's numbers to those for biases and gains, where each row of them has both, else 0."""
    width = 1 + len(optimizers.RULES[design.rule].coefficients) + design.clip_norm
    numbers = coefficients.shape[1]
    return numbers // 2 * coefficients.itemsize if numbers > width else 0
