"""`fastbp bench --many N`: many small networks in one call, beside JAX's, and a sweep beside scikit-learn's
grid search."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

import fastbp
from fastbp.cli.bench import many_jax
from fastbp.cli.bench.measuring import cores, in_turn
from fastbp.cli.output import progress, text_table

# Layer sizes and epochs of 1024 rows, in batches of 32, with Adam.
ROWS, BATCH = 1024, 32
SHAPES = {"8-16-1": ([8, 16, 1], 50), "64-128-10": ([64, 128, 10], 10)}
HIDDEN, RATES = ([8], [16], [32], [64], [32, 16]), tuple(np.logspace(-4, -1, 10).tolist())
SWEEP_EPOCHS = 50


def _ratio(of: list[float], to: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(of, to, strict=True)):.2f}x"


def networks(count: int, *, rounds: int, threads: int, jax: bool = False) -> list[list[str]]:
    """A row for each shape: a loop over `fit`, `fit_many` on one core and on all, and their ratios; with jax
    also those to its vmap and its scans."""
    lines = []
    for name, (sizes, epochs) in SHAPES.items():
        progress(f"{name}: {count} networks ...")
        rng = np.random.default_rng(0)
        X, Y = rng.standard_normal((ROWS, sizes[0]), np.float32), rng.random((ROWS, sizes[-1]), np.float32)
        common: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, "progress": False}

        # Made beforehand, as JAX's are: each round goes on with them, with a new optimizer.
        models = [fastbp.MLP(sizes, seed=i) for i in range(count)]

        def loop(X: Any = X, Y: Any = Y, common: Any = common, models: Any = models) -> None:
            for model in models:
                model.fit(X, Y, optimizer=fastbp.Adam(), **common)

        def many(n: int, X: Any = X, Y: Any = Y, common: Any = common, models: Any = models) -> None:
            fastbp.fit_many(models, X, Y, optimizers=fastbp.Adam(), threads=n, **common)

        ways: list[Callable[[], object]] = [loop, partial(many, 1), partial(many, threads)]
        if jax:
            ways += many_jax.ways(sizes, X, Y, BATCH, epochs, count)
        each, one, all_cores, *others = in_turn(ways, rounds)
        times = [f"{1e3 * statistics.median(part) / count:.3g}" for part in (each, one, all_cores)]
        lines.append([name, *times, _ratio(one, all_cores), _ratio(each, all_cores)])
        lines[-1] += [_ratio(other, all_cores) for other in others]
    progress("")
    return lines


def sweeps(*, rounds: int, threads: int) -> list[str] | None:
    """50 configurations on 5 folds of breast_cancer, by `sweep` and by GridSearchCV; None without
    scikit-learn."""
    if importlib.util.find_spec("sklearn") is None:
        return None
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    progress("a sweep of breast_cancer ...")
    X, y = load_breast_cancer(return_X_y=True)
    X = ((X - X.mean(axis=0)) / X.std(axis=0)).astype(np.float32)
    base = fastbp.MLP([X.shape[1], 16, 1], loss="binary_crossentropy", seed=0)

    def ours() -> None:
        grid = {"hidden sizes": list(HIDDEN), "lr": list(RATES)}
        options: dict[str, Any] = {"epochs": SWEEP_EPOCHS, "batch_size": BATCH, "metric": "accuracy"}
        fastbp.sweep(base, grid, X, y, threads=threads, progress=False, **options)

    def theirs() -> None:
        network = MLPClassifier(
            max_iter=SWEEP_EPOCHS, batch_size=BATCH, n_iter_no_change=SWEEP_EPOCHS, random_state=0
        )
        grid = {"hidden_layer_sizes": list(map(tuple, HIDDEN)), "learning_rate_init": list(RATES)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            GridSearchCV(network, grid, cv=5, n_jobs=-1).fit(X, y)

    (mine, its) = in_turn([ours, theirs], max(1, rounds // 3))
    progress("")
    times = [f"{statistics.median(part):.3g}" for part in (mine, its)]
    return [*times, _ratio(its, mine)]


def many(count: int, *, rounds: int, threads: int | None, against: Sequence[str]) -> None:
    """Measure, and print the tables."""
    used = min(threads or cores(), cores())
    print(f"{count} networks, {ROWS:,} rows, batches of {BATCH}, Adam; milliseconds a network\n")
    heads = ["network", "each by fit", "one core", f"{used} cores", "cores pay", "against fit"]
    jax = "jax" in against and importlib.util.find_spec("jax") is not None
    heads += ["JAX's vmap", "its scans"] if jax else []
    print(text_table(heads, networks(count, rounds=rounds, threads=used, jax=jax)))
    if "jax" in against and not jax:
        print("\nJAX is not installed")
    if "sklearn" in against:
        line = sweeps(rounds=rounds, threads=used)
        shown = (
            "scikit-learn is not installed"
            if line is None
            else text_table(["sweep, s", "GridSearchCV, s", "ratio"], [line])
        )
        configurations = len(list(itertools.product(HIDDEN, RATES)))
        print(
            f"\n{configurations} configurations on 5 folds of breast_cancer, {SWEEP_EPOCHS} epochs\n\n{shown}"
        )
