"""`fastbp bench`: what is compared, how it takes turns, what is printed, drawn and written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbp.cli import main
from fastbp.cli.bench import command as bench_command
from fastbp.cli.bench import estimators, measuring, peers, processes, report, ways
from fastbp.cli.bench.problems import LIBRARIES, QUICK, SHAPES, Shape, problem_of

ROOT = Path(__file__).parents[2]


class FakePeer:
    """Takes so many microseconds a step; what happens to all fakes stands in `log`."""

    speeds: dict[str, list[float]]
    log: list[tuple[str, ...]]

    def __init__(self, variant: str, shape: Shape, threads: int) -> None:
        self.variant = variant
        self.times = iter(self.speeds.get(variant, []))
        self.hello: dict[str, Any] = {"difference": 1e-6, "first": 2.0}
        if variant == "sklearn partial_fit":
            self.hello = {"unsupported": "no such outputs"}
        elif variant not in self.speeds:
            self.hello = {"failed": "RuntimeError: no compiler"}
        self.log.append(("start", variant, str(threads)))

    def seconds(self, budget: float) -> float:
        self.log.append(("measure", self.variant))
        try:
            return 1e-6 * next(self.times)
        except StopIteration:
            raise RuntimeError("its process ended with -9: and said nothing") from None

    def close(self) -> None:
        self.log.append(("close", self.variant))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePeer]:
    """Peers whose speed is known, and libraries of which jax is not installed."""
    monkeypatch.setattr(FakePeer, "log", [], raising=False)
    speeds = {
        "fastbp": [10.0, 12.0, 10.0],
        "numpy reference": [50.0, 66.0, 45.0],
        "numpy by hand": [40.0, 36.0, 42.0],
        "torch autograd": [90.0, 90.0, 90.0],
        "torch by hand": [8.0, 9.0, 9.0],
        "torch autograd, compiled": [9.0],
    }
    monkeypatch.setattr(FakePeer, "speeds", speeds, raising=False)
    monkeypatch.setattr(bench_command, "PAUSE", 0.0)
    versions = {"numpy": "2.4", "sklearn": "1.9", "torch": "2.13", "jax": None}
    monkeypatch.setattr(
        bench_command, "installed", lambda libraries: {name: versions[name] for name in libraries}
    )
    return FakePeer


def compare(fake: type[FakePeer], names: tuple[str, ...] = ("tiny",), rounds: int = 3) -> dict[str, Any]:
    libraries = ["torch", "jax", "sklearn", "numpy"]
    return bench_command.compare(names, libraries, rounds=rounds, seconds=0.1, threads=1, start=fake)


def test_they_take_turns_and_one_at_a_time_is_asked(fake: type[FakePeer]) -> None:
    compare(fake)
    measured = [variant for event, variant, *_ in fake.log if event == "measure"]
    one_round = [
        *("fastbp", "numpy reference", "numpy by hand"),
        *("torch autograd", "torch autograd, compiled", "torch by hand"),
    ]
    assert measured[:6] == one_round and measured[6:12] == one_round  # the compiled one dies in round 2
    assert measured[12:] == [variant for variant in one_round if "compiled" not in variant]
    started = {variant for event, variant, *_ in fake.log if event == "start"}
    closed = [variant for event, variant, *_ in fake.log if event == "close"]
    assert sorted(closed) == sorted(started)
    assert {entry[2] for entry in fake.log if entry[0] == "start"} == {"1"}


def test_ratios_are_taken_round_by_round(fake: type[FakePeer]) -> None:
    cells = compare(fake)["results"]["tiny"]
    assert cells["fastbp"]["microseconds"] == [10.0, 12.0, 10.0] and "ratio" not in cells["fastbp"]
    assert cells["numpy by hand"]["ratio"] == {"median": 4.0, "low": 3.0, "high": 4.2}
    assert cells["torch by hand"]["ratio"] == {"median": 0.8, "low": 0.75, "high": 0.9}


def test_what_is_missing_is_said(fake: type[FakePeer]) -> None:
    record = compare(fake)
    cells = record["results"]["tiny"]
    assert record["not installed"] == ["jax"] and not any("jax" in variant for variant in cells)
    assert cells["sklearn partial_fit"] == {"unsupported": "no such outputs"}
    assert cells["torch by hand, compiled"] == {"failed": "RuntimeError: no compiler"}
    assert cells["torch autograd, compiled"] == {"failed": "its process ended with -9: and said nothing"}
    text = report.report(record)
    for said in ("not installed: jax", "no such outputs", "no compiler", "ended with -9"):
        assert said in text


def test_the_fastest_way_counts_and_losses_are_marked(fake: type[FakePeer]) -> None:
    record = compare(fake)
    assert report.compared(record) == ["numpy", "torch"]
    assert report.best_of(record, "tiny", "torch")[0] == "torch by hand"
    table, summary = report.report(record).split("\n\n")[-2:]
    header, row = table.splitlines()
    assert header.split() == ["shape", "network", "fastbp", "us", "numpy", "torch"]
    assert row.split("   ")[0] == "tiny" and row.endswith("4.00 (3.00-4.20)   0.80 (0.75-0.90) !")
    assert "fastbp is slower at tiny (0.80)" in summary


def test_peers_are_closed_when_the_user_interrupts(fake: type[FakePeer]) -> None:
    def interrupt(text: str) -> None:
        if "round 2" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_command.compare(["tiny"], ["numpy"], rounds=3, seconds=0.1, start=fake, tell=interrupt)
    assert [variant for event, variant, *_ in fake.log if event == "close"] == [
        *("fastbp", "numpy reference", "numpy by hand")
    ]


# ---- the implementations ---------------------------------------------------------------------------------


def small(name: str) -> Shape:
    """The shape with two batches of data: its mathematics, not its time, is in question."""
    shape = SHAPES[name]
    return Shape(
        **{**vars(shape), "samples": 2 * shape.batch, "sizes": tuple(min(n, 70) for n in shape.sizes)}
    )


def agrees(variant: str, shape: Shape, epochs: int = 3) -> None:
    problem = problem_of(shape)
    run, parameters = ways.VARIANTS[variant][1](problem)
    judge, expected = ways.make_numpy_reference(problem)
    run(1)
    run(epochs - 1)
    judge(epochs)
    tolerance = 2e-5 if shape.dtype == "float32" else 1e-12
    for mine, right, before in zip(parameters(), expected(), problem.parameters, strict=True):
        assert mine.shape == right.shape and mine.dtype == right.dtype
        np.testing.assert_allclose(mine, right, atol=tolerance, rtol=0)
        assert np.any(right != before) and problem.X.dtype == right.dtype


@pytest.mark.parametrize("name", [name for name, shape in SHAPES.items() if shape.precision is None])
def test_numpy_by_hand_trains_as_the_reference(name: str) -> None:
    agrees("numpy by hand", small(name))


ROUNDED = [name for name, shape in SHAPES.items() if shape.precision is not None]


@pytest.mark.parametrize("name", ROUNDED)
def test_products_are_rounded_where_the_shape_says_so(name: str) -> None:
    rounded = peers.Worker("fastbp", small(name))
    exact = dataclasses.replace(small(name), precision=None)
    run, parameters = ways.made("fastbp", problem_of(exact))
    run(1)
    assert 3 * rounded.difference < peers.difference(parameters(), problem_of(small(name)))


@pytest.mark.parametrize("variant", sorted(set(ways.VARIANTS) - set(ways.ROUND)))
def test_who_does_not_round_is_not_compared_with_who_does(variant: str) -> None:
    with pytest.raises(ways.Unsupported, match="not written with products of bfloat16"):
        ways.made(variant, problem_of(small(ROUNDED[0])))


@pytest.mark.slow
@pytest.mark.parametrize("name", ROUNDED)
def test_frameworks_round_to_about_the_same(name: str) -> None:
    pytest.importorskip("torch")
    peers.Worker("torch autograd", small(name))  # which looks for itself


@pytest.mark.parametrize("name", ["labels", "regression"])
def test_sklearn_trains_as_the_reference_where_it_can(name: str) -> None:
    pytest.importorskip("sklearn")
    agrees("sklearn partial_fit", small(name))


def test_sklearn_is_not_compared_where_its_mathematics_is_another() -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(ways.Unsupported, match="no sigmoid outputs with mse"):
        ways.make_sklearn(problem_of(SHAPES["tiny"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular-f64", "tabular-adam", "labels", "regression", "deep"])
@pytest.mark.parametrize(
    "variant",
    ["torch autograd", "torch by hand", "jax step", "jax scan", "tensorflow step", "tensorflow scan"],
)
def test_frameworks_train_as_the_reference(variant: str, name: str) -> None:
    pytest.importorskip(ways.VARIANTS[variant][0])
    agrees(variant, small(name))


def test_a_wrong_implementation_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(problem: Any) -> Any:
        run, parameters = ways.make_numpy(problem)
        return (lambda epochs: run(epochs + 1)), parameters

    monkeypatch.setitem(ways.VARIANTS, "wrong", ("numpy", wrong))
    with pytest.raises(ArithmeticError, match="not the same training"):
        peers.Worker("wrong", SHAPES["tiny"])
    assert peers.Worker("numpy by hand", SHAPES["tiny"]).difference < 1e-4


def test_epochs_consist_of_whole_batches_and_names_exist() -> None:
    for shape in SHAPES.values():
        assert shape.samples % shape.batch == 0
        assert problem_of(small("xor")).X.dtype == np.float32
    assert set(QUICK) <= set(SHAPES)
    assert {library for library, _ in ways.VARIANTS.values()} == {"fastbp", *LIBRARIES}


# ---- the command -----------------------------------------------------------------------------------------


def test_a_process_that_cannot_start_is_a_reason_and_not_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    peer = processes.Process("fastbp", SHAPES["xor"], 1)
    peer.close()
    assert peer.hello == {"failed": "its process ended with 1: and said nothing"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--against numpy,torhc", "unknown library 'torhc'; there are torch"),
        ("digits --against numpy", "digits is a fit of an estimator: --against sklearn is what it is"),
        ("wine --against sklearn --plot a.png", "--plot draws shapes (xor, tiny, "),
        ("--plot ratios.txt", "ratios.txt: a picture can be written as .png, .svg, .pdf"),
        ("--json no/such/folder.json", "no such directory"),
        ("--rounds 0", "'0' is not a positive whole number"),
    ],
)
def test_mistakes_are_one_line(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main.main(["bench", *words.split()]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_command_writes_figures_and_picture(
    fake: type[FakePeer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    fake_compare = bench_command.compare
    monkeypatch.setattr(bench_command, "compare", lambda *a, **k: fake_compare(*a, **{**k, "start": fake}))
    words = "bench tiny --against torch,numpy,jax --rounds 3 --threads 1 --json out.json --plot ratios.png"
    assert main.main(words.split()) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["command"] == f"fastbp {words}" and record["machine"]["threads"] == 1
    assert record["versions"]["torch"] == "2.13" and "not installed: jax" in capsys.readouterr().out
    assert (tmp_path / "ratios.png").read_bytes()[:4] == b"\x89PNG"


# ---- estimators ------------------------------------------------------------------------------------------


def test_fits_of_estimators_are_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(measuring, "PAUSE", 0.0)
    compare_all = estimators.compare
    monkeypatch.setattr(estimators, "compare", lambda *names, **k: compare_all(*names, epochs=2, **k))
    words = "bench wine diabetes --against sklearn --rounds 2 --threads 1 --json"
    assert main.main([*words.split(), str(tmp_path / "out.json")]) == 0
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["results"] == {} and list(record["estimators"]) == ["wine", "diabetes"]
    for cell in record["estimators"].values():
        assert cell["difference"] < 1e-11
        ratios = [b / a for a, b in zip(cell["fastbp"], cell["sklearn"], strict=True)]
        assert len(ratios) == 2 and cell["ratio"]["low"] == pytest.approx(min(ratios), rel=2e-3)
    said = capsys.readouterr().out
    assert "MLPClassifier, wine 13-100-3, 2 epochs" in said and "us/step" not in said


def test_another_training_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    call_of = estimators.call_of

    def other_rate(fit: Any, module: str, epochs: int | None = None, **options: Any) -> Any:
        more = {"learning_rate_init": 0.002} if module == "fastbp.sklearn" else {}
        return call_of(fit, module, epochs, **options, **more)

    monkeypatch.setattr(estimators, "call_of", other_rate)
    with pytest.raises(ArithmeticError, match=r"wine: the losses of fastbp\.sklearn differ"):
        estimators.compare(["wine"], rounds=1, threads=1, epochs=2)
