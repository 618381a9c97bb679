"""Which initial weights suit regression: R2 on held-out rows of public tables, by way of drawing them.

    pip download --no-deps plotnine ISLP && unzip -d tables '*.whl'    # for their CSV files
    pip install pandas scikit-learn
    python asv_benchmarks/tools/studies/initial_weights.py tables --page

Needs no quiet machine: it measures no time. With --page it writes pages/INITIAL_WEIGHTS.md, where the default
of `fastbp.MLP(init="auto")` for networks with output "identity" comes from.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split

import fastbp

Array = NDArray[np.float64]
PAGE = Path(__file__).parents[2] / "pages" / "INITIAL_WEIGHTS.md"
ROWS = 3000  # of a larger table: where rows abound, all ways end alike

# name: (file, target, columns that are left out: names, and what gives the target away)
TABLES: dict[str, tuple[str, str, list[str]]] = {
    "Boston": ("Boston.csv", "medv", []),
    "mpg": ("mpg.csv", "hwy", ["model", "cty"]),
    "Auto": ("Auto.csv", "mpg", ["name"]),
    "Hitters": ("Hitters.csv", "Salary", []),
    "Carseats": ("Carseats.csv", "Sales", []),
    "College": ("College.csv", "Apps", []),
    "Credit": ("Credit.csv", "Balance", ["ID"]),
    "Wage": ("Wage.csv", "wage", ["logwage", "region"]),
    "Bikeshare": ("Bikeshare.csv", "bikers", ["casual", "registered"]),
    "txhousing": ("txhousing.csv", "median", ["city"]),
    "diamonds": ("diamonds.csv", "price", []),
}


def he(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    """He for the hidden layers, Glorot for the last: what suits each layer's activation."""
    fan_in, fan_out = W.shape
    W[...] = rng.standard_normal(W.shape) * math.sqrt(2 / (fan_in + fan_out) if last else 2 / fan_in)


