"""Networks of one design in a chain: compiled code of each core takes the next one, and trains it from its
first step to its last.

For a network of some dozen weights and steps Python would take longer than the training itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.intrinsics import call, fetch_add, load_number, observe, peek, publish
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.entries.shuffling import POSITION, go_back, keep_position, shuffle
from fastbp.engine.kernels.finite import not_finite
from fastbp.engine.memory import aligned
from fastbp.engine.plan import Plan
from fastbp.engine.structs import (
    PACK,
    TRAIN,
    UNPACK,
    UNPACK_STATES,
    caller_parameters,
    layer_at,
    plan_at,
)

Array = NDArray[Any]

# Rows of the epochs that are ordered at a time, where they are more than one.
ORDER_ENTRIES = 1024


@struct
class Link(Struct):
    """A network of a chain: addresses of what is its own."""

    parameters: int  # flat, the caller's
    first_state: int
    second_state: int
    generator: int  # of a bitgen_t, which orders are drawn from; 0: rows are taken as they lie
    rows: int  # the numbers of its rows, for each epoch; 0: all of them
    coefficients: int  # these as in structs.Plan
    losses: int
    steps_before: int
    outcome: int  # NOT_BEGUN, TRAINED or NOT_FINITE


@struct
class Chain(Struct):
    """Networks that are trained by whichever core is free."""

    links: int
    count: int
    taken: int  # address of how many were taken by a core
    stop: int  # address of a flag: not 0 has each core end after the network that it is at
    epochs: int
    epochs_at_once: int  # that a core has room for the order of
    shuffle: int  # of entries/shuffling.py


@struct
class Core(Struct):
    """What one of the cores trains the networks of a chain with."""

    chain: int
    plan: int
    work: int  # of worker/train.py
    order: int  # room for the order of some epochs
    packed: int  # the plan's parameters
    numbers: int  # how many
    finite: int  # of kernels/finite.py
    bad: int  # room for its answer
    position: int  # room for where a generator was


# Link.outcome. What was trained and did not stay finite is as it was before.
NOT_BEGUN, TRAINED, NOT_FINITE = 0, 1, 2
LINK_BYTES = size_of(Link)
# The column of each field, where Python fills links in as rows of a table.
COLUMNS = {name: i for i, (name, _) in enumerate(Link._fields_)}
OUTCOME = 8 * COLUMNS["outcome"]
link_at, chain_at, core_at = view_of(Link), view_of(Chain), view_of(Core)


@inner
def _bind(plan, link):
    """Parameters and states lie in the order W1, b1, W2, b2, ... (fastbp/network/layout.py)."""
    before = np.int64(0)
    for i in range(plan.layers):
        layer = layer_at(plan, i)
        weights, biases = layer.fan_in * layer.fan_out * plan.itemsize, layer.fan_out * plan.itemsize
        for k in range(1 + plan.states):
            start = before + link.parameters
            if k == 1:
                start = before + link.first_state
            elif k == 2:
                start = before + link.second_state
            caller = caller_parameters(layer, k)
            caller.W, caller.b, caller.g = start, start + weights, start + weights + biases
        before += weights + biases
        if layer.normalisation.forward != 0:
            before += biases  # the gains


@inner
def _sum(losses, steps):
    total = 0.0
    for step in range(steps):
        total += load_number(losses + 8 * step, np.float64(0))
    return total


@inner
def _train(chain, core, plan, link):
    """All epochs of a network, of which some are ordered at a time: an order is read while it is in the
    cache."""
    epoch = np.int64(0)
    while epoch < chain.epochs:
        count, done = min(chain.epochs_at_once, chain.epochs - epoch), epoch * plan.steps_per_epoch
        plan.order = link.rows
        if link.generator != 0:
            plan.order = core.order
            call(chain.shuffle, (link.generator, link.rows, plan.samples, core.order, count))
        plan.last_step = count * plan.steps_per_epoch
        plan.coefficients = link.coefficients + done * plan.coefficients_row
        plan.losses = link.losses + done * 8
        plan.steps_before = link.steps_before + done
        plan.task = PACK + TRAIN if epoch == 0 else TRAIN
        call(core.work, (0, 1, core.plan))
        epoch += count


def _train_chain(address):
    core = core_at(address)
    chain, plan = chain_at(core.chain), plan_at(core.plan)
    while observe(chain.stop) == 0:
        i = fetch_add(chain.taken, 1)
        if i >= chain.count:
            return
        link = link_at(chain.links + i * LINK_BYTES)
        if link.generator != 0:
            keep_position(link.generator, core.position)
        _bind(plan, link)
        _train(chain, core, plan, link)
        outcome = NOT_FINITE
        call(core.finite, (core.packed, core.numbers, core.bad))
        if peek(core.bad, np.int64(0)) == 0 and np.isfinite(
            _sum(link.losses, chain.epochs * plan.steps_per_epoch)
        ):
            plan.task = UNPACK + UNPACK_STATES
            call(core.work, (0, 1, core.plan))
            outcome = TRAINED
        elif link.generator != 0:
            go_back(link.generator, core.position)
        publish(link.here + OUTCOME, outcome)


@cache
def _entry() -> Any:
    return jit.dispatcher(_train_chain, (types.int64,))


@dataclass
class Networks:
    """Networks of a chain, a list entry for each.

    parameters : where the flat ones lie. states : what the rule keeps of each of them. generators : what the
    order of each epoch is drawn from, as `permutations` draws it (shuffling.py), and its address; none: no
    order. rows : the numbers of its rows, of those that all share; None: all of them. coefficients : (steps,
    numbers), see settings.py. steps_before : of its life, for random numbers.

    All have as many rows, steps and epochs, and either all have a generator or none.
    """

    parameters: list[int] = field(default_factory=list)
    states: list[Sequence[Array]] = field(default_factory=list)
    generators: list[tuple[np.random.Generator, int]] = field(default_factory=list)
    rows: list[NDArray[np.int64] | None] = field(default_factory=list)
    coefficients: list[Array] = field(default_factory=list)
    steps_before: list[int] = field(default_factory=list)

    def links(self, losses: NDArray[np.float64]) -> NDArray[np.int64]:
        """What compiled code reads of them, a `Link` each; losses : (networks, steps)."""
        links = aligned(LINK_BYTES * len(losses)).view(np.int64).reshape(len(losses), len(COLUMNS))
        columns = {name: links[:, i] for name, i in COLUMNS.items()}
        columns["parameters"][:] = self.parameters
        of_states = zip(*self.states, strict=True)
        for name, states in zip(("first_state", "second_state"), of_states, strict=False):
            columns[name][:] = [data_at(state) for state in states]
        if self.generators:
            columns["generator"][:] = [place for _, place in self.generators]
        if self.rows[0] is not None:
            columns["rows"][:] = [data_at(rows) for rows in self.rows if rows is not None]
        columns["coefficients"][:] = [data_at(numbers) for numbers in self.coefficients]
        columns["losses"][:] = data_at(losses) + np.arange(len(losses)) * losses.strides[0]
        columns["steps_before"][:] = self.steps_before
        return links


class Queue:
    """The networks of a chain, which are taken by as many cores as call `train`.

    X, Y : as of `Plan.bind_data`. losses : (networks, steps), for the result. stop : (1,), a flag that ends
    all cores after the network that each is at.
    """

    def __init__(
        self,
        networks: Networks,
        X: Any,
        Y: Any,
        batch_size: int,
        losses: NDArray[np.float64],
        stop: NDArray[np.int64],
    ) -> None:
        self._networks, self._data, self._losses, self._stop = networks, (X, Y), losses, stop
        of_first = networks.rows[0]
        self._rows = len(X) if of_first is None else len(of_first)
        self._shuffles, self._picks = bool(networks.generators), of_first is not None
        self._links, self._taken = networks.links(losses), aligned(64).view(np.int64)
        self._memory = aligned(size_of(Chain))
        chain = self._chain = at(Chain, data_at(self._memory))
        chain.links, chain.count, chain.taken = data_at(self._links), len(losses), data_at(self._taken)
        chain.stop, chain.shuffle = data_at(stop), shuffle()
        chain.epochs = losses.shape[1] // -(-self._rows // batch_size)
        chain.epochs_at_once = 1
        if self._shuffles:
            chain.epochs_at_once = max(1, ORDER_ENTRIES // self._rows)
        elif not self._picks:
            chain.epochs_at_once = chain.epochs

    @property
    def outcomes(self) -> list[int]:
        """What has become of each so far. One whose losses or parameters do not stay finite is NOT_FINITE,
        and as it was; NOT_BEGUN are those that a core is still at, and those that come after the moment when
        `stop` was set. A network's steps are done to their end."""
        return self._links[:, COLUMNS["outcome"]].tolist()

    def train(self, plan: Plan) -> None:
        """Take networks and train them, by one core, until none is left. The plan is the caller's alone."""
        order = np.empty(self._chain.epochs_at_once * self._rows if self._shuffles else 0, np.int64)
        plan.bind_data(*self._data, order if self._shuffles or self._picks else None)
        memory, room, table = aligned(size_of(Core)), np.zeros(1 + POSITION, np.int64), plan.table
        core, coefficients = at(Core, data_at(memory)), self._networks.coefficients[0]
        core.chain, core.plan, core.work = self._chain.here, plan.address, plan.work
        core.order, core.packed, core.numbers = data_at(order), data_at(plan.packed), plan.packed.size
        core.finite, core.bad = not_finite(plan.design.dtype.name), data_at(room)
        core.position = core.bad + 8
        table.samples, table.steps_per_epoch = self._rows, -(-self._rows // plan.design.batch)
        table.first_step = 0
        plan.bind_coefficients(coefficients)
        plan.unbind()
        _entry()(data_at(memory))
        plan.threads = 1
