"""When a second machine pays: the parameters of the model in mpi_formulas.py, measured, and its page.

    mpiexec -n 2 python asv_benchmarks/tools/ranks/mpi_model.py --json asv_benchmarks/pages/mpi.json
    python asv_benchmarks/tools/ranks/mpi_model.py --page

The first measures (on a machine that has nothing else to do), the second writes what is below the line in
asv_benchmarks/pages/MPI.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mpi_formulas import Machine, flops_of_row, overlap, parameters, pays_from, simulated, step

PAGE = Path(__file__).parents[2] / "pages" / "MPI.md"
RECORD = PAGE.with_name("mpi.json")
MARK = "<!-- asv_benchmarks/tools/ranks/mpi_model.py writes from here -->"
SHAPES = ([64, 128, 10], [784, 256, 10], [784, 1024, 1024, 10], [1024, 4096, 4096, 1000])
BATCHES = (64, 256, 1024, 4096, 16384)
RANKS = (1, 2, 4, 8, 16, 64, 256, 1024)
# Latency in seconds and seconds a byte: assumed, of common networks, as their makers state them.
HERE = "this machine's memory"
NETWORKS = {"10 Gbit Ethernet": (25e-6, 1 / 1.1e9), "100 Gbit InfiniBand": (2e-6, 1 / 11e9)}


# ---- measuring ------------------------------------------------------------------------------------------


def seconds(work: Callable[[], Any], least: float = 0.05, legs: int = 7) -> float:
    """The best of several legs."""
    work()
    count, best = 1, math.inf
    while True:
        began = time.perf_counter()
        for _ in range(count):
            work()
        took = time.perf_counter() - began
        if took >= least:
            break
        count *= 2
    for _ in range(legs):
        began = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, (time.perf_counter() - began) / count)
    return best


def steps_of(sizes: Sequence[int], rows: int, shards: int, legs: int = 3, comm: Any = None) -> list[float]:
    """Seconds of a step in each of several legs, on one core."""
    import fastbp

    rng = np.random.default_rng(0)
    X = rng.standard_normal((rows, sizes[0])).astype(np.float32)
    Y = rng.random((rows, sizes[-1])).astype(np.float32)
    model, optimizer = fastbp.MLP(sizes, seed=0, threads=1), fastbp.Adam(1e-4)
    steps = max(4, min(60, int(1e10 / (rows * flops_of_row(sizes)))))
    found = []
    for _ in range(legs + 1):
        history = model.fit(
            X,
            Y,
            steps=steps,
            batch_size=rows,
            shards=shards,
            comm=comm,
            optimizer=optimizer,
            progress=False,
        )
        found.append(history.seconds / steps)
    return found[1:]


def of_machine() -> Machine:
    """Of one rank alone, on one core."""
    sizes, large = [784, 256, 10], [1024, 2048, 10]
    times = steps_of(sizes, 512, 2, 9)
    few, many = min(times), min(steps_of(sizes, 4096, 2))
    flops = (4096 - 512) * flops_of_row(sizes) / (many - few)
    entry = (min(steps_of([8, 8, 1], 64, 64)) - min(steps_of([8, 8, 1], 64, 2))) / 62
    values, other = np.ones(1 << 20, np.float32), np.ones(1 << 20, np.float32)
    add = seconds(lambda: np.add(values, other, out=values)) / values.nbytes
    # Of few rows, a large network's step is its sum and its update.
    rest = min(steps_of(large, 2, 2)) - 2 * flops_of_row(large) / flops - 2 * entry
    update = rest / (4 * parameters(large)) - add
    return Machine(flops, entry, add, max(update, add), statistics.stdev(times) / statistics.mean(times))


def of_network(comm: Any) -> dict[str, float]:
    """Latency and seconds a byte between ranks 0 and 1, and the share of a message that an Isendrecv hides
    behind a product of the same length."""
    partner = comm.rank ^ 1

    def exchange(values: Any, other: Any) -> None:
        comm.Sendrecv(values, dest=partner, recvbuf=other, source=partner)

    times = {}
    for size in (8, 1 << 16, 1 << 22, 1 << 24):
        values, other = np.zeros(size // 4, np.float32), np.zeros(size // 4, np.float32)
        legs = []
        for _ in range(30):
            comm.Barrier()
            began = time.perf_counter()
            for _ in range(4):
                exchange(values, other)
            legs.append((time.perf_counter() - began) / 4)
        times[size] = min(legs)
    a = np.ones((256, 256), np.float32)
    products = max(1, round(times[1 << 24] / seconds(lambda: a @ a)))

    def compute() -> None:
        for _ in range(products):
            a @ a

    def both() -> None:
        requests = [comm.Irecv(other, source=partner), comm.Isend(values, dest=partner)]
        compute()
        for request in requests:
            request.Wait()

    found = []
    for work in (compute, lambda: exchange(values, other), both):
        legs = []
        for _ in range(20):
            comm.Barrier()
            began = time.perf_counter()
            work()
            legs.append(time.perf_counter() - began)
        found.append(min(legs))
    alone, sent, together = found
    byte = (times[1 << 24] - times[8]) / (1 << 24)
    return {"latency": times[8], "byte": byte, "hidden": max(0.0, (alone + sent - together) / sent)}


def measured_steps(comm: Any) -> list[dict[str, Any]]:
    """Steps of one rank and of two on this machine, a core each: what the model is judged by."""
    rows = []
    for sizes, batch in (([784, 256, 10], 256), ([784, 256, 10], 4096), ([784, 1024, 1024, 10], 1024)):
        alone = min(steps_of(sizes, batch, 2)) if comm.rank == 0 else 0.0
        comm.Barrier()
        rows.append(
            {"sizes": sizes, "batch": batch, "one": alone, "two": min(steps_of(sizes, batch, 2, comm=comm))}
        )
    return rows


def measure() -> dict[str, Any] | None:
    """The record, on rank 0."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if comm.size != 2:
        raise SystemExit("mpi_model.py measures with two ranks: mpiexec -n 2 python mpi_model.py --json FILE")
    network = of_network(comm)
    machine = of_machine() if comm.rank == 0 else None
    request = comm.Ibarrier()
    while not request.Test():  # the core is rank 0's
        time.sleep(0.01)
    steps = measured_steps(comm)
    if machine is None:
        return None
    return {
        "date": datetime.date.today().isoformat(),
        "library": MPI.Get_library_version().splitlines()[0].strip("\0 "),
        "cores": os.cpu_count(),
        "machine": vars(machine),
        "network": network,
        "steps": steps,
    }


