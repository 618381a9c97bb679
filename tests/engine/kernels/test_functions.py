"""Elementary functions, in units of the last place."""

import numpy as np
from bits import callback, rng_of
from definitions import normal_cdf

from fastbp.engine.simd.emit import compile_block, each_vector
from fastbp.engine.simd.vector import I64, Vectors, isa


def function(name, dtype):
    """The vectors' method of that name, for arrays of a multiple of 16 numbers."""

    def emit(b, args):
        source, target, vectors = args
        ops = Vectors(b, dtype)

        def visit(_, j):
            at = b.mul(j, I64(ops.lanes * ops.itemsize))
            result = getattr(ops, name)(ops.load(b.add(source, at)))
            ops.store(result[0] if isinstance(result, tuple) else result, b.add(target, at))

        each_vector(b, I64(1), vectors, visit)

    call = callback(compile_block(f"test-{name}", dtype, 3, emit), 3)

    def compute(x):
        y = np.empty_like(x)
        call(x.ctypes.data, y.ctypes.data, x.nbytes // isa().bytes)
        return y

    return compute


def numbers(dtype):
    """Numbers of all sizes and both signs, subnormal ones, infinity, NaN; dense where functions bend."""
    dtype = np.dtype(dtype)
    rng = rng_of(5)
    if dtype == np.float32:
        every = np.arange(0, 2**32, 4001, dtype=np.uint64).astype(np.uint32).view(np.float32)
    else:
        every = rng.integers(0, 2**64, 200_000, dtype=np.uint64).view(np.float64)
    dense = rng.uniform(-1, 1, 200_000) * rng.choice([1e-3, 0.3, 1, 20, 100, 760], 200_000)
    tiny, top = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    edges = [
        -103.98,
        -103.9,
        -88.72284,
        -88.72283,
        -87.34,
        -87.33,
        -87.3,
        88.72283,
        88.72284,
        0.125,
        0.25,
        -0.25,
        0.5,
    ]
    edges += [
        -745.2,
        -708.4,
        -708.39,
        709.7827,
        709.7828,
        1e4,
        -1e4,
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        tiny,
        -tiny,
        top,
        -top,
    ]
    around = np.array([(1 + k * np.finfo(dtype).eps) * e for e in edges[:17] for k in range(-4, 5)])
    x = np.concatenate([every, dense.astype(dtype), np.array(edges, dtype), around.astype(dtype)])
    return np.resize(x, -(-len(x) // 16) * 16)


def ulps(actual, exact, dtype):
    """How many units in the last place lie between them: the spacing of the dtype at the exact value."""
    info = np.finfo(dtype)
    with np.errstate(all="ignore"):
        _, exponent = np.frexp(np.maximum(np.abs(exact), info.smallest_normal))
        spacing = np.ldexp(np.longdouble(1), exponent - info.nmant - 1)
        return (np.abs(actual - exact) / spacing).astype(float)


# On vectors without fused multiply-add, exp's range reduction and Horner's rule round twice.
EXTRA = 0.0 if isa().fma else 0.5


def check_function(name, exact, dtype, limit, x=None):
    x = numbers(dtype) if x is None else x
    with np.errstate(all="ignore"):
        want = exact(x.astype(np.float64 if np.dtype(dtype) == np.float32 else np.longdouble))
        rounded = want.astype(dtype)
    got = function(name, dtype)(x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    infinite = np.isinf(got)
    assert np.array_equal(got[infinite], rounded[infinite])
    finite = np.isfinite(got)
    assert np.array_equal(np.isfinite(rounded), finite)
    off = ulps(got[finite], want[finite], dtype)
    worst = int(np.argmax(off))
    assert off[worst] <= limit + EXTRA, f"{name}({x[finite][worst]!r}) is off by {off[worst]:.2f} ulp"
    return x, got


def test_exp(dtype):
    low, high = map(dtype.type, (-87.3, 88.72283) if dtype == np.float32 else (-708.39, 709.7827))

    def exact(x):
        return np.where(x < low, 0, np.where(x > high, np.inf, np.exp(x)))

    x, y = check_function("exp", exact, dtype, 1.0)
    assert (y[x == 0] == 1).all()
    # the range is all of the normal numbers, but for the very last ones
    info = np.finfo(dtype)
    assert info.smallest_normal < np.exp(np.longdouble(low)) < 1.05 * info.smallest_normal
    assert 0.9999 * info.max < np.exp(np.longdouble(high)) < info.max


def test_sigmoid(dtype):
    low = dtype.type(-87.33 if dtype == np.float32 else -708.39)
    x, y = check_function("sigmoid", lambda x: np.where(x < low, 0, 1 / (1 + np.exp(-x))), dtype, 2.5)
    # the range is all of the normal numbers
    smallest = np.finfo(dtype).smallest_normal
    assert smallest < np.exp(np.longdouble(low)) < 1.01 * smallest
    assert (y[x >= 100] == 1).all()
    assert ((y >= 0) & (y <= 1) | np.isnan(x)).all()


def test_tanh(dtype):
    x, y = check_function("tanh", np.tanh, dtype, 3.0)
    assert np.array_equal(np.signbit(y[x == 0]), np.signbit(x[x == 0]))
    assert (y[np.abs(x) > 30] == np.sign(x[np.abs(x) > 30])).all()
    assert np.array_equal(function("tanh", dtype.name)(-x), -y, equal_nan=True)


def test_log1p_of_unit(dtype):
    x = np.abs(numbers(dtype))
    x = x[x <= 1]
    x = x[: len(x) // 16 * 16].copy()
    check_function("log1p_of_unit", np.log1p, dtype, 3.0, x)


def test_log_from_one(dtype):
    x = np.abs(numbers(dtype))
    x = np.concatenate([x[x >= 1], x[np.isnan(x)], 1 + np.arange(2000, dtype=dtype) * np.finfo(dtype).eps])
    x = x[: len(x) // 16 * 16].copy()
    check_function("log_from_one", np.log, dtype, 3.0, x)


def test_expm1(dtype):
    high = dtype.type(88.72283 if dtype == np.float32 else 709.7827)
    x, y = check_function("expm1", lambda x: np.where(x > high, np.inf, np.expm1(x)), dtype, 3.0)
    assert np.array_equal(np.signbit(y[x == 0]), np.signbit(x[x == 0]))


def test_normal(dtype):
    """P(Z <= x) = 1/2 erfc(-x / sqrt(2)), small in the left tail and yet right to a few ulp."""
    x = numbers(dtype)
    got = function("normal", dtype)(x)
    assert np.array_equal(np.isnan(got), np.isnan(x))
    x, got = x[~np.isnan(x)], got[~np.isnan(x)]
    exact = normal_cdf(np.clip(x, -50, 50).astype(np.longdouble))
    subnormal = exact < 8 * np.finfo(dtype).smallest_normal
    assert (got[subnormal] <= 8 * np.finfo(dtype).smallest_normal).all()
    assert (got >= 0).all()
    off = ulps(got, exact, dtype)
    off[subnormal] = 0
    worst = int(np.argmax(off))
    # without fused multiply-add, exp(-x² / 2) has the rounding error of x²
    limit = 8 if isa().fma else 8 + np.square(x[worst])
    assert off[worst] <= limit, f"normal({x[worst]!r}) is off by {off[worst]:.2f} ulp"
    assert np.abs(got - exact).max() <= 2 * np.finfo(dtype).eps


def test_ulps_notice_an_error(dtype):
    x = numbers(dtype)
    x = x[np.abs(x) < 50]
    exact = np.exp(x.astype(np.longdouble))
    good = exact.astype(dtype)
    assert ulps(good, exact, dtype).max() <= 0.5
    assert ulps(np.nextafter(np.nextafter(good, dtype.type(0)), dtype.type(0)), exact, dtype).min() >= 0.75
