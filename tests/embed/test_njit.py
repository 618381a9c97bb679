"""Models in functions that Numba compiles: `predict` and `predict_into`."""

import gc
import os
import pickle
import sys
import threading
import weakref

import numba
import numpy as np
import pytest
from numba import njit, prange
from processes import NO_JIT, python

import fastbp
import fastbp.reference

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")

ARCHITECTURES = {
    "one layer": {"layer_sizes": [5, 3], "output": "identity"},
    "usual": {"layer_sizes": [3, 16, 1], "hidden": "tanh"},
    "odd": {"layer_sizes": [17, 33, 1, 5], "hidden": "gelu", "output": "softmax"},
    "normalised": {"layer_sizes": [4, 20, 31, 2], "layer_norm": True},
    "scaled": {"layer_sizes": [6, 24, 2], "input_scale": [1, 2, 3, 4, 5, 6], "input_offset": -0.3},
    "noisy": {"layer_sizes": [6, 24, 2], "dropout": 0.5, "input_noise": 0.1},
    "wide": {"layer_sizes": [256, 300, 14]},
}


@njit
def predict(model, X):
    return model.predict(X)


@njit
def predict_into(model, X, out):
    model.predict_into(X, out)


@njit(nogil=True)
def sums(model, X, times):
    """(times,) of sums of the output, each computed anew."""
    found = np.empty(times)
    for i in range(times):
        found[i] = model.predict(X).sum()
    return found


@njit(parallel=True)
def each_row(model, X):
    out = np.empty((len(X), 1), X.dtype)
    for i in prange(len(X)):
        out[i] = model.predict(X[i : i + 1])[0]
    return out


def rows_for(model, rows, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, model.layer_sizes[0])).astype(model.dtype)


# ---- results -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_the_bits_of_predict(options, dtype):
    """Any number of rows, read in place or packed, in whole blocks and beyond."""
    model = fastbp.MLP(seed=1, dtype=dtype, **options)
    for rows in (1, 2, 7, 8, 31, 32, 33, 513, 1100):
        X = rows_for(model, rows)
        y = predict(model, X)
        assert y.dtype == model.dtype and np.array_equal(y, model.predict(X))
        out = np.full_like(y, np.nan)
        predict_into(model, X, out)
        assert np.array_equal(out, y)


def test_however_the_rows_lie():
    model = fastbp.MLP([3, 8, 2], seed=0)
    X = rows_for(model, 40)
    wide = np.zeros((80, 6), np.float32)
    wide[::2, ::2] = X
    read_only = X.copy()
    read_only.flags.writeable = False
    misaligned = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    misaligned[...] = X
    assert not misaligned.flags.aligned
    for given in (np.asfortranarray(X), wide[::2, ::2], read_only, misaligned):
        assert np.array_equal(predict(model, given), model.predict(X))
        out = np.empty((40, 2), np.float32)
        predict_into(model, given, out)
        assert np.array_equal(out, model.predict(X))


@compiled
def test_one_function_for_all_architectures():
    function = njit(lambda model, X: model.predict(X))
    for sizes in ([3, 8, 2], [5, 1], [3, 40, 40, 7]):
        model = fastbp.MLP(sizes, seed=0)
        X = rows_for(model, 3)
        assert np.array_equal(function(model, X), model.predict(X))
    assert len(function.signatures) == 1


def test_what_is_written_to_parameters_is_seen_by_the_next_call():
    model = fastbp.MLP([3, 16, 1], seed=0)
    X = rows_for(model, 5)
    seen = [predict(model, X)]

    def sees():
        y = predict(model, X)
        assert np.array_equal(y, model.predict(X))
        assert all(not np.array_equal(y, other) for other in seen)
        seen.append(y)

    model.fit(X, np.ones((5, 1)), epochs=2, optimizer=fastbp.Adam(), progress=False)
    sees()
    model.weights[0][...] += 0.5
    sees()
    model.biases[1] = np.array([0.25])
    y = predict(model, X)  # adopted before anything in Python has asked for it
    assert np.array_equal(y, model.predict(X)) and not np.array_equal(y, seen[-1])
    model.weights = [W * 2 for W in model.weights]
    sees()
    model.reset()
    assert np.array_equal(predict(model, X), seen[0])


