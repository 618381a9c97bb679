"""The engine gives the same bits for any number of threads and however the work is cut."""

import os

import numpy as np
import pytest
from bits import assert_same_bits, rng_of, run_bits
from engine_bits import OPTIMIZERS
from processes import python
from two_layer_cases import network

import fastbp
from fastbp.engine import binding, plan, tables
from fastbp.engine.entries import crowded_rows, two_layer
from fastbp.engine.simd.vector import isa
from fastbp.network import prediction


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="there is one thread only")
def test_same_bits_for_any_number_of_threads():
    """1, 2, 3, 4 threads (on two cores, too), a team of one, and the same again. Every 23rd case,
    in both dtypes; test_other_cpus has all."""
    assert_same_bits(run_bits(every=23))


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("sizes", [(33, 209, 31, 3), (47, 130, 17)])
def test_how_large_matrices_are_cut_changes_no_bit(monkeypatch, sizes, optimizer, dtype):
    """Blocks for the caches, packed inputs, prefetching: all of them on matrices small enough for a test."""
    rng = rng_of(5)
    X, Y = rng.standard_normal((131, sizes[0])).astype(dtype), rng.random((131, sizes[-1])).astype(dtype)

    def trained():
        model = fastbp.MLP(sizes, dtype=dtype, seed=1)
        make = {"SGD": fastbp.SGD, "Adam": fastbp.Adam}[optimizer]
        model.fit(X, Y, epochs=3, batch_size=61, optimizer=make(0.01), shuffle=False)
        return model.parameters.flat.tobytes(), model.predict(X).tobytes()

    whole = trained()
    monkeypatch.setattr(tables, "packing_rows", lambda: tables.PACKING_ROWS)  # on every CPU
    for block, depth in ((768 * 1024, 7), (4096, 512), (2048, 20)):
        monkeypatch.setattr(tables, "BLOCK", block)
        monkeypatch.setattr(tables, "DEPTH", depth)
        monkeypatch.setattr(tables, "PREFETCH_FROM_MULTIPLY_ADDS", 0)
        assert trained() == whole


def test_copies_of_crowded_rows_change_no_bit(monkeypatch, dtype):
    """Rows of 4096 bytes, which single steps and forward passes copy first, and a smaller last batch."""
    rng = rng_of(6)
    sizes = [4096 // dtype.itemsize, 8 * isa().bytes // dtype.itemsize, 3]
    X, Y = rng.standard_normal((517, sizes[0])).astype(dtype), rng.random((517, 3)).astype(dtype)

    def computed():
        two_layer._prepared = two_layer._PerThread()
        model = fastbp.MLP(sizes, dtype=dtype, seed=1)
        (W1, W2), (b1, b2) = model.weights, model.biases
        trace = model.forward(X)
        z1, a1, z2, y_pred = fastbp.forward(X, W1, b1, W2, b2)
        passes = [model.predict(X), *trace.z, *model.backward(trace, Y).weights, z1, a1, z2, y_pred]
        passes += fastbp.backward(X, Y, z1, a1, y_pred, W2)
        for _ in range(2):
            fastbp.train_step(X, Y, W1, b1, W2, b2, 1e-3)
        return [array.tobytes() for array in (*passes, model.parameters.flat)]

    copies = []
    monkeypatch.setattr(prediction, "SMALL_ROWS", 0)  # of few, predictions copy nothing
    monkeypatch.setattr(crowded_rows, "copies_pay", lambda *_: False)  # backward packs X then (see below)
    make_room = plan.Plan._make_room_for_gathering
    monkeypatch.setattr(
        plan.Plan, "_make_room_for_gathering", lambda *a, **k: (copies.append(a), make_room(*a, **k))
    )
    copied = computed()
    assert len(copies) == 5  # predict, model.forward, forward, backward, train_step
    monkeypatch.setattr(binding, "CROWDED_ROWS", 1000)
    assert computed() == copied
    assert len(copies) == 5


@pytest.mark.parametrize("shape", [(64, 5, 64, 3), (97, 45, 288, 7), (130, 700, 320, 33)])
def test_copies_of_functions_change_no_bit(monkeypatch, dtype, shape):
    """Of rows that do not crowd the cache: whether they are copied is a matter of time alone."""
    X, y_true, (W1, b1, W2, b2) = network(shape, dtype)

    def computed(copies):
        monkeypatch.setattr(crowded_rows, "copies_pay", lambda *_: copies)
        two_layer._prepared = two_layer._PerThread()
        z1, a1, z2, y_pred = fastbp.forward(X, W1, b1, W2, b2)
        gradients = fastbp.backward(X, y_true, z1, a1, y_pred, W2)
        return [array.tobytes() for array in (z1, a1, z2, y_pred, *gradients)]

    assert computed(True) == computed(False)


# The functions with teams of 1 to 4, also where nothing else would have one; the argument is whether rows are
# copied first, or "-" for what the machine does.
TEAMS_OF_FUNCTIONS = """if True:
    import hashlib, sys
    import numba, numpy as np
    import fastbp
    from two_layer_cases import network
    from fastbp.engine.compile.struct import at
    from fastbp.engine.entries import crowded_rows
    from fastbp.engine.threads.runtime import Runtime, runtime

    if sys.argv[1] != "-":
        crowded_rows.copies_pay = lambda *_: sys.argv[1] == "copies"
    process = at(Runtime, runtime())
    for shape in ((64, 33, 320, 8), (97, 33, 288, 3), (64, 20, 1024, 3), (130, 520, 512, 33)):
        for dtype in (np.float32, np.float64):
            X, Y, (W1, b1, W2, b2) = network(shape, dtype)
            found = set()
            for threads in (1, 2, 3, 4):
                numba.set_num_threads(threads)
                for _ in range(20):
                    process.least, process.alone, process.owed, process.slow = 0, 1 << 40, 0, 0
                    process.trial.lost, process.trial.leg, process.trial.due = 0, 0, 1 << 62
                    z1, a1, z2, y = fastbp.forward(X, W1, b1, W2, b2)
                    results = (z1, a1, z2, y, *fastbp.backward(X, Y, z1, a1, y, W2))
                    found.add(hashlib.sha256(b"".join(r.tobytes() for r in results)).hexdigest())
            print(shape, dtype.__name__, len(found))
"""


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="there is one thread only")
@pytest.mark.parametrize("rows", ["copies", "in place", "-"])
def test_functions_have_the_same_bits_with_any_team(rows):
    """Parts of several sizes: columns that a worker copies are not always those whose deltas it computes."""
    lines = python("-c", TEAMS_OF_FUNCTIONS, rows, NUMBA_NUM_THREADS="4").splitlines()
    assert len(lines) == 8 and all(line.endswith(" 1") for line in lines), lines


