"""Ctrl-C while a chunk of training steps runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from fastbp.history import History


class DeferredInterrupt:
    """A context in which Ctrl-C raises KeyboardInterrupt, but within `held` only at the end of it.

    Python's own handler would raise in the middle of a step of the reference, or between the steps and the
    note of them in the history. Where someone else handles SIGINT, or in a thread other than the main one,
    which gets no signals, nothing is changed.
    """

    def __init__(self) -> None:
        self._holding = False
        self._pending = False
        self._on_pending: Callable[[], None] = lambda: None
        self._installed = False

    @contextmanager
    def held(self, on_pending: Callable[[], None]) -> Iterator[None]:
        """Keep Ctrl-C waiting; `on_pending` is called when one begins to wait."""
        self._holding, self._on_pending = True, on_pending
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._holding:
            raise KeyboardInterrupt
        self._pending = True
        self._on_pending()

    def __enter__(self) -> DeferredInterrupt:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def or_interrupt(history: History) -> History:
    """What `fit` returned, for commands that Ctrl-C shall end: to `fit` it is but the end of training."""
    if history.interrupted:
        raise KeyboardInterrupt
    return history
