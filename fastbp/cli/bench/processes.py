"""Processes that take turns: each holds one way of training, and sleeps unless it is asked."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any, Protocol

from fastbp.cli.bench.peers import PREFIX
from fastbp.cli.bench.problems import Shape


class Peer(Protocol):
    """An implementation, ready to be measured."""

    hello: dict[str, Any]  # {"difference", "first"}, or why it takes no part: {"unsupported"} or {"failed"}

    def seconds(self, budget: float) -> float: ...

    def close(self) -> None: ...


class Process:
    """A Peer in a process of its own, which sleeps unless it is asked."""

    def __init__(self, variant: str, shape: Shape, threads: int) -> None:
        limits = ("OMP", "OPENBLAS", "MKL", "NUMBA")
        environment = {**os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in limits}}
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in close)
        with _on_cores(threads):  # XLA has no setting for it, but counts the cores that it may use
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fastbp.cli.bench.peers"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment,
                text=True,
            )
        try:
            self.hello = self._ask(json.dumps({"variant": variant, "shape": dataclasses.asdict(shape)}))
        except RuntimeError as error:
            self.hello = {"failed": str(error)}

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        for answer in self._process.stdout:
            if answer.startswith(PREFIX):
                return dict(json.loads(answer[len(PREFIX) :]))
        self._stderr.seek(0)
        said = self._stderr.read().split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "and said nothing")
        raise RuntimeError(f"its process ended with {self._process.wait()}: {last}"[:300])

    def seconds(self, budget: float) -> float:
        return float(self._ask(str(budget))["seconds"])

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()  # end of input: it goes home
        self._stderr.close()


@contextlib.contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Within, only `count` of our cores may be used by this thread and by processes that it starts."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
