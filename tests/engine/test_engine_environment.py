"""The engine in other surroundings: other CPUs, threading layers and caches, Python threads, forks, memory.

Most of it runs in processes of its own, because Numba decides these things once.
"""

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_engine import assert_same_bits, run_bits

import fastbp
import fastbp.reference
from fastbp import show_config
from fastbp.engine.compile import jit
from fastbp.engine.kernels import matmul
from fastbp.engine.simd import vector

SUPPORT = pathlib.Path(__file__).parents[1] / "support"
PACKAGE = pathlib.Path(fastbp.__file__).parent
AVX2 = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx8,+cx16,+cmov,+fxsr,+mmx,"
    "+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe",
}
GENERIC = {"NUMBA_CPU_NAME": "generic"}
WORKQUEUE = {"NUMBA_THREADING_LAYER": "workqueue"}
NO_JIT = {"NUMBA_DISABLE_JIT": "1"}

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names of x86 CPUs")
on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def python(*arguments, cwd=None, timeout=900, **environment):
    """What a new Python prints; it must end well."""
    defaults = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    env = {k: v for k, v in {**defaults, **environment}.items() if v is not None}
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, f"{result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


# ---- other CPUs and threading layers ---------------------------------------------------------------------


def host_has(*features):
    from llvmlite.binding import get_host_cpu_features

    host = get_host_cpu_features()
    return all(host.get(f) for f in features)


ARMS = {
    "avx2": (
        AVX2,
        {"vector_bits": 256, "vector_registers": 16, "fused_multiply_add": True},
        [on_x86, pytest.mark.skipif(not host_has("avx2", "fma"), reason="this CPU has no AVX2")],
    ),
    "generic": (GENERIC, {"vector_bits": 128, "fused_multiply_add": False}, [on_x86]),
    "no-jit": (NO_JIT, {"jit": False, "threads": 1}, []),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "config"), [pytest.param(e, c, id=name, marks=m) for name, (e, c, m) in ARMS.items()]
)
def test_core_tests_elsewhere(environment, config):
    """Compiled for another CPU, or not compiled at all: each kernel, though not in each combination."""
    shown = python("-c", "import fastbp; print(repr(fastbp.show_config()))", **environment).splitlines()[-1]
    namespace = eval(shown)  # a dict of plain values
    assert {k: namespace[k] for k in config} == config
    out = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not combination"),
        *(
            SUPPORT.parent / name
            for name in ("engine/test_engine.py", "test_dropin.py", "inspection/test_gradients.py")
        ),
        cwd=SUPPORT.parents[1],
        **environment,
    )
    assert re.search(r"\d\d\d passed", out), out


@pytest.mark.slow
def test_same_bits_in_every_case():
    """With two threads: four on two cores, as in test_engine, take much longer."""
    results = run_bits(every=1, NUMBA_NUM_THREADS="2")
    assert_same_bits(results)
    assert {"threads-1", "threads-2"} < set(results)


@pytest.mark.slow
def test_same_bits_with_workqueue():
    """Of all that is compiled, the threading layer meets the teams only."""
    assert_same_bits(run_bits(every=5, **WORKQUEUE))


@pytest.mark.slow
def test_same_bits_without_jit():
    """Drivers that run as Python do the same as compiled ones."""
    assert run_bits(every=35, **NO_JIT)["threads-1"][0] == run_bits(every=35)["threads-1"][0]


def test_isa_and_tile_fit_each_other():
    """All accumulators of a tile, and a vector of B for each of its columns, have registers."""
    isa = vector.isa()
    for width, height in matmul.shapes().items():
        assert height * width + width + 1 <= isa.registers + 1, (width, height)


# ---- caching ------------------------------------------------------------------------------------------

FIT = """if True:
    import hashlib, numpy, fastbp
    model = fastbp.MLP([2, 8, 1], seed=0)
    X = numpy.array([[0, 0], [0, 1], [1, 0], [1, 1.0]])
    model.fit(X, X[:, :1], epochs=3, optimizer=fastbp.SGD(0.5), shuffle=False, progress=False)
    print(hashlib.sha256(model._parameters.tobytes()).hexdigest()[:16])
"""


