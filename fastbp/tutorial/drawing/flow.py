"""The flow of forward and backward with the shape of every array, as one drawing.

The tutorial's page shows it in its own colours; README.md shows `flow.svg` beside this file, which is
`standalone()` in English: `python -m fastbp.tutorial.drawing.flow` writes it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastbp.tutorial.markup import escape
from fastbp.tutorial.texts import load

FILE = Path(__file__).with_name("flow.svg")
WIDTH, HEIGHT = 940, 420
BOX = (104, 50)
FORWARD_Y, ERROR_Y, GRADIENT_Y = 130, 262, 374
# name -> (x, y, shape)
FORWARD = {
    "X": (70, FORWARD_Y, "(batch, inputs)"),
    "z1": (242, FORWARD_Y, "(batch, hidden)"),
    "a1": (404, FORWARD_Y, "(batch, hidden)"),
    "z2": (576, FORWARD_Y, "(batch, outputs)"),
    "y_pred": (738, FORWARD_Y, "(batch, outputs)"),
    "E": (878, FORWARD_Y, "½ Σ error²"),
}
PARAMETERS = {
    "W1, b1": (156, 40, "(inputs, hidden), (hidden,)"),
    "W2, b2": (490, 40, "(hidden, outputs), (outputs,)"),
}
ERRORS = {"dz1": (242, ERROR_Y, "(batch, hidden)"), "dz2": (576, ERROR_Y, "(batch, outputs)")}
GRADIENTS = {
    "dW1, db1": (156, GRADIENT_Y, "Xᵀ dz1, Σ dz1"),
    "dW2, db2": (490, GRADIENT_Y, "a1ᵀ dz2, Σ dz2"),
}
# Of the file alone; a page has its own style sheet.
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1d2733}.name{font:600 15px ui-monospace,monospace}
.shape,.op{font-size:11px;fill:#5d6b78}.op{font-family:ui-monospace,monospace}.title{font-weight:600}
rect{fill:#fff;stroke:#9fb0bf;stroke-width:1.3}.fwd rect{stroke:#1f6fb2}.bwd rect{stroke:#c2502a}
path{fill:none;stroke:#9fb0bf;stroke-width:1.6}path.fwd{stroke:#1f6fb2}path.bwd{stroke:#c2502a}
path.used{stroke-dasharray:3 4;stroke-width:1.2}.head{stroke:none}.head.fwd{fill:#1f6fb2}
.head.bwd{fill:#c2502a}.head.used{fill:#9fb0bf}.title.fwd{fill:#1f6fb2}.title.bwd{fill:#c2502a}
@media (prefers-color-scheme:dark){text{fill:#e6e9ec}.shape,.op{fill:#9aa7b3}rect{fill:#1a2027}
.title.fwd{fill:#6db3ee}.title.bwd{fill:#f08d63}}
"""


def _box(name: str, place: tuple[float, float, str], style: str) -> str:
    x, y, below = place
    w = 178 if "," in name else 92 if name == "E" else BOX[0]
    h = BOX[1]
    return (
        f'<g class="{style}"><rect x="{x - w / 2}" y="{y - h / 2}" width="{w}" height="{h}" rx="7"/>'
        f'<text class="name" x="{x}" y="{y - 2}" text-anchor="middle">{name}</text>'
        f'<text class="shape" x="{x}" y="{y + 15}" text-anchor="middle">{escape(below)}</text></g>'
    )


def _arrow(points: list[tuple[float, float]], style: str) -> str:
    """A line through these points with a head at its end."""
    path = "L".join(f"{x} {y}" for x, y in points)
    (x0, y0), (x1, y1) = points[-2:]
    if x0 == x1:
        head = f"M{x1} {y1}l-4 {-8 if y1 > y0 else 8}h8z"
    else:
        head = f"M{x1} {y1}l{-8 if x1 > x0 else 8} -4v8z"
    return f'<path class="{style}" d="M{path}"/><path class="head {style}" d="{head}"/>'


