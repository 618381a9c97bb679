"""What one sees of a training while it runs, on a terminal and elsewhere."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import time

import numpy as np
import pytest

import fastbp
from fastbp.training import progress


class Stream(io.StringIO):
    """Stands for stderr, and notes when something was written."""

    def __init__(self, terminal):
        super().__init__()
        self._terminal, self.times = terminal, []

    def isatty(self):
        return self._terminal

    def write(self, text):
        self.times.append(time.monotonic())
        return super().write(text)


def fit_slowly(stream, monkeypatch, seconds, epochs=2):
    """Each epoch takes so long: a metric sleeps."""
    monkeypatch.setattr(sys, "stderr", stream)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 3)), rng.random((40, 2))

    def slow(y_true, y_pred):
        time.sleep(seconds)
        return 0.5

    model = fastbp.MLP([3, 4, 2], seed=0)
    return model.fit(X, Y, epochs=epochs, optimizer=fastbp.SGD(0.1), validation_data=(X, Y), metrics=[slow])


def test_a_bar_moves_at_least_once_a_second(monkeypatch):
    stream = Stream(terminal=True)
    fit_slowly(stream, monkeypatch, 2.0)
    assert np.diff(stream.times).max() < 1.0
    assert "epoch 2/2" in stream.getvalue()
    assert "val_slow 0.5" in stream.getvalue()
    assert "compiling" not in stream.getvalue()  # there was nothing to compile


def test_elsewhere_a_line_every_ten_seconds(monkeypatch):
    assert progress.LINE_SECONDS == 10
    monkeypatch.setattr(progress, "LINE_SECONDS", 1.0)
    monkeypatch.setattr(progress, "MOVED_SECONDS", 0.1)
    stream = Stream(terminal=False)
    fit_slowly(stream, monkeypatch, 0.8, epochs=5)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 5
    pattern = r"fit: epoch [1-5]/5, loss [0-9.]+, val_loss [0-9.]+, val_slow 0.5, step \d+/10, \d+ s"
    assert all(re.fullmatch(pattern, line) for line in lines), lines
    assert np.diff(stream.times[::2]).min() > 0.9


def test_a_short_training_says_nothing_elsewhere(monkeypatch):
    stream = Stream(terminal=False)
    fit_slowly(stream, monkeypatch, 0.0)
    assert stream.getvalue() == ""


CHILD = """
import time, sys
import numpy as np
import fastbp
began = time.perf_counter()
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((64, 5)), rng.random((64, 2))
history = fastbp.MLP([5, 6, 2], seed=0).fit(
    X, Y, epochs=3, optimizer=fastbp.Adam(), validation_data=(X, Y), progress=PROGRESS
)
print(time.perf_counter() - began, history.seconds, history.epoch_seconds.sum())
"""


@pytest.mark.slow
def test_the_first_training_of_all_says_that_it_compiles_and_does_not_count_that(tmp_path):
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 200, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CHILD).replace("PROGRESS", "True")],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    whole, seconds, of_epochs = map(float, child.communicate()[0].split())
    assert child.returncode == 0
    assert b"compiling the engine, once" in shown
    assert whole > 1.0
    assert of_epochs <= seconds < 0.5 * whole
