"""MLPRegressor: one quantity or several."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils.metaestimators import available_if

from fastbp.sklearn import parameters
from fastbp.sklearn.base import Network
from fastbp.sklearn.inputs import FLOATS, Data

Array = NDArray[Any]


class MLPRegressor(RegressorMixin, Network):
    """scikit-learn's MLPRegressor on fastbp's engine: the same training, and more that it can do.

    loss : "squared_error", "poisson" (exp output, y >= 0), "absolute_error", or a loss of fastbp's for
        quantities: "mse", "mae", "huber(0.5)", "pinball(0.9)".
    hidden_layer_sizes ... max_fun : as in scikit-learn, whose documentation is the reference for them and for
        all attributes; errors are a ValueError that is a TypeError as well. What differs on purpose is in
        fastbp/sklearn/README.md.
    activation, dropout, layer_norm, threads, callbacks, progress : as in `MLPClassifier`.

    Attributes
    ----------
    Those of scikit-learn's, and model_, the `fastbp.MLP` inside; see `MLPClassifier`.
    """

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        layer_norm: bool = False,
        threads: int | None = None,
        callbacks: Any = None,
        progress: bool = False,
    ) -> None:
        self._keep(locals())

    def _read(self, X: Any, y: Any, incremental: bool, goes_on: bool) -> tuple[Any, Any]:
        return self._checked(X, y, reset=not goes_on)

    def _read_more(self, X: Any, y: Any) -> tuple[Any, Any]:
        return self._checked(X, y, reset=False)

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        X, y = self._validated(X, y, reset=reset, multi_output=True, y_numeric=True, dtype=FLOATS)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _targets(self, y: Any) -> Array:
        matrix: Array = y if y.ndim == 2 else y[:, None]
        return matrix

    def _outputs(self, y: Any) -> int:
        return 1 if y.ndim == 1 else int(y.shape[1])

    def _output(self) -> parameters.Output:
        return parameters.output_of_regressor(type(self).__name__, self.loss)

    def _loss_divisor(self) -> int:
        # The mean over outputs, while gradients are those of the sum.
        return int(self.n_outputs_) if self.loss == "squared_error" else 1

    def _strata(self, data: Data) -> None:
        return None

    def _score(self, data: Data) -> float:
        """R2, or NaN where the network's outputs are not finite."""
        out = self.model_.predict(data.X, check_finite=False)
        if not np.isfinite(out).all():
            return float("nan")
        return float(r2_score(data.y, out, sample_weight=data.weights))

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """As `MLPClassifier.fit`, with y (samples,) or (samples, outputs)."""
        return self._fit(X, y, sample_weight, (X_val, y_val), incremental=False)

    @available_if(lambda self: self._has_partial_fit())
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """One more epoch, with the optimizer's state; arguments as in `fit`."""
        return self._fit(X, y, sample_weight, (None, None), incremental=True)

    def predict(self, X: Any) -> Array:
        """(samples,), or with several outputs (samples, outputs), for X (samples, features)."""
        y_pred = self._outputs_for(X)
        return y_pred.ravel() if y_pred.shape[1] == 1 else y_pred
