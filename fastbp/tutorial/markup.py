"""Small pieces of HTML: prose from light Markdown, formulas in MathML, matrices, numbers."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

MINUS = "\N{MINUS SIGN}"
# What a formula has beside names and numbers.
_OPERATORS = frozenset("=+-·()[],>→⊙∂←∑")
# A letter that needs no space where a line of prose is broken: Chinese characters and their punctuation.
_CJK = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f“”"


def escape(text: str) -> str:
    """Text as it can stand in an element or in a quoted attribute."""
    return html.escape(text, quote=True)


def number(value: float, digits: int = 3) -> str:
    """At most so many decimals, with a true minus sign: "0.5", "−1.25", "3e-07"."""
    value = float(value)
    if value and abs(value) < 0.5 * 10**-digits:
        text = f"{value:.0e}"
    else:
        text = f"{value:.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:.0f}"
    return "0" if text == "-0" else text.replace("-", MINUS)


def joined(text: str) -> str:
    """The lines of a paragraph as one, without a space between two Chinese characters."""
    text = re.sub(rf"([{_CJK}]\**)\n\s*(?=\**[{_CJK}])", r"\1", text.strip())
    return re.sub(r"\s*\n\s*", " ", text)


def inline(text: str) -> str:
    """`code`, **strong** and *emphasis* of a line of prose as HTML."""
    parts = re.split(r"(`[^`]+`)", joined(text))
    done = []
    for part in parts:
        if part.startswith("`") and len(part) > 1:
            done.append(f"<code>{escape(part[1:-1])}</code>")
            continue
        part = html.escape(part, quote=False)
        part = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", part)
        done.append(re.sub(r"\*(.+?)\*", r"<em>\1</em>", part))
    return "".join(done)


def prose(text: str) -> str:
    """Paragraphs and lists ("- " at the beginning of each line) as HTML."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("- "):
            items = "".join(f"<li>{inline(item)}</li>" for item in re.split(r"^- ", block, flags=re.M)[1:])
            blocks.append(f"<ul>{items}</ul>")
        else:
            blocks.append(f"<p>{inline(block)}</p>")
    return "\n".join(blocks)


# ---- formulas ------------------------------------------------------------------------------------------


def symbol(text: str) -> str:
    """One symbol in MathML: an operator, a number, or a name like "W_1", "W_2^T", "y_pred"."""
    if text in _OPERATORS:
        shown = {"-": MINUS}.get(text, text)
        return f"<mo>{escape(shown)}</mo>"
    if re.fullmatch(r"[\d.]+", text):
        return f"<mn>{text}</mn>"
    base, _, upper = text.partition("^")
    base, _, lower = base.partition("_")
    element = f'<mi mathvariant="normal">{base}</mi>' if base in ("max", "exp") else f"<mi>{base}</mi>"
    low = f"<mtext>{lower}</mtext>" if len(lower) > 1 else f"<mn>{lower}</mn>"
    high = f'<mi mathvariant="normal">{upper}</mi>' if upper.isalpha() else f"<mn>{upper}</mn>"
    high = "<mo>\u2032</mo>" if upper == "'" else high
    if lower and upper:
        return f"<msubsup>{element}{low}{high}</msubsup>"
    if lower:
        return f"<msub>{element}{low}</msub>"
    return f"<msup>{element}{high}</msup>" if upper else element


def _parts(formula: str, symbol: Callable[[str], str], fraction: Callable[[str, str], str]) -> list[str]:
    """What becomes of the symbols between spaces, and of each fraction, which stands between ⟦ and ⟧."""
    done = []
    for i, piece in enumerate(re.split(r"⟦(.*?)⟧", formula)):
        if i % 2:
            above, below = piece.split(" // ")
            done.append(fraction(above, below))
        else:
            done.extend(map(symbol, piece.split()))
    return done


def row(formula: str) -> str:
    """Symbols between spaces in MathML; what stands between ⟦ and ⟧, as a / b, is a fraction."""

    def fraction(above: str, below: str) -> str:
        return f"<mfrac><mrow>{row(above)}</mrow><mrow>{row(below)}</mrow></mfrac>"

    return "".join(_parts(formula, symbol, fraction))


def math(formula: str, *, block: bool = True) -> str:
    """A formula such as "z_1 = X W_1 + b_1" as a <math> element."""
    display = ' display="block"' if block else ""
    return f"<math{display}><mrow>{row(formula)}</mrow></math>"


# ---- numbers -------------------------------------------------------------------------------------------


def shape(array: NDArray[Any]) -> str:
    """(4, 3) with a true multiplication sign: 4 × 3, or (3,) for a vector."""
    if array.ndim == 1:
        return f"({array.shape[0]},)"
    return f"{array.shape[0]} × {array.shape[1]}"


def matrix(name: str, array: NDArray[Any], *, batch: bool, digits: int = 3) -> str:
    """The numbers of an array between brackets, its name and shape below; `batch`: rows are samples."""
    values = np.atleast_2d(array)
    rows = []
    for r, line in enumerate(values):
        cells = "".join(f"<td>{number(v, digits)}</td>" for v in line)
        marked = f' class="r{r}"' if batch else ""
        rows.append(f"<tr{marked}>{cells}</tr>")
    caption = f"<figcaption><code>{escape(name)}</code> <span>{shape(array)}</span></figcaption>"
    return f'<figure class="mx"><table>{"".join(rows)}</table>{caption}</figure>'


# ---- the same for a notebook ----------------------------------------------------------------------------

_LATEX = {
    "⊙": r"\odot",
    "∑": r"\sum",
    "∂": r"\partial",
    "·": r"\cdot",
    "←": r"\leftarrow",
    "max": r"\max",
    "σ": r"\sigma",
    "lr": r"\text{lr}\,",
}


def latex(formula: str) -> str:
    """A formula in the notation of `math` as LaTeX."""

    def fraction(above: str, below: str) -> str:
        return rf"\frac{{{latex(above)}}}{{{latex(below)}}}"

    return " ".join(_parts(formula, _latex_symbol, fraction))


def _latex_symbol(text: str) -> str:
    base, _, upper = text.partition("^")
    base, _, lower = base.partition("_")
    done = _LATEX.get(base, base)
    if lower:
        done += rf"_{{\text{{{lower}}}}}" if len(lower) > 1 else f"_{lower}"
    return done + f"^{{{upper}}}" if upper else done


def markdown(text: str) -> str:
    """Prose as Markdown with a paragraph, or a point of a list, on one line."""
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("- "):
            blocks.append("\n".join(f"- {joined(item)}" for item in re.split(r"^- ", block, flags=re.M)[1:]))
        else:
            blocks.append(joined(block))
    return "\n\n".join(blocks)
