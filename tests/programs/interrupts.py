"""A storm of real SIGINTs: Ctrl-C at many moments of each thing a model does, and what it leaves behind.

    python interrupts.py --module fastbp --signals 400 --seed 1 [--only fit]
    python interrupts.py --signals 100 --alarm
    python interrupts.py --large 20
    python interrupts.py --cold 5

Moments are of two kinds. Between lines: a trace function counts the lines of fastbp that run, and raises
SIGINT at one of them, so that every line of Python can be hit. Within compiled code: SIGINT comes after a
random time. After each signal the model is compared with a fresh one that has the same parameters, optimizer
state and random state: what both then predict and how they train must be the same bits; and what an
interrupted `fit` leaves must be what as many steps make of a model that nobody interrupted. Prints one line a
scenario: signals, how many of them ended what ran, faults.

With --alarm: another signal, whose handler raises an exception that `fit` does not keep waiting. With
--large: in one large `train_step` or `forward` after another, with one SIGINT or two, after which all
arrays are dropped and others lie in their place, in which nobody may write. With --cold: in the first
training of processes that have to compile the engine.
"""

import argparse
import contextlib
import hashlib
import importlib
import itertools
import os
import random
import signal
import subprocess
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
from interrupted import (
    ROWS,
    SCENARIOS,
    SIZES,
    Array,
    Subject,
    differences,
    everything,
    fit,
    fit_checkpoint,
    models,
)

import fastbp

PACKAGE = str(Path(fastbp.__file__).parent)

# ---- signals --------------------------------------------------------------------------------------------


class Alarm(BaseException):
    """Raised by the handler of another signal, which `fit` does not keep waiting.

    No Exception: where checks ask foreign objects for their values, whatever these raise becomes a TypeError.
    """


def raise_alarm(number: int, frame: FrameType | None) -> None:
    raise Alarm


class AtLine:
    """A signal at the n-th line of fastbp that runs in this thread; `seen` counts them."""

    def __init__(self, moment: int, signals: int = 1, number: int = signal.SIGINT) -> None:
        self.moment, self.signals, self.number, self.seen = moment, signals, number, 0

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.seen += 1
            if self.moment <= self.seen < self.moment + self.signals:
                signal.raise_signal(self.number)
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
    except (KeyboardInterrupt, Alarm):
        return True
    return bool(history is not None and history.interrupted)


def faults_of_handler() -> list[str]:
    """Ctrl-C must be heard, now that nothing runs, and Python's own handler must be in its place then."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        return [] if own else ["the handler of SIGINT"]
    return ["SIGINT is not heard"]


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


def storm(
    module: ModuleType, signals: int, seed: int, only: str = "", alarm: bool = False
) -> Iterator[tuple[str, Tally]]:
    """So many signals for each scenario, half of them between lines. alarm: all of them, and not SIGINT."""
    moments = random.Random(seed)
    if alarm:
        signal.signal(signal.SIGUSR1, raise_alarm)
    folder = tempfile.TemporaryDirectory()
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((ROWS, SIZES[0])).astype(np.float32)
    Y = rng.random((ROWS, SIZES[-1])).astype(np.float32)
    for name, (run, same_as_unbroken) in SCENARIOS.items():
        if only not in name or (alarm and name == "long fit"):
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
                if alarm:
                    sender = at_line = AtLine(at_line.moment, 1, signal.SIGUSR1)
                tally.signals += 1
                tally.ended += interrupted(run, subject, sender)
                at = f"line {at_line.moment}" if sender is at_line else "some time"
                found = faults_after(run, subject, same_as_unbroken=same_as_unbroken and not alarm)
                new = differences(everything(whole.fresh()), expected)
                found += [f"a new model's {fault}" for fault in new]
                found += faults_of_handler()
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


# ---- while the engine is compiled -----------------------------------------------------------------------


def small() -> Subject:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, SIZES[0])).astype(np.float32)
    Y = rng.random((ROWS, SIZES[-1])).astype(np.float32)
    return Subject(fastbp, models(fastbp)[0], X, Y)


def digest(found: dict[str, list[Array]]) -> str:
    parts = [array.tobytes() for arrays in found.values() for array in arrays]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def cold_child() -> None:
    """Waits for its SIGINT in the first training of all, and says what it computes afterwards."""
    subject = small()
    print("begins", flush=True)
    ended = True
    try:
        history = fit(subject, epochs=10**7)
        ended = history.interrupted
    except KeyboardInterrupt:
        pass
    twin = subject.twin()
    same = differences(everything(subject), everything(twin)) == []
    print(ended, same, digest(everything(small())))


def cold(times: int, seed: int) -> list[str]:
    """What went wrong in so many processes that were interrupted while they compiled everything anew."""
    moments, faults, expected = random.Random(seed), [], digest(everything(small()))
    for i in range(times):
        with tempfile.TemporaryDirectory() as cache:
            program = [sys.executable, __file__, "--cold-child"]
            env = {**os.environ, "NUMBA_CACHE_DIR": cache}
            child = subprocess.Popen(program, env=env, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None and child.stdout.readline() == "begins\n"
            time.sleep(moments.uniform(0.0, 8.0))
            child.send_signal(signal.SIGINT)
            said = child.communicate()[0].split()
        if child.returncode or said != ["True", "True", expected]:
            faults.append(f"{i}: exit {child.returncode}, {said}")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--module", default="fastbp")
    parser.add_argument("--signals", type=int, default=40, help="for each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="scenarios with this in their names")
    parser.add_argument("--alarm", action="store_true", help="exceptions of another signal's handler")
    parser.add_argument("--large", type=int, default=0, help="so many large steps instead")
    parser.add_argument("--cold", type=int, default=0, help="so many processes that compile, instead")
    parser.add_argument("--cold-child", action="store_true", help="one of them")
    given = parser.parse_args()
    if given.cold_child:
        cold_child()
        return 0
    if given.large or given.cold:
        found = large(given.large, given.seed) if given.large else cold(given.cold, given.seed)
        print("\n".join(found))
        return int(bool(found))
    faults = 0
    for name, tally in storm(
        importlib.import_module(given.module), given.signals, given.seed, given.only, given.alarm
    ):
        print(
            f"{name}: {tally.signals} signals, {tally.ended} ended it, {len(tally.faults)} faults", flush=True
        )
        for fault in tally.faults[:5]:
            print(f"    {fault}")
        faults += len(tally.faults)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
