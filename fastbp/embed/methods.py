"""What a model offers to other people's compiled code, as a part of the model in Python.

The same methods exist in functions that Numba compiles (`numba_types`), so that code runs there, and with
NUMBA_DISABLE_JIT=1, as it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks
from fastbp.embed.errors import SharedMemoryError
from fastbp.inputs import sources
from fastbp.inputs.sources import Rows
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer

if TYPE_CHECKING:
    from fastbp.embed.c_function import CFunction
    from fastbp.embed.numba_types import ModelType
    from fastbp.embed.training_state import TrainingState
    from fastbp.engine.entries.embedded import EmbeddedNetwork

Array = NDArray[Any]


class Embeddable(Network):
    """A network that predicts: for Python, and for compiled code that holds it."""

    _embedded: EmbeddedNetwork | None = None

    def predict(self, X: ArrayLike, *, check_finite: bool = True) -> Array:
        """The output (batch, outputs) for X (batch, inputs), as a new array. Errors as `forward`."""
        out = self.backend.predict_few_rows(X, check_finite)
        if out is not None:
            return out
        self.parameters.adopt()
        x = self.reader.input_rows(X, check_finite)
        if not isinstance(x, Rows):
            return self.backend.predict(x)
        out = np.empty((len(x), self.architecture.outputs), self.architecture.dtype)
        for rows in sources.row_blocks(x):
            out[rows] = self.backend.predict(x[rows])
        return out

    def predict_into(self, X: ArrayLike, out: Array, *, check_finite: bool = True) -> None:
        """`predict` into an array that there is already: `out` (batch, outputs), C-ordered, of the model's
        dtype.

        ValueError (shape, shared memory with X or the parameters) or TypeError, and as `predict`; then `out`
        stays as it was.
        """
        dtype = self.architecture.dtype
        if not isinstance(out, np.ndarray) or out.dtype != dtype:
            raise TypeError(f"out is {checks.shown(out)}, expected an array of dtype {dtype}")
        checks.require_updatable("out", out)
        if not out.flags.c_contiguous:
            raise ValueError("out is not C-ordered: its rows must lie one after another")
        for name, other in (("X", X), ("the model's parameters", self.parameters.flat)):
            if isinstance(other, np.ndarray) and np.may_share_memory(out, other):
                raise SharedMemoryError("out", name)
        y_pred = self.predict(X, check_finite=check_finite)
        if out.shape != y_pred.shape:
            raise ValueError(f"out has shape {out.shape}, expected {y_pred.shape}")
        out[...] = y_pred

    # ---- compiled code --------------------------------------------------------------------------------

    def embedded(self) -> EmbeddedNetwork:
        """What compiled code reads of this model, made when it is first wanted; parameters that were put in
        the place of others are taken over now."""
        self.parameters.adopt()
        if self._embedded is None:
            from fastbp.embed import handle  # which few processes need

            self._embedded = handle.make(self)
        return self._embedded

    def training_state(
        self, optimizer: Optimizer, *, batch_size: int = 256, steps: int = 10_000
    ) -> TrainingState:
        """What `train_step(X, Y, state)` takes instead of the optimizer in compiled code.

        batch_size : rows of a step, at most. steps : so many steps can be done in one call of compiled code,
        for which the optimizer's numbers are computed beforehand (any number, where they stay the same: SGD,
        RMSprop and Adagrad with a constant rate). It has no numbers of its own: `fit` goes on with the
        parameters, the moments and the count of steps, and the state with what `fit` has left.

        TypeError or ValueError for what cannot be trained, and for a model of `fastbp.reference`.
        """
        from fastbp.embed.training_state import TrainingState  # which few processes need

        return TrainingState(self, self._embedded_at_, optimizer, batch_size, steps)

    def c_function(self) -> CFunction:
        """`predict` as a C function, with what C needs for it: address, user_data, ctypes, header.

        It reads the parameters that the model has at each call; arrays that are put in the place of others
        (`model.weights[0] = W`) are seen once the model is next used from Python.
        """
        from fastbp.embed import c_function  # which few processes need

        return c_function.c_function(self, self._embedded_at_)

    def low_level_callable(self) -> Any:
        """The model as a `scipy.LowLevelCallable`, double (int n, double *x, void *user_data): an integrand
        for scipy.integrate.quad, nquad and the like, of as many variables as the model has inputs.

        float32 models take and return rounded numbers. The integrand is NaN if there are more or fewer
        variables. ValueError if the model has several outputs, ImportError without SciPy.
        """
        from fastbp.embed import c_function

        return c_function.low_level_callable(self, self._embedded_at_)

    @property
    def _embedded_at_(self) -> int:
        """The address of that, which compiled code asks for whenever it is given the model."""
        return self.embedded().address

    @cached_property
    def _numba_type_(self) -> ModelType:
        """The model's type in functions that Numba compiles, which asks for this attribute in each call."""
        from fastbp.embed.numba_types import type_of  # Numba's compiler comes with it

        return type_of(self)
