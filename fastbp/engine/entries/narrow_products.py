"""Products with fewer columns than a vector has lanes, and those of a few rows with a transposed matrix.

    A @ B, A @ B.T    dot products along the depth, as in a narrow output layer (kernels/narrow_output.py)
    A.T @ B           C.T = B.T @ A, along the rows of A (row_sweep.py)

The matrices are the caller's (see products.py): what is not made of whole vectors is copied to where it is,
filled up with zeros.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries import row_sweep
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.products import B_TRANSPOSED, SWEPT, product_at
from fastbp.engine.kernels import copies, narrow_output
from fastbp.engine.worker.partition import Worker, part_of


@inner
def whole(count, lanes):
    """How many vectors hold so many numbers."""
    return (count + lanes - 1) // lanes


@inner
def block_of_dots(links, x, x_row, size_of, places):
    """z[o, r] = bias[o] + x[r] . w[o] for a vector of rows or fewer. x: the caller's. size_of: rows, depth,
    outputs. places: addresses of w, bias, z, and room for a copy of these rows."""
    (rows, depth, outputs), (w, bias, z, room) = size_of, places
    lanes, size = links.lanes, links.itemsize
    vector, panels = lanes * size, whole(depth, lanes)
    if depth % lanes != 0:
        call(links.k0, (x, x_row, room, panels * vector, vector, rows, depth))
        x, x_row = room, panels * vector
    if rows == lanes:
        call(
            links.k4,
            (
                x,
                x_row,
                panels,
                np.int64(0),
                panels,
                w,
                outputs * vector,
                outputs,
                bias,
                z,
                vector,
                np.int64(1),
            ),
        )
    else:
        call(links.k5, (x, x_row, rows, panels, w, outputs * vector, outputs, bias, z, vector))


def _dots(t, n, address):
    """Worker t's part: C[r, o] (or where B is transposed and rows are few, C[o, r]) as dot products."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    lanes, size = links.lanes, links.itemsize
    vector, panels = lanes * size, whole(job.depth, lanes)
    swapped = job.columns >= lanes  # then the few rows of A are what others call the weights
    x, rows, outputs = (job.b, job.columns, job.rows) if swapped else (job.a, job.rows, job.columns)
    first, last = part_of(whole(rows, lanes), worker)
    if first == last:
        return
    of_w, of_z = panels * outputs * vector, outputs * vector
    of_room = lanes * panels * vector if job.depth % lanes != 0 else 0
    memory = np.empty(of_w + 2 * of_z + of_room + vector, np.uint8)
    w = (memory.ctypes.data + vector - 1) // vector * vector
    z, zeros, room = w + of_w, w + of_w + of_z, w + of_w + 2 * of_z
    single = outputs == 1  # then what is adjacent here is adjacent there, too
    if single and job.depth % lanes == 0:
        w = job.a if swapped else job.b
    elif swapped or job.kind == B_TRANSPOSED:
        source = job.a if swapped else job.b
        call(links.k0, (source, job.depth * size, w, vector, outputs * vector, outputs, job.depth))
    else:
        call(links.k1, (job.b, outputs * size, w, outputs * vector, job.depth, outputs))
    bias = job.bias
    if bias == 0:
        bias = zeros
        memory[zeros - memory.ctypes.data : room - memory.ctypes.data] = 0
    if single and job.depth % lanes == 0:  # whole blocks of rows need no copies: all at once
        here, row, blocks = x + first * lanes * job.depth * size, job.depth * size, rows // lanes - first
        blocks, out = min(blocks, last - first), job.c + first * lanes * size
        numbers = (here, row, panels, np.int64(0), panels, w, vector, outputs, bias, out, vector, blocks)
        call(links.k4, numbers)
        first += blocks
    for i in range(first, last):
        r = i * lanes
        count, here = min(lanes, rows - r), x + r * job.depth * size
        direct = single and count == lanes
        out = job.c + r * size if direct else z
        block_of_dots(links, here, job.depth * size, (count, job.depth, outputs), (w, bias, out, room))
        if direct:
            continue
        if swapped:
            row = job.columns * size
            call(links.k2, (job.c + r * size, row, z, vector, np.int64(0), outputs, count))
        else:
            row = outputs * size
            call(links.k3, (job.c + r * row, row, z, of_z, count, outputs))


def dots_of(dtype: str) -> list[int]:
    """What `_dots` calls."""
    return [
        copies.copy_rows(dtype, into=True),
        copies.copy_columns(dtype, into=True),
        copies.copy_rows(dtype, into=False),
        copies.copy_columns(dtype, into=False),
        narrow_output.dots(dtype),
        narrow_output.dots_of_rows(dtype),
    ]


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