# ---- the page -------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    lines.insert(1, "| --- |" + " ---: |" * (len(head) - 1))
    return "\n".join(lines)


def name(sizes: Sequence[int]) -> str:
    return "-".join(map(str, sizes))


def page(record: dict[str, Any]) -> str:
    """What is below the line."""
    machine = Machine(**record["machine"])
    own = record["network"]
    networks = {HERE: (own["latency"], own["byte"]), **NETWORKS}
    largest = SHAPES[-1]
    parts = [
        f"`mpiexec -n 2 python asv_benchmarks/tools/ranks/mpi_model.py`, {record['date']}, "
        f"{record['library']}, {record['cores']} cores.",
        "### Measured\n\n"
        + table(
            ["", "a rank (one core)"],
            [
                ["gradients, GFLOP/s", f"{machine.flops / 1e9:.0f}"],
                ["an entry for a shard, us", f"{machine.entry * 1e6:.1f}"],
                ["adding, GB/s of gradient", f"{1e-9 / machine.add:.1f}"],
                ["update (Adam), GB/s of gradient", f"{1e-9 / machine.update:.1f}"],
                ["scatter of steps", f"{machine.scatter:.1%}"],
                ["latency between two ranks, us", f"{own['latency'] * 1e6:.1f}"],
                ["bandwidth between two ranks, GB/s", f"{1e-9 / own['byte']:.1f}"],
                ["share of a 16 MB message hidden behind a product", f"{own['hidden']:.0%}"],
            ],
        ),
        "### Steps measured, and the model, ms\n\n"
        + table(
            ["shape, batch", "1 rank", "model", "2 ranks", "model"],
            [compared(machine, row, networks[HERE]) for row in record["steps"]],
        ),
        "### From which batch a second rank pays\n\n"
        + table(
            ["shape", *networks],
            [
                [name(sizes), *(f"{pays_from(machine, sizes, network):,}" for network in networks.values())]
                for sizes in SHAPES
            ],
        ),
        "### What overlap could save at most, two ranks, share of a step\n\n"
        "All of the sum, as far as the backward pass (two thirds of the gradients) is as long, if sending "
        "took no core.\n\n"
        + table(
            ["shape, batch", *networks],
            [
                [
                    f"{name(sizes)}, {batch:,}",
                    *(f"{overlap(machine, sizes, batch, network):.0%}" for network in networks.values()),
                ]
                for sizes in SHAPES[1:]
                for batch in (256, 4096)
            ],
        ),
    ]
    for title, network in NETWORKS.items():
        parts.append(
            f"### {title}: speedup by ranks, {name(largest)}, simulated\n\n"
            + table(
                ["batch", *(f"{ranks:,}" for ranks in RANKS[1:])],
                [speedups(machine, largest, batch, network) for batch in BATCHES],
            )
        )
    return "\n\n".join(parts) + "\n"


def compared(machine: Machine, row: dict[str, Any], network: tuple[float, float]) -> list[str]:
    """A step as measured and by the model, of one rank and of two."""
    sizes, batch = row["sizes"], row["batch"]
    model = [step(machine, sizes, batch, 2, ranks, network) for ranks in (1, 2)]
    figures = (row["one"], model[0], row["two"], model[1])
    return [f"{name(sizes)}, {batch:,}", *(f"{1e3 * value:.2f}" for value in figures)]


def speedups(machine: Machine, sizes: Sequence[int], batch: int, network: tuple[float, float]) -> list[str]:
    """Of a batch, by ranks, as far as each has a row."""
    alone = simulated(machine, sizes, batch, 1, network)
    found = [alone / simulated(machine, sizes, batch, n, network) if n <= batch else None for n in RANKS[1:]]
    return [f"{batch:,}", *("" if value is None else f"{value:.1f}" for value in found)]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="measure, and write the record there (two ranks)")
    parser.add_argument("--page", action="store_true", help="write the tables into pages/MPI.md")
    options = parser.parse_args(arguments)
    if options.json is not None:
        record = measure()
        if record is not None:
            options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.page:
        above = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
        below = page(json.loads(RECORD.read_text(encoding="utf-8")))
        PAGE.write_text(f"{above}{MARK}\n{below}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
