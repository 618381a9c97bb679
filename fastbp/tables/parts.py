"""From a table to the parts that a network is trained, watched and judged with.

A table is gone through three times, piece by piece: to look at its columns and its target, to learn from the
rows to train on, and to write the network's inputs; the last two times only the columns that are needed. So
of a file that is larger than memory never more than a piece is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastbp import checks
from fastbp.tables import learning, survey, targets
from fastbp.tables.answer import Answer
from fastbp.tables.columns import (
    MAX_COLUMNS,
    ROWS_AT_ONCE,
    Columns,
    features_of,
    named_frame,
    place_in_frame,
    range_of,
)
from fastbp.tables.targets import Target
from fastbp.tables.wording import DataError

TEST_SIZE = 0.2

Rows = NDArray[np.integer[Any]]  # of four bytes, as far as these can count them


@dataclass(frozen=True)
class Choices:
    """What a user says about a table; see `train_table`."""

    target: str
    drop: Sequence[str] = ()
    weights: str | None = None
    task: str = "auto"
    test_size: float = TEST_SIZE
    validation: float = 0.0
    dates: bool = False
    rare: int | None = None
    max_columns: int = MAX_COLUMNS
    missing_target: str = "refuse"
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        checks.known_name("task", self.task, ("auto", "classification", "regression"))
        checks.known_name("missing_target", self.missing_target, ("refuse", "drop"))


class Source(Protocol):
    """A table, as often as it is asked for."""

    text_may_be_numbers: bool  # as in files that hold nothing but text

    @property
    def label(self) -> str:
        """What the table is called in a message."""

    @property
    def names(self) -> list[str]:
        """Of its columns, no two the same."""

    def frames(self, names: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """(first row, DataFrame) of each piece; names: of the columns that are enough."""

    def read_as_text(self, names: Sequence[str]) -> None:
        """From now on, read these columns as text, in which a mark such as NA is a missing value."""

    def read_as_written(self, name: str) -> None:
        """From now on, read this column as text in which such a mark is a text, too."""

    def place(self, row: int, name: str) -> str:
        """Where a cell is, in words."""


class FrameSource:
    """A DataFrame."""

    text_may_be_numbers = False
    label = "the table"

    def __init__(self, frame: Any) -> None:
        self._frame = named_frame(frame)
        if not len(self._frame):
            raise DataError("the table has no rows")
        self.names: list[str] = [*self._frame.columns]

    def frames(self, names: Sequence[str] | None = None) -> Iterator[tuple[int, Any]]:
        """With all columns, which are there in any case."""
        for start in range_of(len(self._frame)):
            yield start, self._frame.iloc[start : start + ROWS_AT_ONCE]

    def read_as_text(self, names: Sequence[str]) -> None:
        """The DataFrame has its dtypes already."""

    def read_as_written(self, name: str) -> None:
        """As it is."""

    def place(self, row: int, name: str) -> str:
        return place_in_frame(row, name)


@dataclass(frozen=True)
class Part:
    """Some of the rows, as the network gets them."""

    name: str
    X: NDArray[Any]  # (rows, inputs), of the network's dtype; images as they are stored
    Y: NDArray[Any]  # (rows, outputs), of the network's dtype
    target: Target  # (rows,), as it was read
    weights: NDArray[np.float64] | None  # (rows,)

    def __len__(self) -> int:
        return len(self.X)


@dataclass(frozen=True)
class Data:
    columns: Columns
    answer: Answer
    training: Part
    validation: Part | None
    held_out: Part | None
    image: tuple[int, ...] | None = None  # the shape of an image, where each row is one
    scaling: tuple[float, float] = (1.0, 0.0)  # scale and offset that the network applies to images

    @property
    def parts(self) -> list[Part]:
        return [part for part in (self.training, self.validation, self.held_out) if part is not None]


# ---- looking ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Looked:
    """What the first time through a table has found."""

    kinds: dict[str, str]  # of the features' columns, by their names
    rows: Rows | None  # those whose target is known, in ascending order; None: all
    target: Target  # of these rows
    weights: NDArray[np.float64] | None  # of these rows
    kind: str  # "classification" or "regression"

    def __len__(self) -> int:
        return len(self.target)

    def rows_of(self, at: Rows) -> Rows:
        """Which rows of the table those are that stand here among the ones whose target is known."""
        return at if self.rows is None else self.rows[at]


def look(source: Source, choices: Choices) -> Looked:
    """DataError for columns, targets or weights that cannot be used."""
    names = features_of(source.names, choices.target, choices.drop, choices.weights, source.label)
    seen = {name: survey.Seen(name) for name in names}
    collector, of_rows = targets.Collector(choices.target), Weights(source, choices.weights)
    source.read_as_written(choices.target)
    for start, frame in source.frames():
        for name, found in seen.items():
            found.add(frame[name], start, source.text_may_be_numbers)
        collector.add(frame[choices.target])
        of_rows.add(start, frame)
    kinds = survey.kinds(seen, source.place, dates=choices.dates)
    source.read_as_text([name for name, kind in kinds.items() if kind != "number"])
    target, weights = collector.collected(), of_rows.collected()
    rows = targets.known_rows(target) if choices.missing_target == "drop" else None
    if rows is not None and len(rows) < len(target):
        if not len(rows):
            raise DataError(f"the target {choices.target!r} is missing in every row")
        target = targets.picked(target, rows)
        weights = None if weights is None else weights[rows]
    kind = targets.choose_kind(target, choices.target) if choices.task == "auto" else choices.task
    if kind == "classification":
        targets.check_classes(target, choices.target)
    return Looked(kinds, rows if rows is None else in_few_bytes(rows), target, weights, kind)


class Weights:
    """The column of the rows' weights, if there is one."""

    def __init__(self, source: Source, name: str | None) -> None:
        self._source, self._name = source, name
        self._pieces: list[NDArray[np.float64]] = []

    def add(self, start: int, frame: Any) -> None:
        from fastbp.tables import series

        if self._name is None:
            return
        values, bad = series.numbers(frame[self._name])
        missing = {int(row): "" for row in np.flatnonzero(np.isnan(values)) if int(row) not in bad}
        for row, cell in sorted((missing | bad).items())[:1]:
            place = self._source.place(start + row, self._name)
            raise DataError(f"{place} (--weights): {cell!r} is not a number" if cell else f"{place} is empty")
        negative = np.flatnonzero(values < 0)
        if len(negative):
            place = self._source.place(start + int(negative[0]), self._name)
            raise DataError(f"{place} (--weights): {values[negative[0]]:g} is below 0")
        self._pieces.append(values)

    def collected(self) -> NDArray[np.float64] | None:
        if self._name is None:
            return None
        values = np.concatenate(self._pieces)
        if not values.any():
            raise DataError(f"{self._source.label}: column {self._name!r} (--weights) is 0 in every row")
        return values


