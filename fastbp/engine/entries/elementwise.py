"""Elementwise kernels, softmax and column sums of a caller's own C-ordered arrays: who does which part.

Every number of the result is the work of one worker, and the cuts lie at whole cache lines where memory does.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import allocate, call, release
from fastbp.engine.compile.struct import Struct, struct, view_of
from fastbp.engine.entries.launch import links_at
from fastbp.engine.kernels import activations, copies, reductions
from fastbp.engine.worker.partition import Worker, part_in_pieces, part_of

# Numbers that are never cut: some cache lines of either dtype.
PIECE = 256
# Bytes of rows that softmax copies at a time: they stay in the first-level cache.
ROWS_BYTES = 12 * 1024


@struct
class Elementwise(Struct):
    """out = f(x, y, z, scalar) of `count` numbers; scalar: the bits of a float64."""

    links: int
    x: int
    y: int
    z: int
    out: int
    count: int
    scalar: int


@struct
class CallersRows(Struct):
    """Softmax of z, (rows, columns)."""

    links: int
    z: int
    out: int
    rows: int
    columns: int


@struct
class Sums(Struct):
    """out, (blocks, columns): the sums over each block of `block` rows of d, (rows, columns)."""

    links: int
    d: int
    out: int
    rows: int
    columns: int
    block: int


_elementwise_at, _rows_at, _sums_at = view_of(Elementwise), view_of(CallersRows), view_of(Sums)


def _elementwise(t, n, address):
    """Worker t's share of the numbers."""
    job, worker = _elementwise_at(address), Worker(t, n)
    links = links_at(job.links)
    first, last = part_in_pieces(job.count, PIECE, worker)
    here = first * links.itemsize
    arrays = (job.x + here, job.y + here, job.z + here, job.out + here)
    call(links.k0, (arrays, last - first, job.scalar))


def _softmax(t, n, address):
    """Worker t's rows."""
    job, worker = _rows_at(address), Worker(t, n)
    links = links_at(job.links)
    r0, r1 = part_of(job.rows, worker)
    row, vector = job.columns * links.itemsize, links.lanes * links.itemsize
    panels = (job.columns + links.lanes - 1) // links.lanes
    if job.columns % links.lanes == 0:
        here = r0 * row
        call(links.k0, (job.z + here, job.out + here, r1 - r0, job.columns, row, panels, np.int64(0)))
        return
    step = max(1, ROWS_BYTES // (panels * vector))
    block = allocate(min(step, job.rows) * panels * vector)
    for top in range(r0, r1, step):
        rows = min(step, r1 - top)
        whole = panels * vector
        call(links.k1, (job.z + top * row, row, block, whole, vector, rows, job.columns))
        call(links.k0, (block, block, rows, job.columns, whole, panels, np.int64(0)))
        call(links.k2, (job.out + top * row, row, block, whole, vector, rows, job.columns))
    release(block)


def _sums(t, n, address):
    """Worker t's part: some blocks of rows, or where there is one block, some columns. columns: at least as
    many as a vector has lanes."""
    job, worker = _sums_at(address), Worker(t, n)
    links = links_at(job.links)
    size, lanes = links.itemsize, links.lanes
    row, vector = job.columns * size, lanes * size
    blocks, panels = (job.rows + job.block - 1) // job.block, job.columns // lanes
    b0, b1, p0, p1 = 0, blocks, 0, panels
    if blocks > 1:
        b0, b1 = part_of(blocks, worker)
    else:
        p0, p1 = part_of(panels, worker)
    if p0 == p1:
        return
    for i in range(b0, b1):
        rows = min(job.block, job.rows - i * job.block)
        d, out = job.d + i * job.block * row, job.out + i * row
        call(links.k0, (d + p0 * vector, rows, p1 - p0, row, out + p0 * vector))
        if p1 == panels and job.columns % lanes != 0:
            # A vector that is moved back to where the row ends: it shares columns with the one before, whose
            # sums are done.
            last = (job.columns - lanes) * size
            call(links.k0, (d + last, rows, np.int64(1), row, out + last))


def elementwise() -> int:
    return jit.address_of("kernels-elementwise", jit.void(3), lambda: _elementwise, driver=True)


def softmax() -> int:
    return jit.address_of("kernels-softmax", jit.void(3), lambda: _softmax, driver=True)


def sums() -> int:
    return jit.address_of("kernels-sums", jit.void(3), lambda: _sums, driver=True)


def softmax_of(dtype: str) -> list[int]:
    """What `_softmax` calls."""
    return [
        activations.softmax(dtype),
        copies.copy_rows(dtype, into=True),
        copies.copy_rows(dtype, into=False),
    ]


def sums_of(dtype: str) -> list[int]:
    """What `_sums` calls."""
    return [reductions.sum_of_rows(dtype)]
