"""Memory of arrays that live as long as a model."""

import mmap
import sys

import numpy as np
import pytest

import fastbp
from fastbp import pages
from fastbp.pages import LARGE_PAGE, LINE

SIZES = [0, 1, 1000, LARGE_PAGE // 2, 3 * LARGE_PAGE // 4, LARGE_PAGE, LARGE_PAGE + 1, 5 * LARGE_PAGE // 3]
LINUX = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="no large pages")


def place(array):
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("advice", [pages._ADVICE, None, -1])
@pytest.mark.parametrize("size", SIZES)
def test_zeros_begin_on_a_cache_line(size, advice, monkeypatch):
    """Also on systems without large pages, and where they are refused."""
    monkeypatch.setattr(pages, "_ADVICE", advice)
    if sys.platform == "win32" and advice is not None:
        pytest.skip("no such call")
    array = pages.aligned(size)
    assert array.dtype == np.uint8
    assert array.shape == (size,)
    assert array.flags.writeable
    assert size == 0 or place(array) % LINE == 0  # (NumPy's empty slices begin where it likes)
    assert not array.any()
    array.fill(255)


def test_at_most_a_quarter_of_large_pages_is_in_vain():
    for size in range(0, 5 * LARGE_PAGE, LARGE_PAGE // 64):
        large = pages.large_bytes(size)
        assert large % LARGE_PAGE == 0
        assert size - LARGE_PAGE < large <= max(4 * size // 3, 0)
        assert large <= size or 4 * (large - size) <= large


@LINUX
def test_parameters_and_states_of_large_networks_are_in_large_pages():
    """Whose beginning such memory has."""
    model = fastbp.MLP([784, 256, 10], dtype="float64")
    state = fastbp.Adam().state(model.parameters.owner, len(model.parameters), model.dtype)
    assert place(model.parameters.flat) % LARGE_PAGE == 0
    assert place(state.buffers[0]) % LARGE_PAGE == 0
    assert all(not buffer.any() for buffer in state.buffers)
