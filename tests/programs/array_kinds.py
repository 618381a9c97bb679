"""What each entry makes of arrays of every kind, after it was called with arrays of some kinds first.

    python array_kinds.py KIND [KIND ...]

prints a line for each entry, argument and kind: the digest of the result, or the error. What has been called
before must not change a line, so the lines are the same whatever the KINDs.
"""

import contextlib
import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

import fastbp

ROWS, INPUTS, HIDDEN, OUTPUTS = 5, 3, 4, 2
DTYPE = np.dtype(np.float32)
_folder = tempfile.TemporaryDirectory()


def misaligned(x: np.ndarray) -> np.ndarray:
    result = np.ndarray(x.shape, x.dtype, np.zeros(x.nbytes + 1, np.uint8).data, 1)
    result[...] = x
    return result


def read_only(x: np.ndarray) -> np.ndarray:
    result = x.copy()
    result.flags.writeable = False
    return result


def strided(x: np.ndarray) -> np.ndarray:
    result = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    result[...] = x
    return result


def memmap(x: np.ndarray) -> np.ndarray:
    path = Path(_folder.name, f"{len(list(Path(_folder.name).iterdir()))}.bin")
    result = np.memmap(path, x.dtype, "w+", shape=x.shape)
    result[...] = x
    return result


class Subclass(np.ndarray):
    pass


KINDS: dict[str, Callable[[np.ndarray], Any]] = {
    "ordinary": np.copy,
    "misaligned": misaligned,
    "other-byte-order": lambda x: x.astype(x.dtype.newbyteorder("S")),
    "misaligned-in-other-byte-order": lambda x: misaligned(x.astype(x.dtype.newbyteorder("S"))),
    "columns-first": np.asfortranarray,
    "read-only": read_only,
    "strided": strided,
    "matrix": np.matrix,
    "masked": lambda x: np.ma.array(x, mask=np.zeros(x.shape, bool)),
    "memmap": memmap,
    "subclass": lambda x: x.copy().view(Subclass),
    "no-dimensions": lambda x: np.array(x.flat[0]),
    "half-precision": lambda x: x.astype(np.float16),
    "integers": lambda x: x.astype(np.int64),
}


def forward(X: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> list[Any]:
    return [*fastbp.forward(X, W1, b1, W2, b2)]


def train_step(X: Any, y_true: Any, W1: Any, b1: Any, W2: Any, b2: Any) -> list[Any]:
    return [fastbp.train_step(X, y_true, W1, b1, W2, b2, 0.5), W1, b1, W2, b2]


def backward(X: Any, y_true: Any, z1: Any, a1: Any, y_pred: Any, W2: Any) -> list[Any]:
    return [*fastbp.backward(X, y_true, z1, a1, y_pred, W2)]


def sgd_update(param: Any, grad: Any) -> list[Any]:
    fastbp.sgd_update([param], [grad], 0.5)
    return [param]


def _model() -> fastbp.MLP:
    return fastbp.MLP([INPUTS, HIDDEN, OUTPUTS], seed=1)


def predict(X: Any) -> list[Any]:
    return [_model().predict(X)]


def gradients(X: Any, y_true: Any) -> list[Any]:
    model = _model()
    found = model.backward(model.forward(X), y_true)
    return [*found.weights, *found.biases]


def fit(X: Any, y_true: Any, X_validation: Any, y_validation: Any) -> list[Any]:
    model = _model()
    history = model.fit(
        X,
        y_true,
        epochs=2,
        batch_size=2,
        optimizer=fastbp.Adam(0.1),
        validation_data=(X_validation, y_validation),
        progress=False,
    )
    return [history.loss, history.val_loss, *model.weights, *model.biases]


def classify(labels: Any, sample_weight: Any) -> list[Any]:
    model = fastbp.MLP(
        [INPUTS, HIDDEN, OUTPUTS], output="softmax", loss="categorical_crossentropy", dropout=0.5, seed=1
    )
    X = np.random.default_rng(1).random((ROWS, INPUTS), np.float32)
    options = {"epochs": 2, "batch_size": 2, "optimizer": fastbp.SGD(0.5), "progress": False}
    model.fit(X, labels, sample_weight=sample_weight, **options)
    return [*model.weights, *model.biases]


def step(X: Any, y_true: Any) -> list[Any]:
    model = _model()
    return [model.train_step(X, y_true, fastbp.SGD(0.5)), *model.weights, *model.biases]


def arguments() -> dict[Callable[..., list[Any]], dict[str, np.ndarray]]:
    """For each entry its arguments by name: whole numbers, which every kind can hold."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape).astype(DTYPE)

    X, y_true = numbers(ROWS, INPUTS), rng.integers(0, 2, (ROWS, OUTPUTS)).astype(DTYPE)
    parameters = {
        "W1": numbers(INPUTS, HIDDEN),
        "b1": numbers(HIDDEN),
        "W2": numbers(HIDDEN, OUTPUTS),
        "b2": numbers(OUTPUTS),
    }
    z1 = numbers(ROWS, HIDDEN)
    y_pred = rng.integers(0, 2, (ROWS, OUTPUTS)).astype(DTYPE)
    return {
        forward: {"X": X, **parameters},
        backward: {
            "X": X,
            "y_true": y_true,
            "z1": z1,
            "a1": np.maximum(z1, 0),
            "y_pred": y_pred,
            "W2": parameters["W2"],
        },
        train_step: {"X": X, "y_true": y_true, **parameters},
        sgd_update: {"param": parameters["W1"], "grad": numbers(INPUTS, HIDDEN)},
        predict: {"X": X},
        gradients: {"X": X, "y_true": y_true},
        step: {"X": X, "y_true": y_true},
        classify: {
            "labels": rng.integers(0, OUTPUTS, ROWS),
            "sample_weight": rng.integers(1, 4, ROWS).astype(DTYPE),
        },
        fit: {"X": X, "y_true": y_true, "X_validation": X[:2], "y_validation": y_true[:2]},
    }


def outcome(entry: Callable[..., list[Any]], given: dict[str, np.ndarray], name: str, kind: str) -> str:
    """What becomes of the entry's results with the argument `name` of this kind."""
    values = {k: KINDS[kind](v.copy()) if k == name else v.copy() for k, v in given.items()}
    try:
        results = entry(**values)
    except (TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]
    numbers = [np.asarray(result, np.float64).round(5) + 0.0 for result in results]
    return hashlib.sha256(b"".join(n.tobytes() for n in numbers)).hexdigest()[:12]


def main(*first: str) -> None:
    known = numba.njit(lambda x: x.size)  # somebody else's function
    for kind in first:
        for entry, given in arguments().items():
            for name in given:
                outcome(entry, given, name, kind)
                with contextlib.suppress(NotImplementedError, numba.errors.NumbaError):
                    known(KINDS[kind](given[name].copy()))
    for entry, given in arguments().items():
        for name in given:
            for kind in KINDS:
                print(f"{entry.__name__}\t{name}\t{kind}\t{outcome(entry, given, name, kind)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
