"""A network that users may look into."""

from __future__ import annotations

from numpy.typing import ArrayLike

from fastbp.inspection import diagnosis, gradient_check
from fastbp.network.network import Network


class Inspected(Network):
    """A network, and the questions that one asks it when training does not go well."""

    def check_gradients(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        max_entries: int | None = 200,
    ) -> gradient_check.GradientCheck:
        """Compare `backward` with central differences of the loss, in float64. The model is not changed.

        `max_entries` parameters of each array are looked at, spread evenly (None: all of them; each costs two
        forward passes). Returns the largest relative error of each array; see `GradientCheck`.
        """
        return gradient_check.check_gradients(self, X, Y, sample_weight, max_entries)

    def diagnose(self, X: ArrayLike, Y: ArrayLike) -> diagnosis.Diagnosis:
        """How signals and gradients do in each layer, for this data; print it, or see `Diagnosis`."""
        return diagnosis.diagnose(self, X, Y)
