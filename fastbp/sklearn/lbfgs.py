"""lbfgs: SciPy's minimizer on the loss and gradient of all samples, which compiled code computes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

import fastbp
from fastbp.inputs.samples import Samples
from fastbp.network.evaluation import sample_losses
from fastbp.sklearn import initial
from fastbp.sklearn.attributes import Attributes
from fastbp.sklearn.inputs import Data

Array = NDArray[Any]


class Lbfgs(Attributes):
    """What an estimator does with solver "lbfgs"; a part of `base.Network`."""

    def _fit_lbfgs(self, data: Data) -> None:
        sums = self._sums()
        samples = sums.reader.samples(data.X, data.y, data.weights, False)

        def loss_and_gradient(flat: Array) -> tuple[float, Array]:
            sums.parameters.replace(flat)
            return self._loss_and_gradient(sums, samples)

        result = scipy.optimize.minimize(
            loss_and_gradient,
            self.model_.parameters.flat.copy(),
            method="L-BFGS-B",
            jac=True,
            options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
        )
        self.model_.parameters.replace(result.x)
        self.n_iter_, self.loss_ = min(int(result.nit), self.max_iter), float(result.fun)
        if self.verbose:
            print(f"L-BFGS-B: {self.n_iter_} iterations, {result.nfev} losses, loss = {self.loss_:.8f}")
        if result.status:
            warnings.warn(
                f"lbfgs failed to converge after {self.n_iter_} iteration(s) (status={result.status}):\n"
                f"{result.message}\n\nIncrease the number of iterations (max_iter) or losses (max_fun), or "
                "scale the data: https://scikit-learn.org/stable/modules/preprocessing.html",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _sums(self) -> fastbp.MLP:
        """A network like the estimator's whose losses and gradients are sums, without a penalty."""
        options = self._options._replace(reduction="sum", l2=0.0)
        return initial.network(options, self.model_.weights, self.model_.biases)

    def _loss_and_gradient(self, sums: fastbp.MLP, samples: Samples) -> tuple[float, Array]:
        """The loss of all samples, and its gradient laid out like the network's parameters.

        Blocks of rows are added up, so that no more activations than those of a block are in memory.
        """
        architecture, parameters = sums.architecture, sums.parameters
        total, gradient = 0.0, np.zeros(len(parameters))
        for rows in architecture.row_blocks(len(samples)):
            trace, Y = sums.backend.forward(samples.X[rows]), samples.Y[rows]
            total += float(sample_losses(architecture, trace, Y).sum())
            gradient += sums.backend.backward(trace, Y)
        for of_weights, W in zip(parameters.split(gradient)[0], parameters.weights, strict=True):
            of_weights += self.alpha * W
        weights = samples.stored_weights
        weight = len(samples) if weights is None else float(weights.sum())
        squares = sum(float(np.vdot(W, W)) for W in parameters.weights)
        loss = total / self._loss_divisor() + 0.5 * self.alpha * squares
        return loss / weight, gradient / weight

    def _loss_grad_lbfgs(self, packed: Array, X: Any, y: Array, sample_weight: Any, *buffers: Any) -> Any:
        """The loss, and its gradient packed as all weights, then all biases: as scikit-learn's method of this
        name, whose further arguments are buffers."""
        sums = self._sums()
        arrays = [*sums.weights, *sums.biases]
        ends = np.cumsum([array.size for array in arrays])[:-1]
        for array, part in zip(arrays, np.split(packed, ends), strict=True):
            array[...] = part.reshape(array.shape)
        sums.parameters.changed()
        loss, gradient = self._loss_and_gradient(sums, sums.reader.samples(X, y, sample_weight, False))
        weights, biases, _ = sums.parameters.split(gradient)
        return loss, np.concatenate([array.ravel() for array in (*weights, *biases)])
