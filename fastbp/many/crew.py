"""A queue of networks, and a thread for each core, which takes the next one when it has finished one.

A network is trained by one core from beginning to end, by the run that `fit` makes: so it has the bits of its
own `fit`, whoever trains it and whatever the others do. Short ones that are alike are one piece of work, a
chain, in which compiled code of several cores takes one network after another (chains.py). Compiled code
(steps, shuffling) runs without Python's lock, hence the cores work side by side; Python between the chunks of
steps is done by one at a time. Networks of equal design take the same prepared plans one after another:
memory grows with the cores.

A network that would keep a core busy when all others are done, and whose step is large enough for a team,
gets all cores first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

import numpy as np

from fastbp.engine.plan import TRY_TEAM_FROM_MULTIPLY_ADDS
from fastbp.engine.threads import own_thread, team
from fastbp.engine.threads.meeting import Meeting
from fastbp.many.chains import Chain, chained
from fastbp.many.members import Member, Told
from fastbp.network.spare_plans import SparePlans
from fastbp.training.interrupt import Interrupts

# Steps from which a team loses nothing against as many networks side by side, whose weights and activations
# would crowd one another out of the caches.
TEAM_MULTIPLY_ADDS = 20_000_000
# Plans that wait for the next network, for each core.
PLANS_PER_CORE = 8


class Crew:
    """Trains all members; afterwards each has its history.

    threads : how many cores. told : called with those that have ended, perhaps in other threads, one at a
    time.
    """

    def __init__(self, members: Sequence[Member], threads: int, told: Told) -> None:
        self.threads, self._told = min(threads, len(members)), told
        total = sum(member.seconds for member in members)
        by_length = sorted(members, key=lambda member: -member.seconds)
        self._teams = [m for m in by_length if threads > 1 and _wants_a_team(m, total / threads)]
        for_teams = set(map(id, self._teams))
        alone = [m for m in by_length if id(m) not in for_teams] if for_teams else by_length
        chains, others = chained(alone, self.threads)
        works: list[Chain | Member] = [*chains, *others]
        self._queue = deque(sorted(works, key=lambda work: -work.seconds))  # the longest first
        self._begun: list[Chain] = []
        self._side_by_side = self.threads > 1 and len(alone) > 1
        self._spare = SparePlans(PLANS_PER_CORE * threads)
        self._turn, self._telling, self._taking = threading.RLock(), threading.Lock(), threading.Lock()
        self._stop = np.zeros(1, np.int64)
        self._meeting = Meeting(self.threads)
        self.errors: list[BaseException] = []

    @property
    def interrupted(self) -> bool:
        return bool(self._stop[0])

    def run(self) -> None:
        """Train all. Ctrl-C ends the trainings after the chunk that each is in."""
        with Interrupts(self._end) as interrupts:
            try:
                for member in self._teams:
                    self._train_here(member)
                if self._side_by_side:
                    own_thread.run(self._work_side_by_side, self._stop)
                else:
                    with team.alone():
                        while self._queue and not self.interrupted:
                            self._train_here(self._queue.popleft())
            except KeyboardInterrupt:
                self._end()
        if interrupts.pressed:
            interrupts.pass_on()
        if self.errors:
            raise self.errors[0]

    def _end(self) -> None:
        self._stop[0] = 1

    def _train_here(self, work: Chain | Member) -> None:
        """In the calling thread, which hears Ctrl-C itself."""
        for member in self._left_of(work):
            if self.interrupted:
                return
            member.train(self._spare, None, self._turn)
            if member.history.interrupted:
                self._end()
            self._tell([member])

    def _left_of(self, work: Chain | Member) -> list[Member]:
        """What is to be trained one by one: of a chain, what has not stayed finite."""
        if isinstance(work, Member):
            self._meeting.begin()
            return [work]
        trained, left = work.train(self._spare, self._stop, self._meeting)
        if trained:
            self._tell(trained)
        return left

    def _next(self) -> Chain | Member | None:
        """What nobody has begun yet; then a chain, to help with what nobody has begun of it."""
        with self._taking:
            if self._queue:
                work = self._queue.popleft()
                if isinstance(work, Chain):
                    self._begun.append(work)
                return work
            self._begun = [chain for chain in self._begun if not chain.is_over]
            return self._begun[0] if self._begun else None

    def _work_side_by_side(self) -> None:
        """In a thread that gets no signals: until all others are done."""
        others = [threading.Thread(target=self._help) for _ in range(self.threads - 1)]
        for thread in others:
            thread.start()
        self._meeting.come()
        self._work()
        for thread in others:
            thread.join()

    def _help(self) -> None:
        """Work from when the first core has prepared what it trains, and is about to leave Python's lock."""
        self._meeting.come_and_wait()
        self._work()

    def _work(self) -> None:
        with team.alone():
            while not self.interrupted:
                work = self._next()
                if work is None:
                    return
                try:
                    for member in self._left_of(work):
                        member.train(self._spare, self._stop, self._turn)
                        self._tell([member])
                except BaseException as error:
                    self.errors.append(error)
                    self._end()

    def _tell(self, members: Sequence[Member]) -> None:
        with self._telling:
            self._told(members)


def _wants_a_team(member: Member, fair_share: float) -> bool:
    work = member.step_multiply_adds
    return work >= TEAM_MULTIPLY_ADDS or (work >= TRY_TEAM_FROM_MULTIPLY_ADDS and member.seconds > fair_share)
