"""Products of a caller's own matrices: C = A @ B + bias, A.T @ B, A @ B.T, by the engine's microkernel.

    A @ B      A (rows, depth)   B (depth, columns)      forward
    A.T @ B    A (depth, rows)   B (depth, columns)      the weights' gradient
    A @ B.T    A (rows, depth)   B (columns, depth)      the deltas of the layer below

All are C-ordered and have exactly these numbers: nothing beyond is read or written. Where the columns do not
fill whole vectors, the last vector is moved back to where the matrix ends, so that it and the one before
share some columns; both go into one microkernel, which writes the same numbers twice. Fewer columns than a
vector has lanes: see narrow_products.py; where many rows meet up to half a vector of columns beyond whole
ones, these are such a product of their own (33 columns took as long as 48).

B is packed into pairs of panels where so many rows meet it that this pays, a piece of the depth at a time,
and so are rows of A (see packed.py).
Each element of C remains one chain of multiply-adds in the order of k, however the work was cut.
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.intrinsics import allocate, call, release
from fastbp.engine.compile.jit import inner
from fastbp.engine.entries.launch import links_at
from fastbp.engine.entries.matrices import row_sweep, short_rows
from fastbp.engine.entries.matrices.in_place import SHALLOW, few_rows, in_place, rows_at_a_time, start_of
from fastbp.engine.entries.matrices.packed import (
    A_TRANSPOSED,
    B_TRANSPOSED,
    WIDE,
    a_from,
    b_of,
    before_line,
    bytes_of_rows,
    column_of,
    of_copied_row,
    of_pair,
    of_sliver,
    pack_pairs,
    pack_rows,
    packed_depth,
    pair_of,
    panels_before,
    panels_in,
    product_at,
    rows_conflict,
)
from fastbp.engine.kernels import copies, matmul
from fastbp.engine.worker.operands import Block, Left, Size
from fastbp.engine.worker.partition import Worker, part_of

ANY_WAY, IN_PLACE, FEW_ROWS = 0, 1, 2
# Of A @ B.T: dot products, or as if it were A @ B, when B has been turned or since B is a vector.
DOTS, TURNED, VECTOR = 3, 4, 5
# What ANY_WAY is where neither of the two others is the way, as for A @ B.T.
PACKED = 6

# So many rows must meet B for a packed copy to pay. Bytes of B below which it is read where it lies, since it
# stays in the first-level cache, or with vectors of 64 bytes, which take so long to multiply that it may as
# well come from the second-level one: packed, products of 128 x 128 x 128 took 9% longer, with A.T 15%.
# (That its rows meet one set of the first-level cache does not matter below that.) And from which it is
# packed for fewer rows, too, with shorter vectors: it does not stay in the second-level cache.
PACKING_ROWS, SMALL, WIDE_SMALL, LARGE = 30, 24 * 1024, 512 * 1024, 384 * 1024
# So few rows read B where it lies: two tiles of them.
FEW, WIDE_FEW = 12, 28
# Up to so many k sweep along the rows of B, where it has so many panels, with more rows than one sweep takes
# more. And so many rows do where B has more panels than that: the microkernel has two sums in each. (Or a
# single one, where B is so many bytes: 1 x 400 x 100 in float32 took 1.25 times as long.)
SWEPT_DEPTH, SWEPT_PANELS_OF_FEW, SWEPT_PANELS = 8, 3, 5
SWEPT_ROWS, LONG = 2, 8
FAR_LONG, FAR = 6, 64 * 1024
# With more k and rows, columns beyond whole vectors are a product of their own; beyond odd ones with more k.
REST_DEPTH, ODD_REST_DEPTH, REST_ROWS = 8, 16, 7
# A @ B.T as dot products: of so few numbers, of so few rows where k are at least half a vector, or two, and
# where there are many k of so many rows or columns. A core that has two units for whole vectors, but one that
# adds up their lanes, gains less by it: there it is so few rows, or so small a C (1000 x 100 x 48 took 1.9
# times as long as when B was turned).
FAST_DOT_ROWS, FAST_DOTS = 17, 600
SMALL_DOTS, SHORT_DOT_ROWS, DOT_ROWS, DOT_SIDE = 64, 4, 12, 48
# So many vectors of columns, and bytes of B and C, from which panels begin with lines: the additional panel
# takes less than that brings.
LINED, LINED_BYTES = 16, 32 * 1024
# Pairs of panels that are packed in one walk along the rows of B: a few cache lines of each row, and what is
# packed is still near when it is used.
TOGETHER = 4
# A @ B.T of few k is A @ B of a B that has been turned as a whole, and so are those of fewer columns than a
# vector has lanes, where k are few, too, or where so many columns meet so many vectors of rows.
TURNED_ROWS, FEW_DOTS, MANY_ROWS = 3, 4, 6
# Where A.T @ B is split by columns, each worker has at least so many bytes of a row of C. A core asks for
# the lines next to its own, too: with 256, 64 x 64 x 128 in float32 took two of Intel's 1.45 times as long.
OWN_BYTES = 512
# And where C has so many times as many rows as B, of no more than so many bytes, it is split by rows at any
# length: each worker reads all of B, but most of the time goes to C, where none writes next to another one
# (1024 x 8 x 512 in float32 took 200 us by columns, and 40 by rows).
TALLER, SHARED = 16, 256 * 1024
# Pairs of panels from which A.T is copied to where its rows are adjacent.
PACKING_PAIRS = 3


@inner
def before_of(way, addresses, shape, lanes, size):
    """How many numbers before a matrix its panels begin, see `before_line`; addresses: of B, or 0 where it is
    copied, and C. What is read or written more often counts: of few k that is C."""
    (b, c), (rows, depth, columns) = addresses, shape
    if columns < LINED * lanes or (rows + depth) * columns * size < LINED_BYTES:
        return np.int64(0)
    if way == ANY_WAY and (b != 0 or depth > SHALLOW):
        return np.int64(0)
    return before_line(b if b != 0 and (depth > SHALLOW or depth >= rows) else c, columns, lanes, size)


@inner
def sweep(job, links, rows, piece, pair, packed):
    """Rows r0 to r1 of a pair of panels, for a piece of the depth; packed: addresses of A's and B's, or 0."""
    (r0, r1), (k, count), (packed_a, packed_b) = rows, piece, packed
    size, lanes, height = links.itemsize, links.lanes, links.height
    panel, width = pair
    column = column_of(job, lanes, panel)
    distance = (column_of(job, lanes, panel + width - 1) - column) * size
    start = start_of(job, k, column, distance, size)
    b = b_of(job, links, packed_b, k, panel, width)
    row = job.row * size
    c = Block(job.c + r0 * row + column * size, distance, row)
    if packed_a == 0 or job.kind != A_TRANSPOSED:
        left = a_from(job, size, r0, k, count)
        if packed_a != 0:
            apart = of_copied_row(job, links)
            left = Left(packed_a, apart, apart, count, np.int64(0))
        call(links.k0, (Size(r1 - r0, width, count), left, b, c, start))
        return
    vector, step = of_sliver(job, links)
    for first in range(r0, r1, height):
        left = Left(packed_a + (first - r0) // height * step, size, vector, count, np.int64(0))
        here = Block(c.address + (first - r0) * row, c.vector, c.row)
        call(links.k0, (Size(min(height, r1 - first), width, count), left, b, here, start))


@inner
def rest_of(kind, shape, lanes):
    """How many of the last columns are a product of their own: those that are less than a vector, or beyond
    whole ones, where a last vector that is moved back takes longer. (With an odd one it makes a pair, which
    takes as long as that one alone: 100 x 20 x 24 took 1.2 times as long.) Of A @ B.T, whose last vector is
    to be turned, too, they are dot products."""
    rows, depth, columns = shape
    rest = columns % lanes
    if columns < lanes:
        return columns
    odd, dots = columns // lanes % 2 == 1, kind == B_TRANSPOSED
    most = lanes // 4 if odd or dots else lanes // 2
    least = ODD_REST_DEPTH if odd and not dots else REST_DEPTH
    if rest > most or rows <= REST_ROWS or depth <= least:
        return 0
    # (Of A.T @ B with less than a vector of rows, it would be one in narrow vectors, which are of two.)
    return 0 if kind == A_TRANSPOSED and rest == 1 and rows < lanes else rest


@inner
def way_of_dots(shape, lanes, two_passes):
    """How A @ B.T is done. Dot products read both as they lie, but add up the lanes of every sum, which takes
    as long as some k; to turn B takes as long as some rows. two_passes: see `Isa`."""
    rows, depth, columns = shape
    if rows == 1 or columns == 1:
        count = rows * columns
        done = (count + lanes - 1) // lanes * lanes  # of which the last ones are done twice
        short = depth <= short_rows.LONG * lanes and lanes <= count and 3 * done <= 4 * count
        return VECTOR if short or depth < lanes else DOTS
    if rows * columns <= SMALL_DOTS:
        return DOTS
    if depth < lanes and depth <= min(SWEPT_DEPTH, TURNED_ROWS * rows):
        return TURNED
    if columns < lanes:
        many = columns > FEW_DOTS and rows >= MANY_ROWS * lanes
        return TURNED if depth < 2 * lanes or many else DOTS
    if rows <= 2 or (rows <= SHORT_DOT_ROWS and 2 * depth >= lanes):
        return DOTS
    if rows <= DOT_ROWS and depth >= 2 * lanes:
        return DOTS
    few = (
        min(rows, columns) <= DOT_SIDE if two_passes else rows <= FAST_DOT_ROWS or rows * columns <= FAST_DOTS
    )
    return DOTS if depth >= 4 * lanes and few else ANY_WAY


@inner
def way_of(kind, shape, lanes, size):
    """How a product is done. (Numbers are the same in any way.) shape: rows, depth, columns."""
    rows, depth, columns = shape
    panels = (columns + lanes - 1) // lanes
    if kind == B_TRANSPOSED:
        return ANY_WAY
    least = SWEPT_PANELS_OF_FEW if rows <= row_sweep.MOST else SWEPT_PANELS
    long = FAR_LONG if rows == 1 and depth * columns * size >= FAR else LONG
    if (depth <= SWEPT_DEPTH and panels >= least) or (rows <= SWEPT_ROWS and panels > long):
        return FEW_ROWS
    few, small = (WIDE_FEW, WIDE_SMALL) if lanes * size >= WIDE else (FEW, SMALL)
    return IN_PLACE if rows <= few or depth * columns * size < small else ANY_WAY


@inner
def sweeps(job, links, rows, pairs, packed):
    """Rows r0 to r1 and pairs of panels q0 to q1 of C; packed: where A and B are packed to, or 0."""
    (r0, r1), (q0, q1), (packed_a, packed_b) = rows, pairs, packed
    depth, step = packed_depth(job, links), of_pair(job, links)
    panels = panels_in(job, links)
    pieces = max(1, (job.depth + depth - 1) // depth)
    block = rows_at_a_time(job, links, r1 - r0, 2 * (q1 - q0))
    for piece in range(pieces):
        k, k1 = job.depth * piece // pieces, job.depth * (piece + 1) // pieces
        for top in range(r0, r1, block):
            bottom = min(r1, top + block)
            if packed_a != 0:
                pack_rows(job, links, packed_a, top, bottom, k, k1 - k)
            for q in range(q0, q1):
                here = packed_b + (q - q0) * step if packed_b != 0 else 0
                if packed_b != 0 and top == r0 and (q - q0) % TOGETHER == 0:
                    pack_pairs(job, links, here, k, k1 - k, q, min(q + TOGETHER, q1))
                sweep(job, links, (top, bottom), (k, k1 - k), pair_of(job, panels, q), (packed_a, here))


@inner
def packing_sweeps(job, links, rows, pairs, of):
    """`sweeps` with so many bytes of memory for A and B."""
    of_a, of_b = of
    packed = allocate(of_a + of_b)
    addresses = (packed + of_b if of_a > 0 else 0, packed if of_b > 0 else 0)
    sweeps(job, links, rows, pairs, addresses)
    release(packed)


@inner
def rectangle(job, links, rows, pairs):
    """Rows r0 to r1 and pairs of panels q0 to q1 of C."""
    (r0, r1), (q0, q1) = rows, pairs
    size, height = links.itemsize, links.height
    of_matrix = job.depth * job.columns * size
    enough = of_matrix >= (SMALL if r1 - r0 >= PACKING_ROWS else LARGE)
    packs_b = job.kind == B_TRANSPOSED or (r1 - r0 > FEW and enough)
    pays = q1 - q0 >= PACKING_PAIRS if job.kind == A_TRANSPOSED else rows_conflict(job, links)
    packs_a = pays and r1 - r0 >= height
    if not packs_a and not packs_b:
        sweeps(job, links, rows, pairs, (np.int64(0), np.int64(0)))
        return
    of_a = bytes_of_rows(job, links, r1 - r0) if packs_a else 0
    of_b = of_pair(job, links) * (q1 - q0) if packs_b else 0
    packing_sweeps(job, links, rows, pairs, (of_a, of_b))


@inner
def parts_of(job, links, worker):
    """A worker's part of a product: its rows, and its pairs of panels."""
    n, pairs = worker.n, (panels_in(job, links) + 1) // 2
    # Who has some rows of A.T @ B reads and packs all of B, who has some columns all of A.
    wide = job.rows < 2 * n * links.height
    if job.kind == A_TRANSPOSED and pairs % n == 0:
        wide = wide or (job.rows <= job.columns and job.columns * links.itemsize >= n * OWN_BYTES)
    of_b = job.depth * job.columns * links.itemsize
    tall = 2 * n * links.height <= job.rows >= TALLER * job.depth and of_b <= SHARED
    if not tall and (pairs >= 4 * n or (pairs >= n and wide)):
        return (np.int64(0), job.rows), part_of(pairs, worker)
    return part_of(job.rows, worker), (np.int64(0), pairs)


