"""Charts as inline SVG: curves, bars, histograms, maps of numbers; the page's style sheet has the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.tutorial.markup import escape, number

Array = NDArray[Any]

# Shades of a map of numbers, from the most negative to the most positive; class "m0" to "m8".
SHADES = 9
# Of a chart that stands beside others.
WIDTH, HEIGHT = 340, 210


@dataclass(frozen=True)
class Curve:
    """`style`: the class of its colour: "good", "bad", "fwd", "bwd"."""

    label: str
    values: Sequence[float]
    style: str


def _svg(width: float, height: float, body: str, label: str, style: str = "chart") -> str:
    return (
        f'<svg class="{style}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(label)}">{body}</svg>'
    )


def _text(x: float, y: float, text: str, style: str = "", anchor: str = "middle") -> str:
    of_class = f' class="{style}"' if style else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{of_class}>{escape(text)}</text>'


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high, about so many."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / about))
    step = next((step * m for m in (1, 2, 5, 10) if span / (step * m) <= about), step * 10)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    every = max(1, math.ceil(len(exponents) / 5))
    return [10.0**e for e in exponents if e % every == 0]


def _power(value: float) -> str:
    """A power of ten as a label."""
    exponent = round(math.log10(value))
    if -2 <= exponent <= 3:
        return number(value)
    digits = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


def curves(
    lines: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    log: bool = False,
) -> str:
    """Values over 1, 2, ...; a curve ends where it is no longer finite, with a mark."""
    width, height, left, right, top, bottom = WIDTH, HEIGHT, 46, 16, 30, 38
    inner_w, inner_h = width - left - right, height - top - bottom
    finite = [v for line in lines for v in line.values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if log:
        low, high = low * 0.8, high * 1.25
    else:
        low, high = 0.0, high * 1.05 or 1.0
    count = max(len(line.values) for line in lines)

    def x_of(i: float) -> float:
        return left + inner_w * (i / max(1, count - 1))

    def y_of(v: float) -> float:
        if log:
            return top + inner_h * math.log(high / v) / math.log(high / low)
        return top + inner_h * (high - v) / (high - low)

    body = [_text(left - 36, 16, title, "title", "start")]
    for tick in _decades(low, high) if log else _ticks(low, high):
        y = y_of(tick)
        body.append(f'<path class="grid" d="M{left} {y:.1f}H{width - right}"/>')
        label = _power(tick) if log else number(tick) if tick < 1e5 else f"{tick:.0e}".replace("e+0", "e")
        body.append(_text(left - 6, y + 4, label, "tick", "end"))
    for tick in _ticks(1, count, 4) if count > 1 else []:
        if tick == int(tick) and tick >= 1:
            body.append(_text(x_of(tick - 1), height - bottom + 15, f"{tick:.0f}", "tick"))
    body.append(f'<path class="axis" d="M{left} {top}V{height - bottom}H{width - right}"/>')
    body.append(_text(left + inner_w / 2, height - 6, x_label, "tick"))
    for line in lines:
        body.append(_curve(line, x_of, y_of, log))
    body.append(_legend([(line.label, line.style) for line in lines], width - 4))
    return _svg(width, height, "".join(body), title)


def _curve(line: Curve, x_of: Any, y_of: Any, log: bool) -> str:
    points = []
    for i, value in enumerate(line.values):
        if not math.isfinite(value) or (log and value <= 0):
            break
        points.append((x_of(i), y_of(value)))
    ended = 0 < len(points) < len(line.values)
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    drawn = f'<path class="line {line.style}" d="M{path}"/>' if points else ""
    if ended:  # from here on the numbers are NaN or infinite
        x, y = points[-1]
        drawn += f'<path class="line {line.style}" d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10"/>'
    return drawn


def _legend(entries: Sequence[tuple[str, str]], right: float) -> str:
    """Labels with their colours at the right of the title, the last one outermost."""
    if len(entries) < 2:
        return ""
    drawn, x = [], right
    for label, style in reversed(entries):
        drawn.append(_text(x, 16, label, "key", "end"))
        x -= 6.5 * sum(2 if ord(letter) > 0x2E80 else 1 for letter in label) + 5
        drawn.append(f'<path class="line {style}" d="M{x - 14:.1f} 12h14"/>')
        x -= 24
    return "".join(drawn)


def layers(
    groups: Sequence[tuple[str, Sequence[float], str]],
    *,
    title: str,
    x_label: str,
    zero: str,
) -> str:
    """Positive values of each layer as dots on a logarithmic axis; a layer at 0 stands below, as `zero` says.

    groups: (label, a value a layer, class).
    """
    width, height, left, right, top, bottom = WIDTH, HEIGHT, 46, 12, 30, 38
    depth = len(groups[0][1])
    positive = [v for _, values, _ in groups for v in values if v > 0 and math.isfinite(v)] or [1.0]
    low, high = min(positive) / 5, max(positive) * 5
    any_zero = any(not v > 0 for _, values, _ in groups for v in values)
    floor = height - bottom
    inner_h = floor - top - (18 if any_zero else 0)
    inner_w = width - left - right

    def x_of(layer: int) -> float:
        return left + inner_w * (layer + 0.5) / depth

    def y_of(v: float) -> float:
        if not v > 0 or not math.isfinite(v):
            return floor - 5
        return top + inner_h * math.log(high / v) / math.log(high / low)

    body = [_text(left - 36, 16, title, "title", "start")]
    for tick in _decades(low, high):
        body.append(f'<path class="grid" d="M{left} {y_of(tick):.1f}H{width - right}"/>')
        body.append(_text(left - 6, y_of(tick) + 4, _power(tick), "tick", "end"))
    if any_zero:
        body.append(_text(left - 6, floor - 1, zero, "tick", "end"))
    body.append(f'<path class="axis" d="M{left} {top}V{floor}H{width - right}"/>')
    for layer in range(depth):
        body.append(_text(x_of(layer), floor + 15, str(layer + 1), "tick"))
    body.append(_text(left + inner_w / 2, height - 6, x_label, "tick"))
    for _, values, style in groups:
        path = "L".join(f"{x_of(i):.1f} {y_of(v):.1f}" for i, v in enumerate(values))
        body.append(f'<path class="line thin {style}" d="M{path}"/>')
        body += [
            f'<circle class="dot {style}" cx="{x_of(i):.1f}" cy="{y_of(v):.1f}" r="4"/>'
            for i, v in enumerate(values)
        ]
    body.append(_legend([(label, style) for label, _, style in groups], width - 4))
    return _svg(width, height, "".join(body), title)


def histograms(groups: Sequence[tuple[str, Array, str]], *, title: str, x_label: str) -> str:
    """How values are spread, one group above the other, over the same range."""
    width, height, left, right, top, bottom = WIDTH, HEIGHT, 14, 12, 30, 38
    finite = [np.asarray(values, np.float64).ravel() for _, values, _ in groups]
    finite = [values[np.isfinite(values)] for values in finite]
    low = min((float(v.min()) for v in finite if v.size), default=0.0)
    high = max((float(np.percentile(v, 99.5)) for v in finite if v.size), default=1.0)
    if high - low < 1e-12:
        high = low + 1.0
    bins = 26
    inner_w, each = width - left - right, (height - top - bottom) / len(groups)
    body = [_text(10, 16, title, "title", "start")]
    for g, ((label, _, style), values) in enumerate(zip(groups, finite, strict=True)):
        floor = top + each * (g + 1)
        counts, _ = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
        tallest = max(1, int(counts.max()))
        bars = []
        for b, count in enumerate(counts):
            if count:
                h = max(1.0, (each - 20) * count / tallest)
                x = left + inner_w * b / bins
                bars.append(f"M{x:.1f} {floor:.1f}v-{h:.1f}h{inner_w / bins - 1:.1f}v{h:.1f}z")
        body.append(f'<path class="fill {style}" d="{"".join(bars)}"/>')
        body.append(f'<path class="axis" d="M{left} {floor:.1f}h{inner_w}"/>')
        body.append(_text(width - right, floor - each + 14, label, "key", "end"))
    for tick in _ticks(low, high, 5):
        body.append(
            _text(left + inner_w * (tick - low) / (high - low), height - bottom + 15, number(tick), "tick")
        )
    body.append(_text(left + inner_w / 2, height - 6, x_label, "tick"))
    return _svg(width, height, "".join(body), title)


def bars(rows: Sequence[tuple[str, float, float, str]], *, names: tuple[str, str], title: str) -> str:
    """Two times for each row, the longer one as long as the row is wide.

    rows: (label, seconds of the first, seconds of the second, what stands at the end).
    """
    width, left, right, each = 700, 128, 92, 54
    height = 26 + each * len(rows)
    inner = width - left - right
    body = [
        f'<rect class="fill numpy" x="{left}" y="4" width="12" height="12"/>',
        _text(left + 18, 14, names[0], "key", "start"),
        f'<rect class="fill fast" x="{left + 90}" y="4" width="12" height="12"/>',
        _text(left + 108, 14, names[1], "key", "start"),
    ]
    for i, (label, slow, fast, end) in enumerate(rows):
        y = 28 + each * i
        longest = max(slow, fast)
        body.append(_text(left - 10, y + 24, label, "code", "end"))
        for value, style, down in ((slow, "numpy", 0), (fast, "fast", 20)):
            length = max(1.5, inner * value / longest)
            body.append(
                f'<rect class="fill {style}" x="{left}" y="{y + down}" width="{length:.1f}" height="18"/>'
            )
            inside = length > inner - 60
            x, anchor = (left + length - 5, "end") if inside else (left + length + 5, "start")
            shown = f"{value * 1e6:.1f} µs" if value < 1e-4 else f"{value * 1e6:,.0f} µs"
            body.append(_text(x, y + down + 13, shown, f"inside {style}" if inside else "tick", anchor))
        body.append(_text(width - 4, y + 25, end, "ratio", "end"))
    return _svg(width, height, "".join(body), title, "chart wide")


# ---- maps ----------------------------------------------------------------------------------------------


def pixels(values: Array, *, largest: float | None = None, ink: bool = False) -> str:
    """An array as squares of one unit, as a path for each shade; no <svg> around it.

    ink: from 0, no colour, to `largest`, the text's colour (class "i0" to "i8"). Else from -largest to
    largest in two colours (class "m0" to "m8").
    """
    scale = float(largest or np.abs(values).max() or 1.0)
    share = values / scale if ink else 0.5 + 0.5 * values / scale
    shade = np.clip(np.rint(share * (SHADES - 1)), 0, SHADES - 1).astype(int)
    drawn = []
    for s in np.unique(shade):
        parts = []
        for r, c, run in _runs(shade == s):
            parts.append(f"M{c} {r}h{run}v1h-{run}z")
        drawn.append(f'<path class="{"i" if ink else "m"}{s}" d="{"".join(parts)}"/>')
    return "".join(drawn)


def _runs(where: Array) -> list[tuple[int, int, int]]:
    """(row, first column, length) of every horizontal run of True."""
    runs = []
    for r, line in enumerate(where):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], line.astype(int), [0]))))
        runs += [(r, int(a), int(b - a)) for a, b in edges.reshape(-1, 2)]
    return runs


def tile(values: Array, caption: str, *, label: str, ink: bool = False, largest: float | None = None) -> str:
    """A small picture with a caption."""
    rows, columns = values.shape
    picture = pixels(values, ink=ink, largest=largest)
    svg = _svg(
        columns, rows, f'<rect class="paper" width="{columns}" height="{rows}"/>{picture}', label, "tile"
    )
    return f'<figure class="tile">{svg}<figcaption>{caption}</figcaption></figure>'


def plane(values: Array, points: Array, targets: Array, *, title: str) -> str:
    """y_pred in [0, 1] over the plane of two inputs from -0.5 to 1.5, with the samples on it."""
    n = len(values)
    body = [pixels(values - 0.5, largest=0.5)]
    for (x, y), target in zip(points, targets.ravel(), strict=True):
        cx, cy = (x + 0.5) / 2 * n, (1.5 - y) / 2 * n
        body.append(f'<circle class="sample s{target:.0f}" cx="{cx:.1f}" cy="{cy:.1f}" r="{n / 22:.2f}"/>')
        body.append(
            f'<text class="sample" x="{cx:.1f}" y="{cy + n / 36:.1f}" font-size="{n / 15:.2f}" '
            f'text-anchor="middle">{target:.0f}</text>'
        )
    svg = _svg(n, n, "".join(body), title, "plane")
    return f'<figure class="planefig">{svg}<figcaption>{escape(title)}</figcaption></figure>'
