"""Prints digests of what the engine computes, for test_same_bits.py: python engine_bits.py.

A process of its own, because the number of Numba's threads is fixed when a process starts. One line for each
way of working, `name digest team`: the digest is over all results in order, `team` the usual size of the
teams that came together.
"""

import hashlib
import os
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import numba
import numpy as np
from definitions import LOSS_NAMES, outputs_for, targets
from definitions import OPTIMIZERS as DEFINED

import fastbp
import fastbp.model
from fastbp import activations, losses
from fastbp.activations import ACTIVATIONS
from fastbp.engine import binding, memory, plan
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.compile.struct import at
from fastbp.engine.entries import two_layer
from fastbp.engine.threads import team
from fastbp.engine.threads.runtime import Runtime, runtime

# Around one, two and four vectors of every width there is, and around the heights of tiles (6, 8, 14, 16).
WIDTHS = [1, 2, 7, 13, 14, 15, 16, 17, 31, 32, 33, 100]
BATCHES = [1, 2, 3, 7, 8, 13, 29, 64]
OUTPUTS = [(output, "mse") for output in activations.OUTPUTS] + [
    (output, loss)
    for loss in LOSS_NAMES
    if loss not in ("mse", "categorical_crossentropy(0.1)")
    for output in ([losses.get(loss).output] if losses.get(loss).output else ["identity", "silu"])
]
OPTIMIZERS = {
    label: partial(getattr(fastbp, name), **options)
    for name, definition in DEFINED.items()
    for label, options in definition.small_steps.items()
}
STEPS = 20
# Each worker gathers batches for itself, or all of them share them.
NEAR_DATA = binding.NEAR_DATA, 0
# In bfloat16 all steps keep what they round, or only large ones.
PAIRS_FROM = 0, memory.PAIRS_FROM
# (batch, layer sizes) of networks whose last layer is cut into parts, with two to sixteen of them; behind
# them some whose two parts are small or of unequal size.
IN_PARTS = [
    (29, [33, 128, 3]),
    (64, [5, 256, 10]),
    (13, [17, 40, 128, 1]),
    (5, [9, 512, 12]),
    (37, [20, 192, 2]),
    (32, [32, 64, 1]),
    (50, [19, 45, 7]),
    (70, [8, 20, 45, 3]),
]
# What the networks at these places have besides.
IN_PARTS_TOO: dict[int, dict[str, Any]] = {3: {"dropout": 0.3}, 6: {"l2": 0.1}, 7: {"max_norm": 0.5}}
# What a network may have besides: the cases take turns, most of them with nothing.
REGULAR: list[dict[str, Any]] = [
    {},
    {},
    {"layer_norm": True},
    {"dropout": 0.4},
    {"precision": "bfloat16"},
    {"input_noise": 0.2, "dropout": 0.4, "layer_norm": True},
]


def force_teams() -> None:
    """A team for everything, however small, and never a trial whether that is faster."""
    bounds = [name for name in vars(plan) if "TEAM_FROM" in name]
    assert bounds
    for name in bounds:
        setattr(plan, name, 0)
    two_layer.TEAM_NANOSECONDS = 0
    table = at(Runtime, runtime())
    table.least = table.worth = 0


def cases() -> list[tuple[str, str, str, str, str]]:
    """(hidden, output, loss, optimizer, dtype): every pair of hidden and output, every optimizer with every
    hidden and with every output, and both dtypes with each of these, though not every combination."""
    optimizers = list(OPTIMIZERS)
    return [
        (hidden, output, loss, optimizers[(i + j) % len(optimizers)], ("float32", "float64")[j % 2])
        for i, hidden in enumerate(ACTIVATIONS)
        for j, (output, loss) in enumerate(OUTPUTS)
    ]


def network(
    rng: np.random.Generator, output: str, loss: str, dtype: str
) -> tuple[list[int], int, np.ndarray, np.ndarray]:
    """Layer sizes, batch size, X and Y of a random shape; the last batch of an epoch is often smaller."""
    depth = rng.integers(1, 5)
    sizes = [int(n) for n in rng.choice(WIDTHS, depth + 1)]
    sizes[-1] += output == "softmax" and sizes[-1] == 1
    sizes[-1] = outputs_for(loss, sizes[-1])
    batch = int(rng.choice(BATCHES))
    samples = batch * 2 + int(rng.integers(0, batch))
    X = rng.standard_normal((samples, sizes[0])).astype(dtype)
    return sizes, batch, X, rng.random((samples, sizes[-1])).astype(dtype)


