"""fastbp.kernels' elementwise functions and sums against NumPy."""

import numba
import numpy as np
import pytest
from bits import teams_for_all

from fastbp import activations, kernels

DTYPES = ["float32", "float64"]
SHAPES = [(1,), (7,), (3, 5), (33, 17), (200, 31), (2, 3, 4), (0,), (0, 3), (), (70_001,)]


LR = 0.3


def arrays(dtype, shape):
    rng = np.random.default_rng(0)
    return [np.asarray(3 * rng.standard_normal(shape), dtype) for _ in range(2)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


CASES = {
    "relu": (lambda d, z: (z,), lambda d, z: np.maximum(z, 0)),
    "relu_mask": (lambda d, z: (d, z), lambda d, z: d * (z > 0)),
    "sigmoid": (lambda d, z: (z,), lambda d, z: sigmoid(z)),
    "sigmoid_derivative": (lambda d, z: (d, sigmoid(z)), lambda d, z: d * sigmoid(z) * (1 - sigmoid(z))),
    "exp": (lambda d, z: (z,), lambda d, z: np.exp(z)),
    "mse_sigmoid_error": (
        lambda d, z: (sigmoid(z), d),
        lambda d, z: (sigmoid(z) - d) * sigmoid(z) * (1 - sigmoid(z)),
    ),
    "sgd_step": (lambda d, z: (d, z), lambda d, z: d - d.dtype.type(LR) * z),
}


def kernel_of(name):
    """The kernel as a function of arrays alone."""
    if name == "sgd_step":
        return lambda w, gradient, out=None: kernels.sgd_step(w, gradient, LR, out)
    return getattr(kernels, name)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_agrees(name, dtype):
    arguments, formula = CASES[name]
    for shape in SHAPES if name == "relu" else [(33, 17), (0, 3), (70, 1001)]:
        d, z = arrays(dtype, shape)
        given, want = [np.asarray(x, dtype) for x in arguments(d, z)], formula(d, z)
        got = kernel_of(name)(*given)
        assert got.dtype == dtype and got.shape == shape
        np.testing.assert_allclose(got, want, rtol=20 * np.finfo(dtype).eps, atol=np.finfo(dtype).tiny)
        copy = [x.copy() for x in given]
        assert kernel_of(name)(*copy, copy[0]).tobytes() == got.tobytes()
        assert copy[0].tobytes() == got.tobytes()  # in place


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_every_activation_and_its_derivative(name, dtype):
    """The names come from the registry: a new activation needs its kernels."""
    entry = activations.ACTIVATIONS[name]
    d, z = arrays(dtype, (33, 17))
    tolerance = {"rtol": 50 * np.finfo(dtype).eps, "atol": 5 * np.finfo(dtype).eps}
    a = getattr(kernels, name)(z)
    np.testing.assert_allclose(a, entry.value(z), **tolerance)
    if name not in ("relu", "sigmoid"):  # whose derivatives are above
        got = getattr(kernels, f"{name}_derivative")(d, z, a)
        exact = d * entry.derivative(z.astype(np.float64), a.astype(np.float64))
        np.testing.assert_allclose(got, exact, rtol=1e-4 if dtype == "float32" else 1e-12, atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(dtype):
    for shape in [(1, 1), (3, 2), (5, 7), (70, 10), (33, 16), (4, 1000), (0, 3)]:
        _, z = arrays(dtype, shape)
        want = activations.softmax(z)
        np.testing.assert_allclose(kernels.softmax(z), want, rtol=100 * np.finfo(dtype).eps)
        assert kernels.softmax(z, z) is not None
        np.testing.assert_allclose(z, want, rtol=100 * np.finfo(dtype).eps)
    with pytest.raises(ValueError, match=r"\(3, 0\)"):
        kernels.softmax(np.ones((3, 0)))


@pytest.mark.parametrize("name", CASES)
def test_nothing_beyond_out_is_written(name):
    for count in (1, 5, 15, 31, 100):
        d, z = arrays("float32", (1, count))
        room = np.full(count + 2, np.nan, np.float32)
        kernel_of(name)(*CASES[name][0](d, z), room[1:-1].reshape(1, count))
        assert np.isnan(room[[0, -1]]).all() and np.isfinite(room[1:-1]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 3, 4, 8, 15, 16, 17, 40, 130])
def test_bias_sums(dtype, columns):
    for rows in (1, 2, 7, 64, 511, 513, 3000):
        d, _ = arrays(dtype, (rows, columns))
        exact, size = d.sum(axis=0, dtype=np.float64), np.abs(d).sum(axis=0)
        room = np.full(columns + 2, np.nan, dtype)
        got = kernels.bias_sums(d, room[1:-1])
        assert np.all(np.abs(got - exact) <= rows * np.finfo(dtype).eps * size), rows
        assert np.isnan(room[[0, -1]]).all() and kernels.bias_sums(d).tobytes() == got.tobytes()
    assert kernels.bias_sums(np.ones((0, columns), dtype)).tolist() == [0] * columns


def test_the_number_of_threads_changes_no_bit():
    most = numba.config.NUMBA_NUM_THREADS
    d, z = arrays("float32", (1500, 701))

    def all_of_them():
        yield from (kernel_of(name)(*arguments(d, z)) for name, (arguments, _) in CASES.items())
        yield kernels.bias_sums(d)
        yield kernels.bias_sums(d[:500])  # a block of rows, whose columns are shared
        yield kernels.bias_sums(d.reshape(-1, 1))

    with teams_for_all():
        together = [x.tobytes() for x in all_of_them()]
    try:
        numba.set_num_threads(1)
        assert [x.tobytes() for x in all_of_them()] == together
    finally:
        numba.set_num_threads(most)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name, operands",
    [
        *(("relu", 1), ("leaky_relu", 1), ("relu_mask", 2), ("sigmoid_derivative", 2)),
        *(("mse_sigmoid_error", 2), ("sgd_step", 2)),
    ],
)
def test_numbers_that_begin_anywhere(name, operands, dtype):
    """Of many, whole cache lines are written, and what lies before the first and behind the last."""
    count, kernel = 1100, kernel_of(name)
    numbers = arrays(dtype, count)[:operands]
    want = kernel(*numbers).tobytes()
    for begin in range(20):
        for more in range(2):
            room = np.full((3, count + 64), np.nan, dtype)
            places = [row[begin + i * more : begin + i * more + count] for i, row in enumerate(room)]
            for place, given in zip(places, numbers, strict=False):
                place[:] = given
            given, out = places[:operands], places[2]
            assert kernel(*given, out).tobytes() == want
            assert np.isnan(room[2]).sum() == 64
            assert kernel(*given, given[-1]).tobytes() == want  # in place
            assert np.isnan(room[operands - 1]).sum() == 64


