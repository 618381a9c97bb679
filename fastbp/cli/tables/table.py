"""A table as the other modules get it: named numeric columns and one target column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.errors import DataError
from fastbp.tables.targets import Target, picked
from fastbp.tables.wording import instead as instead
from fastbp.tables.wording import listed as listed


@dataclass(frozen=True)
class Columns:
    """What a model was trained on, so that later files can be matched with it."""

    features: list[str]  # one name a feature; where columns have no names, their positions
    target: str
    named: bool  # True for CSV; the columns of an array have only their positions
    width: int  # columns of what was trained on, dropped ones and an array's target included


@dataclass(frozen=True)
class Table:
    columns: Columns
    features: NDArray[Any]  # (rows, features), finite; float64, but of images as they are stored
    target: Target | None  # (rows,)
    weights: NDArray[np.float64] | None = None  # (rows,), each at least 0
    image: tuple[int, ...] | None = None  # the shape of a row that is an image

    def __len__(self) -> int:
        return len(self.features)

    def pick(self, rows: NDArray[np.integer[Any]]) -> Table:
        """A table of these rows, in ascending order; itself where that is all of them."""
        if len(rows) == len(self):
            return self
        target, weights = self.target, self.weights
        return replace(
            self,
            features=self.features[rows],
            target=None if target is None else picked(target, rows),
            weights=None if weights is None else weights[rows],
        )


def remaining(
    path: str, names: Sequence[str], target_at: int, weights_at: int | None, dropped: set[int]
) -> list[int]:
    """The columns that are features."""
    used = {"--target": target_at} | ({} if weights_at is None else {"--weights": weights_at})
    if target_at == weights_at:
        raise DataError(f"column {names[target_at]!r} is both --target and --weights")
    for option, column in used.items():
        if column in dropped:
            raise DataError(f"column {names[column]!r} is both {option} and in --drop")
    wanted = [i for i in range(len(names)) if i not in used.values() and i not in dropped]
    if not wanted:
        besides = " and ".join(repr(names[column]) for column in used.values())
        raise DataError(f"{path}: no column is left as a feature besides {besides}")
    return wanted


def weights(path: str, name: str, values: NDArray[np.float64], first_row: int = 0) -> NDArray[np.float64]:
    """The values, if they can be weights; DataError otherwise."""
    negative = np.flatnonzero(values < 0)
    if len(negative):
        place = f"row {negative[0] + first_row}" + ("" if first_row else " (counted from 0)")
        raise DataError(f"{path} {place}, column {name!r} (--weights): {values[negative[0]]:g} is below 0")
    if not values.any():
        raise DataError(f"{path}: column {name!r} (--weights) is 0 in every row")
    return values


# ---- wording ----


def wrong_width(path: str, width: int, columns: Columns) -> DataError:
    trained_on = listed(columns.features) if columns.named else f"columns of an array {columns.width} wide"
    return DataError(
        f"{path} has {width} columns, the model was trained on {len(columns.features)} features: {trained_on}"
    )
