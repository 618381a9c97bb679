"""tools/summary.py: the first page of the dashboard answers its two questions rightly."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "asv_benchmarks" / "tools"
DAY = 24 * 3600 * 1000


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("summary")


def history(summary: Any, seconds: list[float], ratios: list[float], days: list[float]) -> Any:
    """One training step and one ratio, measured at so many commits, which are so many days old."""
    series = [
        summary.Series(summary.STEP, ("tiny", "1"), "seconds", False, tuple(enumerate(seconds))),
        summary.Series(summary.NUMPY, ("tiny", "float32"), "x", True, tuple(enumerate(ratios))),
    ]
    dates = {i: int(1_800_000_000_000 - age * DAY) for i, age in enumerate(days)}
    hashes = {i: f"{i:040x}" for i in dates}
    return summary.History(
        {"machine": "2-core", "cpu": "a <fast> one", "num_cpu": "2", "ram": str(8 << 30)},
        {"numba": "0.68"},
        series,
        dates,
        hashes,
    )


def test_it_compares_with_the_newest_commit_that_is_a_week_old(summary: Any) -> None:
    found = history(summary, [9e-6, 5e-6, 4e-6, 4e-6], [1.0, 2.0, 3.0, 4.0], days=[20, 8, 6, 0])
    assert (found.then, found.now) == (1, 3)
    faster, numpy = summary.verdict(found)
    assert "main is <b>25% faster</b>, compared with a week ago (00000000 of" in faster
    assert "takes NumPy <b>4.0 times</b> as long" in numpy


def test_a_young_history_is_compared_with_its_beginning(summary: Any) -> None:
    slower, _ = summary.verdict(history(summary, [4e-6, 5e-6], [2.0, 2.0], days=[2, 0]))
    assert "main is <b>25% slower</b>, compared with the oldest measured commit" in slower
    (alone, _) = summary.verdict(history(summary, [4e-6], [2.0], days=[0]))
    assert "nothing yet to compare main with" in alone
    same, _ = summary.verdict(history(summary, [4e-6, 4.05e-6], [2.0, 2.0], days=[9, 0]))
    assert "main is as fast as a week ago" in same


def test_more_is_better_where_it_says_so(summary: Any) -> None:
    step, ratio = history(summary, [4e-6, 2e-6], [6.0, 3.0], days=[9, 0]).series
    assert step.speed(0) == 2.0 and ratio.speed(0) == 0.5
    assert step.speed(-1) is None  # there was nothing yet


def test_the_page_is_one_file_that_loads_nothing(summary: Any) -> None:
    cells = {
        "fastbp": {"median": 2.0},
        "torch by hand": {"median": 1.0, "ratio": {"median": 0.5, "low": 0.4, "high": 0.6}},
        "sklearn partial_fit": {"unsupported": "no such outputs"},
    }
    record = {
        "command": "fastbp bench",
        "date": "2026-01-01",
        "machine": {"cpu": "a <fast> one", "threads": 2},
        "versions": {"torch": "2.13"},
        "results": {"tiny": cells},
    }
    page = summary.page([history(summary, [4e-6, 2e-6], [6.0, 3.0], days=[9, 0])], record)
    assert "src=" not in page and "//" not in page.replace("/>", "")
    assert "a &lt;fast&gt; one" in page and "<fast>" not in page
    assert "2 cores, 8 GB of memory, numba 0.68" in page and "torch 2.13" in page
    assert '<td class="bad">0.50</td>' in page  # a loss
    assert page.count("<polyline") == 2 and '<td class="good">+100%</td>' in page


def test_numbers_have_the_names_of_their_parameters(summary: Any) -> None:
    assert summary.said("threads", "2") == "threads 2" and summary.said("rate", "0.5") == "rate 0.5"
    assert summary.said("network", "'xor 4 x 2-8-1'") == "xor 4 x 2-8-1"


def test_a_single_commit_has_no_speed_since_then(summary: Any) -> None:
    page = summary.page([history(summary, [4e-6], [2.0], days=[1])], None)
    assert "since then" not in page and "<polyline" not in page


def test_a_page_without_results_says_so(summary: Any) -> None:
    assert "Nothing has been measured yet" in summary.page([], None)
