"""Products with fewer columns than a vector has lanes, and those of a few rows with a transposed matrix.

    A @ B      by the rows of B, or several side by side (few_columns.py)
    A @ B.T    dot products along the depth, as in a narrow output layer (kernels/narrow_output.py)
    A.T @ B    sums of outer products, in vectors that are narrower (narrow_tiles.py)

The matrices are the caller's (see products.py): what is not made of whole vectors is copied to where it is,
filled up with zeros.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.matrices.few_columns import ROOM, few_columns
from fastbp.engine.entries.matrices.narrow_tiles import narrow_tiles
from fastbp.engine.entries.matrices.packed import product_at
from fastbp.engine.kernels import copies, matmul, narrow_output
from fastbp.engine.worker.operands import Block, Left, Size, Start
from fastbp.engine.worker.partition import Worker, part_of

# From so many k on, and more the more columns there are, it takes less time to turn C.T over than to have
# vectors that are not full. Rows of C.T up to which four vectors have their sums in registers.
DEEP, LOW = 16, 7


@inner
def whole(count, lanes):
    """How many vectors hold so many numbers."""
    return (count + lanes - 1) // lanes


@inner
def rows_of_dots(job, links, rows, w, result):
    """z[o, r] = bias[o] + x[r] . w[o] for rows r0 to r1 of x, the caller's. result: z, and from o to o."""
    (x, outputs, r0, r1), (z, z_row) = rows, result
    lanes, size, depth = links.lanes, links.itemsize, job.depth
    vector, row = lanes * size, depth * size
    blocks = (r1 - r0) // lanes
    call(links.k1, (x + r0 * row, row, depth, w, outputs * vector, outputs, job.bias, z, z_row, blocks))
    left = r1 - r0 - blocks * lanes
    if left > 0:
        r0, z = r1 - left, z + blocks * vector
        call(links.k2, (x + r0 * row, row, left, depth, w, outputs * vector, outputs, job.bias, z, z_row))


def _dots(t, n, address):
    """Worker t's part of A @ B.T: C[r, o] (or where rows are few, C[o, r]) as dot products."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    lanes, size = links.lanes, links.itemsize
    vector, panels = lanes * size, whole(job.depth, lanes)
    swapped = job.columns >= lanes  # then the few rows of A are what others call the weights
    x, rows, outputs = (job.b, job.columns, job.rows) if swapped else (job.a, job.rows, job.columns)
    weights = job.a if swapped else job.b
    first, last = part_of(whole(rows, lanes), worker)
    if first == last:
        return
    first, last = first * lanes, min(last * lanes, rows)
    if outputs == 1:  # then what is adjacent here is adjacent there, too
        rows_of_dots(job, links, (x, outputs, first, last), weights, (job.c + first * size, np.int64(0)))
        return
    of_w = panels * outputs * vector
    memory = np.empty(of_w + outputs * vector + vector, np.uint8)
    w = (memory.ctypes.data + vector - 1) // vector * vector
    call(links.k0, (weights, job.depth * size, w, vector, outputs * vector, outputs, job.depth))
    if swapped:
        rows_of_dots(job, links, (x, outputs, first, last), w, (job.c + first * size, job.columns * size))
    else:
        z, row = w + of_w, outputs * size
        for r in range(first, last, lanes):
            count = min(lanes, last - r)
            rows_of_dots(job, links, (x, outputs, r, r + count), w, (z, vector))
            call(links.k3, (job.c + r * row, row, z, outputs * vector, count, outputs))
    memory[0] = 0  # which lives as long as it is used


def dots_of(dtype: str) -> list[int]:
    """What `_dots` calls."""
    return [
        copies.copy_rows(dtype, into=True),
        narrow_output.dots_of_callers(dtype),
        narrow_output.dots_of_callers_rows(dtype),
        copies.copy_columns(dtype, into=False),
    ]


@inner
def packed_bytes(job, links):
    """What B takes as few_columns.py packs it."""
    width = np.int64(1)
    while width < job.columns:
        width *= 2
    step = 2 * max(np.int64(1), links.lanes // width)  # at most
    return whole(job.depth, step) * step * width * links.itemsize


@inner
def by_rows_of_b(job, links, rows, packed):
    """Rows r0 to r1 of A @ B; packed: where B is packed to, or 0."""
    (r0, r1), size = rows, links.itemsize
    a_row, c_row = job.depth * size, job.columns * size
    a, c = job.a + r0 * a_row, job.c + r0 * c_row
    call(links.k0, (a, a_row, r1 - r0, job.depth, job.b, job.columns, job.bias, c, packed))


@inner
def packing_b(job, links, rows, size):
    """The same with so many bytes of memory for B."""
    memory = np.empty(size, np.uint8)
    by_rows_of_b(job, links, rows, memory.ctypes.data)
    return memory[0]  # which lives as long as it is used


def _few_columns(t, n, address):
    """Worker t's rows of A @ B."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    lanes = links.lanes
    first, last = part_of(whole(job.rows, lanes), worker)
    if first == last:
        return
    rows, size = (first * lanes, min(last * lanes, job.rows)), packed_bytes(job, links)
    if size <= ROOM:
        by_rows_of_b(job, links, rows, np.int64(0))
    else:
        packing_b(job, links, rows, size)


