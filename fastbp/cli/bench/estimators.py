"""fastbp.sklearn's estimators beside scikit-learn's: whole calls of `fit`, in turns, in one process.

Both have the same settings: defaults, but for the number of epochs. They are timed only if their losses are
the same from epoch to epoch.
"""

from __future__ import annotations

import importlib
import statistics
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.bench.measuring import in_turn

Array = NDArray[Any]

# Between the losses of two trainings that are the same one, as a share, in float64.
TOLERANCE = 1e-8
ROWS = 4000  # of random data


@dataclass(frozen=True)
class Fit:
    """A training: data of scikit-learn's by name, or random ones; the estimator, its units, how long."""

    data: str
    inputs: int
    hidden: int
    outputs: int
    epochs: int
    kind: str = "MLPClassifier"

    def __str__(self) -> str:
        return f"{self.data} {self.inputs}-{self.hidden}-{self.outputs}"


# name on the command line -> what it is. asv stores results under str(fit).
ESTIMATORS = {
    "digits": Fit("digits", 64, 100, 10, epochs=20),
    "wine": Fit("wine", 13, 100, 3, epochs=100),
    "breast-cancer": Fit("breast_cancer", 30, 100, 1, epochs=50),
    "diabetes": Fit("diabetes", 10, 100, 1, epochs=50, kind="MLPRegressor"),
    "random-classes": Fit("random", 784, 256, 10, epochs=2),
    "random-quantity": Fit("random", 784, 256, 1, epochs=2, kind="MLPRegressor"),
}
QUICK = ("digits", "wine")


def data_of(fit: Fit, rows: int = ROWS) -> tuple[Array, Array]:
    """Standardised (samples, inputs), and labels or standardised quantities (samples,).

    rows : of random data.
    """
    classes = fit.kind == "MLPClassifier"
    if fit.data == "random":
        rng = np.random.default_rng(0)
        X = rng.standard_normal((rows, fit.inputs))
        return X, rng.integers(fit.outputs, size=rows) if classes else rng.standard_normal(rows)
    X, y = getattr(importlib.import_module("sklearn.datasets"), f"load_{fit.data}")(return_X_y=True)
    deviation = X.std(axis=0)
    X = (X - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return X, y if classes else (y - y.mean()) / y.std()


def call_of(
    fit: Fit, module: str, epochs: int | None = None, rows: int = ROWS, **options: Any
) -> Callable[[], Any]:
    """A function that fits a new estimator of that module ("fastbp.sklearn", "sklearn.neural_network") and
    returns it. epochs : instead of the usual ones; options : of the estimator besides."""
    kind = getattr(importlib.import_module(module), fit.kind)
    X, y = data_of(fit, rows)
    most = epochs or fit.epochs
    settings = {
        "hidden_layer_sizes": (fit.hidden,),
        "max_iter": most,
        "n_iter_no_change": most,
        "random_state": 0,
    }

    def call() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            return kind(**settings, **options).fit(X, y)

    return call


def difference(mine: Any, theirs: Any) -> float:
    """The largest one between the losses of two estimators' epochs, as a share; infinite where they did not
    train for as long."""
    ours, right = (np.array(estimator.loss_curve_) for estimator in (mine, theirs))
    if ours.shape != right.shape:
        return float("inf")
    return float(np.max(np.abs(ours - right) / right))


def compare(
    names: Sequence[str],
    *,
    rounds: int,
    threads: int,
    epochs: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure the fits called `names` in both libraries, with so many threads each; for JSON."""
    from threadpoolctl import threadpool_limits

    results = {}
    for name in names:
        tell(f"{name}: fits of fastbp.sklearn and of scikit-learn ...")
        fit = ESTIMATORS[name]
        ours = call_of(fit, "fastbp.sklearn", epochs, threads=threads)
        theirs = call_of(fit, "sklearn.neural_network", epochs)
        with threadpool_limits(threads, "blas"):
            found = difference(ours(), theirs())
            if not found <= TOLERANCE:
                raise ArithmeticError(
                    f"{name}: the losses of fastbp.sklearn differ from scikit-learn's by {found:.1e} of "
                    f"their size, more than {TOLERANCE:.0e}: not the same training"
                )
            mine, its = in_turn([ours, theirs], rounds)
        ratios = [b / a for a, b in zip(mine, its, strict=True)]
        results[name] = {
            "fit": f"{fit.kind}, {fit}, {epochs or fit.epochs} epochs",
            "fastbp": [float(f"{1e3 * seconds:.4g}") for seconds in mine],
            "sklearn": [float(f"{1e3 * seconds:.4g}") for seconds in its],
            "ratio": {
                "median": float(f"{statistics.median(ratios):.4g}"),
                "low": float(f"{min(ratios):.4g}"),
                "high": float(f"{max(ratios):.4g}"),
            },
            "difference": found,
        }
    return results


def rows_of(results: dict[str, Any], ratio_text: Callable[[dict[str, float]], str]) -> list[list[str]]:
    """What a table says of them, its head first: milliseconds a fit, medians of the rounds, and ratios."""
    table = [["fit", "estimator", "fastbp ms", "sklearn ms", "sklearn / fastbp"]]
    for name, cell in results.items():
        medians = [f"{statistics.median(cell[library]):,.1f}" for library in ("fastbp", "sklearn")]
        table.append([name, cell["fit"], *medians, ratio_text(cell["ratio"])])
    return table
