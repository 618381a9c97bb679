"""What all optimizers have in common: hyper-parameters that may be set, and a state for each model.

Which optimizers there are, and what each does, is in `fastbp.optimizers`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fastbp.checks import flag, known_options, number, positive
from fastbp.pages import PAGE, aligned
from fastbp.schedules import Learned, Schedule, rate, rates

Array = NDArray[Any]
Numbers = float | NDArray[np.float64]  # the same for every step, or one for each of them


class Owner:
    """Whose state it is: the parameters of one model, from when they are drawn until they are drawn anew.

    Nothing but an identity, which pickles and copies of a model and its optimizer, made together, share.
    """


class State:
    """What an optimizer remembers of one model: steps taken, and flat arrays as long as the parameters."""

    def __init__(self, size: int, buffers: int, dtype: np.dtype[Any]) -> None:
        self.counter = np.zeros(1, np.int64)
        zeros = aligned(buffers * size * dtype.itemsize).view(dtype)
        # (Each page is written to: those that were read while nobody had, and are then written by several
        # threads, take five times as long as new ones.)
        zeros[:: PAGE // dtype.itemsize] = 0
        self.buffers: list[Array] = list(zeros.reshape(buffers, size))

    @cached_property
    def learned(self) -> Learned:
        """By the schedule; most states serve none."""
        return Learned()

    @property
    def steps(self) -> int:
        """Steps taken: what `counter` says, in memory that compiled code may count in."""
        return int(self.counter[0])

    @steps.setter
    def steps(self, steps: int) -> None:
        self.counter[0] = steps


# Two threads that train one model for the first time must not begin a state each.
_beginning = threading.RLock()


def _renew_lock() -> None:
    """In a child process: the thread that held the lock in the parent does not exist here."""
    global _beginning
    _beginning = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Optimizer:
    """Base class. One object may train several models; it goes on with each one's state from call to call.

    Hyper-parameters are attributes that may be set, also while a training runs (by a callback): they are
    checked then, and hold from the next step on. What an optimizer has no use for any more is forgotten:
    momentum that is switched off and on again begins at 0.
    """

    rate_for_tables: ClassVar[float]  # lr that suits standardised columns and some dozens of epochs

    # Hyper-parameters that older pickles and checkpoints do not mention, and what they were then.
    later: ClassVar[Mapping[str, Any]] = {"decay_biases": True}

    lr: float | Schedule
    weight_decay: float

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        known_options(cls, options)
        return super().__new__(cls)

    def __init__(
        self, l1: float, clip_value: float | None, clip_norm: float | None, decay_biases: bool
    ) -> None:
        self.l1, self.clip_value, self.clip_norm, self.decay_biases = l1, clip_value, clip_norm, decay_biases
        self.check()
        self._states: WeakKeyDictionary[Owner, State] = WeakKeyDictionary()

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_") or "_states" not in vars(self):  # which is made last
            super().__setattr__(name, _own(value))
        else:
            self.assign({name: value})

    def assign(self, values: Mapping[str, Any]) -> None:
        """Set several hyper-parameters at once.

        ValueError or TypeError if there is no such one, one is not valid, or they do not go together: then
        none is set.
        """
        known_options(type(self), values)
        own = {name: _own(value) for name, value in values.items()}
        candidate = self.snapshot()
        vars(candidate).update(own)
        candidate.check()
        vars(self).update(own)

    def check(self) -> None:
        """Raise ValueError or TypeError if a hyper-parameter (an attribute that may be set) is not valid."""
        rate("lr", self.lr)
        number("weight_decay", self.weight_decay, low=0)
        number("l1", self.l1, low=0)
        flag("decay_biases", self.decay_biases)
        for name in ("clip_value", "clip_norm"):
            bound = getattr(self, name)
            if bound is not None:
                positive(name, bound, "None")

    def rates(self, first_step: int, last_step: int) -> NDArray[np.float64]:
        """The learning rates of steps first_step <= s < last_step, counted from 0.

        ValueError if a schedule gives something else.
        """
        found = rates(self.lr, np.arange(first_step, last_step))
        if found.shape != (last_step - first_step,):
            raise ValueError(
                f"lr: {self.lr!r} gives rates of shape {found.shape} for {last_step - first_step} steps"
            )
        bad = ~((found >= 0) & (found < np.inf))
        if bad.any():
            step = int(np.argmax(bad))
            raise ValueError(
                f"lr: {self.lr!r} gives {found[step]} for step {first_step + step}, expected a finite number "
                "of at least 0"
            )
        return found

    def _rates(self, first_step: int, last_step: int) -> Numbers:
        """`rates`, as one number where they are all the same: an array of them would take time."""
        return self.rates(first_step, last_step) if isinstance(self.lr, Schedule) else float(self.lr)

    @property
    def rule(self) -> str:
        """The engine's formula of a step (engine/kernels/optimizers.py), after clipping and l1."""
        raise NotImplementedError

    @property
    def buffers(self) -> int:
        """The number of arrays that the state needs: the rule's."""
        raise NotImplementedError

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        """What the rule reads, by name, in steps first_step <= s < last_step, counted from 0."""
        raise NotImplementedError

    def state(self, owner: Owner, size: int, dtype: np.dtype[Any]) -> State:
        """The state for `size` parameters of `dtype`, all zeros when their owner is first seen.

        The schedule, too, is then where it was with them.
        """
        state, buffers = self._states.get(owner), self.buffers
        if state is None:
            with _beginning:
                state = self._states.get(owner)
                if state is None:
                    state = self._states[owner] = State(size, buffers, dtype)
        if len(state.buffers) != buffers:  # momentum was switched on or off after the first steps
            kept = state.buffers[:buffers]
            # a new list: another thread may train with the arrays of the one that was
            state.buffers = kept + [np.zeros(size, dtype) for _ in range(buffers - len(kept))]
        if isinstance(self.lr, Schedule):
            self.lr.serve(state.learned)
        return state

    def __getstate__(self) -> dict[str, Any]:
        # Of models that are not pickled with it, owner and state are gone as soon as it is read again.
        return {**vars(self), "_states": dict(self._states)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        vars(self).update({name: value for name, value in self.later.items() if name not in state})
        self._states = WeakKeyDictionary(state["_states"])

    def snapshot(self) -> Self:
        """The hyper-parameters of this moment, whatever is set from now on; the states are the same ones."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def of_biases(self) -> Self:
        """What trains biases and gains: itself, or with decay_biases=False the same without decay."""
        if self.decay_biases:
            return self
        other = self.snapshot()
        vars(other).update(weight_decay=0.0, l1=0.0)
        return other

    def __copy__(self) -> Self:
        """The same hyper-parameters; a state would be that of two optimizers."""
        other = self.snapshot()
        other._states = WeakKeyDictionary()
        return other

    def __repr__(self) -> str:
        options = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not k.startswith("_"))
        return f"{type(self).__name__}({options})"


def _own(value: Any) -> Any:
    """A hyper-parameter as something that nobody can change in place, past all checks."""
    if isinstance(value, np.ndarray) and not value.ndim:
        return value.item()
    return tuple(value) if isinstance(value, list) else value
