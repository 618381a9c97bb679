"""The columns of a table as a network gets them: learnt from training rows, applied to any later table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.tables import learning
from fastbp.tables.kinds import KINDS, Kind, Number, Scale
from fastbp.tables.learning import Line
from fastbp.tables.survey import kinds, not_a_number, survey
from fastbp.tables.wording import DataError, LeftOut, instead, listed, quoted, text_table

MAX_COLUMNS = 1000  # inputs that columns may become, unless more are asked for
ROWS_AT_ONCE = 1 << 16  # of a table in memory

Place: TypeAlias = Callable[[int, str], str]


def place_in_frame(row: int, name: str) -> str:
    return f"row {row} (counted from 0), column {name!r}"


@dataclass(frozen=True)
class Columns:
    """What becomes of each column of a table.

    features : the columns that are used, each with what was learnt about it, in the order in which a network
        gets them.
    target : the name of the column to predict.
    named : whether columns are found by their names; those of an array by their positions.
    width : how many columns the table had, the target and what was left out among them.
    lines : of the report: (name, what is done, distinct values, missing ones), of all columns.

    >>> columns = Columns.learn(frame, target="price")      # a DataFrame
    >>> columns.transform(later)                            # (rows, len(columns.outputs)) numbers
    >>> print(columns)                                      # a line for each column
    """

    features: list[Kind]
    target: str
    named: bool = True
    width: int = 0
    lines: list[Line] = field(default_factory=list)

    # ---- learning ----

    @classmethod
    def learn(
        cls,
        frame: Any,
        *,
        target: str,
        drop: Sequence[str] = (),
        dates: bool = False,
        rare: int | None = None,
        max_columns: int = MAX_COLUMNS,
    ) -> Self:
        """Learn from a DataFrame, all of whose rows are there to train on.

        Parameters
        ----------
        target : the column to predict, which is no feature.
        drop : other columns that are left out.
        dates : take columns of dates apart into year, month, weekday and hour (otherwise they are refused).
        rare : texts that stand in fewer rows share one input; None: than 5, of fewer than 500 rows than 1%.
        max_columns : more inputs than these are refused.

        Raises DataError, a ValueError, with all columns that cannot be used; a UserWarning names those that
        are left out because there is nothing to learn from them.
        """
        frame = named_frame(frame)
        names = features_of([*frame.columns], target, drop, None)
        pieces = [(start, frame.iloc[start : start + ROWS_AT_ONCE]) for start in range_of(len(frame))]
        found = kinds(survey(pieces, names, text_may_be_numbers=False), place_in_frame, dates=dates)
        learners = [learning.learner(name, kind, rare) for name, kind in found.items()]
        for _, piece in pieces:
            for learner in learners:
                learner.add(piece[learner.name])
        return cls.learnt(learners, target, len(frame.columns), max_columns)

    @classmethod
    def learnt(cls, learners: Iterable[learning.Learner], target: str, width: int, max_columns: int) -> Self:
        """What these have learnt; warns of what is left out, DataError if there are too many inputs."""
        features, lines, out = [], [], []
        for learner in learners:
            kind = learner.learn()
            words = kind if isinstance(kind, str) else kind.words()
            lines.append(Line(learner.name, words, learner.values(), learner.missing))
            if isinstance(kind, str):
                out.append(f"{learner.name!r} ({kind.removeprefix('left out: ')})")
            else:
                features.append(kind)
        if not features:
            raise DataError(f"no column is left to learn from: {'; '.join(out)}")
        total = sum(len(kind.outputs) for kind in features)
        if total > max_columns:
            widest = sorted(features, key=lambda kind: -len(kind.outputs))[:3]
            shown = ", ".join(f"{kind.name!r} {len(kind.outputs):,}" for kind in widest)
            raise DataError(
                f"the columns become {total:,} inputs ({shown}), more than --max-columns {max_columns:,}: "
                f"leave some out (--drop {quoted([widest[0].name])}), put rare texts together (--rare N), "
                "or allow for more"
            )
        if out:
            checks.warn(f"left out: {'; '.join(out)}", LeftOut)
        return cls(features, target, True, width, lines)

    # ---- what they become ----

    @property
    def names(self) -> list[str]:
        """Of the columns that are used."""
        return [kind.name for kind in self.features]

    @property
    def outputs(self) -> list[str]:
        """The names of the network's inputs."""
        return [name for kind in self.features for name in kind.outputs]

    @property
    def scales(self) -> list[Scale]:
        """How each of the network's inputs is standardised."""
        return [scale for kind in self.features for scale in kind.scales]

    def blocks(self) -> dict[str, slice]:
        """Which inputs are made of which column."""
        found, start = {}, 0
        for kind in self.features:
            found[kind.name] = slice(start, start + len(kind.outputs))
            start += len(kind.outputs)
        return found

    def transform(self, data: Any, place: Place = place_in_frame) -> NDArray[Any]:
        """(rows, inputs): a table as numbers that are not standardised yet, which the network does itself.

        data: a DataFrame, whose columns are found by their names, whatever else it has and in whatever order;
        or a matrix (rows, columns) of numbers with these columns in their order. Float64, but for a matrix of
        numbers alone, which is taken as it is. DataError names all columns that are missing, or that hold
        what is no number.
        """
        if isinstance(data, np.ndarray):
            given = self.matrix(data)
            plain = all(type(kind) is Number and not kind.marked for kind in self.features)
            if plain and (given.dtype.kind in "biu" or not np.isnan(given).any()):
                return given
            data = given
        out = np.empty((len(data), len(self.outputs)))
        self.fill(data, out, np.arange(len(data)), place, standardise=False)
        return out

    def fill(
        self, data: Any, out: NDArray[Any], rows: NDArray[np.integer[Any]], place: Place, *, standardise: bool
    ) -> None:
        """Write the network's inputs into `out` (rows, inputs); rows: what those of `data` are called."""
        if not isinstance(data, np.ndarray):
            self.require_names([*data.columns], "the table")
        bad: list[tuple[int, str, str]] = []
        for i, (kind, block) in enumerate(zip(self.features, self.blocks().values(), strict=True)):
            column = data[:, i] if isinstance(data, np.ndarray) else data[kind.name]
            values = np.empty((len(column), len(kind.outputs)))
            mistakes = kind.read(column, values)
            bad += [(int(rows[row]), cell, kind.name) for row, cell in sorted(mistakes.items())[:1]]
            if standardise:
                for j, scale in enumerate(kind.scales):
                    values[:, j] = (values[:, j] - scale.mean) / scale.spread
            out[:, block] = values
        if bad:
            bad.sort(key=lambda mistake: mistake[0])
            row, cell, name = bad[0]
            if not cell:
                raise DataError(f"{place(row, name)} is empty: every cell needs a number")
            raise not_a_number(bad, place, [])

    def require_names(self, names: Sequence[str], what: str) -> None:
        """DataError unless a table with columns of these names has all that are used."""
        missing = [name for name in self.names if name not in names]
        if missing:
            raise DataError(
                f"{what} lacks {len(missing)} of the {len(self.features)} columns that the model was trained "
                f"on: {listed(missing)}"
            )

    def matrix(self, array: NDArray[Any]) -> NDArray[Any]:
        """The columns that are used, of an array that has only these, or those of training."""
        if array.ndim != 2 or array.dtype.kind not in "biuf":
            raise DataError(
                f"an array of shape {array.shape} and dtype {array.dtype} was given, (rows, columns) of "
                "numbers are expected"
            )
        if array.shape[1] == len(self.features):
            return array
        if self.named or array.shape[1] != self.width:
            raise DataError(
                f"the array has {array.shape[1]} columns, the model was trained on {len(self.features)} "
                f"features: {listed(self.names)}"
            )
        return array[:, [int(name) for name in self.names]]

    def __str__(self) -> str:
        rows = [[line.name, f"{line.values:,}", f"{line.missing:,}", line.what] for line in self.lines]
        return text_table(["column", "values", "missing", "what becomes of it"], rows)

    # ---- in the model file ----

    def to_json(self) -> dict[str, Any]:
        features = [{"name": kind.name, "kind": kind.kind, **kind.to_json()} for kind in self.features]
        lines = [[*line] for line in self.lines]
        return {"features": features, "named": self.named, "width": self.width, "lines": lines}

    @classmethod
    def from_json(cls, values: dict[str, Any], target: str) -> Self:
        """KeyError, TypeError or ValueError for what `to_json` cannot have written."""
        named, width = values["named"], values["width"]
        if type(named) is not bool or type(width) is not int or not isinstance(values["features"], list):
            raise ValueError
        features = [KINDS[entry["kind"]].from_json(entry["name"], entry) for entry in values["features"]]
        names = [kind.name for kind in features]
        if not features or not all(type(name) is str for name in names) or len({*names}) != len(names):
            raise ValueError
        if not named and any(not 0 <= int(name) < width for name in names):
            raise ValueError
        lines = [Line(*line) for line in values["lines"]]
        if any([*map(type, line)] != [str, str, int, int] for line in lines):
            raise ValueError
        return cls(features, target, named, width, lines)


