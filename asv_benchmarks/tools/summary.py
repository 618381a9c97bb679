"""The dashboard's first page: is main faster or slower than a week ago, and by how much than NumPy?

Computed from what `asv publish` wrote, and from comparison.json for the other libraries; HTML that loads
nothing, with curves drawn as SVG.
"""

from __future__ import annotations

import html
import itertools
import json
import math
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WEEK = 7 * 24 * 3600 * 1000  # asv's dates are milliseconds
SAME = 0.03  # changes below are not called faster or slower
NUMPY = "ratios.Epoch.track_ratio_epoch"
STEP = "shapes.Step.track_seconds"
BENCHMARKS_PAGE = "benchmarks.html"
NOT_OURS = {"numpy", "numba"}  # imports that are measured to compare with


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


@dataclass(frozen=True)
class History:
    """All curves of one machine, and what asv knows of it."""

    machine: dict[str, str]
    versions: dict[str, str]
    series: list[Series]
    dates: dict[int, int]  # revision -> milliseconds
    hashes: dict[int, str]

    @property
    def now(self) -> int:
        return max(when for series in self.series for when, _ in series.points)

    @property
    def then(self) -> int:
        """The newest measured revision that is a week older than `now`, else the oldest one."""
        measured = sorted({when for series in self.series for when, _ in series.points})
        old = [when for when in measured if self.dates[when] <= self.dates[self.now] - WEEK]
        return old[-1] if old else measured[0]

    def of(self, benchmark: str) -> list[Series]:
        return [series for series in self.series if series.benchmark == benchmark]


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
            if not path.is_file():
                continue
            rows = json.loads(path.read_text(encoding="utf-8"))
            combinations = list(itertools.product(*benchmark["params"]))
            title = str(benchmark.get("pretty_name") or name)
            for i, parameters in enumerate(combinations):
                points = []
                for revision, values in rows:
                    value = values[i] if isinstance(values, list) else values
                    if isinstance(value, int | float) and math.isfinite(value):
                        points.append((int(revision), float(value)))
                if points:
                    names = tuple(map(said, benchmark["param_names"], parameters))
                    unit = str(benchmark["unit"])
                    series.append(Series(name, names, unit, "more is better" in title, tuple(points)))
        if series:
            machine = index["machines"].get(setting["machine"], {"machine": setting["machine"]})
            versions = {
                key: str(value) for key, value in setting.items() if key in ("python", "numpy", "numba")
            }
            found.append(History(machine, versions, series, dates, hashes))
    return found


def said(name: str, value: object) -> str:
    """A parameter: text speaks for itself, a number needs its name."""
    text = str(value).strip("'\"")
    return f"{name} {text}" if text.replace(".", "", 1).isdigit() else text


# ---- words and pictures ----------------------------------------------------------------------------------


def factor(speed: float) -> str:
    """As in "4% faster"."""
    if abs(speed - 1) < SAME:
        return "as fast as before"
    if speed >= 2 or speed <= 0.5:
        return f"{speed:.1f} times as fast" if speed > 1 else f"{1 / speed:.1f} times as slow"
    return f"{100 * (speed - 1):.0f}% faster" if speed > 1 else f"{100 * (1 / speed - 1):.0f}% slower"


def change(speed: float | None) -> str:
    """A cell of a table: now over then as a percentage of speed, coloured where it counts."""
    if speed is None:
        return "<td>new</td>"
    look = "same" if abs(speed - 1) < SAME else "good" if speed > 1 else "bad"
    return f'<td class="{look}">{100 * (speed - 1):+.0f}%</td>'


