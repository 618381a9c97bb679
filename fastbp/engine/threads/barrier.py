"""Where the workers of a team wait for one another between two phases: 0.2 us, where a fork and join of
OpenMP costs 1.4 and one of workqueue 130. That is safe only while all of them run at the same time, which
`team.join` sees to."""

from __future__ import annotations

from fastbp.engine.compile.intrinsics import cpu_pause, observe, publish, yield_core
from fastbp.engine.compile.jit import inner

# Each worker's flag has a cache line of its own.
LINE = 64
# How often a waiting worker looks before it lets others have the core: some 20 us.
SPINS = 2000


@inner
def arrive(plan, worker):
    """Say that this worker has come to a barrier, for which it will `wait`. Returns the barrier's number."""
    own = plan.flags + worker.t * LINE
    generation = observe(own) + 1  # whoever is there has said so
    publish(own, generation)
    return generation


@inner
def wait(plan, worker, generation):
    """Wait until all workers have come to that barrier."""
    for other in range(worker.n):
        spins = 0
        while observe(plan.flags + other * LINE) < generation:
            spins += 1
            if spins < SPINS:
                cpu_pause()
            else:
                yield_core()  # more workers than free cores: let the one that is waited for run


@inner
def barrier(plan, worker):
    """Wait until all workers have come here."""
    if worker.n > 1:
        wait(plan, worker, arrive(plan, worker))
