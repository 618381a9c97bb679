"""What judges the model after each epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fastbp import metrics
from fastbp.inputs.samples import Samples
from fastbp.metrics import Metric
from fastbp.network.evaluation import evaluate
from fastbp.network.network import Network


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
        return {"loss": loss} | metrics.evaluate(self.metrics, self.samples.targets[:], y_pred)

    def compile(self, model: Network) -> None:
        """Have what `evaluate` needs compiled, so that the first epoch's time is that of training."""
        evaluate(model.backend, self.samples.head())
