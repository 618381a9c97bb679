"""The dashboard's first page: is main faster or slower than a week ago, and by how much than NumPy?

Computed from what `asv publish` wrote (histories.py, which also tells changes from noise), and from
comparison.json for the other libraries; HTML that loads nothing, with curves drawn as SVG.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from histories import Change, History, Series, percent

NUMPY = "ratios.Epoch.track_ratio_epoch"
STEP = "shapes.Step.track_seconds"
BENCHMARKS_PAGE = "benchmarks.html"
NOT_OURS = {"numpy", "numba"}  # imports that are measured to compare with
UPDATE = "python tools/dashboard.py update"


# ---- words and pictures ----------------------------------------------------------------------------------


def factor(speed: float) -> str:
    """As in "4% faster"."""
    if speed >= 2 or speed <= 0.5:
        return f"{speed:.1f} times as fast" if speed > 1 else f"{1 / speed:.1f} times as slow"
    return f"{100 * (speed - 1):.0f}% faster" if speed > 1 else f"{100 * (1 / speed - 1):.0f}% slower"


def cell(change: Change | None) -> str:
    """Now over then as a percentage of speed; coloured only where it is more than noise."""
    if change is None:
        return "<td>new</td>"
    look = "good" if change.faster else "bad" if change.slower else "same"
    return f'<td class="{look}" title="{change.interval}">{percent(change.speed)}</td>'


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
    answers = [against_then(history)]
    numpy = [series.points[-1][1] for series in history.of(NUMPY)]
    if numpy:
        answers.append(
            f"An epoch takes NumPy <b>{geometric_mean(numpy):.1f} times</b> as long as fastbp: geometric "
            f"mean over {len(numpy)} shapes and dtypes, {min(numpy):.1f} to {max(numpy):.1f}."
        )
    return [answer for answer in answers if answer]


def against_then(history: History) -> str:
    then, now = history.then, history.now
    if then == now:
        return "One commit has been measured, so there is nothing yet to compare main with."
    steps = history.of(STEP)
    change = history.change(steps)
    if change is None:
        return ""
    if history.is_a_week:
        other, note = f"a week ago ({day(history, then)})", ""
    else:
        other = f"the oldest measured commit ({day(history, then)})"
        note = " No commit of a week before has been measured."
    if change.faster or change.slower:
        answer = f"main is <b>{factor(change.speed)}</b>, compared with {other}"
    elif change.none:
        answer = f"main is as fast as {other}"
    else:
        answer = f"Whether main is faster or slower than {other} <b>cannot be told from the noise</b>"
    return (
        f"{answer}. Speed of the middle one of {len(steps)} training steps: {percent(change.speed)}, "
        f"99% interval {change.interval}.{note}"
    )


def what_is_missing(history: History, unmeasured: int) -> str:
    """The newest measured commit, and how many newer ones nobody has measured."""
    newest = f"Newest measured commit: {day(history, history.now)}."
    if not unmeasured:
        return f"<p class='how'>{newest}</p>"
    commits = (
        "The newest commit of main is" if unmeasured == 1 else f"The newest {unmeasured} commits of main are"
    )
    return f"<p class='answer'><b>{commits} not measured</b> (<code>{UPDATE}</code>). {newest}</p>"


def groups_table(history: History) -> str:
    rows = []
    for group in sorted({series.group for series in history.series}):
        changes: dict[Series, Change] = {
            series: c
            for series in history.series
            if series.group == group
            and not NOT_OURS & {*series.parameters}
            and (c := series.change(history.then)) is not None
        }
        if not changes:
            continue
        by_speed = sorted(changes, key=lambda series: changes[series].speed)
        cells = [
            f'<td><a href="{BENCHMARKS_PAGE}#/">{group}</a></td><td>{len(changes)}</td>',
            cell(middle := history.change(by_speed)),
            f"<td>{middle.interval if middle else ''}</td>",
        ]
        for series in (by_speed[0], by_speed[-1]):
            cells.append(cell(changes[series]))
            cells.append(f"<td>{link(series, ', '.join(series.parameters) or series.benchmark)}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    titles = (
        "<th>group</th><th>curves</th><th>middle</th><th>99% interval</th>"
        "<th colspan=2>worst</th><th colspan=2>best</th>"
    )
    return f"<table><tr>{titles}</tr>{''.join(rows)}</table>"


def curves_table(history: History, benchmark: str, scale: float, unit: str) -> str:
    alone = history.then == history.now  # nothing to compare with, and no curve
    rows = []
    for series in history.of(benchmark):
        value = series.points[-1][1] * scale
        since = "" if alone else f"{cell(series.change(history.then))}<td>{curve(series)}</td>"
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


def own_first(found: Sequence[History], own: str) -> list[History]:
    """The reader's machine, then those that were measured last."""
    return sorted(found, key=lambda history: (history.name != own, -history.dates[history.now]))


def page(
    found: Sequence[History],
    record: dict[str, Any] | None,
    own: str = "",
    unmeasured: Callable[[History], int] = lambda history: 0,
) -> str:
    """The whole page, for every machine of the results.

    own: the name of the reader's machine; unmeasured: how many commits of main are newer than those measured.
    """
    parts = []
    if found and own and own not in [history.name for history in found]:
        parts.append(
            f"<p class='answer'>This machine ({html.escape(own)}) has no results yet: <code>{UPDATE}</code>. "
            "What follows is of others.</p>"
        )
    for history in own_first(found, own):
        mine = " (this machine)" * (history.name == own)
        parts.append(f"<h2>{html.escape(history.name)}{mine}</h2>")
        parts += [f'<p class="answer">{sentence}</p>' for sentence in verdict(history)]
        parts.append(what_is_missing(history, unmeasured(history)))
        if history.then != history.now:
            parts.append(
                "<h3>Speed by group, now against then</h3><p class='how'>Coloured is what more than noise "
                "explains.</p>" + groups_table(history)
            )
        if history.of(NUMPY):
            parts.append(
                "<h3>Time of NumPy over time of fastbp, an epoch of fit</h3>"
                + curves_table(history, NUMPY, 1.0, "ratio")
            )
        if history.of(STEP):
            parts.append("<h3>A training step</h3>" + curves_table(history, STEP, 1e6, "us"))
        parts.append(how(history))
    if not found:
        parts.append("<p class='answer'>Nothing has been measured yet: see asv_benchmarks/README.md.</p>")
    if record is not None:
        parts.append(libraries(record))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>fastbp: how fast is main?</title>'
        f"<script>{FORWARD}</script><style>{STYLE}</style></head><body>"
        f'<h1>How fast is main?</h1><p><a href="{BENCHMARKS_PAGE}">All benchmarks, commit by commit</a></p>'
        f"{''.join(parts)}</body></html>\n"
    )
