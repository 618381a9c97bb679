"""asv_benchmarks/benchmarks: complete, and skipped on commits that lack their names; .ci/run executes all."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fastbp
from fastbp import kernels
from fastbp.engine import probes

FOLDER = Path(__file__).parents[2] / "asv_benchmarks"
MODULES = [
    *("dtypes", "engine", "kernels", "memory", "ratios"),
    *("scaling", "shapes", "startup", "threads", "training"),
]
HELPERS = {"__init__", "common", "measuring"}


@pytest.fixture
def load() -> Callable[[str], Any]:
    """Imports a module of the benchmarks, which stand outside the package."""
    return lambda name: importlib.import_module(f"benchmarks.{name}")


class SimulatedClock:
    """Stands for the module `time`: only sleeping takes time."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def methods_of(module: Any) -> list[tuple[type, str]]:
    """(class, method) of every benchmark: asv knows them by the beginning of the method's name."""
    return [
        (cls, name)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and not cls.__name__.startswith("_")
        for name in dir(cls)
        if name.startswith(("time_", "timeraw_", "track_", "peakmem_"))
    ]


def test_every_module_is_tested() -> None:
    modules = {path.stem for path in (FOLDER / "benchmarks").glob("*.py")} - HELPERS
    assert modules == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_parameters_and_names_are_complete(load: Callable[[str], Any], name: str) -> None:
    methods = methods_of(load(name))
    assert methods
    for cls, method in methods:
        assert len(cls.params) == len(cls.param_names) and all(cls.params)
        assert getattr(cls, method).pretty_name


def test_benchmarks_of_training_are_skipped_where_options_are_missing(load: Callable[[str], Any]) -> None:
    for options, network in (({"lr": 0.1, "unheard_of": 1}, {}), ({"lr": 0.1}, {"hidden": "unheard_of"})):
        with pytest.raises(NotImplementedError, match="this commit has no fastbp"):
            load("training").seconds_of_a_step("SGD", options, **network)


