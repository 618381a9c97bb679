"""Locks, and what else a thread may have taken, that a forked child finds free."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_owners: weakref.WeakSet[Any] = weakref.WeakSet()
_to_free: weakref.WeakSet[Any] = weakref.WeakSet()


def lock_of(owner: Any) -> Any:
    """A lock for the attribute `_lock` of this object, which its thread may take again. In a child process
    the object gets a new one: in the parent another thread may have held it, which does not exist in the
    child and will never give it back."""
    _owners.add(owner)
    return threading.RLock()


def free_after_fork(taken: Any) -> None:
    """Have `taken.free()` called in a child process: for what compiled code takes without a lock."""
    _to_free.add(taken)


def _renew() -> None:
    for taken in list(_to_free):
        taken.free()
    for owner in list(_owners):
        owner._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