@pytest.mark.parametrize("name", CASES)
def test_few_numbers_have_the_bits_that_they_have_among_many(name):
    """Few are worked on in the caller's code, many by the engine."""
    many = CASES[name][0](*arrays("float32", (1500, 701)))
    want = kernel_of(name)(*many)
    for count in (1, 7, 8, 15, 33, 700):
        few = [x[:1, :count] for x in many]
        assert kernel_of(name)(*few).tobytes() == want[0, :count].tobytes()


@numba.njit
def descend(w, gradient, lr):
    return kernels.sgd_step(w, gradient, lr, w)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_learning_rate_of_any_type(dtype):
    w, gradient = arrays(dtype, (5, 7))
    for lr in (LR, 2, np.float32(LR), np.int8(3), np.float64(LR)):
        want = (w - w.dtype.type(lr) * gradient).tobytes()
        assert kernels.sgd_step(w, gradient, lr).tobytes() == want
        assert descend(w.copy(), gradient, lr).tobytes() == want
    with pytest.raises((numba.TypingError, TypeError), match=r"lr is .*: expected a real number"):
        descend(w, gradient, 1j)


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\)"):
        kernels.relu_mask(np.ones(3), np.ones(4))
    with pytest.raises(ValueError, match=r"\(3,\) and \(1, 3\)"):
        kernels.relu_mask(np.ones(3), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"out has shape \(4,\), the result \(3,\)"):
        kernels.relu(np.ones(3), np.ones(4))
    x = np.ones(12)
    with pytest.raises(ValueError, match="shares memory"):
        kernels.relu(x[:8], x[4:])
    with pytest.raises(TypeError, match="z is in F order"):
        kernels.relu(np.ones((3, 3), order="F"))
    with pytest.raises(TypeError, match="y holds float64"):
        kernels.sigmoid_derivative(np.ones(3, np.float32), np.ones(3))
    for no_number in ("0.1", None, 1j, True, np.ones(1)):
        with pytest.raises(TypeError, match=r"lr is .*expected a real number"):
            kernels.sgd_step(x, x, no_number)
