"""The tutorial as a notebook, to change and run: the same texts, and code that runs from top to bottom.

It is written as JSON (nbformat 4) and holds no results: they appear when it is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastbp.tutorial.equations import FORMULAS
from fastbp.tutorial.markup import latex, markdown
from fastbp.tutorial.notebook_code import (
    DIGITS,
    FAILURES,
    FAST,
    NUMERIC,
    REFUSED,
    SETUP,
    TRAIN,
    TRAINING,
    UPDATE,
)
from fastbp.tutorial.runs import xor
from fastbp.tutorial.source_lines import FILE, SourceLine, lines_of
from fastbp.tutorial.texts import load


def build(language: str) -> str:
    """The notebook in a language ("en" or "zh") as text of an .ipynb file."""
    text = load(language)
    cells = [
        _say(f"# {text['title']}", text["notebook.lede"]),
        _run(SETUP),
        _say(f"## {text['layer.title']}", text["layer.text"], _symbols(text)),
        _say(f"## {text['forward.title']}", text["notebook.xor"]),
        _run(_start()),
        *_equations(text, lines_of("_forward"), xor.FORWARD),
        _say(f"## {text['loss.title']}", text["loss.text"]),
        *_equation(text, "loss", lines_of("_half_squared_error")["return"], "E"),
        _say(f"## {text['backward.title']}", text["backward.text"], f"$${latex(FORMULAS['chain'])}$$"),
        *_equations(text, lines_of("_backward"), xor.BACKWARD),
        _say(text["notebook.check"]),
        _run(NUMERIC),
        _say(f"## {text['update.title']}", text["update.text"], f"$${latex(FORMULAS['param'])}$$"),
        _run(UPDATE.format(line=lines_of("_sgd_update")["param"].text, lr=xor.LEARNING_RATE)),
        _run(TRAINING.format(lr=xor.LEARNING_RATE, steps=xor.STEPS)),
        _say(text["notebook.trained"]),
        _say(f"## {text['fast.title']}", text["fast.text"]),
        _run(FAST),
        _say(f"## {text['failures.title']}", text["failures.text"]),
        _run(TRAIN),
    ]
    for name, code in FAILURES.items():
        what = text[f"failure.{name}.what"].format(angle=35)
        cells.append(_say(f"### {text[f'failure.{name}.title']}", what))
        cells += [_run(part) for part in code]
        cells.append(_say(f"**{text['failures.right']}** {text[f'failure.{name}.cure']}"))
    cells += [
        _say(f"## {text['refused.title']}", text["refused.text"]),
        _run(REFUSED),
        _say(f"## {text['digits.title']}", text["notebook.digits"]),
        *(_run(part) for part in DIGITS),
        _say(f"## {text['next.title']}", text["next.text"]),
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _say(*parts: str) -> dict[str, Any]:
    source = "\n\n".join(part if part.startswith(("$$", "|")) else markdown(part) for part in parts if part)
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _run(code: str) -> dict[str, Any]:
    source = code.strip().splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def _symbols(text: Mapping[str, str]) -> str:
    lines = [text["symbols.head"], *text["symbols.rows"].splitlines()]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    table = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([table[0], "|---" * len(rows[0]) + "|", *table[1:]])


def _start() -> str:
    arrays = {"X": xor.X, "y_true": xor.Y_TRUE, "W1": xor.W1, "b1": xor.B1, "W2": xor.W2, "b2": xor.B2}
    return "\n".join(f"{name} = np.array({np.asarray(array).tolist()})" for name, array in arrays.items())


def _equations(text: Mapping[str, str], lines: Mapping[str, SourceLine], names: tuple[str, ...]) -> list[Any]:
    return [cell for name in names for cell in _equation(text, name, lines[name], name)]


def _equation(text: Mapping[str, str], name: str, line: SourceLine, result: str) -> list[Any]:
    """What it means, and the line of the reference, which is run and shows its result."""
    said = _say(f"### {text[f'eq.{name}.title']}", f"$${latex(FORMULAS[name])}$$", text[f"eq.{name}"])
    code = line.text if line.text.startswith(result) else line.text.replace("return", f"{result} =", 1)
    return [said, _run(f"# {FILE}:{line.number}\n{code}\n{result}")]
