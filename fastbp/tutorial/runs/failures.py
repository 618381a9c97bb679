"""The ways to fail, each run twice: as it goes wrong, and cured. All on the digits, with real training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.data import split_digits
from fastbp.training.interrupt import or_interrupt

Array = NDArray[Any]

EPOCHS = 30
LOOKED_AT = 500  # rows on which activations and gradients are looked at
DEPTH = 8


@dataclass
class Outcome:
    """One training run."""

    loss: list[float]  # an epoch
    activations: Array  # of the layer that is looked at
    gradients: list[float]  # |dW| of each layer
    verdicts: list[str]  # of `diagnose`
    messages: list[str] = field(default_factory=list)  # warnings of `fit`
    accuracy: float | None = None  # of the rows looked at, where there are classes


@dataclass
class Failure:
    """`code`: what was done, wrong and right. The texts are in `texts`, under `failure.NAME`."""

    name: str
    wrong: Outcome
    right: Outcome
    code: tuple[str, str]
    at_start: bool = True  # activations and gradients are those before training rather than after
    log: bool = False  # the loss's axis


@dataclass(frozen=True)
class _Setting:
    """How to train; what is not said is as in the network that works."""

    sizes: tuple[int, ...] = (64, 32, 10)
    options: dict[str, Any] = field(default_factory=dict)
    lr: float = 0.5
    prepare: Callable[[Any], None] = lambda model: None
    X: Array | None = None
    Y: Array | None = None
    before: bool = False  # look at activations and gradients before training rather than after
    layer: int = 0  # whose activations are looked at


def run() -> list[Failure]:
    data = split_digits()
    X, Y = data.X_train, np.eye(10, dtype=np.float32)[data.y_train]
    ink = (16 * X).sum(axis=1, keepdims=True)  # how much ink a digit has: a quantity in the hundreds
    standard = (ink - ink.mean()) / ink.std()
    deep = (64, *[32] * DEPTH, 10)
    one = (64, 32, 1)

    def zero(model: Any) -> None:
        for W in model.weights:
            W[...] = 0

    def negative(model: Any) -> None:
        model.biases[0][...] = -3

    def outcome(setting: _Setting) -> Outcome:
        return _train(setting, X if setting.X is None else setting.X, Y if setting.Y is None else setting.Y)

    good = outcome(_Setting())
    good_before = outcome(_Setting(before=True))
    unscaled = outcome(_Setting(sizes=one, options={"output": "identity"}, lr=0.1, Y=ink))
    unscaled.messages = outcome(_Setting(sizes=one, Y=ink)).messages  # what one hears with a Sigmoid
    return [
        Failure(
            "zero",
            outcome(_Setting(prepare=zero, before=True)),
            good_before,
            ("for W in model.weights: W[...] = 0", 'MLP(..., init="auto")'),
        ),
        Failure("rate", outcome(_Setting(lr=20)), good, ("SGD(lr=20)", "SGD(lr=0.5)"), at_start=False),
        Failure(
            "dead",
            outcome(_Setting(prepare=negative, before=True)),
            good_before,
            ("model.biases[0][...] = -3", "model.biases[0][...] = 0"),
        ),
        Failure(
            "saturated",
            outcome(_Setting(options={"hidden": "sigmoid"}, X=255 * X, before=True)),
            outcome(_Setting(options={"hidden": "sigmoid"}, before=True)),
            ("model.fit(pixels, Y)          # 0 ... 255", "model.fit(pixels / 255, Y)    # 0 ... 1"),
        ),
        Failure(
            "vanishing",
            outcome(_Setting(sizes=deep, options={"hidden": "sigmoid"}, before=True)),
            outcome(_Setting(sizes=deep, before=True)),
            ('MLP([64, *[32] * 8, 10], hidden="sigmoid")', 'MLP([64, *[32] * 8, 10], hidden="relu")'),
        ),
        Failure(
            "unscaled",
            unscaled,
            outcome(_Setting(sizes=one, options={"output": "identity"}, lr=0.1, Y=standard)),
            ("model.fit(X, y)", "model.fit(X, (y - y.mean()) / y.std())"),
            at_start=False,
            log=True,
        ),
    ]


def _train(setting: _Setting, X: Array, Y: Array) -> Outcome:
    model = fastbp.MLP(setting.sizes, seed=0, **setting.options)
    setting.prepare(model)
    before = _look(model, X, Y, setting.layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = or_interrupt(
            model.fit(X, Y, epochs=EPOCHS, optimizer=fastbp.SGD(lr=setting.lr), progress=False)
        )
    result = before if setting.before else _look(model, X, Y, setting.layer)
    result.loss = [float(v) for v in history.loss]
    result.messages = [str(w.message) for w in caught]
    if Y.shape[1] > 1:
        predicted = model.predict(X[:LOOKED_AT]).argmax(axis=1)
        result.accuracy = float(np.mean(predicted == Y[:LOOKED_AT].argmax(axis=1)))
    return result


def _look(model: Any, X: Array, Y: Array, layer: int) -> Outcome:
    x, y = X[:LOOKED_AT], Y[:LOOKED_AT]
    diagnosis = model.diagnose(x, y)
    return Outcome(
        loss=[],
        activations=np.asarray(model.forward(x).a[layer]).ravel().copy(),
        gradients=[float(s.gradient_norm) for s in diagnosis.layers],
        verdicts=list(diagnosis.verdicts),
    )


# ---- a missing derivative: NumPy written by hand --------------------------------------------------------


@dataclass
class MissingDerivative:
    """The same loop with `* (z1 > 0)` and without it: losses, gradients, and what `check_backward` says."""

    wrong: list[float]
    right: list[float]
    angle: float  # between the wrong and the right gradient of W1, degrees
    said: str
    wrong_gradients: list[float]
    right_gradients: list[float]
    wrong_error: Array  # of the hidden layer, dz1
    right_error: Array


def backward_without_derivative(
    X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array
) -> tuple[Array, Array, Array, Array]:
    """`fastbp.reference`'s backward but for one factor."""
    dz2 = (y_pred - y_true) * y_pred * (1 - y_pred)
    dz1 = dz2 @ W2.T  # * (z1 > 0) is missing
    return X.T @ dz1, dz1.sum(axis=0), a1.T @ dz2, dz2.sum(axis=0)


