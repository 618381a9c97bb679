"""tools/regression.py: a slowdown is found, unchanged code is not blamed. Times are simulated."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "asv_benchmarks" / "tools"


@pytest.fixture
def regression() -> Any:
    return importlib.import_module("regression")


class Machine:
    """A noisy one: the clock drifts, every process has its luck, other programs take a core now and then."""

    def __init__(self, seed: int, slowdown: float = 1.0, launch: float = 0.015, jitter: float = 0.02) -> None:
        self.rng = np.random.default_rng(seed)
        self.slowdown, self.luck, self.jitter = slowdown, launch, jitter
        self.clock = 1.0
        self.launches = 0

    @contextlib.contextmanager
    def launch(self, folders: Sequence[Path], cases: Sequence[str]) -> Iterator[Any]:
        self.launches += 1
        yield [_Side(self, cases, 1.0), _Side(self, cases, self.slowdown)], {}


class _Side:
    def __init__(self, machine: Machine, cases: Sequence[str], factor: float) -> None:
        self.machine = machine
        luck = np.exp(machine.luck * machine.rng.standard_normal(len(cases)))
        self.times = dict(zip(cases, 1e-5 * factor * luck, strict=True))

    def seconds(self, case: str, module: str = "fastbp") -> float:
        rng = self.machine.rng
        self.machine.clock *= np.exp(0.01 * rng.standard_normal())
        spike = 1 + rng.exponential(0.5) if rng.random() < 0.15 else 1.0
        jitter = np.exp(self.machine.jitter * abs(rng.standard_normal()))
        return self.times[case] * self.machine.clock * jitter * spike


def slower(regression: Any, machine: Machine, cases: int = 8, launches: int = 6) -> list[bool]:
    names = [f"case {i}" for i in range(cases)]
    _, verdicts = regression.compare(
        [Path("base"), Path("head")], names, minimum=1.05, launches=launches, rounds=7, launch=machine.launch
    )
    return [verdict.slower for verdict in verdicts.values()]


@pytest.mark.parametrize("launches", [3, 6])
def test_unchanged_code_is_not_blamed(regression: Any, launches: int) -> None:
    blamed = [any(slower(regression, Machine(seed), launches=launches)) for seed in range(12)]
    assert not any(blamed)


def test_a_slowdown_of_a_tenth_is_found(regression: Any) -> None:
    found = np.array([slower(regression, Machine(seed, slowdown=1.10)) for seed in range(8)])
    assert found.any(axis=1).all() and found.mean() > 0.8


def test_a_slowdown_below_the_minimum_does_not_count(regression: Any) -> None:
    assert not any(any(slower(regression, Machine(seed, slowdown=1.03))) for seed in range(8))


def test_a_faster_head_is_said_to_be_faster(regression: Any) -> None:
    machine = Machine(0, slowdown=0.8)
    _, verdicts = regression.compare(
        [Path("a"), Path("b")], ["case"], minimum=1.05, launches=6, rounds=7, launch=machine.launch
    )
    assert verdicts["case"].faster and not verdicts["case"].slower and machine.launches == 6


def test_suspects_are_measured_once_more_and_that_decides(regression: Any) -> None:
    machine = Machine(0, slowdown=1.3)
    with_luck = machine.launch

    @contextlib.contextmanager
    def slow_at_first(folders: Sequence[Path], cases: Sequence[str]) -> Iterator[Any]:
        if machine.launches == 6:
            machine.slowdown = 1.0
        with with_luck(folders, cases) as launched:
            yield launched

    _, verdicts = regression.compare(
        [Path("a"), Path("b")], ["case"], minimum=1.05, launches=6, rounds=7, launch=slow_at_first
    )
    assert machine.launches == 12 and not verdicts["case"].slower


def test_the_interval_covers_the_truth(regression: Any) -> None:
    covered = []
    for seed in range(60):
        machine = Machine(seed, slowdown=1.10)
        measured = regression.measure([Path("a"), Path("b")], ["case"], 6, 7, machine.launch)
        verdict = regression.judge(measured.base["case"], measured.head["case"], 1.05)
        assert verdict.low <= verdict.ratio <= verdict.high
        covered.append(verdict.low <= 1.10 <= verdict.high)
    assert np.mean(covered) > 0.85


def test_a_case_that_one_side_lacks_is_said_and_not_measured(regression: Any) -> None:
    machine = Machine(0)

    @contextlib.contextmanager
    def launch(folders: Sequence[Path], cases: Sequence[str]) -> Iterator[Any]:
        with machine.launch(folders, cases) as (sides, _):
            yield sides, {"new": "ValueError: unknown optimizer"}

    measured, verdicts = regression.compare(
        [Path("a"), Path("b")], ["old", "new"], minimum=1.05, launches=2, rounds=2, launch=launch
    )
    assert set(verdicts) == {"old"}
    assert "not measured: new: ValueError: unknown optimizer" in regression.report(
        ["a", "b"], measured, verdicts, 2, 2
    )


@pytest.fixture
def simulated(regression: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Machine], None]:
    """`main` measures on that machine, and writes no folders."""

    def use(machine: Machine) -> None:
        real = regression.compare
        monkeypatch.setattr(regression, "launched", machine.launch)
        monkeypatch.setattr(regression, "export", lambda commit, folder: commit or "the work tree")
        monkeypatch.setattr(regression, "compare", lambda *a, **k: real(*a, **k, launch=machine.launch))

    return use


@pytest.mark.parametrize(("slowdown", "code"), [(1.0, 0), (1.15, 1)])
def test_exit_code(
    regression: Any,
    simulated: Callable[[Machine], None],
    slowdown: float,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    simulated(Machine(1, slowdown))
    assert regression.main(["main", "--json", str(tmp_path / "times.json")]) == code
    out = capsys.readouterr().out
    assert "before: main; now: the work tree" in out and ("SLOWER" in out) == bool(code)
    assert (tmp_path / "times.json").is_file()


@pytest.mark.parametrize(("slowdown", "code"), [(1.15, 0), (1.0, 1)])
def test_the_self_test_wants_the_plant_found_and_nothing_else(
    regression: Any, slowdown: float, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = {"planted": Machine(1, slowdown), "same": Machine(2)}
    planted: list[bool] = []

    def judged(folders: Sequence[Path]) -> Any:
        base, head = ((folder / "fastbp" / "model.py").read_text() for folder in folders)
        assert head in (base, base + regression.SLOWDOWN)
        planted.append(head != base)
        launch = machines[folders[1].name].launch
        names = ["case 0", "case 1"]
        return regression.compare(folders, names, minimum=1.05, launches=6, rounds=7, launch=launch)[1]

    assert regression.self_test(2, judged) == code
    out = capsys.readouterr().out
    assert planted == [True, False, False]
    assert ("planted slowdown: slower\n    1.1" in out) == (code == 0)
    assert out.count(": not slower") == 2 + code and f"{3 - code} of 3 runs as they should be" in out


def test_the_planted_slowdown_is_a_tenth(regression: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            self.now += 1e-6
            return self.now

    class Model:
        def fit(self, seconds: float) -> str:
            clock.now += seconds
            return "history"

    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)
    exec(regression.SLOWDOWN, {"MLP": Model})
    assert Model().fit(seconds=2.0) == "history"
    assert clock.now == pytest.approx(2.2, rel=1e-4)


def test_the_package_has_the_place_where_the_slowdown_is_planted(regression: Any, tmp_path: Path) -> None:
    """In a process of its own, as the self-test imports it."""
    regression.export(None, tmp_path)
    regression.plant(tmp_path)
    program = (
        "import fastbp; fit = fastbp.MLP.fit; print(fastbp.__file__, fit.__code__.co_name, fit.__name__)"
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "fastbp" / "__init__.py"), "fit_and_wait", "fit"]


def test_mistakes(regression: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert regression.main(["no-such-commit"]) == 2
    assert "'no-such-commit' is no commit" in capsys.readouterr().err
    main = ["main"]
    for words in (
        *([*main, "--case", "convolution"], [*main, "--launches", "1"], [*main, "--minimum", "0"]),
        *([], [*main, "--self-test"], ["--self-test", "0"]),
    ):
        with pytest.raises(SystemExit) as exit:
            regression.main(words)
        assert exit.value.code == 2


def test_a_commit_and_the_work_tree_are_exported(regression: Any, tmp_path: Path) -> None:
    if subprocess.run(["git", "-C", str(FOLDER), "rev-parse", "HEAD"], capture_output=True).returncode != 0:
        pytest.skip("needs the repository")
    for commit, name in (("HEAD", "HEAD ("), (None, "the work tree")):
        folder = tmp_path / name
        folder.mkdir()
        assert regression.export(commit, folder).startswith(name)
        assert (folder / "fastbp" / "model.py").is_file()