def few_columns_of(dtype: str) -> list[int]:
    """What `_few_columns` calls."""
    return [few_columns(dtype)]


@inner
def across(job, links, vectors):
    """Those vectors of rows of A.T @ B, as C.T = B.T @ A: a vector has a column's numbers."""
    (first, last), size, lanes, zero = vectors, links.itemsize, links.lanes, np.int64(0)
    vector, a_row, b_row = lanes * size, job.rows * size, job.columns * size
    wide = 4 if job.columns <= LOW else 2
    memory = np.empty(wide * job.columns * vector + vector, np.uint8)
    out = (memory.ctypes.data + vector - 1) // vector * vector
    left, panel = Left(job.b, size, b_row, job.depth, zero), job.columns * vector
    while first < last:
        width = wide if (first + wide) * lanes <= job.rows and first + wide <= last else min(2, last - first)
        # As with panels: the last one is moved back.
        r0 = min(first * lanes, job.rows - lanes)
        r1 = min((first + width - 1) * lanes, job.rows - lanes)
        distance = (r1 - r0) * size if width == 2 else vector
        of_a, c = Block(job.a + r0 * size, distance, a_row), Block(out, panel, vector)
        start = Start(zero, zero, np.int64(matmul.ZERO))
        call(links.k1, (Size(job.columns, width, job.depth), left, of_a, c, start))
        for j in range(width):
            row = r0 + j * lanes if j < width - 1 else r1
            call(links.k2, (job.c + row * b_row, b_row, out + j * panel, panel, lanes, job.columns))
        first += width
    memory[0] = 0  # which lives as long as it is used


@inner
def turned(job, links):
    """A.T @ B with less than a vector of rows, but more than columns, as C.T = B.T @ A."""
    size, vector = links.itemsize, links.lanes * links.itemsize
    row, c_row = job.rows * size, job.columns * size
    memory = np.empty(job.columns * vector, np.uint8)
    out, bias = memory.ctypes.data, np.int64(0)
    call(links.k0, (job.b, size, c_row, job.columns, job.depth, job.a, row, job.rows, bias, out, vector))
    call(links.k2, (job.c, c_row, out, job.columns * vector, job.rows, job.columns))
    memory[0] = 0  # which lives as long as it is used


def _transposed(t, n, address):
    """Worker t's rows of A.T @ B."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    first, last = part_of(whole(job.rows, links.lanes), worker)
    if first == last:
        return
    if job.depth >= max(DEEP, job.columns * job.columns // 2):
        if job.rows >= links.lanes:
            across(job, links, (first, last))
            return
        if job.rows > job.columns:
            turned(job, links)
            return
    r0, r1, size = first * links.lanes, min(last * links.lanes, job.rows), links.itemsize
    a_row, row = job.rows * size, job.columns * size
    a, c, bias = job.a + r0 * size, job.c + r0 * row, np.int64(0)
    call(links.k0, (a, size, a_row, r1 - r0, job.depth, job.b, row, job.columns, bias, c, row))


def transposed_of(dtype: str) -> list[int]:
    """What `_transposed` calls."""
    return [
        narrow_tiles(dtype),
        matmul.microkernel(dtype, matmul.ALONG_ROWS, prefetch=matmul.OF_C),
        copies.copy_columns(dtype, into=False),
    ]


def dots_body() -> int:
    return jit.address_of("kernels-dots", jit.void(3), lambda: _dots, driver=True)


def transposed_body() -> int:
    return jit.address_of("kernels-transposed-product", jit.void(3), lambda: _transposed, driver=True)


def few_columns_body() -> int:
    return jit.address_of("kernels-few-columns", jit.void(3), lambda: _few_columns, driver=True)
