"""The kinds of columns, and what a network is given of each: standardised numbers, categories, truth, dates.

Each kind is learnt from training rows by its statistics (`learning.py`), turns a column into some of the
network's inputs, and can be written as JSON and read back, which checks everything: the file may come from
anybody.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastbp.tables import series

Mistakes: TypeAlias = dict[int, str]  # row -> the cell that cannot be used
Array = NDArray[Any]

DATE_PARTS = ("year", "month", "weekday", "hour")


@dataclass(frozen=True)
class Scale:
    """x -> (x - mean) / spread, which a network does as x * (1 / spread) - mean / spread."""

    mean: float = 0.0
    spread: float = 1.0

    @classmethod
    def from_json(cls, values: Any) -> Self:
        mean, spread = values
        if type(mean) is not float or type(spread) is not float or not spread > 0:
            raise ValueError
        if not (math.isfinite(mean) and math.isfinite(spread)):
            raise ValueError
        return cls(mean, spread)

    def to_json(self) -> list[float]:
        return [self.mean, self.spread]


class Kind(Protocol):
    """What all kinds have."""

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """The column's."""

    @property
    def outputs(self) -> list[str]:
        """The names of the network's inputs that are made of the column."""

    @property
    def scales(self) -> list[Scale]:
        """How each of them is standardised."""

    def read(self, column: Any, out: Array) -> Mistakes:
        """column: a Series, or of numbers an array; out: (rows, inputs), is written, not yet standardised."""

    def words(self) -> str:
        """What becomes of the column."""

    def to_json(self) -> dict[str, Any]: ...

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> Self:
        """KeyError, TypeError or ValueError for what `to_json` cannot have written."""


@dataclass(frozen=True)
class Number:
    """A column of numbers: one input, and a second one (0 or 1) that says where a value was missing.

    fill: what stands for a missing value, the median of the training rows; None: refused, as of a column that
    an earlier version has learnt. marked: whether there is the second input, which is so where values were
    missing in training.
    """

    kind: ClassVar[str] = "number"
    name: str
    scale: Scale
    fill: float | None
    marked: bool

    @property
    def outputs(self) -> list[str]:
        return [self.name] + ([f"{self.name} is missing"] if self.marked else [])

    @property
    def scales(self) -> list[Scale]:
        return [self.scale] + ([Scale()] if self.marked else [])

    def read(self, column: Any, out: Array) -> Mistakes:
        values, bad = series.numbers(column)
        missing = np.isnan(values)
        if missing.any():
            if self.fill is None:
                row = int(np.flatnonzero(missing)[0])
                return {row: ""} | bad
            values = np.where(missing, self.fill, values)
        out[:, 0] = values
        if self.marked:
            out[:, 1] = missing
        return bad

    def words(self) -> str:
        return "standardised" + (f"; missing: {self.fill:.4g} and a mark" if self.marked else "")

    def to_json(self) -> dict[str, Any]:
        return {"scale": self.scale.to_json(), "fill": self.fill, "marked": self.marked}

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> Self:
        fill, marked = values["fill"], values["marked"]
        if type(marked) is not bool or not (fill is None or (type(fill) is float and math.isfinite(fill))):
            raise ValueError
        if marked and fill is None:
            raise ValueError
        return cls(name, Scale.from_json(values["scale"]), fill, marked)


@dataclass(frozen=True)
class Truth(Number):
    """A column of True and False, as 1 and 0."""

    kind: ClassVar[str] = "boolean"

    def words(self) -> str:
        return "1 for True" + (f"; missing: {self.fill:g} and a mark" if self.marked else "")


@dataclass(frozen=True)
class Text:
    """A column of texts: an input of 0 or 1 for each of its values.

    values: those that have an input; other: whether there is one for all others, those that training has not
    seen among them; missing: whether there is one for empty cells. Where there is none, all inputs are 0.
    """

    kind: ClassVar[str] = "text"
    name: str
    values: list[str]
    other: bool
    missing: bool

    @property
    def outputs(self) -> list[str]:
        more = ["(other)"] * self.other + ["(missing)"] * self.missing
        return [f"{self.name}={value}" for value in [*self.values, *more]]

    @property
    def scales(self) -> list[Scale]:
        return [Scale()] * len(self.outputs)

    def read(self, column: Any, out: Array) -> Mistakes:
        found = series.coded(column)
        position = {value: i for i, value in enumerate(self.values)}
        nowhere = out.shape[1]
        other = len(self.values) if self.other else nowhere
        places = [position.get(text, other) for text in found.distinct]
        missing = nowhere - 1 if self.missing else other
        at = np.array([*places, missing], dtype=np.intp)[found.codes]
        out[:] = 0
        rows = np.flatnonzero(at < nowhere)
        out[rows, at[rows]] = 1
        return {}

    def words(self) -> str:
        more = ["others together"] * self.other + ["missing"] * self.missing
        kept = f"an input for each of {len(self.values)} values" if self.values else "an input"
        return kept + "".join(f", one for {what}" for what in more)

    def to_json(self) -> dict[str, Any]:
        return {"values": self.values, "other": self.other, "missing": self.missing}

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> Self:
        texts, other, missing = values["values"], values["other"], values["missing"]
        if type(texts) is not list or not all(type(text) is str for text in texts):
            raise ValueError
        if len({*texts}) != len(texts) or type(other) is not bool or type(missing) is not bool:
            raise ValueError
        return cls(name, texts, other, missing)


@dataclass(frozen=True)
class Date:
    """A column of dates: year, month (1 to 12), weekday (0 is Monday) and hour, as far as they differ.

    part_scales and fills have a number for each part, by the part's name; marked: as of numbers.
    """

    kind: ClassVar[str] = "date"
    name: str
    part_scales: Mapping[str, Scale]
    fills: Mapping[str, float]
    marked: bool

    @property
    def outputs(self) -> list[str]:
        parts = [f"{self.name}.{part}" for part in self.part_scales]
        return parts + ([f"{self.name} is missing"] if self.marked else [])

    @property
    def scales(self) -> list[Scale]:
        return [*self.part_scales.values()] + ([Scale()] if self.marked else [])

    def read(self, column: Any, out: Array) -> Mistakes:
        index, bad = series.moments(column)
        missing, parts = np.asarray(index.isna()), series.date_parts(index)
        for i, part in enumerate(self.part_scales):
            out[:, i] = np.where(missing, self.fills[part], parts[part])
        if self.marked:
            out[:, -1] = missing
        return bad

    def words(self) -> str:
        return ", ".join(self.part_scales) + ("; missing: the medians and a mark" if self.marked else "")

    def to_json(self) -> dict[str, Any]:
        scales = {part: scale.to_json() for part, scale in self.part_scales.items()}
        return {"scales": scales, "fills": dict(self.fills), "marked": self.marked}

    @classmethod
    def from_json(cls, name: str, values: Mapping[str, Any]) -> Self:
        scales, fills, marked = values["scales"], values["fills"], values["marked"]
        if type(marked) is not bool or not {*scales} <= {*DATE_PARTS} or {*fills} != {*scales}:
            raise ValueError
        if not all(type(fill) is float and math.isfinite(fill) for fill in fills.values()):
            raise ValueError
        read = {part: Scale.from_json(scale) for part, scale in scales.items()}
        return cls(name, read, fills, marked)


KINDS: dict[str, type[Kind]] = {"number": Number, "boolean": Truth, "text": Text, "date": Date}