def small_last(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    """The same with a tenth of LeCun's variance in the last layer."""
    W[...] = rng.standard_normal(W.shape) * math.sqrt((0.1 if last else 2) / len(W))


def lecun(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    W[...] = rng.standard_normal(W.shape) * math.sqrt(1 / len(W))


def glorot(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    W[...] = rng.standard_normal(W.shape) * math.sqrt(2 / sum(W.shape))


def scikit_learn(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    """Glorot's uniform one, for biases as well."""
    bound = math.sqrt(6 / sum(W.shape))
    W[...], b[...] = rng.uniform(-bound, bound, W.shape), rng.uniform(-bound, bound, b.shape)


def torch_weights(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    """PyTorch's weights, with biases of 0."""
    W[...] = rng.uniform(-1, 1, W.shape) / math.sqrt(len(W))


def torch(layer: int, last: bool, W: Array, b: Array, rng: np.random.Generator) -> None:
    torch_weights(layer, last, W, b, rng)
    b[...] = rng.uniform(-1, 1, b.shape) / math.sqrt(len(W))


WAYS: dict[str, Callable[..., None] | None] = {
    "He": he,
    "He, small last": small_last,
    "LeCun": lecun,
    "Glorot": glorot,
    "scikit-learn": scikit_learn,
    "PyTorch, no biases": torch_weights,
    "PyTorch": torch,
    'init="auto"': None,
}


def load(folder: Path, name: str) -> tuple[Array, Array]:
    """(rows, inputs), text as columns of 0 and 1, and the target (rows,), of rows without empty cells."""
    file, target, left_out = TABLES[name]
    (path,) = folder.rglob(file)
    frame = pd.read_csv(path, na_values=["?"]).drop(columns=left_out).dropna()
    if len(frame) > ROWS:
        frame = frame.sample(ROWS, random_state=0)
    y = frame.pop(target).to_numpy(float)
    return pd.get_dummies(frame).to_numpy(float), y


def trained(
    train: Array, y: Array, sizes: list[int], way: Callable[..., None] | None, seed: int, **options: str
) -> fastbp.MLP:
    """A network that has seen these rows in 50 epochs."""
    model = fastbp.MLP([train.shape[1], *sizes], seed=seed, threads=1, **options)
    if way:
        rng = np.random.default_rng(1000 + seed)
        for layer, (W, b) in enumerate(zip(model.weights, model.biases, strict=True)):
            b[...] = 0
            way(layer, layer == len(sizes) - 1, W, b, rng)
    model.fit(train, y, epochs=50, batch_size=32, optimizer=fastbp.Adam(1e-3), progress=False)
    return model


def standardised(train: Array, test: Array) -> tuple[Array, Array]:
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation == 0] = 1
    return (train - mean) / deviation, (test - mean) / deviation


def r_squared(X: Array, y: Array, hidden: list[int], way: Callable[..., None] | None, seed: int) -> float:
    """Of a quarter of the rows, after training on the others."""
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=seed)
    train, test = standardised(train, test)
    mean, deviation = y_train.mean(), y_train.std()
    model = trained(train, (y_train - mean) / deviation, [*hidden, 1], way, seed, output="identity")
    predicted = model.predict(test)[:, 0] * deviation + mean
    return float(1 - ((predicted - y_test) ** 2).sum() / ((y_test - y_test.mean()) ** 2).sum())


def accuracy(X: Array, y: Array, hidden: list[int], way: Callable[..., None] | None, seed: int) -> float:
    """The same of classes: the share of the rows that are told right."""
    train, test, y_train, y_test = train_test_split(X, y, test_size=0.25, random_state=seed, stratify=y)
    train, test = standardised(train, test)
    options = {"output": "softmax", "loss": "categorical_crossentropy"}
    model = trained(train, y_train, [*hidden, int(y.max()) + 1], way, seed, **options)
    return float((model.predict(test).argmax(axis=1) == y_test).mean())


def table(data: dict[str, tuple[Array, Array]], score: Any, hidden: list[int], seeds: int) -> list[str]:
    """Markdown: a row for each data set, and their means."""
    lines = ["| | rows | " + " | ".join(WAYS) + " |", "|---|---:|" + "---:|" * len(WAYS)]
    means = []
    for name, (X, y) in data.items():
        found = [np.mean([score(X, y, hidden, way, seed) for seed in range(seeds)]) for way in WAYS.values()]
        means.append(found)
        lines.append(f"| {name} | {len(X)} | " + " | ".join(f"{value:.3f}" for value in found) + " |")
        print(lines[-1], flush=True)
    lines.append(
        "| **mean** | | " + " | ".join(f"**{value:.3f}**" for value in np.mean(means, axis=0)) + " |"
    )
    return lines


TEXT = """# Initial weights for regression

R2 on a quarter of the rows, mean over {seeds} splits and seeds: `MLP(sizes, output="identity")`, ReLU, Adam
with 1e-3, 50 epochs of batches of 32, inputs and targets standardised, text columns as columns of 0 and 1,
at most {rows} rows. Written by `asv_benchmarks/tools/studies/initial_weights.py`.

"He" (He for the hidden layers, Glorot for the last one) was what `init="auto"` meant. It is behind
everywhere, and furthest where rows are few: the network begins as a function that is larger than the
standardised targets, and what it is between the rows stays. A small last layer alone mends a part of it,
since a function that is small at first still bends as much once the last layer has grown; the hidden
layers' scale does the rest. Random biases make little difference in two hidden layers, and help in ten. So
with output "identity", `init="auto"` draws weights and biases as torch.nn.Linear does. (Classification
shows no such difference, and keeps what it had: the last table.)

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tables", type=Path, help="a folder with the CSV files, however deep in it")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name}")
    options: Any = parser.parse_args()
    text = TEXT.format(seeds=options.seeds, rows=ROWS)
    quantities = {name: load(options.tables, name) for name in TABLES}
    quantities["diabetes"] = load_diabetes(return_X_y=True)
    loaders = (load_digits, load_breast_cancer, load_wine, load_iris)
    classes = {loader.__name__[5:]: loader(return_X_y=True) for loader in loaders}
    fewer = max(1, options.seeds // 4)
    for heading, data, score, depth, seeds in (
        ("Two hidden layers of 64", quantities, r_squared, 2, options.seeds),
        (f"Ten hidden layers of 64, {fewer} seeds", quantities, r_squared, 10, fewer),
        (f"Classes: accuracy with two hidden layers of 64, {fewer} seeds", classes, accuracy, 2, fewer),
    ):
        text += f"## {heading}\n\n" + "\n".join(table(data, score, [64] * depth, seeds)) + "\n\n"
    if options.page:
        PAGE.write_text(text.rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
