"""fastbp.sklearn next to scikit-learn, in one process and in turns: fit, a pipeline, a grid search, predict.

    pip download --no-deps plotnine && unzip -d tables '*.whl'    # for diamonds.csv
    pip install '.[sklearn]' pandas
    python asv_benchmarks/tools/studies/estimators.py --diamonds tables/plotnine/data/diamonds.csv

Times of short fits and of predict are the shortest of three, those of diamonds and of the grid search
single ones: on a machine with nothing else to do. Some minutes.
"""

from __future__ import annotations

import argparse
import functools
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
from sklearn import neural_network
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import fastbp.sklearn as ours
from fastbp.cli.bench.estimators import ESTIMATORS, call_of

TEXTS = ["cut", "color", "clarity"]  # of diamonds
PAUSE = 0.1  # seconds: idle threads of OpenBLAS and OpenMP spin for that long
GRID = {"alpha": [1e-5, 1e-4, 1e-3, 1e-2], "learning_rate_init": [3e-4, 1e-3, 3e-3]}
MILLION = 1_000_000


def in_turns(*calls: Callable[[], object], rounds: int = 3) -> list[float]:
    """The shortest time of each, in seconds; all are called once before, unless there is one round only."""
    for call in calls if rounds > 1 else ():
        call()
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for i, call in enumerate(calls):
            time.sleep(PAUSE)
            began = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - began)
    return best


def row(what: str, theirs: float, mine: float) -> None:
    print(f"| {what} | {theirs:.3f} | {mine:.3f} | {theirs / mine:.1f} x |", flush=True)


def pipeline(module: Any, seed: int) -> Any:
    """Columns of 0 and 1 for text, the others standardised, then a network with batches of 200."""
    columns = make_column_transformer((OneHotEncoder(sparse_output=False), TEXTS), remainder=StandardScaler())
    return make_pipeline(columns, module.MLPRegressor(max_iter=20, random_state=seed))


def diamonds(path: Path, seeds: int) -> None:
    """Fit of the network alone, and R2 of whole pipelines on a quarter of the rows."""
    frame = pd.read_csv(path)
    y = np.log(frame.pop("price").to_numpy(float))
    train, test, y_train, y_test = train_test_split(frame, y, test_size=0.25, random_state=0)
    X = pipeline(ours, 0)[0].fit_transform(train)
    calls = [
        lambda module=module: module.MLPRegressor(max_iter=5, random_state=0).fit(X, y_train)
        for module in (neural_network, ours)
    ]
    row(f"diamonds, {len(X)} rows of {X.shape[1]}, 5 epochs", *in_turns(*calls, rounds=1))
    for seed in range(seeds):
        theirs, mine = (
            pipeline(module, seed).fit(train, y_train).score(test, y_test)
            for module in (neural_network, ours)
        )
        print(
            f"| R2 of log price, seed {seed} | {theirs:.6f} | {mine:.6f} | {mine - theirs:+.1e} |", flush=True
        )


def grid_search() -> None:
    X, y = load_digits(return_X_y=True)

    def search(module: Any, jobs: int) -> Callable[[], object]:
        network = module.MLPClassifier(max_iter=20, random_state=0)

        def run() -> object:
            with joblib.parallel_config("threading"):
                return GridSearchCV(network, GRID, cv=3, n_jobs=jobs).fit(X / 16, y)

        return run

    calls = [search(module, jobs) for jobs in (1, 2) for module in (neural_network, ours)]
    seconds = in_turns(*calls, rounds=1)
    row("grid search on digits, 12 x 3 fits, n_jobs=1", *seconds[:2])
    row("the same with 2 threads of joblib", *seconds[2:])
    gains = (f"{seconds[i] / seconds[i + 2]:.2f} x" for i in range(2))
    print(f"| what 2 threads gain | {' | '.join(gains)} | |", flush=True)


def predictions() -> None:
    """A million rows, by networks of 64-100-10; the engine's own predict beside them."""
    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).random((MILLION, X.shape[1]))
    theirs, mine = (
        module.MLPClassifier(max_iter=5, random_state=0).fit(X / 16, y) for module in (neural_network, ours)
    )
    for method in ("predict", "predict_proba"):
        row(
            f"{method} of a million rows",
            *in_turns(*(functools.partial(getattr(network, method), rows) for network in (theirs, mine))),
        )
    engine, estimator = in_turns(lambda: mine.model_.predict(rows), lambda: mine.predict_proba(rows))
    print(f"| the same, of model_ alone | | {engine:.3f} | {estimator / engine:.2f} x its time |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--diamonds", type=Path, help="diamonds.csv; without it, what needs it is left out")
    parser.add_argument("--seeds", type=int, default=3, help="of the pipelines")
    options: Any = parser.parse_args()
    warnings.simplefilter("ignore")  # that few epochs do not converge
    print("| seconds, or what it says | scikit-learn | fastbp | |\n|---|---:|---:|---:|")
    for fit in ESTIMATORS.values():
        calls = (call_of(fit, module) for module in ("sklearn.neural_network", "fastbp.sklearn"))
        row(f"{fit.kind}, {fit}, {fit.epochs} epochs", *in_turns(*calls))
    if options.diamonds:
        diamonds(options.diamonds, options.seeds)
    grid_search()
    predictions()


if __name__ == "__main__":
    main()
