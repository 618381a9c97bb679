"""How fast this machine multiplies and adds: the tile on numbers that do not leave the first-level cache.

A share of that limit says how much of a figure is the machine's and how much is ours, on any machine and at any clock rate.
"""

from __future__ import annotations

import time

import numpy as np

from fastbp.engine.compile import jit
from fastbp.engine.compile.jit import call, peek
from fastbp.engine.kernels import matmul
from fastbp.engine.plan import aligned
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads import team

# Legs that are long enough that starting a team does not count, and short enough that some meet no other process. The best one counts,
# as soon as so many in a row were not better: threads that were just started may take a while to get cores of their own.
LEG_SECONDS, LEGS, MOST_SECONDS = 0.004, 20, 2.0
# Deep enough that filling and storing the accumulators hardly counts, and no deeper than a cache of 32 KB has room for: with AVX-512,
# A and B of the tallest tile take 25 KB, and at twice the depth the same tile was 2 to 4% slower.
DEPTH = 128

TILE, TIMES, ROWS, VECTORS, VECTOR, TILE_DEPTH, A, A_ROW, B, C, BYTES = range(11)


def _repeat(t, n, plan):
    """Worker t: the same tile again and again, each worker on numbers of its own."""
    own = t * peek(plan, BYTES)
    row = peek(plan, VECTORS) * peek(plan, VECTOR)
    for _ in range(peek(plan, TIMES)):
        call(peek(plan, TILE), (peek(plan, ROWS), peek(plan, VECTORS), peek(plan, TILE_DEPTH),
                                peek(plan, A) + own, peek(plan, A_ROW), peek(plan, A_ROW), peek(plan, TILE_DEPTH), 0,
                                peek(plan, B) + own, peek(plan, VECTOR), row, peek(plan, C) + own, peek(plan, VECTOR), row,
                                0, 0, matmul.ZERO))  # fmt: skip


def tile_speed(rows: int, vectors: int, depth: int, dtype: str = "float32", threads: int = 1, *, legs: int = LEGS) -> float:
    """flop/s of `threads` cores, each with a tile of `rows` x `vectors` and so many k; heights that the CPU has no tile for are cut."""
    vector = isa().bytes
    itemsize = np.dtype(dtype).itemsize
    a_row = -(-depth * itemsize // 64) * 64 + 64  # an odd number of cache lines, mostly: rows then do not share cache sets
    sizes = [rows * a_row, depth * vectors * vector, rows * vectors * vector]
    sizes = [-(-size // 64) * 64 for size in sizes]
    threads = team.available(threads)
    memory = aligned(sum(sizes) * threads)
    # Numbers of ordinary size: zeros would draw less power, and the clock rate depends on that.
    memory.view(dtype)[:] = np.random.default_rng(0).random(memory.nbytes // itemsize) - 0.5
    a = memory.ctypes.data
    plan = np.zeros(11, np.int64)
    plan[[TILE, TIMES, ROWS, VECTORS, VECTOR]] = matmul.address(dtype, matmul.ALONG_K), 1, rows, vectors, vector
    plan[[TILE_DEPTH, A, A_ROW, B, C, BYTES]] = depth, a, a_row, a + sizes[0], a + sizes[0] + sizes[1], sum(sizes)
    work = jit.address_of("limit", jit.void(3), lambda: _repeat, driver=True)
    door = aligned((2 + threads) * team.LINE).view(np.int64)

    flops = 2 * rows * vectors * (vector // itemsize) * depth

    def speed(workers: int) -> float:
        start = time.perf_counter()
        workers = team.run(work, plan.ctypes.data, workers, door)
        return workers * int(plan[TIMES]) * flops / (time.perf_counter() - start)

    # How often fills a leg; one worker finds out, since others take some time to start.
    while (one := max(speed(1) for _ in range(3))) * LEG_SECONDS > 2 * int(plan[TIMES]) * flops:
        plan[TIMES] = min(8 * int(plan[TIMES]), int(LEG_SECONDS * one / flops))
    best, since = 0.0, 0
    end = time.perf_counter() + MOST_SECONDS
    while since < legs and (best == 0 or time.perf_counter() < end):
        now = speed(threads)
        best, since = max(best, now), 0 if now > 1.01 * best else since + 1
    return best


def multiply_add_limit(dtype: str = "float32", threads: int = 1) -> float:
    """flop/s of fused multiply-adds (two flops each) that `threads` cores reach together: the tallest tile of two vectors."""
    return tile_speed(matmul.shapes()[2], 2, DEPTH, dtype, threads)
