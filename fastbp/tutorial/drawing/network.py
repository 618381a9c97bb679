"""The 2-3-1 network as a drawing that answers: each unit and each weight says where its number comes from.

Everything that can be shown is written beforehand, from the arrays of the run: the page's script only puts
the text of (row, direction, part) into its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastbp.tutorial.markup import escape, inline, number
from fastbp.tutorial.runs.xor import Xor

WIDTH, HEIGHT, RADIUS = 700, 400, 35
X_OF = {"x": 64, "h": 304, "y": 496}
INPUTS, HIDDEN, ROWS = 2, 3, 4
DEFAULT = {"row": 1, "direction": "forward", "part": "h1"}


def _place(part: str) -> tuple[float, float]:
    """The centre of a unit: x0, x1, h0, h1, h2, y0."""
    kind, index = part[0], int(part[1:])
    count = {"x": INPUTS, "h": HIDDEN, "y": 1}[kind]
    gap = {"x": 150, "h": 122, "y": 0}[kind]
    return X_OF[kind], HEIGHT / 2 + gap * (index - (count - 1) / 2)


def _edges() -> Iterator[tuple[str, str, str]]:
    """(part, from, to): "W1-0-2" is the weight from input 0 to hidden unit 2."""
    for i in range(INPUTS):
        for j in range(HIDDEN):
            yield f"W1-{i}-{j}", f"x{i}", f"h{j}"
    for j in range(HIDDEN):
        yield f"W2-{j}-0", f"h{j}", "y0"


def _units() -> list[str]:
    return [f"x{i}" for i in range(INPUTS)] + [f"h{j}" for j in range(HIDDEN)] + ["y0"]


def draw(xor: Xor, text: Mapping[str, str]) -> str:
    """The drawing with its buttons and its panel, and the data for the script."""
    row, direction, part = DEFAULT["row"], DEFAULT["direction"], DEFAULT["part"]
    assert isinstance(row, int)
    values = {
        f"{r}|{way}": {p: _value(xor, way, r, p) for p in (*_units(), *(e for e, _, _ in _edges()), "E")}
        for r in range(ROWS)
        for way in ("forward", "backward")
    }
    panels = {
        f"{r}|{way}|{p}": _panel(xor, text, way, r, p)
        for r in range(ROWS)
        for way in ("forward", "backward")
        for p in (*_units(), *(e for e, _, _ in _edges()), "E")
    }
    signs = {way: {e: _weight(xor, way, e) for e, _, _ in _edges()} for way in ("forward", "backward")}
    names = {
        way: {unit: _unit_name(unit, way) for unit in (*_units(), "E")} for way in ("forward", "backward")
    }
    everything = {"values": values, "panels": panels, "weights": signs, "names": names, "start": DEFAULT}
    data = json.dumps(everything, ensure_ascii=False).replace("<", "\\u003c")
    rows = "".join(
        f'<button type="button" data-row="{r}" aria-pressed="{str(r == row).lower()}">'
        f"{_row_name(xor, r)}</button>"
        for r in range(ROWS)
    )
    ways = "".join(
        f'<button type="button" class="{way}" data-direction="{way}" '
        f'aria-pressed="{str(way == direction).lower()}">{escape(text[f"network.{way}"])}</button>'
        for way in ("forward", "backward")
    )
    shown = panels[f"{row}|{direction}|{part}"]
    return (
        f'<div class="network" id="drawing"><div class="controls"><div class="group" role="group" '
        f'aria-label="{escape(text["network.rows"])}"><span>{escape(text["network.rows"])}</span>{rows}</div>'
        f'<div class="group" role="group">{ways}</div></div>'
        f"{_svg(xor, text, values[f'{row}|{direction}'])}"
        f'<div class="panel" id="panel" aria-live="polite">{shown}</div>'
        f'<script type="application/json" id="network-data">{data}</script></div>'
    )


def _row_name(xor: Xor, r: int) -> str:
    x, y = xor.names["X"][r], xor.names["y_true"][r, 0]
    return f"({x[0]:.0f}, {x[1]:.0f}) → {y:.0f}"


def _svg(xor: Xor, text: Mapping[str, str], values: Mapping[str, str]) -> str:
    body = []
    for edge, start, end in _edges():
        (x1, y1), (x2, y2) = _place(start), _place(end)
        share = 0.27 if edge.startswith("W1") else 0.36
        lx, ly = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
        value = _weight(xor, "forward", edge)
        sign = "pos" if value >= 0 else "neg"
        width = _edge_width(value)
        line = f"M{x1} {y1:.1f}L{x2} {y2:.1f}"
        body.append(
            f'<g class="edge" data-part="{edge}" tabindex="0" role="button" aria-label="{_bracketed(edge)}">'
            f'<path class="hit" d="{line}"/><path class="wire {sign}" stroke-width="{width}" d="{line}"/>'
            f'<text class="weight" x="{lx:.1f}" y="{ly + 4:.1f}" text-anchor="middle">{values[edge]}</text>'
            "</g>"
        )
    x, y = _place("y0")
    loss_x = WIDTH - 58
    body.append(f'<path class="wire plain" d="M{x} {y}H{loss_x}"/>')
    for unit in _units():
        x, y = _place(unit)
        body.append(
            f'<g class="unit {unit[0]}" data-part="{unit}" tabindex="0" role="button" '
            f'aria-label="{_unit_name(unit)}"><circle cx="{x}" cy="{y:.1f}" r="{RADIUS}"/>'
            f'<text class="value" x="{x}" y="{y + 5:.1f}" text-anchor="middle">{values[unit]}</text>'
            f'<text class="name" x="{x}" y="{y - RADIUS - 7:.1f}" text-anchor="middle">'
            f"{_unit_name(unit)}</text></g>"
        )
    body.append(
        f'<g class="unit E" data-part="E" tabindex="0" role="button" aria-label="E">'
        f'<rect x="{loss_x - 48}" y="{HEIGHT / 2 - 28}" width="96" height="56" rx="8"/>'
        f'<text class="value" x="{loss_x}" y="{HEIGHT / 2 + 5}" text-anchor="middle">{values["E"]}</text>'
        f'<text class="name" x="{loss_x}" y="{HEIGHT / 2 - 36}" text-anchor="middle">E</text></g>'
    )
    for x, name in (*((X_OF[k], f"network.layer.{k}") for k in "xhy"), (loss_x, "network.layer.loss")):
        body.append(
            f'<text class="layer" x="{x}" y="{HEIGHT - 8}" text-anchor="middle">{escape(text[name])}</text>'
        )
    return (
        f'<svg class="net" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" '
        f'aria-label="{escape(text["network.label"])}">{"".join(body)}</svg>'
    )


def _edge_width(value: float) -> str:
    return f"{1 + 2.2 * min(abs(value), 2.0):.1f}"


def _unit_name(unit: str, way: str = "forward") -> str:
    kind, index = unit[0], unit[1:]
    if way == "forward":
        return {"x": f"x[{index}]", "h": f"a1[{index}]", "y": "y_pred", "E": "E"}[kind]
    return {"x": f"x[{index}]", "h": f"dz1[{index}]", "y": "dz2", "E": "y_pred − y_true"}[kind]


def _bracketed(edge: str) -> str:
    name, i, j = edge.split("-")
    return f"{name}[{i}, {j}]"


def _weight(xor: Xor, way: str, edge: str) -> float:
    name, i, j = edge.split("-")
    return float(xor.names[name if way == "forward" else f"d{name}"][int(i), int(j)])


def _value(xor: Xor, way: str, row: int, part: str) -> str:
    """What stands in or beside a part of the drawing."""
    n = xor.names
    if "-" in part:
        return number(_weight(xor, way, part), 2 if way == "forward" else 3)
    if part == "E":
        error = n["y_pred"][row, 0] - n["y_true"][row, 0]
        return number(0.5 * error**2) if way == "forward" else number(error)
    kind, index = part[0], int(part[1:])
    forward = {"x": "X", "h": "a1", "y": "y_pred"}
    backward = {"x": "X", "h": "dz1", "y": "dz2"}
    return number(n[(forward if way == "forward" else backward)[kind]][row, index])


# ---- what the panel says -------------------------------------------------------------------------------


def _lines(*lines: str) -> str:
    return "".join(f'<p class="calc">{line}</p>' for line in lines)


def _signed(value: float) -> str:
    """A number as a factor or a summand: negative ones in brackets."""
    shown = number(value)
    return shown if value >= 0 else f"({shown})"


def _sum(pairs: list[tuple[float, float]], *rest: float) -> str:
    terms = [f"{_signed(a)} × {_signed(b)}" for a, b in pairs] + [_signed(v) for v in rest]
    return " + ".join(terms)


def _panel(xor: Xor, text: Mapping[str, str], way: str, row: int, part: str) -> str:
    kind = part.split("-")[0] if "-" in part else part[0]
    title, calc = _PANELS[way, kind](xor.names, row, part)
    key = f"panel.{way}.{kind}"
    return f"<h4>{title}</h4>{calc}<p>{inline(text[key])}</p>"


def _forward_input(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    i = int(part[1:])
    return f"X[{r}, {i}]", _lines(f"X[{r}, {i}] = {number(n['X'][r, i])}")


def _forward_hidden(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    j = int(part[1:])
    names = " + ".join(f"X[{r},{i}]·W1[{i},{j}]" for i in range(INPUTS))
    numbers = _sum([(n["X"][r, i], n["W1"][i, j]) for i in range(INPUTS)], n["b1"][j])
    z, a = number(n["z1"][r, j]), number(n["a1"][r, j])
    return f"a1[{r}, {j}]", _lines(
        f"z1[{r},{j}] = {names} + b1[{j}]",
        f"= {numbers} = <b>{z}</b>",
        f"a1[{r},{j}] = max(0, {z}) = <b>{a}</b>",
    )


def _forward_output(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    names = " + ".join(f"a1[{r},{j}]·W2[{j},0]" for j in range(HIDDEN))
    numbers = _sum([(n["a1"][r, j], n["W2"][j, 0]) for j in range(HIDDEN)], n["b2"][0])
    z, y = number(n["z2"][r, 0]), number(n["y_pred"][r, 0])
    minus_z = number(-n["z2"][r, 0])
    return f"y_pred[{r}, 0]", _lines(
        f"z2[{r},0] = {names} + b2[0]",
        f"= {numbers} = <b>{z}</b>",
        f"y_pred[{r},0] = 1 / (1 + e<sup>{minus_z}</sup>) = <b>{y}</b>",
    )


def _forward_loss(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    y, t = n["y_pred"][r, 0], n["y_true"][r, 0]
    return "E", _lines(
        f"½ (y_pred[{r},0] − y_true[{r},0])²",
        f"= ½ × ({number(y)} − {number(t)})² = <b>{number(0.5 * (y - t) ** 2)}</b>",
    )


def _forward_weight(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    name, i, j = part.split("-")
    below, above = ("X", "z1") if name == "W1" else ("a1", "z2")
    b, w = n[below][r, int(i)], n[name][int(i), int(j)]
    return _bracketed(part), _lines(
        f"{name}[{i},{j}] = <b>{number(w)}</b>",
        f"{below}[{r},{i}]·{name}[{i},{j}] = {_signed(b)} × {_signed(w)} = <b>{number(b * w)}</b> "
        f"→ {above}[{r},{j}]",
    )


def _backward_input(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    i = int(part[1:])
    return f"X[{r}, {i}]", _lines(f"X[{r}, {i}] = {number(n['X'][r, i])}")


def _backward_hidden(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    j = int(part[1:])
    z, on = n["z1"][r, j], int(n["z1"][r, j] > 0)
    d, w = n["dz2"][r, 0], n["W2"][j, 0]
    return f"dz1[{r}, {j}]", _lines(
        f"dz1[{r},{j}] = dz2[{r},0]·W2[{j},0]·[z1[{r},{j}] &gt; 0]",
        f"= {_signed(d)} × {_signed(w)} × [{number(z)} &gt; 0] = {number(d * w)} × {on} = "
        f"<b>{number(n['dz1'][r, j])}</b>",
    )


def _backward_output(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    y, t = n["y_pred"][r, 0], n["y_true"][r, 0]
    return f"dz2[{r}, 0]", _lines(
        f"dz2[{r},0] = (y_pred − y_true)·y_pred·(1 − y_pred)",
        f"= ({number(y)} − {number(t)}) × {number(y)} × (1 − {number(y)}) = <b>{number(n['dz2'][r, 0])}</b>",
    )


def _backward_loss(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    y, t = n["y_pred"][r, 0], n["y_true"][r, 0]
    return "∂E/∂y_pred", _lines(f"y_pred − y_true = {number(y)} − {number(t)} = <b>{number(y - t)}</b>")


def _backward_weight(n: Mapping[str, Any], r: int, part: str) -> tuple[str, str]:
    name, i, j = part.split("-")
    below, error = ("X", "dz1") if name == "W1" else ("a1", "dz2")
    pairs = [(n[below][s, int(i)], n[error][s, int(j)]) for s in range(ROWS)]
    result = number(n[f"d{name}"][int(i), int(j)])
    return f"d{_bracketed(part)}", _lines(
        f"d{name}[{i},{j}] = Σ<sub>r</sub> {below}[r,{i}]·{error}[r,{j}]",
        f"= {_sum(pairs)} = <b>{result}</b>",
    )


_PANELS: dict[tuple[str, str], Any] = {
    ("forward", "x"): _forward_input,
    ("forward", "h"): _forward_hidden,
    ("forward", "y"): _forward_output,
    ("forward", "E"): _forward_loss,
    ("forward", "W1"): _forward_weight,
    ("forward", "W2"): _forward_weight,
    ("backward", "x"): _backward_input,
    ("backward", "h"): _backward_hidden,
    ("backward", "y"): _backward_output,
    ("backward", "E"): _backward_loss,
    ("backward", "W1"): _backward_weight,
    ("backward", "W2"): _backward_weight,
}
