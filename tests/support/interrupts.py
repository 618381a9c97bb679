"""A storm of real SIGINTs: Ctrl-C at many moments of each thing a model does, and what it leaves behind.

    python interrupts.py --module fastbp --signals 400 --seed 1 [--only fit]
    python interrupts.py --large 20

Moments are of two kinds. Between lines: a trace function counts the lines of fastbp that run, and raises
SIGINT at one of them, so that every line of Python can be hit. Within compiled code: SIGINT comes after a
random time. After each signal the model is compared with a fresh one that has the same parameters, optimizer
state and random state: what both then predict and how they train must be the same bits; and what an
interrupted `fit` leaves must be what as many steps make of a model that nobody interrupted. Prints one line a
scenario: signals, how many of them ended what ran, faults.

With --large: in one large `train_step` or `forward` after another, with one SIGINT or two, after which all
arrays are dropped and others lie in their place, in which nobody may write.
"""

import argparse
import contextlib
import importlib
import itertools
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np

import fastbp
from fastbp.callbacks import EarlyStopping

Array = np.ndarray[Any, Any]
PACKAGE = str(Path(fastbp.__file__).parent)
SIZES, ROWS, BATCH = [20, 40, 3], 200, 40
STEPS_PER_EPOCH = ROWS // BATCH


_numbers = itertools.count()  # of files


@dataclass
class Subject:
    """A model in training, its optimizer and its data."""

    module: ModuleType
    make: Callable[[], tuple[Any, Any]]  # a new model, and its optimizer
    X: Array
    Y: Array
    path: Path | None = None  # of a checkpoint
    stopping: Any = None
    model: Any = field(init=False)
    optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model, self.optimizer = self.make()

    @property
    def state(self) -> Any:
        return self.optimizer.state(self.model.parameters.owner, self.model.n_parameters, self.model.dtype)

    def fresh(self) -> "Subject":
        """Untrained, with a checkpoint of its own if there is to be one."""
        path = None if self.path is None else self.path.with_name(f"{next(_numbers)}")
        return Subject(self.module, self.make, self.X, self.Y, path)

    def twin(self) -> "Subject":
        """A new model that has what this one has."""
        twin = self.fresh()
        twin.model.parameters.flat[...] = self.model.parameters.flat
        twin.model.streams.restore(self.model.streams.state())
        twin.state.steps = self.state.steps
        for new, buffer in zip(twin.state.buffers, self.state.buffers, strict=True):
            new[...] = buffer
        return twin

    def arrays(self) -> list[Array]:
        """All that training changes."""
        return [self.model.parameters.flat.copy(), *map(np.copy, self.state.buffers)]


def everything(subject: Subject) -> dict[str, list[Array]]:
    """What a model computes, and how it trains; it is another one afterwards."""
    model, X, Y = subject.model, subject.X, subject.Y
    found: dict[str, list[Array]] = {}
    trace = model.forward(X)
    found["forward"] = [*trace.z, *trace.a]
    gradients = model.backward(trace, Y)
    found["backward"] = [*gradients.weights, *gradients.biases]
    found["predict"] = [model.predict(X), model.predict(X[:3])]
    found["loss"] = [np.array(model.loss(X, Y))]
    found["train_step"] = [np.array(model.train_step(X[:BATCH], Y[:BATCH], subject.optimizer))]
    found["after train_step"] = [model.parameters.flat.copy()]
    history = model.fit(X, Y, epochs=2, batch_size=BATCH, optimizer=subject.optimizer, progress=False)
    found["fit"] = [history.loss, model.parameters.flat.copy(), *map(np.copy, subject.state.buffers)]
    parameters = two_layers()
    found["functions"] = [
        np.array(subject.module.train_step(X, Y, *parameters, 1e-3)),
        *parameters,
        *subject.module.forward(X, *parameters),
    ]
    return found


def two_layers() -> list[Array]:
    """Parameters for the functions on arrays."""
    shapes = ((SIZES[0], 8), (8,), (8, SIZES[-1]), (SIZES[-1],))
    return [np.full(shape, 0.1, np.float32) for shape in shapes]


def differences(first: dict[str, list[Array]], second: dict[str, list[Array]]) -> list[str]:
    return [
        name
        for name, arrays in first.items()
        if len(arrays) != len(second[name])
        or any(a.tobytes() != b.tobytes() for a, b in zip(arrays, second[name], strict=True))
    ]


# ---- what is interrupted --------------------------------------------------------------------------------


def fit(subject: Subject, **options: Any) -> Any:
    """fit, as long as nothing ends it, of steps enough for every moment."""
    given = {"epochs": 6, "batch_size": BATCH, "optimizer": subject.optimizer, "progress": False, **options}
    return subject.model.fit(subject.X, given.pop("Y", subject.Y), **given)


def long_fit(subject: Subject) -> Any:
    return fit(subject, epochs=1500 if subject.module is fastbp else 30)


def fit_with_validation(subject: Subject) -> Any:
    seen: list[float] = []
    return fit(
        subject,
        validation_data=(subject.X[:50], subject.Y[:50]),
        metrics=["mae", lambda y_true, y_pred: float(np.abs(y_true - y_pred).max())],
        callbacks=lambda model, epoch, history: seen.append(float(model.predict(subject.X[:3]).sum())),
    )


