"""What a plan is made for, what sizes follow from it, and the memory that it owns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastbp.engine.compile.arrays import data_at
from fastbp.engine.kernels import matmul, optimizers
from fastbp.engine.simd import amx
from fastbp.engine.simd.vector import isa
from fastbp.pages import LINE, aligned

# Panels of activations that lie side by side. Two: then a row is what one microkernel reads of it, and a
# product walks through consecutive cache lines (784-1024-10 at batch 256: 168 GFLOP/s instead of 155 on one
# core). All of them for a few rows, which take wide microkernels.
GROUP, FEW_ROWS = 2, 7
# Rows that a narrow output layer takes one by one, instead of a vector of rows at a time.
SINGLE_ROWS = 3
# Outputs up to which the last layer is laid out for few of them (see worker/narrow_output.py).
# Whatever the batch size: plans of one architecture share packed parameters (`Plan.step_with`).
NARROW_OUTPUTS = 12
# Panels that a part of a narrow layer's dot products has at least where there are more than two: a part ends
# with a tree of additions, as long as 1 or 2 panels take.
PART_PANELS = 4
# Two parts, where workers meet once in a step instead of four times, may be of fewer panels and of unequal
# size. For that a row has so many multiply-adds, below which a step is hardly worth a team, and so many for
# each dot product, of which one more tree is 6%; and of two workers one has not more to do, with so many
# rows, than three barriers and the lines that cross at them take.
HALVES_FROM, WORK_OF_TREE, MOST_UNEVEN, BATCH_OF_HALVES = 1_000, 280, 640, 64
# Bytes between panels, groups and partial sums that may be different workers': prefetching runs on behind the
# end of what one reads, by up to 20 lines, and would take lines that another one is about to write. So where
# steps are short, which is where panels are few (two workers take 0.81 times as long for 32 x 32-64-1, 0.88
# times for 50 x 19-45-7).
APART, FEW_PANELS = 2048, 16
# Multiply-adds of a step in bfloat16 from which what is rounded is kept (32 x 32-128-1 and 50 x 19-45-7 take
# 0.91 times as long without, 64 x 32-96-3 as long).
PAIRS_FROM = 400_000


def most_workers() -> int:
    """How many workers there may be in a team."""
    return max(1, int(numba.config.NUMBA_NUM_THREADS))


class Memory:
    """Arrays that live as long as the plan."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.uint8]] = []
        self.nbytes = 0

    def new(self, size: int) -> int:
        """The address of so many bytes of zeros."""
        memory = aligned(size)
        self.arrays.append(memory)
        self.nbytes += size
        return data_at(memory)


