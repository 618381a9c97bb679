"""Gaussian noise on the inputs: normal numbers from the counter, training as in the reference, the caller's X
untouched, and none of it outside training."""

import ctypes
import itertools
import math
import re

import numpy as np
import pytest
from numba.core import cgutils
from processes import AVX2, GENERIC, avx2_beside_more, on_x86, python

import fastbp
import fastbp.reference
from fastbp.engine.kernels.random import noise as noise_kernels
from fastbp.engine.kernels.random.noise import add_noise
from fastbp.engine.simd import philox
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.vector import I64, Vectors, isa
from fastbp.formulas import philox as philox_numbers

KEY = (0x243F6A88, 0x85A308D3)
FAR = 1e6  # a number that nothing may write over


def noise_of_the_engine(dtype, deviation, step, rows, columns, cuts=(), start=0.0):
    """What the compiled callback makes of rows full of `start`, where the rows come in pieces."""
    dtype = np.dtype(dtype)
    add = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 7)(add_noise(dtype.name))
    settings = np.zeros(philox.SETTINGS // 8, np.int64)
    settings[:2] = KEY
    settings.view(dtype)[4 * 8 // dtype.itemsize] = deviation
    x = np.full((rows, columns + 3), FAR, dtype)
    x[:, :columns] = start
    for first, after in itertools.pairwise([0, *cuts, rows]):
        add(x.ctypes.data, x.strides[0], first, after, columns, settings.ctypes.data, step)
    assert (x[:, columns:] == FAR).all()
    return x[:, :columns]


def test_the_engine_draws_the_same_numbers(dtype):
    """To rounding: the largest numbers are below 7."""
    for rows, columns, cuts in [(1, 1, ()), (7, 33, (2, 3)), (64, 17, (8, 13, 15, 40)), (200, 400, ())]:
        for step in (1, 2**32 + 7):
            expected = philox_numbers.standard_normal(KEY, step, rows, columns)
            ours = noise_of_the_engine(dtype, 1, step, rows, columns, cuts)
            np.testing.assert_allclose(ours, expected, rtol=0, atol=32 * np.finfo(dtype).eps)
            whole = noise_of_the_engine(dtype, 1, step, rows, columns)
            assert np.array_equal(ours, whole)


def test_normal_numbers_at_the_edges(dtype):
    """Words at which logarithm and quarter of a turn change their formulas, the first and the last one."""
    edges = [0, 2**29, 2**30, 2**30 + 2**29, 2**31, 2**31 + 2**29, 3 * 2**30, 3 * 2**30 + 2**29, 2**32]
    words = np.unique([w + k for w in edges for k in range(-3, 4) if 0 <= w + k < 2**32])
    words = np.resize(words, 64)

    def emit(b, args):
        source, radius, cos, sin = args
        ops = Vectors(b, dtype.name)
        n = noise_kernels._Integers(ops)
        with cgutils.for_range(b, I64(64 // ops.lanes), intp=I64) as loop:
            at = b.mul(loop.index, I64(ops.lanes * ops.itemsize))
            word = b.load(b.inttoptr(b.add(source, at), ops.int_type.as_pointer()), align=ops.itemsize)
            for value, target in zip(
                (noise_kernels._radius(n, word), *noise_kernels._cos_sin(n, word)),
                (radius, cos, sin),
                strict=True,
            ):
                ops.store(value, b.add(target, at))

    compute = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(
        compile_block("test-box-muller", dtype.name, 4, emit)
    )
    given = words.astype(np.uint32 if dtype == np.float32 else np.uint64)
    if dtype == np.float64:
        given |= np.uint64(0xABCDEF01 << 32)  # garbage that is to be ignored
    outs = [np.empty(64, dtype) for _ in range(3)]
    compute(given.ctypes.data, *(out.ctypes.data for out in outs))
    u = (words + 0.5) / 2**32
    turn = words * (2 * np.pi / 2**32)
    for ours, exact in zip(outs, (np.sqrt(-2 * np.log(u)), np.cos(turn), np.sin(turn)), strict=True):
        np.testing.assert_allclose(ours, exact, rtol=8 * np.finfo(dtype).eps, atol=8 * np.finfo(dtype).eps)


def print_noise():
    """For test_noise_does_not_depend_on_the_vector_width, in processes of their own."""
    for dtype in ("float32", "float64"):
        noise = noise_of_the_engine(dtype, 0.5, 5, 19, 70, cuts=(5, 11), start=1)
        print(isa().bytes, noise.tobytes().hex())


@on_x86
@pytest.mark.parametrize(
    "environment",
    [pytest.param(AVX2, id="avx2", marks=avx2_beside_more), pytest.param(GENERIC, id="generic")],
)
def test_noise_does_not_depend_on_the_vector_width(environment):
    """The same bits; without fused multiply-add, the same numbers to rounding."""
    for line, dtype in zip(python(__file__, **environment).splitlines(), ("float32", "float64"), strict=True):
        width, bits = line.split()
        assert int(width) == (32 if environment is AVX2 else 16)
        theirs = np.frombuffer(bytes.fromhex(bits), dtype).reshape(19, 70)
        ours = noise_of_the_engine(dtype, 0.5, 5, 19, 70, start=1)
        tolerance = 0 if isa().fma and environment is AVX2 else 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)


def test_statistics():
    """Moments of 2^18 numbers, and of products with those of neighbouring rows, columns, steps."""
    rows, columns = 512, 512
    noise = philox_numbers.standard_normal(KEY, 1, rows, columns)
    spread = 1 / math.sqrt(noise.size)
    assert abs(noise.mean()) < 4 * spread
    assert abs((noise**2).mean() - 1) < 4 * math.sqrt(2) * spread
    assert abs((noise**3).mean()) < 4 * math.sqrt(15) * spread
    assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96) * spread
    for limit in (-2, -1, 0, 1, 2):
        p = 0.5 * math.erfc(-limit / math.sqrt(2))
        assert abs((noise < limit).mean() - p) < 4 * math.sqrt(p * (1 - p)) * spread
    others = [np.roll(noise, shift, axis) for axis in (0, 1) for shift in (1, 2, 3, 4)]
    for other in [*others, philox_numbers.standard_normal(KEY, 2, rows, columns)]:
        assert abs((noise * other).mean()) < 4 * spread


def data(rows, sizes, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, sizes[0])), rng.random((rows, sizes[-1]))


@pytest.mark.parametrize("shuffle", [False, True])
def test_training_is_that_of_the_reference(dtype, shuffle):
    for i, (batch, sizes, options) in enumerate(
        [
            (1, [3, 2], {}),
            (13, [5, 33, 3], {"dropout": 0.3}),
            (33, [17, 16, 20], {"input_scale": 0.5, "input_offset": 1.0}),
        ]
    ):
        X, Y = data(batch * 3 + batch // 2, sizes)
        X = X.astype(dtype)
        before = X.copy()
        trained = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP(sizes, hidden="tanh", dtype=dtype, seed=i, input_noise=0.3, **options)
            optimizer = [module.SGD(0.05), module.Adam(1e-3, eps=1e-3), module.SGD(0.02, momentum=0.5)][i]
            history = model.fit(X, Y, epochs=7, batch_size=batch, optimizer=optimizer, shuffle=shuffle)
            trained.append((model.parameters.flat, history.loss))
            assert np.array_equal(X, before)
        for ours, theirs in zip(*trained, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=64 * np.finfo(dtype).eps)


def test_fit_has_the_noise_of_single_steps(module, dtype):
    X, Y = data(20, [3, 17, 2])
    X = X.astype(dtype)
    X.flags.writeable = False
    fitted, stepped = (module.MLP([3, 17, 2], dtype=dtype, seed=1, input_noise=0.5) for _ in range(2))
    fitted.fit(X, Y, epochs=2, batch_size=8, optimizer=module.SGD(0.1), shuffle=False)
    for _ in range(2):
        for start in (0, 8, 16):
            stepped.train_step(X[start : start + 8], Y[start : start + 8], module.SGD(0.1))
    assert np.array_equal(fitted.parameters.flat, stepped.parameters.flat)


def test_only_training_is_noisy(module, tmp_path):
    X, Y = data(9, [3, 17, 2])
    plain, model = (module.MLP([3, 17, 2], hidden="tanh", seed=1, input_noise=s) for s in (0.0, 0.5))
    assert np.array_equal(model.weights[0], plain.weights[0])
    for _ in range(2):
        assert np.array_equal(model.predict(X), plain.predict(X))
        assert model.loss(X, Y) == plain.loss(X, Y)
        ours, theirs = (m.backward(m.forward(X), Y) for m in (model, plain))
        assert all(map(np.array_equal, ours.weights, theirs.weights))
        model.train_step(X, Y, module.SGD(0.1))
        plain.parameters.flat[...] = model.parameters.flat
    assert model.check_gradients(X, Y).passed
    model.save(tmp_path / "model")
    loaded = module.MLP.load(tmp_path / "model")
    assert loaded.input_noise == model.input_noise == 0.5
    assert "input_noise=0.5" in repr(loaded)


@pytest.mark.parametrize(
    ("error", "message", "noise"),
    [
        (ValueError, "input_noise is -0.1, expected a number finite and at least 0", -0.1),
        (ValueError, "input_noise is inf, expected a number finite and at least 0", math.inf),
        (ValueError, "input_noise is 1e+38, which is too large for float32", 1e38),
        (TypeError, "input_noise must be a number, got 'much'", "much"),
    ],
)
def test_errors(module, error, message, noise):
    with pytest.raises(error, match=re.escape(message)):
        module.MLP([2, 1], input_noise=noise)


if __name__ == "__main__":
    print_noise()