def fit_accumulate(subject: Subject) -> Any:
    return fit(subject, batch_size=BATCH // 2, accumulate=2)


def fit_batches(subject: Subject) -> Any:
    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(0, ROWS, BATCH):
            yield subject.X[start : start + BATCH], subject.Y[start : start + BATCH]

    return subject.model.fit(batches, epochs=6, optimizer=subject.optimizer, progress=False)


def fit_checkpoint(subject: Subject) -> Any:
    assert subject.path is not None
    subject.stopping = EarlyStopping(patience=100)
    return fit(
        subject,
        validation_split=0.2,
        callbacks=subject.stopping,
        checkpoint=subject.path,
        every_steps=3,
        every=1,
    )


def predict(subject: Subject) -> None:
    for _ in range(3):
        subject.model.predict(subject.X)
        subject.model.predict(subject.X[:2])


def loss(subject: Subject) -> None:
    for _ in range(3):
        subject.model.loss(subject.X, subject.Y)


def forward_backward(subject: Subject) -> None:
    for _ in range(3):
        subject.model.backward(subject.model.forward(subject.X), subject.Y)


def train_steps(subject: Subject) -> None:
    for _ in range(4):
        subject.model.train_step(subject.X, subject.Y, subject.optimizer)


def functions(subject: Subject) -> None:
    X, Y, m, parameters = subject.X, subject.Y, subject.module, two_layers()
    for _ in range(3):
        m.train_step(X, Y, *parameters, 1e-3)
        z1, a1, _, y_pred = m.forward(X, *parameters)
        gradients = m.backward(X, Y, z1, a1, y_pred, parameters[2])
        m.sgd_update(parameters, gradients, 1e-3)


def unequal_uses(subject: Subject) -> None:
    """Each of them wants the prepared state for itself."""
    fit(subject, epochs=1)
    predict(subject)
    subject.model.train_step(subject.X[:7], subject.Y[:7], subject.optimizer)
    fit(subject, epochs=1, batch_size=16)


# What is run, and whether the parameters that it leaves are those of so many steps of an unbroken `fit`.
SCENARIOS: dict[str, tuple[Callable[[Subject], Any], bool]] = {
    "fit": (fit, True),
    "long fit": (long_fit, True),
    "fit with validation": (fit_with_validation, True),
    "fit accumulate": (fit_accumulate, False),
    "fit batches": (fit_batches, False),
    "fit checkpoint": (fit_checkpoint, False),
    "predict": (predict, False),
    "loss": (loss, False),
    "forward and backward": (forward_backward, False),
    "train_step": (train_steps, False),
    "functions": (functions, False),
    "all in turn": (unequal_uses, False),
}


def models(module: ModuleType) -> list[Callable[[], tuple[Any, Any]]]:
    """Several kinds of models and optimizers."""

    def plain() -> tuple[Any, Any]:
        return module.MLP(SIZES, output="identity", seed=3), module.Adam(0.01)

    def noisy() -> tuple[Any, Any]:
        options = {"dropout": 0.2, "input_noise": 0.1, "layer_norm": True, "max_norm": 1.0}
        return module.MLP(SIZES, hidden="tanh", seed=3, **options), module.SGD(
            0.1, momentum=0.9, clip_norm=1.0
        )

    return [plain, noisy]


# ---- signals --------------------------------------------------------------------------------------------


class AtLine:
    """SIGINT at the n-th line of fastbp that runs in this thread; `seen` counts them."""

    def __init__(self, moment: int, signals: int = 1) -> None:
        self.moment, self.signals, self.seen = moment, signals, 0

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.seen += 1
            if self.moment <= self.seen < self.moment + self.signals:
                signal.raise_signal(signal.SIGINT)
        return self._trace

    def __enter__(self) -> "AtLine":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)


