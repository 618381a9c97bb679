"""Tables as they come: `fastbp train` on CSV files, beside the same with scikit-learn's pipeline.

    python tests/tables/compare_tables.py FOLDER [--seeds N] [--only NAME ...]

FOLDER holds any of diamonds.csv, penguins.csv, mpg.csv, msleep.csv and txhousing.csv, as the package plotnine
has them in plotnine/data; a table of passengers with columns of all kinds is made besides. For each seed, of
which the rows held out and the weights depend, each is trained by `train_table` and by a pipeline of
scikit-learn (imputer, scaler and one-hot columns, MLPRegressor or MLPClassifier of the same size, batches and
epochs) on the same rows and columns. The time is that of training alone, the least of all seeds, quality the
mean; a table of less than hundred rows needs a hundred seeds to say anything. Predictions of the command line
and of `fastbp.load` are compared, too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from made import passengers

import fastbp
from fastbp.cli.main import main as command_line
from fastbp.tables.parts import split_rows
from fastbp.tables.wording import text_table

HIDDEN, EPOCHS, BATCH, SEEDS = (64, 64), 30, 32, 3
TARGETS = {
    "diamonds": "price",
    "penguins": "species",
    "mpg": "hwy",
    "msleep": "sleep_total",
    "txhousing": "median",
    "passengers": "survived",
}
LEFT_OUT = {"passengers": ("name", "boarded")}  # scikit-learn has no dates


def by_command_line(path: Path, target: str, drop: tuple[str, ...], folder: str) -> None:
    """Train, and write predictions of the same file; SystemExit if it is refused."""
    sizes = ",".join(map(str, HIDDEN))
    options = f"--hidden {sizes} --epochs {EPOCHS} --batch-size {BATCH} --missing-target drop".split()
    options += ["--drop", ",".join(drop)] if drop else []
    train = ["train", str(path), "--target", target, *options, "--out", f"{folder}/model"]
    predict = ["predict", f"{folder}/model", str(path), "--out", f"{folder}/predictions.npy"]
    with contextlib.redirect_stdout(io.StringIO()):
        if command_line(train) or command_line(predict):
            raise SystemExit(f"{path} was refused")


def by_train_table(
    frame: pd.DataFrame, target: str, drop: tuple[str, ...], seeds: int
) -> tuple[float, list[float]]:
    """(seconds of training, R2 or accuracy on the rows held out, by each seed)"""
    seconds, found = [], []
    for seed in range(seeds):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of columns that are left out
            model = fastbp.train_table(
                frame,
                target=target,
                hidden=HIDDEN,
                epochs=EPOCHS,
                batch_size=BATCH,
                drop=drop,
                seed=seed,
                progress=False,
            )
        assert model.history is not None
        seconds.append(model.history.seconds)
        found.append(model.quality["held out"]["R2" if model.classes is None else "accuracy"])
    return min(seconds), found


def by_sklearn(frame: pd.DataFrame, target: str, names: list[str], seeds: int) -> tuple[float, list[float]]:
    """The same of the columns that fastbp has used."""
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    X, y = frame[names], frame[target]
    quantity = pd.api.types.is_numeric_dtype(y)
    numbers = [name for name in names if pd.api.types.is_numeric_dtype(X[name])]
    texts = [name for name in names if name not in numbers]
    seconds, found = [], []
    for seed in range(seeds):
        of_classes = None if quantity else np.unique(y, return_inverse=True)[1]
        train, held = split_rows(of_classes, len(frame), 0.2, seed)
        columns = ColumnTransformer(
            [
                ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
                ("texts", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
            ]
        )
        inputs = columns.fit_transform(X.iloc[train]).astype(np.float32)
        later = columns.transform(X.iloc[held]).astype(np.float32)
        mean, spread = (y.iloc[train].mean(), y.iloc[train].std()) if quantity else (0, 1)
        network = (MLPRegressor if quantity else MLPClassifier)(
            hidden_layer_sizes=HIDDEN,
            batch_size=BATCH,
            learning_rate_init=0.003,
            alpha=0,
            max_iter=EPOCHS,
            random_state=seed,
        )
        network.set_params(n_iter_no_change=EPOCHS, tol=0)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(inputs, (y.iloc[train] - mean) / spread if quantity else y.iloc[train])
        seconds.append(time.perf_counter() - start)
        truth = (y.iloc[held] - mean) / spread if quantity else y.iloc[held]
        found.append(float(network.score(later, truth)))
    return min(seconds), found


def compare(name: str, path: Path, seeds: int) -> list[str]:
    """A line of the table that is printed."""
    target, drop, frame = TARGETS[name], LEFT_OUT.get(name, ()), pd.read_csv(path)
    with tempfile.TemporaryDirectory() as out:
        by_command_line(path, target, drop, out)
        loaded = fastbp.load(f"{out}/model")
        predicted = np.load(f"{out}/predictions.npy")
    same = loaded.predict(frame)
    if predicted.dtype.kind == "f":
        agree = f"{np.abs(predicted - same).max() / np.abs(same).max():.0e}"
    else:
        agree = f"{np.mean(predicted == same):.0%} equal"
    frame = frame.dropna(subset=[target]).reset_index(drop=True)
    ours, quality = by_train_table(frame, target, drop, seeds)
    theirs, other = by_sklearn(frame, target, loaded.columns.names, seeds)
    difference = np.subtract(quality, other)
    error = f"{difference.std(ddof=1) / np.sqrt(seeds):.4f}" if seeds > 1 else "?"
    figures = [f"{np.mean(quality):.4f}", f"{np.mean(other):.4f}", f"{difference.mean():.4f} +- {error}"]
    times = [f"{ours:.3f}", f"{theirs:.3f}", f"{theirs / ours:.1f}"]
    return [name, f"{len(frame):,}", str(len(loaded.columns.outputs)), *figures, *times, agree]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the CSV files are")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", nargs="+", default=[*TARGETS], choices=TARGETS, metavar="NAME")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.only:
            path = given.folder / f"{name}.csv"
            if name == "passengers":
                path = Path(folder, "passengers.csv")
                passengers(2000).to_csv(path, index=False)
            if path.exists():
                rows.append(compare(name, path, given.seeds))
            else:
                print(f"{path} is not there", file=sys.stderr)
    quality = ["R2/accuracy", "scikit-learn's", "difference"]
    times = ["s", "scikit-learn's s", "times as fast"]
    print(text_table(["table", "rows", "inputs", *quality, *times, "load against command line"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