def curve(series: Series) -> str:
    """The values over the commits, from 0 up."""
    width, height = 120, 22
    values = [value for _, value in series.points]
    top = max(values) or 1.0
    step = (width - 6) / max(len(values) - 1, 1)
    places = [(3 + i * step, height - 2 - value / top * (height - 5)) for i, value in enumerate(values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return (
        f'<svg width="{width}" height="{height}"><polyline points="{line}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg>'
    )


def geometric_mean(speeds: list[float]) -> float:
    return statistics.geometric_mean(speeds) if speeds else math.nan


def day(history: History, revision: int) -> str:
    when = datetime.fromtimestamp(history.dates[revision] / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    return f"{history.hashes[revision][:8]} of {when} UTC"


def link(series: Series, text: str) -> str:
    return f'<a href="{BENCHMARKS_PAGE}#{html.escape(series.benchmark)}">{html.escape(text)}</a>'


# ---- the page --------------------------------------------------------------------------------------------


def verdict(history: History) -> list[str]:
    """The two answers, in two sentences."""
    then, now = history.then, history.now
    steps = [s for series in history.of(STEP) if (s := series.speed(then)) is not None]
    answers = []
    age = "a week ago" if history.dates[now] - history.dates[then] >= WEEK else "the oldest measured commit"
    if then == now:
        answers.append("One commit has been measured, so there is nothing yet to compare main with.")
    elif steps:
        mean = geometric_mean(steps)
        answer = factor(mean)
        so = "is as fast as" if answer == "as fast as before" else f"is <b>{answer}</b>, compared with"
        answers.append(
            f"main {so} {age} ({day(history, then)}): geometric mean over {len(steps)} training steps, "
            f"{change_text(min(steps))} to {change_text(max(steps))}."
        )
    numpy = [series.points[-1][1] for series in history.of(NUMPY)]
    if numpy:
        answers.append(
            f"An epoch takes NumPy <b>{geometric_mean(numpy):.1f} times</b> as long as fastbp: geometric "
            f"mean over {len(numpy)} shapes and dtypes, {min(numpy):.1f} to {max(numpy):.1f}."
        )
    return answers


def change_text(speed: float) -> str:
    return f"{100 * (speed - 1):+.0f}%"


def groups_table(history: History) -> str:
    rows = []
    for group in sorted({series.group for series in history.series}):
        speeds = {
            series: s
            for series in history.series
            if series.group == group
            and not NOT_OURS & {*series.parameters}
            and (s := series.speed(history.then)) is not None
        }
        if not speeds:
            continue
        worst, best = min(speeds, key=speeds.__getitem__), max(speeds, key=speeds.__getitem__)
        cells = [
            f'<td><a href="{BENCHMARKS_PAGE}#/">{group}</a></td><td>{len(speeds)}</td>',
            change(geometric_mean(list(speeds.values()))),
        ]
        for series in (worst, best):
            cells.append(change(speeds[series]))
            cells.append(f"<td>{link(series, ', '.join(series.parameters) or series.benchmark)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    titles = "<th>group</th><th>curves</th><th>mean</th><th colspan=2>worst</th><th colspan=2>best</th>"
    return f"<table><tr>{titles}</tr>{''.join(rows)}</table>"


def curves_table(history: History, benchmark: str, scale: float, unit: str) -> str:
    alone = history.then == history.now  # nothing to compare with, and no curve
    rows = []
    for series in history.of(benchmark):
        value = series.points[-1][1] * scale
        since = "" if alone else f"{change(series.speed(history.then))}<td>{curve(series)}</td>"
        rows.append(
            f"<tr><td>{link(series, ', '.join(series.parameters))}</td>"
            f'<td class="number">{value:,.{1 if value < 1000 else 0}f}</td>{since}</tr>'
        )
    since = "" if alone else f"<th>speed since then</th><th>{len(history.dates)} commits</th>"
    head = f'<tr><th>network</th><th class="number">{unit}</th>{since}</tr>'
    return f"<table>{head}{''.join(rows)}</table>"


def libraries(record: dict[str, Any]) -> str:
    """`fastbp bench --against ...` as a table."""
    names = list(record["results"])
    every = dict.fromkeys(way for name in names for way in record["results"][name])
    ways = [way for way in every if way != "fastbp"]
    rows = []
    for name in names:
        cells = record["results"][name]
        row = [f"<td>{html.escape(name)}</td>", f'<td class="number">{cells["fastbp"]["median"]:,.1f}</td>']
        for way in ways:
            ratio = cells.get(way, {}).get("ratio")
            look = "" if ratio is None else "bad" if ratio["median"] < 1 else "good"
            row.append(f'<td class="{look}">{"" if ratio is None else format(ratio["median"], ".2f")}</td>')
        rows.append(f"<tr>{''.join(row)}</tr>")
    heads = "".join(f"<th>{html.escape(way)}</th>" for way in ways)
    machine = record["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    said = (
        f"{record['command']}; {record['date']}; {machine['cpu']}, {machine['threads']} threads; {versions}"
    )
    return (
        "<h2>And the other libraries?</h2>"
        "<p>Time of a training step over fastbp's; below 1 fastbp is slower.</p>"
        f"<table><tr><th>shape</th><th>fastbp, us</th>{heads}</tr>{''.join(rows)}</table>"
        f"<p class='how'>{html.escape(said)}</p>"
    )


def how(history: History) -> str:
    machine = history.machine
    words = [machine.get("cpu"), f"{machine['num_cpu']} cores" if machine.get("num_cpu") else None]
    words += [machine.get("arch")]
    if str(machine.get("ram", "")).isdigit():
        words.append(f"{int(machine['ram']) / 2**30:.0f} GB of memory")
    words += [machine.get("os"), *(f"{name} {number}" for name, number in history.versions.items())]
    told = html.escape(", ".join(word for word in words if word))
    return (
        f"<p class='how'>How the figures were taken: {told}. asv built each commit in an environment with "
        "these versions, and measured it; a step is the best of several legs.</p>"
    )


STYLE = """
body { font: 15px/1.45 sans-serif; color: #22313f; max-width: 1080px; margin: 1.5em auto; padding: 0 1em }
.answer { font-size: 21px; margin: .5em 0 } .how { color: #6b7884; font-size: 13px }
table { border-collapse: collapse; margin: .6em 0 1.4em } th, td { padding: 2px 12px 2px 0; text-align: left }
th { border-bottom: 1px solid #ccd3d9 } .number { text-align: right }
.good { color: #1a7f37 } .bad { color: #b42318; font-weight: bold } .same { color: #6b7884 }
svg { vertical-align: middle } polyline { fill: none; stroke: #1f77b4; stroke-width: 1.5 }
circle { fill: #1f77b4 }
"""
# Addresses of asv's own pages (the feed of regressions has some) begin with a #.
FORWARD = f"if (location.hash.length > 1) location.replace('{BENCHMARKS_PAGE}' + location.hash)"


def page(found: list[History], record: dict[str, Any] | None) -> str:
    """The whole page, for every machine of the results."""
    parts = []
    for history in found:
        parts.append(f"<h2>{html.escape(str(history.machine.get('machine', '')))}</h2>")
        parts += [f'<p class="answer">{sentence}</p>' for sentence in verdict(history)]
        parts.append(f"<p class='how'>Newest measured commit: {day(history, history.now)}.</p>")
        if history.then != history.now:
            parts.append("<h3>Speed by group, now against then</h3>" + groups_table(history))
        if history.of(NUMPY):
            parts.append(
                "<h3>Time of NumPy over time of fastbp, an epoch of fit</h3>"
                + curves_table(history, NUMPY, 1.0, "ratio")
            )
        if history.of(STEP):
            parts.append("<h3>A training step</h3>" + curves_table(history, STEP, 1e6, "us"))
        parts.append(how(history))
    if not found:
        parts.append(
            "<p class='answer'>Nothing has been measured yet: see README.md beside dashboard.py.</p>"
        )
    if record is not None:
        parts.append(libraries(record))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>fastbp: how fast is main?</title>'
        f"<script>{FORWARD}</script><style>{STYLE}</style></head><body>"
        f'<h1>How fast is main?</h1><p><a href="{BENCHMARKS_PAGE}">All benchmarks, commit by commit</a></p>'
        f"{''.join(parts)}</body></html>\n"
    )