class AfterTime:
    """SIGINT to the process after so many seconds, wherever it then is."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._over = seconds, threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        if not self._over.wait(self._seconds):
            os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> "AfterTime":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def interrupted(run: Callable[[Subject], Any], subject: Subject, sender: AtLine | AfterTime) -> bool:
    """Whether a signal has ended it."""
    history = None
    try:
        with sender:
            history = run(subject)
        time.sleep(0)  # a signal that came late is heard here
    except KeyboardInterrupt:
        return True
    return bool(history is not None and history.interrupted)


def faults_after(run: Callable[[Subject], Any], subject: Subject, *, same_as_unbroken: bool) -> list[str]:
    """What is wrong with the model now. It was new when it was interrupted."""
    faults = []
    if same_as_unbroken and subject.state.steps:
        unbroken = subject.fresh()
        fit(unbroken, epochs=None, steps=subject.state.steps)
        left = [a.tobytes() for a in subject.arrays()]
        if left != [a.tobytes() for a in unbroken.arrays()]:
            faults.append("parameters left")
    if subject.stopping is not None and not resumes(subject):
        faults.append("resumed training")
    twin = subject.twin()
    return faults + differences(everything(subject), everything(twin))


def resumes(subject: Subject) -> bool:
    """Whether the checkpoint leads to the bits of an unbroken training, also in history and callbacks."""
    found = []
    for path in (subject.path, subject.fresh().path):
        other = Subject(subject.module, subject.make, subject.X, subject.Y, path)
        history = fit_checkpoint(other)
        columns = [history._array(name) for name in history.names if name != "epoch_seconds"]
        arrays = [a.tobytes() for a in (*other.arrays(), *columns)]
        found.append((arrays, history.best_epoch, repr(other.stopping.state_dict())))
    return found[0] == found[1]


@dataclass
class Tally:
    signals: int = 0
    ended: int = 0
    faults: list[str] = field(default_factory=list)


def storm(module: ModuleType, signals: int, seed: int, only: str = "") -> Iterator[tuple[str, Tally]]:
    """So many signals for each scenario, half of them between lines."""
    moments = random.Random(seed)
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((ROWS, SIZES[0])).astype(np.float32)
    Y = rng.random((ROWS, SIZES[-1])).astype(np.float32)
    for name, (run, same_as_unbroken) in SCENARIOS.items():
        if only not in name:
            continue
        tally = Tally()
        for make in models(module):
            whole = Subject(
                module, make, X, Y, Path(folder.name) / make.__name__ if "checkpoint" in name else None
            )
            expected = everything(whole.fresh())  # and everything is compiled
            run(whole)
            began = time.perf_counter()
            run(whole.twin())
            seconds = time.perf_counter() - began
            lines = 0
            if name != "long fit":
                with AtLine(0) as counter:
                    run(whole.fresh())
                lines = counter.seen
            for i in range(signals // len(models(module))):
                subject = whole.fresh()
                # two in a row, now and then: the second one while the first is dealt with
                at_line = AtLine(moments.randint(1, max(1, lines)), 1 + (i % 4 == 0))
                sender = at_line if i % 2 == 0 and lines else AfterTime(moments.uniform(0, seconds))
                tally.signals += 1
                tally.ended += interrupted(run, subject, sender)
                at = f"line {at_line.moment}" if sender is at_line else "some time"
                found = faults_after(run, subject, same_as_unbroken=same_as_unbroken)
                new = differences(everything(whole.fresh()), expected)
                found += [f"a new model's {fault}" for fault in new]
                tally.faults += [f"{make.__name__}, {at}: {fault}" for fault in found]
        yield name, tally
    folder.cleanup()


# ---- large steps ----------------------------------------------------------------------------------------


def large(times: int, seed: int) -> list[str]:
    """What went wrong in so many large steps and forward passes. (A write into freed memory may also end the
    process.)"""
    moments, faults = random.Random(seed), []
    shape, batch = (3001, 3001, 201), 3000
    rng = np.random.default_rng(seed)
    given = rng.standard_normal((batch, shape[0])).astype(np.float32)
    for i in range(times):
        arrays = [given.copy(), rng.random((batch, shape[2])).astype(np.float32)]
        arrays += [np.full((m, n), 1e-3, np.float32) for m, n in itertools.pairwise(shape)]
        arrays += [np.zeros(n, np.float32) for n in shape[1:]]
        X, Y, W1, W2, b1, b2 = arrays
        before = [a.copy() for a in (W1, b1, W2, b2)]
        step = i % 2 == 0
        senders = [AfterTime(moments.uniform(0.02, 0.4)) for _ in range(1 + i % 3 // 2)]
        ended = True
        try:
            with contextlib.ExitStack() as stack:
                for sender in senders:
                    stack.enter_context(sender)
                if step:
                    fastbp.train_step(X, Y, W1, b1, W2, b2, 1e-6)
                else:
                    fastbp.forward(X, W1, b1, W2, b2)
                ended = False
        except KeyboardInterrupt:
            pass
        changed = [not np.array_equal(a, b) for a, b in zip((W1, b1, W2, b2), before, strict=True)]
        if any(changed) and (not step or (ended and not all(changed))):
            faults.append(f"{i}: some parameters are those after the step, and some those before")
        sizes = [a.size for a in arrays]
        del X, Y, W1, W2, b1, b2, arrays
        canaries = [np.full(n, 7, np.float32) for n in sizes]
        time.sleep(0.3)
        if any((canary != 7).any() for canary in canaries):
            faults.append(f"{i}: somebody writes into arrays that are not theirs any more")
        print(f"large {i}: {'ended' if ended else 'done'}", flush=True)
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", default="fastbp")
    parser.add_argument("--signals", type=int, default=40, help="for each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scenarios with this in their names")
    parser.add_argument("--large", type=int, default=0, help="so many large steps instead")
    given = parser.parse_args()
    if given.large:
        found = large(given.large, given.seed)
        print("\n".join(found))
        return int(bool(found))
    faults = 0
    for name, tally in storm(importlib.import_module(given.module), given.signals, given.seed, given.only):
        print(
            f"{name}: {tally.signals} signals, {tally.ended} ended it, {len(tally.faults)} faults", flush=True
        )
        for fault in tally.faults[:5]:
            print(f"    {fault}")
        faults += len(tally.faults)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
