"""Functions of numbers are compiled in less time, and mean what they mean in Python."""

import pytest
from numba import config, int64, njit
from numba.core import event
from processes import python

from fastbp.engine.compile import jit, linked

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")


@jit.inner
def of_integers(a, b):
    return min(a, b), max(a, 3), min(7, a, b), max(a, b, a + b), min(2, 1), max(min(a, b), -a)


@jit.inner
def of_others(a, b):
    return min(a, 0.5), max(b, 2.5, 1), max((a, b))


@njit
def both(a, b):
    return of_integers(a, b), of_others(a, b)


@pytest.mark.parametrize("a, b", [(0, 0), (-5, 3), (3, -5), (1 << 62, -(1 << 62)), (9, 8)])
def test_least_and_most_are_those_of_python(a, b):
    assert both(a, b) == (of_integers.py_func(a, b), of_others.py_func(a, b))


@pytest.mark.skipif(not linked.OPTIONS, reason="compiled as Numba does it")
def test_least_and_most_of_integers_are_no_functions():
    @jit.inner
    def inside(a, b):
        return min(a, b) + max(a, 3, b)

    @njit
    def outside(a, b):
        return inside(a, b)

    with event.install_recorder("numba:compile") as recorded:
        outside.compile((int64, int64))
    compiled = {e.data["dispatcher"].py_func.__name__ for _, e in recorded.buffer}
    assert compiled == {"inside", "outside"}


OF_ANOTHER_VERSION = """
import numba
numba.version_info = numba.version_info._replace(short=(0, 1000))
from fastbp.engine.compile import front_end
from fastbp.engine.compile.direct import program

def refuse(*arguments):
    raise AssertionError("what is known of one version was used with another")

front_end.OfNumbers.__init__ = program.module_of = program.module_of_code = refuse
"""
PRODUCT = """
import numpy as np
from fastbp import kernels
a = np.arange(36, dtype=np.float32).reshape(6, 6)
print(kernels.matmul(a, a).tolist() == (a @ a).tolist())
try:
    kernels.matmul(a, a[:5])
except ValueError as error:
    print(error)
"""


def test_other_versions_of_numba_do_all_in_their_own_way(tmp_path):
    out = python("-c", OF_ANOTHER_VERSION + PRODUCT, NUMBA_CACHE_DIR=str(tmp_path))
    product, refusal = out.splitlines()
    assert product == "True" and refusal.startswith("A has shape (6, 6), B has shape (5, 6)")


TRAINING = """
import hashlib
import numpy as np
import fastbp
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((70, 5), np.float32), rng.random((70, 3), np.float32)
net = fastbp.MLP([5, 33, 17, 3], seed=0)
net.fit(X, Y, epochs=2, batch_size=16, optimizer=fastbp.Adam(1e-3), progress=False)
print(hashlib.sha256(b"".join(map(bytes, (*net.weights, *net.biases)))).hexdigest())
"""


@pytest.mark.slow
def test_other_versions_of_numba_train_alike(tmp_path):
    ours = python("-c", TRAINING)
    assert python("-c", OF_ANOTHER_VERSION + TRAINING, NUMBA_CACHE_DIR=str(tmp_path)) == ours
