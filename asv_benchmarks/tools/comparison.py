"""Put what `fastbp bench` found into the pages: pages/COMPARISON.md has all of it, README.md a few lines.

    fastbp bench --against numpy,sklearn,torch,jax,tensorflow --json asv_benchmarks/pages/comparison.json
    python asv_benchmarks/tools/comparison.py

The first measures, which takes a quarter of an hour, on a machine that has nothing else to do; the second
writes comparison.png and the marked blocks of both pages from comparison.json, and measures nothing. A test
sees to it that the blocks are what the file says.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asv_folder import PAGES, ROOT

from fastbp.cli.bench import estimators, picture, report

RECORD = PAGES / "comparison.json"
PICTURE = PAGES / "comparison.png"
README, PAGE = ROOT / "README.md", PAGES / "COMPARISON.md"
BEGIN, END = "<!-- asv_benchmarks/tools/comparison.py writes from here -->", "<!-- to here -->"
# Of the README's few lines: from the smallest network to the largest.
FEW = ("tiny", "tabular", "mnist", "wide")


def table(rows: Sequence[Sequence[str]], words: int) -> list[str]:
    """Markdown; the first row is the head, and so many columns of words stand before those of numbers."""
    rule = ["---"] * words + ["---:"] * (len(rows[0]) - words)
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], rule, *rows[1:])]


def short_block(record: dict[str, Any]) -> str:
    """The README's lines: some of the networks, the means over all, what they are worth."""
    libraries = report.compared(record)
    rows = [["network", *(f"{library} / fastbp" for library in libraries)]]
    ratios: dict[str, list[float]] = {library: [] for library in libraries}
    for name in record["results"]:
        row = [report.network(record, name)]
        for library in libraries:
            best = report.best_of(record, name, library)
            if best:
                ratios[library].append(best[1]["ratio"]["median"])
            row.append(f"{ratios[library][-1]:.1f}" if best else "")
        if name in FEW:
            rows.append(row)
    means = [f"**{statistics.geometric_mean(found):.1f}** (of {len(found)})" for found in ratios.values()]
    rows.append(["**geometric mean**", *means])
    lost = sum(ratio < 1 for found in ratios.values() for ratio in found)
    times = "nowhere slower" if not lost else "slower once" if lost == 1 else f"slower {lost} times"
    machine = record["machine"]
    return "\n".join(
        [
            *table(rows, words=1),
            "",
            "Time of a training step over fastbp's, the fastest way of each library, on "
            f"{machine['cpu']} with {machine['threads']} threads, {record['date']}; fastbp is {times}. "
            f"[All networks]({PAGE.relative_to(README.parent)}). Other machines differ: `fastbp bench` "
            "measures yours.",
        ]
    )


def block(record: dict[str, Any]) -> str:
    """The page's table and what it was measured with, in Markdown."""
    libraries = report.compared(record)
    rows = [["shape", "network", "fastbp, us a step", *(f"{library} / fastbp" for library in libraries)]]
    ways: dict[str, set[str]] = {library: set() for library in libraries}
    for name, cells in record["results"].items():
        row = [name, report.network(record, name), f"{cells['fastbp']['median']:,.1f}"]
        for library in libraries:
            best = report.best_of(record, name, library)
            text = report.ratio_text(best[1]["ratio"]) if best else ""
            row.append(f"**{text}**" if text.endswith(report.SLOWER) else text)
            if best:
                ways[library].add(best[0].removeprefix(library).strip())
        rows.append(row)
    fits: list[str] = []
    if "estimators" in record:
        whole = table(estimators.rows_of(record["estimators"], report.ratio_text), words=2)
        what = (
            "Whole calls of `fit` of `fastbp.sklearn` and of scikit-learn, all with `random_state=0` (fastbp "
            "remembers what a number draws, up to 2 MB of initial weights or orders each, as it does in a "
            "grid search):"
        )
        fits = ["", what, "", *whole]
    losses = any(cell.startswith("**") for row in rows for cell in row)
    slower = f"Bold, with {report.SLOWER}: fastbp is slower." if losses else "fastbp is nowhere slower."
    text = [
        f"`{record['command']}`, {record['date']}",
        "",
        *table(rows, words=2),
        "",
        f"![The ratios of the table, drawn]({PICTURE.name})",
        "",
        f"Median of {record['rounds']} rounds in turn, in parentheses the lowest and the highest round. "
        f"{slower} "
        "Of each library the fastest of several ways is taken, which is not the same one everywhere: "
        + "; ".join(f"{library}: {', '.join(sorted(names))}" for library, names in ways.items())
        + ".",
        "",
        *(f"- {sentence[0].upper()}{sentence[1:]}." for sentence in report.summary(record)),
        *fits,
        "",
        f"{report.conditions(record)}.".replace("\n", "; "),
    ]
    return "\n".join(text)


def with_block(page: str, block: str) -> str:
    """`page` with `block` between the two marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise SystemExit(f"the page must have the lines {BEGIN!r} and {END!r} once")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", page)


def written(record: dict[str, Any]) -> dict[Path, str]:
    """Both pages, as they must be for this record."""
    blocks = {README: short_block(record), PAGE: block(record)}
    return {path: with_block(path.read_text(encoding="utf-8"), text) for path, text in blocks.items()}


def main() -> int:
    if not RECORD.is_file():
        print(f"comparison: no {RECORD}: see the top of {__file__}", file=sys.stderr)
        return 2
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    picture.draw(str(PICTURE), record)
    for path, page in written(record).items():
        path.write_text(page, encoding="utf-8")
    print(f"wrote {PICTURE}, and the tables in {README} and {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
