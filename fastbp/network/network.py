"""A model's parts, kept together: training, files and inspection work on it, `MLP` is its interface."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from fastbp.inputs.reader import Reader
from fastbp.network.architecture import Architecture
from fastbp.network.backend import Backend
from fastbp.network.parameters import Parameters
from fastbp.network.streams import Streams

Array = NDArray[Any]


# What a constructor is told: set later, it would be set for nothing.
_FIXED = frozenset(inspect.signature(Architecture).parameters)
# What a network is made of: each part holds others, and one put in its place would not be theirs.
_PARTS = frozenset(("architecture", "parameters", "streams", "backend", "reader"))


class Network:
    """An architecture, its parameters and random streams, and what computes with them.

    The parts are one another's: the backend computes with these parameters, the reader converts data for this
    architecture. `metadata` is the user's.
    """

    backend_type: ClassVar[type[Backend]]

    def _set_up(self, architecture: Architecture) -> None:
        """Make all parts of a new network."""
        self._make_parts(architecture)
        self.reset()

    @classmethod
    def with_parameters(
        cls, architecture: Architecture, weights: Sequence[Array], biases: Sequence[Array]
    ) -> Self:
        """A new network with copies of these weights and biases, and gains of 1: none are drawn in vain.
        ValueError or TypeError for what does not fit."""
        network = cls.__new__(cls)
        network._make_parts(architecture)
        network.streams.restart()
        for gains in network.gains:
            gains[...] = 1
        network.parameters.put(weights, biases)
        return network

    def _make_parts(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.metadata: dict[str, Any] = {}
        self.streams = Streams(architecture.seed)
        self.parameters = Parameters(architecture, self.backend_type.slack)
        self._connect()

    def _connect(self) -> None:
        """Make what works on the other parts, for a new network or one restored from a pickle."""
        a = self.architecture
        self.backend = self.backend_type(a, self.parameters, self.streams)
        self.reader = Reader(a.inputs, a.outputs, a.dtype, a.loss, a.scaling, self.backend.is_finite)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _FIXED:
            raise AttributeError(f"{name} is fixed when a model is made: MLP(..., {name}=...)")
        if name in _PARTS and name in vars(self):
            raise AttributeError(f"{name} is a part of the model and cannot be replaced: make another model")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        kept = ("architecture", "parameters", "streams", "metadata", "feature_names")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        feature_names = state.pop("feature_names", None)
        vars(self).update(state)
        self._connect()
        self.reader.feature_names = feature_names

    def __copy__(self) -> Self:
        """As a deep copy: two models that share an array or a generator would disturb each other."""
        return copy.deepcopy(self)

    def converted(self, dtype: str) -> Self:
        """A network of this dtype with the same parameters, whose products are rounded to nothing else."""
        twin = type(self).__new__(type(self))
        given = self.architecture
        options = {**given.to_json(), "dtype": dtype, "precision": None}
        twin._set_up(Architecture.from_json(options, given.threads))
        twin.parameters.replace(self.parameters.flat)
        twin.reader.feature_names = self.reader.feature_names
        return twin

    def reset(self) -> None:
        """Forget all training: new initial weights, biases 0, gains 1, batches from the beginning.

        With a seed, parameters and batches are those of a new model again; without one, others than before.
        Optimizers begin anew with this model, too. `fit` goes on from where the model is (scikit-learn's
        warm_start=True); after reset(), from the start (warm_start=False).
        """
        self.streams.restart()
        self.parameters.draw(self.architecture, self.streams.of_weights())
        self.reader.feature_names = None

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The columns of the table that was trained on, as later tables must have them; None without."""
        return self.reader.feature_names

    # ---- parameters -----------------------------------------------------------------------------------

    @property
    def weights(self) -> list[Array]:
        """(fan_in, fan_out) of each layer."""
        return self.parameters.weights

    @weights.setter
    def weights(self, arrays: list[Array]) -> None:
        self.parameters.weights[:] = arrays

    @property
    def biases(self) -> list[Array]:
        """(fan_out,) of each layer."""
        return self.parameters.biases

    @biases.setter
    def biases(self, arrays: list[Array]) -> None:
        self.parameters.biases[:] = arrays

    @property
    def gains(self) -> list[Array]:
        """(fan_out,) of each hidden layer with layer_norm, else none."""
        return self.parameters.gains

    @gains.setter
    def gains(self, arrays: list[Array]) -> None:
        self.parameters.gains[:] = arrays

    # ---- what was asked for ---------------------------------------------------------------------------

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The widths, inputs first."""
        return self.architecture.layer_sizes

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.architecture.dtype

    @property
    def precision(self) -> str | None:
        """What the operands of products are rounded to: "bfloat16", or None."""
        return self.architecture.precision

    @property
    def dropout(self) -> tuple[float, ...]:
        """The dropout of each hidden layer."""
        return self.architecture.dropout

    @property
    def input_noise(self) -> float:
        """The standard deviation of what training adds to the inputs."""
        return self.architecture.input_noise

    @property
    def layer_norm(self) -> bool:
        """Whether the hidden layers are normalised."""
        return self.architecture.layer_norm

    @property
    def n_parameters(self) -> int:
        """The number of weights, biases and gains."""
        return len(self.parameters)

    def __repr__(self) -> str:
        return repr(self.architecture)

    def summary(self) -> str:
        """A table of the layers with shapes and parameter counts."""
        return self.architecture.summary()
