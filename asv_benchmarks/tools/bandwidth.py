"""How fast this machine moves bytes, and how long its cores take to meet: what a roof needs besides flops.

Every core walks through numbers of its own, again and again, in vector code with enough loads under way that
none waits for the one before. Where the numbers lie follows from how many there are: half of a cache stays in
it, four times the last one is in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import asv_folder  # noqa: F401 (makes `benchmarks` importable)
import numpy as np
from benchmarks.measuring import seconds_each

from fastbp.engine import probes

SYSFS = Path("/sys/devices/system/cpu/cpu0/cache")
READ, UPDATE = "read", "update"  # update: each number is read, changed and written back
MOST_MEMORY = 512 << 20  # bytes of all cores together; some machines show the cache of 60 cores to 2 of them


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
    return [max(size // probes.TURN, 1) * probes.TURN for size in (*inside, outside)]


def bandwidth(kind: str, size: int, threads: int, *, legs: int = 5) -> float:
    """Bytes/s of `threads` cores together, each with `size` bytes of its own (a multiple of probes.TURN).

    Bytes that are updated count once, though they are read and written.
    """
    memory = probes.aligned(size * threads)
    # Numbers of ordinary size: zeros would draw less power, and the clock rate depends on that.
    block = (np.random.default_rng(0).random(256, np.float32) - 0.5).view(np.uint8)
    memory.reshape(-1, block.size)[:] = block
    run = probes.walk(memory, probes.aligned(64 * threads), threads, changes=kind == UPDATE)
    return size * threads / seconds_each(run, legs=legs)


def barrier_seconds(threads: int, *, legs: int = 5) -> float:
    """For all workers to meet once, while they are at it."""
    return 0.0 if threads == 1 else seconds_each(probes.meetings(threads), legs=legs)


def entry_seconds(threads: int, *, legs: int = 5) -> float:
    """To enter compiled code with a team and to leave it, from Python."""
    run = probes.meetings(threads)

    def enter(times: int) -> None:
        for _ in range(times):
            run(0)

    return seconds_each(enter, legs=legs)
