"""What one sees of a training while it runs: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from fastbp.history import VALIDATION, History

# The bar is not drawn anew for chunks more often than that; but its clock moves at least so often, however
# long a step takes. Where there is no terminal, a line says after so long how far it has come.
SHOWN_SECONDS, MOVED_SECONDS, LINE_SECONDS = 0.1, 0.5, 10.0
COMPILING = "compiling the engine, once"


class Progress:
    """Shows how far a run of `total` steps (None: nobody knows) has come, `done` of them before it began.

    wanted : False shows nothing.
    """

    def __init__(self, wanted: bool, total: int | None, done: int) -> None:
        self._wanted = wanted and sys.stderr is not None
        self._total, self._done, self._text = total, done, ""
        self._began = self._shown = self._printed = time.monotonic()
        self._bar: Any = None
        self._clock: threading.Thread | None = None
        if self._wanted and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)

    def compiling(self) -> None:
        """The engine is going to be compiled, or loaded: the bar says so if that takes a moment."""
        if self._bar is not None:
            self._bar.set_postfix_str(COMPILING, refresh=False)
            self._start_clock()

    def compiled(self) -> None:
        """That is over, or was given up: the bar's time begins now."""
        self._began = self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str("", refresh=False)
            self._bar.unpause()

    def is_due(self, epoch_ended: bool) -> bool:
        """Whether it is time to say how far it is: at every epoch's end on a bar, else not all the time."""
        at_once = epoch_ended and self._bar is not None
        return self._wanted and (at_once or time.monotonic() - self._shown >= SHOWN_SECONDS)

    def show(self, done: int, text: str) -> None:
        """So many steps are done; the text says what has come out."""
        self._done, self._text, self._shown = done, text, time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(text)
            self._bar.update(done - self._bar.n)
        elif self._clock is None and self._shown - self._began > MOVED_SECONDS:
            self._start_clock()

    def close(self) -> None:
        if self._clock is not None:
            self._over.set()
            self._clock.join()
        if self._bar is not None:
            self._bar.close()

    def _start_clock(self) -> None:
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def _tick(self) -> None:
        """In a thread of its own: a step may take as long as it likes."""
        while not self._over.wait(MOVED_SECONDS):
            if self._bar is not None:
                self._bar.refresh()
            elif time.monotonic() - self._printed >= LINE_SECONDS:
                self._printed = time.monotonic()
                of = "" if self._total is None else f"/{self._total}"
                seconds = self._printed - self._began
                print(
                    f"fit: {self._text}, step {self._done}{of}, {seconds:.0f} s", file=sys.stderr, flush=True
                )


def described(history: History, epochs: int | None, so_far: float | None) -> str:
    """How far a run has come; epochs: how many are wanted; so_far: the loss of the one in progress, None
    where the last one has just ended."""
    loss = history.last("loss") if so_far is None else so_far
    text = f"epoch {history.epochs}{f'/{epochs}' if epochs else ''}, loss {loss:.4g}"
    if history.epochs:
        names = [name for name in history.names if name.startswith(VALIDATION)]
        text += "".join(f", {name} {history.last(name):.4g}" for name in names)
    return text
