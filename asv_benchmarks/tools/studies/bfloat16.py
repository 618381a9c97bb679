"""What precision="bfloat16" costs in accuracy, and what it gains in time: tables for fastbp/engine/README.md.

    python asv_benchmarks/tools/studies/bfloat16.py                         the digits that ship with fastbp
    python asv_benchmarks/tools/studies/bfloat16.py /usr/share/datasets/fashion-mnist    and Fashion-MNIST
    python asv_benchmarks/tools/studies/bfloat16.py --times                 training steps next to float32's

Accuracies need no quiet machine. Times are minima of interleaved rounds in one process; whether products are
the CPU's own or emulated stands above the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp import schedules
from fastbp.cli.bench.measuring import interleaved
from fastbp.cli.bench.problems import SHAPES, Problem, problem_of
from fastbp.cli.tables import idx
from fastbp.data import Split, split_digits
from fastbp.engine.kernels.bfloat16.products import implementation
from fastbp.optimizer_base import Optimizer

SEEDS = range(5)
PRECISIONS = (None, "bfloat16")
# (hidden units, epochs, rows of a batch)
DIGITS = ((64,), 40, 32)
FASHION = ((256,), 10, 128)
# Of so many steps. With a rate that stays large, accuracies of two epochs of one training differ by more than
# what is looked for.
OPTIMIZERS: dict[str, Callable[[int], Optimizer]] = {
    "SGD": lambda steps: fastbp.SGD(schedules.Cosine(0.1, steps), momentum=0.9),
    "Adam": lambda steps: fastbp.Adam(schedules.Cosine(1e-3, steps)),
}
TIMED = ("small", "tabular", "mnist", "mnist-big", "wide")
ROUNDS, ROUND_SECONDS = 7, 0.15


def fashion(folder: Path) -> Split:
    """From the usual four files, plain or gzipped."""

    def array(name: str) -> NDArray[Any]:
        return idx.read(str(next(folder.glob(f"{name}*"))))

    parts = []
    for part in ("train", "t10k"):
        images, labels = array(f"{part}-images"), array(f"{part}-labels")
        parts += [images.reshape(len(images), -1).astype(np.float32) / 255, labels.astype(np.int64)]
    return Split(*parts)


def accuracy(data: Split, how: tuple[Any, ...], optimizer: str, precision: str | None, seed: int) -> float:
    """Of the test rows, in percent."""
    hidden, epochs, batch = how
    sizes = [data.X_train.shape[1], *hidden, 10]
    kind: dict[str, Any] = {"output": "softmax", "loss": "categorical_crossentropy"}
    model = fastbp.MLP(sizes, precision=precision, seed=seed, **kind)
    rule = OPTIMIZERS[optimizer](epochs * -(-len(data.X_train) // batch))
    options = {"epochs": epochs, "batch_size": batch, "progress": False}
    model.fit(data.X_train, data.y_train, optimizer=rule, **options)
    return 100 * float(np.mean(model.predict(data.X_test).argmax(axis=1) == data.y_test))


def accuracies(name: str, data: Split, how: tuple[Any, ...]) -> None:
    hidden, epochs, batch = how
    sizes = "-".join(map(str, [data.X_train.shape[1], *hidden, 10]))
    for optimizer in OPTIMIZERS:
        found = np.array([[accuracy(data, how, optimizer, p, seed) for seed in SEEDS] for p in PRECISIONS])
        (plain, rounded), (low, high) = found.mean(axis=1), found.std(axis=1, ddof=1)
        cells = f"{plain:.2f} ± {low:.2f} | {rounded:.2f} ± {high:.2f} | {rounded - plain:+.2f}"
        print(f"| {name}, {sizes}, {epochs} epochs of {batch} rows, {optimizer} | {cells} |", flush=True)


def training(problem: Problem, precision: str | None) -> Callable[[int], None]:
    """run(epochs), on one core."""
    shape = problem.shape
    kind: dict[str, Any] = {"output": shape.output, "loss": shape.loss}
    model = fastbp.MLP(list(shape.sizes), precision=precision, seed=0, threads=1, **kind)
    optimizer = fastbp.SGD(shape.lr)
    options = {"batch_size": shape.batch, "shuffle": False, "progress": False, "check_finite": False}
    return lambda epochs: model.fit(problem.X, problem.Y, epochs=epochs, optimizer=optimizer, **options)


def seconds_a_step(names: tuple[str, ...]) -> None:
    print("\n| step | float32, us | bfloat16, us | times as long |\n|---|---:|---:|---:|")
    for name in names:
        shape, problem = SHAPES[name], problem_of(SHAPES[name])
        runs = [training(problem, precision) for precision in PRECISIONS]
        measured = interleaved(runs, shape.steps, rounds=ROUNDS, seconds=ROUND_SECONDS)
        plain, rounded = (1e6 * min(times) for times in measured)
        print(f"| {name}, {shape} | {plain:,.1f} | {rounded:,.1f} | {rounded / plain:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of Fashion-MNIST's four files")
    parser.add_argument("--times", action="store_true", help="training steps on one core")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=TIMED)
    arguments = parser.parse_args()
    print(f"products of bfloat16: {implementation()}")
    if arguments.times:
        seconds_a_step(tuple(arguments.shapes))
        return
    print("\n| data, network, training | float32 | bfloat16 | difference |\n|---|---:|---:|---:|")
    accuracies("digits", split_digits(), DIGITS)
    if arguments.folder is not None:
        accuracies("Fashion-MNIST", fashion(arguments.folder), FASHION)


if __name__ == "__main__":
    main()