# Compiles a callback and a function for Python, which takes a second instead of ten.
PARTS = """if True:
    import numpy, fastbp, ctypes
    from fastbp.engine.kernels import blocks
    from fastbp.engine.compile import jit
    x, out = numpy.array([1, numpy.nan], "f4"), numpy.zeros(1, "i8")
    def check(address, x, out):
        jit.call(address, (x.ctypes.data, x.size, out.ctypes.data))
    jit.dispatcher(check)(blocks.not_finite("float32"), x, out)
    print(out[0])
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and how to run code with it: run(code, **environment) is what that prints."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))

    def run(code, **environment):
        paths = {"PYTHONPATH": str(tmp_path / "site"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        return python(
            "-c", code, cwd=tmp_path, **{**paths, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        ).strip()

    return run


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_an_edit_is_seen_by_the_next_process(copy, tmp_path):
    """And what was cached before the edit is still there, and still right: versions share a folder."""
    first = copy(FIT)
    assert copy(FIT) == first
    cached = files(tmp_path / "cache")
    assert cached
    path = tmp_path / "site/fastbp/engine/simd/vector.py"
    source = path.read_text()
    edited = source.replace("self._exp_of_rest(r), 1.0))", "self._exp_of_rest(r), 1.5))")  # in the sigmoid
    assert edited != source
    path.write_text(edited)
    assert copy(FIT) != first
    with_both = files(tmp_path / "cache")
    assert {k: with_both[k] for k in cached} == cached
    path.write_text(source)
    assert copy(FIT) == first
    assert files(tmp_path / "cache") == with_both  # nothing was compiled anew


@on_x86
def test_cpus_share_a_cache(copy, tmp_path):
    """A folder on a network drive, two machines: each finds its own code."""
    assert copy(PARTS) == "1"
    cached = files(tmp_path / "cache")
    assert copy(PARTS, **GENERIC) == "1"
    with_both = files(tmp_path / "cache")
    assert {k: with_both[k] for k in cached} == cached
    assert len(with_both) == 2 * len(cached)
    assert copy(PARTS) == copy(PARTS, **GENERIC) == "1"
    assert files(tmp_path / "cache") == with_both


def test_every_source_counts(tmp_path, monkeypatch):
    """The digest in the cache's file names changes with each file that compiled code comes from only."""
    package = tmp_path / "fastbp"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(jit, "PACKAGE", package)
    digest = jit.source_digest.__wrapped__
    original = digest()
    assert original == jit.source_digest() == digest()
    (package / "engine" / "notes.txt").write_text("not a source")
    for other in ("model.py", "cli/main.py", "training/run.py"):
        (package / other).write_text("# edited\n")
    assert digest() == original
    sources = jit.compiled_sources()
    folders = {path.parent.relative_to(package).as_posix() for path in sources}
    assert {"engine", "engine/kernels", "engine/simd", "engine/worker", "formulas", "."} <= folders
    for path in sources:
        source = path.read_bytes()
        path.write_bytes(source + b"\n# edited\n")
        assert digest() != original, path.name
        path.write_bytes(source)
    assert digest() == original