def test_a_loaded_model(tmp_path):
    model = fastbp.MLP([3, 16, 1], seed=0)
    X = rows_for(model, 5)
    y = predict(model, X)
    model.save(tmp_path / "model.safetensors")
    assert np.array_equal(predict(fastbp.MLP.load(tmp_path / "model.safetensors"), X), y)
    copied = pickle.loads(pickle.dumps(model))
    model.weights[0][...] = 0
    assert np.array_equal(predict(copied, X), y)


def test_a_model_is_pickled_as_if_no_compiled_code_had_seen_it():
    model, other = fastbp.MLP([3, 16, 1], seed=0), fastbp.MLP([3, 16, 1], seed=0)
    predict(model, rows_for(model, 1))
    assert pickle.dumps(model) == pickle.dumps(other)


# ---- threads and processes ---------------------------------------------------------------------------------


@compiled
def test_every_thread_of_a_prange_has_a_table_of_its_own():
    model = fastbp.MLP([3, 16, 1], hidden="tanh", output="identity", seed=0)
    X = rows_for(model, 20_000)
    expected = model.predict(X)
    for _ in range(10):
        assert np.array_equal(each_row(model, X), expected)


@compiled
def test_more_python_threads_than_slots():
    """They compute at the same time, without the GIL, and wait for one another only where there are more than
    slots. Half of them predict so many rows that parameters are packed."""
    model = fastbp.MLP([30, 60, 1], hidden="tanh", output="identity", seed=0)
    X = [rows_for(model, 5 if i % 2 else 40, seed=i) for i in range(12)]
    expected = [sums(model, x, 1)[0] for x in X]
    assert [predict(model, x).sum() for x in X] == pytest.approx(expected)
    found = [np.empty(0)] * 12

    def work(i):
        found[i] = sums(model, X[i], 3000)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values, value in zip(found, expected, strict=True):
        assert len(values) == 3000 and (values == value).all()


@compiled
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_child_finds_all_slots_free():
    """Though its parent's threads had them."""
    code = """if True:
        import os, threading, warnings
        import numpy as np, fastbp
        from numba import njit
        warnings.simplefilter("ignore")  # of Python, that there are threads
        model = fastbp.MLP([30, 60, 1], seed=0)
        X = np.ones((3, 30), np.float32)
        expected = model.predict(X)
        @njit(nogil=True)
        def many(model, X, times):
            for i in range(times):
                out = model.predict(X)
            return out
        many(model, X, 1)
        threads = [threading.Thread(target=many, args=(model, X, 100_000)) for _ in range(8)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(10):
            child = os.fork()
            if child == 0:
                os._exit(0 if np.array_equal(many(model, X, 20), expected) else 1)
            children.append(child)
        print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
        for thread in threads:
            thread.join()
    """
    assert python("-c", code, timeout=120).strip() == str([0] * 10)


def test_without_numba_the_same_code_gives_the_same_numbers():
    code = """if True:
        import numpy as np, fastbp
        from numba import njit
        @njit
        def settle(model, x, steps):
            out = np.empty_like(x)
            for _ in range(steps):
                model.predict_into(x, out)
                x = x + np.float32(0.1) * (out - model.predict(x[:, ::-1].copy()))
            return x
        model = fastbp.MLP([2, 16, 2], hidden="tanh", output="identity", seed=0)
        print(settle(model, np.ones((3, 2), np.float32), 20).tobytes().hex())
    """
    assert python("-c", code, **NO_JIT) == python("-c", code)


# ---- lifetime ----------------------------------------------------------------------------------------------


@compiled
def test_compiled_code_keeps_a_model_alive():
    """In a tuple that outlives the call, and as the only reference to it."""
    hold = njit(lambda model: (model, 1))
    model = fastbp.MLP([3, 16, 1], seed=0)
    X = rows_for(model, 2)
    expected, alive = model.predict(X), weakref.ref(model)
    held = hold(model)
    assert held[0] is model
    del model
    gc.collect()
    assert np.array_equal(njit(lambda pair, X: pair[0].predict(X))(held, X), expected)
    del held
    gc.collect()
    assert alive() is None


