"""What `fastbp bench` prints of its record: every figure, and each library's fastest way."""

from __future__ import annotations

import math
import statistics
from typing import Any

from fastbp.cli.bench.estimators import rows_of
from fastbp.cli.bench.problems import LIBRARIES, Shape
from fastbp.cli.bench.ways import VARIANTS
from fastbp.cli.output import text_table

SLOWER = "!"  # marks a ratio below 1
STEPS = f"""\
One training step inside many: the same data, first weights, batches, loss and optimizer for all,
whose parameters after one epoch agree with the reference's. Compiling is excluded.
us/step: median of {{rounds}} rounds in turn. ratio: time of the other / time of fastbp,
with the lowest and the highest round; {SLOWER} marks where fastbp is slower. difference: from
the reference's parameters, as a share of their change."""
FITS = """\
Whole calls of fit of fastbp.sklearn's estimators and of scikit-learn's, with the same
settings and the same losses from epoch to epoch."""


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
    parts = [conditions(record)]
    if record["results"]:
        parts.append(STEPS.format(rounds=record["rounds"]))
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
    if "estimators" in record:
        parts.append(FITS)
        header, *rows = rows_of(record["estimators"], ratio_text)
        parts.append(text_table(header, rows))
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
