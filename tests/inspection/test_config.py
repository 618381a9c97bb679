"""What a bug report should contain."""

import re

from processes import python

import fastbp
import fastbp.reference
from fastbp import show_config
from fastbp.engine.compile import cache, jit
from fastbp.engine.simd import vector


def test_show_config(capsys):
    config = show_config()
    out = capsys.readouterr().out
    assert out.count("\n") == len(config)
    for name in (
        "fastbp",
        "numba",
        "cpu_features",
        "vector_bits",
        "tile",
        "threading_layer",
        "cache",
        "threads",
    ):
        assert re.search(rf"^{name} +\S", out, re.MULTILINE), name
    assert config["fastbp"] == fastbp.__version__
    assert config["vector_bits"] == 8 * vector.isa().bytes
    assert config["engine_sources"] == cache.source_digest()
    assert config["callbacks_from"] == jit.callbacks_from()
    assert 1 <= config["threads"] <= config["threads_of_numba"]
    assert fastbp.reference.show_config is show_config


def test_show_config_starts_and_compiles_nothing():
    code = """if True:
        import os, threading, fastbp
        from numba.core import event
        started = []
        class Listener(event.Listener):
            def on_start(self, event): started.append(event)
            def on_end(self, event): pass
        event.register("numba:compile", Listener())
        tasks = lambda: len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0
        before = tasks()
        config = fastbp.show_config()
        assert tasks() == before and not started
        assert config["threading_layer"] == "not started yet"
    """
    python("-c", code)
