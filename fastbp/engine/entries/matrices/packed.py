"""Where the operands of a caller's product lie: in place, or packed, a piece of the depth at a time.

    B             pairs of panels, in which what the microkernel reads of it at a k is adjacent
    A.T           packed panels (slivers): as many rows side by side as the microkernel is high
    A, along k    its rows as they are, but an odd number of cache lines apart: only where the caller's meet
                  one set of the first-level cache, which has fewer places than the microkernel has rows

Where the columns do not fill whole vectors, the last panel is moved back to where the matrix ends. And where
they do, but the matrix begins behind a cache line (those of NumPy do by 16 bytes), many panels begin with
lines, and the first one is moved to where the matrix begins. A vector that crosses two lines takes as long as
two. (B of 4 x 24 x 2048 was read in 1.5 times the time, C of 48 x 12 x 1024 written in 1.6 times.)
"""

from __future__ import annotations

import numpy as np

from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, struct, view_of
from fastbp.engine.worker.operands import BAD_STRIDE, Block, Left

PLAIN, A_TRANSPOSED, B_TRANSPOSED = 0, 1, 2

# Bytes of a packed pair of panels, which one sweep adds up. To come back to C for the next piece of the depth
# costs more than to have B in the second-level cache (with AVX2 16 KB were 2 to 8% slower than 32 KB). With
# vectors of 64 bytes a k takes 28 cycles, in which its two cache lines are there from anywhere: at 32 KB,
# products of 1024 x 1024 x 1024 took 14% longer than at 128 KB, and more than that did not pay.
PAIR, WIDE_PAIR = 32 * 1024, 128 * 1024
# Bytes of A in one sweep over B: they stay in the second-level cache.
BLOCK, WIDE_BLOCK = 288 * 1024, 384 * 1024
WIDE = 64  # bytes of a vector
# Bytes from a packed pair of panels, or packed panel of A, to the next, beyond what it has: the same places
# of all are not to meet the same sets of the cache.
APART = 64
# Rows that are a multiple of BAD_STRIDE apart meet one set of the first-level cache, with so many places:
# products of 512 x 512 x 512 in float64 took 1.3 times as long. (At half of those bytes a copy loses 1%.)
PLACES = 8


@struct
class CallersProduct(Struct):
    """C (rows, columns) = bias + the product over `depth`."""

    links: int
    kind: int  # PLAIN, A_TRANSPOSED, B_TRANSPOSED
    a: int
    b: int
    bias: int  # 0: there is none
    c: int
    rows: int
    depth: int
    columns: int
    row: int  # numbers from a row of C to the next; of B, too, where it is not transposed
    before: int  # numbers from where the first panel would begin to where it does, see `before_line`


product_at = view_of(CallersProduct)


