"""A sweep ranks configurations by what their own fits would give."""

import numpy as np
import pytest
from many_networks import LABELS, X, Y

import fastbp
from fastbp.many import splits

BASE = {"seed": 3}


def base(**options):
    return fastbp.MLP([6, 8, 2], **{**BASE, **options})


def run(grid, model=None, **changes):
    options = {"cv": 3, "epochs": 4, "progress": False} | changes
    return fastbp.sweep(model or base(), grid, X, options.pop("Y", Y), **options)


def test_each_score_is_that_of_a_fit_on_the_folds():
    table = run({"hidden sizes": [[8], [5, 4]], "lr": [0.001, 0.05], "batch_size": [16]})
    pairs = splits.folds(3, X, Y, len(X), None, 0)
    assert len(table) == 4
    for row in table:
        scores = []
        for train, test in pairs:
            model = fastbp.MLP([6, *row["hidden_sizes"], 2], **BASE)
            model.fit(
                X[train], Y[train], epochs=4, batch_size=16, optimizer=fastbp.Adam(row["lr"]), progress=False
            )
            scores.append(model.loss(X[test], Y[test]))
        assert row["scores"] == tuple(scores)
        assert row["loss"] == np.mean(scores) and row["std"] == np.std(scores)
    assert [row["loss"] for row in table] == sorted(row["loss"] for row in table)
    assert table.best == {name: table[0][name] for name in ("hidden_sizes", "lr", "batch_size")}


def test_classes_have_their_share_in_every_fold():
    classes = np.repeat([0, 1, 2], [6, 30, 9])
    pairs = splits.folds(3, None, None, 45, classes, 1)
    for train, test in pairs:
        assert np.bincount(classes[test]).tolist() == [2, 10, 3]
        assert sorted([*train, *test]) == list(range(45))


def test_more_of_a_metric_is_better():
    model = base(output="softmax", loss="categorical_crossentropy")
    table = run({"lr": [1e-5, 0.05]}, model, Y=LABELS, metric="accuracy", epochs=20)
    scores = [row["accuracy"] for row in table]
    assert table.more_is_better and scores == sorted(scores, reverse=True)
    worst = run({"lr": [1e-5, 0.05]}, metric=lambda y, p: float(p.mean()), mode="max")
    assert worst.more_is_better


def test_halving_goes_on_with_the_best():
    grid = {"lr": [0.0001, 0.001, 0.003, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1]}
    table, whole = run(grid, halving=True, epochs=9), run(grid, epochs=9)
    assert [row["epochs_done"] for row in table] == [9] + [3] * 2 + [1] * 6
    assert next(row for row in whole if row["lr"] == table[0]["lr"])["scores"] == table[0]["scores"]


def test_random_draws_no_configuration_twice():
    grid = {"lr": [0.1, 0.2, 0.3], "dropout": [0.0, 0.1]}
    table = run(grid, random=4, epochs=1)
    drawn = {(row["lr"], row["dropout"]) for row in table}
    assert len(drawn) == 4
    again = run(grid, random=4, epochs=1)
    assert [row["scores"] for row in again] == [row["scores"] for row in table]
    assert len(run(grid, random=100, epochs=1)) == 6


def test_distributions():
    class Uniform:
        def rvs(self, random_state):
            return np.float64(random_state.uniform(0.01, 0.02))

    table = run({"lr": Uniform(), "hidden": ["relu", "tanh"]}, random=3, epochs=1)
    assert all(type(row["lr"]) is float and 0.01 <= row["lr"] <= 0.02 for row in table)
    with pytest.raises(ValueError, match="is a distribution: say how many to draw with random="):
        run({"lr": Uniform()})


def test_what_diverges_stands_last():
    with pytest.warns(RuntimeWarning, match="3 of 6 networks have diverged"):
        table = run({"lr": [1e6, 0.01]}, base(output="identity"), optimizer=fastbp.SGD(0.1), epochs=20)
    assert table[0]["lr"] == 0.01 and np.isnan(table[1]["loss"])


