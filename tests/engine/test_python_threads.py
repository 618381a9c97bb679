"""Python threads, forks, and the global interpreter lock."""

import os
import sys

import numpy as np
import pytest
from processes import SUPPORT, python

import fastbp
import fastbp.reference

SETUP = (
    f"""
import os, sys, threading, time
sys.path.insert(0, {str(SUPPORT)!r})
"""
    + """
import numpy as np
import fastbp
from engine_bits import force_teams
from fastbp.engine.threads import team
force_teams()
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((400, 33)), rng.random((400, 5))
def make(seed, sizes=(33, 40, 17, 5)):
    return fastbp.MLP(sizes, hidden="tanh", seed=seed)
def fit(model, epochs=20):
    model.fit(X, Y, epochs=epochs, batch_size=50, optimizer=fastbp.Adam(), progress=False)
    return model.parameters.flat.tobytes()
def in_threads(*functions):
    results, errors = [None] * len(functions), []
    gate = threading.Barrier(len(functions))
    def do(i):
        gate.wait()
        try:
            results[i] = functions[i]()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=do, args=(i,)) for i in range(len(functions))]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not errors, errors
    return results
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["omp", "workqueue"])
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="there is one thread only")
def test_python_threads(layer):
    if layer == "omp" and "False" in python(
        "-c", "from numba.np.ufunc import omppool; print(True)" if sys.platform != "win32" else "print(False)"
    ):
        pytest.skip("no OpenMP")
    code = (
        SETUP
        + """
one_by_one = [fit(make(seed)) for seed in range(3)]
assert team.threading_layer() == sys.argv[1], team.threading_layer()
for _ in range(3):
    assert in_threads(*(lambda seed=seed: fit(make(seed)) for seed in range(3))) == one_by_one
print("two models at once: as one after the other")

other = make(9)
expected = other.predict(X).tobytes()
trained = in_threads(lambda: fit(make(0)), lambda: {other.predict(X).tobytes() for _ in range(300)})
assert trained == [one_by_one[0], {expected}]
print("prediction during training")

few = other.predict(X[:7]).tobytes()
both = in_threads(*[lambda: {other.predict(X[:n]).tobytes() for n in (400, 7) for _ in range(50)}] * 2)
assert both == [{expected, few}] * 2
shared = make(4)
in_threads(*[lambda: fit(shared, 5), lambda: shared.predict(X), lambda: fit(shared, 5)] * 2)
assert np.isfinite(shared.parameters.flat).all()
again = make(4)
again.parameters.flat[...] = shared.parameters.flat
assert again.predict(X).tobytes() == shared.predict(X).tobytes()
assert not any(share.cores for share in team._shares)
print("one model in many threads")
"""
    )
    out = python("-c", code, layer, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="4")
    assert len(out.splitlines()) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="there is one thread only")
@pytest.mark.parametrize("who", ["fastbp", "somebody else's loop"])
def test_a_process_with_a_team_may_fork(who):
    """OpenMP kills a forked child that starts threads, whoever had started them in the parent."""
    code = (
        SETUP
        + """
import multiprocessing, warnings, numba
warnings.simplefilter("ignore")  # Python 3.12 warns of forks in a process with threads

def child(connection):
    model = make(1)
    connection.send((fit(model), model.predict(X).tobytes(), fastbp.show_config()["threads_limited_by"]))
    connection.close()

expected = make(1)
if sys.argv[1] == "fastbp":
    expected = fit(expected), expected.predict(X).tobytes()
else:
    @numba.njit(parallel=True)
    def loop(x):
        for i in numba.prange(len(x)):
            x[i] = i
    loop(np.zeros(100))
assert team.threading_layer()
context = multiprocessing.get_context("fork")
here, there = context.Pipe()
process = context.Process(target=child, args=(there,))
process.start()
there.close()
answer = here.recv()
process.join()
assert process.exitcode == 0
assert "fork" in answer[2]
if sys.argv[1] == "fastbp":
    assert answer[:2] == expected
    made_before = make(1)
    fit(made_before, 1)
pid = os.fork()
if pid == 0:
    same = fit(make(1)) == answer[0]
    if sys.argv[1] == "fastbp":
        made_before.predict(X)  # a model of the parent's
    os._exit(0 if same else 1)
assert os.waitpid(pid, 0)[1] == 0
sizes = []
run = team.run
team.run = lambda *a: sizes.append(run(*a)) or sizes[-1]
assert fit(make(1)) == answer[0]
assert max(sizes) > 1  # the parent goes on with its team
"""
    )
    python("-c", code, who, NUMBA_NUM_THREADS="3")


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="drivers are Python then")
def test_other_python_threads_run_during_a_kernel():
    import threading
    import time

    model = fastbp.MLP([64, 512, 64], seed=0, threads=1)
    X = np.zeros((200_000, 64), np.float32)
    model.predict(X[:10])
    ticks, done = [], threading.Event()

    def count():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    started = time.perf_counter()
    model.backend.predict(X)  # a few entries into compiled code
    ended = time.perf_counter()
    done.set()
    counter.join()
    # a thousand a second, were it alone; with the GIL held, next to none
    inside = sum(started < t < ended for t in ticks)
    assert inside >= 3
    assert inside > 50 * (ended - started)
