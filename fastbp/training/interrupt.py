"""Ctrl-C while a training runs."""

from __future__ import annotations

# Beneath `signal`, whose functions look for an enum of each handler: some 4 us, three times in each `fit`.
import _signal  # type: ignore[import-not-found]
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any

from fastbp.history import History


class Interrupts:
    """A context in which Ctrl-C waits, until `check` is called or within `heard()`: there it raises.

    Python's own handler would raise between any two bytecodes: in the middle of a step of the reference, or
    between the steps and the note of them in the history. Here what was begun is finished, and
    KeyboardInterrupt comes only where a run can end. Where someone else handles SIGINT, or in a thread other
    than the main one, which gets no signals, nothing is changed.

    on_press : called when one begins to wait, to hurry whatever is being done.
    """

    def __init__(self, on_press: Callable[[], None]) -> None:
        self.on_press = on_press
        self.pressed = False  # one waits
        self._hearing = False
        self._before: Any = None  # the handler in whose place this one is; None: there is no such handler
        self._home: FrameType | None = None  # of the function that has this context

    def check(self) -> None:
        """KeyboardInterrupt if one waits."""
        if self.pressed:
            self.pressed = False
            raise KeyboardInterrupt

    def heard(self) -> AbstractContextManager[None]:
        """A context in which Ctrl-C raises at once: for code of others, and for what takes long."""
        return _Hearing(self)

    def deafen(self) -> None:
        """Have Ctrl-C wait from now on: said first by who catches KeyboardInterrupt, which may have come
        while the context of `heard` was being left."""
        self._hearing = False

    def pass_on(self) -> None:
        """A run within a callback was ended by Ctrl-C: the one around it shall end after that callback."""
        outer = getattr(self._before, "__self__", None)
        if isinstance(outer, Interrupts):
            outer.pressed = True

    def _goes_on(self, frame: FrameType | None) -> bool:
        """Whether the function that has this context is among the callers of the frame.

        It is not if an exception came between the handler's installation and the context, or at its end: from
        the handler of some other signal. Then nobody puts the handler back, and nobody waits for Ctrl-C.
        """
        while frame is not None and frame is not self._home:
            frame = frame.f_back
        return frame is not None

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if not self._goes_on(frame):
            _signal.signal(_signal.SIGINT, self._before)
            raise KeyboardInterrupt
        if self._hearing:
            raise KeyboardInterrupt
        self.pressed = True
        self.on_press()

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._home = sys._getframe(1)
            handler: Any = _signal.getsignal(_signal.SIGINT)
            outer = getattr(handler, "__self__", None)
            while isinstance(outer, Interrupts) and not outer._goes_on(self._home):
                handler = outer._before
                outer = getattr(handler, "__self__", None)
            if isinstance(outer, Interrupts) or handler is _signal.default_int_handler:
                self._before = handler
                _signal.signal(_signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            _signal.signal(_signal.SIGINT, self._before)
        self._home = None


class _Hearing:
    """The context of `Interrupts.heard`. (A generator with contextlib would have bytecodes of its own around
    it, in which KeyboardInterrupt could come when it should not.)"""

    __slots__ = ("_interrupts",)

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts._hearing = True
        self._interrupts.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._interrupts._hearing = False
        if kind is None:
            self._interrupts.check()  # a run within a callback may have passed one on


def or_interrupt(history: History) -> History:
    """What `fit` returned, for commands that Ctrl-C shall end: to `fit` it is but the end of training."""
    if history.interrupted:
        raise KeyboardInterrupt
    return history
