"""What asv has measured, curve by curve, and what can be said of a change in spite of the noise.

A figure of one commit is noisy in two ways. Each network's time has its own luck (which cores, what else the
machine did in that moment), so of many networks the median counts, with the interval that a sign test gives:
however wild they are, they make no change out of nothing, unless nearly all of them moved the same way. And a
whole run has its luck (the clock rate, a neighbour on the same processor), which moves all networks together:
how much, the history tells, by how far they move from one commit to the next. That widens the interval.

There is a change if the whole interval says so, and none if the whole interval is small. What is neither
cannot be told, and `regression.py` finds out by measuring both commits side by side.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEEK = 7 * 24 * 3600 * 1000  # asv's dates are milliseconds
SAME = 0.03  # what is less is not called faster or slower
CLOSE = 0.10  # an interval within this says that nothing has changed
CONFIDENCE = 0.99
WIDE = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
# How far a whole run moves by itself, as the history of the project's machine shows. Used where there are
# too few commits to tell, and as the least of a single curve.
USUAL_NOISE, LEAST_NOISE = 0.04, 0.01
ENOUGH = 8  # neighbouring commits from which their differences tell the noise


def noise(logs: Sequence[float]) -> float:
    """The standard deviation of a step from one to the next, if most of the steps are nothing but noise."""
    steps = [abs(b - a) for a, b in itertools.pairwise(logs)]
    # By 1.4826 the median of absolute values becomes a standard deviation, whatever a few real changes are.
    return max(LEAST_NOISE, 1.4826 * statistics.median(steps)) if len(steps) >= ENOUGH else USUAL_NOISE


@dataclass(frozen=True)
class Change:
    """By how much something became faster, as a ratio, with its interval: 1.25 is 25% faster."""

    speed: float
    low: float
    high: float

    @property
    def faster(self) -> bool:
        return self.low > 1 and self.speed > 1 + SAME

    @property
    def slower(self) -> bool:
        return self.high < 1 and self.speed < 1 - SAME

    @property
    def none(self) -> bool:
        return not (self.faster or self.slower) and self.low > 1 - CLOSE and self.high < 1 + CLOSE

    @property
    def interval(self) -> str:
        return f"{percent(self.low)} to {percent(self.high)}"


def percent(speed: float) -> str:
    return f"{100 * (speed - 1):+.0f}%"


def change_of(speeds: Sequence[float], noise: float) -> Change:
    """The change that these speeds, each a ratio of one network, amount to; noise: that of a whole run."""
    logs = sorted(map(math.log, speeds))
    n = len(logs)
    # The most values that may be cut off at each end: the median lies between the others in 99 of 100 cases.
    cut, tail = 0, 2.0 ** (1 - n)
    while cut < (n - 1) // 2 and (tail := tail + math.comb(n, cut + 1) * 2.0 ** (1 - n)) <= 1 - CONFIDENCE:
        cut += 1
    low, high = logs[cut] - WIDE * noise, logs[n - 1 - cut] + WIDE * noise
    return Change(*(math.exp(value) for value in (statistics.median(logs), low, high)))


@dataclass(frozen=True)
class Series:
    """One curve: a benchmark with one choice of its parameters, on one machine."""

    benchmark: str
    parameters: tuple[str, ...]
    unit: str
    more_is_better: bool
    points: tuple[tuple[int, float], ...]  # (revision, value), the newest last

    @property
    def group(self) -> str:
        return self.benchmark.split(".")[0]

    def at(self, revision: int) -> float | None:
        """The last value that was measured up to a revision."""
        return next((value for when, value in reversed(self.points) if when <= revision), None)

    def speed(self, then: int) -> float | None:
        """How many times as fast as at revision `then` (memory: as small) it is now."""
        before, now = self.at(then), self.points[-1][1]
        if before is None or before <= 0 or now <= 0:
            return None
        return now / before if self.more_is_better else before / now

    def change(self, then: int) -> Change | None:
        speed = self.speed(then)
        if speed is None:
            return None
        own = max(noise([math.log(value) for _, value in self.points if value > 0]), USUAL_NOISE)
        return change_of([speed], own)


@dataclass(frozen=True)
class History:
    """All curves of one machine, and what asv knows of it."""

    machine: dict[str, str]
    versions: dict[str, str]
    series: list[Series]
    dates: dict[int, int]  # revision -> milliseconds
    hashes: dict[int, str]

    @property
    def name(self) -> str:
        return str(self.machine.get("machine", ""))

    @property
    def now(self) -> int:
        return max(when for series in self.series for when, _ in series.points)

    @property
    def then(self) -> int:
        """The newest measured revision that is a week older than `now`, else the oldest one."""
        measured = sorted({when for series in self.series for when, _ in series.points})
        old = [when for when in measured if self.dates[when] <= self.dates[self.now] - WEEK]
        return old[-1] if old else measured[0]

    @property
    def is_a_week(self) -> bool:
        return self.dates[self.now] - self.dates[self.then] >= WEEK

    def of(self, benchmark: str) -> list[Series]:
        return [series for series in self.series if series.benchmark == benchmark]

    def change(self, chosen: Sequence[Series]) -> Change | None:
        """What several curves say together; those of one network, with one thread or two, count once."""
        networks: dict[str, list[float]] = {}
        for series in chosen:
            if (speed := series.speed(self.then)) is not None:
                key = series.benchmark + series.parameters[0] if series.parameters else series.benchmark
                networks.setdefault(key, []).append(speed)
        if not networks:
            return None
        return change_of([*map(statistics.geometric_mean, networks.values())], self._noise(chosen))

    def _noise(self, chosen: Sequence[Series]) -> float:
        """Of a whole run: how far the median of these curves moves from one measured commit to the next."""
        moves, level = [0.0], 0.0
        for before, after in itertools.pairwise(sorted({when for s in chosen for when, _ in s.points})):
            pairs = [(dict(s.points).get(before, 0.0), dict(s.points).get(after, 0.0)) for s in chosen]
            logs = [math.log(b / a) for a, b in pairs if a > 0 and b > 0]
            if logs:
                level += statistics.median(logs)
                moves.append(level)
        return noise(moves)


def histories(html_dir: Path) -> list[History]:
    """What `asv publish` wrote, machine by machine."""
    from asv.graph import Graph

    index = json.loads((html_dir / "index.json").read_text(encoding="utf-8"))
    dates = {int(revision): int(date) for revision, date in index["revision_to_date"].items()}
    hashes = {int(revision): str(name) for revision, name in index["revision_to_hash"].items()}
    found = []
    for setting in index["graph_param_list"]:
        series = []
        for name, benchmark in index["benchmarks"].items():
            path = html_dir / (Graph.get_file_path(setting, name) + ".json")
            if path.is_file():
                series += curves(name, benchmark, json.loads(path.read_text(encoding="utf-8")))
        if series:
            machine = index["machines"].get(setting["machine"], {"machine": setting["machine"]})
            versions = {
                key: str(value) for key, value in setting.items() if key in ("python", "numpy", "numba")
            }
            found.append(History(machine, versions, series, dates, hashes))
    return found


def curves(name: str, benchmark: dict[str, Any], rows: list[Any]) -> list[Series]:
    """A benchmark's curves, one for each combination of its parameters; rows: (revision, value or values)."""
    found = []
    title = str(benchmark.get("pretty_name") or name)
    for i, parameters in enumerate(itertools.product(*benchmark["params"])):
        points = []
        for revision, values in rows:
            value = values[i] if isinstance(values, list) else values
            if isinstance(value, int | float) and math.isfinite(value):
                points.append((int(revision), float(value)))
        if points:
            names = tuple(map(said, benchmark["param_names"], parameters))
            unit = str(benchmark["unit"])
            found.append(Series(name, names, unit, "more is better" in title, tuple(points)))
    return found


def said(name: str, value: object) -> str:
    """A parameter: text speaks for itself, a number needs its name."""
    text = str(value).strip("'\"")
    return f"{name} {text}" if text.replace(".", "", 1).isdigit() else text
