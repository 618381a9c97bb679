"""Short trainings of networks that are alike: many in one entry into compiled code.

What `fit` does in Python before and after its steps takes 0.1 to 0.2 ms, as long as a small network trains.
So networks of one design, with the same data and without callbacks, are trained in a chain: a plan for each
core, to which the data are bound once, and for each network its parameters, state, order and rates.
Compiled code of each core takes the next network. What comes out are the bits of `fit`.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.entries.chain import NOT_BEGUN, NOT_FINITE, TRAINED, Networks, Queue
from fastbp.engine.entries.shuffling import knows_positions
from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.engine.settings import has_biases_apart, rule_of, settings_of
from fastbp.engine.threads.meeting import Meeting
from fastbp.history import History
from fastbp.inputs.targets import LOOKED_AT, warn_if_out_of_reach
from fastbp.inspection.symmetry import warn_if_symmetric
from fastbp.many.members import Member, has_any
from fastbp.network.backend import divisors_of_steps
from fastbp.network.compiled import CompiledBackend
from fastbp.network.plans import Kind
from fastbp.network.spare_plans import SparePlans
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule

Array = NDArray[Any]

# Longer trainings go alone: Python's share of them is small, and Ctrl-C waits for the end of a chained one.
SHORT_SECONDS = 0.02
# How long a chain is for one core, so that Python's part of it is small and the progress is seen; and at
# least so many chains for each core, so that one's Python is done while the others train.
CHAIN_SECONDS, CHAINS_PER_CORE = 0.1, 2
# What steps take from optimizers (settings.py), by the optimizer and its steps so far.
Numbers = dict[tuple[int, int], Array]


class Chain:
    """Members that are trained by plans of one design; to a crew what one member is, but that several cores
    may take part.

    numbers : known already, of members that are alike; more are added.
    """

    def __init__(self, design: Design, members: Sequence[Member], numbers: Numbers) -> None:
        self.members, self._design, self._numbers = members, design, numbers
        self.seconds = members[0].seconds * len(members)
        self._first = first = members[0]
        self._rows, self._options = len(first), first.options
        self._batch_size, self._epochs = design.batch, first.options.epochs or 0
        self._steps = self._epochs * -(-self._rows // design.batch)
        self._losses = np.empty(0)
        self._states: list[State] = []
        # Held by the core that prepares or ends; the others come before or after.
        self._turn = threading.Lock()
        self._queue: Queue | None = None
        self._over, self._spent, self._ended = False, 0.0, set[int]()
        self._began: list[float] = []  # when those cores came that have not left

    @property
    def is_over(self) -> bool:
        """Whether none is left to be taken."""
        return self._over

    def train(
        self, spare: SparePlans, stop: NDArray[np.int64], meeting: Meeting
    ) -> tuple[list[Member], list[Member]]:
        """Take part until none is left that nobody has begun, or `stop` is set. The first core to come
        prepares all of them and begins the meeting; whoever leaves notes what has ended until then, so that
        little is left for the last one.

        Returns, of those that it notes, those that were trained, and those whose numbers do not stay finite,
        who are as before: a run of their own says what there is to be said of that. Those that did not have
        their turn are as before, too.
        """
        with self._turn:
            if self._over:
                return [], []
            if self._queue is None:
                # Others look meanwhile whether there is something to help with, and it is not over.
                try:
                    self._queue = self._prepared(stop)
                except BaseException:
                    self._over = True
                    raise
            began = time.perf_counter()
            self._began.append(began)
        try:
            plan = spare.take(self._design) or Plan(self._design)
            meeting.begin()
            self._queue.train(plan)
            spare.put(plan)
        finally:
            self._over = True
            with self._turn:
                outcomes = self._queue.outcomes
            # To take turns once more has this core see all that was written before the outcomes.
            with self._turn:
                self._began.remove(began)
                self._spent += time.perf_counter() - began
                of_outcome = self._note(outcomes)
        return of_outcome[TRAINED], of_outcome[NOT_FINITE]

    def _prepared(self, stop: NDArray[np.int64]) -> Queue:
        """All that compiled code needs of them."""
        networks, shuffles = Networks(), self._options.shuffle
        for member in self.members:
            model = member.model
            parameters, streams = model.parameters, model.streams
            look_at(member, member is self._first)
            flat = parameters.flat
            state = member.optimizer.state(parameters.owner, flat.size, flat.dtype)
            self._states.append(state)
            if shuffles:
                networks.generators.append(streams.located)
            networks.parameters.append(parameters.address)
            networks.states.append(state.buffers)
            networks.rows.append(member.rows)
            networks.coefficients.append(self._numbers_of(member.optimizer, state.steps))
            networks.steps_before.append(streams.steps_trained)
        self._losses = np.empty((len(self.members), self._steps))
        samples = self._first.samples.own_views()
        return Queue(networks, samples.X, samples.Y, self._batch_size, self._losses, stop)

    def _numbers_of(self, optimizer: Optimizer, steps_done: int) -> Array:
        """What each step takes from the optimizer."""
        key = id(optimizer), steps_done
        numbers = self._numbers.get(key)
        if numbers is None:
            architecture, steps = self._first.model.architecture, self._steps
            divisors = divisors_of_steps(self._rows, self._batch_size, 0, steps, architecture.reduction)
            of_steps = optimizer, steps_done, steps, divisors
            rows = settings_of(*of_steps, architecture.dtype, architecture.l2)
            numbers = np.ascontiguousarray(rows)  # of all networks they are equally far apart
            self._numbers[key] = numbers
        return numbers

    def _note(self, outcomes: Sequence[int]) -> dict[int, list[Member]]:
        """What a run notes at its end, of all that have ended since; returns those of each outcome."""
        fresh = [i for i, outcome in enumerate(outcomes) if outcome != NOT_BEGUN and i not in self._ended]
        self._ended.update(fresh)
        of_outcome: dict[int, list[Member]] = {TRAINED: [], NOT_FINITE: []}
        for i in fresh:
            of_outcome[outcomes[i]].append(self.members[i])
        self._note_trained([i for i in fresh if outcomes[i] == TRAINED])
        if not self._began:  # the last core has left
            self._losses, self._states = np.empty(0), []
        return of_outcome

    def _note_trained(self, indices: Sequence[int]) -> None:
        """Each has its share of the time that cores have spent so far."""
        divisor = 1 if self._first.model.architecture.reduction == "sum" else self._rows
        epochs, steps = self._epochs, self._steps
        by_epoch = self._losses[indices].reshape(len(indices), epochs, steps // epochs)
        of_epochs, at = (by_epoch.sum(axis=2) / divisor).tobytes(), 0
        now = time.perf_counter()
        spent = self._spent + sum(now - began for began in self._began)
        seconds = spent / max(1, len(self._ended))
        rates: dict[float, bytes] = {}
        of_epoch = np.full(epochs, seconds / epochs).tobytes()
        for i in indices:
            member, model = self.members[i], self.members[i].model
            self._states[i].counter[0] += steps
            model.streams.counter[0] += steps
            model.parameters.changed()
            lr = float(member.optimizer.lr)  # type: ignore[arg-type]  # no schedule, see _suits
            lrs = rates.get(lr)
            if lrs is None:
                lrs = rates[lr] = np.full(epochs, lr).tobytes()
            member.history = History._of_run(of_epochs[at : at + len(lrs)], lrs, of_epoch, seconds)
            member.ended = True
            at += len(lrs)


def look_at(member: Member, is_first: bool) -> None:
    """What a run does with its samples and parameters before the first step; is_first: of those that share
    samples."""
    samples, model = member.samples, member.model
    model.reader.learns(samples)
    if member.rows is not None:
        samples = samples.picked(member.rows[:LOOKED_AT])
    if member.rows is not None or is_first:
        output, loss = model.architecture.activations[-1], model.architecture.loss
        warn_if_out_of_reach(samples.targets, output, loss, model.backend.is_within)
    warn_if_symmetric(model)


def chained(members: Sequence[Member], threads: int) -> tuple[list[Chain], list[Member]]:
    """Chains of those members that can be trained so, and the others."""
    alike: dict[Hashable, list[Member]] = {}
    others: list[Member] = []
    # The list that members of a kind go to: most of many need no other look.
    known: dict[Hashable, list[Member]] = {}
    for member in members:
        same = member.kind, None if member.rows is None else len(member.rows)
        found = known.get(same)
        if found is None:
            suits = _suits(member)
            found = alike.setdefault(_key(member), []) if suits else others
            if not member.model.architecture.is_noisy:
                known[same] = found
        found.append(member)
    chains: list[Chain] = []
    total = sum(member.seconds for member in members)
    most = min(CHAIN_SECONDS, total / (CHAINS_PER_CORE * threads))
    for of_key in alike.values():
        if len(of_key) > 1:
            design, numbers = _design(of_key[0]), Numbers()
            chains += [Chain(design, part, numbers) for part in _cut(of_key, most)]
        else:
            others += of_key
    return chains, others


def _cut(members: Sequence[Member], seconds: float) -> Iterator[Sequence[Member]]:
    """Pieces that take about so long, of at least two members."""
    count = max(2, int(seconds / members[0].seconds))
    pieces = max(1, len(members) // count)
    ends = [round(len(members) * i / pieces) for i in range(pieces + 1)]
    for first, last in itertools.pairwise(ends):
        yield members[first:last]


def _suits(member: Member) -> bool:
    """Whether the network may be trained in a chain."""
    options = member.options
    return (
        options.accumulate == 1
        and options.class_weight is None
        and bool(options.epochs)
        and not has_any(options.sorted_callbacks)
        and member.held_out is None
        and member.seconds <= SHORT_SECONDS
        and not isinstance(member.optimizer.lr, Schedule)
        and member.model.architecture.reduction != "weighted_mean"
        and isinstance(member.model.backend, CompiledBackend)
        and not member.samples.mapped_files("X", "Y")
        and knows_positions()
    )


def _key(member: Member) -> Hashable:
    """Equal for members that one plan can train one after another."""
    options, optimizer, architecture = member.options, member.optimizer, member.model.architecture
    rule, l2 = rule_of(optimizer, architecture.l2), architecture.l2
    of_optimizer = rule, optimizer.clip_norm is None, has_biases_apart(optimizer, l2)
    rows = None if member.rows is None else len(member.rows)
    course = options.epochs, options.batch_size, options.shuffle
    return architecture.alike, member.model.backend.noise_key, id(member.samples), rows, course, of_optimizer


def _design(member: Member) -> Design:
    """Of the plan for the member, and for those that have its key."""
    backend, optimizer = member.model.backend, member.optimizer
    assert isinstance(backend, CompiledBackend)
    rule = rule_of(optimizer, member.model.architecture.l2)
    batch = min(member.options.batch_size, len(member))
    return backend.design(
        Kind("train", rule, batch, member.samples.weighted, clip_norm=optimizer.clip_norm is not None)
    )
