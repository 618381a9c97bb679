"""tools/roofline.py: the model on paper, what it needs of the machine, and the page of both."""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "asv_benchmarks" / "tools"


@pytest.fixture
def load() -> Callable[[str], Any]:
    """Imports a module that stands outside the package."""
    return importlib.import_module


def a_machine(load: Callable[[str], Any], **changes: Any) -> Any:
    """Nothing costs anything but what is changed."""
    free = {
        "threads": 1,
        "lanes": 16,
        "height": 14,
        "flops": float("inf"),
        "capacity": (2.0**15, 2.0**20, 2.0**25),
        "private": 2,
        "read": (float("inf"),) * 4,
        "update": (float("inf"),) * 4,
        "barrier": 0.0,
    }
    return load("roof").Machine(**{**free, **changes})


# ---- the model -------------------------------------------------------------------------------------------


def test_multiply_adds_and_barriers(load: Callable[[str], Any]) -> None:
    machine = a_machine(load, threads=2, flops=1e9, barrier=1e-3)
    parts = load("roof").bounds((3, 5, 2), 7, 4, 70, machine)
    assert parts["multiply-adds"] == pytest.approx(7 * (4 * 3 * 5 + 6 * 5 * 2) / 2e9)
    assert parts["barriers"] == 4e-3
    assert [parts[name] for name in ("L1", "L2", "L3", "memory")] == [0, 0, 0, 0]


def test_a_step_that_fits_the_cache_moves_only_new_data(load: Callable[[str], Any]) -> None:
    speeds = {"read": (1e9,) * 4, "update": (1e9,) * 4}
    small = load("roof").bounds((8, 16, 2), 4, 4, 4, a_machine(load, **speeds))
    assert [small[name] for name in ("L2", "L3", "memory")] == [0, 0, 0]
    # read: a, y and the loss, both deltas; changed: z and d of each layer. Few outputs have no copy of W.
    assert small["L1"] == pytest.approx(4 * 4 * ((16 + 2 * 2 + 18) + (2 * 16 + 2 * 2)) / 1e9)
    # More data than any cache holds: each step's X comes from memory.
    samples = 10**9
    from_memory = load("roof").bounds((8, 16, 2), 4, 4, samples, a_machine(load, **speeds))["memory"]
    assert from_memory == pytest.approx(4 * 8 * 4 / 1e9, rel=0.01)


def test_weights_that_outgrow_all_caches_come_from_memory(load: Callable[[str], Any]) -> None:
    """One row, one layer: W is read, then read and written; little else moves."""
    machine = a_machine(load, read=(9e9, 9e9, 9e9, 1e9), update=(9e9, 9e9, 9e9, 2e9))
    n = 20_000
    parts = load("roof").bounds((n, n), 1, 4, 1, machine)
    assert parts["memory"] == pytest.approx(n * n * 4 * (1 / 1e9 + 1 / 2e9), rel=0.03)


def test_what_others_wrote_crosses(load: Callable[[str], Any]) -> None:
    machine = a_machine(load, threads=2, read=(1e9,) * 4)
    parts = load("roof").bounds((8, 16, 2), 4, 4, 4, machine)
    assert parts["L2"] == parts["L3"] == pytest.approx(4 * 4 * (16 + 2) / 2 / 1e9)  # half of a[1] and of d[2]
    assert parts["memory"] == 0


def test_blocks_are_what_the_engine_makes(load: Callable[[str], Any]) -> None:
    roof, machine = load("roof"), a_machine(load)
    # Two pairs of panels, two tiles of rows, one block.
    a, b_in_tiles, b_in_blocks = (stream.bytes for stream in roof.product(28, 100, 64, 4, machine))
    assert (a, b_in_tiles, b_in_blocks) == (28 * 100 * 4, 100 * 64 * 4, 0)
    assert roof.missed(100, 75) == 0.25 and roof.missed(50, 75) == roof.missed(0, 75) == 0


def test_the_roof_is_the_fastest_teams(load: Callable[[str], Any]) -> None:
    one = a_machine(load, flops=1e9)
    slow, fast = replace(one, threads=2, barrier=1.0), replace(one, threads=2, barrier=1e-9)
    roof = load("roof").roof
    assert roof((64, 64), 64, 4, 64, [one, slow]).threads == 1
    found = roof((64, 64), 64, 4, 64, [one, fast])
    assert found.threads == 2 and found.bound == "multiply-adds"
    assert found.seconds == pytest.approx(4 * 64**3 / 2e9 + 2e-9)


# ---- the machine -----------------------------------------------------------------------------------------


def test_caches_are_read_from_the_system(load: Callable[[str], Any], tmp_path: Path) -> None:
    bandwidth = load("bandwidth")
    said = [("1", "Data", "48K", "0"), ("1", "Instruction", "32K", "0"), ("2", "Unified", "2048K", "0"),
            ("3", "Unified", "260M", "0-3,8")]  # fmt: skip
    for i, values in enumerate(said):
        (tmp_path / f"index{i}").mkdir()
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), values, strict=True):
            (tmp_path / f"index{i}" / name).write_text(value + "\n")
    found = bandwidth.caches(tmp_path)
    sizes = (48 << 10, 2 << 20, 260 << 20)
    assert found == [bandwidth.Cache(i + 1, sizes[i], shared) for i, shared in enumerate((1, 1, 5))]
    assert bandwidth.sizes(found, 2) == [24 << 10, 1 << 20, 65 << 20, 256 << 20]
    (tmp_path / "index0" / "size").write_text("?")
    assert bandwidth.caches(tmp_path) == bandwidth.caches(tmp_path / "nowhere") == bandwidth.FALLBACK


