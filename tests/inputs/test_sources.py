"""Data that `fit` and `predict` convert as they read them: integers, scaled inputs, files."""

import ctypes
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.engine.kernels.reading import row_reader

STORED = ["?", "u1", "i1", "u2", ">i2", "i4", ">u4", "i8", "u8", "f2", ">f2", "f4", ">f4", "f8", ">f8"]


def stored_numbers(rng: np.random.Generator, stored: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Any bits, so that extreme numbers are among them, and for float16 NaN, infinity and subnormals."""
    raw = rng.integers(0, 256, (*shape, stored.itemsize), dtype=np.uint8)
    if stored.kind == "b":
        raw &= 1
    return raw.view(stored)[..., 0]


@pytest.mark.parametrize("stored", STORED)
def test_a_row_becomes_what_numpy_makes_of_it(stored, dtype):
    rng = np.random.default_rng(3)
    kind = np.dtype(stored)
    kinds = [None, dtype, np.dtype(np.float64)]  # in which it is scaled, if at all
    scaled = kinds[(STORED.index(stored) + dtype.itemsize // 4) % 3]
    compiled = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)(row_reader(kind, dtype.name, scaled))
    for columns in (1, 2, 13, 15, 16, 17, 31, 33, 100):
        for step in (1, 3, -2):
            row = stored_numbers(rng, kind, (columns * abs(step),))[::step]
            scale, offset = rng.standard_normal((2, columns)).astype(scaled or dtype)
            out = np.full(columns + 1, 7, dtype)
            addresses = [array.ctypes.data for array in (row, out, scale, offset)]
            compiled(addresses[0], row.strides[0], addresses[1], columns, *addresses[2:])
            with np.errstate(all="ignore"):
                expected = row.astype(scaled or dtype)
                if scaled:
                    expected = (expected * scale + offset).astype(dtype)
            np.testing.assert_array_equal(out[:-1], expected)
            assert out[-1] == 7


def trained(module, X, Y, *, shuffle, scale=1.0, offset=0.0, dtype="float32", sizes=(33, 20, 3)):
    model = module.MLP(
        list(sizes), hidden="tanh", dtype=dtype, seed=4, input_scale=scale, input_offset=offset
    )
    history = model.fit(
        X, Y, epochs=3, batch_size=17, optimizer=fastbp.Adam(0.01), shuffle=shuffle, validation_data=(X, Y)
    )
    results = [*model.weights, *model.biases, history.loss, history.val_loss, model.predict(X)]
    return np.concatenate([np.ravel(r) for r in results])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("stored", ["u1", "i8", "?", "f2"])
def test_integers_train_like_their_copy_in_floats(module, dtype, stored, shuffle):
    rng = np.random.default_rng(5)
    X = rng.integers(0, 2 if stored == "?" else 100, (60, 33)).astype(stored)
    Y = rng.random((60, 3))
    wide = np.float64 if stored == "i8" else dtype.type  # may have more digits than float32
    scaled = (X.astype(wide) * wide(1 / 255) + wide(-0.25)).astype(dtype)
    expected = trained(module, scaled, Y, shuffle=shuffle, dtype=dtype)
    stored_as = {"scale": 1 / 255, "offset": -0.25, "shuffle": shuffle, "dtype": dtype}
    for memory_order in (X, np.asfortranarray(X), np.repeat(X, 2, axis=0)[::2]):
        np.testing.assert_array_equal(trained(module, memory_order, Y, **stored_as), expected)
    expected = trained(module, X.astype(dtype), Y, shuffle=shuffle, dtype=dtype)
    np.testing.assert_array_equal(trained(module, X, Y, shuffle=shuffle, dtype=dtype), expected)


def test_each_input_has_its_scale(module, dtype):
    rng = np.random.default_rng(6)
    X, Y = rng.standard_normal((60, 33)).astype(dtype), rng.random((60, 20))
    scale, offset = rng.random((2, 33)).astype(dtype)
    kinds = {"shuffle": True, "dtype": dtype, "sizes": (33, 20)}
    expected = trained(module, X * scale + offset, Y, **kinds)
    np.testing.assert_array_equal(trained(module, X, Y, scale=scale, offset=offset, **kinds), expected)


def test_the_scale_applies_wherever_inputs_are_given(module, tmp_path):
    rng = np.random.default_rng(7)
    X, Y = rng.integers(0, 256, (20, 5), dtype=np.uint8), rng.random((20, 2))
    scaled = X.astype(np.float32) * np.float32(0.01) + np.float32(0.5)
    plain = module.MLP([5, 7, 2], seed=1)
    model = module.MLP([5, 7, 2], seed=1, input_scale=0.01, input_offset=0.5)
    trace, expected = model.forward(X), plain.forward(scaled)
    np.testing.assert_array_equal(trace.X, scaled)
    np.testing.assert_array_equal(trace.y_pred, expected.y_pred)
    for got, wanted in zip(
        model.backward(trace, Y).weights, plain.backward(expected, Y).weights, strict=True
    ):
        np.testing.assert_array_equal(got, wanted)
    for rows in (1, 3, 20):
        np.testing.assert_array_equal(model.predict(X[:rows]), plain.predict(scaled[:rows]))
        floats = X[:rows].astype(np.float32)  # for a few rows of these there is a short way
        np.testing.assert_array_equal(model.predict(floats), plain.predict(scaled[:rows]))
    assert model.loss(X, Y) == plain.loss(scaled, Y)
    assert str(model.diagnose(X, Y)) == str(plain.diagnose(scaled, Y))
    assert model.check_gradients(X, Y).passed
    optimizer = fastbp.SGD(0.1)
    assert model.train_step(X, Y, optimizer) == plain.train_step(scaled, Y, optimizer)
    model.save(tmp_path / "model.safetensors")
    loaded = module.MLP.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), plain.predict(scaled))
    assert "input_scale=0.01, input_offset=0.5" in repr(loaded)


def test_many_scales_make_a_short_repr(module):
    text = repr(module.MLP([100, 1], input_scale=np.arange(100)))
    assert "input_scale=array([ 0.,  1.,  2., ..., 97., 98., 99.]" in text


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input_scale": [1, 2]}, ValueError, r"input_scale has shape \(2,\), expected a number, or one for"),
        ({"input_offset": np.nan}, ValueError, "input_offset holds NaN"),
        ({"input_scale": "big"}, TypeError, "input_scale has dtype"),
        ({"input_scale": 1e39}, ValueError, "too large for float32"),
    ],
)
def test_a_wrong_scale_is_refused(module, arguments, error, message):
    with pytest.raises(error, match=message):
        module.MLP([3, 1], **arguments)


# ---- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["f4", "f8", ">f4", "u1"])
@pytest.mark.parametrize("fortran", [False, True])
def test_files_train_like_arrays(module, tmp_path, stored, fortran):
    rng = np.random.default_rng(8)
    X = rng.integers(0, 100, (60, 33)).astype(stored)
    Y = rng.random((60, 3)).astype("f4" if stored == "f4" else "f8")
    for name, array in (("X", X), ("Y", Y)):
        np.save(tmp_path / f"{name}.npy", np.asfortranarray(array) if fortran else array)
    x_path, y_path = tmp_path / "X.npy", str(tmp_path / "Y.npy")
    for shuffle in (True, False):
        expected = trained(module, X.astype("f4"), Y.astype("f4"), shuffle=shuffle)
        np.testing.assert_array_equal(trained(module, x_path, y_path, shuffle=shuffle), expected)
        mapped = np.load(x_path, mmap_mode="r")
        np.testing.assert_array_equal(trained(module, mapped, Y, shuffle=shuffle), expected)
    expected = trained(module, X[1:].astype("f4"), Y[1:], shuffle=True)
    np.testing.assert_array_equal(trained(module, np.asarray(mapped)[1:], Y[1:], shuffle=True), expected)


@pytest.mark.parametrize("name", ["fastbp", "fastbp.reference"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_small_however_large_the_file(tmp_path, name):
    """400 MB on the disk (none, in fact: the file is sparse), 200 MB as float32, and 200 MB in batches."""
    rows, inputs = 50_000, 1000
    for file, shape in (("X.npy", (rows, inputs)), ("Y.npy", (rows, 1))):
        np.lib.format.open_memmap(tmp_path / file, "w+", np.float64, shape)
    program = pathlib.Path(__file__).parents[1] / "programs" / "memory_of_fit.py"
    command = [sys.executable, program, tmp_path / "X.npy", tmp_path / "Y.npy", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert float(done.stdout) < 50


@pytest.mark.parametrize(
    ("stored", "where", "message"),
    [
        ("f4", "X", r"X holds NaN or infinity \(2 of 600 values, the first is X\[9, 2\] = inf"),
        (
            "f8",
            "X",
            r"X\[6:12\] holds NaN or infinity \(1 of 18 values, the first is X\[6:12\]\[3, 2\] = inf",
        ),
        ("f4", "Y", r"Y\[180:200\] holds NaN or infinity \(1 of 20 values"),
    ],
)
def test_what_is_not_finite_in_a_file_is_found(module, tmp_path, monkeypatch, stored, where, message):
    for name in ("LOOKED_AT_ONCE", "BLOCK_NUMBERS"):
        monkeypatch.setattr(
            fastbp.checks.arrays if name == "LOOKED_AT_ONCE" else fastbp.inputs.sources, name, 20
        )
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", stored, (200, 3))
    Y = np.lib.format.open_memmap(tmp_path / "Y.npy", "w+", "f8", (200, 1))
    if where == "X":
        X[9, 2], X[70, 0] = np.inf, np.nan
    else:
        Y[-1] = np.nan
    with pytest.raises(ValueError, match=message):
        module.MLP([3, 1]).fit(X, Y, epochs=1, optimizer=module.SGD(0.1))


def test_a_wrong_file_is_refused(module, tmp_path):
    model, Y = module.MLP([3, 1]), np.zeros((4, 1))
    np.save(tmp_path / "X.npy", np.zeros((4, 3)))
    np.save(tmp_path / "texts.npy", np.full((4, 3), "one"))
    np.save(tmp_path / "objects.npy", np.full((4, 3), None), allow_pickle=True)
    (tmp_path / "short.npy").write_bytes((tmp_path / "X.npy").read_bytes()[:-8])
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, error, message in [
        ("X.csv", ValueError, r"X is '.*X.csv', expected an array or the path of a .npy file"),
        ("missing.npy", FileNotFoundError, "missing.npy"),
        ("short.npy", ValueError, r"X: '.*short.npy' is not a .npy file of numbers, or is truncated"),
        ("empty.npy", ValueError, r"X: '.*empty.npy' is not a .npy file of numbers, or is truncated"),
        ("objects.npy", ValueError, r"X: '.*objects.npy' is not a .npy file of numbers"),
        ("texts.npy", TypeError, "X has dtype <U3, expected real numbers"),
    ]:
        with pytest.raises(error, match=message):
            model.fit(tmp_path / name, Y, epochs=1, optimizer=module.SGD(0.1))


def test_the_step_that_blows_up_is_looked_at_with_its_rows_scaled_once(module):
    rng = np.random.default_rng(9)
    X, Y = rng.integers(0, 256, (64, 4), dtype=np.uint8), rng.random((64, 1))
    messages = []
    for data, scale in ((X, 0.5), (X.astype(np.float32) * np.float32(0.5), 1.0)):
        model = module.MLP([4, 6, 1], output="identity", seed=0, input_scale=scale)
        with pytest.raises(FloatingPointError) as caught:
            model.fit(data, Y, epochs=200, batch_size=16, optimizer=module.SGD(10.0))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