def test_a_network_that_a_commit_lacks_is_skipped_alone(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes, measuring = load("shapes"), load("measuring")
    old = measuring.STEPS["tiny 32 x 8-16-1"]
    monkeypatch.setattr(shapes, "STEPS", {"old": old, "new": replace(old, output="unheard_of")})
    monkeypatch.setattr(measuring, "seconds_each", lambda run, **_: run(1) or 1.0)
    benchmark = shapes.Step()
    benchmark.params = [["old", "new"], [1]]
    figures = benchmark.setup_cache()
    benchmark.setup(figures, "old", 1)
    assert benchmark.track_seconds(figures, "old", 1) > 0
    with pytest.raises(NotImplementedError, match="this commit has no fastbp"):
        benchmark.setup(figures, "new", 1)


def test_each_class_has_a_setup_cache_of_its_own(load: Callable[[str], Any]) -> None:
    """asv knows one by its place in the file, and gives the same figures to all classes that inherit it."""
    for name in MODULES:
        for cls, _ in methods_of(load(name)):
            assert not hasattr(cls, "setup_cache") or "setup_cache" in vars(cls)


def test_the_history_of_each_benchmark_goes_on() -> None:
    """asv hides results of another version, which is a digest of the source, unless it has a `version`."""
    discovery = pytest.importorskip("asv_runner.discovery")
    listed = json.loads((FOLDER / "results" / "benchmarks.json").read_text(encoding="utf-8"))
    recorded = {name: found["version"] for name, found in listed.items() if isinstance(found, dict)}
    now = {found.name: found.version for found in discovery.disc_benchmarks(str(FOLDER / "benchmarks"))}
    lost = {name: now.get(name) for name, version in recorded.items() if now.get(name) != version}
    assert not lost  # where the figure is the same one: `version = "..."`, else a new results/benchmarks.json


@pytest.mark.parametrize("name", MODULES)
def test_benchmarks_are_skipped_where_names_are_missing(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = load(name)
    for found in fastbp._LATER:  # a name that was asked for once is there to stay
        monkeypatch.delattr(fastbp, found, raising=False)
    monkeypatch.setattr(fastbp, "_LATER", {})
    for missing in ("forward", "backward", "train_step", "MLP"):
        monkeypatch.delattr(fastbp.reference, missing)
    for kernel in load("kernels").KERNELS:
        monkeypatch.delattr(kernels, kernel)
    for cls, _ in methods_of(module):
        parameters = tuple(values[0] for values in cls.params)
        benchmark = cls()
        figures = benchmark.setup_cache() if hasattr(benchmark, "setup_cache") else None
        with pytest.raises(NotImplementedError, match="this commit has no fastbp"):  # asv then skips it
            benchmark.setup(*([] if figures is None else [figures]), *parameters)
        if hasattr(benchmark, "teardown"):
            benchmark.teardown(*parameters)


@pytest.mark.parametrize("cls", ["Tile", "Product"])
def test_what_asks_for_probes_is_skipped_where_one_is_missing(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, cls: str
) -> None:
    monkeypatch.delattr(probes, "multiply_add_limit")
    benchmark = getattr(load("engine"), cls)()
    figures = benchmark.setup_cache()
    with pytest.raises(NotImplementedError, match=r"no fastbp\.engine\.probes\.multiply_add_limit"):
        benchmark.setup(figures, *(values[0] for values in benchmark.params))
    assert load("common").missing() == {}  # whole training steps need none


def test_benchmarks_call_the_engine_through_its_probes_only() -> None:
    for path in [*(FOLDER / "benchmarks").glob("*.py"), *(FOLDER / "tools").glob("*.py")]:
        source = path.read_text(encoding="utf-8")
        modules = set(re.findall(r"^ *(?:from|import) (fastbp\.engine[\w.]*)", source, re.MULTILINE))
        assert modules <= {"fastbp.engine.probes", "fastbp.engine"}, path
        assert "from fastbp.engine import" not in source or "from fastbp.engine import probes\n" in source


def test_ci_executes_each_benchmark_with_each_value(load: Callable[[str], Any]) -> None:
    path = FOLDER.parent / ".ci" / "benchmark_cases.py"
    names: dict[str, Any] = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)
    for cls, _ in itertools.chain.from_iterable(methods_of(load(name)) for name in MODULES):
        cases = names["cases"](cls.params)
        assert [set(values) for values in zip(*cases, strict=True)] == [set(values) for values in cls.params]
        assert len(set(cases)) == len(cases)
    assert len(names["cases"]([["x", "y"], list(range(7)), ["a", "b"]])) == 7
    assert {(a, b) for a, _, b in names["cases"]([["x", "y"], [1, 2, 3], "ab"])} == set(
        itertools.product("xy", "ab")
    )


def test_ratio_is_more_where_fastbp_is_faster(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = load("ratios")
    clock = SimulatedClock()
    monkeypatch.setattr(ratios, "time", clock)
    assert ratios.ratio(lambda: clock.sleep(10e-3), lambda: clock.sleep(2e-3)) == pytest.approx(5)
    assert ratios.ratio(lambda: clock.sleep(1e-3), lambda: clock.sleep(2e-3)) == pytest.approx(0.5)


def test_first_call_is_timed_with_an_empty_and_with_a_filled_cache(
    load: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    startup = load("startup")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # restored afterwards: setup replaces it
    first_call = startup.FirstCallEmptyCache()
    first_call.setup("train_step")
    try:
        statement, setup = first_call.timeraw_first_call("train_step")
        cache = Path(first_call.folder) / "cache"
        cache.mkdir()
        (cache / "of an earlier sample").touch()
        names: dict[str, Any] = {}
        exec(setup, names)
        assert list(cache.iterdir()) == []
        assert statement == "call()" and callable(names["call"])
    finally:
        first_call.teardown("train_step")
    assert not cache.exists()
