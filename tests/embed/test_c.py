"""Models as C functions: called by a compiled C program, by ctypes and by SciPy's integrators."""

import ctypes
import gc
import math
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
from processes import NO_JIT, python

import fastbp
import fastbp.reference

# Threads of C, which Python does not know, follow trajectories that start at their number.
PROGRAM = """
#include <pthread.h>
#include "model.h"

#define THREADS 6
#define STEPS 2000

typedef struct { fastbp_predict predict; void *model; fastbp_number state[FASTBP_INPUTS]; } task;

static void *follow(void *argument)
{
    task *t = argument;
    fastbp_number out[FASTBP_OUTPUTS];
    for (int step = 0; step < STEPS; step++) {
        t->predict(t->state, 1, out, t->model);
        for (int i = 0; i < FASTBP_INPUTS; i++)
            t->state[i] += out[i];
    }
    return 0;
}

int follow_all(fastbp_predict predict, void *model, fastbp_number *states)
{
    pthread_t threads[THREADS];
    task tasks[THREADS];
    for (int k = 0; k < THREADS; k++) {
        tasks[k] = (task){predict, model};
        for (int i = 0; i < FASTBP_INPUTS; i++)
            tasks[k].state[i] = states[k * FASTBP_INPUTS + i];
        if (pthread_create(&threads[k], 0, follow, &tasks[k]))
            return 1;
    }
    for (int k = 0; k < THREADS; k++) {
        pthread_join(threads[k], 0);
        for (int i = 0; i < FASTBP_INPUTS; i++)
            states[k * FASTBP_INPUTS + i] = tasks[k].state[i];
    }
    return 0;
}
"""
COMPILER = shutil.which("cc")


def model_of(sizes, **options):
    return fastbp.MLP(sizes, **{"hidden": "tanh", "output": "identity", "seed": 0, **options})


@pytest.mark.skipif(COMPILER is None or sys.platform == "win32", reason="there is no C compiler")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_program_in_c(tmp_path, dtype):
    model = model_of([3, 16, 3], dtype=dtype)
    function = model.c_function()
    (tmp_path / "model.h").write_text(function.header)
    (tmp_path / "program.c").write_text(PROGRAM)
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers", "-std=c11"]
    command = [COMPILER, *warnings, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-pthread"]
    subprocess.run([*command, "program.c", "-o", "program.so"], cwd=tmp_path, check=True)
    follow_all = ctypes.CDLL(str(tmp_path / "program.so")).follow_all
    follow_all.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    states = np.arange(18, dtype=dtype).reshape(6, 3) / 10
    expected = states.copy()
    assert follow_all(function.address, function.user_data, states.ctypes.data) == 0
    for _ in range(2000):
        expected += model.predict(expected)
    assert np.array_equal(states, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ctypes(dtype):
    model = model_of([5, 24, 3], dtype=dtype, input_scale=0.5)
    function = model.c_function()
    for rows in (1, 8, 600):
        X = np.random.default_rng(0).standard_normal((rows, 5)).astype(dtype)
        out = np.empty((rows, 3), dtype)
        function.ctypes(X, rows, out, function.user_data)
        assert np.array_equal(out, model.predict(X))
        model.weights[0][...] *= 1.1
    other = np.float64 if dtype == "float32" else np.float32
    for given in (X.astype(other), np.asfortranarray(X), X[0]):
        with pytest.raises(ctypes.ArgumentError):
            function.ctypes(given, 1, out, function.user_data)
    kept = out.copy()
    for rows in (0, -1):
        function.ctypes(X, rows, out, function.user_data)
    assert np.array_equal(out, kept)


def test_user_data_keeps_the_model_alive():
    model = model_of([2, 8, 1])
    X, out = np.ones((1, 2), np.float32), np.empty((1, 1), np.float32)
    expected, alive, function = model.predict(X), weakref.ref(model), model.c_function()
    del model
    gc.collect()
    function.ctypes(X, 1, out, function.user_data)
    assert np.array_equal(out, expected)
    del function
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_integrals_over_a_network(dtype):
    """To the bits of what SciPy makes of `predict`: it asks for the same places."""
    scipy = pytest.importorskip("scipy.integrate")
    line, plane = model_of([1, 16, 1], dtype=dtype), model_of([2, 16, 1], dtype=dtype)
    options = {"epsabs": 1e-4, "epsrel": 1e-4}

    def of(model):
        return lambda *x: float(model.predict(np.array([x], dtype))[0, 0])

    assert scipy.quad(line.low_level_callable(), -1, 2, **options) == scipy.quad(of(line), -1, 2, **options)
    places = [[0, 1], [-1, 1]]
    found = scipy.nquad(plane.low_level_callable(), places, opts=options)
    assert found == scipy.nquad(of(plane), places, opts=options)


def test_an_integral_that_is_known():
    """Of tanh: log(cosh)."""
    scipy = pytest.importorskip("scipy.integrate")
    model = model_of([1, 1, 1], dtype="float64")
    model.weights[0][...] = model.weights[1][...] = 1
    model.biases[0][...] = model.biases[1][...] = 0
    integrand = model.low_level_callable()
    del model
    gc.collect()
    assert scipy.quad(integrand, 0, 2)[0] == pytest.approx(math.log(math.cosh(2)), rel=1e-12)


def test_what_is_no_integrand():
    scipy = pytest.importorskip("scipy.integrate")
    with pytest.raises(ValueError, match="the model has 3 outputs, an integrand is a model with one"):
        model_of([2, 3]).low_level_callable()
    with pytest.warns(scipy.IntegrationWarning):  # one variable instead of two
        assert math.isnan(scipy.quad(model_of([2, 4, 1]).low_level_callable(), 0, 1)[0])
    for method in ("c_function", "low_level_callable"):
        with pytest.raises(TypeError, match=r"compiled code needs a model of fastbp\.MLP"):
            getattr(fastbp.reference.MLP([1, 4, 1]), method)()


def test_without_numba_they_work_all_the_same():
    pytest.importorskip("scipy")
    code = """if True:
        import warnings
        import numpy as np, fastbp
        from scipy.integrate import quad
        warnings.simplefilter("ignore")  # that one interval is not enough
        model = fastbp.MLP([1, 4, 1], hidden="tanh", seed=0)
        function, out = model.c_function(), np.empty((3, 1), np.float32)
        function.ctypes(np.ones((3, 1), np.float32), 3, out, function.user_data)
        print(out.tolist(), quad(model.low_level_callable(), 0, 1, limit=1))
    """
    assert python("-c", code, **NO_JIT) == python("-c", code)
