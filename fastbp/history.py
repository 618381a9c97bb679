"""What `MLP.fit` returns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class History:
    """The course of a training run.

    `loss` and `val_loss` are float64 arrays with one value an epoch (`val_loss` is empty without validation
    data). The loss of an epoch is made of its batches' losses, each before that batch's update: their mean
    over all samples with reduction="mean", their sum with "sum". `val_loss` is the loss on the validation
    data after the epoch. `seconds` is the time that `fit` took, `interrupted` whether Ctrl-C ended it.
    """

    def __init__(self) -> None:
        self._loss: list[float] = []
        self._val_loss: list[float] = []
        self.seconds = 0.0
        self.interrupted = False

    @property
    def loss(self) -> NDArray[np.float64]:
        """(epochs,)."""
        return np.array(self._loss, np.float64)

    @property
    def val_loss(self) -> NDArray[np.float64]:
        """(epochs,), or (0,) without validation data."""
        return np.array(self._val_loss, np.float64)

    @property
    def epochs(self) -> int:
        """The number of epochs that were finished."""
        return len(self._loss)

    def __repr__(self) -> str:
        text = f"History(epochs={self.epochs}"
        if self._loss:
            text += f", loss={self._loss[-1]:.6g}"
        if self._val_loss:
            text += f", val_loss={self._val_loss[-1]:.6g}"
        return text + f", seconds={self.seconds:.3g}" + (", interrupted" if self.interrupted else "") + ")"
