"""An estimator as it was, for a call that fails: nothing is half fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Remembered:
    """The attributes of an estimator, and the numbers of its network and optimizer if training changes those.

    in_place : whether the network that the estimator has is trained on, and not one in its place.
    """

    def __init__(self, estimator: Any, in_place: bool) -> None:
        self._estimator = estimator
        self._attributes = dict(vars(estimator))
        for name, value in self._attributes.items():
            if isinstance(value, list):  # which training appends to, or puts arrays into
                self._attributes[name] = value
                setattr(estimator, name, list(value))
        model = vars(estimator).get("model_") if in_place else None
        self._model = model
        if model is None:
            return
        self._flat: Array = model.parameters.flat.copy()
        self._steps_trained = model.streams.steps_trained
        rates = vars(estimator).get("_optimizer")
        self._rates = dict(vars(rates)) if rates is not None else None
        self._state = rates.state(model) if rates is not None else None
        if self._state is not None:
            self._steps = self._state.steps
            self._buffers = [buffer.copy() for buffer in self._state.buffers]

    def restore(self) -> None:
        """Put everything back."""
        attributes = vars(self._estimator)
        attributes.clear()
        attributes.update(self._attributes)
        model = self._model
        if model is None:
            return
        model.parameters.replace(self._flat)
        model.streams.steps_trained = self._steps_trained
        if self._rates is not None:
            vars(attributes["_optimizer"]).update(self._rates)
        if self._state is not None:
            self._state.steps = self._steps
            for buffer, values in zip(self._state.buffers, self._buffers, strict=True):
                np.copyto(buffer, values)
