"""Prepared plans that go from one network to the next."""

from __future__ import annotations

from contextlib import suppress

from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.engine.threads.locks import lock_of


class SparePlans:
    """Plans that nobody uses at the moment, for networks that are trained one after another: those of equal
    design, but for l2, take the same ones, and with a plan what is known of how many threads suit it. At most
    `most` of them, and at most so many bytes (None: any number). Several Python threads may take and put
    back."""

    def __init__(self, most: int, most_bytes: int | None = None) -> None:
        self.most, self.most_bytes = most, most_bytes
        self._lock = lock_of(self)
        self._plans: list[Plan] = []  # the one put back last stands last

    def take(self, design: Design) -> Plan | None:
        """One of that design, which is the caller's alone until `put`; None if there is none."""
        with self._lock:
            for plan in reversed(self._plans[:]):
                if plan.can_be(design):
                    with suppress(ValueError):  # a signal handler, which has this thread's lock, was quicker
                        self._plans.remove(plan)
                        plan.become(design)
                        return plan
        return None

    def put(self, plan: Plan) -> None:
        """Keep this one, and let those go that have not been used for longest."""
        with self._lock:
            self._plans.append(plan)
            del self._plans[: -self.most]
            if self.most_bytes is not None:
                while sum(kept.memory.nbytes for kept in self._plans) > self.most_bytes:
                    del self._plans[0]