@compiled
def test_no_reference_is_lost_or_left():
    """(Behind an exception Numba gives no references back, neither those of arrays nor of a model.)"""
    model = fastbp.MLP([3, 16, 1], seed=0)
    X, out = rows_for(model, 2), np.empty((2, 1), np.float32)
    hold = njit(lambda model: (model, 1))
    predict(model, X)
    before = sys.getrefcount(model)
    for _ in range(50):
        predict(model, X)
        predict_into(model, X, out)
        hold(model)
    assert sys.getrefcount(model) == before
    for _ in range(5):
        with pytest.raises(ValueError, match="X has 2 columns"):
            predict(model, np.ones((2, 2), np.float32))
    assert sys.getrefcount(model) >= before


# ---- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((2, 4), np.float32), r"X has 4 columns, the model has 3 inputs: X must be \(\w+, 3\)"),
        (np.ones((0, 3), np.float32), "X"),
        (np.array([[1, np.nan, 1]], np.float32), "X.*(NaN|nan)"),
        (np.full((40, 3), np.inf, np.float32), "X.*(infinity|inf)"),
    ],
)
def test_wrong_values_are_errors_when_it_runs(X, message):
    model = fastbp.MLP([3, 16, 1], seed=0)
    out = np.full((len(X), 1), 7, np.float32)
    for call in (lambda: predict(model, X), lambda: predict_into(model, X, out)):
        with pytest.raises(ValueError, match=message):
            call()
    assert (out == 7).all()


def test_what_is_not_finite_is_let_through_if_asked_for():
    model = fastbp.MLP([3, 16, 1], hidden="identity", output="identity", seed=0)
    X = np.array([[1, np.nan, 1], [1, 1, 1]], np.float32)
    y = njit(lambda model, X: model.predict(X, check_finite=False))(model, X)
    assert np.isnan(y[0]) and y[1] == model.predict(X[1:])


@compiled
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.ones((2, 3)), r"X is array\(float64, 2d, C\): X must be a float32 array of two dim.*astype"),
        (
            np.ones(3, np.float32),
            r"X is array\(float32, 1d, C\): X must be a float32 array of two dimensions",
        ),
        (np.ones((2, 3), np.int64), r"X is array\(int64, 2d, C\): X must be a float32 array"),
        (3.0, "X is float64: X must be a float32 array of two dimensions"),
    ],
)
def test_wrong_types_are_errors_when_it_is_compiled(X, message):
    model = fastbp.MLP([3, 16, 1], seed=0)
    with pytest.raises(numba.core.errors.TypingError, match=message):
        predict(model, X)


def test_what_out_must_be():
    model = fastbp.MLP([3, 16, 3], seed=0)
    X = rows_for(model, 4)
    for out, message in (
        (np.ones((5, 3), np.float32), "out has"),
        (np.ones((4, 2), np.float32), "out has"),
        (X, "out shares memory with X"),
        (model.weights[1][:4], "out shares memory with the model's parameters"),
    ):
        before = out.copy()
        for call in (predict_into, lambda *given: given[0].predict_into(*given[1:])):
            with pytest.raises(ValueError, match=message):
                call(model, X, out)
        assert np.array_equal(out, before)
    read_only = np.ones((4, 3), np.float32)
    read_only.flags.writeable = False
    for out in (np.ones((4, 3)), np.ones((3, 4), np.float32).T, read_only):
        with pytest.raises((numba.core.errors.TypingError, TypeError, ValueError), match="out"):
            predict_into(model, X, out)
        with pytest.raises((TypeError, ValueError), match="out"):
            model.predict_into(X, out)
    with pytest.raises(TypeError, match="out is 3, expected an array of dtype float32"):
        model.predict_into(X, 3)


@compiled
def test_a_model_that_is_no_argument_is_refused():
    """Its address would be a constant, which a cache would hand to other processes."""
    model = fastbp.MLP([3, 16, 1], seed=0)
    with pytest.raises(numba.core.errors.TypingError, match="give the model to the function as an argument"):
        njit(lambda X: model.predict(X))(rows_for(model, 1))


@compiled
def test_a_model_of_the_reference_is_refused():
    model = fastbp.reference.MLP([3, 16, 1], seed=0)
    with pytest.raises(TypeError, match=r"compiled code needs a model of fastbp\.MLP"):
        predict(model, rows_for(model, 1))
    out = np.empty((2, 1), np.float32)
    model.predict_into(rows_for(model, 2), out)
    assert np.array_equal(out, model.predict(rows_for(model, 2)))
