"""tools/summary.py: the first page of the dashboard answers its two questions rightly."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "asv_benchmarks" / "tools"
DAY = 24 * 3600 * 1000


@pytest.fixture
def summary() -> Any:
    return importlib.import_module("summary")


def history(
    summary: Any, seconds: list[float], ratios: list[float], days: list[float], machine: str = "2-core"
) -> Any:
    """One training step and one ratio, measured at so many commits, which are so many days old."""
    histories = importlib.import_module("histories")
    series = [
        histories.Series(summary.STEP, ("tiny", "1"), "seconds", False, tuple(enumerate(seconds))),
        histories.Series(summary.NUMPY, ("tiny", "float32"), "x", True, tuple(enumerate(ratios))),
    ]
    dates = {i: int(1_800_000_000_000 - age * DAY) for i, age in enumerate(days)}
    hashes = {i: f"{i:040x}" for i in dates}
    return histories.History(
        {"machine": machine, "cpu": "a <fast> one", "num_cpu": "2", "ram": str(8 << 30)},
        {"numba": "0.68"},
        series,
        dates,
        hashes,
    )


def test_it_compares_with_the_newest_commit_that_is_a_week_old(summary: Any) -> None:
    found = history(summary, [9e-6, 6e-6, 4e-6, 4e-6], [1.0, 2.0, 3.0, 4.0], days=[20, 8, 6, 0])
    assert (found.then, found.now) == (1, 3) and found.is_a_week
    faster, numpy = summary.verdict(found)
    assert "main is <b>50% faster</b>, compared with a week ago (00000000 of" in faster
    assert "99% interval +35% to +66%." in faster and "No commit of a week" not in faster
    assert "takes NumPy <b>4.0 times</b> as long" in numpy


def test_a_young_history_is_compared_with_its_beginning_and_says_so(summary: Any) -> None:
    slower, _ = summary.verdict(history(summary, [4e-6, 5e-6], [2.0, 2.0], days=[2, 0]))
    assert "main is <b>25% slower</b>, compared with the oldest measured commit" in slower
    assert slower.endswith("No commit of a week before has been measured.")
    (alone, _) = summary.verdict(history(summary, [4e-6], [2.0], days=[0]))
    assert "nothing yet to compare main with" in alone
    quiet = [4e-6 * (1 + 0.003 * (i % 2)) for i in range(12)]
    same, _ = summary.verdict(history(summary, quiet, [2.0] * 12, days=[*range(12, 0, -1)]))
    assert "main is as fast as a week ago" in same


def test_noise_is_called_neither_faster_nor_slower(summary: Any) -> None:
    """As on a machine that does something else, too: some networks 60% slower, others 80% faster."""
    histories = importlib.import_module("histories")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        speeds = np.exp(rng.normal(-0.1, 0.4, 18))
        change = histories.change_of([*speeds], histories.USUAL_NOISE)
        assert not change.faster and not change.slower and not change.none
    slower = histories.change_of([*np.exp(rng.normal(-0.3, 0.1, 18))], histories.USUAL_NOISE)
    assert slower.slower and slower.high < 0.9
    found, _ = summary.verdict(history(summary, [4e-6, 4.3e-6], [2.0, 2.0], days=[9, 0]))
    assert "cannot be told from the noise" in found


def test_the_interval_of_the_median_is_that_of_a_sign_test(summary: Any) -> None:
    """It covers the truth in 99 of 100 cases, whatever the distribution is like."""
    histories = importlib.import_module("histories")
    rng = np.random.default_rng(1)
    for n in (8, 14, 18, 40):
        changes = [histories.change_of([*np.exp(rng.standard_cauchy(n) / 50)], 0.0) for _ in range(1000)]
        assert 0.985 < np.mean([change.low <= 1 <= change.high for change in changes]) <= 1


def test_the_noise_of_a_run_comes_from_the_history(summary: Any) -> None:
    histories = importlib.import_module("histories")
    steps = np.random.default_rng(0).normal(0, 0.05, 200)
    steps[::40] = 0.7  # real changes
    assert histories.noise([*np.cumsum(steps)]) == pytest.approx(0.05, rel=0.2)
    assert histories.noise([0.0, 0.5, 1.0]) == histories.USUAL_NOISE  # too few commits to tell
    assert histories.noise([0.0] * 20) == histories.LEAST_NOISE


def test_the_threads_of_a_network_count_once(summary: Any) -> None:
    histories = importlib.import_module("histories")
    series = [
        histories.Series(summary.STEP, (name, threads), "seconds", False, ((0, 1.0), (1, after)))
        for name, after in (("a", 2.0), ("b", 2.0), ("c", 1.0))
        for threads in ("threads 1", "threads 2")
    ]
    found = histories.History({}, {}, series, {0: 0, 1: 1}, {0: "a", 1: "b"})
    assert found.change(series[:4]).speed == pytest.approx(0.5)
    assert found.change(series[4:]).speed == 1.0 and found.change(series).speed == pytest.approx(0.5)


def test_unmeasured_commits_are_counted_in_large_letters(summary: Any) -> None:
    found = history(summary, [4e-6, 4e-6], [2.0, 2.0], days=[9, 2])
    page = summary.page([found], None, unmeasured=lambda found: 23)
    assert "<b>The newest 23 commits of main are not measured</b>" in page
    page = summary.page([found], None, unmeasured=lambda found: 0)
    assert "not measured" not in page and "Newest measured commit: 00000000 of" in page


def test_the_readers_own_machine_comes_first(summary: Any) -> None:
    found = [
        history(summary, [4e-6, 4e-6], [2.0, 2.0], days=[9, age], machine=name)
        for name, age in (("older", 5), ("newer", 2), ("mine", 7))
    ]
    page = summary.page(found, None, own="mine")
    places = [page.index(f"<h2>{title}</h2>") for title in ("mine (this machine)", "newer", "older")]
    assert places == sorted(places)
    page = summary.page(found, None, own="another")
    assert "This machine (another) has no results yet" in page
    assert page.index("another") < page.index("<h2>newer</h2>") < page.index("<h2>mine</h2>")


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
    assert page.count("<polyline") == 2 and '<td class="good" title="+80% to +122%">+100%</td>' in page


def test_numbers_have_the_names_of_their_parameters(summary: Any) -> None:
    said = importlib.import_module("histories").said
    assert said("threads", "2") == "threads 2" and said("rate", "0.5") == "rate 0.5"
    assert said("network", "'xor 4 x 2-8-1'") == "xor 4 x 2-8-1"


def test_a_single_commit_has_no_speed_since_then(summary: Any) -> None:
    page = summary.page([history(summary, [4e-6], [2.0], days=[1])], None)
    assert "since then" not in page and "<polyline" not in page


def test_a_page_without_results_says_so(summary: Any) -> None:
    assert "Nothing has been measured yet" in summary.page([], None)
