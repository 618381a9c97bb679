"""The rows that a network is trained on or judged by, once they are checked and converted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.inputs import sources, targets
from fastbp.inputs.sources import Labels, MappedFile, Rows
from fastbp.losses import Loss

Array = NDArray[Any]
ClassWeight = str | Mapping[int, float] | ArrayLike


@dataclass(slots=True)
class Samples:
    """Inputs and targets as the steps of a training take them; made by `Reader`, and not looked at again.

    X is (samples, inputs), as the network sees it. Y is (samples, outputs); where samples are weighted, their
    weights stand in one more column, so that whatever picks or shuffles rows takes the weight along. Both
    are C-ordered arrays of the network's dtype, which may be read-only, or `Rows` to be converted to that.
    """

    X: Array | Rows
    Y: Array | Rows
    outputs: int
    feature_names: tuple[str, ...] | None = None  # the columns', where X was a table with such names

    def __len__(self) -> int:
        return len(self.X)

    @property
    def weighted(self) -> bool:
        """Whether weights stand behind the targets."""
        return self.Y.shape[1] > self.outputs

    @property
    def stored_weights(self) -> Array | None:
        """(samples,) the weights, None without."""
        if isinstance(self.Y, Labels):
            return self.Y.weights
        return split_weights(self.Y, self.outputs)[1] if isinstance(self.Y, np.ndarray) else None

    @property
    def has_weights_of_zero(self) -> bool:
        """Whether some of the samples count for nothing."""
        weights = self.stored_weights
        return weights is not None and not weights.all()

    @property
    def targets(self) -> Array | Rows:
        """(samples, outputs): Y without the weights."""
        if isinstance(self.Y, Labels):
            return self.Y.with_weights(None)
        return split_weights(self.Y, self.outputs)[0] if isinstance(self.Y, np.ndarray) else self.Y

    def require_some_weight(self, name: str, used: str) -> None:
        """ValueError if all of the samples' weights are 0: nobody would see that none of them counts."""
        weights = self.stored_weights
        if weights is not None and not weights.any():
            raise ValueError(f"{name} is 0 for all {len(self)} rows that are {used}, expected one above 0")

    def own_views(self) -> Samples:
        """The same numbers under array objects of our own, whose shapes nobody else can set."""
        return Samples(sources.own_view(self.X), sources.own_view(self.Y), self.outputs, self.feature_names)

    def mapped_files(self, name_of_X: str, name_of_Y: str) -> list[MappedFile]:
        """The files that the data are mapped from, to be asked before they are read."""
        named = ((name_of_X, self.X), (name_of_Y, self.Y))
        return [MappedFile(name, data) for name, data in named if sources.is_on_disk(data)]

    def picked(self, rows: NDArray[np.int64]) -> Samples:
        """Copies of these rows, stored like them."""
        return Samples(
            sources.picked(self.X, rows), sources.picked(self.Y, rows), self.outputs, self.feature_names
        )

    def copied(self) -> Samples:
        """All samples as arrays of their own."""
        X, Y = (data[:] if isinstance(data, Rows) else data.copy() for data in (self.X, self.Y))
        return Samples(X, Y, self.outputs, self.feature_names)

    def head(self) -> Samples:
        """The first of the samples."""
        return Samples(self.X[:1], self.Y[:1], self.outputs, self.feature_names)

    def apart_from(self, parameters: Array) -> Samples:
        """The samples, copied where they lie in the memory of the parameters, which training changes."""
        X, Y = _apart(self.X, parameters), _apart(self.Y, parameters)
        return self if X is self.X and Y is self.Y else Samples(X, Y, self.outputs, self.feature_names)

    def class_weighted(self, class_weight: ClassWeight | None, loss: Loss) -> Samples:
        """The samples with the weights of their classes, times their own weights if they have some."""
        if class_weight is None:
            return self
        values: Array | Labels
        if isinstance(self.Y, Labels):
            values, weights = self.Y, self.Y.weights
        else:
            values, weights = split_weights(self.Y[:], self.outputs)
        of_rows = targets.class_weights(class_weight, values, loss)
        if weights is not None:
            of_rows = of_rows * weights
        return Samples(self.X, targets.weighted(values, of_rows), self.outputs, self.feature_names)


def joined(parts: Sequence[Samples]) -> Samples:
    """The samples of all parts, which are arrays."""
    X, Y = (np.concatenate([data[:] for data in of]) for of in zip(*((p.X, p.Y) for p in parts), strict=True))
    return Samples(X, Y, parts[0].outputs, parts[0].feature_names)


def split_weights(Y: Array, outputs: int) -> tuple[Array, Array | None]:
    """Targets (rows, outputs) and the weights (rows,) behind them, or None where there are none."""
    return (Y, None) if Y.shape[1] == outputs else (Y[:, :outputs], Y[:, outputs])


def _apart(data: Array | Rows, parameters: Array) -> Array | Rows:
    if isinstance(data, Rows) or data.flags.owndata or not np.may_share_memory(data, parameters):
        return data
    return data.copy()
