"""Users' functions with cache=True that hold a model: in the next process, and when fastbp has changed."""

import os
import shutil

import numba
import pytest
from processes import PACKAGE, python

import fastbp
from fastbp.embed import numba_types

MODULE = """
from numba import njit

@njit(cache=True)
def settle(model, x, steps):
    for _ in range(steps):
        x = x + model.predict(x)
    return x
"""
PROGRAM = """if True:
    import numpy as np, fastbp, settling
    room = [np.zeros(k * 1000) for k in range({places})]  # so that addresses are others
    models = [fastbp.MLP([3, 16, 3], hidden="tanh", output="identity", seed=seed) for seed in range({places})]
    found = settling.settle(models[0], np.ones((1, 3), np.float32), 10)
    assert np.array_equal(found, settling.settle.py_func(models[0], np.ones((1, 3), np.float32), 10))
    stats = settling.settle.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), found.tobytes().hex())
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "settling.py").write_text(MODULE)

    def run(places, package=None):
        path = os.pathsep.join(map(str, filter(None, (tmp_path, package))))
        cache = tmp_path / ("cache" if package else "users-cache")
        folders = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if package:
            folders["NUMBA_CACHE_DIR"] = str(cache)
        return python("-c", PROGRAM.format(places=places), cwd=tmp_path, **folders).split()

    return run


def test_the_next_process_reads_the_code_and_finds_its_own_model(run):
    first, second = run(1), run(5)
    assert first[:2] == ["0", "1"] and second[:2] == ["1", "0"]
    assert first[2] == second[2]


@pytest.mark.slow
def test_code_of_another_fastbp_is_compiled_again(run, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(PACKAGE, site / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(1, site)[:2] == ["0", "1"]
    path = site / "fastbp/embed/numba_types.py"
    path.write_text(path.read_text() + "# edited\n")
    assert run(1, site)[:2] == ["0", "1"]


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
def test_what_the_engine_becomes_is_part_of_the_type(monkeypatch):
    """So that users' code does not call what it was not compiled for."""
    digest = numba_types.digest.__wrapped__
    before = digest()
    assert digest() == before and before in fastbp.MLP([1, 1])._numba_type_.name
    monkeypatch.setattr(numba_types, "source_digest", lambda: "another")
    assert digest() != before
