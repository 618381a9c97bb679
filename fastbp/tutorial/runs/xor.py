"""The exclusive or with a 2-3-1 network: every array of one step, and what training makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp.reference
from fastbp.tutorial.source_lines import SourceLine, lines_of

Array = NDArray[Any]

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y_TRUE = np.array([[0.0], [1.0], [1.0], [0.0]])
# Round numbers, such that each hidden unit is on for some rows and off for another, and training succeeds.
W1 = np.array([[1.1, -0.8, 1.2], [0.6, 0.6, -0.7]])
B1 = np.array([-0.3, 0.3, 0.1])
W2 = np.array([[1.0], [1.7], [0.7]])
B2 = np.array([-0.1])
LEARNING_RATE = 0.5
STEPS = 1000
PLANE = 36  # points of the plane at which the network is asked, in each direction

FORWARD = ("z1", "a1", "z2", "y_pred")
BACKWARD = ("dz2", "dW2", "db2", "dz1", "dW1", "db1")


@dataclass(frozen=True)
class Xor:
    """`names`: X, y_true, the parameters before the update, and what every line of a step assigned."""

    names: dict[str, Any]
    lines: dict[str, SourceLine]  # by what they assign; "loss" and "param" for the other two
    updated: dict[str, Array]  # the parameters after one step
    loss_after: float
    losses: list[float]  # of STEPS steps, before each update
    trained: dict[str, Array]
    predictions: Array  # (4,) after training
    plane_before: Array  # (PLANE, PLANE) y_pred over [-0.5, 1.5]², the second input upwards
    plane_after: Array
    numeric: float  # the central difference of the loss for W1[1, 0]

    @property
    def loss(self) -> float:
        return float(self.names["loss"])


def _parameters() -> tuple[Array, Array, Array, Array]:
    return W1.copy(), B1.copy(), W2.copy(), B2.copy()


def run() -> Xor:
    lines = {**lines_of("_forward"), **lines_of("_backward")}
    lines["loss"] = lines_of("_half_squared_error")["return"]
    lines["param"] = lines_of("_sgd_update")["param"]
    names: dict[str, Any] = {"X": X, "y_true": Y_TRUE}
    names |= dict(zip(("W1", "b1", "W2", "b2"), _parameters(), strict=True))
    for name in FORWARD:
        lines[name].run(names)
    lines["loss"].run(names)
    names["loss"] = names.pop("result")
    for name in BACKWARD:
        lines[name].run(names)

    updated = {}
    for name in ("W1", "b1", "W2", "b2"):
        here = {"param": names[name].copy(), "grad": names["d" + name], "lr": LEARNING_RATE}
        lines["param"].run(here)
        updated[name] = here["param"]

    params = _parameters()
    losses = [fastbp.reference.train_step(X, Y_TRUE, *params, lr=LEARNING_RATE) for _ in range(STEPS)]
    return Xor(
        names=names,
        lines=lines,
        updated=updated,
        loss_after=_loss(tuple(updated.values())),
        losses=losses,
        trained=dict(zip(("W1", "b1", "W2", "b2"), params, strict=True)),
        predictions=fastbp.reference.forward(X, *params)[-1][:, 0],
        plane_before=_plane(_parameters()),
        plane_after=_plane(params),
        numeric=_numeric(),
    )


def _loss(params: tuple[Array, ...]) -> float:
    y_pred = fastbp.reference.forward(X, *params)[-1]
    return float(0.5 * np.sum((y_pred - Y_TRUE) ** 2))


def _numeric() -> float:
    """(E(w + h) - E(w - h)) / 2h for w = W1[1, 0]."""
    h, losses = 1e-6, []
    for sign in (1, -1):
        params = _parameters()
        params[0][1, 0] += sign * h
        losses.append(_loss(params))
    return (losses[0] - losses[1]) / (2 * h)


def _plane(params: tuple[Array, ...]) -> Array:
    axis = np.linspace(-0.5, 1.5, PLANE)
    points = np.array([[x, y] for y in axis[::-1] for x in axis])
    return fastbp.reference.forward(points, *params)[-1].reshape(PLANE, PLANE)
