"""Networks of one design in a chain: one plan trains them in one entry, each from its first step to its last.

For a network of some dozen weights and steps Python would take longer than the training itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numpy.typing import NDArray

from fastbp.engine import tables
from fastbp.engine.compile import jit
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.intrinsics import call, load_number, observe, peek
from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from fastbp.engine.entries.shuffling import bit_generator_at, shuffle
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
    """Networks that one plan trains one after another."""

    plan: int
    work: int  # of worker/train.py
    finite: int  # of kernels/finite.py
    shuffle: int  # of entries/shuffling.py
    order: int  # room for the order of some epochs
    epochs: int
    epochs_at_once: int  # that there is room for
    packed: int  # the plan's parameters
    numbers: int  # how many
    bad: int  # room for an integer
    stop: int  # address of a flag: not 0 ends it after the network that it is at
    links: int
    count: int


# Link.outcome. What was trained and did not stay finite is as it was before.
NOT_BEGUN, TRAINED, NOT_FINITE = 0, 1, 2
LINK_BYTES = size_of(Link)
link_at, chain_at = view_of(Link), view_of(Chain)


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
def _train(chain, plan, link):
    """All epochs of a network, of which some are ordered at a time: an order is read while it is in the
    cache."""
    epoch = np.int64(0)
    while epoch < chain.epochs:
        count, done = min(chain.epochs_at_once, chain.epochs - epoch), epoch * plan.steps_per_epoch
        plan.order = link.rows
        if link.generator != 0:
            plan.order = chain.order
            call(chain.shuffle, (link.generator, link.rows, plan.samples, chain.order, count))
        plan.last_step = count * plan.steps_per_epoch
        plan.coefficients = link.coefficients + done * plan.coefficients_row
        plan.losses = link.losses + done * 8
        plan.steps_before = link.steps_before + done
        plan.task = PACK + TRAIN if epoch == 0 else TRAIN
        call(chain.work, (0, 1, chain.plan))
        epoch += count


def _train_chain(address):
    chain = chain_at(address)
    plan = plan_at(chain.plan)
    for i in range(chain.count):
        if observe(chain.stop) != 0:
            return
        link = link_at(chain.links + i * LINK_BYTES)
        _bind(plan, link)
        _train(chain, plan, link)
        link.outcome = NOT_FINITE
        call(chain.finite, (chain.packed, chain.numbers, chain.bad))
        if peek(chain.bad, np.int64(0)) == 0 and np.isfinite(
            _sum(link.losses, chain.epochs * plan.steps_per_epoch)
        ):
            plan.task = UNPACK + UNPACK_STATES
            call(chain.work, (0, 1, chain.plan))
            link.outcome = TRAINED


@cache
def _entry() -> Any:
    return jit.dispatcher(_train_chain, (types.int64,))


class OfNetwork(NamedTuple):
    """What a network of a chain is trained with.

    parameters : flat, and states, what the rule keeps of each. generator : what the order of each epoch is
    drawn from, as `permutations` draws it (shuffling.py); None: no order. rows : the numbers of its rows, of
    those that are bound; None: all of them. coefficients : (steps, numbers), see settings.py. steps_before :
    of its life, for random numbers.
    """

    parameters: Array
    states: Sequence[Array]
    generator: np.random.Generator | None
    rows: NDArray[np.int64] | None
    coefficients: Array
    steps_before: int


def train_chain(
    plan: Plan,
    X: Any,
    Y: Any,
    networks: Sequence[OfNetwork],
    losses: NDArray[np.float64],
    stop: NDArray[np.int64],
) -> list[int]:
    """Train them on X and Y, as of `Plan.bind_data`; the outcome of each. losses : (networks, steps), for the
    result.

    One whose losses or parameters do not stay finite is NOT_FINITE, and as it was, but for its generator;
    NOT_BEGUN are those that come after the moment when `stop`, (1,), was set. A network's steps are done to
    their end. All have as many rows, steps and epochs, and either all have a generator or none.
    """
    first = networks[0]
    rows = len(X) if first.rows is None else len(first.rows)
    at_once = 1
    if first.generator is not None:
        at_once = max(1, ORDER_ENTRIES // rows)
    elif first.rows is None:
        at_once = losses.shape[1]
    order = np.empty(at_once * rows if first.generator is not None else 0, np.int64)
    plan.bind_data(X, Y, None if first.generator is None and first.rows is None else order)
    links, room = _links(networks, losses), np.zeros(1, np.int64)
    memory = aligned(size_of(Chain))
    chain, table, coefficients = at(Chain, data_at(memory)), plan.table, first.coefficients
    table.samples, table.steps_per_epoch = rows, -(-rows // plan.design.batch)
    chain.plan, chain.work, chain.finite = plan.address, plan.work, not_finite(plan.design.dtype.name)
    chain.shuffle, chain.order, chain.epochs_at_once = shuffle(), data_at(order), at_once
    chain.epochs = losses.shape[1] // table.steps_per_epoch
    chain.packed, chain.numbers = data_at(plan.packed), plan.packed.size
    chain.bad, chain.stop = data_at(room), data_at(stop)
    chain.links, chain.count = data_at(links), len(networks)
    table.first_step = 0
    table.coefficients_row = coefficients.strides[0]
    table.bias_coefficients = tables.bias_coefficients(plan.design, coefficients)
    plan.unbind()
    _entry()(data_at(memory))
    plan.threads = 1
    return [at(Link, data_at(links) + i * LINK_BYTES).outcome for i in range(len(networks))]


def _links(networks: Sequence[OfNetwork], losses: NDArray[np.float64]) -> NDArray[np.uint8]:
    """What compiled code reads of them, a `Link` each."""
    links = aligned(LINK_BYTES * len(networks))
    here, of_losses = data_at(links), data_at(losses)
    for network in networks:
        link = at(Link, here)
        states = [*map(data_at, network.states), 0, 0]
        link.parameters, link.first_state, link.second_state = data_at(network.parameters), *states[:2]
        link.generator = 0 if network.generator is None else bit_generator_at(network.generator)
        link.rows = 0 if network.rows is None else data_at(network.rows)
        link.coefficients, link.losses = data_at(network.coefficients), of_losses
        link.steps_before = network.steps_before
        here, of_losses = here + LINK_BYTES, of_losses + losses.strides[0]
    return links
