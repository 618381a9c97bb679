"""What judges the model after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import metrics
from fastbp.inputs.samples import Samples
from fastbp.inputs.sources import Labels
from fastbp.metrics import Metric
from fastbp.network.evaluation import evaluate
from fastbp.network.network import Network

Array = NDArray[Any]


@dataclass
class Validation:
    """Data that are not trained on, and what is computed on them besides the loss."""

    samples: Samples
    metrics: Sequence[Metric] = ()

    def __post_init__(self) -> None:
        self.samples = self.samples.own_views()
        self._files = self.samples.mapped_files("validation_data[0]", "validation_data[1]")

    @property
    def names(self) -> tuple[str, ...]:
        """What `evaluate` returns, in that order."""
        return ("loss", *(metric.name for metric in self.metrics))

    def evaluate(self, model: Network) -> dict[str, float]:
        """The loss, and each metric by its name."""
        for file in self._files:
            file.require_whole()
        if not self.metrics:
            return {"loss": evaluate(model.backend, self.samples)}
        y_pred = np.empty((len(self.samples), model.architecture.outputs), model.architecture.dtype)
        loss = evaluate(model.backend, self.samples, y_pred)
        values = {"loss": loss}
        step = 2 if model.architecture.loss.of_pairs else 1  # metrics look at means, not at spreads
        for metric in self.metrics:
            values |= metrics.evaluate([metric], self._targets_for(metric)[..., ::step], y_pred[:, ::step])
        return values

    def _targets_for(self, metric: Metric) -> Array:
        """Labels where the metric takes them; a function of the caller's sees a row for each."""
        targets = self.samples.targets
        return targets.labels if isinstance(targets, Labels) and metric.of_classes else targets[:]

    def compile(self, model: Network) -> None:
        """Have what `evaluate` needs compiled, so that the first epoch's time is that of training."""
        evaluate(model.backend, self.samples.head())
