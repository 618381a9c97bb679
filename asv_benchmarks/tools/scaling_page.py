"""SCALING.md's marked block and its picture, from what roofline.py has measured. Nothing is measured here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from asv_folder import PAGES

from fastbp.engine.probes import blocking

RECORD, PAGE, PICTURE = PAGES / "scaling.json", PAGES / "SCALING.md", PAGES / "scaling.png"
BEGIN, END = "<!-- asv_benchmarks/tools/roofline.py writes from here -->", "<!-- to here -->"
TITLES = {
    "batch": "n x 64-128-10",
    "width": "64 x 64-n-n-10",
    "depth": "64 x 64-(128 n times)-10",
    "width of one row": "1 x 64-n-n-10",
}
HALF = 0.5  # of the roof; what is below is set in bold
NOTABLE = 0.1  # share of the roof from which barriers are worth a word
GAP = "not measured"
Point = dict[str, Any]


class PageError(Exception):
    """What keeps the page from being written; the message says it in a line."""


# ---- words -----------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def share(point: Point) -> float:
    return float(point["roof"] / point["seconds"])


def microseconds(seconds: float) -> str:
    us = 1e6 * seconds
    return f"{us:,.2f}" if us < 10 else f"{us:,.1f}" if us < 1000 else f"{us:,.0f}"


def select(record: dict[str, Any], **fields: Any) -> list[Point]:
    return [p for p in record["steps"] if all(p[name] == value for name, value in fields.items())]


def table(heads: list[str], rows: Iterable[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rule, *rows)]


def cores(n: int) -> str:
    return f"{n} core{'s' * (n > 1)}"


def machine_table(machine: dict[str, Any]) -> list[str]:
    teams = machine["teams"]
    rows = [
        [f"multiply-adds, {dtype}, GFLOP/s", *(f"{team['flops'][dtype] / 1e9:,.0f}" for team in teams)]
        for dtype in teams[0]["flops"]
    ]
    places = []
    for level, size, shared in machine["caches"]:
        places.append(f"L{level} of {size >> 10:,} KB" + f" for {shared}" * (shared > 1))
    places.append("memory")
    for i, place in enumerate(places):
        both = [f"{team['read'][i] / 1e9:,.0f}, {team['update'][i] / 1e9:,.0f}" for team in teams]
        rows.append([f"{place}: reading, updating, GB/s", *both])
    barriers = (microseconds(team["barrier"]) if team["barrier"] else "" for team in teams)
    rows.append(["a barrier, us", *barriers])
    rows.append(["a call of compiled code, us", *(microseconds(team["entry"]) for team in teams)])
    return table(["", *(cores(team["threads"]) for team in teams)], rows)


def cell(points: list[Point]) -> str:
    if not points:
        return ""
    (point,) = points
    text = f"{microseconds(point['seconds'])}, {percent(share(point))} ({point['bound']})"
    return f"**{text}**" if share(point) < HALF else text


def step_table(record: dict[str, Any], sweep: str) -> list[str]:
    points = select(record, sweep=sweep)
    columns = list(dict.fromkeys((p["dtype"], p["threads"]) for p in points))
    rows = [
        [f"{n:,}", *(cell(select(record, sweep=sweep, value=n, dtype=d, threads=t)) for d, t in columns)]
        for n in dict.fromkeys(p["value"] for p in points)
    ]
    return table(["n", *(f"{dtype}, {cores(n)}" for dtype, n in columns)], rows)


def listed(points: Iterable[Point], figure: Any = share, text: Any = percent) -> str:
    """As in "1: 5%, 4: 12%", by the value that varies."""
    found = [f"{p['value']:,}: {text(figure(p))}" for p in points]
    return ", ".join(found) or GAP


def by_phase(products: dict[str, dict[str, float]], limit: float = 1.0) -> str:
    """As in "32 x 784-128: forward 79%, backward 78%": shares of the limit."""
    return "; ".join(
        f"{name}: {', '.join(f'{phase} {percent(value / limit)}' for phase, value in found.items())}"
        for name, found in products.items()
    )


# ---- why -------------------------------------------------------------------------------------------------


def reasons(record: dict[str, Any]) -> list[str]:
    """What the roof leaves out, each with the figures that show it."""
    machine, points = record["machine"], record["steps"]
    lanes = machine["vector"] // 4
    one = {sweep: select(record, sweep=sweep, dtype="float32", threads=1) for sweep in TITLES}
    tiles = ", ".join(f"{name}: {percent(value)}" for name, value in record["tiles"].items())
    narrow = [p for p in points if p["sweep"] == "width" and p["value"] < lanes and p["threads"] == 1]
    fetched = ", ".join(
        f"{p['value']:,}: {percent(share(p))} of {p['bound']}" for p in one["width of one row"]
    )
    lost = ", ".join(f"{p['value']} in {p['dtype']}: {percent(share(p))}" for p in narrow)
    products = by_phase(record["products"])
    longest = machine["caches"][0][1] // (blocking().panels_side_by_side * machine["vector"])
    entries = "; ".join(
        f"{name}: {microseconds(e['entry'])} us, as {e['entry'] / e['step']:.1f} steps"
        for name, e in record["entries"].items()
    )

    def added(point: Point) -> float:
        return float(sum(point["parts"].values()) / point["seconds"])

    return [
        "**Few rows: the microkernel waits for itself.** An accumulator waits some 4 cycles for its last "
        "multiply-add. 28 of them (14 rows x 2 vectors) hide that, those of a row or two cannot. "
        f"Shares of the limit by rows x vectors: {tiles}. And every step has costs that do not depend "
        "on its size: some twenty calls of compiled kernels, their loops' beginnings and ends, the "
        f"loss. One core's shares of the roof by batch: {listed(one['batch'])}.",
        "**One row, many weights.** A batch of one uses every number of W and of its copy for two flops "
        "each time that it fetches them, so the bandwidth of wherever they lie is the roof. Shares by "
        f"width: {fetched or GAP}.",
        f"**Lanes without a column.** Weights have panels of {lanes} columns in float32, {lanes // 2} "
        "in float64. Columns beyond a multiple of that cost as much as a whole panel, and the model "
        f"counts useful lanes only. Shares by width: {lost or GAP}. The ten outputs of all these "
        "networks lie the other way round, which saves lanes and costs sums across them.",
        "**One after the other.** The roof is the longest of its parts, as if the others hid behind "
        "it. The engine does a product, then the activation on the block that it left in L1, then a "
        "barrier, sums for the biases, the transposed copy. Sums of all parts, as shares of the time "
        f"measured: by depth {listed(one['depth'], added)}; by width {listed(one['width'], added)}.",
        "**The update reads, adds and writes back.** It changes every weight in place, walks down "
        "the columns of its inputs or packs panels of them first, and renews the transposed copy. "
        f"Shares of the limit by phase, one core: {products}.",
        f"**Long panels.** With fan_in above {longest} a pair of panels is larger than L1, and comes "
        "from L2 for each tile of rows. They are not cut, since every element is one chain of "
        "multiply-adds in one tile. Shares by width: "
        f"{listed(p for p in one['width'] if p['value'] > longest)}.",
        "**Barriers, and lines that cross.** The roof has 2L barriers a step; over a last layer of few "
        "outputs the engine may do with one less, and with one alone below it. The roof does not have the "
        "wait for whoever is late, nor that for lines which one core has just written and the other "
        f"one reads. Where barriers are more than {percent(NOTABLE)} of the roof of two cores: "
        f"{where_barriers_count(record)}.",
        "**Packing at the boundaries** is not in these figures, which are of steps inside one call "
        f"of `fit`. A call costs besides, for checks, packing and unpacking: {entries}.",
    ]


def where_barriers_count(record: dict[str, Any]) -> str:
    """Networks for which barriers are a notable part of the roof, and what the second core brings there."""
    alone = {(p["sweep"], p["value"]): p["seconds"] for p in select(record, dtype="float32", threads=1)}
    found = [
        f"{p['sweep']} {p['value']:,}: {percent(p['parts']['barriers'] / p['roof'])}, "
        f"{alone[p['sweep'], p['value']] / p['seconds']:.2f} times as fast as one core"
        for p in select(record, dtype="float32", threads=2)
        if p["parts"]["barriers"] > NOTABLE * p["roof"]
    ]
    return "; ".join(found) or GAP


def second_roof(record: dict[str, Any]) -> list[str]:
    """What products in bfloat16 reach of what the CPU's instructions can do on operands that are packed."""
    pairs = record["bfloat16"]
    flops = {int(n): limit for n, limit in pairs["flops"].items()}
    rows = []
    for point in pairs["steps"]:
        roof, seconds = point["flops"] / flops[point["threads"]], point["bfloat16"]
        gain = f"{point['float32'] / seconds:.2f}"
        times = (microseconds(point["float32"]), microseconds(seconds), gain, percent(roof / seconds))
        rows.append([point["network"], cores(point["threads"]), *times])
    heads = ["network", "", "float32, us", "bfloat16, us", "times as fast", "its roof's share"]
    limits = ", ".join(f"{limit / 1e9:,.0f} GFLOP/s with {cores(n)}" for n, limit in flops.items())
    products = by_phase(pairs["products"], flops[1])
    return [
        "### The second roof: products in bfloat16",
        "",
        f'`precision="bfloat16"`, products as {pairs["implementation"]}. On operands that are packed already '
        f"they reach {limits}. A step's roof here is its flops at that speed: memory, rounding and packing "
        f"lie between. Shares of the limit by phase, one core: {products}.",
        "",
        *table(heads, rows),
    ]


