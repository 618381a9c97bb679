"""How far from the roof is a training step, by batch, width, depth, threads and dtype?

    python asv_benchmarks/tools/roofline.py --json asv_benchmarks/pages/scaling.json
                                                        measure all of it: 5 minutes
    python asv_benchmarks/tools/roofline.py --quick     few points, short legs: a minute
    python asv_benchmarks/tools/roofline.py --page      write pages/SCALING.md from scaling.json

The first measures the machine (multiply-adds, bandwidths, barriers: fastbp.engine.probes and bandwidth.py),
then steps of the networks of benchmarks/scaling.py, and prints Markdown tables with each step's share of its
roof (roof.py has the model). `--plot FILE` draws them. The machine should have nothing else to do. The last
measures nothing: it writes the marked block of SCALING.md, and scaling.png. A test sees to it that the block
is what scaling.json says.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bandwidth
import scaling_page
from benchmarks.measuring import PHASES, STEPS, Network, epochs_of, product_speed, seconds_each
from benchmarks.scaling import NETWORKS, VALUES
from roof import Machine, roof

from fastbp.cli import pictures
from fastbp.storage.atomic import check_writable

DTYPES = ("float32", "float64")
THREADS = (1, 2)
ONE_ROW = "width of one row"  # a batch of one, for which every weight is fetched to be used once
SWEEPS = {**NETWORKS, ONE_ROW: lambda n: Network(1, (64, n, n, 10))}
FULL = {**VALUES, ONE_ROW: [32, 128, 512, 1024, 4096]}
QUICK = {"batch": [1, 64], "width": [8, 128], "depth": [2], ONE_ROW: [512]}
# What explains distances from the roof: tiles of few rows (rows, panels), phases of a layer, calls of fit.
TILES = [(1, 8), (3, 8), (7, 4), (14, 2)]
PRODUCTS = ["32 x 784-128", "256 x 784-1024", "1024 x 1024-2048"]
# What products in bfloat16 are measured with, their second roof.
BFLOAT16 = ("tabular 128 x 64-128-10", "mnist 256 x 784-1024-10", "wide 1024 x 1024-2048-128")
ENTRIES = {
    "64 x 64-128-10": Network(64, (64, 128, 10)),
    "64 x 64-256-256-10": Network(64, (64, 256, 256, 10)),
}


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_machine(threads: Sequence[int], legs: int) -> dict[str, Any]:
    """What the roofs are made of, for so many cores at work."""
    from fastbp.engine.probes import blocking

    found = bandwidth.caches()
    teams = []
    for n in threads:
        tell(f"bandwidths and barriers, threads: {n}")
        sizes = bandwidth.sizes(found, n)
        teams.append(
            {
                "threads": n,
                "flops": dict.fromkeys(DTYPES, 0.0),
                "read": [bandwidth.bandwidth(bandwidth.READ, size, n, legs=legs) for size in sizes],
                "update": [bandwidth.bandwidth(bandwidth.UPDATE, size, n, legs=legs) for size in sizes],
                "sizes": sizes,
                "barrier": bandwidth.barrier_seconds(n, legs=legs),
                "entry": bandwidth.entry_seconds(n, legs=legs),
            }
        )
    return {
        "caches": [[c.level, c.bytes, c.shared] for c in found],
        "vector": blocking().vector,
        "height": blocking().tile_rows[2],
        "teams": teams,
    }


def measure_limits(machine: dict[str, Any]) -> None:
    """Keep the higher one: at any one time another process may have taken a core."""
    from fastbp.engine.probes import multiply_add_limit

    for team in machine["teams"]:
        for dtype in DTYPES:
            speed = multiply_add_limit(dtype, team["threads"])
            team["flops"][dtype] = max(team["flops"][dtype], speed)


def machines(record: dict[str, Any], dtype: str, most_threads: int) -> list[Machine]:
    """What roof() wants: all teams of up to so many threads."""
    found = [bandwidth.Cache(*values) for values in record["caches"]]
    itemsize = {"float32": 4, "float64": 8}[dtype]
    return [
        Machine(
            threads=(n := team["threads"]),
            lanes=record["vector"] // itemsize,
            height=record["height"],
            flops=team["flops"][dtype] / n,
            capacity=tuple(c.share(n) for c in found),
            private=sum(c.shared == 1 for c in found),
            read=tuple(speed / n for speed in team["read"]),
            update=tuple(speed / n for speed in team["update"]),
            barrier=team["barrier"],
        )
        for team in record["teams"]
        if team["threads"] <= most_threads
    ]


def measure_step(net: Network, threads: int, leg: float, legs: int) -> dict[str, Any]:
    run, steps = epochs_of(net, threads, "fastbp", most_steps=512)
    seconds = seconds_each(run, leg=leg, legs=legs) / steps
    return {"batch": net.batch, "sizes": net.sizes, "samples": net.batch * steps, "seconds": seconds}


def entry_of_fit(net: Network, legs: int) -> dict[str, float]:
    """Seconds of a step, and of a call of fit besides its steps: checks, packing, unpacking."""
    run, steps = epochs_of(net, 1, "fastbp", most_steps=4)
    step = seconds_each(run, legs=legs) / steps

    def calls(times: int) -> None:
        for _ in range(times):
            run(1)

    return {"step": step, "entry": seconds_each(calls, legs=legs) - steps * step}


def measure_bfloat16(threads: Sequence[int], leg: float, legs: int) -> dict[str, Any]:
    """The limit of its products, phases of a layer in flop/s, seconds of steps beside float32's."""
    from fastbp.engine.probes import multiply_add_limit, products

    steps = []
    for name, count in itertools.product(BFLOAT16, threads):
        tell(f"bfloat16, {name}, threads: {count}")
        point = {"network": name, "threads": count, "flops": STEPS[name].flops}
        for precision in (None, "bfloat16"):
            run, of_epoch = epochs_of(
                replace(STEPS[name], precision=precision), count, "fastbp", most_steps=512
            )
            point[precision or "float32"] = seconds_each(run, leg=leg, legs=legs) / of_epoch
        steps.append(point)
    return {
        "implementation": products.implementation(),
        "flops": {str(n): multiply_add_limit(threads=n, precision="bfloat16") for n in threads},
        "products": {
            name: {phase: product_speed(name, phase, precision="bfloat16") for phase in PHASES}
            for name in PRODUCTS
        },
        "steps": steps,
    }