def unwritable(path):
    """Make it impossible to create the folder, for the superuser as well: a file takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def test_a_read_only_installation(copy, tmp_path):
    """Compiled code goes to the home folder; without that either, it is compiled each time."""
    package = tmp_path / "site" / "fastbp"
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        unwritable(folder / "__pycache__")
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    (tmp_path / "home").mkdir()
    assert copy(PARTS, **home) == "1"
    cached = files(tmp_path / "home")
    assert any("fastbp-" in path.name for path in cached)
    assert copy(PARTS, **home) == "1"
    assert files(tmp_path / "home") == cached
    unwritable(tmp_path / "no-home")
    nowhere = {**home, "HOME": str(tmp_path / "no-home"), "XDG_CACHE_HOME": str(tmp_path / "no-home")}
    before = files(tmp_path)
    asked = PARTS + "    assert fastbp.show_config()['cache_writable'] is False\n"
    assert copy(asked, **nowhere).splitlines()[0] == "1"
    assert files(tmp_path) == before


@pytest.mark.slow
def test_two_processes_that_compile_at_once(copy, tmp_path):
    """Each of two signatures ends up with its own code, whoever writes last."""
    code = """if True:
        import sys, numpy, fastbp
        from fastbp.engine.compile import jit
        def f(x): return x.size * 1000 + x.itemsize
        f = jit.dispatcher(f)
        for dtype in sys.argv[1:]:
            print(f(numpy.zeros(7, dtype)))
    """
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    script = tmp_path / "both.py"
    script.write_text(code.replace("if True:", "", 1).replace("\n        ", "\n"))
    together = [
        subprocess.Popen([sys.executable, script, dtype], env=env, stdout=subprocess.PIPE, text=True)
        for dtype in ("float32", "float64", "int16", "int8")
    ]
    assert [p.communicate()[0].strip() for p in together] == ["7004", "7008", "7002", "7001"]
    written = files(tmp_path / "cache")
    assert len({path.name.split(".")[0] for path in written}) == 4
    assert python(script, "float32", "float64", "int16", "int8", **env).split() == [
        "7004",
        "7008",
        "7002",
        "7001",
    ]
    assert files(tmp_path / "cache") == written


# ---- Python threads, forks, the GIL ------------------------------------------------------------------------

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
    return model._parameters.tobytes()
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
assert np.isfinite(shared._parameters).all()
again = make(4)
again._parameters[...] = shared._parameters
assert again.predict(X).tobytes() == shared.predict(X).tobytes()
assert team._in_use == 0 and not team._region
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
    model._predict(X)  # a few entries into compiled code
    ended = time.perf_counter()
    done.set()
    counter.join()
    # a thousand a second, were it alone; with the GIL held, next to none
    inside = sum(started < t < ended for t in ticks)
    assert inside >= 3
    assert inside > 50 * (ended - started)


# ---- memory -------------------------------------------------------------------------------------------


def test_no_allocation_per_step():
    """A chunk of steps needs memory for its tables (settings and losses), and nothing more for each step."""
    import tracemalloc

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((64, 20)).astype(np.float32), rng.random((64, 3)).astype(np.float32)
    peaks = {}
    model = fastbp.MLP([20, 30, 3], seed=0)
    for optimizer in (fastbp.SGD(0.01), fastbp.Adam()):
        state = optimizer.state(model, model.n_parameters, model.dtype)
        for steps in (4, 4, 4004):
            losses = np.empty(steps)
            tracemalloc.start()
            model._train_chunk(X, Y, None, 0, steps, 16, optimizer, state, losses)
            peaks[steps] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        # a handful of temporary columns of 8 bytes, ten settings of 4
        assert peaks[4004] - peaks[4] < 4000 * 8 * 16


MEMORY = """
import sys
import numpy as np
import fastbp

def megabytes(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024

sizes, rows, batch = eval(sys.argv[1]), 2000, 32
def make(sizes):
    model = fastbp.MLP(sizes, seed=0)
    X = np.zeros((rows, sizes[0]), np.float32)
    Y = np.zeros((rows, sizes[-1]), np.float32)
    return model, X, Y
def fit(model, X, Y):
    model.fit(X, Y, epochs=1, batch_size=batch, optimizer=fastbp.SGD(1e-6), progress=False)
fit(*make([16] * len(sizes)))  # compile
small = megabytes("VmRSS")
model, X, Y = make(sizes)
data = (X.nbytes + Y.nbytes) / 2**20
with open("/proc/self/clear_refs", "w") as f:
    f.write("5")  # forget the peak so far
X.fill(1), Y.fill(0.5)
fit(model, X, Y)
parameters = model._parameters.nbytes / 2**20
activations = 2 * 4 * batch * sum(sizes[1:]) / 2**20  # and deltas
print((megabytes("VmHWM") - small - data - activations) / parameters)
"""


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("sizes", [[3000, 3000, 500], [1500] * 6], ids=["one hidden layer", "deep"])
def test_memory_of_a_fit(sizes):
    """Beyond data and activations: the parameters, packed, and transposed for the backward pass (not the
    first layer's)."""
    times = float(python("-c", MEMORY, sizes, NUMBA_NUM_THREADS="2"))
    assert times < 3, f"the parameters {times:.2f} times"


# ---- what a bug report should contain ----------------------------------------------------------------------


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
    assert config["engine_sources"] == jit.source_digest()
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