def block(record: dict[str, Any]) -> str:
    """All that was measured, in Markdown."""
    parts = [
        f"`{record['command']}`, {record['date']}, {record['machine']['name']}.",
        "",
        "### The machine",
        "",
        *machine_table(record["machine"]),
        "",
        "### A step in us, and what share of it the roof is",
        "",
        "The best of several legs. In parentheses stands what the roof is made of: multiply-adds, a level of "
        f"caches, memory, or barriers. Bold: below {percent(HALF)}.",
    ]
    for sweep, title in TITLES.items():
        parts += ["", f"By {sweep}, {title}:", "", *step_table(record, sweep)]
    parts += [
        "",
        *second_roof(record),
        "",
        f"![Times and roofs]({PICTURE.name})",
        "",
        "### Where it is far from the roof, and why",
        "",
        *(f"- {reason}" for reason in reasons(record)),
    ]
    return "\n".join(parts)


# ---- the picture -----------------------------------------------------------------------------------------

COLOURS = {1: "#1f77b4", 2: "#d9622b"}


def draw(path: Path, record: dict[str, Any]) -> None:
    """Times with their roofs, for each sweep and dtype."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    dtypes = list(dict.fromkeys(p["dtype"] for p in record["steps"]))
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(14, 3.2 * len(dtypes)), dpi=80, layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        grid = figure.subplots(len(dtypes), len(TITLES), squeeze=False)
        for row, dtype in zip(grid, dtypes, strict=True):
            for axes, (sweep, title) in zip(row, TITLES.items(), strict=True):
                for threads, colour in COLOURS.items():
                    points = select(record, sweep=sweep, dtype=dtype, threads=threads)
                    values = [p["value"] for p in points]
                    measured, roofs = ([1e6 * p[name] for p in points] for name in ("seconds", "roof"))
                    axes.plot(values, measured, "o-", color=colour, markersize=4, label=cores(threads))
                    axes.plot(values, roofs, "--", color=colour, label="its roof")
                axes.set_xscale("log", base=2)
                axes.set_yscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
                axes.set_xticks(list(dict.fromkeys(p["value"] for p in select(record, sweep=sweep))))
                axes.set(xlabel=f"n ({sweep})", ylabel="us a step")
                axes.set_title(f"{title}, {dtype}", fontsize=10)
                axes.tick_params(labelsize=8)
                axes.grid(alpha=0.3)
        grid[0][0].legend(fontsize=8)
        figure.suptitle(f"{record['machine']['name'].split(';')[0]}, {record['date']}", fontsize=9)
        if path.suffix.lower() != ".png":
            figure.savefig(path)
            return
        canvas.draw()
        # A quarter of the size: the picture has few colours.
        Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64).save(
            path, optimize=True
        )


# ---- the page --------------------------------------------------------------------------------------------


def with_block(page: str, text: str) -> str:
    """`page` with `text` between the two marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise PageError(f"{PAGE.name} must have the lines {BEGIN!r} and {END!r} once")
    return pattern.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page)


def write() -> None:
    """SCALING.md and scaling.png, from scaling.json."""
    if not RECORD.is_file():
        raise PageError(f"no {RECORD}: python asv_benchmarks/tools/roofline.py --json {RECORD}")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    page = with_block(PAGE.read_text(encoding="utf-8"), block(record))
    draw(PICTURE, record)
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {PICTURE} and the figures in {PAGE}")
