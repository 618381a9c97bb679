"""Odd arguments of every public function and method: see support/fuzz.py."""

import fuzz
import numpy as np

import fastbp.reference
from fastbp import checks


def test_odd_arguments():
    """About 15 seconds. What it finds is told with the values, and comes again with the same seed."""
    report = fuzz.fuzz(3000, seed=0)
    print(report)
    assert not report.complaints, "\n".join([*report.complaints, str(report)])
    assert report.counts["accepted"] > 400
    assert report.counts["refused"] > 1500
    assert report.counts["accepted"] + report.counts["refused"] == report.counts["calls"] == 3000


def test_what_is_wrong_is_noticed(monkeypatch):
    """A test of the test: results that are off, and messages that name nothing."""
    backend = fastbp.reference.NumPyBackend
    predict = backend.predict
    monkeypatch.setattr(backend, "predict", lambda self, X: predict(self, X) + 1)
    report = fuzz.fuzz(400, seed=0)
    assert any("MLP.predict" in line for line in report.complaints if line.startswith("wrong"))

    def unnamed(name, value, *, low=1):
        if not isinstance(value, (int, np.integer)):
            raise TypeError("this will not do")
        return int(value)

    monkeypatch.setattr(checks, "count", unnamed)
    assert fuzz.fuzz(400, seed=0).counts["unnamed"] > 0