# ---- dividing --------------------------------------------------------------------------------------------


class Division(NamedTuple):
    """Positions among the rows whose target is known, each in ascending order."""

    training: Rows
    validation: Rows
    held_out: Rows


def division_of(target: Target, kind: str, choices: Choices, fold: tuple[int, int] | None = None) -> Division:
    """Of the rows with this target; kind: as in `Looked`, fold: see `divide`. DataError if that cannot be."""
    of_classes = strata(target, kind, choices.target)
    require_members(of_classes, target, choices.target)
    return divide(of_classes, len(target), choices, fold)


def strata(target: Target, kind: str, name: str) -> NDArray[np.intp] | None:
    """(rows,): a number for each class, so that each gives its share to every part; None of a quantity."""
    return Answer.of_classes(target, name).codes(target) if kind == "classification" else None


def divide(
    of_classes: NDArray[np.intp] | None,
    rows: int,
    choices: Choices,
    fold: tuple[int, int] | None = None,
) -> Division:
    """At random, by the seed. DataError if a part would be empty.

    fold: (number from 0, how many there are): hold these rows out, rather than a share.
    """
    training: Rows = np.arange(rows)
    held = training[:0]
    if fold is not None:
        number = fold_of_rows(of_classes, rows, fold[1], choices.seed)
        training, held = np.flatnonzero(number != fold[0]), np.flatnonzero(number == fold[0])
    elif choices.test_size:
        training, held = split_rows(of_classes, rows, choices.test_size, choices.seed)
    watched = held[:0]
    if choices.validation:
        within = None if of_classes is None else of_classes[training]
        seed = (choices.seed, 1)  # not the draw that chose the rows to hold out
        kept, out = split_rows(within, len(training), choices.validation, seed, "--validation")
        training, watched = training[kept], training[out]
    return Division(*map(in_few_bytes, (training, watched, held)))


def in_few_bytes(rows: Rows) -> Rows:
    """Ascending rows in four bytes each, if they fit: they stay in memory while a table is read."""
    return rows.astype(np.int32) if not len(rows) or rows[-1] <= np.iinfo(np.int32).max else rows


def between(rows: Rows, start: int, stop: int) -> slice:
    """Where those from `start` to `stop` stand among ascending rows."""
    low, high = np.searchsorted(rows, np.array([start, stop], rows.dtype))
    return slice(low, high)


def require_members(of_classes: NDArray[np.intp] | None, target: Target, name: str) -> None:
    """DataError for a class that has a single row."""
    if of_classes is None:
        return
    single = np.flatnonzero(np.bincount(of_classes) == 1)
    if len(single):
        row = int(np.flatnonzero(of_classes == single[0])[0])
        label = targets.picked(target, np.array([row]))[0]
        raise DataError(
            f"class {label!r} of the target {name!r} has a single row, two are needed: one to learn it from "
            "and one to see whether it was learnt; leave it out, or put it together with another class"
        )