def test_the_best_can_be_trained_on_all_data_and_shown():
    table = run({"lr": [0.001, 0.05], "hidden sizes": [[4], [6, 3]]})
    model = table.fit(X, Y, progress=False)
    same = fastbp.MLP([6, *table.best["hidden_sizes"], 2], **BASE)
    same.fit(X, Y, epochs=4, optimizer=fastbp.Adam(table.best["lr"]), progress=False)
    assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()
    first, second = repr(table).splitlines()[:2]
    assert first == "Sweep of 4 configurations, best first:"
    assert second.split() == ["lr", "hidden_sizes", "loss", "std"]
    pandas = pytest.importorskip("pandas")
    assert isinstance(table.to_pandas(), pandas.DataFrame)
    figure = pytest.importorskip("matplotlib.figure")
    drawn = table.plot()
    assert isinstance(drawn, figure.Figure)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["lr", "hidden sizes"]
    assert [text.get_text() for text in drawn.axes[1].get_xticklabels()] == ["4", "6-3"]


def test_pairs_and_splitters_are_folds():
    pairs = [(np.arange(60), np.arange(60, 90))]
    assert len(run({"lr": [0.1]}, cv=pairs)[0]["scores"]) == 1
    model_selection = pytest.importorskip("sklearn.model_selection")
    assert len(run({"lr": [0.1]}, cv=model_selection.KFold(4))[0]["scores"]) == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grid": {}}, TypeError, "grid must be a dict of lists"),
        ({"grid": {"lr": 0.1}}, TypeError, r"grid\['lr'\] must be a list of values"),
        ({"grid": {"lr": []}}, TypeError, r"grid\['lr'\] must be a list of values"),
        ({"grid": {"rate": [0.1]}}, ValueError, "grid"),
        ({"grid": {"lr": [-1.0]}}, ValueError, "lr"),
        ({"grid": {"hidden": ["no"]}}, ValueError, "no"),
        ({"grid": {"epochs": [0]}}, ValueError, "epochs is 0"),
        ({"grid": {"optimizer": ["adam"]}}, TypeError, r"grid\['optimizer'\]"),
        ({"cv": 1}, ValueError, "cv is 1"),
        ({"cv": 91}, ValueError, "cv is 91, but there are 90 rows"),
        ({"cv": "five"}, TypeError, "cv must be a number of folds"),
        ({"cv": []}, ValueError, "cv has no folds"),
        ({"cv": [([0], [90])]}, ValueError, "go beyond 0 to 89"),
        ({"metric": "no"}, ValueError, "no"),
        ({"metric": ["r2"]}, TypeError, "metric must be a name or a function"),
        ({"metric": lambda y, p: 0.0}, ValueError, "use mode="),
        ({"mode": "up"}, ValueError, "mode"),
        ({"random": 0}, ValueError, "random is 0"),
        ({"halving": "no"}, TypeError, "halving must be True or False"),
        ({"optimizer": "adam"}, TypeError, "optimizer must be an object"),
        ({"model": 3}, TypeError, "base must be a model"),
    ],
)
def test_what_does_not_fit_is_refused(changes, error, message):
    options = {"grid": {"lr": [0.1]}} | changes
    with pytest.raises(error, match=message):
        run(options.pop("grid"), **options)


def test_the_band_of_an_ensemble():
    pytest.importorskip("matplotlib")
    ensemble = fastbp.Ensemble([fastbp.MLP([1, 4, 1], seed=i) for i in range(3)])
    axes = ensemble.plot(X[:, 0], Y[:, 0]).axes[0]
    assert axes.get_title(loc="left") == "3 networks"
    (line,) = axes.lines
    grid, mean = line.get_data()
    np.testing.assert_allclose(mean, ensemble.mean(grid[:, None])[:, 0], rtol=1e-6)
    with pytest.raises(ValueError, match="one input and one output"):
        ensemble.plot(X, Y)
