"""The mathematics, line by line: equation, source, shapes, and the numbers of the small network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp.tutorial.drawing import charts
from fastbp.tutorial.markup import escape, inline, math, matrix, number, prose, shape
from fastbp.tutorial.runs.xor import BACKWARD, FORWARD, LEARNING_RATE, STEPS, Xor
from fastbp.tutorial.source_lines import FILE, SourceLine

FORMULAS = {
    "z1": "z_1 = X W_1 + b_1",
    "a1": "a_1 = max ( 0 , z_1 )",
    "z2": "z_2 = a_1 W_2 + b_2",
    "y_pred": "y_pred = σ ( z_2 ) = ⟦1 // 1 + e^-z⟧",
    "loss": "E = ⟦1 // 2⟧ ∑ ( y_pred - y_true ) ^2",
    "dz2": "⟦∂ E // ∂ z_2⟧ = ( y_pred - y_true ) ⊙ y_pred ⊙ ( 1 - y_pred )",
    "dW2": "⟦∂ E // ∂ W_2⟧ = a_1^T ⟦∂ E // ∂ z_2⟧",
    "db2": "⟦∂ E // ∂ b_2⟧ = ∑_batch ⟦∂ E // ∂ z_2⟧",
    "dz1": "⟦∂ E // ∂ z_1⟧ = ( ⟦∂ E // ∂ z_2⟧ W_2^T ) ⊙ [ z_1 > 0 ]",
    "dW1": "⟦∂ E // ∂ W_1⟧ = X^T ⟦∂ E // ∂ z_1⟧",
    "db1": "⟦∂ E // ∂ b_1⟧ = ∑_batch ⟦∂ E // ∂ z_1⟧",
    "param": "W ← W - lr ⟦∂ E // ∂ W⟧",
    "chain": (
        "⟦∂ E // ∂ W_1⟧ = ⟦∂ E // ∂ y_pred⟧ · ⟦∂ y_pred // ∂ z_2⟧ · ⟦∂ z_2 // ∂ a_1⟧ · ⟦∂ a_1 // ∂ z_1⟧ "
        "· ⟦∂ z_1 // ∂ W_1⟧"
    ),
}
SIGNS = {"@": "@", "*": "⊙", "+": "+", "-": "\N{MINUS SIGN}", "/": "/", "(": "(", ")": ")", ",": ","}


def forward(text: Mapping[str, str], xor: Xor) -> str:
    steps = "".join(_step(text, xor, name, "fwd") for name in FORWARD)
    return prose(text["forward.text"]) + steps


def loss(text: Mapping[str, str], xor: Xor) -> str:
    line = xor.lines["loss"]
    numbers = f'<div class="numbers"><b class="result">E = {number(xor.loss, 4)}</b></div>'
    return prose(text["loss.text"]) + _card(text, "loss", "fwd", line, numbers)


def backward(text: Mapping[str, str], xor: Xor) -> str:
    steps = "".join(_step(text, xor, name, "bwd") for name in BACKWARD)
    checked = text["check.text"].format(numeric=xor.numeric, backprop=xor.names["dW1"][1, 0])
    return (
        prose(text["backward.text"])
        + f'<div class="formula chain">{math(FORMULAS["chain"])}</div>'
        + steps
        + f'<div class="note">{prose(checked)}</div>'
    )


def update(text: Mapping[str, str], xor: Xor) -> str:
    n = xor.names
    numbers = _numbers(
        [
            matrix("W2", n["W2"], batch=False),
            _sign("-"),
            f'<span class="sign">{LEARNING_RATE:g} ·</span>',
            matrix("dW2", n["dW2"], batch=False),
            _sign("="),
            matrix("W2", xor.updated["W2"], batch=False),
        ]
    )
    card = _card(text, "param", "upd", xor.lines["param"], numbers, lr=LEARNING_RATE)
    after = text["update.after"].format(
        before=xor.loss,
        after=xor.loss_after,
        steps=STEPS,
        last=xor.losses[-1],
        predictions=", ".join(number(v, 2) for v in xor.predictions),
    )
    curve = charts.curves(
        [charts.Curve("", xor.losses, "good")], title=text["training.curve"], x_label=text["training.steps"]
    )
    planes = "".join(
        charts.plane(plane, n["X"], n["y_true"], title=title)
        for plane, title in (
            (xor.plane_before, text["training.before"]),
            (xor.plane_after, text["training.after"].format(steps=STEPS)),
        )
    )
    return (
        prose(text["update.text"])
        + card
        + prose(after)
        + f'<div class="charts three">{curve}{planes}</div>'
        + f'<p class="caption">{inline(text["training.caption"])}</p>'
    )


# ---- one equation --------------------------------------------------------------------------------------


def _step(text: Mapping[str, str], xor: Xor, name: str, style: str) -> str:
    line = xor.lines[name]
    parts = [matrix(name, xor.names[name], batch=_of_batch(xor, name)), _sign("=")]
    shapes = []
    for operand in line.operands():
        if operand in SIGNS:
            parts.append(_sign(SIGNS[operand]))
            shapes.append(escape(SIGNS[operand]))
            continue
        array = _value(operand, xor.names)
        if array is None:
            parts.append(f'<code class="sign">{escape(operand)}</code>')
            shapes.append(f"<code>{escape(operand)}</code>")
        elif isinstance(array, np.ndarray):
            parts.append(matrix(operand, array, batch=_of_batch(xor, operand)))
            shapes.append(f"<b>{shape(array)}</b>")
        else:
            parts.append(f'<span class="sign">{number(array)}</span>')
            shapes.append(number(array))
    result = f"<b>{shape(xor.names[name])}</b> = "
    return _card(text, name, style, line, _numbers(parts), shapes=result + " ".join(shapes))


def _value(expression: str, names: Mapping[str, Any]) -> Any:
    """The array or number that an expression of the source is; None for pieces such as ".sum(axis=0)"."""
    try:
        value = eval(expression, {"np": np}, dict(names))
    except (SyntaxError, NameError):
        return None
    return value.astype(float) if isinstance(value, np.ndarray) else value


def _of_batch(xor: Xor, expression: str) -> bool:
    """Whether the rows of what the expression gives are the rows of the batch."""
    return expression.split(" ")[0] in ("X", "z1", "a1", "z2", "y_pred", "y_true", "dz1", "dz2")


def _sign(sign: str) -> str:
    return f'<span class="sign">{escape({"-": SIGNS["-"]}.get(sign, sign))}</span>'


def _numbers(parts: list[str]) -> str:
    return f'<div class="numbers">{"".join(parts)}</div>'


def _card(
    text: Mapping[str, str],
    name: str,
    style: str,
    line: SourceLine,
    numbers: str,
    *,
    shapes: str = "",
    **values: float,
) -> str:
    code, _, comment = line.text.partition("  # ")
    said = inline(text[f"eq.{name}"].format(**values) if values else text[f"eq.{name}"])
    shaped = f'<p class="shapes">{shapes}</p>' if shapes else ""
    return (
        f'<article class="eq {style}" id="eq-{name}"><h3>{inline(text[f"eq.{name}.title"])}</h3>'
        f'<div class="formula">{math(FORMULAS[name])}</div>'
        f'<pre class="src"><code>{escape(code)}</code>'
        f"{f'<i>  # {escape(comment)}</i>' if comment else ''}<span>{FILE}:{line.number}</span></pre>"
        f'<p class="say">{said}</p>{shaped}{numbers}</article>'
    )
