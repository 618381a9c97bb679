"""Training from an iterable of batches: where the next batch comes from. (batch_run.py takes them.)

Each batch is used before the next one is asked for, so a generator may fill the same arrays again and again,
or look at the model to decide what comes next, and no more than a batch or two is in memory.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.inputs.samples import Samples, joined

Array = NDArray[Any]
Batch = Sequence[ArrayLike]  # (X, Y) or (X, Y, sample_weight)
BatchSource = Iterable[Batch] | Callable[[], Iterable[Batch]]
# What becomes of X, Y and sample_weight (or None) of a batch.
Prepare = Callable[[Any, Any, Any], Samples]


# By the number of fields in a batch; 0: it is not known yet.
_EXPECTED = {0: "(X, Y) or (X, Y, sample_weight)", 2: "(X, Y)", 3: "(X, Y, sample_weight)"}


class Group(NamedTuple):
    """The data of one step, and how many rows of them are taken at a time (None: all)."""

    samples: Samples
    part: int | None


def gives_batches(X: object) -> bool:
    """Whether X is a function, or something to iterate over that is neither an array nor a collection."""
    iterable = isinstance(X, Iterable) and not isinstance(X, (Collection, os.PathLike))
    matrix = hasattr(X, "__array__") or hasattr(X, "shape")  # the latter of a sparse one
    return (iterable and not matrix) or callable(X)


class Batches:
    """The batches of an iterable, checked and converted, `accumulate` of them for each step.

    When a pass over the iterable is over, the next one begins with a new iterator; where the iterable is an
    iterator itself there is none. TypeError or ValueError for what is no iterable, or has no batch.
    """

    def __init__(self, given: Any, accumulate: int, prepare: Prepare) -> None:
        self._given, self._accumulate, self._prepare = given, accumulate, prepare
        self._passes, self._taken = 0, 0  # begun; batches of the one that goes on
        self._fields = 0  # of every batch: two, or three with weights
        self.steps_in_pass = -(-operator.length_hint(given) // accumulate)  # as it says itself; 0: not known
        self.exhausted = False  # there is no further pass, or nothing in it
        self._iterator: Iterator[Any] | None = self._begin()
        self.ahead = self._collect()  # so that the first batch is refused before anything begins
        if self.ahead is None:
            raise ValueError("X has no batches, expected at least one")

    def _begin(self) -> Iterator[Any]:
        """A new pass."""
        source = self._given
        if callable(source) and not isinstance(source, Iterable):
            source = source()
        if isinstance(source, (str, bytes, os.PathLike)) or hasattr(source, "__array__"):
            raise TypeError(_no_batches(source))
        try:
            iterator: Iterator[Any] = iter(source)
        except TypeError:
            raise TypeError(_no_batches(source)) from None
        self._once = iterator is self._given
        self._passes, self._taken = self._passes + 1, 0
        return iterator

    def take(self) -> Group | None:
        """The data of the next step; None if a pass is over. After that the next one begins."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None:
            return ahead
        if self._iterator is None and self._once:
            self.exhausted = True
            return None
        self._iterator = self._iterator or self._begin()
        group = self._collect()
        self.exhausted = not self._taken
        return group

    def _collect(self) -> Group | None:
        assert self._iterator is not None
        batches: list[Samples] = []
        for batch in self._iterator:
            self._taken += 1
            samples = self._checked(batch)
            if self._accumulate == 1:
                return Group(samples, None)
            batches.append(samples.copied())  # whoever gives them may use the same memory again
            if len(batches) == self._accumulate:
                break
        if not batches:
            self._iterator = None
            return None
        return Group(joined(batches), max(map(len, batches)))

    def _checked(self, batch: Any) -> Samples:
        """What `prepare` makes of a batch. Errors say which batch it is."""
        try:
            expected = _EXPECTED[self._fields]
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise TypeError(f"got {_kind(batch)}, expected {expected}")
            if self._fields and len(batch) != self._fields:
                raise ValueError(f"got {_kind(batch)}, expected {expected} as in batch 1")
            prepared = self._prepare(batch[0], batch[1], batch[2] if len(batch) == 3 else None)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            of_pass = f" of pass {self._passes}" if self._passes > 1 else ""
            raise kind(f"batch {self._taken}{of_pass}: {error}") from error
        self._fields = len(batch)
        return prepared


def _no_batches(given: object) -> str:
    return (
        "without Y, X must be an iterable of batches (X, Y) or a function that returns one, "
        f"got {_kind(given)}"
    )


def _kind(value: object) -> str:
    """What to call a value in an error message."""
    name = type(value).__name__
    if isinstance(value, (tuple, list)):
        return f"a {name} of {len(value)}"
    return f"{name} of shape {tuple(np.shape(value))}" if hasattr(value, "__array__") else name
