"""Many networks on the command line: `train --ensemble` and `predict`, `sweep`, `bench --many`."""

import csv

import numpy as np
import pytest

import fastbp
from fastbp.cli.bench import many, measuring
from fastbp.cli.main import main


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    """three.csv (classes), price.csv: 60 rows, features a, b, target y."""
    monkeypatch.chdir(tmp_path)
    X = np.random.default_rng(0).standard_normal((60, 2))
    for name, y in (("three", np.arange(60) % 3), ("price", 7 * X[:, 0] + 0.5), ("two", X[:, 0] > 0)):
        table = np.column_stack([X, y])
        np.savetxt(f"{name}.csv", table, delimiter=",", header="a,b,y", comments="", fmt="%.6g")


def run(line):
    return main(line.split())


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_an_ensemble_is_networks_that_differ_in_their_seed(capsys):
    options = "price.csv --target y --epochs 5 --seed 3"
    assert run(f"train {options} --ensemble 3 --out e.fastbp") == 0
    said = capsys.readouterr().out
    assert "training   3 networks, 48 rows, 5 epochs of batches of 32" in said
    assert "wrote e.fastbp: 3 networks" in said
    ensemble = fastbp.Ensemble.load("e.fastbp")
    assert [model.architecture.seed for model in ensemble] == [3, 4, 5]
    assert run(f"train {options} --out m.fastbp") == 0
    single = fastbp.MLP.load("m.fastbp")
    assert single.parameters.flat.tobytes() == ensemble[0].parameters.flat.tobytes()


def test_predictions_of_an_ensemble_have_their_spread(capsys):
    for name in ("price", "three", "two"):
        assert run(f"train {name}.csv --target y --epochs 3 --ensemble 3 --out e.fastbp") == 0
        capsys.readouterr()
        assert run(f"predict e.fastbp {name}.csv") == 0
        rows = rows_of(capsys.readouterr().out)
        assert len(rows) == 60
        if name == "price":
            assert list(rows[0]) == ["prediction", "std"]
            assert run("predict e.fastbp price.csv --out p.npz") == 0
            arrays = np.load("p.npz")
            expected = [f"{value:.9g}" for value in arrays["std"][:, 0]]
            assert [row["std"] for row in rows] == expected
            scale = np.loadtxt("price.csv", delimiter=",", skiprows=1)[:, 2].std()
            assert 0 < arrays["std"].mean() < 2 * scale
        else:
            labels = ["0", "1", "2"] if name == "three" else ["0", "1"]
            assert list(rows[0]) == [
                "prediction",
                *(f"score_{k}" for k in labels),
                *(f"std_{k}" for k in labels),
            ]
            assert all(float(row["std_0"]) > 0 for row in rows)
            assert all(abs(sum(float(row[f"score_{k}"]) for k in labels) - 1) < 1e-5 for row in rows)


@pytest.mark.parametrize("option", ["--steps 5", "--checkpoint c.fastbp", "--plot p.png"])
def test_what_an_ensemble_has_not_is_refused(option, capsys):
    assert run(f"train price.csv --target y --ensemble 2 --out e.fastbp {option}") == 2
    assert "is for a single network, not for --ensemble" in capsys.readouterr().err


def test_a_sweep_shows_a_table_and_writes_the_best(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "grid.toml").write_text("hidden_sizes = [[4], [8, 4]]\nlr = [0.0001, 0.03]\n")
    line = "sweep three.csv --target y --grid grid.toml --cv 3 --epochs 4 --out best.fastbp --plot s.png"
    assert run(line) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 configurations on 3 folds of 48 rows, best first:"
    assert said[1].split() == ["hidden_sizes", "lr", "accuracy", "std"]
    best = said[2].split()
    model = fastbp.MLP.load("best.fastbp")
    assert "-".join(map(str, model.layer_sizes[1:-1])) == best[0]
    assert (tmp_path / "s.png").stat().st_size > 1000
    assert run("predict best.fastbp three.csv") == 0


@pytest.mark.parametrize(
    ("grid", "more", "message"),
    [
        (None, "", "--grid is needed"),
        ("lr = 0.1", "", "lr must be a list of values"),
        ("lr = [", "", "is not TOML"),
        ("rate = [0.1]", "", "unknown grid"),
        ("lr = [0.1]", "--cv 1", "cv is 1"),
        ("lr = [0.1]", "--metric no", "unknown metric"),
    ],
)
def test_sweeps_that_are_refused(grid, more, message, capsys, tmp_path):
    if grid is not None:
        (tmp_path / "grid.toml").write_text(grid)
        more += " --grid grid.toml"
    assert run(f"sweep price.csv --target y {more}") == 2
    assert message in capsys.readouterr().err


def test_bench_of_many(capsys, monkeypatch):
    monkeypatch.setattr(many, "SHAPES", {"8-16-1": ([8, 16, 1], 1)})
    monkeypatch.setattr(measuring, "PAUSE", 0.0)
    assert run("bench --many 3 --rounds 1 --threads 2") == 0
    said = capsys.readouterr().out
    assert "3 networks, 1,024 rows" in said
    assert [line.split()[0] for line in said.splitlines() if "8-16-1" in line] == ["8-16-1"]


def test_bench_of_many_beside_jax(capsys, monkeypatch):
    """Two columns more, or a line that says why not."""
    monkeypatch.setattr(many, "SHAPES", {"8-16-1": ([8, 16, 1], 1)})
    monkeypatch.setattr(measuring, "PAUSE", 0.0)
    assert run("bench --many 3 --rounds 1 --threads 2 --against jax") == 0
    said = capsys.readouterr().out
    assert ("JAX's vmap" in said) != ("JAX is not installed" in said)


@pytest.mark.slow
def test_the_bench_of_a_sweep_is_over_fifty_configurations(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(many, "HIDDEN", ([2],))
    monkeypatch.setattr(many, "RATES", (0.01, 0.1))
    monkeypatch.setattr(many, "SWEEP_EPOCHS", 1)
    monkeypatch.setattr(measuring, "PAUSE", 0.0)
    ours, theirs, ratio = many.sweeps(rounds=1, threads=1)
    assert float(ours) > 0 and float(theirs) > 0 and ratio.endswith("x")
