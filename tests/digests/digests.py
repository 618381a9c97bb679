"""Prints a digest of what each of many small trainings computes.

    python digests.py > before.txt
    python digests.py --compare before.txt --only "loss/*"

One line a configuration, `name<TAB>digest`. The digest covers the history, the parameters after training, the
predictions, and the trace and gradients of a batch, to the last bit. A change of the engine that should not
change results is right when the digests on one machine are the ones from before it. On another processor they
may differ, as vectors of another width add up in another order.

It uses nothing but what users may use, so that it runs unchanged on commits with another layout inside. Names
must stay as they are, and the data of a configuration depend on its name alone: more can be added anywhere.
"""

import argparse
import fnmatch
import itertools
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import digest_cases
import numba
import numpy as np
from digest_cases import OPTIMIZERS, strided
from digest_training import Digest, Training

import fastbp
from fastbp import Adam, EarlyStopping

# Inputs, hidden units, outputs and rows for the two-layer functions.
TWO_LAYER = [(1, 1, 1, 1), (13, 33, 2, 7), (100, 31, 17, 64), (2, 100, 13, 33), (784, 128, 10, 128)]


def batches(name: str) -> str:
    """An iterable of batches of several sizes, with and without weights, as every kind of source."""
    rng = np.random.default_rng(5)
    rows = [16, 1, 7, 33, 16, 2]
    data = [(rng.standard_normal((n, 13)), rng.random((n, 3)), rng.random(n)) for n in rows]
    plain = [(X, Y) for X, Y, _ in data]
    training, digest = Training([13, 32, 3], 16, OPTIMIZERS["adam"]), Digest()
    ways: list[tuple[Any, dict[str, Any]]] = [
        (data, {}),
        (plain, {"accumulate": 2}),
        (plain, {"steps_per_epoch": 4, "epochs": 3}),
        (lambda: (batch for batch in data), {}),
        (itertools.cycle(data), {"steps": 9}),
    ]
    for source, options in ways:
        model = training.new_model()
        digest.history(training.trained(model, source, None, batch_size=32, **options))
        digest.model(model, *plain[3], 16)
    return digest.text()


class Killed(Exception):
    """What a callback raises to end a run that a checkpoint takes up again."""


class KillAt:
    """A callback that ends training with an error after so many steps, amid an epoch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_chunk_end(self, model: fastbp.MLP, step: int, history: fastbp.History) -> None:
        if step >= self.step:
            raise Killed


def continued(name: str) -> str:
    """A run that was killed, and taken up again from its checkpoint, has the bits of one that never was."""
    noisy = {"dropout": 0.2, "input_noise": 0.1}
    training = Training([13, 32, 3], 16, OPTIMIZERS["adam"], noisy, samples=90)
    X, Y = training.data(name)
    texts = []
    with tempfile.TemporaryDirectory() as folder:
        # The second one is killed within an epoch, asked for 4 epochs only, and killed once more after them.
        for i, runs in enumerate([[(6, None)], [(4, 7), (4, None), (6, 23), (6, None)]]):
            path = Path(folder, f"{i}.fastbp")
            for epochs, kill_at in runs:
                callbacks: list[Any] = [EarlyStopping(patience=4), *([KillAt(kill_at)] if kill_at else [])]
                options = {"epochs": epochs, "validation_split": 0.2, "callbacks": callbacks}
                model, digest = training.new_model(), Digest()
                try:
                    history = training.trained(model, X, Y, checkpoint=path, every_steps=2, **options)
                except Killed:
                    continue
                digest.history(history)
                digest.model(model, X, Y, 16)
                digest.add(fastbp.MLP.load(path).predict(X))
            texts.append(digest.text())
    assert texts[0] == texts[1], f"digests of a run in one and in several pieces: {texts}"
    return texts[0]


def call_by_call(dtype: str, name: str) -> str:
    """Steps, pieces, other batch sizes and another optimizer one after another; reset; saved and loaded."""
    training = Training([13, 33, 15, 3], 16, OPTIMIZERS["momentum"], {"dtype": dtype, "dropout": 0.1})
    X, Y = training.data(name)
    model, digest, optimizer = training.new_model(), Digest(), training.optimizer()
    for rows in (1, 2, 7, 16, 33, 5):
        digest.add(model.train_step(X[:rows], Y[:rows], optimizer))
    digest.add(model.train_step(X, Y, optimizer, sample_weight=np.linspace(0, 1, len(X))))
    for batch in (16, 8):
        digest.add(model.partial_fit(X, Y, optimizer=optimizer, batch_size=batch))
        digest.parameters(model)
    model.weights[1][...] *= 0.5
    digest.history(training.trained(model, X, Y, optimizer=optimizer, batch_size=7))
    optimizer.lr, optimizer.weight_decay = 0.01, 0.1
    digest.history(training.trained(model, X, Y, optimizer=optimizer))
    digest.history(training.trained(model, X, Y, optimizer=Adam()))
    digest.model(model, X, Y, 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        model.save(path)
        loaded = fastbp.MLP.load(path)
    digest.model(loaded, X, Y, 16)
    model.reset()
    digest.parameters(model)
    digest.history(training.trained(model, X, Y, optimizer=optimizer))
    digest.model(model, X, Y, 16)
    return digest.text()


def two_layer(sizes: tuple[int, int, int], batch: int, dtype: str, name: str) -> str:
    """The functions on the caller's arrays, in several memory orders, with one thread and with all."""
    results = []
    for threads in {1, numba.config.NUMBA_NUM_THREADS}:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        inputs, hidden, outputs = sizes
        X = rng.standard_normal((batch, inputs)).astype(dtype)
        Y = rng.random((batch, outputs)).astype(dtype)
        W1 = (rng.standard_normal((inputs, hidden)) / np.sqrt(inputs)).astype(dtype)
        W2 = (rng.standard_normal((hidden, outputs)) / np.sqrt(hidden)).astype(dtype)
        b1, b2 = np.linspace(2, -0.5, hidden).astype(dtype), np.zeros(outputs, dtype)
        start, digest = (W1.copy(), W2.copy()), Digest()
        numba.set_num_threads(threads)  # these functions have no other way to be told
        for x in (X, np.asfortranarray(X), strided(X)):
            z1, a1, z2, y_pred = fastbp.forward(x, W1, b1, W2, b2)
            gradients = fastbp.backward(x, Y, z1, a1, y_pred, W2)
            digest.add(z1, a1, z2, y_pred, gradients)
            fastbp.sgd_update((W1, b1, W2, b2), gradients, 0.05)
            digest.add(*(fastbp.train_step(x, Y, W1, b1, W2, b2, 0.05) for _ in range(4)))
            digest.add(W1, b1, W2, b2)
        W1, W2 = np.asfortranarray(W1), strided(W2)
        digest.add(fastbp.train_step(X, Y, W1, b1, W2, b2, 0.05), W1, b1, W2, b2)
        for W, old in zip((W1, W2), start, strict=True):
            assert not np.array_equal(W, old), "the weights were not trained"
        results.append(digest.text())
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    assert len(set(results)) == 1, f"digests of one thread and of all: {results}"
    return results[0]


