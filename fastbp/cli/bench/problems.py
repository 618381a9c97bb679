"""What `fastbp bench` measures: networks by name, with the same data and first weights for every library."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Small, so that no shape diverges however long it is timed; the time of a step does not depend on it.
LEARNING_RATES = {"SGD": 1e-2, "Adam": 1e-3}
BETAS, EPS = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Shape:
    """A network, its data and its optimizer. The loss is averaged over the batch, hidden layers are relu."""

    samples: int
    batch: int  # divides samples
    sizes: tuple[int, ...]
    optimizer: str = "SGD"
    dtype: str = "float32"
    output: str = "sigmoid"
    loss: str = "mse"
    precision: str | None = None  # what the operands of products are rounded to

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.samples // self.batch

    @property
    def flops(self) -> int:
        """Of one step: 2 a weight and row forward, 4 backward; no gradient goes into X."""
        pairs = list(itertools.pairwise(self.sizes))
        return self.batch * (sum(6 * a * b for a, b in pairs) - 2 * pairs[0][0] * pairs[0][1])

    @property
    def lr(self) -> float:
        return LEARNING_RATES[self.optimizer]

    def __str__(self) -> str:
        parts = [f"{self.batch} x {'-'.join(map(str, self.sizes))}"]
        parts += [self.optimizer] * (self.optimizer != "SGD") + [self.dtype] * (self.dtype != "float32")
        parts += [self.precision] if self.precision else []
        parts += [f"{self.output}, {self.loss}"] * ((self.output, self.loss) != ("sigmoid", "mse"))
        return ", ".join(parts)


# name on the command line, which is that of the module -> names of the packages that may have brought it
LIBRARIES = {
    "numpy": ("numpy",),
    "sklearn": ("scikit-learn",),
    "torch": ("torch",),
    "jax": ("jax",),
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
}
SHAPES = {
    "xor": Shape(4, 4, (2, 8, 1)),
    "tiny": Shape(1024, 32, (8, 16, 1)),
    "small": Shape(4096, 32, (32, 64, 1)),
    "tabular": Shape(8192, 128, (64, 128, 10)),
    "tabular-adam": Shape(8192, 128, (64, 128, 10), optimizer="Adam"),
    "tabular-f64": Shape(8192, 128, (64, 128, 10), dtype="float64"),
    "labels": Shape(8192, 128, (64, 128, 10), loss="binary_crossentropy"),
    "regression": Shape(8192, 64, (8, 64, 64, 1), output="identity"),
    "deep": Shape(6400, 64, (64, 128, 128, 128, 10)),
    "mnist-b32": Shape(4096, 32, (784, 128, 10)),
    "mnist": Shape(8192, 128, (784, 256, 10)),
    "mnist-big": Shape(8192, 256, (784, 1024, 10)),
    "mnist-big-bf16": Shape(8192, 256, (784, 1024, 10), precision="bfloat16"),
    "wide": Shape(8192, 1024, (1024, 2048, 128)),
    "wide-bf16": Shape(8192, 1024, (1024, 2048, 128), precision="bfloat16"),
}
QUICK = ("tiny", "labels", "mnist-b32")


@dataclass
class Problem:
    """A shape with its arrays. Whoever trains on it works on a copy of the parameters."""

    shape: Shape
    X: Array  # (samples, inputs)
    Y: Array  # (samples, outputs): in [0, 1), or 0 and 1 for binary cross-entropy
    weights: list[Array]  # of each layer (fan_in, fan_out)
    biases: list[Array]  # of each layer (fan_out,)

    @property
    def parameters(self) -> list[Array]:
        return [*self.weights, *self.biases]

    def copies(self) -> tuple[list[Array], list[Array]]:
        return [W.copy() for W in self.weights], [b.copy() for b in self.biases]

    def batches(self, convert: Any = lambda array: array) -> list[tuple[Any, Any]]:
        X, Y, n = convert(self.X), convert(self.Y), self.shape.batch
        return [(X[i : i + n], Y[i : i + n]) for i in range(0, self.shape.samples, n)]


Run = Callable[[int], None]  # trains for so many epochs
Made = tuple[Run, Callable[[], list[Array]]]  # and gives weights, then biases


def each(epoch: Callable[[], None]) -> Run:
    def run(epochs: int) -> None:
        for _ in range(epochs):
            epoch()

    return run


def problem_of(shape: Shape) -> Problem:
    rng = np.random.default_rng(0)
    sizes = shape.sizes
    X: Array = rng.standard_normal((shape.samples, sizes[0]))
    Y: Array = rng.random((shape.samples, sizes[-1]))
    if shape.loss == "binary_crossentropy":
        Y = np.round(Y)
    pairs = list(itertools.pairwise(sizes))
    weights = [np.sqrt(2 / a) * rng.standard_normal((a, b)) for a, b in pairs]
    biases = [0.01 * rng.standard_normal(b) for b in sizes[1:]]
    X, Y, *parameters = [array.astype(shape.dtype) for array in (X, Y, *weights, *biases)]
    return Problem(shape, X, Y, parameters[: len(pairs)], parameters[len(pairs) :])
