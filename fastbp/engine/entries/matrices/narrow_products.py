"""Products with fewer columns than a vector has lanes, and those of a few rows with a transposed matrix.

    A @ B      by the rows of B, several side by side (few_columns.py), of few k one by one, in vectors that
               are narrower (narrow_tiles.py); of one column and many k dot products (dot_tiles.py)
    A @ B.T    of a few rows or columns dot products along the depth, as in a narrow output layer
               (kernels/narrow_output.py); or the same, when B has been turned (turning.py)
    A.T @ B    in such vectors, too, or C.T = B.T @ A, whose columns become rows in registers

The matrices are the caller's (see products.py): what is not made of whole vectors is copied to where it is,
filled up with zeros.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import SCRATCH, allocate, call, release, scratch
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.matrices import row_sweep
from fastbp.engine.entries.matrices.dot_tiles import dot_tiles, one_dot
from fastbp.engine.entries.matrices.few_columns import PACKING_ROWS, ROOM, few_columns, steps
from fastbp.engine.entries.matrices.narrow_tiles import narrow_tiles
from fastbp.engine.entries.matrices.packed import A_TRANSPOSED, BLOCK, WIDE, product_at
from fastbp.engine.kernels import copies, matmul
from fastbp.engine.worker.operands import Block, Left, Size, Start
from fastbp.engine.worker.partition import Worker, part_in_pieces, part_of

# Rows of C.T up to which four vectors have their sums in registers.
LOW = 6
# Vectors of a row of A, and bytes of A, from which vectors begin where cache lines do, see `aligns`.
ALIGNED_VECTORS, BEYOND_L1 = 16, 48 * 1024
# Up to so many rows of C.T sweep along the rows of A, where these have so many bytes: the microkernel would
# find each k on another page. Where its vectors begin with cache lines, only from so many bytes of A on.
SWEPT_COLUMNS, LARGE, FAR = 2, 1024, 1024 * 1024
# k of A.T @ B of two columns that are many, see `deep`; rows that are, see `across_pays`, and how many k it
# takes to turn C.T over, of few rows and of many.
DEEP, MANY_ACROSS = 16, 32
TURNING_FEW, TURNING = 64, 15
# Up to so many k A @ B of few columns is done in narrow vectors; the second is for more than half a vector of
# columns. (As partial sums along k 1025 x 2 x 5 took twice as long, 512 x 17 x 12 1.25 times.)
NARROW_DEPTH, ONE_ROW_DEPTH = 12, 48
# k from which A.T @ B is `turned` where vectors are masked.
TURNED_DEPTH = 48
# Rows of a tile of dot products. Vectors along the depth from which a single one is several sums.
DOT_ROWS, DEEP_DOT = 4, 64
steps_of = inner(steps)


@inner
def deep(depth, columns):
    """Whether A.T @ B of few columns has so many k that it takes less time to turn C.T over than to have
    vectors that are not full."""
    return depth >= max(DEEP, columns * columns // 2)


@inner
def across_pays(shape, lanes, masked):
    """Whether A.T @ B of few columns, and at least a vector of rows, is done as C.T = B.T @ A. That has full
    vectors, where C by itself has one for each row, or two; but C.T is to be turned over. masked: whether it
    has one (see narrow_tiles.py)."""
    rows, depth, columns = shape
    if not masked:
        return deep(depth, columns)
    return depth * (lanes + 1 - columns) >= (TURNING_FEW if rows < MANY_ACROSS else TURNING) * columns


@inner
def narrow_pays(depth, columns, lanes, masked):
    """Whether A @ B of few columns is done in narrow vectors, as A.T @ B is. Otherwise a vector holds several
    rows of B where columns are few, but its lanes are added up in the end. masked: see `across_pays`."""
    return masked and depth <= (NARROW_DEPTH if 2 * columns <= lanes else ONE_ROW_DEPTH)


@inner
def aligns(job, links):
    """Whether vectors of A's rows, but for the first of each, begin where cache lines do: those that cross
    two took 1.2 times as long where A comes from the second-level cache. (In the first-level one, or where
    fewer go together, the one vector more takes longer than that.)"""
    row, vector = job.rows * links.itemsize, links.lanes * links.itemsize
    many = row >= ALIGNED_VECTORS * vector and row * job.depth >= BEYOND_L1
    return vector >= WIDE and row % vector == 0 and many and job.columns <= LOW


@inner
def swept(job, links):
    """Whether C.T comes from sweeps along the rows of A."""
    row = job.rows * links.itemsize
    few = job.columns <= SWEPT_COLUMNS and row >= LARGE
    return few and (row * job.depth > FAR or not aligns(job, links))


@inner
def whole(count, lanes):
    """How many vectors hold so many numbers."""
    return (count + lanes - 1) // lanes


def _dots(t, n, address):
    """Worker t's part of A @ B.T as dot products: columns, or where there are more of them rows."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    size = links.itemsize
    if job.rows * job.columns == 1 and job.depth >= DEEP_DOT * links.lanes:
        if t == 0:
            call(links.k1, (job.a, job.b, job.depth, job.bias, job.c))
        return
    (r0, r1), (q0, q1) = (np.int64(0), job.rows), (np.int64(0), job.columns)
    if job.rows > job.columns:
        r0, r1 = part_in_pieces(job.rows, links.lanes, worker)
    else:
        q0, q1 = part_in_pieces(job.columns, links.lanes, worker)
    if r0 == r1 or q0 == q1:
        return
    row, c_row = job.depth * size, job.row * size
    a, b, c = job.a + r0 * row, job.b + q0 * row, job.c + r0 * c_row + q0 * size
    bias = job.bias + q0 * size if job.bias != 0 else 0
    # Columns take turns at all rows that they are given, so these are no more than stay in a cache.
    block = max(DOT_ROWS, BLOCK // row // DOT_ROWS * DOT_ROWS)
    for i in range(0, r1 - r0, block):
        count = min(block, r1 - r0 - i)
        call(links.k0, (a + i * row, row, count, job.depth, b, row, q1 - q0, bias, c + i * c_row, c_row))


def dots_of(dtype: str) -> list[int]:
    """What `_dots` calls."""
    return [dot_tiles(dtype), one_dot(dtype)]


@inner
def packed_bytes(job, links):
    """What B takes as few_columns.py packs it, where it needs memory for that."""
    width = np.int64(1)
    while width < job.columns:
        width *= 2
    if links.masks and width == links.lanes and job.rows < PACKING_ROWS:
        return np.int64(0)
    step, of_step = steps_of(links.lanes * links.itemsize // links.passes, links.itemsize, width)
    size = whole(job.depth, step) * of_step
    return size if size > ROOM else np.int64(0)


@inner
def by_rows_of_b(job, links, rows, packed):
    """Rows r0 to r1 of A @ B; packed: where B is packed to, or 0."""
    (r0, r1), size = rows, links.itemsize
    a_row, row = job.depth * size, job.row * size
    a, c = job.a + r0 * a_row, job.c + r0 * row
    call(links.k0, (a, a_row, r1 - r0, job.depth, job.b, row, job.columns, job.bias, c, row, packed))


@inner
def with_memory(job, links, rows, of_packed):
    """`by_rows_of_b` with so many bytes of memory for a packed B."""
    packed = allocate(of_packed)
    by_rows_of_b(job, links, rows, packed)
    release(packed)


def _few_columns(t, n, address):
    """Worker t's rows of A @ B."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    r0, r1 = part_in_pieces(job.rows, links.lanes, worker)
    if r0 == r1:
        return
    if job.row == 1:  # less than a vector of short rows would be added in another order
        r0 = min(r0, max(np.int64(0), r1 - links.lanes))
    of_packed = packed_bytes(job, links)
    if of_packed == 0:
        by_rows_of_b(job, links, (r0, r1), np.int64(0))
    else:
        with_memory(job, links, (r0, r1), of_packed)


def few_columns_of(dtype: str) -> list[int]:
    """What `_few_columns` calls."""
    return [few_columns(dtype)]


@inner
def row_of(job, links, back, i):
    """Where vector i of A's rows begins, which neither begins before them nor ends behind them. back: by how
    many numbers vectors are moved back."""
    return min(max(0, i * links.lanes - back), job.rows - links.lanes)


@inner
def tiles_across(job, links, vectors, back, out):
    """So many vectors of rows of A.T @ B, from C.T in tiles of the microkernel, two or four vectors at a
    time; out: memory for one tile."""
    first, last = vectors
    size, lanes, zero = links.itemsize, links.lanes, np.int64(0)
    vector, a_row, b_row = lanes * size, job.rows * size, job.row * size
    left, panel = Left(job.b, size, b_row, job.depth, zero), job.columns * vector
    wide = 4 if job.columns <= LOW else 2
    while first < last:
        r0, r1 = row_of(job, links, back, first), row_of(job, links, back, first + wide - 1)
        width = wide if first + wide <= last and r1 - r0 == (wide - 1) * lanes else min(2, last - first)
        r1 = row_of(job, links, back, first + width - 1)
        apart = r1 - r0 if width == 2 else lanes
        of_a, c = Block(job.a + r0 * size, apart * size, a_row), Block(out, panel, vector)
        start = Start(zero, zero, np.int64(matmul.ZERO))
        call(links.k0, (Size(job.columns, width, job.depth), left, of_a, c, start))
        together = width if apart == lanes else 1
        for j in range(0, width, together):
            to, ends = job.c + (r0 if j == 0 else r1) * b_row, np.int64(first + j + together == last)
            rows = together * lanes
            call(links.k1, (to, b_row, out + j * panel, panel, vector, rows, job.columns, ends))
        first += width


@inner
def sweeps_across(job, links, rows, out, step):
    """The same from C.T by sweeps along the rows of A, of so many vectors; out: memory for one sweep."""
    first, last = rows
    size, lanes = links.itemsize, links.lanes
    vector, a_row, b_row = lanes * size, job.rows * size, job.row * size
    for at in range(first, last, step):
        r0 = min(at * lanes, job.rows - lanes)
        count = min(min(at + step, last) * lanes, job.rows) - r0
        row, a, zero = step * vector, job.a + r0 * size, np.int64(0)
        call(links.k2, (job.b, size, b_row, job.columns, job.depth, a, a_row, count, zero, out, row))
        to, ends = job.c + r0 * b_row, np.int64(at + step >= last)
        call(links.k1, (to, b_row, out, vector, row, count, job.columns, ends))


def _across(t, n, address):
    """Worker t's rows of A.T @ B, as C.T = B.T @ A: a vector has a column's numbers."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    vector = links.lanes * links.itemsize
    sweeps, out = swept(job, links), scratch()
    back = job.a % vector // links.itemsize if aligns(job, links) and not sweeps else np.int64(0)
    rows = part_of(whole(job.rows + back, links.lanes), worker)
    if rows[0] == rows[1]:
        return
    if sweeps:
        most = SCRATCH // (job.columns * vector) - 1  # (rows that are a power of two apart would conflict)
        sweeps_across(job, links, rows, out, min(most, rows[1] - rows[0]))
    else:
        tiles_across(job, links, rows, back, out)


def across_of(dtype: str) -> list[int]:
    """What `_across` calls."""
    return [
        matmul.microkernel(dtype, matmul.ALONG_ROWS, prefetch=matmul.OF_C),
        copies.turn_rows(dtype),
        row_sweep.row_sweep(dtype),
    ]


@inner
def turned_pays(job, links):
    """Whether A.T @ B in narrow vectors is `turned`: with masked ones only if they are full, or few."""
    if links.masks:
        full = job.columns & (job.columns - 1) == 0
        return job.depth >= TURNED_DEPTH and (full or job.rows > 4 * job.columns)
    return deep(job.depth, job.columns)


@inner
def turned(job, links):
    """A.T @ B with less than a vector of rows, but more than columns, as C.T = B.T @ A."""
    size, vector = links.itemsize, links.lanes * links.itemsize
    row, c_row = job.rows * size, job.row * size
    out, zero = scratch(), np.int64(0)
    call(links.k0, (job.b, size, c_row, job.columns, job.depth, job.a, row, job.rows, zero, out, vector))
    call(links.k1, (job.c, c_row, out, zero, vector, job.rows, job.columns, np.int64(1)))


def _narrow(t, n, address):
    """Worker t's rows of A @ B, or A.T @ B, in narrow vectors."""
    job = product_at(address)
    links, worker = links_at(job.links), Worker(t, n)
    r0, r1 = part_in_pieces(job.rows, links.lanes, worker)
    if r0 == r1:
        return
    across = job.kind == A_TRANSPOSED
    if across and job.columns < job.rows < links.lanes and turned_pays(job, links):
        turned(job, links)
        return
    size = links.itemsize
    a_row, a_k = (size, job.rows * size) if across else (job.depth * size, size)
    row = job.row * size
    a, c = job.a + r0 * a_row, job.c + r0 * row
    call(links.k0, (a, a_row, a_k, r1 - r0, job.depth, job.b, row, job.columns, job.bias, c, row))


def narrow_of(dtype: str, kind: int) -> list[int]:
    """What `_narrow` calls."""
    if kind == A_TRANSPOSED:
        return [narrow_tiles(dtype, matmul.ALONG_ROWS), copies.turn_rows(dtype)]
    return [narrow_tiles(dtype, matmul.ALONG_K), 0]


def dots_body() -> int:
    return jit.address_of("kernels-dots", jit.void(3), lambda: _dots, driver=True)


def across_body() -> int:
    return jit.address_of("kernels-across", jit.void(3), lambda: _across, driver=True)


def narrow_body() -> int:
    return jit.address_of("kernels-narrow", jit.void(3), lambda: _narrow, driver=True)


def few_columns_body() -> int:
    return jit.address_of("kernels-few-columns", jit.void(3), lambda: _few_columns, driver=True)