def cases() -> dict[str, Callable[[str], str]]:
    """Every configuration by its name."""
    found: list[digest_cases.Case] = [
        *digest_cases.shapes(),
        *digest_cases.functions_of_layers(),
        *digest_cases.optimizers(),
        *digest_cases.models(),
        *digest_cases.ways_to_fit(),
        *digest_cases.weights_and_labels(),
        *digest_cases.inputs(),
        ("fit/batches", batches),
        ("fit/checkpoint", continued),
    ]
    for dtype in ("float32", "float64"):
        found.append((f"calls/{dtype}", partial(call_by_call, dtype)))
        for *sizes, batch in TWO_LAYER:
            name = f"two-layer/{'-'.join(map(str, sizes))} batch {batch} {dtype}"
            found.append((name, partial(two_layer, tuple(sizes), batch, dtype)))
    by_name = dict(found)
    assert len(by_name) == len(found), "two configurations have the same name"
    return by_name


def digest_of(name: str, run: Callable[[str], str]) -> str:
    """The digest, or what went wrong, so that one fault does not hide the other results."""
    try:
        return run(name)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"


def read(path: str) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in Path(path).read_text(encoding="utf-8").splitlines())


def main() -> int:
    parser = argparse.ArgumentParser(description="digests of what many small trainings compute")
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names that match, such as 'loss/*'")
    parser.add_argument("--compare", metavar="FILE", help="print only what differs from this earlier output")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    expected = read(arguments.compare) if arguments.compare else {}
    chosen = {name: run for name, run in cases().items() if fnmatch.fnmatch(name, arguments.only)}
    began, faults = time.perf_counter(), 0
    print(f"fastbp is {fastbp.__file__}", file=sys.stderr)
    for name, run in chosen.items():
        found = digest_of(name, run)
        faults += (wrong := ":" in found or (arguments.compare is not None and found != expected.get(name)))
        if arguments.compare is None:
            print(f"{name}\t{found}", flush=True)
        elif wrong:
            print(f"{name}\t{found}\texpected {expected.get(name, 'nothing')}", flush=True)
    for name in expected:
        if name not in chosen and fnmatch.fnmatch(name, arguments.only):
            faults += 1
            print(f"{name}\tis no longer there\texpected {expected[name]}")
    seconds = time.perf_counter() - began
    print(f"{len(chosen)} configurations, {faults} faults or differences, {seconds:.0f} s", file=sys.stderr)
    return 1 if faults or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
