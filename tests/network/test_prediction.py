"""Predictions of many rows: cut into entries, tried alone and as a team."""

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.engine.plan import Plan
from fastbp.engine.threads import team
from fastbp.network import compiled


def test_trials_of_threads_take_some_batches_and_no_row_is_left_out(monkeypatch):
    """Entries of 4000 rows, so 8 batches of 512: 10 of them."""
    if team.available(2) < 2:
        pytest.skip("needs two cores")
    model = fastbp.MLP([64, 100, 10], dtype="float64", threads=2, seed=0)
    monkeypatch.setattr(compiled, "ENTRY_MULTIPLY_ADDS", 4000 * model.n_parameters)
    X = np.random.default_rng(0).random((40_000, 64))
    entries = []
    run_as = Plan.run_as

    def noted(plan, task, threads, batches, *more):
        entries.append((threads, batches))
        return run_as(plan, task, threads, batches, *more)

    monkeypatch.setattr(Plan, "run_as", noted)
    predicted = model.predict(X)
    assert entries[0] == (2, 1) and max(batches for _, batches in entries) <= 8
    assert sum(batches for _, batches in entries) * 512 >= len(X)
    alone = fastbp.MLP([64, 100, 10], dtype="float64", threads=1, seed=0)
    entries.clear()
    assert np.array_equal(alone.predict(X), predicted)
    assert {threads for threads, _ in entries} == {1}
    reference = fastbp.reference.MLP([64, 100, 10], dtype="float64", seed=0)
    np.testing.assert_allclose(predicted, reference.predict(X), atol=1e-12, rtol=0)