@inner
def before_line(address, columns, lanes, size):
    """How many numbers before that address panels begin: with a cache line, or of CPUs whose vectors are
    shorter, so that none crosses two. 0 where rows do not all begin as far behind one."""
    vector = lanes * size
    if columns % lanes != 0 or address % size != 0:
        return np.int64(0)
    return np.int64(address % vector // size)


@inner
def column_of(job, lanes, panel):
    """Where a panel begins: the first one with the matrix, the last one ends with it."""
    return max(np.int64(0), min(panel * lanes - job.before, job.columns - lanes))


@inner
def panels_in(job, links):
    return (job.before + job.columns + links.lanes - 1) // links.lanes


@inner
def pair_of(job, panels, i):
    """The i-th pair's first panel and its width: of an odd number of panels the first is a pair by itself,
    since a last one that is moved back must have its neighbour with it. (Where the first one is moved, too,
    the third one is.)"""
    alone = 0 if job.before == 0 else 1
    if panels % 2 == 0 or i < alone:
        return 2 * i, 2
    return (2 * i, 1) if i == alone else (2 * i - 1, 2)


@inner
def panels_before(job, links, i):
    """How many panels the first i pairs have."""
    odd, alone = panels_in(job, links) & 1, 0 if job.before == 0 else 1
    return 2 * i - odd if i > alone else 2 * i


@inner
def packed_depth(job, links):
    """How many k a packed panel has room for."""
    vector = links.lanes * links.itemsize
    most = WIDE_PAIR if vector >= WIDE else PAIR
    return max(np.int64(1), min(job.depth, np.int64(most // (2 * vector))))


@inner
def of_pair(job, links):
    """Bytes from a packed pair of panels to the next."""
    return packed_depth(job, links) * 2 * links.lanes * links.itemsize + APART


@inner
def of_sliver(job, links):
    """Bytes of a k in a packed panel of A, and from a packed panel to the next."""
    row = links.itemsize * links.height
    return row, packed_depth(job, links) * row + APART


@inner
def of_copied_row(job, links):
    """Bytes from a copied row of A to the next: an odd number of cache lines, with room for whole vectors."""
    return (packed_depth(job, links) * links.itemsize + 63) // 64 // 2 * 128 + 64


@inner
def rows_conflict(job, links):
    """Whether rows of A, along k, displace each other from the first-level cache."""
    return links.height > PLACES and job.depth * links.itemsize % BAD_STRIDE == 0


@inner
def rows_of_block(job, links):
    """How many rows of A one sweep takes."""
    height = links.height
    most = WIDE_BLOCK if links.lanes * links.itemsize >= WIDE else BLOCK
    return max(height, most // (packed_depth(job, links) * links.itemsize) // height * height)


@inner
def bytes_of_rows(job, links, count):
    """The memory that a packed block of so many rows of A takes at most."""
    height = links.height
    slivers = (min(rows_of_block(job, links), count) + height - 1) // height
    if job.kind != A_TRANSPOSED:
        return of_copied_row(job, links) * slivers * height
    return of_sliver(job, links)[1] * slivers


@inner
def a_from(job, size, row, k, count):
    """A from that row and k on, as the microkernel wants it."""
    if job.kind == A_TRANSPOSED:
        stride = job.rows * size
        return Left(job.a + k * stride + row * size, size, stride, count, np.int64(0))
    stride = job.depth * size
    return Left(job.a + row * stride + k * size, stride, stride, count, np.int64(0))


@inner
def pack_pair(job, links, to, k, count, panel, width):
    """A piece of a pair of panels of B, where both vectors of a k are adjacent (or B is transposed: panel
    behind panel)."""
    size, lanes = links.itemsize, links.lanes
    vector = size * lanes
    for j in range(width):
        column = column_of(job, lanes, panel + j)
        if job.kind != B_TRANSPOSED:
            row = job.row * size
            source = job.b + k * row + column * size
            call(links.k1, (source, row, to + j * vector, width * vector, vector, count, lanes))
        else:
            row = job.depth * size
            source, target = job.b + column * row + k * size, to + j * packed_depth(job, links) * vector
            if count < lanes:  # of the whole depth: pieces have more
                call(links.k5, (source, row, target, vector, lanes, count))
                continue
            for i in range((count + lanes - 1) // lanes):
                # As with columns: the last square is moved back to where the piece ends.
                first = min(i * lanes, count - lanes)
                call(links.k4, (source + first * size, row, target + first * vector, lanes, np.int64(0)))


@inner
def pack_pairs(job, links, to, k, count, q0, q1):
    """A piece of pairs q0 to q1 of panels of B."""
    size, lanes = links.itemsize, links.lanes
    panels, step = panels_in(job, links), of_pair(job, links)
    first, last = q0, q1  # of those that a walk along the rows of B packs
    if job.kind == B_TRANSPOSED:
        last = q0
    else:
        first = q0 + 2 - pair_of(job, panels, q0)[1]
        if 2 * q1 >= panels and job.columns % lanes != 0:
            last = max(first, q1 - 1)  # the last panel is moved back
        row = job.row * size
        source = job.b + k * row + pair_of(job, panels, first)[0] * lanes * size
        call(links.k2, (source, row, to + (first - q0) * step, step, count, last - first))
    for q in range(q0, q1):
        if q < first or q >= last:
            panel, width = pair_of(job, panels, q)
            pack_pair(job, links, to + (q - q0) * step, k, count, panel, width)


@inner
def pack_rows(job, links, to, r0, r1, k, count):
    """Rows r0 to r1 of A, along k, or of A.T, as many side by side as the microkernel is high."""
    size = links.itemsize
    if job.kind != A_TRANSPOSED:
        row = job.depth * size
        source, apart, vector = job.a + r0 * row + k * size, of_copied_row(job, links), links.lanes * size
        call(links.k1, (source, row, to, apart, vector, r1 - r0, count))
        return
    row = job.rows * size
    vector, step = of_sliver(job, links)
    call(links.k3, (job.a + k * row + r0 * size, row, to, vector, step, count, r1 - r0))


@inner
def b_of(job, links, packed, k, panel, width):
    """A pair of panels of B, packed or where it lies."""
    size, lanes = links.itemsize, links.lanes
    vector = size * lanes
    if packed == 0:
        column = column_of(job, lanes, panel)
        distance = (column_of(job, lanes, panel + width - 1) - column) * size
        row = job.row * size
        return Block(job.b + k * row + column * size, distance, row)
    if job.kind == B_TRANSPOSED:
        return Block(packed, packed_depth(job, links) * vector, vector)
    return Block(packed, vector, width * vector)
