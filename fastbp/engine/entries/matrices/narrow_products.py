"""Products with fewer columns than a vector has lanes, and those of a few rows with a transposed matrix.

    A @ B      by the rows of B, or several side by side (few_columns.py)
    A @ B.T    dot products along the depth, as in a narrow output layer (kernels/narrow_output.py)
    A.T @ B    C.T = B.T @ A, along the rows of A (row_sweep.py)

The matrices are the caller's (see products.py): what is not made of whole vectors is copied to where it is,
filled up with zeros.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.matrices import row_sweep
from fastbp.engine.entries.matrices.few_columns import ROOM, few_columns
from fastbp.engine.entries.matrices.packed import product_at
from fastbp.engine.entries.matrices.products import SWEPT
from fastbp.engine.kernels import copies, narrow_output
from fastbp.engine.worker.partition import Worker, part_of


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


def _transposed(t, n, address):
    """Worker t's columns of C.T = B.T @ A, for A.T @ B of few columns."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    lanes, size, columns = links.lanes, links.itemsize, job.columns
    vector = lanes * size
    vectors = max(1, job.rows // lanes)
    first, last = part_of(vectors, worker)
    if first == last:
        return
    padded, single = job.rows < lanes, columns == 1
    first, end = first * lanes, job.rows if last == vectors else last * lanes
    step = max(2, SWEPT // (columns * vector)) * lanes
    of_row = whole(min(step, job.rows), lanes) * vector
    memory = np.empty(columns * of_row + (job.depth * vector if padded else 0) + vector, np.uint8)
    out = (memory.ctypes.data + vector - 1) // vector * vector
    a, a_row = job.a, job.rows * size
    if padded:
        packed = out + columns * of_row
        call(links.k1, (a, a_row, packed, vector, vector, job.depth, job.rows))
        a, a_row, end = packed, vector, lanes
    for top in range(first, end, step):
        # As with panels: a last piece that is less than a vector begins earlier.
        here = min(top, end - lanes)
        width, target = min(top + step, end) - here, job.c + here * size if single and not padded else out
        numbers = (job.b, size, columns * size, columns, job.depth, a + here * size, a_row, width)
        call(links.k0, (numbers, np.int64(0), target, of_row))
        if target != out:
            continue
        for o in range(columns):
            c, row = job.c + (here * columns + o) * size, columns * size
            call(links.k2, (c, row, out + o * of_row, vector, min(width, job.rows), np.int64(1)))
    memory[0] = 0  # which lives as long as it is used


def transposed_of(dtype: str) -> list[int]:
    """What `_transposed` calls."""
    return [
        row_sweep.row_sweep(dtype),
        copies.copy_rows(dtype, into=True),
        copies.copy_columns(dtype, into=False),
    ]


def dots_body() -> int:
    return jit.address_of("kernels-dots", jit.void(3), lambda: _dots, driver=True)


def transposed_body() -> int:
    return jit.address_of("kernels-transposed-product", jit.void(3), lambda: _transposed, driver=True)


def few_columns_body() -> int:
    return jit.address_of("kernels-few-columns", jit.void(3), lambda: _few_columns, driver=True)