def missing_derivative() -> MissingDerivative:
    data = split_digits()
    X, Y = data.X_train.astype(np.float64), np.eye(10)[data.y_train]
    reference, mistaken = fastbp.reference, backward_without_derivative
    start = _start()
    losses = [_by_hand(X, Y, function) for function in (mistaken, reference.backward)]
    z1, a1, _, y_pred = reference.forward(X, *start)
    wrong, right = (f(X, Y, z1, a1, y_pred, start[2]) for f in (mistaken, reference.backward))
    error = ((y_pred - Y) * y_pred * (1 - y_pred)) @ start[2].T
    u, v = np.ravel(wrong[0]), np.ravel(right[0])
    cosine = float(u @ v / np.sqrt((u @ u) * (v @ v)))
    said = str(fastbp.check_backward(reference.forward, mistaken, X[:20], Y[:20], start))
    sizes = [[float(np.linalg.norm(g[i]) / len(X)) for i in (0, 2)] for g in (wrong, right)]
    return MissingDerivative(
        wrong=losses[0],
        right=losses[1],
        angle=float(np.degrees(np.arccos(cosine))),
        said=said,
        wrong_gradients=sizes[0],
        right_gradients=sizes[1],
        wrong_error=error,
        right_error=error * (z1 > 0),
    )


def _start() -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(0)
    W1, W2 = rng.standard_normal((64, 32)) * np.sqrt(2 / 64), rng.standard_normal((32, 10)) * np.sqrt(2 / 32)
    return W1, np.zeros(32), W2, np.zeros(10)


def _by_hand(X: Array, Y: Array, backward: Callable[..., Sequence[Array]]) -> list[float]:
    """The mean loss of each epoch of plain gradient descent in batches of 32."""
    params, batch = _start(), 32
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for begin in range(0, len(X), batch):
            x, y = X[begin : begin + batch], Y[begin : begin + batch]
            z1, a1, _, y_pred = fastbp.forward(x, *params)
            total += 0.5 * float(np.sum((y_pred - y) ** 2))
            grads = backward(x, y, z1, a1, y_pred, params[2])
            fastbp.sgd_update(params, grads, 0.5 / batch)
        losses.append(total / len(X))
    return losses


# ---- mistakes that the functions name -------------------------------------------------------------------


def refused() -> list[tuple[str, str]]:
    """(what was called, what the function says) for dimensions that do not line up."""
    X, W1, b1, W2, b2 = np.ones((5, 4)), np.ones((4, 8)), np.zeros(8), np.ones((8, 1)), np.zeros(1)
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("forward(X, W1.T, b1, W2, b2)", lambda: fastbp.forward(X, W1.T, b1, W2, b2)),
        ("forward(X, W1, b1.reshape(1, 8), W2, b2)", lambda: fastbp.forward(X, W1, b1[None], W2, b2)),
        (
            "sgd_update((W1, b1), (dW1, dz1), lr=0.1)",
            lambda: fastbp.sgd_update((W1, b1), (W1, np.ones((5, 8))), lr=0.1),
        ),
        (
            "train_step(X, labels, W1, b1, W2, b2, lr=0.1)",
            lambda: fastbp.train_step(X, np.ones(5), W1, b1, W2, b2, lr=0.1),
        ),
    ]
    said = []
    for code, call in calls:
        try:
            call()
        except (ValueError, TypeError) as error:
            said.append((code, f"{type(error).__name__}: {error}"))

    def not_summed(
        X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array
    ) -> tuple[Array, Array, Array, Array]:
        dz2 = (y_pred - y_true) * y_pred * (1 - y_pred)
        dz1 = (dz2 @ W2.T) * (z1 > 0)
        return X.T @ dz1, dz1, a1.T @ dz2, dz2

    check = fastbp.check_backward(fastbp.forward, not_summed, X, np.ones((5, 1)), (W1, b1, W2, b2))
    code = "db1, db2 = dz1, dz2; check_backward(forward, backward, X, y_true, (W1, b1, W2, b2))"
    lines = [f"{array.name}: {mistake}" for array in check.arrays for mistake in array.mistakes]
    return [*said, (code, "\n".join(lines))]
