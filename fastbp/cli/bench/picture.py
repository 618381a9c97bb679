"""The picture of `fastbp bench --plot`: how many times as long as fastbp each library takes."""

from __future__ import annotations

from typing import Any

from fastbp.cli import pictures
from fastbp.cli.bench.report import best_of, compared, network
from fastbp.plot import INK

LOOKS = {
    "numpy": ("#8795a1", "s"),
    "sklearn": ("#e5a50a", "D"),
    "torch": ("#d9622b", "o"),
    "jax": ("#1f77b4", "^"),
    "tensorflow": ("#7b4fa3", "v"),
}
LOSS = "#fbe3e0"  # the ground where fastbp is slower


def draw(path: str, record: dict[str, Any]) -> None:
    """`record` is what `command.compare` returned."""
    from matplotlib.ticker import NullFormatter

    names, libraries = list(record["results"]), compared(record)
    size = (9, 1.8 + 0.5 * len(names))
    with pictures.page(path, figsize=size, dpi=110, layout="constrained") as figure:
        axes = figure.add_subplot()
        highest = 1.0
        lowest = 1.0
        for k, library in enumerate(libraries):
            colour, marker = LOOKS[library]
            offset = (k - (len(libraries) - 1) / 2) * 0.17
            first = True
            for row, name in enumerate(names):
                best = best_of(record, name, library)
                if best is None:
                    continue
                ratio = best[1]["ratio"]
                highest, lowest = max(highest, ratio["high"]), min(lowest, ratio["low"])
                axes.errorbar(
                    ratio["median"],
                    row + offset,
                    xerr=[[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]],
                    color=colour,
                    marker=marker,
                    markersize=6,
                    capsize=3,
                    linestyle="none",
                    label=library if first else None,
                )
                first = False
        axes.set_xscale("log")
        axes.set_xlim(min(0.8, lowest * 0.9), highest * 1.3)
        axes.axvspan(axes.get_xlim()[0], 1, color=LOSS, zorder=0)
        axes.axvline(1, color=INK, linewidth=1)
        ticks = [tick for tick in (0.5, 1, 2, 3, 5, 10, 20, 30, 50, 100, 200, 300) if tick <= highest * 1.3]
        axes.set_xticks([tick for tick in ticks if tick >= axes.get_xlim()[0]])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_yticks(range(len(names)), [f"{name}\n{network(record, name)}" for name in names], fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x", alpha=0.3)
        axes.set_xlabel(
            "time of a training step / fastbp's, fastest way of each library\nbars: lowest and highest round"
        )
        machine = record["machine"]
        axes.set_title(
            "right of the line fastbp is faster\n"
            f"{machine['cpu']}, {machine['threads']} threads, {record['date']}",
            fontsize=9,
        )
        axes.legend(loc="lower right")
