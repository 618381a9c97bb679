"""`fastbp bench`: a training step of fastbp and of other libraries, measured side by side.

Every implementation runs in a process of its own (their pools of threads would get in each other's way), and
one of them at a time is awake. They take turns, round after round, so that a slow minute of the machine hits
all alike, and ratios are taken round by round. `peers` holds the implementations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import fastbp
from fastbp.cli.bench.peers import PREFIX, VARIANTS
from fastbp.cli.bench.problems import SHAPES, Shape
from fastbp.cli.output import progress, text_table
from fastbp.storage import atomic

# name on the command line -> name of the installed package
LIBRARIES = {"numpy": "numpy", "sklearn": "scikit-learn", "torch": "torch", "jax": "jax"}
# Idle threads of OpenMP and OpenBLAS pools spin for that long, on the cores that the next one needs.
PAUSE = 0.15
SLOWER = "!"  # marks a ratio below 1


def interleaved(
    runs: Sequence[Callable[[int], None]], steps_per_epoch: int, *, rounds: int, seconds: float
) -> list[list[float]]:
    """Seconds a step of each run, one a round; the runs take turns, so that a slow moment hits all alike.

    A run is called with a number of epochs. Its first call (compilation, page faults) is not counted, and the
    number of epochs is chosen so that one measurement takes about `seconds`.
    """
    epochs = []
    for run in runs:
        run(1)
        start = time.perf_counter()
        run(1)
        epochs.append(max(1, round(seconds / max(time.perf_counter() - start, 1e-6))))
    measured: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for i, run in enumerate(runs):
            time.sleep(0.002)  # lets the other's pool of threads stop spinning
            start = time.perf_counter()
            run(epochs[i])
            measured[i].append((time.perf_counter() - start) / (epochs[i] * steps_per_epoch))
    return measured


def largest_difference(a: Any, b: Any) -> float:
    """Between the parameters of two models of one architecture."""
    pairs = zip([*a.weights, *a.biases], [*b.weights, *b.biases], strict=True)
    return max(float(np.max(np.abs(p - q))) for p, q in pairs)


def cpu() -> str:
    """What the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """So many that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """What a figure depends on, in one line."""
    return (
        f"{cpu()}, {cores()} cores; Python {platform.python_version()}, fastbp {fastbp.__version__}, "
        f"NumPy {np.__version__}, Numba {version('numba')}"
    )


# ---- processes that take turns ---------------------------------------------------------------------------


class Peer(Protocol):
    """An implementation, ready to be measured."""

    hello: dict[str, Any]  # {"difference", "first"}, or why it takes no part: {"unsupported"} or {"failed"}

    def seconds(self, budget: float) -> float: ...

    def close(self) -> None: ...


class Process:
    """A Peer in a process of its own, which sleeps unless it is asked."""

    def __init__(self, variant: str, shape: Shape, threads: int) -> None:
        limits = ("OMP", "OPENBLAS", "MKL", "NUMBA")
        environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in limits}}
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        with _on_cores(threads):  # XLA has no setting for it, but counts the cores that it may use
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastbp.cli.bench.peers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                text=True,
            )
        try:
            self.hello = self._ask(json.dumps({"variant": variant, "shape": dataclasses.asdict(shape)}))
        except RuntimeError as error:
            self.hello = {"failed": str(error)}

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        for answer in self._process.stdout:
            if answer.startswith(PREFIX):
                return dict(json.loads(answer[len(PREFIX) :]))
        self._stderr.seek(0)
        said = self._stderr.read().split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "and said nothing")
        raise RuntimeError(f"its process ended with {self._process.wait()}: {last}"[:300])

    def seconds(self, budget: float) -> float:
        return float(self._ask(str(budget))["seconds"])

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()  # end of input: it goes home
        self._stderr.close()


@contextlib.contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Within, only `count` of our cores may be used by this thread and by processes that it starts."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def installed(libraries: Sequence[str]) -> dict[str, str | None]:
    """library -> its version, or None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in libraries:
        found[name] = None
        if importlib.util.find_spec(name) is not None:
            with contextlib.suppress(PackageNotFoundError):
                found[name] = version(LIBRARIES[name])
    return found


