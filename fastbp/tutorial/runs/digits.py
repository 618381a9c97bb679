"""The digits that ship with fastbp: a 64-32-10 network, its curve, its weights, its mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastbp
from fastbp.data import split_digits
from fastbp.training.interrupt import or_interrupt

Array = NDArray[Any]

LAYERS = (64, 32, 10)
EPOCHS = 60


@dataclass(frozen=True)
class Digits:
    rows: int  # trained on
    tested: int
    loss: list[float]  # an epoch
    val_loss: list[float]
    seconds: float
    accuracy: float  # of the rows that were not trained on
    weights: Array  # (32, 8, 8): each hidden unit's incoming weights as a picture
    outgoing: Array  # (32, 10)
    mistakes: list[tuple[Array, int, int, float]]  # (8, 8) pixels, true digit, predicted digit, its share
    confusion: Array  # (10, 10): true digit down, predicted across


def run() -> Digits:
    data = split_digits()
    model = fastbp.MLP(LAYERS, output="softmax", loss="categorical_crossentropy", seed=0)
    history = or_interrupt(
        model.fit(
            data.X_train,
            data.y_train,
            epochs=EPOCHS,
            optimizer=fastbp.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
            validation_data=(data.X_test, data.y_test),
            progress=False,
        )
    )
    scores = model.predict(data.X_test)
    predicted = scores.argmax(axis=1)
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (data.y_test, predicted), 1)
    wrong = np.flatnonzero(predicted != data.y_test)
    return Digits(
        rows=len(data.X_train),
        tested=len(data.X_test),
        loss=[float(v) for v in history.loss],
        val_loss=[float(v) for v in history.val_loss],
        seconds=float(np.sum(history.seconds)),
        accuracy=float(np.mean(predicted == data.y_test)),
        weights=model.weights[0].T.reshape(-1, 8, 8).copy(),
        outgoing=model.weights[1].copy(),
        mistakes=[
            (
                data.X_test[i].reshape(8, 8),
                int(data.y_test[i]),
                int(predicted[i]),
                float(scores[i].max()),
            )
            for i in wrong[:12]
        ],
        confusion=confusion,
    )
