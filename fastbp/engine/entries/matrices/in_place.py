"""Products of a caller's matrices that read B where it lies: by the microkernel, or row by row of B."""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries.matrices import row_sweep
from fastbp.engine.entries.matrices.packed import (
    A_TRANSPOSED,
    PLAIN,
    a_from,
    column_of,
    rows_conflict,
    rows_of_block,
)
from fastbp.engine.kernels import matmul
from fastbp.engine.worker.operands import Block, Size, Start

# Up to so many k, what is written of a C of more than so many rows and so many bytes is what takes time: some
# rows are done at a time, so that a cache line of two panels is still near when the second one writes it.
# (256 x 9 x 1000 in float64 took 2.4 times as long.)
SHALLOW, TALL, ALONG = 32, 128, 64 * 1024
# Bytes of C in one sweep.
SWEPT = 16 * 1024


@inner
def start_of(job, k, column, distance, size):
    """What the sums begin with: zero or the bias, and from the second piece of the depth on what is there."""
    if k > 0:
        return Start(np.int64(0), np.int64(0), np.int64(matmul.FROM_C))
    if job.bias != 0:
        return Start(job.bias + column * size, distance, np.int64(matmul.FROM_ROW))
    return Start(np.int64(0), np.int64(0), np.int64(matmul.ZERO))


@inner
def rows_at_a_time(job, links, rows, panels):
    """How many rows of C go along so many panels: as many as A has in one block, or two tiles of them."""
    if job.depth > SHALLOW or rows <= TALL or rows * job.row * links.itemsize < ALONG or panels <= 2:
        return rows_of_block(job, links)
    tiles = (rows + links.height - 1) // links.height
    return 2 * ((rows + tiles - 1) // tiles)


@inner
def in_place(job, links, rows, panels):
    """Rows r0 to r1 and panels p0 to p1 of C with B where it lies: two panels at a time, four of so few
    rows that this is one tile: with fewer accumulators each would wait for itself. Rows of A that conflict
    come so few at a time, where multiply-adds leave no room to fetch them again."""
    (r0, r1), (p0, p1) = rows, panels
    size, lanes, zero = links.itemsize, links.lanes, np.int64(0)
    row, low = job.row * size, links.low
    # Panels that are not moved.
    first, last = (0 if job.before == 0 else 1), min(p1, (job.before + job.columns) // lanes)
    conflict = job.kind == PLAIN and links.passes > 1 and rows_conflict(job, links)
    block = low if conflict else rows_at_a_time(job, links, r1 - r0, p1 - p0)
    for top in range(r0, r1, block):
        count, panel = min(r1 - top, block), p0
        left = a_from(job, size, top, zero, job.depth)
        while panel < p1:
            width = 4 if count <= low and first <= panel and panel + 4 <= last else min(2, p1 - panel)
            column = column_of(job, lanes, panel)
            distance = lanes * size
            if width <= 2:  # one of them may be moved
                distance = (column_of(job, lanes, panel + width - 1) - column) * size
            b = Block(job.b + column * size, distance, row)
            c = Block(job.c + top * row + column * size, distance, row)
            start = start_of(job, zero, column, distance, size)
            call(links.k0, (Size(count, width, job.depth), left, b, c, start))
            panel += width


@inner
def few_rows(job, links, rows, panels):
    """Rows r0 to r1 and panels p0 to p1 of C, some rows at a time, row by row of B, so many columns that C
    stays in the first-level cache; a first panel that is moved, by itself. A last one that is moved back
    begins in columns of the same worker."""
    (r0, r1), (p0, p1) = rows, panels
    size, lanes, row = links.itemsize, links.lanes, job.row * links.itemsize
    step, zero = max(2, SWEPT // (min(r1 - r0, row_sweep.MOST) * lanes * size)), np.int64(0)
    for top in range(r0, r1, row_sweep.MOST):
        a, rows = a_from(job, size, top, zero, job.depth), min(r1 - top, row_sweep.MOST)
        a_row, a_k = (size, a.stride) if job.kind == A_TRANSPOSED else (a.stride, size)
        panel = p0
        while panel < p1:
            after = panel + 1 if panel == 0 and job.before != 0 else min(panel + step, p1)
            column = column_of(job, lanes, panel)
            columns = column_of(job, lanes, after - 1) + lanes - column
            bias = job.bias + column * size if job.bias != 0 else 0
            b, c = job.b + column * size, job.c + top * row + column * size
            call(links.k6, (a.address, a_row, a_k, rows, job.depth, b, row, columns, bias, c, row))
            panel = after