def _label(x: float, y: float, text: str) -> str:
    """What an arrow does."""
    return f'<text class="op" x="{x}" y="{y}" text-anchor="middle">{escape(text)}</text>'


def _body(text: Mapping[str, str]) -> str:
    half, up = BOX[0] / 2, BOX[1] / 2
    x = {name: place[0] for name, place in FORWARD.items()}
    parts = [
        f'<text class="title fwd" x="{WIDTH - 18}" y="84" text-anchor="end">'
        f"{escape(text['flow.forward'])} →</text>",
        f'<text class="title bwd" x="{WIDTH - 18}" y="{ERROR_Y + 52}" text-anchor="end">'
        f"← {escape(text['flow.backward'])}</text>",
        f'<path class="used" d="M{x["z2"] + 64} {GRADIENT_Y + 1}h40"/>',
        f'<text class="shape" x="{x["z2"] + 112}" y="{GRADIENT_Y + 5}">{escape(text["flow.used"])}</text>',
    ]
    # What the way back takes from the way forward, first: other things lie on top of it.
    parts += [
        _arrow([(x["X"] + 20, FORWARD_Y + up), (x["X"] + 20, GRADIENT_Y - up)], "used"),
        _arrow([(x["z1"], FORWARD_Y + up), (x["z1"], ERROR_Y - up)], "used"),
        _arrow([(x["a1"] + 20, FORWARD_Y + up), (x["a1"] + 20, GRADIENT_Y - up)], "used"),
        _arrow(
            [(x["y_pred"], FORWARD_Y + up), (x["y_pred"], ERROR_Y - 8), (x["z2"] + half, ERROR_Y - 8)], "used"
        ),
    ]
    names = list(FORWARD)
    labels = ["X W1 + b1", "max(0, z1)", "a1 W2 + b2", "sigmoid", ""]
    for a, b, label in zip(names, names[1:], labels, strict=False):
        end = x[b] - (46 if b == "E" else half)
        parts.append(_arrow([(x[a] + half, FORWARD_Y), (end, FORWARD_Y)], "fwd"))
        middle = (x[a] + x[b]) / 2
        parts.append(_label(middle, FORWARD_Y + 42, label))
    for name in PARAMETERS:
        px = PARAMETERS[name][0]
        parts.append(_arrow([(px, 40 + up), (px, FORWARD_Y - 8)], "fwd"))
    parts.append(
        _arrow(
            [(x["E"], FORWARD_Y + up), (x["E"], ERROR_Y + 8), (x["z2"] + half, ERROR_Y + 8)],
            "bwd",
        )
    )
    parts.append(
        _label((x["E"] + x["z2"] + half) / 2 + 14, ERROR_Y + 26, "(y_pred − y_true) · y_pred (1 − y_pred)")
    )
    parts.append(
        _arrow([(x["z2"] - half, ERROR_Y), (x["z1"] + half, ERROR_Y)], "bwd")
        + _label((x["z1"] + x["a1"]) / 2 + 34, ERROR_Y - 9, "dz2 W2ᵀ · [z1 > 0]")
    )
    for error_x, _, _ in ERRORS.values():
        parts.append(_arrow([(error_x - 20, ERROR_Y + up), (error_x - 20, GRADIENT_Y - up)], "bwd"))
    for boxes, style in ((PARAMETERS, ""), (FORWARD, "fwd"), (ERRORS, "bwd"), (GRADIENTS, "bwd")):
        parts += [_box(name, place, style) for name, place in boxes.items()]
    return "".join(parts)


def inline(text: Mapping[str, str]) -> str:
    """As part of the tutorial's page."""
    return (
        f'<svg class="flow" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(text["flow.label"])}">{_body(text)}</svg>'
    )


def standalone() -> str:
    """As a file of its own, in English."""
    text = load("en")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" aria-label="{escape(text["flow.label"])}"><style>{STYLE}</style>'
        f"{_body(text)}</svg>\n"
    )


if __name__ == "__main__":
    FILE.write_text(standalone(), encoding="utf-8")
