"""`fastbp bench`: a training step of fastbp and of other libraries, measured side by side.

Every implementation runs in a process of its own (their pools of threads would get in each other's way), and
one of them at a time is awake. They take turns, round after round, so that a slow minute of the machine hits
all alike, and ratios are taken round by round. `ways` holds the implementations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.util
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

import fastbp
from fastbp.cli import pictures
from fastbp.cli.bench import estimators, picture
from fastbp.cli.bench.measuring import PAUSE, cores, cpu
from fastbp.cli.bench.problems import LIBRARIES, SHAPES, Shape
from fastbp.cli.bench.processes import Peer, Process
from fastbp.cli.bench.report import report
from fastbp.cli.bench.ways import VARIANTS
from fastbp.cli.output import progress
from fastbp.storage import atomic


def installed(libraries: Sequence[str]) -> dict[str, str | None]:
    """library -> its version, or None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in libraries:
        found[name] = None
        if importlib.util.find_spec(name) is not None:
            for package in LIBRARIES[name]:
                with contextlib.suppress(PackageNotFoundError):
                    found[name] = found[name] or version(package)
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
    """Measure, print the report, and write the record and the picture where they are asked for.

    names : of shapes, and of `estimators.ESTIMATORS`, which are compared where scikit-learn is.
    """
    fits = [name for name in names if name in estimators.ESTIMATORS]
    names = [name for name in names if name in SHAPES]
    if fits and "sklearn" not in libraries:
        raise ValueError(f"{fits[0]} is a fit of an estimator: --against sklearn is what it is compared with")
    if plot_file is not None and not names:
        raise ValueError(f"--plot draws shapes ({', '.join(SHAPES)}), and only fits are asked for")
    if plot_file is not None:  # now, rather than after minutes of measuring
        pictures.check(plot_file)

    record = compare(
        names, libraries, rounds=rounds, seconds=seconds, threads=threads, command=command, tell=progress
    )
    if fits and record["versions"].get("sklearn"):
        used = record["machine"]["threads"]
        record["estimators"] = estimators.compare(fits, rounds=rounds, threads=used, tell=progress)
    progress("")
    print(report(record))
    if json_file is not None:
        atomic.write(json_file, (json.dumps(record, indent=1) + "\n").encode())
    if plot_file is not None:
        picture.draw(plot_file, record)