def measure(values: dict[str, list[int]], threads: Sequence[int], *, leg: float, legs: int) -> dict[str, Any]:
    """Everything, as written to the JSON file."""
    from fastbp.cli.bench.measuring import machine as conditions
    from fastbp.engine.probes import tile_speed

    machine = measure_machine(threads, legs)
    measure_limits(machine)
    steps = []
    for sweep, sizes in values.items():
        for n, dtype, count in itertools.product(sizes, DTYPES, threads):
            tell(f"{sweep} {n}, {dtype}, threads: {count}")
            net = replace(SWEEPS[sweep](n), dtype=dtype)
            point = {"sweep": sweep, "value": n, "dtype": dtype, "threads": count}
            steps.append({**point, **measure_step(net, count, leg, legs)})
    tell("microkernels, products, calls of fit")
    tiles = {f"{rows} x {panels}": tile_speed(rows, panels, 64, legs=legs) for rows, panels in TILES}
    products = {name: {phase: product_speed(name, phase) for phase in PHASES} for name in PRODUCTS}
    entries = {name: entry_of_fit(net, legs) for name, net in ENTRIES.items()}
    pairs = measure_bfloat16(threads, leg, legs)
    measure_limits(machine)
    one = machine["teams"][0]["flops"]["float32"]
    for point in steps:
        itemsize = 4 if point["dtype"] == "float32" else 8
        found = roof(
            point["sizes"],
            point["batch"],
            itemsize,
            point["samples"],
            machines(machine, point["dtype"], point["threads"]),
        )
        point.update(roof=found.seconds, bound=found.bound, team=found.threads, parts=found.parts)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {"name": conditions(), **machine},
        "steps": steps,
        "tiles": {name: speed / one for name, speed in tiles.items()},
        "products": {name: {p: s / one for p, s in found.items()} for name, found in products.items()},
        "entries": entries,
        "bfloat16": pairs,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few points and short legs: to see it work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw times and roofs (needs matplotlib)")
    parser.add_argument("--page", action="store_true", help="write SCALING.md from scaling.json")
    options = parser.parse_args(arguments)
    if options.page and (options.quick or options.json or options.plot):
        parser.error("--page takes no other option: it measures nothing")
    try:
        if options.page:
            scaling_page.write()
            return 0
        for path in filter(None, (options.json, options.plot)):  # now, and not after minutes
            check_writable(str(path))
        if options.plot:
            pictures.check(str(options.plot))
    except (scaling_page.PageError, OSError, ValueError, ModuleNotFoundError) as error:
        print(f"roofline: {error}", file=sys.stderr)
        return 2
    from fastbp.engine.probes import available_threads

    threads = [n for n in THREADS if available_threads(n) == n]
    if options.quick:
        record = measure(QUICK, threads, leg=0.002, legs=3)
    else:
        record = measure(FULL, threads, leg=0.01, legs=10)
    record["command"] = "python asv_benchmarks/tools/roofline.py" + " --quick" * options.quick
    print(scaling_page.block(record))
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        scaling_page.draw(options.plot, record)
    return 0


if __name__ == "__main__":
    sys.exit(main())
