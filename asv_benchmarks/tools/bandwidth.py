"""How fast this machine moves bytes, and how long its cores take to meet: what a roof needs besides flops.

Every core walks through numbers of its own, again and again, in vector code with enough loads under way that
none waits for the one before. Where the numbers lie follows from how many there are: half of a cache stays in
it, four times the last one is in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import asv_folder  # noqa: F401 (makes `benchmarks` importable)
import numpy as np
from benchmarks.measuring import seconds_each

SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
READ, UPDATE = "read", "update"  # update: each number is read, changed and written back
VECTORS = 16  # that one turn of the loop loads; for reading, as many sums
MOST_MEMORY = 512 << 20  # bytes of all cores together; some machines show the cache of 60 cores to 2 of them
_FIRST, _BYTES, _TIMES, _OUT = range(4)


@dataclass(frozen=True)
class Cache:
    level: int
    bytes: int
    shared: int  # by so many cores

    def share(self, threads: int) -> int:
        """Bytes that each of so many working cores has for itself."""
        return self.bytes // min(threads, self.shared)


# For systems that do not say (not Linux): a small and common core.
FALLBACK = [Cache(1, 32 << 10, 1), Cache(2, 1 << 20, 1), Cache(3, 16 << 20, 64)]


def caches(folder: Path = SYSFS) -> list[Cache]:
    """The caches for data on the way from the first core to memory."""
    found = {}
    try:
        for index in folder.glob("index*"):
            said = {name: (index / name).read_text().strip() for name in ("level", "type", "size")}
            cores = (index / "shared_cpu_list").read_text().strip()
            if said["type"] != "Instruction":
                unit = {"K": 10, "M": 20, "G": 30}[said["size"][-1]]
                size = int(said["size"][:-1]) << unit
                found[int(said["level"])] = Cache(int(said["level"]), size, _count(cores))
    except (OSError, ValueError, KeyError):
        return FALLBACK
    return [found[level] for level in sorted(found)] or FALLBACK


def _count(cpus: str) -> int:
    """How many are in a list such as 0-3,8."""
    ends = [part.split("-") for part in cpus.split(",")]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def level_names(found: list[Cache]) -> list[str]:
    return [*(f"L{c.level}" for c in found), "memory"]


def sizes(found: list[Cache], threads: int) -> list[int]:
    """Bytes for each core that lie in each cache, and in memory."""
    inside = [c.share(threads) // 2 for c in found]
    outside = min(4 * max(c.bytes for c in found), MOST_MEMORY) // threads
    turn = 64 * VECTORS  # whole turns of the loop, with vectors of up to 64 bytes
    return [max(size // turn, 1) * turn for size in (*inside, outside)]


def _walk(kind: str) -> Any:
    """An intrinsic: (address, bytes, out) reads all vectors there, and changes them if it is to update."""
    from numba import types
    from numba.extending import intrinsic

    from fastbp.engine.simd.vector import I64, Vectors

    @intrinsic
    def walk(typingctx, address, size, out):
        def codegen(context, builder, signature, values):
            first, length, result = values
            before = builder.block
            loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
            ops = Vectors(builder, "float32")
            vector = ops.lanes * ops.itemsize
            zero = ops.const(0.0).value
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(I64)
            at.add_incoming(first, before)
            totals = []
            for j, total in enumerate([builder.phi(ops.type) for _ in range(VECTORS)]):
                place = builder.add(at, I64(j * vector))
                number = ops.load(place)
                if kind == UPDATE:
                    ops.store(-number, place)  # changes every number, and none grows
                total.add_incoming(zero, before)
                totals.append(ops.wrap(total) + number)
                total.add_incoming(totals[-1].value, loop)
            following = builder.add(at, I64(VECTORS * vector))
            at.add_incoming(following, loop)
            more = builder.icmp_unsigned("<", following, builder.add(first, length))
            builder.cbranch(more, loop, done)
            builder.position_at_end(done)
            while len(totals) > 1:
                totals = [a + b for a, b in zip(totals[::2], totals[1::2], strict=True)]
            if kind == READ:  # or the compiler would leave the loads out
                ops.store(totals[0], result)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return walk


@cache
def _compiled(kind: str) -> Any:
    """A worker that walks through its numbers; or, for kind "barrier", meets the others again and again.

    Not cached on disk: fastbp's cache would not notice an edit of this file.
    """
    import numba

    from fastbp.engine.compile import jit
    from fastbp.engine.compile.jit import peek
    from fastbp.engine.worker import step

    if kind == "barrier":
        barrier, last = step.barrier, step.LAST

        def work(t, n, plan):
            for _ in range(peek(plan, last)):
                barrier(plan, t, n)
    else:
        walk = _walk(kind)

        def work(t, n, job):
            mine = peek(job, _FIRST) + t * peek(job, _BYTES)
            for _ in range(peek(job, _TIMES)):
                walk(mine, peek(job, _BYTES), peek(job, _OUT) + 64 * t)

    return numba.cfunc(jit.void(3), **jit.OPTIONS)(work)


def _run(kind: str, job: np.ndarray, slot: int, threads: int) -> Callable[[int], None]:
    """run(times): the compiled worker with `times` at that place of its job."""
    from fastbp.engine.plan import aligned
    from fastbp.engine.threads import team

    door = aligned((2 + threads) * team.LINE).view(np.int64)
    if kind == "barrier":
        from fastbp.engine.worker import step

        job[step.TEAM] = door.ctypes.data + 2 * team.LINE
    work = _compiled(kind).address

    def run(times: int) -> None:
        job[slot] = times
        for _ in range(100):  # a leg in which somebody came too late counts as slow, and another one decides
            if team.run(work, job.ctypes.data, threads, door) == threads:
                return
        raise RuntimeError(f"{threads} threads never came together")

    return run


def bandwidth(kind: str, size: int, threads: int, *, legs: int = 5) -> float:
    """Bytes/s of `threads` cores together, each with `size` bytes of its own (a multiple of 1024).

    Bytes that are updated count once, though they are read and written.
    """
    from fastbp.engine.plan import aligned

    memory = aligned(size * threads)
    # Numbers of ordinary size: zeros would draw less power, and the clock rate depends on that.
    block = (np.random.default_rng(0).random(256, np.float32) - 0.5).view(np.uint8)
    memory.reshape(-1, block.size)[:] = block
    out = aligned(64 * threads)
    job = np.array([memory.ctypes.data, size, 0, out.ctypes.data], np.int64)
    return size * threads / seconds_each(_run(kind, job, _TIMES, threads), legs=legs)


def barrier_seconds(threads: int, *, legs: int = 5) -> float:
    """For all workers to meet once, while they are at it."""
    from fastbp.engine.worker import step

    if threads == 1:
        return 0.0
    plan = np.zeros(step.HEADER_SIZE, np.int64)
    return seconds_each(_run("barrier", plan, step.LAST, threads), legs=legs)


def entry_seconds(threads: int, *, legs: int = 5) -> float:
    """To enter compiled code with a team and to leave it, from Python."""
    from fastbp.engine.worker import step

    run = _run("barrier", np.zeros(step.HEADER_SIZE, np.int64), step.LAST, threads)

    def enter(times: int) -> None:
        for _ in range(times):
            run(0)

    return seconds_each(enter, legs=legs)
