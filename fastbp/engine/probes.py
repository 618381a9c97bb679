"""What benchmarks may call of the engine: nothing outside of it reaches further in.

    blocking                what the engine cuts its work into: a roofline model on paper needs to know
    tile_speed,             how fast this machine multiplies and adds: the microkernel on numbers that do not
    multiply_add_limit      leave the first-level cache
    one_phase               one of the three products of one layer, again and again
    meetings                a team that does nothing but meet at barriers
    walk                    a team that reads, or changes, all of some memory, again and again

A share of the limit says how much of a figure is the machine's and how much is ours, on any machine and at
any clock rate. The last three return run(times), and whoever calls it keeps the time.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from fastbp.engine import memory as sizes
from fastbp.engine import structs, tables
from fastbp.engine.compile import jit
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.kernels import matmul
from fastbp.engine.kernels.bfloat16 import products
from fastbp.engine.memory import Design, aligned
from fastbp.engine.plan import NO_STOP, Plan
from fastbp.engine.simd.vector import I64, Vectors, isa
from fastbp.engine.threads import team
from fastbp.engine.threads.barrier import barrier
from fastbp.engine.worker import operands
from fastbp.engine.worker.backward import backward
from fastbp.engine.worker.forward import forward
from fastbp.engine.worker.partition import Worker
from fastbp.engine.worker.update import PACKING_PANELS, update

Run = Callable[[int], None]
S = TypeVar("S", bound=Struct)


class Blocking(NamedTuple):
    vector: int  # bytes of a vector register
    tile_rows: dict[int, int]  # vectors side by side -> rows of the tallest microkernel
    panels_side_by_side: int  # of activations, where a batch is no handful of rows
    block: int  # bytes of activations that a sweep over weights takes at a time
    depth: int  # rows of a batch that are added to the weights in one sweep over them
    narrow_outputs: int  # up to so many, the last layer lies the other way round, without a transposed copy
    packed_panels: int  # panels of a worker from which the update packs its inputs
    packed_rows: int  # rows of a batch from which it does


def blocking() -> Blocking:
    """What the engine cuts its work into on this machine."""
    return Blocking(
        vector=isa().bytes,
        tile_rows=matmul.shapes(),
        panels_side_by_side=sizes.GROUP,
        block=tables.BLOCK,
        depth=tables.DEPTH,
        narrow_outputs=sizes.NARROW_OUTPUTS,
        packed_panels=PACKING_PANELS,
        packed_rows=tables.packing_rows(),
    )


def available_threads(threads: int) -> int:
    """How many of so many threads there can be."""
    return team.available(threads)


# ---- multiply-adds -----------------------------------------------------------------------------------

# Legs that are long enough that starting a team does not count, and short enough that some meet no other
# process. The best one counts, as soon as so many in a row were not better: threads that were just started
# may take a while to get cores of their own.
LEG_SECONDS, LEGS, MOST_SECONDS = 0.004, 20, 2.0
# Deep enough that filling and storing the accumulators hardly counts, and no deeper than a cache of 32 KB has
# room for: with AVX-512, A and B of the tallest microkernel take 25 KB, and at twice the depth it was 2 to 4%
# slower.
DEPTH = 128


@struct
class Product(Struct):
    """One product, to be done again and again by each worker on numbers of its own."""

    kernel: int
    times: int
    rows: int
    vectors: int
    depth: int
    vector: int  # bytes
    a: int
    a_row: int
    b: int
    c: int
    own: int  # bytes from one worker's numbers to the next one's


_product_at = view_of(Product)


def _repeat(t, n, address):
    """Worker t: the same product again and again."""
    job = _product_at(address)
    own, row = t * job.own, job.vectors * job.vector
    size = operands.Size(job.rows, job.vectors, job.depth)
    left = operands.Left(job.a + own, job.a_row, job.a_row, job.depth, np.int64(0))
    for _ in range(job.times):
        b, c = job.b + own, job.c + own
        right, out = operands.Block(b, job.vector, row), operands.Block(c, job.vector, row)
        operands.multiply(job.kernel, size, left, right, out, operands.from_zero())


def tile_speed(
    rows: int,
    vectors: int,
    depth: int,
    dtype: str = "float32",
    threads: int = 1,
    *,
    legs: int = LEGS,
    kernel: int = 0,
) -> float:
    """flop/s of `threads` cores, each with a product of `rows` x `vectors` and so many k; heights that the
    CPU has no microkernel for are cut. kernel : another one than `dtype`'s."""
    vector, itemsize = isa().bytes, np.dtype(dtype).itemsize
    a_row = -(-depth * itemsize // 64) * 64 + 64  # an odd number of cache lines, mostly
    sizes_of = [rows * a_row, depth * vectors * vector, rows * vectors * vector]
    sizes_of = [-(-size // 64) * 64 for size in sizes_of]
    threads = team.available(threads)
    memory = aligned(sum(sizes_of) * threads)
    # Numbers of ordinary size: zeros would draw less power, and the clock rate depends on that.
    memory.view(dtype)[:] = np.random.default_rng(0).random(memory.nbytes // itemsize) - 0.5
    a = memory.ctypes.data
    job, job_memory = _job(Product)
    job.kernel, job.times, job.vector = kernel or matmul.microkernel(dtype, matmul.ALONG_K), 1, vector
    job.rows, job.vectors, job.depth = rows, vectors, depth
    job.a, job.a_row, job.own = a, a_row, sum(sizes_of)
    job.b, job.c = a + sizes_of[0], a + sizes_of[0] + sizes_of[1]
    work = jit.address_of("limit", jit.void(3), lambda: _repeat, driver=True)
    arrivals = aligned(team.arrivals_bytes(threads)).view(np.int64)

    flops = 2 * rows * vectors * (vector // itemsize) * depth

    def speed(workers: int) -> float:
        start = time.perf_counter()
        workers = team.run(work, job_memory.ctypes.data, workers, arrivals)
        return workers * job.times * flops / (time.perf_counter() - start)

    # How often fills a leg; one worker finds out, since others take some time to start.
    while (one := max(speed(1) for _ in range(3))) * LEG_SECONDS > 2 * job.times * flops:
        job.times = min(8 * job.times, int(LEG_SECONDS * one / flops))
    best, since = 0.0, 0
    end = time.perf_counter() + MOST_SECONDS
    while since < legs and (best == 0 or time.perf_counter() < end):
        now = speed(threads)
        best, since = max(best, now), 0 if now > 1.01 * best else since + 1
    return best


def multiply_add_limit(dtype: str = "float32", threads: int = 1, *, precision: str | None = None) -> float:
    """flop/s of fused multiply-adds (two flops each) that `threads` cores reach together: the tallest
    microkernel of two vectors. precision : "bfloat16" for its products alone, without rounding."""
    of_k, kernel, height = (1, 0, matmul.shapes()[2]) if precision is None else (2, *products.alone())
    return of_k * tile_speed(height, 2, DEPTH, dtype, threads, kernel=kernel)


# ---- one phase of one layer --------------------------------------------------------------------------

PHASES = ("forward", "backward", "update")


@struct
class Phase(Struct):
    plan: int  # address
    phase: int  # a place in PHASES
    times: int
    rows: int
    x: int
    x_row: int


_phase_at = view_of(Phase)


def _repeat_phase(t, n, address):
    """Worker t: the same phase again and again, with a barrier after each."""
    job, worker, zero = _phase_at(address), Worker(t, n), np.int64(0)
    plan = structs.plan_at(job.plan)
    first = structs.layer_at(plan, zero)
    batch = operands.Batch(job.rows, zero, job.x, job.x_row, zero, zero, plan.coefficients)
    for _ in range(job.times):
        if job.phase == 0:
            forward(plan, first, operands.input_of(plan, batch), batch, worker)
        elif job.phase == 1:
            backward(plan, structs.layer_at(plan, np.int64(1)), first, batch, worker)
        else:
            update(plan, first, operands.across_input(plan, batch), batch, worker)
        barrier(plan, worker)


def one_phase(
    phase: str,
    rows: int,
    fan_in: int,
    fan_out: int,
    dtype: str = "float32",
    threads: int = 1,
    precision: str | None = None,
) -> Run:
    """run(times) of one phase of a layer on `rows` rows: X @ W + b, the deltas of the layer below, or W +=
    X.T @ d.

    Each takes 2 rows fan_in fan_out flops. Other values of `phase` than those of PHASES: ValueError.
    """
    if phase not in PHASES:
        raise ValueError(f"phase is {phase!r}: it must be one of {', '.join(PHASES)}")
    # For the backward phase the layer in question is the second, and what is below it is linear, too.
    widths = (8, fan_in, fan_out) if phase == "backward" else (fan_in, fan_out)
    use = "predict" if phase == "forward" and precision is None else "train"
    linear, number = ("identity",) * (len(widths) - 1), np.dtype(dtype)
    plan = Plan(Design(widths, linear, "mse", number, "add", rows, use, precision=precision))
    # A step first, so that there are ordinary numbers everywhere: with zeros the clock rate would be another.
    rng = np.random.default_rng(0)
    parameters = 1e-2 * rng.standard_normal(sum((a + 1) * b for a, b in itertools.pairwise(widths)))
    X, Y = (rng.standard_normal((rows, n)).astype(dtype) for n in (widths[0], widths[-1]))
    plan.bind_parameters(parameters := parameters.astype(dtype))
    plan.bind_data(X, Y)
    if use == "train":
        plan.train(0, 1, np.full((1, 1), -1e-6, dtype), np.empty(1), pack=True, threads=1, stop=NO_STOP)
    else:
        plan.run(structs.PACK, 1)
    if X.strides[0] % operands.BAD_STRIDE == 0:  # `fit` copies them to where they share no sets
        X = np.pad(X, ((0, 0), (0, 64 // X.itemsize)))
    plan.table.coefficients = plan.coefficients.ctypes.data
    job, job_memory = _job(Phase)
    job.plan, job.phase = plan.address, PHASES.index(phase)
    job.rows, job.x, job.x_row = rows, X.ctypes.data, X.strides[0]
    work = jit.address_of("one_phase", jit.void(3), lambda: _repeat_phase, driver=True)
    team_size = team.available(threads)

    # The arrays must live as long as their addresses.
    def run(times: int, kept: Any = (parameters, X, Y)) -> None:
        job.times = times
        team.run(work, job_memory.ctypes.data, team_size, plan.arrivals)

    return run


def _job(kind: type[S]) -> tuple[S, NDArray[np.int64]]:
    """Zeros for a worker that does not do a plan, and the memory that they are in."""
    memory = np.zeros(size_of(kind) // 8, np.int64)
    return at(kind, memory.ctypes.data), memory


# ---- teams that only meet, or only read --------------------------------------------------------------


def _meet(t, n, address):
    plan, worker = structs.plan_at(address), Worker(t, n)
    for _ in range(plan.last_step):
        barrier(plan, worker)


def meetings(threads: int) -> Run:
    """run(times): a team of that size comes together, meets at so many barriers, and parts.

    RuntimeError where so many threads do not come together (they are what `available_threads` says, or the
    machine is busy).
    """
    plan, memory = _job(structs.Plan)
    arrivals = aligned(team.arrivals_bytes(threads)).view(np.int64)
    plan.flags = team.flags_of(arrivals)
    work = jit.address_of("meetings", jit.void(3), lambda: _meet, driver=True)
    meet = _all_of_them(work, memory, threads, arrivals)

    def run(times: int) -> None:
        plan.last_step = times
        meet()

    return run


WALK_VECTORS = 16  # that one turn of the walk loads; for reading, as many sums
# Bytes of which every worker's share of the memory is a multiple, with vectors of up to 64 bytes.
TURN = 64 * WALK_VECTORS


@struct
class Walk(Struct):
    first: int  # address
    share: int  # bytes of each worker
    times: int
    changes: int
    out: int  # 64 bytes for each worker


_walk_at = view_of(Walk)


def _walk(changes: bool) -> Any:
    """An intrinsic: (address, bytes, out) loads all vectors there, in code with enough loads under way that
    none waits for the one before."""

    @intrinsic
    def walk(typingctx, address, size, out):
        def codegen(context, builder, signature, values):
            first, length, result = values
            before = builder.block
            loop, done = (builder.append_basic_block(name) for name in ("loop", "done"))
            ops = Vectors(builder, "float32")
            zero = ops.const(0.0).value
            builder.branch(loop)
            builder.position_at_end(loop)
            at = builder.phi(I64)
            at.add_incoming(first, before)
            totals = []
            for j, total in enumerate([builder.phi(ops.type) for _ in range(WALK_VECTORS)]):
                place = builder.add(at, I64(j * ops.lanes * ops.itemsize))
                number = ops.load(place)
                if changes:
                    ops.store(-number, place)  # changes every number, and none grows
                total.add_incoming(zero, before)
                totals.append(ops.wrap(total) + number)
                total.add_incoming(totals[-1].value, loop)
            following = builder.add(at, I64(WALK_VECTORS * ops.lanes * ops.itemsize))
            at.add_incoming(following, loop)
            more = builder.icmp_unsigned("<", following, builder.add(first, length))
            builder.cbranch(more, loop, done)
            builder.position_at_end(done)
            while len(totals) > 1:
                totals = [a + b for a, b in zip(totals[::2], totals[1::2], strict=True)]
            if not changes:  # or the compiler would leave the loads out
                ops.store(totals[0], result)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return walk


_read, _change = _walk(False), _walk(True)


def _walk_again(t, n, address):
    job = _walk_at(address)
    mine, out = job.first + t * job.share, job.out + 64 * t
    for _ in range(job.times):
        if job.changes:
            _change(mine, job.share, out)
        else:
            _read(mine, job.share, out)


def walk(memory: np.ndarray[Any, Any], sums: np.ndarray[Any, Any], threads: int, *, changes: bool) -> Run:
    """run(times): each of `threads` workers loads all float32 numbers of its share of `memory`; with
    `changes` it writes back -number.

    `memory` has a multiple of TURN bytes for each worker. `sums` has 64 bytes for each worker: unless it
    changes, it writes there what the numbers of each lane add up to.
    """
    if memory.nbytes % (TURN * threads) or sums.nbytes != 64 * threads:
        raise ValueError(
            f"memory has {memory.nbytes} bytes and sums {sums.nbytes}: "
            f"they must be a multiple of {TURN} and 64 for each worker"
        )
    job, job_memory = _job(Walk)
    job.first, job.share = memory.ctypes.data, memory.nbytes // threads
    job.changes, job.out = int(changes), sums.ctypes.data
    arrivals = aligned(team.arrivals_bytes(threads)).view(np.int64)
    work = jit.address_of("walk", jit.void(3), lambda: _walk_again, driver=True)
    walk_once = _all_of_them(work, job_memory, threads, arrivals)

    def run(times: int, kept: Any = (memory, sums)) -> None:
        job.times = times
        walk_once()

    return run


def _all_of_them(
    work: int, job: NDArray[np.int64], threads: int, arrivals: NDArray[np.int64]
) -> Callable[[], None]:
    """Has the compiled worker do the job in a team of exactly so many."""

    def run() -> None:
        for _ in range(100):  # a leg in which somebody came too late counts as slow, and another one decides
            if team.run(work, job.ctypes.data, threads, arrivals) == threads:
                return
        raise RuntimeError(f"{threads} threads never came together")

    return run
