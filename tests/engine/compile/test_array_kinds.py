"""Byte order, alignment, memory order and subclasses: what was called before changes nothing."""

import pathlib

import numpy as np
import pytest
from array_kinds import KINDS
from processes import python

from fastbp.engine.compile.arrays import data_at

PROGRAM = pathlib.Path(__file__).parents[2] / "programs" / "array_kinds.py"
# Numba keeps what it once found out about arrays of these kinds.
KEPT = ["misaligned", "other-byte-order", "subclass", "read-only"]


@pytest.fixture(scope="module")
def expected():
    return python(PROGRAM, "ordinary").splitlines()


def test_every_kind_is_read_as_it_is_or_refused(expected):
    """The results are those of ordinary arrays, or none, and most kinds are accepted."""
    lines = [line.split("\t") for line in expected]
    ordinary = {(entry, name): result for entry, name, kind, result in lines if kind == "ordinary"}
    results = [(entry, name, kind, result) for entry, name, kind, result in lines if "Error" not in result]
    wrong = [line for line in results if line[3] != ordinary[line[:2]]]
    assert wrong == []
    assert len(ordinary) == 30 and len(lines) == 30 * len(KINDS)
    refused = [line for line in lines if "Error" in line[3]]
    assert all(
        line[1] in line[3] or line[0] in ("sgd_update", "fit", "gradients", "step", "classify")
        for line in refused
    )
    assert len(results) > 200


@pytest.mark.parametrize("first", KEPT)
def test_what_was_called_before_changes_nothing(first, expected):
    assert python(PROGRAM, first).splitlines() == expected


@pytest.mark.slow
def test_what_else_was_called_before_changes_nothing(expected):
    others = sorted(KINDS.keys() - set(KEPT))
    for first in (others, others[::-1]):
        assert python(PROGRAM, *first).splitlines() == expected


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", KINDS)
def test_where_the_numbers_of_an_array_begin(kind):
    array = KINDS[kind](np.arange(12.0).reshape(3, 4))
    for part in (array, array.T, array[:2], array[:0]) if array.ndim else (array,):
        assert data_at(part) == part.ctypes.data


@pytest.mark.slow
def test_the_same_without_jit(expected):
    assert python(PROGRAM, "misaligned", NUMBA_DISABLE_JIT="1").splitlines() == expected
