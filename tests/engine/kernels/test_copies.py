"""Copies and products of single rows write where they should, and nowhere else."""

import numpy as np
import pytest
from bits import callback, rng_of

import fastbp
from fastbp.engine import plan
from fastbp.engine.compile.struct import at
from fastbp.engine.entries import two_layer
from fastbp.engine.kernels import copies, narrow_output
from fastbp.engine.simd.vector import isa
from fastbp.engine.threads.runtime import Runtime, runtime

GUARD = 0x5A


def guarded(size, offset=0):
    """Bytes of a known value, and the address of a piece in the middle with `size` of them."""
    memory = np.full(size + 1024, GUARD, np.uint8)
    start = -memory.ctypes.data % 64 + 448 + offset
    return memory, start


def untouched(memory, start, size):
    return (memory[:start] == GUARD).all() and (memory[start + size :] == GUARD).all()


@pytest.mark.parametrize("columns", range(1, 41))
def test_copy_in_and_out(columns, dtype):
    rows, lanes, size = 5, isa().bytes // dtype.itemsize, dtype.itemsize
    vectors = -(-columns // lanes)
    copy_in, copy_out = (callback(copies.copy_rows(dtype.name, into=into), 7) for into in (True, False))
    values = rng_of(columns).standard_normal((rows, columns)).astype(dtype)
    # the caller's matrix need not be aligned to more than its numbers are
    outside, at = guarded(values.nbytes, offset=size)
    outside[at : at + values.nbytes] = values.view(np.uint8).ravel()
    before = outside.copy()
    # in panels: vectors of one panel follow one another
    panel = rows * isa().bytes
    inside, to = guarded(vectors * panel)
    there, here = outside.ctypes.data + at, inside.ctypes.data + to
    copy_in(there, columns * size, here, isa().bytes, panel, rows, columns)
    assert untouched(inside, to, vectors * panel)
    assert np.array_equal(outside, before)
    panels = inside[to : to + vectors * panel].view(dtype).reshape(vectors, rows, lanes)
    unpacked = panels.transpose(1, 0, 2).reshape(rows, vectors * lanes)
    assert np.array_equal(unpacked[:, :columns], values)
    assert not unpacked[:, columns:].any()
    # and back, where what lies beyond the columns is garbage
    padding = np.arange(vectors * lanes).reshape(vectors, 1, lanes) >= columns
    panels[np.broadcast_to(padding, panels.shape)] = np.nan
    inside_before = inside.copy()
    back, at = guarded(values.nbytes, offset=size)
    copy_out(back.ctypes.data + at, columns * size, here, isa().bytes, panel, rows, columns)
    assert untouched(back, at, values.nbytes)
    assert np.array_equal(inside, inside_before)
    assert np.array_equal(back[at : at + values.nbytes], values.view(np.uint8).ravel())


@pytest.mark.parametrize("columns", range(1, 41))
def test_copies_leave_the_columns_between(columns, dtype):
    """A block of columns of a wider matrix: what lies right and left of it in each row stays."""
    rows, wide, size = 3, columns + 3, dtype.itemsize
    vectors = -(-columns // (isa().bytes // size))
    copy_out = callback(copies.copy_rows(dtype.name, into=False), 7)
    source = np.ones(vectors * rows * isa().bytes // size, dtype)
    memory, at = guarded(rows * wide * size)
    copy_out(
        memory.ctypes.data + at + size,
        wide * size,
        source.ctypes.data,
        vectors * isa().bytes,
        isa().bytes,
        rows,
        columns,
    )
    result = memory[at : at + rows * wide * size].view(dtype).reshape(rows, wide)
    assert (result[:, 1 : columns + 1] == 1).all()
    memory_of_rest = np.delete(result, np.s_[1 : columns + 1], axis=1).view(np.uint8)
    assert (memory_of_rest == GUARD).all()
    assert untouched(memory, at, rows * wide * size)


@pytest.mark.parametrize("exact", [True, False])
def test_rows_of_a_few_columns(exact, dtype):
    """Columns become rows. Behind each one the next one's numbers may be written, but not behind the last."""
    lanes, size = isa().bytes // dtype.itemsize, dtype.itemsize
    turn = callback(copies.turn_rows(dtype.name), 8)
    for columns in range(1, lanes + 1):
        for rows in (1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes, 3 * lanes - 1):
            values = rng_of(columns).standard_normal((rows, columns)).astype(dtype)
            panels = -(-rows // lanes)
            source = np.full((panels, columns, lanes), np.nan, dtype)
            for (row, column), value in np.ndenumerate(values):
                source[row // lanes, column, row % lanes] = value
            behind = 0 if exact else lanes
            memory, at = guarded((values.size + behind) * size, offset=size)
            there, vector = memory.ctypes.data + at, isa().bytes
            place = source.ctypes.data
            turn(there, columns * size, place, columns * vector, vector, rows, columns, int(exact))
            assert untouched(memory, at, (values.size + behind) * size), (columns, rows)
            got = memory[at : at + values.nbytes]
            assert np.array_equal(got, values.view(np.uint8).ravel()), (columns, rows)


@pytest.mark.parametrize("panels", [1, 2, 7])
@pytest.mark.parametrize("outputs", [1, 3, 12])
def test_dot_products_of_single_rows(outputs, panels, dtype):
    """The same bits as of a whole vector of rows, and right; of other rows' results none is written."""
    lanes, vector = isa().bytes // dtype.itemsize, isa().bytes
    rows = min(3, lanes)
    rng = rng_of(outputs)
    a = rng.standard_normal((lanes, panels * lanes)).astype(dtype)
    w = rng.standard_normal((panels, outputs, lanes)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    z, single = np.zeros((outputs, lanes), dtype), np.full((outputs, lanes), 7, dtype)
    at = [array.ctypes.data for array in (a, w, bias, z, single)]
    weights = panels, at[1], outputs * vector, outputs, at[2]
    dots = callback(narrow_output.dots(dtype.name), 13)
    dots(at[0], panels * vector, panels, panels, 0, *weights, at[3], vector, 1)
    dots_of_rows = callback(narrow_output.dots_of_rows(dtype.name), 10)
    dots_of_rows(at[0], panels * vector, rows, *weights, at[4], vector)
    assert single[:, :rows].tobytes() == z[:, :rows].tobytes()
    assert (single[:, rows:] == 7).all()
    exact = a.astype(np.float64) @ w.astype(np.float64).transpose(0, 2, 1).reshape(-1, outputs) + bias
    tolerance = (
        (panels * lanes + 1) * np.finfo(dtype).eps * np.abs(a).max() * np.abs(w).max() * panels * lanes
    )
    assert np.abs(z.T - exact).max() <= tolerance


@pytest.mark.parametrize("rows", [0, 1, 3, 8, 15, 16, 17, 40])
def test_transpose(rows, dtype):
    lanes = isa().bytes // dtype.itemsize
    square = lanes * isa().bytes
    source = rng_of(rows).standard_normal((rows, lanes)).astype(dtype)
    count, step = -(-rows // lanes), square + 128
    memory, at = guarded(max(1, count) * step)
    callback(copies.transpose(dtype.name), 5)(
        source.ctypes.data, isa().bytes, memory.ctypes.data + at, rows, step
    )
    squares = np.zeros((count * lanes, lanes), dtype)
    squares[:rows] = source
    blocks_out = memory[at : at + count * step].reshape(count, step)
    for i in range(count):
        found = blocks_out[i, :square].view(dtype).reshape(lanes, lanes)
        assert np.array_equal(found, squares[i * lanes : (i + 1) * lanes].T)
        assert (blocks_out[i, square:] == GUARD).all()
    assert untouched(memory, at, count * step)


@pytest.mark.parametrize("team", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        *[(1, 9, 64, 32), (60, 131, 112, 16), (5, 20, 48, 3), (3, 11, 1024, 64)],
        *[(64, 11, 1024, 3), (67, 1024, 1024, 16), (65, 100, 1024, 1024)],  # rows that crowd the cache
    ],
    ids=str,
)
def test_work_on_the_callers_own_arrays(monkeypatch, shape, team, dtype):
    """Whole vectors are not copied first: the bits are the same, and what lies around them stays."""
    if team:
        for name in ("TRY_TEAM_FROM_MULTIPLY_ADDS", "ALWAYS_TEAM_FROM_MULTIPLY_ADDS"):
            monkeypatch.setattr(plan, name, 0)
        monkeypatch.setattr(two_layer, "TEAM_NANOSECONDS", 0)
        table = at(Runtime, runtime())
        for name in ("least", "worth", "sure"):
            monkeypatch.setattr(table, name, 0)
    rows, inputs, hidden, outputs = shape
    rng = rng_of(3)
    memories = []

    def own(*size):
        memory, at = guarded(dtype.itemsize * int(np.prod(size)), offset=dtype.itemsize)
        array = memory[at : at + dtype.itemsize * int(np.prod(size))].view(dtype).reshape(size)
        array[...] = rng.standard_normal(size)
        memories.append((memory, at, array.nbytes))
        return array

    X, Y = own(rows, inputs), own(rows, outputs)
    W1, b1, W2, b2 = own(inputs, hidden), own(hidden), own(hidden, outputs), own(outputs)
    results = []
    for leave_in_place in (plan.Plan.leave_in_place, lambda *_, **__: False):
        monkeypatch.setattr(plan.Plan, "leave_in_place", leave_in_place)
        for kept in vars(two_layer._prepared).values():
            kept.clear()
        params = [own(*p.shape) for p in (W1, b1, W2, b2)]
        for copy, param in zip(params, (W1, b1, W2, b2), strict=True):
            copy[...] = param
        losses = [fastbp.train_step(X, Y, *params, 0.01) for _ in range(3)]
        trace = fastbp.forward(X, *params)
        z1, a1, _, y_pred = (own(*a.shape) for a in trace)
        z1[...], a1[...], y_pred[...] = trace[0], trace[1], trace[3]
        results.append(
            (
                losses,
                [a.tobytes() for a in (*params, *trace, *fastbp.backward(X, Y, z1, a1, y_pred, params[2]))],
            )
        )
    assert results[0] == results[1]
    assert all(untouched(*memory) for memory in memories)


@pytest.mark.parametrize("columns", range(1, 41))
def test_a_prediction_stays_inside_its_array(columns, dtype):
    """All the way: odd widths through pack, tile and unpack, into memory with guards around it."""
    from fastbp.engine import structs
    from fastbp.engine.memory import Design
    from fastbp.engine.plan import Plan

    X = rng_of(0).standard_normal((7, columns)).astype(dtype)
    model = fastbp.MLP([columns, columns, columns], dtype=dtype, seed=0)
    memory, at = guarded(X.nbytes)
    plan = Plan(Design(model.layer_sizes, ("relu", "sigmoid"), "mse", dtype, "add", 3, "predict"))
    plan.bind_parameters(model.parameters.flat)
    plan.bind_data(X, None)
    plan.bind_output(memory[at : at + X.nbytes])
    plan.run(structs.PACK + structs.FORWARD, 1)
    assert untouched(memory, at, X.nbytes)
    assert np.array_equal(memory[at : at + X.nbytes].view(dtype).reshape(7, columns), model.predict(X))