def fold_of_rows(strata: NDArray[np.intp] | None, rows: int, folds: int, seed: int) -> NDArray[np.intp]:
    """(rows,): the number of the fold in which each row is held out; each class is spread over all folds."""
    rng = np.random.default_rng((seed, 2))
    classes = np.zeros(rows, dtype=np.intp) if strata is None else strata
    order = rng.permutation(rows)
    order = order[np.argsort(classes[order], kind="stable")]
    number = np.empty(rows, dtype=np.intp)
    number[order] = np.arange(rows) % folds
    return number


def split_rows(
    strata: NDArray[np.intp] | None,
    rows: int,
    share: float,
    seed: int | tuple[int, ...],
    option: str = "--test-size",
) -> tuple[Rows, Rows]:
    """Choose at random which rows to train on and which to hold out; (train, held out), both sorted.

    With `strata` (rows,), each class gives its share, and keeps at least one row for training.
    """
    rng = np.random.default_rng(seed)
    if strata is None:
        order = rng.permutation(rows)
        held = order[: round(rows * share)]
    else:
        parts = []
        for label in np.unique(strata):
            members = rng.permutation(np.flatnonzero(strata == label))
            parts.append(members[: min(round(len(members) * share), len(members) - 1)])
        held = np.concatenate(parts)
    mask = np.zeros(rows, dtype=bool)
    mask[held] = True
    train, held = np.flatnonzero(~mask), np.flatnonzero(mask)
    if share > 0 and not len(held):
        raise DataError(f"{option} {share:g} of {rows} rows leaves nothing to test on")
    if not len(train):
        raise DataError(f"{option} {share:g} of {rows} rows leaves nothing to train on")
    return train, held


# ---- learning and writing --------------------------------------------------------------------------------


def assemble(source: Source, choices: Choices, looked: Looked, division: Division) -> Data:
    """Learn from the rows to train on, and write the inputs of all parts."""
    learners = [learning.learner(name, kind, choices.rare) for name, kind in looked.kinds.items()]
    training = looked.rows_of(division.training)
    for start, frame in source.frames([*looked.kinds]):
        here = training[between(training, start, start + len(frame))] - start
        piece = frame if len(here) == len(frame) else frame.iloc[here]
        for learner in learners:
            learner.add(piece[learner.name])
    columns = Columns.learnt(learners, choices.target, len(source.names), choices.max_columns)
    del learners, training  # whose samples and rows need not be there beside the inputs
    if looked.kind == "classification":
        answer = Answer.of_classes(looked.target, choices.target)
    else:
        values = targets.quantities(looked.target, choices.target)
        answer = Answer.of_quantity(values[division.training], choices.target)
        del values
    written = matrices(source, columns, [*map(looked.rows_of, division)], choices.dtype)
    names = ("training", "validation", "held out")
    made = [
        part_of(name, X, looked, at, answer) if len(at) else None
        for name, X, at in zip(names, written, division, strict=True)
    ]
    assert made[0] is not None
    return Data(columns, answer, made[0], made[1], made[2])


def part_of(name: str, X: NDArray[Any], looked: Looked, at: Rows, answer: Answer) -> Part:
    target = targets.picked(looked.target, at)
    weights = None if looked.weights is None else looked.weights[at]
    return Part(name, X, answer.encode(target, X.dtype), target, weights)


def matrices(source: Source, columns: Columns, parts: Sequence[Rows], dtype: str) -> list[NDArray[Any]]:
    """(rows, inputs) of each part, standardised; parts: rows of the table in ascending order."""
    made = [np.empty((len(rows), len(columns.outputs)), dtype) for rows in parts]
    for start, frame in source.frames(columns.names):
        for rows, out in zip(parts, made, strict=True):
            at = between(rows, start, start + len(frame))
            here = rows[at] - start
            if len(here):
                piece = frame if len(here) == len(frame) else frame.iloc[here]
                columns.fill(piece, out[at], rows[at], source.place, standardise=True)
    return made


def held_out_of(source: Source, data: Data, dtype: str) -> Data:
    """The data, with all rows of another table as the part that is held out."""
    name, columns = data.answer.name, data.columns
    if name not in source.names:
        raise DataError(f"{source.label} has no target {name!r} to compare predictions with")
    columns.require_names(source.names, source.label)
    source.read_as_written(name)
    source.read_as_text([kind.name for kind in columns.features if kind.kind != "number"])
    collector = targets.Collector(name)
    for _, frame in source.frames():
        collector.add(frame[name])
    target = collector.collected()
    X = matrices(source, columns, [np.arange(len(target))], dtype)[0]
    part = Part("held out", X, data.answer.encode(target, dtype), target, None)
    return replace(data, held_out=part)
