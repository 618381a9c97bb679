"""The lines that the tutorial shows are those of fastbp.reference, and its numbers are what they compute."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.tutorial.runs import xor
from fastbp.tutorial.source_lines import FILE, lines_of

RUN = xor.run()
SOURCE = (Path(fastbp.__file__).parents[1] / FILE).read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", [*xor.FORWARD, *xor.BACKWARD, "loss", "param"])
def test_a_line_stands_where_it_is_said_to_stand(name: str) -> None:
    line = RUN.lines[name]
    assert SOURCE[line.number - 1].strip() == line.text
    assert line.text.startswith({"loss": "return", "param": "param -="}.get(name, f"{name} ="))


@pytest.mark.parametrize("name", [*xor.FORWARD, *xor.BACKWARD])
def test_what_is_drawn_is_the_line(name: str) -> None:
    """Brackets may be added for reading, nothing else."""

    def bare(code: str) -> str:
        return re.sub(r"[\s()]", "", code)

    line = RUN.lines[name]
    assert bare(f"{name} = {' '.join(line.operands())}") == bare(line.text.partition("  # ")[0])


def test_numbers_are_those_of_the_functions() -> None:
    params = xor.W1, xor.B1, xor.W2, xor.B2
    z1, a1, z2, y_pred = fastbp.forward(xor.X, *params)
    dW1, db1, dW2, db2 = fastbp.backward(xor.X, xor.Y_TRUE, z1, a1, y_pred, xor.W2)
    computed = dict(zip(("z1", "a1", "z2", "y_pred"), (z1, a1, z2, y_pred), strict=True))
    computed |= dict(zip(("dW1", "db1", "dW2", "db2"), (dW1, db1, dW2, db2), strict=True))
    for name, array in computed.items():
        assert np.allclose(RUN.names[name], array, rtol=1e-12, atol=1e-15), name
    trained = [p.copy() for p in params]
    assert RUN.loss == pytest.approx(fastbp.train_step(xor.X, xor.Y_TRUE, *trained, xor.LEARNING_RATE))
    for name, array in zip(("W1", "b1", "W2", "b2"), trained, strict=True):
        assert np.allclose(RUN.updated[name], array, rtol=1e-12), name
    assert RUN.numeric == pytest.approx(dW1[1, 0], rel=1e-7)


def test_the_example_shows_what_is_to_be_seen() -> None:
    on = RUN.names["z1"] > 0
    assert on.any(axis=0).all() and not on.all(axis=0).any()  # every unit on for some rows, off for another
    assert np.abs(RUN.names["z1"]).min() > 0.05  # none at the kink
    assert RUN.loss_after < RUN.loss
    assert np.abs(RUN.predictions - xor.Y_TRUE[:, 0]).max() < 0.1


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="no function _sideways"):
        lines_of("_sideways")