# ---- tables ----------------------------------------------------------------------------------------------


def range_of(rows: int) -> range:
    """Where the pieces of a table of so many rows begin; an empty one is one piece."""
    return range(0, max(1, rows), ROWS_AT_ONCE)


def named_frame(frame: Any) -> Any:
    """The DataFrame, with texts as the names of its columns. TypeError, or DataError if two are the same."""
    if not hasattr(frame, "iloc") or not hasattr(frame, "columns"):
        raise TypeError(f"a DataFrame is expected, got {type(frame).__name__}")
    names = [name if isinstance(name, str) else str(name) for name in frame.columns]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise DataError(f"two columns are called {name!r}")
    return frame if names == [*frame.columns] else frame.set_axis(names, axis=1)


def features_of(
    names: Sequence[str], target: str, drop: Sequence[str], weights: str | None, what: str = "the table"
) -> list[str]:
    """The columns that are features: all but target, weights and those to drop. DataError for other names."""
    used = {"--target": target} | ({} if weights is None else {"--weights": weights})
    for option, name in [*used.items(), *(("--drop", name) for name in drop)]:
        if name not in names:
            hint = instead(name, names)
            with_comma = [known for known in names if name in map(str.strip, known.split(","))]
            if option == "--drop" and with_comma:
                hint = f""": is {with_comma[0]!r} meant? Then put it in quotes: --drop '"{with_comma[0]}"'"""
            raise DataError(f"{what} has no column {name!r} ({option}){hint}")
    if target == weights:
        raise DataError(f"column {target!r} is both --target and --weights")
    for option, name in used.items():
        if name in drop:
            raise DataError(f"column {name!r} is both {option} and in --drop")
    left = [name for name in names if name not in used.values() and name not in drop]
    if not left:
        raise DataError(
            f"{what}: no column is left as a feature besides {' and '.join(map(repr, used.values()))}"
        )
    return left