@inner
def panels_of(job, links, pairs):
    """The first panel of some pairs, and the one after the last."""
    return panels_before(job, links, pairs[0]), panels_before(job, links, pairs[1])


def _product(t, n, address):
    """Worker t's part of a product of at least a vector of columns."""
    job = product_at(address)
    links = links_at(job.links)
    rows, pairs = parts_of(job, links, Worker(t, n))
    if rows[0] == rows[1] or pairs[0] == pairs[1]:
        return
    panels = panels_of(job, links, pairs)
    way = way_of(job.kind, (job.rows, job.depth, job.columns), links.lanes, links.itemsize)
    if way == IN_PLACE:
        in_place(job, links, rows, panels)
    elif way == FEW_ROWS:
        few_rows(job, links, rows, panels)
    else:
        rectangle(job, links, rows, pairs)


# Parts of that body, for calls that need no more: they are compiled in less time.
def _in_place(t, n, address):
    """Worker t's part of a product for which that is the way."""
    job = product_at(address)
    links = links_at(job.links)
    rows, pairs = parts_of(job, links, Worker(t, n))
    in_place(job, links, rows, panels_of(job, links, pairs))


def _few_rows(t, n, address):
    """Worker t's part of a product for which that is the way."""
    job = product_at(address)
    links = links_at(job.links)
    rows, pairs = parts_of(job, links, Worker(t, n))
    few_rows(job, links, rows, panels_of(job, links, pairs))


