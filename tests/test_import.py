"""What importing costs and does not do."""

import subprocess
import sys

import fastbp


def run(code):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""
    return result.stdout


def test_importing_prints_nothing_starts_no_threads_and_compiles_nothing():
    code = """if True:
        import os, sys, threading
        import numba
        from numba.core import dispatcher, event
        before = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        compiled = []
        class Listener(event.Listener):
            def on_start(self, event): compiled.append(event)
            def on_end(self, event): pass
        event.register("numba:compile", Listener())
        import fastbp, fastbp.reference
        after = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        assert before == after, (before, after)
        assert threading.active_count() == 1
        assert not compiled, compiled
        for name in ("tqdm", "safetensors", "matplotlib", "pandas"):
            assert name not in sys.modules, name
    """
    assert run(code) == ""


def test_a_name_is_looked_for_once():
    """Afterwards it is the package's own: functions that take a microsecond are asked for in each call."""
    for name in fastbp.__all__:
        assert getattr(fastbp, name) is vars(fastbp)[name], name