def compare(
    names: Sequence[str],
    libraries: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    threads: int | None = None,
    command: str = "fastbp bench",
    start: Callable[[str, Shape, int], Peer] = Process,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure fastbp and `libraries` on the shapes called `names`; all that there is to know, for JSON.

    `seconds` is the length of one measurement. `start` makes the peers; tests give one that needs no process.
    """
    threads = min(threads or cores(), cores())
    versions = installed(libraries)
    there = [name for name, found in versions.items() if found is not None]
    variants = [name for name, (library, _) in VARIANTS.items() if library in ("fastbp", *there)]
    results = {}
    for name in names:
        results[name] = _in_turn(name, variants, rounds, seconds, threads, start, tell)
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {"cpu": cpu(), "cores": cores(), "threads": threads, "system": platform.system()},
        "versions": {
            "fastbp": fastbp.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "numba": version("numba"),
            **{library: versions[library] for library in there},
        },
        "not installed": [library for library in versions if library not in there],
        "rounds": rounds,
        "seconds": seconds,
        "shapes": {name: {**dataclasses.asdict(SHAPES[name]), "flops": SHAPES[name].flops} for name in names},
        "results": results,
    }


def _in_turn(
    name: str,
    variants: Sequence[str],
    rounds: int,
    seconds: float,
    threads: int,
    start: Callable[[str, Shape, int], Peer],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    peers: dict[str, Peer] = {}
    measured: dict[str, list[float]] = {}
    cells: dict[str, Any] = {}
    try:
        for variant in variants:
            tell(f"{name}: preparing {variant} ...")
            peer = start(variant, SHAPES[name], threads)
            cells[variant] = dict(peer.hello)
            if "difference" in peer.hello:
                peers[variant], measured[variant] = peer, []
            else:
                peer.close()
        for number in range(rounds):
            for variant, peer in list(peers.items()):
                tell(f"{name}: round {number + 1} of {rounds}, {variant} ...")
                time.sleep(PAUSE)
                try:
                    measured[variant].append(peer.seconds(seconds))
                except RuntimeError as error:
                    cells[variant] = {"failed": str(error)}
                    peers.pop(variant).close()
                    del measured[variant]
    finally:
        for peer in peers.values():
            peer.close()
    ours = measured.get("fastbp")
    for variant, times in measured.items():
        cells[variant]["microseconds"] = [float(f"{1e6 * t:.4g}") for t in times]
        cells[variant]["median"] = float(f"{1e6 * statistics.median(times):.4g}")
        if ours and variant != "fastbp":
            ratios = [other / mine for other, mine in zip(times, ours, strict=True)]
            cells[variant]["ratio"] = {
                "median": float(f"{statistics.median(ratios):.4g}"),
                "low": float(f"{min(ratios):.4g}"),
                "high": float(f"{max(ratios):.4g}"),
            }
    return cells


# ---- what is printed -------------------------------------------------------------------------------------


def best_of(record: dict[str, Any], name: str, library: str) -> tuple[str, dict[str, Any]] | None:
    """The fastest way of a library to train a shape, and its figures; None where it has none."""
    cells = record["results"][name]
    ways = [way for way, cell in cells.items() if VARIANTS[way][0] == library and "ratio" in cell]
    if not ways:
        return None
    best = min(ways, key=lambda way: cells[way]["median"])
    return best, cells[best]


def compared(record: dict[str, Any]) -> list[str]:
    """The libraries that took part."""
    names = record["results"]
    return [library for library in LIBRARIES if any(best_of(record, name, library) for name in names)]


def ratio_text(ratio: dict[str, float]) -> str:
    """As in "2.50 (2.41-2.62)", with a mark where fastbp is the slower one."""
    digits = [f"{ratio[key]:.{1 if ratio['median'] >= 10 else 2}f}" for key in ("median", "low", "high")]
    return f"{digits[0]} ({digits[1]}-{digits[2]})" + f" {SLOWER}" * (ratio["median"] < 1)


def conditions(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads for each library, "
        f"{record['date']}",
        ", ".join(f"{name} {number}" for name, number in versions.items()),
    ]
    if record["not installed"]:
        lines.append(f"not installed: {', '.join(record['not installed'])}")
    return "\n".join(lines)


def report(record: dict[str, Any]) -> str:
    """All figures, shape by shape, and a table of each library's fastest way."""
    parts = [
        conditions(record),
        "One training step inside many: the same data, first weights, batches, loss and optimizer for all,\n"
        "whose parameters after one epoch agree with the reference's. Compiling is excluded.\n"
        f"us/step: median of {record['rounds']} rounds in turn. ratio: time of the other / time of fastbp,\n"
        f"with the lowest and the highest round; {SLOWER} marks where fastbp is slower. difference: from\n"
        "the reference's parameters, as a share of their change.",
    ]
    for name, cells in record["results"].items():
        shape = _shape(record, name)
        rows = [
            [
                variant,
                f"{cell['median']:,.1f}",
                f"{shape.flops / cell['median'] / 1e3:.1f}",
                ratio_text(cell["ratio"]) if "ratio" in cell else "1",
                f"{cell['first']:.1f}",
                f"{cell['difference']:.0e}",
            ]
            for variant, cell in sorted(cells.items(), key=lambda item: item[1].get("median", math.inf))
            if "median" in cell
        ]
        header = [name, "us/step", "GFLOP/s", "ratio", "first epoch s", "difference"]
        absent = [
            f"{variant}: {cell.get('unsupported') or 'failed: ' + cell['failed']}"
            for variant, cell in cells.items()
            if "median" not in cell
        ]
        parts.append("\n".join([str(shape), text_table(header, rows), *absent]))
    libraries = compared(record)
    if libraries:
        rows = []
        for name, cells in record["results"].items():
            row = [name, str(_shape(record, name)), f"{cells['fastbp'].get('median', math.nan):,.1f}"]
            for library in libraries:
                best = best_of(record, name, library)
                row.append(ratio_text(best[1]["ratio"]) if best else "-")
            rows.append(row)
        parts.append(text_table(["shape", "network", "fastbp us", *libraries], rows))
        parts.append("\n".join(summary(record)))
    return "\n\n".join(parts)


def summary(record: dict[str, Any]) -> list[str]:
    """A sentence for each library: geometric mean and range of the ratios, and where fastbp is slower."""
    sentences = []
    for library in compared(record):
        ratios = {
            name: best[1]["ratio"]["median"]
            for name in record["results"]
            if (best := best_of(record, name, library))
        }
        mean = statistics.geometric_mean(ratios.values())
        losses = [f"{name} ({ratio:.2f})" for name, ratio in ratios.items() if ratio < 1]
        sentences.append(
            f"{library}, the fastest of its ways: {mean:.1f} times the time of fastbp "
            f"(geometric mean over {len(ratios)} shape{'s' * (len(ratios) != 1)}, "
            f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f})"
            + (f"; fastbp is slower at {', '.join(losses)}" if losses else "")
        )
    return sentences


def network(record: dict[str, Any], name: str) -> str:
    """As in "128 x 784-256-10", with all that is not usual."""
    return str(_shape(record, name))


def _shape(record: dict[str, Any], name: str) -> Shape:
    fields = {key: value for key, value in record["shapes"][name].items() if key != "flops"}
    return Shape(**{**fields, "sizes": tuple(fields["sizes"])})


def bench(
    names: Sequence[str],
    libraries: Sequence[str],
    *,
    rounds: int,
    seconds: float,
    threads: int | None = None,
    command: str = "fastbp bench",
    json_file: str | None = None,
    plot_file: str | None = None,
) -> None:
    """Measure, print the report, and write the record and the picture where they are asked for."""
    if plot_file is not None:  # now, rather than after minutes of measuring
        from fastbp.cli import pictures
        from fastbp.cli.bench import picture

        pictures.check(plot_file)

    record = compare(
        names, libraries, rounds=rounds, seconds=seconds, threads=threads, command=command, tell=progress
    )
    progress("")
    print(report(record))
    if json_file is not None:
        atomic.write(json_file, (json.dumps(record, indent=1) + "\n").encode())
    if plot_file is not None:
        picture.draw(plot_file, record)