@dataclass(frozen=True)
class Design:
    """What a plan is for. Sizes are in bytes unless they say otherwise.

    layer_sizes, activations, loss : as in MLP, an activation for each layer.
    rule : what becomes of a gradient, a name in optimizers.RULES.
    batch : rows of a step, at most.
    use : "train"; "predict", for forward passes; or "trace", which keeps z and a apart, for forward passes
        whose z is wanted and for backward passes from given z and a.
    weighted : Y will have one more column, the weight of each row.
    dropout, input_noise : in training only, dropout for each hidden layer.
    key : of their random numbers, two integers of 32 bits.
    clip_norm : in training, whether the gradient's norm is clipped: the coefficients of each step end with
        the limit.
    max_norm : in training, the limit of the norm of each unit's incoming weights.
    precision : "bfloat16" if operands of products are rounded to that, else None.
    l2 : in training, half of it times the sum of squared weights is added to the loss of each step.
    layer_norm : the hidden layers are normalised, and their parameters have gains behind the biases.
    """

    layer_sizes: tuple[int, ...]
    activations: tuple[str, ...]
    loss: str
    dtype: np.dtype[Any]
    rule: str
    batch: int
    use: str
    weighted: bool = False
    dropout: Sequence[float] = ()
    input_noise: float = 0.0
    key: tuple[int, ...] = (0, 0)
    clip_norm: bool = False
    max_norm: float | None = None
    layer_norm: bool = False
    l2: float = 0.0
    precision: str | None = None

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        """(fan_in, fan_out) of each layer."""
        return list(itertools.pairwise(self.layer_sizes))

    @cached_property
    def vector(self) -> int:
        return int(isa().bytes)

    @cached_property
    def lanes(self) -> int:
        return self.vector // self.dtype.itemsize

    @cached_property
    def multiply_adds(self) -> int:
        """Of a training step."""
        first = self.shapes[0]
        return self.batch * (3 * sum(m * n for m, n in self.shapes) - first[0] * first[1])

    @cached_property
    def rounded(self) -> list[int]:
        """The layer sizes, rounded up to whole vectors."""
        return [-(-n // self.lanes) * self.lanes for n in self.layer_sizes]

    @cached_property
    def rounded_batch(self) -> int:
        return -(-self.batch // self.lanes) * self.lanes

    @cached_property
    def normalised(self) -> int:
        """How many layers are normalised: the first ones."""
        return len(self.shapes) - 1 if self.layer_norm else 0

    @cached_property
    def by_rows(self) -> bool:
        """Whether the last layer's deltas are taken of whole rows, after the products."""
        return self.weighted or self.activations[-1] == "softmax"

    @cached_property
    def narrow(self) -> bool:
        """Whether the last layer lies the other way round. Then it has dot products that are sums of their
        own, in an order of their own: they are not there in bfloat16."""
        if self.use != "train" or self.precision is not None:
            return False
        return len(self.shapes) > 1 and self.layer_sizes[-1] <= NARROW_OUTPUTS

    @cached_property
    def keeps_pairs(self) -> bool:
        """Whether what products in bfloat16 read is kept rounded. In a large step it is read more than once;
        elsewhere products round for themselves, so that they can read the caller's own arrays."""
        large = self.multiply_adds >= PAIRS_FROM
        return self.precision is not None and self.use == "train" and large

    @cached_property
    def tiles(self) -> bool:
        """Whether products of what is kept are of tiles."""
        return self.keeps_pairs and amx.available()

    @cached_property
    def together(self) -> int:
        """Of so many numbers along the depth products of what is kept want a multiple: a tile's, or 2."""
        return 2 * amx.PAIRS if self.tiles else 2

    def of_whole_tiles(self, count: int) -> int:
        """So many numbers along the depth of a product, rounded up to what stays together."""
        return -(-count // self.together) * self.together

    @cached_property
    def rounds(self) -> bool:
        """Whether products round for themselves."""
        return self.precision is not None and not self.keeps_pairs

    @cached_property
    def updates_within_products(self) -> bool:
        """Whether a block of weights is updated while the next one's gradient is multiplied: where there are
        registers for it, and where tiles follow each other whose products are deep enough."""
        if self.use != "train" or self.precision is not None or isa().registers != 32:
            return False
        if self.rule in ("add", "sum") or self.clip_norm:  # these only store
            return False
        tallest = matmul.shapes()[2]
        return self.batch >= 2 * tallest and any(
            fan_in > tallest and fan_out > self.lanes and not self.is_narrow(i)
            for i, (fan_in, fan_out) in enumerate(self.shapes)
        )

    @cached_property
    def of_one_row(self) -> bool:
        """Whether z and delta of a narrow layer are one row, as in other layers."""
        return self.batch == 1 and not self.by_rows

    @cached_property
    def parts(self) -> int:
        """How many parts a narrow layer's dot products have: as many as workers may want to own."""
        panels = self.rounded[-2] // self.lanes
        if not self.narrow or self.batch <= SINGLE_ROWS or len(self.shapes) - 1 == self.normalised:
            return 1
        parts = 2 if self._pays_in_halves else 1
        while panels % (2 * parts * GROUP) == 0 and panels // (2 * parts) >= PART_PANELS:
            parts *= 2
        return parts

    @cached_property
    def _pays_in_halves(self) -> bool:
        """Whether two parts pay where fan_in is few panels, or these cannot be shared equally. However large
        the batch is: a row's sums do not depend on that."""
        panels, half, work = (
            self.rounded[-2] // self.lanes,
            self._panels_of(2),
            self.multiply_adds // self.batch,
        )
        trees = self.layer_sizes[-1]
        return (
            half < panels
            and work >= max(HALVES_FROM, WORK_OF_TREE * trees)
            and (half / panels - 1 / 2) * work <= MOST_UNEVEN
        )

    @cached_property
    def owned_parts(self) -> int:
        """So many parts may be shared by workers, each part one worker's: all, or where they are too unequal
        for so large a batch, 1."""
        panels = self.rounded[-2] // self.lanes
        uneven = self.panels_of_part * self.parts / panels - 1 if self.parts > 1 else 0
        return self.parts if uneven * self.multiply_adds <= 2 * BATCH_OF_HALVES * MOST_UNEVEN else 1

    @cached_property
    def panels_of_part(self) -> int:
        """Of fan_in of a narrow layer; the last part may have fewer. 0: there is one part."""
        return self._panels_of(self.parts) if self.parts > 1 else 0

    def _panels_of(self, parts: int) -> int:
        """Workers' panels are whole cache lines apart: one, or a group."""
        together = 1 if self.vector >= LINE else GROUP
        return -(-self.rounded[-2] // (self.lanes * parts * together)) * together

    def is_narrow(self, i: int) -> bool:
        return self.narrow and i == len(self.shapes) - 1

    def apart(self, i: int) -> int:
        """Bytes between the panels of layer i, counted from 0 for the inputs: workers may own neighbours. It
        depends on the architecture alone, since plans of one architecture share parameters."""
        panels = self.rounded[i] // self.lanes
        short = self.multiply_adds < HALVES_FROM * self.batch  # nobody tries a team
        return 0 if short or panels == 1 or panels > FEW_PANELS else APART

    def panel_bytes(self, i: int) -> int:
        """From one panel of a layer's parameters to the next: weights, the bias, the gain. For a narrow layer
        a panel is one of fan_in."""
        if self.is_narrow(i):
            return self.layer_sizes[-1] * self.vector + self.apart(i)
        return (self.rounded[i] + 1 + (i < self.normalised)) * self.vector + self.apart(i + 1)

    @cached_property
    def packed(self) -> list[int]:
        """Of each layer's parameters."""
        sizes = [self.rounded[i + 1] // self.lanes * self.panel_bytes(i) for i in range(len(self.shapes))]
        if self.narrow:
            last = len(self.shapes) - 1
            panels = self.rounded[-2] // self.lanes * self.panel_bytes(last)
            sizes[-1] = panels + self.rounded[-1] * self.dtype.itemsize
        return sizes

    @cached_property
    def transposed(self) -> list[int]:
        """Of each layer's transposed weights, which the first layer and a narrow one do without."""
        sizes = [self.rounded[i] * self.rounded[i + 1] * self.dtype.itemsize for i in range(len(self.shapes))]
        return [0 if i == 0 or self.is_narrow(i) else size for i, size in enumerate(sizes)]

    @cached_property
    def states(self) -> int:
        """Arrays that the rule keeps of each parameter."""
        return int(optimizers.RULES[self.rule].states)
