"""Products by AMX's tiles: the definition to the bit, where rows and columns end, and what is left behind."""

import ctypes
import itertools

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from llvmlite import ir
from test_bfloat16 import callback, chain_of_tiles, halves, numbers

import fastbp
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.kernels import matmul
from fastbp.engine.kernels.bfloat16 import amx as kernel
from fastbp.engine.kernels.bfloat16 import rounding
from fastbp.engine.simd import amx, emit
from fastbp.engine.simd.vector import I64
from fastbp.formulas.bfloat16 import rounded

has_tiles = pytest.mark.skipif(
    not amx.available(), reason="this CPU has no AMX, or the system does not give it"
)

LANES, DEEP = 16, 2 * amx.PAIRS  # numbers of a vector, and along the depth of a tile
STARTS = [matmul.ZERO, matmul.FROM_C, matmul.FROM_ROW, matmul.RECTIFIED, matmul.MASKED]


def in_tiles(a):
    """Rounded, with zeros up to whole tiles along the rows, and three more numbers that nobody reads."""
    rows, depth = a.shape
    whole = -(-depth // DEEP) * DEEP
    lies = np.full((rows, whole + 2 * LANES), 0x7FC0, np.uint16)  # NaN
    lies[:, :whole] = 0
    lies[:, :depth] = halves(a)
    return lies


def in_pairs(b):
    """Rounded, two rows side by side, with zeros up to whole tiles."""
    depth, columns = b.shape
    whole = np.zeros((-(-depth // DEEP) * DEEP, columns), np.uint16)
    whole[:depth] = halves(b)
    return np.stack([whole[0::2], whole[1::2]], axis=-1)


@pytest.fixture(scope="module")
def product():
    return callback(kernel.product(), len(matmul.ARGUMENTS))


@has_tiles
@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 100])
@pytest.mark.parametrize("vectors", [1, 2, 3, 6])
def test_a_product_is_its_definition(product, rows, vectors):
    """To the bit; and rows of C that do not exist are not written, nor what is beside its vectors."""
    rng = np.random.default_rng(rows)
    for depth, start in itertools.product((1, 2, 31, 32, 33, 100), STARTS):
        a, b = numbers(rng, rows, depth), numbers(rng, depth, vectors * LANES)
        before = numbers(rng, rows + 2, vectors * LANES + 5)
        mask, row = numbers(rng, rows + 2, vectors * LANES + 5), numbers(rng, vectors * LANES)
        c, left, right = before.copy(), in_tiles(a), in_pairs(b)
        product(
            *(rows, vectors, (depth + 1) // 2, data_at(left), left.strides[0], left.strides[0], depth, 0),
            *(data_at(right), 4 * LANES, right.strides[0], data_at(c), 4 * LANES, c.strides[0]),
            *(data_at(mask if start == matmul.MASKED else row), 4 * LANES, start),
        )
        here = np.s_[:rows, : vectors * LANES]
        from_row = np.broadcast_to(row, (rows, vectors * LANES))
        first = {matmul.FROM_C: before[here], matmul.FROM_ROW: from_row, matmul.RECTIFIED: from_row}
        exact = (rounded(x).astype(np.float64) for x in (a, b))
        want = chain_of_tiles(first.get(start, np.zeros_like(from_row)), *exact)
        if start == matmul.RECTIFIED:
            want = np.maximum(want, 0)
        if start == matmul.MASKED:
            want = np.where(mask[here] > 0, want, 0)
        before[here] = want
        assert np.array_equal(c, before), (depth, start)


@has_tiles
def test_subnormal_numbers_are_taken_for_zero(product):
    small = np.full((16, 32), 1e-39, np.float32)
    c = np.ones((16, LANES), np.float32)
    left, right = in_tiles(small), in_pairs(np.full((32, LANES), 2.0**100, np.float32))
    assert left.any()
    arguments = 16, 1, 16, data_at(left), left.strides[0], left.strides[0], 32, 0, data_at(right), 64, 64
    product(*arguments, data_at(c), 64, 64, 0, 64, matmul.FROM_C)
    assert np.all(c == 1)


@has_tiles
@pytest.mark.parametrize("rows", [1, 31, 32, 33, 70])
@pytest.mark.parametrize("columns", [1, 16, 35])
def test_rounding_for_tiles(rows, columns):
    """Along rows, and down columns; 0 beyond the last of either, up to whole tiles, of which nothing is
    read."""
    x = np.full((rows + 1, columns + 3), np.nan, np.float32)
    x[:rows, :columns] = numbers(np.random.default_rng(columns), rows, columns)
    high, wide = -(-rows // 32) * 32, -(-columns // LANES) * LANES
    whole = np.zeros((high, wide), np.float32)
    whole[:rows, :columns] = x[:rows, :columns]
    along, turned = np.full((high, wide + 8), 7, np.uint16), np.full((wide, high + 8), 7, np.uint16)
    callback(rounding.round_tiles(), 8)(
        *(data_at(x), x.strides[0], rows, columns),
        *(data_at(along), along.strides[0], data_at(turned), turned.strides[0]),
    )
    assert np.array_equal(along[:, :wide], halves(whole)) and np.all(along[:, wide:] == 7)
    assert np.array_equal(turned[:, :high], halves(whole).T) and np.all(turned[:, high:] == 7)


@has_tiles
def test_what_others_have_set_is_put_back(product):
    """Tiles are configured for a thread: another library's configuration outlives our product."""

    def code(b, args):
        setting, address, arguments, found = args
        line = amx.I8.as_pointer()
        for name, at in (("ldtilecfg", setting), ("", arguments), ("sttilecfg", found)):
            if name:
                f = ir.Function(b.module, ir.FunctionType(ir.VoidType(), [line]), f"llvm.x86.{name}")
                b.call(f, [b.inttoptr(at, line)])
                continue
            kind = ir.FunctionType(ir.VoidType(), [I64] * len(matmul.ARGUMENTS))
            words = b.inttoptr(arguments, I64.as_pointer())
            numbers = [b.load(b.gep(words, [I64(i)])) for i in range(len(matmul.ARGUMENTS))]
            b.call(b.inttoptr(address, kind.as_pointer()), numbers)

    around = callback(emit.compile_block("test-around-tiles", "float32", 4, code), 4)
    setting, found = (np.zeros(64, np.uint8) for _ in range(2))
    setting[[0, 16, 48]] = 1, 32, 5  # palette 1; tile 0 has 5 rows of 32 bytes
    c, zeros = np.zeros((40, LANES), np.float32), np.zeros(40 * 64, np.uint8)
    address = ctypes.cast(product, ctypes.c_void_p).value
    z = data_at(zeros)
    arguments = np.array([40, 1, 16, z, 64, 64, 32, 0, z, 64, 64, data_at(c), 64, 64, 0, 64, matmul.ZERO])
    around(data_at(setting), address, data_at(arguments), data_at(found))
    assert np.array_equal(found, setting)


def test_tiles_are_what_is_compiled(monkeypatch):
    """For CPUs that have them, whatever this one is: as many products as there are tiles of C in each cut."""
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(matmul.ARGUMENTS))
    builder = ir.IRBuilder(ir.Function(module, kind, "product").append_basic_block())
    kernel.emit_product(builder, builder.function.args)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    target = llvm.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu="sapphirerapids", opt=2)
    code = machine.emit_assembly(llvm.parse_assembly(str(module)))
    assert code.count("tdpbf16ps") == 1 + 2 + 2 + 4
    assert code.count("ldtilecfg") == 2 and code.count("sttilecfg") == 1


@has_tiles
@pytest.mark.parametrize("rows", [1, 31, 33, 64])
def test_a_smaller_last_batch_sees_nothing_of_the_one_before(rows):
    """Rows that fill up its tiles are zeros: an epoch is one step after the other."""
    rng = np.random.default_rng(0)
    X, Y = numbers(rng, 64 + rows, 100), rng.random((64 + rows, 40)).astype(np.float32)
    models = [fastbp.MLP([100, 400, 40], precision="bfloat16", seed=1) for _ in range(2)]
    how = {"batch_size": 64, "epochs": 1, "shuffle": False, "progress": False}
    models[0].fit(X, Y, optimizer=fastbp.SGD(0.125), **how)
    optimizer = fastbp.SGD(0.125)
    for part in (slice(64), slice(64, None)):
        models[1].train_step(X[part], Y[part], optimizer)
    assert np.array_equal(models[0].parameters.flat, models[1].parameters.flat)


@has_tiles
@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("rows", [1, 31, 33])
def test_a_step_after_one_that_overflowed_is_that_of_a_fresh_model(rows):
    """What fills up its tiles was infinite, and is zeros again: else there would be NaN."""

    @numba.njit
    def step(model, X, Y, state):
        return model.train_step(X, Y, state)

    rng = np.random.default_rng(0)
    X, Y = numbers(rng, 64, 100), rng.random((64, 40)).astype(np.float32)
    options = {"precision": "bfloat16", "output": "identity", "seed": 1}
    models = [fastbp.MLP([100, 400, 40], **options) for _ in range(2)]
    first, second = (m.training_state(fastbp.SGD(0.125), batch_size=64, steps=10) for m in models)
    huge = np.sign(X) * np.finfo(np.float32).max
    assert not np.isfinite(step(models[0], huge, Y, first))
    models[0].parameters.flat[...] = models[1].parameters.flat
    losses = step(models[0], X[:rows], Y[:rows], first), step(models[1], X[:rows], Y[:rows], second)
    assert losses[0] == losses[1] and np.isfinite(losses[0])
    assert np.array_equal(models[0].parameters.flat, models[1].parameters.flat)


def test_without_the_systems_leave_there_are_none(monkeypatch):
    monkeypatch.setattr(amx, "_permitted", lambda: False)
    assert not amx.available()
    assert fastbp.show_config()["bfloat16"] != "amx"
