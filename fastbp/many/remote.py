"""Networks that are trained by the workers of an executor: other processes, perhaps on other machines.

They travel in groups of about equal cost, as pickles. Their data go once to each worker, which keeps them: a
group is sent without them, unless its worker answers that it does not have them. What comes back are
parameters, random state, the optimizer's state and the history, which take the place of the caller's.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from typing import Any

from fastbp import checks
from fastbp.engine.threads import team
from fastbp.many.crew import Crew
from fastbp.many.members import Member, Told
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer, State
from fastbp.training.interrupt import Interrupts

# Groups for each worker: more share the work out better, fewer have less to pickle.
GROUPS_PER_WORKER = 4
# How often a group is sent, whose worker died or could not be reached.
ATTEMPTS = 3
# How long the caller waits before it looks whether Ctrl-C has come.
LOOK_SECONDS = 0.1
# Data sets that a worker keeps.
KEPT = 2

MISSING, DONE, FAILED = "missing", "done", "failed"


# ---- in the worker -------------------------------------------------------------------------------

_data: dict[str, Any] = {}


def work(key: str, data: bytes | None, group: bytes, threads: int) -> tuple[str, Any]:
    """Train a group: (DONE, results), (MISSING, None) if the data of that key are not here, or (FAILED,
    error)."""
    if data is not None:
        while len(_data) >= KEPT:
            _data.pop(next(iter(_data)))
        _data[key] = pickle.loads(data)
    sets = _data.get(key)
    if sets is None:
        return MISSING, None
    members = []
    for member in pickle.loads(group):
        held_out = None if member.held_out is None else sets[member.held_out]
        members.append(replace(member, samples=sets[member.samples], held_out=held_out))
    try:
        Crew(members, team.available(threads), lambda ended: None).run()
    except Exception as error:
        return FAILED, error
    return DONE, pickle.dumps([_result(member) for member in members])


def _result(member: Member) -> tuple[Any, ...]:
    model = member.model
    return (
        member.index,
        member.history,
        member.ended,
        model.parameters.flat,
        model.streams.state(),
        state_of(member.model, member.optimizer),
        model.reader.feature_names,
    )


def state_of(model: Network, optimizer: Optimizer) -> State:
    """What the optimizer keeps of the model; from now on, if it was nothing yet."""
    parameters = model.parameters
    return optimizer.state(parameters.owner, len(parameters), parameters.flat.dtype)


# ---- where the caller is -------------------------------------------------------------------------


def _take(member: Member, result: tuple[Any, ...]) -> None:
    """Have the caller's objects be what the worker's are."""
    _, member.history, member.ended, flat, streams, state, feature_names = result
    member.model.parameters.replace(flat)
    member.model.streams.restore(streams)
    member.model.reader.feature_names = feature_names
    own = state_of(member.model, member.optimizer)
    for buffer, values in zip(own.buffers, state.buffers, strict=True):
        buffer[...] = values
    own.steps = state.steps
    own.learned.by, own.learned.state = state.learned.by, state.learned.state


def _portable(member: Member, number: Callable[[Any], int]) -> Member:
    """The member with numbers instead of its data, and an optimizer that knows no other model."""
    optimizer = copy.copy(member.optimizer)
    vars(state_of(member.model, optimizer)).update(vars(state_of(member.model, member.optimizer)))
    held_out: Any = None if member.held_out is None else number(member.held_out)
    samples: Any = number(member.samples)
    options = replace(member.options, optimizer=optimizer)
    return replace(member, optimizer=optimizer, samples=samples, held_out=held_out, options=options)


@dataclass
class Group:
    """Members that travel together."""

    members: list[Member]
    pickled: bytes
    attempts: int = 0
    last_error: BaseException | None = None


class Dispatch:
    """Sends groups to an executor until all are done, or nobody can do them."""

    def __init__(self, members: Sequence[Member], executor: Any, threads: int | None) -> None:
        self._makes = not hasattr(executor, "submit")
        if self._makes and not callable(executor):
            raise TypeError(
                "executor must have a method submit, as those of concurrent.futures, or be a function that "
                f"makes such a one, got {checks.shown(executor)}"
            )
        self._given: Any = executor
        self._executor: Any = None if self._makes else executor
        self._threads = 1 if threads is None else threads
        self.members = list(members)
        self._workers = 1
        self._waiting: dict[Future[Any], Group] = {}
        self.unfinished: list[Group] = []
        self.errors: list[BaseException] = []

    def run(self, told: Told) -> bool:
        """Train all; whether Ctrl-C came."""
        interrupts = Interrupts(lambda: None)
        try:
            with interrupts:
                self._open()
                key, data, groups = self._packed()
                for i, group in enumerate(groups):  # the first ones bring the data to the workers
                    self._send(group, key, data if i < self._workers else None)
                while self._waiting and not interrupts.pressed and not self.errors:
                    done, _ = wait(self._waiting, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._receive(future, key, data, told)
        finally:
            for future in self._waiting:
                future.cancel()
            if self._makes and self._executor is not None:
                self._executor.shutdown(wait=False, cancel_futures=True)
        if interrupts.pressed:
            interrupts.pass_on()
        return interrupts.pressed

    def _open(self) -> None:
        if self._executor is None:
            self._executor = self._given()
        self._workers = int(getattr(self._executor, "_max_workers", None) or os.cpu_count() or 1)

    def _packed(self) -> tuple[str, bytes, list[Group]]:
        """The data, what they are called, and the groups: of the longest networks first, each about as
        long."""
        sets: list[Any] = []
        numbers: dict[int, int] = {}

        def number(samples: Any) -> int:
            if id(samples) not in numbers:
                numbers[id(samples)] = len(sets)
                sets.append(samples)
            return numbers[id(samples)]

        by_length = sorted(self.members, key=lambda member: -member.seconds)
        share = sum(member.seconds for member in by_length) / (self._workers * GROUPS_PER_WORKER)
        lists: list[list[Member]] = [[]]
        for member in by_length:
            if lists[-1] and sum(m.seconds for m in lists[-1]) + member.seconds > share * 1.01:
                lists.append([])
            lists[-1].append(member)
        try:
            groups = [Group(own, pickle.dumps([_portable(m, number) for m in own])) for own in lists]
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise TypeError(
                f"callbacks and metrics must be such as pickle can send to an executor's workers: {error}"
            ) from error
        data = pickle.dumps(sets)
        return hashlib.sha256(data).hexdigest(), data, groups

    def _send(self, group: Group, key: str, data: bytes | None) -> None:
        try:
            future = self._executor.submit(work, key, data, group.pickled, self._threads)
        except (BrokenExecutor, RuntimeError) as error:
            group.last_error = error
            self.unfinished.append(group)
            return
        self._waiting[future] = group

    def _receive(self, future: Future[Any], key: str, data: bytes, told: Told) -> None:
        group = self._waiting.pop(future)
        try:
            answer, value = future.result()
        except BaseException as error:  # the worker died, or was not reached
            self._try_again(group, error, key, data)
            return
        if answer == MISSING:
            self._send(group, key, data)
        elif answer == FAILED:
            self.errors.append(value)
        else:
            members = {member.index: member for member in group.members}
            for result in pickle.loads(value):
                _take(members[result[0]], result)
                told([members[result[0]]])

    def _try_again(self, group: Group, error: BaseException, key: str, data: bytes) -> None:
        group.attempts += 1
        group.last_error = error
        if group.attempts >= ATTEMPTS:
            self.unfinished.append(group)
            return
        if isinstance(error, BrokenExecutor) and self._makes:
            self._replace_broken()
        self._send(group, key, data)

    def _replace_broken(self) -> None:
        """A pool that lost a process takes no more work: make a new one, unless that was done already."""
        try:
            self._executor.submit(os.getpid).cancel()
        except BrokenExecutor:
            self._executor.shutdown(wait=False)
            self._executor = self._given()

    def require_all(self) -> None:
        """RuntimeError that names the networks which nobody could train."""
        if self.errors:
            raise self.errors[0]
        lost = sorted(member.index for group in self.unfinished for member in group.members)
        if lost:
            cause = self.unfinished[0].last_error
            raise RuntimeError(
                f"{len(lost)} of {len(self.members)} networks could not be trained, as their workers died or "
                f"were not reached: models {', '.join(map(str, lost))}. They are as they were, the others "
                f"are trained. The last error was {type(cause).__name__}: {cause}"
            ) from cause
