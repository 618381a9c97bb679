"""Fixtures that several test modules share."""

import signal
from types import ModuleType

import numpy as np
import pytest

import fastbp
import fastbp.reference

# A shell has what it runs in the background ignore Ctrl-C, and children inherit that. Tests press it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["browser"]  # the fixtures of tests/support/browser.py


@pytest.fixture(params=[fastbp, fastbp.reference], ids=["fastbp", "reference"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    """Both implementations: what is true of one must be true of the other."""
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)
