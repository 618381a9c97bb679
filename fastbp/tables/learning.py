"""What the training rows say about each column: means, spreads, medians and categories.

The rows come piece by piece. Everything is exact but for the median of a column with more than MEDIAN_OF
values, which is that of evenly spaced ones.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbp.tables import series
from fastbp.tables.kinds import DATE_PARTS, Date, Kind, Number, Scale, Text, Truth
from fastbp.tables.wording import DataError

MEDIAN_OF = 1 << 16  # of each column these are in memory
LEAST_SPREAD = 1e-36  # what the network multiplies by, 1 / spread, has to be a number in float32
SOME_ROWS = 20  # a column of text with more distinct values than this and half the rows is one of names


class Line(NamedTuple):
    """What the report says about a column."""

    name: str
    what: str  # becomes of it
    values: int  # that are distinct, in the training part; of numbers not counted beyond MEDIAN_OF
    missing: int  # rows of the training part


class Learner(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def missing(self) -> int: ...

    def add(self, column: Any) -> None:
        """column: a Series of training rows."""

    def learn(self) -> Kind | str:
        """What the column is, or why it is left out."""

    def values(self) -> int: ...


@dataclass
class Numbers:
    """Statistics of numbers: those that are missing are NaN."""

    name: str
    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of the squared differences from the mean
    low: float = math.inf
    high: float = -math.inf
    sample: list[NDArray[np.float64]] = field(default_factory=list)
    stride: int = 1
    is_truth: bool = False

    def add(self, column: Any) -> None:
        self.add_numbers(series.numbers(column)[0])

    def add_numbers(self, values: NDArray[np.float64]) -> None:
        known = values[~np.isnan(values)]
        self.missing += len(values) - len(known)
        if not len(known):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(known.mean())
            squares = float(np.square(known - mean).sum())
            # Chan, Golub and LeVeque, The American Statistician 37 (1983) 242.
            total, apart = self.count + len(known), mean - self.mean
            self.squares += squares + apart * apart * self.count * len(known) / total
            self.mean = self.mean + apart * len(known) / total if self.count else mean
        self.low, self.high = min(self.low, float(known.min())), max(self.high, float(known.max()))
        self.sample.append(known[(-self.count) % self.stride :: self.stride].copy())
        self.count = total
        while sum(map(len, self.sample)) > MEDIAN_OF:
            self.sample, self.stride = [np.concatenate(self.sample)[::2]], 2 * self.stride

    def median(self) -> float:
        return float(np.median(np.concatenate(self.sample)))

    def values(self) -> int:
        return len(np.unique(np.concatenate(self.sample))) if self.sample else 0

    def scale(self) -> Scale:
        """That of all rows, where the median stands for missing values."""
        rows, mean, squares = self.count + self.missing, self.mean, self.squares
        if self.missing:
            apart = self.median() - mean
            squares += apart * apart * self.count * self.missing / rows
            mean += apart * self.missing / rows
        spread = math.sqrt(squares / rows)
        if not (math.isfinite(mean) and math.isfinite(spread)):
            raise DataError(f"the values of column {self.name!r} are too large to be standardised in float64")
        if 0 < spread < LEAST_SPREAD or (spread > 0 and abs(mean) / spread > 1 / LEAST_SPREAD):
            raise DataError(f"the values of column {self.name!r} are too close together to be standardised")
        # The spread computed of a constant column may be rounding noise: dividing by that would blow it up.
        return Scale(mean, spread if spread > 1e-12 * abs(mean) else 1.0)

    @property
    def is_constant(self) -> bool:
        return self.low >= self.high or (self.scale().spread == 1.0 and self.squares <= 1e-24 * self.mean**2)

    def learn(self) -> Kind | str:
        if not self.count:
            return "left out: it has no values"
        if self.is_constant and not self.missing:
            return f"left out: it is {self.low:g} in every row"
        if self.is_truth:
            return Truth(self.name, Scale(), self.median(), bool(self.missing))
        return Number(self.name, self.scale(), self.median(), bool(self.missing))


@dataclass
class Texts:
    name: str
    rare: int | None  # values in fewer rows are put together; None: by the number of rows
    missing: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, column: Any) -> None:
        found = series.coded(column)
        self.missing += int((found.codes < 0).sum())
        known = np.bincount(found.codes[found.codes >= 0], minlength=len(found.distinct))
        for text, count in zip(found.distinct, known.tolist(), strict=True):
            if count:
                self.counts[text] += count

    def values(self) -> int:
        return len(self.counts)

    def learn(self) -> Kind | str:
        rows = self.counts.total() + self.missing
        if not self.counts:
            return "left out: it has no values"
        if len(self.counts) == 1 and not self.missing:
            return f"left out: it is {next(iter(self.counts))!r} in every row"
        if len(self.counts) > max(SOME_ROWS, rows // 2):
            return "left out: nearly every row has a text of its own"
        rare = self.rare or max(1, min(5, rows // 100))
        kept = sorted(text for text, count in self.counts.items() if count >= rare)
        other = len(kept) < len(self.counts)
        if len(kept) + other + bool(self.missing) < 2:
            return f"left out: no text stands in {rare} rows"
        return Text(self.name, kept, other, bool(self.missing))


class Dates:
    def __init__(self, name: str) -> None:
        self.name: str = name
        self._parts = {part: Numbers(f"{name}.{part}") for part in DATE_PARTS}
        self._whole = Numbers(name)  # which are counted only

    @property
    def missing(self) -> int:
        return self._whole.missing

    def add(self, column: Any) -> None:
        moments = series.moments(column)[0]
        self._whole.add_numbers(np.where(moments.isna(), np.nan, moments.asi8))
        for part, values in series.date_parts(moments).items():
            self._parts[part].add_numbers(values)

    def values(self) -> int:
        return self._whole.values()

    def learn(self) -> Kind | str:
        if not self._parts["year"].count:
            return "left out: it has no values"
        differing = {part: numbers for part, numbers in self._parts.items() if not numbers.is_constant}
        if not differing and not self.missing:
            return "left out: it is the same date in every row"
        scales = {part: numbers.scale() for part, numbers in differing.items()}
        fills = {part: float(numbers.median()) for part, numbers in differing.items()}
        return Date(self.name, scales, fills, bool(self.missing))


def learner(name: str, kind: str, rare: int | None) -> Learner:
    """For a column of this kind (see `survey.Seen.kind`)."""
    if kind == "text":
        return Texts(name, rare)
    return Dates(name) if kind == "date" else Numbers(name, is_truth=kind == "boolean")
