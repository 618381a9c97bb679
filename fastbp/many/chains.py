"""Short trainings of networks that are alike: many in one entry into compiled code.

What `fit` does in Python before and after its steps takes some 0.3 ms, as long as a small network trains. So
networks of one design, with the same data and without callbacks, are trained in a chain: one plan, to which
the data are bound once, and for each network its parameters, state, order and rates. What comes out are the
bits of `fit`.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.engine.entries.chain import NOT_FINITE, TRAINED, OfNetwork, train_chain
from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.engine.settings import has_biases_apart, rule_of, settings_of
from fastbp.inputs.samples import Samples
from fastbp.inputs.targets import LOOKED_AT, warn_if_out_of_reach
from fastbp.inspection.symmetry import warn_if_symmetric
from fastbp.many.members import Member, has_any
from fastbp.network.backend import divisors_of_steps
from fastbp.network.compiled import CompiledBackend
from fastbp.network.spare_plans import SparePlans
from fastbp.optimizer_base import Optimizer, State
from fastbp.schedules import Schedule
from fastbp.training.options import FitOptions

Array = NDArray[Any]

# Longer trainings go alone: Python's share of them is small, and Ctrl-C waits for the end of a chained one.
SHORT_SECONDS = 0.02
# How long an entry is, so that Python's part of it is small; and at least so many chains for each core, so
# that all of them end together.
CHAIN_SECONDS, CHAINS_PER_CORE = 0.02, 8
# What steps take from optimizers (settings.py), by the optimizer and its steps so far.
Numbers = dict[tuple[int, int], Array]


class Chain:
    """Members that one plan of that design trains one after another; to a crew what one member is.

    numbers : known already, of members that are alike; more are added.
    """

    def __init__(self, design: Design, members: Sequence[Member], numbers: Numbers) -> None:
        self.members, self._design, self._numbers = list(members), design, numbers
        self.seconds = sum(member.seconds for member in members)
        self._first = first = self.members[0]
        self._rows, self._options = len(first), first.options
        self._batch_size, self._epochs = design.batch, first.options.epochs or 0
        self._per_epoch = -(-self._rows // design.batch)
        self._losses = np.empty((len(members), self._epochs * self._per_epoch))

    def train(self, spare: SparePlans, stop: NDArray[np.int64]) -> list[Member]:
        """Train them, until `stop` is set.

        Returns those whose numbers do not stay finite, who are as before: a run of their own says what there
        is to be said of that. Those that did not have their turn are as before, too.
        """
        plan = spare.take(self._design) or Plan(self._design)
        drawn: list[tuple[np.random.Generator, Mapping[str, Any]]] = []
        outcomes: list[int] = []
        try:
            networks, states = self._prepared(drawn)
            samples = self._first.samples.own_views()
            began = time.perf_counter()
            outcomes = train_chain(plan, samples.X, samples.Y, networks, self._losses, stop)
            seconds = (time.perf_counter() - began) / len(networks)
        finally:
            for i, (generator, before) in enumerate(drawn):
                if i >= len(outcomes) or outcomes[i] != TRAINED:
                    generator.bit_generator.state = before
        spare.put(plan)
        self._note(states, outcomes, seconds)
        return [m for m, outcome in zip(self.members, outcomes, strict=True) if outcome == NOT_FINITE]

    def _prepared(
        self, drawn: list[tuple[np.random.Generator, Mapping[str, Any]]]
    ) -> tuple[list[OfNetwork], list[State]]:
        """What each is trained with. drawn: is given the generators that orders are drawn from, and where
        they were."""
        networks, states = [], []
        for member in self.members:
            model = member.model
            parameters, streams = model.parameters, model.streams
            state = member.optimizer.state(parameters.owner, len(parameters), parameters.flat.dtype)
            numbers = self._numbers_of(member.optimizer, state.steps)
            self._look_at(member)
            generator = streams.shuffling if self._options.shuffle else None
            if generator is not None:
                drawn.append((generator, generator.bit_generator.state))
            own = generator, member.rows, numbers, streams.steps_trained
            states.append(state)
            networks.append(OfNetwork(parameters.flat, state.buffers, *own))
        return networks, states

    def _look_at(self, member: Member) -> None:
        """What a run does with its samples and parameters before the first step."""
        samples, architecture = member.samples, member.model.architecture
        member.model.reader.learns(samples)
        if member.rows is not None:
            samples = samples.picked(member.rows[:LOOKED_AT])
        if member.rows is not None or member is self._first:
            warn_if_out_of_reach(samples.targets, architecture.activations[-1], architecture.loss)
        warn_if_symmetric(member.model)

    def _numbers_of(self, optimizer: Optimizer, steps_done: int) -> Array:
        """What each step takes from the optimizer."""
        key = id(optimizer), steps_done
        if key not in self._numbers:
            architecture, steps = self._first.model.architecture, self._losses.shape[1]
            divisors = divisors_of_steps(self._rows, self._batch_size, 0, steps, architecture.reduction)
            of_steps = optimizer, steps_done, steps, divisors
            self._numbers[key] = settings_of(*of_steps, architecture.dtype, architecture.l2)
        return self._numbers[key]

    def _note(self, states: Sequence[State], outcomes: Sequence[int], seconds: float) -> None:
        """What a run notes at its end; seconds: of each network."""
        divisor = 1 if self._first.model.architecture.reduction == "sum" else self._rows
        of_epochs = self._losses.reshape(len(self.members), self._epochs, -1).sum(axis=2) / divisor
        steps = self._losses.shape[1]
        for member, state, outcome, losses in zip(self.members, states, outcomes, of_epochs, strict=True):
            if outcome == TRAINED:
                model, history = member.model, member.history
                state.steps += steps
                model.streams.steps_trained += steps
                model.parameters.changed()
                lr = float(member.optimizer.lr)  # type: ignore[arg-type]  # no schedule, see _key
                history._add_epochs(losses, lr, seconds / self._epochs)
                history.seconds, member.ended = seconds, True


def chained(members: Sequence[Member], threads: int) -> tuple[list[Chain], list[Member]]:
    """Chains of those members that can be trained so, and the others."""
    alike: dict[Hashable, list[Member]] = {}
    others: list[Member] = []
    suitable: dict[tuple[int, int], bool] = {}
    for member in members:
        told = id(member.options), id(member.samples)
        if told not in suitable:
            suitable[told] = _suit(member.options, member.samples)
        if suitable[told] and _suits(member):
            alike.setdefault(_key(member), []).append(member)
        else:
            others.append(member)
    chains: list[Chain] = []
    total = sum(member.seconds for member in members)
    most = min(CHAIN_SECONDS, total / (CHAINS_PER_CORE * threads))
    for of_key in alike.values():
        design, numbers = _design(of_key[0]), Numbers()
        for part in _cut(of_key, most):
            if len(part) > 1:
                chains.append(Chain(design, part, numbers))
            else:
                others += part
    return chains, others


def _cut(members: Sequence[Member], seconds: float) -> Iterator[Sequence[Member]]:
    """Pieces that take so long at most, or are one member."""
    count = max(1, int(seconds / members[0].seconds))
    for start in range(0, len(members), count):
        yield members[start : start + count]


def _suit(options: FitOptions, samples: Samples) -> bool:
    """Whether what is told so, of such data, may be done in a chain."""
    return (
        options.accumulate == 1
        and options.class_weight is None
        and bool(options.epochs)
        and not has_any(options.sorted_callbacks)
        and not samples.mapped_files("X", "Y")
    )


def _suits(member: Member) -> bool:
    """Whether the network may be trained in a chain, as far as that is a matter of its own."""
    return (
        member.held_out is None
        and member.seconds <= SHORT_SECONDS
        and not isinstance(member.optimizer.lr, Schedule)
        and member.model.architecture.reduction != "weighted_mean"
        and isinstance(member.model.backend, CompiledBackend)
    )


def _key(member: Member) -> Hashable:
    """Equal for members that one plan can train one after another."""
    options, optimizer, architecture = member.options, member.optimizer, member.model.architecture
    rule, l2 = rule_of(optimizer, architecture.l2), architecture.l2
    of_optimizer = rule, optimizer.clip_norm is None, has_biases_apart(optimizer, l2)
    noise = member.model.streams.noise_key if architecture.is_noisy else None
    rows = None if member.rows is None else len(member.rows)
    course = options.epochs, options.batch_size, options.shuffle
    return architecture.alike, noise, id(member.samples), rows, course, of_optimizer


def _design(member: Member) -> Design:
    """Of the plan for the member, and for those that have its key."""
    backend, optimizer = member.model.backend, member.optimizer
    assert isinstance(backend, CompiledBackend)
    return backend.design(
        "train",
        rule_of(optimizer, member.model.architecture.l2),
        min(member.options.batch_size, len(member)),
        weighted=member.samples.weighted,
        clip_norm=optimizer.clip_norm is not None,
    )