def _many_kinds(threads: int, every: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Every activation, output, optimizer and dtype: parameters, losses, and of some all that there is."""
    for i, (hidden, output, loss, optimizer, dtype) in enumerate(cases()):
        sizes, batch, X, Y = network(rng, output, loss, dtype)
        Y = targets(loss, Y)
        if i % every:
            continue
        regular = REGULAR[i // every % len(REGULAR)]
        binding.NEAR_DATA = NEAR_DATA[i // every % 2]
        if len(sizes) == 2:  # no hidden layer
            regular = {k: value for k, value in regular.items() if k in ("input_noise", "precision")}
        if dtype == "float64":
            regular = {k: value for k, value in regular.items() if k != "precision"}
        memory.PAIRS_FROM = PAIRS_FROM[i // every // len(REGULAR) % 2]
        scale = 1.0
        if i % 4 == 1:  # rows that are converted as they are gathered
            X, scale = (20 * X).astype(np.int8), 0.05
        max_norm = 0.8 if i % 3 == 1 else None
        kind = {"hidden": hidden, "output": output, "loss": loss, "dtype": dtype, "max_norm": max_norm}
        model = fastbp.MLP(sizes, seed=i, threads=threads, input_scale=scale, **kind, **regular)
        for b in model.biases:
            b[...] = np.linspace(-0.5, 0.5, len(b))
        rule = OPTIMIZERS[optimizer]()
        if output == "exp":  # soon grows beyond all bounds
            rule.lr *= 1e-3
            model.weights[-1][...] *= 0.05
        history = model.fit(
            X,
            Y,
            epochs=-(-STEPS // -(-len(X) // batch)),
            batch_size=batch,
            accumulate=2 if i // every % 7 == 5 else 1,
            optimizer=rule,
            shuffle=i % 3 > 0,
            sample_weight=np.linspace(0, 2, len(X)) if i % 4 == 1 else None,
            progress=False,
        )
        yield model.parameters.flat.tobytes()
        yield history.loss.tobytes()
        if i % 8 == 0:
            yield from _passes(model, X, Y)


def _passes(model: fastbp.MLP, X: np.ndarray, Y: np.ndarray) -> Iterator[bytes]:
    trace = model.forward(X)
    gradients = model.backward(trace, Y)
    of_trace = *trace.z, *trace.a, *trace.n, *trace.inverse_std
    of_loss = *gradients.weights, *gradients.biases, *gradients.gains
    for array in (*of_trace, *of_loss, model.predict(X)):
        yield array.tobytes()


def _partial_sums(threads: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Narrow output layers, whose dot products are cut into parts."""
    for i, (batch, sizes) in enumerate(IN_PARTS):
        for j, optimizer in enumerate(["sgd", "adam", "sgd-norm"]):
            dtype = ("float32", "float64")[(i + j) % 2]
            binding.NEAR_DATA = NEAR_DATA[j // 2]
            X = rng.standard_normal((3 * batch - 2, sizes[0])).astype(dtype)
            Y = rng.random((len(X), sizes[-1])).astype(dtype)
            model = fastbp.MLP(sizes, dtype=dtype, seed=i, threads=threads, **IN_PARTS_TOO.get(i, {}))
            history = model.fit(
                X,
                Y,
                epochs=STEPS // 3 + 1,
                batch_size=batch,
                optimizer=OPTIMIZERS[optimizer](),
                shuffle=i > 0,
                progress=False,
            )
            yield model.parameters.flat.tobytes()
            yield history.loss.tobytes()


def _drop_in_functions(rng: np.random.Generator) -> Iterator[bytes]:
    shapes = [(1, 1, 1, 1), (7, 13, 33, 2), (64, 100, 31, 17), (13, 2, 100, 33)]
    for dtype in ("float32", "float64"):
        for batch, inputs, hidden_units, outputs in shapes:
            X = rng.standard_normal((batch, inputs)).astype(dtype)
            Y = rng.random((batch, outputs)).astype(dtype)
            model = fastbp.MLP([inputs, hidden_units, outputs], dtype=dtype, seed=0)
            (W1, W2), (b1, b2) = model.weights, model.biases
            z1, a1, z2, y_pred = fastbp.forward(X, W1, b1, W2, b2)
            for array in (z1, a1, z2, y_pred, *fastbp.backward(X, Y, z1, a1, y_pred, W2)):
                yield array.tobytes()
            for _ in range(STEPS):
                yield np.float64(fastbp.train_step(X, Y, W1, b1, W2, b2, 0.01)).tobytes()
            yield model.parameters.flat.tobytes()


def results(threads: int, every: int = 1) -> Iterator[bytes]:
    """The bytes of everything that is computed, with at most `threads` threads, for every `every`-th case."""
    rng = np.random.default_rng(11)
    yield from _many_kinds(threads, every, rng)
    yield from _partial_sums(threads, rng)
    numba.set_num_threads(threads)  # the drop-in functions have no other way to be told
    yield from _drop_in_functions(rng)
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)


def main() -> None:
    every = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    assert len({dtype for *_, dtype in cases()[::every]}) == 2, f"one dtype only in every case of {every}"
    run = team.run
    sizes = []

    def spy(*arguments):
        sizes.append(run(*arguments))
        return sizes[-1]

    def a_team_of_one(work, address, threads, door):
        return team.enter()(team.together(), 1, work, address, data_at(door))

    most = 1 if numba.config.DISABLE_JIT else int(numba.config.NUMBA_NUM_THREADS)
    ways = [(f"threads-{n}", n, spy) for n in range(1, most + 1)]
    if not numba.config.DISABLE_JIT:
        ways.append(("team-of-one", 1, a_team_of_one))
    ways.append(("again", most, spy))
    force_teams()
    for name, threads, how in ways:
        sizes.clear()
        digest = hashlib.sha256()
        with mock.patch.object(team, "run", how):
            for data in results(threads, every):
                digest.update(data)
        print(name, digest.hexdigest()[:16], int(statistics.median(sizes or [1])), flush=True)
    os._exit(0)  # no waiting for the threads


if __name__ == "__main__":
    main()
