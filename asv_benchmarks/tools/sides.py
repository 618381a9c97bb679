"""What regression.py measures: a process for each of two commits, and the training steps it is asked for.

Each side has a folder with its own `fastbp` and its own compilation cache, and finds nothing of the other.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asv_folder import ROOT
from benchmarks.measuring import Network, epochs_of

LEG_SECONDS, LEGS = 0.004, 5  # a round is the best of so many: some of them meet no other program


@dataclass(frozen=True)
class Case:
    network: Network
    threads: int = 1


CASES = {
    "tiny 32 x 8-16-1": Case(Network(32, (8, 16, 1))),
    "tabular 128 x 64-128-10": Case(Network(128, (64, 128, 10))),
    "mnist 32 x 784-128-10": Case(Network(32, (784, 128, 10))),
    "deep 64 x 64-128-128-128-10": Case(Network(64, (64, 128, 128, 128, 10))),
    "tabular 128 x 64-128-10 Adam": Case(Network(128, (64, 128, 10), optimizer="Adam")),
    "tabular 128 x 64-128-10 float64": Case(Network(128, (64, 128, 10), dtype="float64")),
    "odd 77 x 37-131-67-3 tanh Adam": Case(Network(77, (37, 131, 67, 3), hidden="tanh", optimizer="Adam")),
    "mnist 128 x 784-256-10, 2 threads": Case(Network(128, (784, 256, 10)), threads=2),
}
QUICK = list(CASES)[:4]


class RegressionError(Exception):
    """What keeps us from measuring; the message says it in a line."""


def export(commit: str | None, folder: Path) -> str:
    """Write the package `fastbp` of a commit, or of the work tree, into `folder`; its name for the report."""
    if commit is None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "fastbp", folder / "fastbp", ignore=ignored)
        return "the work tree"
    git = ["git", "-C", str(ROOT)]
    parse = [*git, "rev-parse", "--short", f"{commit}^{{commit}}"]
    name = subprocess.run(parse, capture_output=True, text=True)
    if name.returncode != 0:
        raise RegressionError(f"{commit!r} is no commit of {ROOT}")
    command = [*git, "archive", "--format=zip", name.stdout.strip(), "fastbp"]
    packed = subprocess.run(command, capture_output=True, check=True)
    with zipfile.ZipFile(io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder)
    return f"{commit} ({name.stdout.strip()})"


class Side:
    """A process with one commit's fastbp, which sleeps until it is asked for a round of a case."""

    def __init__(self, folder: Path, cases: Sequence[str]) -> None:
        one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OPENBLAS", "MKL")}  # of NumPy
        environment = {
            **os.environ,
            **one_thread,
            "PYTHONPATH": str(folder),
            "NUMBA_CACHE_DIR": str(folder / "cache"),
        }
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(folder), *cases],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ready(self) -> dict[str, str]:
        """Wait until everything is compiled; {case: why it cannot be measured}."""
        return dict(self._answer())

    def seconds(self, case: str, module: str = "fastbp") -> float:
        assert self._process.stdin is not None
        print(json.dumps([case, module]), file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise RegressionError(f"a measuring process ended with {self._process.wait()}")

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


def work(folder: str, cases: Sequence[str]) -> None:
    """What the process of a Side does."""
    import fastbp

    if not Path(fastbp.__file__).is_relative_to(folder):
        raise RegressionError(f"fastbp comes from {fastbp.__file__}, not from {folder}")
    runs: dict[tuple[str, str], tuple[Callable[[int], None], int]] = {}
    missing = {}

    def prepare(name: str, module: str) -> None:
        case = CASES[name]
        run, steps = epochs_of(case.network, case.threads, module, most_steps=64)
        run(1)
        epochs = 1
        while (seconds := min(_timed(run, epochs) for _ in range(3))) < LEG_SECONDS / 2:
            epochs = max(2 * epochs, int(epochs * LEG_SECONDS / max(seconds, 1e-6)))
        runs[name, module] = (lambda _, run=run, epochs=epochs: run(epochs)), steps * epochs

    for name in cases:
        try:
            prepare(name, "fastbp")
        except NotImplementedError as error:
            missing[name] = str(error)
    print("@" + json.dumps(missing), flush=True)
    for line in sys.stdin:
        key = tuple(json.loads(line))
        if key not in runs:
            prepare(*key)
        run, steps = runs[key]
        print("@" + json.dumps(min(_timed(run, 1) for _ in range(LEGS)) / steps), flush=True)


def _timed(run: Callable[[int], None], times: int) -> float:
    start = time.perf_counter()
    run(times)
    return time.perf_counter() - start


@contextlib.contextmanager
def launched(folders: Sequence[Path], cases: Sequence[str]) -> Iterator[tuple[list[Side], dict[str, str]]]:
    """A process for each side, ready; and {case: why it cannot be measured on both}."""
    sides: list[Side] = []
    try:
        for folder in folders:
            sides.append(Side(folder, cases))
        missing = {}
        for side in sides:
            missing.update(side.ready())
        yield sides, missing
    finally:
        for side in sides:
            side.close()


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2:])
