"""Room for what is kept rounded to bfloat16, in pairs or for tiles; see worker/operands.py."""

from __future__ import annotations

from fastbp.engine.memory import FEW_ROWS, GROUP, Design, Memory
from fastbp.engine.structs import Layer, Rounded
from fastbp.engine.worker.operands import BYTES
from fastbp.pages import LINE


def of_layer(layer: Layer, design: Design, memory: Memory, i: int) -> None:
    """Room for a layer's weights, activations and deltas."""
    for weights, rows, panels in (
        (layer.W_pairs, design.rounded[i], layer.panels),
        *(((layer.WT_pairs, design.rounded[i + 1], layer.in_panels),) if i > 0 else ()),
    ):
        weights.row, weights.panel = design.vector, design.of_whole_tiles(rows) // 2 * design.vector
        weights.address = memory.new(panels * weights.panel)
    size = of_batch(layer.rounded, design, memory, i + 1)
    # (Of a the last layer has none; for tiles it would lie in another way.)
    last = i == len(design.shapes) - 1
    layer.rounded.delta = layer.rounded.a if last and not design.tiles else memory.new(size)


def of_batch(rounded: Rounded, design: Design, memory: Memory, i: int) -> int:
    """Room for a batch of inputs (i = 0) or of layer i; the bytes of what is rounded across its rows."""
    panels, blocks = design.rounded[i] // design.lanes, rounded.blocks
    rows = max(design.rounded_batch, design.of_whole_tiles(design.batch))
    # Neither rows nor groups of them are to share cache sets: an odd number of lines from one to the next.
    rounded.row = -(-panels * design.vector // 2 // (2 * LINE)) * 2 * LINE + LINE
    rounded.along = memory.new(rows * rounded.row)
    group = panels if design.batch <= FEW_ROWS else min(GROUP, panels)
    blocks.row, blocks.group = group * design.vector, group
    blocks.group_bytes = rows // 2 * blocks.row + LINE
    size = -(-panels // group) * blocks.group_bytes
    if design.tiles:
        rounded.column = -(-rows * BYTES // (2 * LINE)) * 2 * LINE + LINE
    rounded.a = memory.new(design.rounded[i] * rounded.column if design.tiles else size)
    return size
