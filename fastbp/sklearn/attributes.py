"""What estimators have: the constructor's arguments, and what fitting adds to them."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

import fastbp
from fastbp.sklearn.epochs import Rates
from fastbp.sklearn.initial import Draws, Options
from fastbp.sklearn.inputs import Data

Array = NDArray[Any]

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
    "preprocessed."
)


class Attributes:
    """Names and types, and what solvers ask of the estimator that they are a part of."""

    # The constructor's arguments.
    loss: str | None
    hidden_layer_sizes: Any
    activation: Any
    solver: str
    alpha: float
    batch_size: Any
    learning_rate: str
    learning_rate_init: float
    power_t: float
    max_iter: int
    shuffle: bool
    random_state: Any
    tol: float
    verbose: Any
    warm_start: bool
    momentum: float
    nesterovs_momentum: bool
    early_stopping: bool
    validation_fraction: float
    beta_1: float
    beta_2: float
    epsilon: float
    n_iter_no_change: Any
    max_fun: int
    dropout: Any
    layer_norm: bool
    threads: int | None
    callbacks: Any
    progress: bool

    # What fitting adds, which users see, and beside it what only training looks at.
    model_: fastbp.MLP
    coefs_: list[Array]
    intercepts_: list[Array]
    out_activation_: str
    n_layers_: int
    n_outputs_: int
    n_iter_: int
    t_: int
    loss_: float
    best_loss_: Any  # float, or None with early stopping
    loss_curve_: list[float]
    validation_scores_: Any  # list of float, or None where nothing is held out
    best_validation_score_: Any  # likewise
    _no_improvement_count: int
    _best_flat: Array
    _optimizer: Rates
    _options: Options
    _draws: Draws

    def _score(self, data: Data) -> float:
        """How good the network is on these samples; NaN where its outputs are not finite."""
        raise NotImplementedError

    def _strata(self, data: Data) -> Array | None:
        """What a share of the samples that is held out shall have the same shares of; None: nothing."""
        raise NotImplementedError

    def _loss_divisor(self) -> int:
        """What the network's loss, without the penalty, is divided by to be what scikit-learn reports."""
        return 1

    def _require_finite(self) -> None:
        if not self.model_.parameters.are_finite():
            raise ValueError(NOT_FINITE)