def test_bandwidth_counts_the_bytes_of_every_core(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bandwidth = load("bandwidth")
    monkeypatch.setattr(bandwidth, "seconds_each", lambda run, **_: 0.5)
    assert bandwidth.bandwidth("read", 4096, 2) == 2 * 4096 / 0.5


def test_one_core_has_no_barrier(load: Callable[[str], Any]) -> None:
    assert load("bandwidth").barrier_seconds(1) == 0


# ---- the page --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    """As roofline.py writes it: two cores that take as long as their roof, but for batch 1."""
    read, update = [4e11, 2e11, 1e11, 2e10], [2e11, 1e11, 5e10, 1e10]
    team = {"flops": {"float32": 1e11, "float64": 5e10}, "read": read, "update": update, "entry": 1e-6}
    values = {"batch": [1, 64], "width": [8, 512], "depth": [2], "width of one row": [512]}
    steps = [
        {"sweep": sweep, "value": n, "dtype": dtype, "threads": threads, "team": threads, "roof": 1e-5,
         "seconds": 4e-5 if (sweep, n) == ("batch", 1) else 1e-5, "bound": "L2",
         "parts": {"multiply-adds": 5e-6, "L2": 9e-6, "barriers": 2e-6 * (threads - 1)}}
        for sweep, sizes in values.items()
        for n, dtype, threads in itertools.product(sizes, ("float32", "float64"), (1, 2))
    ]  # fmt: skip
    return {
        "command": "python asv_benchmarks/tools/roofline.py",
        "date": "2026-01-01",
        "machine": {
            "name": "a fast one, 2 cores; Python 3.11",
            "caches": [[1, 1 << 15, 1], [2, 1 << 20, 1], [3, 1 << 25, 2]],
            "vector": 64,
            "height": 14,
            "teams": [{**team, "threads": 1, "barrier": 0.0}, {**team, "threads": 2, "barrier": 2e-7}],
        },
        "steps": steps,
        "tiles": {"1 x 8": 0.4},
        "products": {"32 x 784-128": {"forward": 0.9, "update": 0.7}},
        "entries": {"64 x 64-128-10": {"step": 1e-5, "entry": 3e-5}},
        "bfloat16": {
            "implementation": "avx512_bf16",
            "flops": {"1": 2e11, "2": 4e11},
            "products": {"32 x 784-128": {"forward": 1.5e11}},
            "steps": [{"network": "wide", "threads": 2, "flops": 1e9, "float32": 8e-3, "bfloat16": 5e-3}],
        },
    }


def test_the_block_has_the_figures(load: Callable[[str], Any], record: dict[str, Any]) -> None:
    block = load("scaling_page").block(record)
    assert "| L3 of 32,768 KB for 2: reading, updating, GB/s | 100, 50 | 100, 50 |" in block
    assert "| a barrier, us |  | 0.20 |" in block
    assert "| 1 | **40.0, 25% (L2)** | **40.0, 25% (L2)** |" in block
    assert "| 64 | 10.0, 100% (L2) |" in block
    assert "by batch: 1: 25%, 64: 100%" in block and "1 x 8: 40%" in block
    assert "update 70%" in block and "30.0 us, as 3.0 steps" in block
    assert "reach 200 GFLOP/s with 1 core, 400 GFLOP/s with 2 cores" in block and "forward 75%" in block
    assert "| wide | 2 cores | 8,000 | 5,000 | 1.60 | 50% |" in block
    assert "512: 100% of L2" in block and "not measured" not in block


def test_the_picture_is_small(load: Callable[[str], Any], record: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one_row = {**record, "steps": [p for p in record["steps"] if p["dtype"] == "float32"]}
    load("scaling_page").draw(tmp_path / "scaling.png", one_row)
    assert 0 < (tmp_path / "scaling.png").stat().st_size < 80_000


def test_mistakes_are_said_before_anything_is_measured(
    load: Callable[[str], Any], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main = load("roofline").main
    assert main(["--plot", str(tmp_path / "roof.gif")]) == 2
    assert "a picture can be written as .png" in capsys.readouterr().err
    assert main(["--json", str(tmp_path / "no" / "record.json")]) == 2
    assert "no such directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--page", "--quick"])


def test_the_page_says_what_was_measured(
    load: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pages = load("scaling_page")
    page = pages.PAGE.read_text(encoding="utf-8")
    pages.with_block(page, "")  # it has the marks
    with pytest.raises(pages.PageError, match=r"SCALING\.md must have the lines"):
        pages.with_block("no marks", "")
    if not pages.RECORD.is_file():
        assert load("roofline").main(["--page"]) == 2
        assert capsys.readouterr().err.startswith("roofline: no ")
        pytest.skip("nothing was measured yet")
    record = json.loads(pages.RECORD.read_text(encoding="utf-8"))
    assert pages.with_block(page, pages.block(record)) == page
    assert pages.PICTURE.is_file()