def _packed(t, n, address):
    """Worker t's part of a product for which neither of these is the way."""
    job = product_at(address)
    links = links_at(job.links)
    rows, pairs = parts_of(job, links, Worker(t, n))
    if rows[0] < rows[1] and pairs[0] < pairs[1]:
        rectangle(job, links, rows, pairs)


def kernels_of(dtype: str, kind: int, way: int = ANY_WAY) -> list[int]:
    """What the body of a way calls for products of that kind (PLAIN: or B_TRANSPOSED), in the order of the
    links' fields; 0: what it does not. Each takes up to a second to compile."""
    along = matmul.ALONG_ROWS if kind == A_TRANSPOSED else matmul.ALONG_K
    packs, a = way in (ANY_WAY, PACKED), kind == A_TRANSPOSED
    return [
        matmul.microkernel(dtype, along, prefetch=matmul.OF_C) if way != FEW_ROWS else 0,
        copies.copy_rows(dtype, into=True) if packs else 0,
        copies.pack_panels(dtype) if packs else 0,
        copies.pack_slivers(dtype) if packs and a else 0,
        copies.transpose(dtype) if packs and not a else 0,
        copies.copy_columns(dtype, into=True) if packs and not a else 0,
        row_sweep.row_sweep(dtype) if way in (ANY_WAY, FEW_ROWS) else 0,
    ]


_BODIES = {
    ANY_WAY: ("product", _product),
    IN_PLACE: ("in-place", _in_place),
    FEW_ROWS: ("few-rows", _few_rows),
    PACKED: ("packed", _packed),
}


def body(way: int = ANY_WAY) -> int:
    name, function = _BODIES[way]
    return jit.address_of(f"kernels-{name}", jit.void(3), lambda: function, driver=True)