def test_gradients_in_place_and_in_panels_have_the_same_bits(monkeypatch, dtype):
    """Rows of whole vectors, which `backward` may write where the caller gets them, or copy there; in one
    sweep over the batch, and with packed inputs and several sweeps; and rows of other lengths, which are
    copied."""
    rng, lanes = rng_of(7), isa().bytes // dtype.itemsize
    sizes, rows = (33, 7 * lanes, 3 * lanes), 61
    X, Y = rng.standard_normal((rows, sizes[0])).astype(dtype), rng.random((rows, sizes[2])).astype(dtype)

    def gradients(hidden):
        two_layer._prepared = two_layer._PerThread()
        rng = rng_of(8)
        W1, W2 = (rng.standard_normal(shape).astype(dtype) for shape in (sizes[:2], sizes[1:]))
        parameters = W1[:, :hidden].copy(), np.zeros(hidden, dtype), W2[:hidden], np.zeros(sizes[2], dtype)
        z1, a1, _, y_pred = fastbp.forward(X, *parameters)
        return [gradient.tobytes() for gradient in fastbp.backward(X, Y, z1, a1, y_pred, parameters[2])]

    def ways():
        found = []
        for crowds in (True, False):
            monkeypatch.setattr(tables, "crowds", lambda *_, crowds=crowds: crowds)
            found += [gradients(sizes[1]), gradients(sizes[1] - 3)]
        return found

    whole = ways()
    assert whole[:2] == whole[2:]
    monkeypatch.setattr(tables, "packing_rows", lambda: 48)
    monkeypatch.setattr(tables, "DEPTH", 20)
    assert ways() == whole


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_fit_has_the_bits_of_single_steps(optimizer, shuffle, dtype):
    """An epoch inside compiled code is train_step, batch after batch; the last one is smaller."""
    rng = rng_of(1)
    X, Y = rng.standard_normal((43, 33)).astype(dtype), rng.random((43, 17)).astype(dtype)
    fitted, stepped = (fastbp.MLP([33, 16, 31, 17], hidden="tanh", dtype=dtype, seed=2) for _ in range(2))
    orders = []
    train = fitted.backend.train

    def spy(steps, *rest, **options):
        if len(steps):
            orders.append(np.arange(43) if steps.order is None else steps.order.copy())
        return train(steps, *rest, **options)

    fitted.backend.train = spy
    fitted.fit(
        X,
        Y,
        epochs=3,
        batch_size=13,
        optimizer=OPTIMIZERS[optimizer](),
        shuffle=shuffle,
        callbacks=lambda *_: None,
    )
    of_steps = OPTIMIZERS[optimizer]()
    assert len(orders) == 3
    for order in orders:
        for start in range(0, 43, 13):
            rows = order[start : start + 13]
            stepped.train_step(X[rows], Y[rows], of_steps)
    assert fitted.parameters.flat.tobytes() == stepped.parameters.flat.tobytes()
