"""Prepared plans that go from one network to the next."""

from __future__ import annotations

import threading

from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan


class SparePlans:
    """Plans that nobody uses at the moment, at most so many, for networks that are trained one after another:
    those of equal design take the same ones. Several Python threads may take and put back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._plans: list[Plan] = []  # the one put back last stands last

    def take(self, design: Design) -> Plan | None:
        """One of that design, which is the caller's alone until `put`; None if there is none."""
        with self._lock:
            for i in range(len(self._plans) - 1, -1, -1):
                if self._plans[i].design == design:
                    return self._plans.pop(i)
        return None

    def put(self, plan: Plan) -> None:
        with self._lock:
            self._plans.append(plan)
            del self._plans[: -self.most]
