"""Look for cliffs in the time of a training step, over widths 1..130 and batches 1..300.

    python asv_benchmarks/tools/sweep.py --folder DIR    sweep.csv, sweep.png, and the worst cliffs: 2 minutes
    python asv_benchmarks/tools/sweep.py --table         the tables of fastbp/engine/README.md, in Markdown

Each point is the best of several legs, in two passes of different order: what another process does to one
of them is then not taken for a cliff. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import asv_folder  # noqa: F401 (makes `benchmarks` importable)
from benchmarks.measuring import PHASES, PRODUCTS, STEPS, Network, product_speed, seconds_of_a_step

THREADS = (1, 2)
DTYPES = ("float32", "float64")

# what varies -> the network at a value of it
SWEEPS: dict[str, tuple[range, Callable[[int, str], Network]]] = {
    "inputs": (range(1, 131), lambda n, dtype: Network(64, (n, 64, 10), dtype=dtype)),
    "hidden": (range(1, 131), lambda n, dtype: Network(64, (32, n, 10), dtype=dtype)),
    "outputs": (range(1, 131), lambda n, dtype: Network(64, (32, 64, n), dtype=dtype)),
    "batch": (range(1, 301), lambda n, dtype: Network(n, (64, 128, 10), dtype=dtype)),
}


@dataclass(frozen=True)
class Point:
    sweep: str
    value: int
    dtype: str
    threads: int

    @property
    def network(self) -> Network:
        return SWEEPS[self.sweep][1](self.value, self.dtype)


def sweep(stride: int, passes: int) -> dict[Point, float]:
    """Seconds of a step at each point."""
    points = [
        Point(name, value, dtype, threads)
        for name, (values, _) in SWEEPS.items()
        for value in values[::stride]
        for dtype in DTYPES
        for threads in THREADS
    ]
    seconds = dict.fromkeys(points, float("inf"))
    for number in range(passes):
        random.Random(number).shuffle(points)
        for i, point in enumerate(points):
            if i % 50 == 0:
                progress(f"pass {number + 1} of {passes}: {i} of {len(points)}")
            measured = seconds_of_a_step(point.network, point.threads, leg=0.002, legs=3, most_steps=32)
            seconds[point] = min(seconds[point], measured)
    progress("")
    return seconds


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Cliff:
    before: Point
    after: Point
    time_ratio: float  # time after / time before
    work_ratio: float  # the same, each per flop

    def __str__(self) -> str:
        a, b = self.before, self.after
        return (
            f"{a.sweep:<8}{a.value:>4} ->{b.value:>4}  {a.dtype}  threads: {a.threads}"
            f"  time x {self.time_ratio:.2f}, per flop x {self.work_ratio:.2f}"
        )


def cliffs(seconds: dict[Point, float]) -> tuple[list[Cliff], list[Cliff]]:
    """Steps up (work gets dearer as it grows) and steps down (more work takes less time), the worst first."""
    lines: dict[tuple[str, str, int], list[Point]] = {}
    for point in sorted(seconds, key=lambda p: p.value):
        lines.setdefault((point.sweep, point.dtype, point.threads), []).append(point)
    found = []
    for line in lines.values():
        for a, b in itertools.pairwise(line):
            ratio = seconds[b] / seconds[a]
            found.append(Cliff(a, b, ratio, ratio * a.network.flops / b.network.flops))
    return (
        sorted(found, key=lambda c: -c.work_ratio),
        sorted((c for c in found if c.time_ratio < 1), key=lambda c: c.time_ratio),
    )


def write(seconds: dict[Point, float], folder: Path) -> None:
    with open(folder / "sweep.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["sweep", "value", "dtype", "threads", "batch", "sizes", "seconds", "flops"])
        for p in sorted(seconds, key=lambda p: (p.sweep, p.dtype, p.threads, p.value)):
            sizes = "-".join(map(str, p.network.sizes))
            rows.writerow(
                [p.sweep, p.value, p.dtype, p.threads, p.network.batch, sizes, seconds[p], p.network.flops]
            )


def plot(seconds: dict[Point, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(SWEEPS), 2, figsize=(18, 5 * len(SWEEPS)), layout="constrained")
    for name, (us, gflops) in zip(SWEEPS, axes, strict=True):
        for dtype, colour in zip(DTYPES, ("tab:blue", "tab:red"), strict=True):
            for threads, style in zip(THREADS, (":", "-"), strict=True):
                line = sorted(
                    (p for p in seconds if (p.sweep, p.dtype, p.threads) == (name, dtype, threads)),
                    key=lambda p: p.value,
                )
                x = [p.value for p in line]
                look = {"color": colour, "linestyle": style, "label": f"{dtype}, {threads} threads"}
                us.plot(x, [seconds[p] * 1e6 for p in line], **look)
                gflops.plot(x, [p.network.flops / seconds[p] / 1e9 for p in line], **look)
        example = SWEEPS[name][1](0, "float32")
        shape = f"{example.batch or 'n'} x {'-'.join(str(s or 'n') for s in example.sizes)}"
        for axis, label in ((us, "us a step"), (gflops, "GFLOP/s")):
            axis.set(title=f"{name}: {shape}", xlabel=f"n ({name})", ylabel=label, xlim=0, ylim=0)
            axis.xaxis.set_major_locator(matplotlib.ticker.MultipleLocator(16))
            axis.grid(alpha=0.4)
        us.legend()
    figure.savefig(path, dpi=60)


# ---- the README's table ----------------------------------------------------------------------------------


def table(networks: Iterable[str]) -> None:
    from fastbp.cli.bench.measuring import machine
    from fastbp.engine.probes import multiply_add_limit

    limit = {(dtype, n): 0.0 for dtype in DTYPES for n in THREADS}

    def measure_limits() -> None:  # again and again: at any one time another process may have taken a core
        for dtype, n in limit:
            limit[dtype, n] = max(limit[dtype, n], multiply_add_limit(dtype, n))

    products, steps = {}, {}
    for name in PRODUCTS:
        progress(name)
        measure_limits()
        products[name] = [product_speed(name, phase, threads=n) for phase in PHASES for n in THREADS]
    for name in networks:
        progress(name)
        measure_limits()
        times = [seconds_of_a_step(STEPS[name], n) for n in THREADS]
        time.sleep(0.2)  # idle threads of the engine's pool spin for that long, and then NumPy's
        steps[name] = (*times, seconds_of_a_step(STEPS[name], None, "fastbp.reference", legs=3))
        time.sleep(0.2)
    progress("")

    print(f"{machine()}.")
    for dtype in DTYPES:
        one, two = (limit[dtype, n] / 1e9 for n in THREADS)
        print(f"Limit in {dtype}: {one:.0f} GFLOP/s on one core, {two:.0f} on two.")
    heads = [f"{phase}, {n} core{'s' * (n > 1)}" for phase in PHASES for n in THREADS]
    print(f"\n| batch x layer | {' | '.join(heads)} |")
    print("|---|" + "---:|" * len(heads))
    for name, speeds in products.items():
        shares = [
            f"{100 * s / limit['float32', n]:.0f}%"
            for s, n in zip(speeds, itertools.cycle(THREADS), strict=False)
        ]
        print(f"| {name} | {' | '.join(shares)} |")
    print(
        "\n| step | 1 core, us | of its limit | 2 cores, us | of their limit | NumPy, us | NumPy / fastbp |"
    )
    print("|---|" + "---:|" * 6)
    for name, (one, two, numpy) in steps.items():
        net = STEPS[name]
        shares = [f"{100 * net.flops / t / limit[net.dtype, n]:.0f}%" for t, n in ((one, 1), (two, 2))]
        figures = [
            f"{one * 1e6:,.1f}",
            shares[0],
            f"{two * 1e6:,.1f}",
            shares[1],
            f"{numpy * 1e6:,.0f}",
            f"{numpy / two:.1f}",
        ]
        print(f"| {name} | {' | '.join(figures)} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", action="store_true", help="make the README's table, no sweep")
    parser.add_argument("--folder", type=Path, default=Path("."), help="where sweep.csv and sweep.png go")
    parser.add_argument("--stride", type=int, default=1, help="measure every so-manieth value only")
    parser.add_argument("--passes", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.table:
        table(STEPS)
        return
    seconds = sweep(arguments.stride, arguments.passes)
    write(seconds, arguments.folder)
    plot(seconds, arguments.folder / "sweep.png")
    up, down = cliffs(seconds)
    print("Work gets dearer:")
    print(*up[:20], sep="\n")
    print("\nMore work takes less time:")
    print(*down[:20], sep="\n")


if __name__ == "__main__":
    main()
