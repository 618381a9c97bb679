"""Put what `fastbp bench` found into the README: a table, a picture, the command, the date.

    fastbp bench --against numpy,sklearn,torch,jax --json asv_benchmarks/pages/comparison.json
    python asv_benchmarks/tools/comparison.py

The first measures, which takes a quarter of an hour, on a machine that has nothing else to do; the second
writes comparison.png and the marked block of README.md from comparison.json, and measures nothing. A test
sees to it that the block is what the file says.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from asv_folder import PAGES, ROOT

from fastbp.cli.bench import command, picture

RECORD = PAGES / "comparison.json"
PICTURE = PAGES / "comparison.png"
README = ROOT / "README.md"
BEGIN, END = "<!-- asv_benchmarks/tools/comparison.py writes from here -->", "<!-- to here -->"


def block(record: dict[str, Any]) -> str:
    """The README's table and what it was measured with, in Markdown."""
    libraries = command.compared(record)
    rows = []
    for name, cells in record["results"].items():
        row = [name, command.network(record, name), f"{cells['fastbp']['median']:,.1f}"]
        for library in libraries:
            best = command.best_of(record, name, library)
            text = command.ratio_text(best[1]["ratio"]) if best else ""
            row.append(f"**{text}**" if text.endswith(command.SLOWER) else text)
        rows.append(row)
    head = ["shape", "network", "fastbp, us a step", *(f"{library} / fastbp" for library in libraries)]
    rule = ["---", "---", *["---:"] * (len(head) - 2)]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
    ways: dict[str, set[str]] = {library: set() for library in libraries}
    for library, names in ways.items():
        for name in record["results"]:
            if best := command.best_of(record, name, library):
                names.add(best[0].removeprefix(library).strip())
    losses = any("**" in line for line in lines)
    slower = f"Bold, with {command.SLOWER}: fastbp is slower." if losses else "fastbp is nowhere slower."
    text = [
        f"`{record['command']}`, {record['date']}",
        "",
        *lines,
        "",
        f"![The ratios of the table, drawn]({PICTURE.relative_to(README.parent)})",
        "",
        f"Median of {record['rounds']} rounds in turn, in parentheses the lowest and the highest round. "
        f"{slower} "
        "Of each library the fastest of several ways is taken, which is not the same one everywhere: "
        + "; ".join(f"{library}: {', '.join(sorted(names))}" for library, names in ways.items())
        + ".",
        *(f"{sentence[0].upper()}{sentence[1:]}." for sentence in command.summary(record)),
        f"{command.conditions(record)}.".replace("\n", "; "),
    ]
    return "\n".join(text)


def with_block(readme: str, block: str) -> str:
    """`readme` with `block` between the two marks."""
    pattern = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(pattern.findall(readme)) != 1:
        raise SystemExit(f"README.md must have the lines {BEGIN!r} and {END!r} once")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", readme)


def main() -> int:
    if not RECORD.is_file():
        print(f"comparison: no {RECORD}: see the top of {__file__}", file=sys.stderr)
        return 2
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    picture.draw(str(PICTURE), record)
    README.write_text(with_block(README.read_text(encoding="utf-8"), block(record)), encoding="utf-8")
    print(f"wrote {PICTURE} and the table in {README}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
