"""Products of bfloat16 numbers: rounding, the instruction or its emulation, and the microkernel."""

import contextlib
import ctypes
import itertools

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from processes import on_x86

from fastbp.engine.compile.arrays import data_at
from fastbp.engine.kernels import matmul
from fastbp.engine.kernels.bfloat16 import products as bfloat16
from fastbp.engine.kernels.bfloat16 import rounding
from fastbp.engine.simd import amx, emit, instructions, tile, vector
from fastbp.engine.simd import bfloat16 as pairs
from fastbp.engine.simd.vector import I64, Isa, Vectors
from fastbp.formulas.bfloat16 import rounded

LANES = vector.isa().bytes // 4
SPECIAL = [0.0, 1.0, np.inf, np.nan, 3.4028235e38, 1e-40, 1.4e-45, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-9]


def callback(address, count):
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)


def numbers(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def chain(acc, a, b):
    """acc + a @ b, of rounded operands, in the order in which this CPU's products sum.

    In float64 a product is exact, and what a sum loses does not show in float32.
    """
    depth = a.shape[1]
    a, b = (rounded(x).astype(np.float64) for x in (a, b))
    if amx.available():
        return chain_of_tiles(acc, a, b)
    # For each element one chain, the odd k of each pair first.
    for even in range(0, depth, 2):
        for k in (even + 1, even):
            if k < depth:
                acc = (acc + a[:, k, None] * b[k]).astype(np.float32)
    return acc


def chain_of_tiles(acc, a, b):
    """For each element one chain over 16 pairs, of which even and odd k are summed apart."""
    for first in range(0, a.shape[1], 2 * amx.PAIRS):
        sums = np.zeros((2, *acc.shape), np.float32)
        for k in range(first, min(first + 2 * amx.PAIRS, a.shape[1])):
            sums[k % 2] = sums[k % 2] + a[:, k, None] * b[k]
        acc = acc + (sums[0] + sums[1])
    return acc


@contextlib.contextmanager
def as_if(monkeypatch, isa):
    """Code is built for such a CPU."""
    with monkeypatch.context() as patch:
        for module in (instructions, pairs, bfloat16, tile, amx):
            patch.setattr(module, "isa", lambda: isa)
        matmul.shapes.cache_clear()
        yield
    matmul.shapes.cache_clear()


def code_of(along):
    """The microkernel in LLVM's language, as the function `product`."""
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [I64] * len(matmul.ARGUMENTS))
    function = ir.Function(module, kind, "product")
    builder = ir.IRBuilder(function.append_basic_block())
    bfloat16.emit(builder, along, function.args)
    builder.ret_void()
    return str(module)


# ---- rounding ----------------------------------------------------------------------------------------------


def test_rounded_is_the_nearest_of_all():
    """Against a search among all bfloat16 numbers."""
    every = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
    finite = np.unique(every[np.isfinite(every)]).astype(np.float64)  # in order, one zero
    bits = np.random.default_rng(0).integers(0, 1 << 32, 3000, dtype=np.uint32)
    ties = np.append(bits[:1000] & np.uint32(0xFFFF0000) | np.uint32(0x8000), bits)
    x = ties.view(np.float32)
    x = x[np.isfinite(x)].astype(np.float64)
    x = x[np.abs(x) < finite[-1]]
    above = np.searchsorted(finite, x)
    low, high = finite[above - 1], finite[above]
    is_even = (high.astype(np.float32).view(np.uint32) >> np.uint32(16)) % 2 == 0
    up, down = high - x, x - low
    nearest = np.where((up < down) | ((up == down) & is_even), high, low)
    assert np.array_equal(rounded(x.astype(np.float32)), nearest.astype(np.float32))
    assert (up == down).sum() > 500


def test_rounded_at_the_ends():
    x = np.array([3.4028235e38, -3.4028235e38, np.inf, -np.inf, 3.3895e38, -0.0, 0.0, 2.0**-133], np.float32)
    want = [np.inf, -np.inf, np.inf, -np.inf, 3.3895314e38, -0.0, 0.0, 2.0**-133]
    assert rounded(x).tobytes() == np.array(want, np.float32).tobytes()
    payloads = np.array([0x7F800001, 0xFF800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(rounded(payloads)).all()


@pytest.fixture(scope="module")
def one_product():
    """(acc, even a, odd a, even b, odd b), each a vector's lanes -> the results of `dot_pairs`."""

    def code(b, args):
        ops = Vectors(b, "float32")
        acc, a0, a1, b0, b1 = (ops.load(address) for address in args[1:])
        a, b_ = pairs.pairs_across(ops, a0, a1), pairs.pairs_across(ops, b0, b1)
        ops.store(pairs.dot_pairs(ops, a, b_, acc), args[0])

    function = callback(emit.compile_block("test-dot-pairs", "float32", 6, code), 6)

    def run(*arrays):
        out = np.empty(LANES, np.float32)
        arrays = [np.ascontiguousarray(x, np.float32) for x in arrays]
        function(data_at(out), *map(data_at, arrays))
        return out

    return run


def test_dot_pairs_is_what_the_instruction_is_defined_as(one_product):
    """Wherever the tests run: by the instruction where the CPU has it."""
    rng = np.random.default_rng(1)
    for scale in (1, 1e-3, 1e6):
        acc, a0, a1, b0, b1 = scale * rng.standard_normal((5, LANES))
        want = np.float32(acc)
        for a, b in ((a1, b1), (a0, b0)):
            exact = rounded(a).astype(np.float64) * rounded(b)
            want = (want + exact).astype(np.float32)
        assert np.array_equal(one_product(acc, a0, a1, b0, b1), want)


def test_the_order_of_a_pair_is_seen(one_product):
    """A test of the test: the other order gives other bits."""
    big, one = np.full(LANES, 2.0**24), np.ones(LANES)
    assert np.all(one_product(big, one, -big, one, one) == 1)
    assert np.all(one_product(big, -big, one, one, one) == 0)  # 2**24 + 1 is 2**24


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("sign", [1, -1])
def test_dot_pairs_of_special_numbers(one_product, special, sign):
    x, one, zero = np.full(LANES, sign * special), np.ones(LANES), np.zeros(LANES)
    with np.errstate(over="ignore"):
        want = rounded(x.astype(np.float32))
    denormal = 0 < special < 1e-38
    for operands in ((x, zero, one, zero), (zero, x, zero, one), (one, zero, x, zero), (zero, one, zero, x)):
        got = one_product(zero, *operands)
        # The instruction takes subnormal numbers for 0.
        assert np.array_equal(got, want, equal_nan=True) or (denormal and not got.any())


# ---- the microkernel ---------------------------------------------------------------------------------------


class Product:
    """One call of a microkernel: how A, B and C lie, drawn at random; A, B, and what C is before."""

    def __init__(self, rng, along, rows, vectors, depth, group=None):
        self.along, self.rows, self.vectors, self.depth = along, rows, vectors, depth
        self.a, self.b = numbers(rng, rows, depth), numbers(rng, depth, vectors * LANES)
        self.c, self.row = numbers(rng, rows, vectors * LANES), numbers(rng, vectors * LANES)
        self.group = group or depth or 1

    def lay_out_a(self):
        """A as it lies in memory, and the strides of it."""
        if self.along == matmul.ALONG_ROWS:
            lies = np.full((self.depth, self.rows + 3), np.nan, np.float32)
            lies[:, : self.rows] = self.a.T
            return lies, 4, lies.strides[0], 0
        groups = -(-self.depth // self.group)
        lies = np.full((groups, self.rows, self.group), np.nan, np.float32)
        for g in range(groups):
            piece = self.a[:, g * self.group : (g + 1) * self.group]
            lies[g, :, : piece.shape[1]] = piece
        return lies, lies.strides[1], lies.strides[1], lies.strides[0] if groups > 1 else 0

    def run(self, kernel, start, pieces=1):
        """C, from a call for each of so many pieces of its rows."""
        a, a_row, a_stride, a_group = self.lay_out_a()
        c = self.c.copy()
        b, row = np.ascontiguousarray(self.b), self.row
        edges = [self.rows * i // pieces for i in range(pieces + 1)]
        for top, bottom in itertools.pairwise(edges):
            kernel(
                *(bottom - top, self.vectors, self.depth),
                *(data_at(a) + top * a_row, a_row, a_stride, self.group, a_group),
                *(data_at(b), 4 * LANES, b.strides[0]),
                *(data_at(c) + top * c.strides[0], 4 * LANES, c.strides[0]),
                *(data_at(row), 4 * LANES, start),
            )
        return c

    def expected(self, start):
        first = {matmul.ZERO: np.zeros_like(self.c), matmul.FROM_C: self.c}.get(start, self.row[None])
        return chain(np.broadcast_to(first, self.c.shape), self.a, self.b)


@pytest.fixture(scope="module", params=[matmul.ALONG_K, matmul.ALONG_ROWS], ids=["along-k", "along-rows"])
def kernel(request):
    return request.param, callback(bfloat16.microkernel(request.param), len(matmul.ARGUMENTS))


DEPTHS = [1, 2, 3, 7, 8, 17, bfloat16.CHUNK - 1, bfloat16.CHUNK, bfloat16.CHUNK + 1, 2 * bfloat16.CHUNK + 5]


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_product_is_its_definition(kernel, depth):
    """To the bit, in every width, from one row to more than are packed at once, and in any pieces."""
    along, run = kernel
    rng = np.random.default_rng(depth)
    for i, vectors in enumerate(range(1, bfloat16.MOST_VECTORS + 1)):
        for rows in (1, 2, 13, bfloat16.PAIRED_ROWS + 7)[i % 2 :: 2]:
            product = Product(rng, along, rows, vectors, depth)
            for start in (matmul.ZERO, matmul.FROM_C, matmul.FROM_ROW):
                want = product.expected(start)
                assert np.array_equal(product.run(run, start), want), (rows, vectors, start)
            assert np.array_equal(product.run(run, matmul.FROM_C, 3), product.expected(matmul.FROM_C))


@pytest.mark.parametrize("group", [LANES, 2 * LANES, 3 * LANES])
def test_groups_of_k(group):
    run = callback(bfloat16.microkernel(matmul.ALONG_K), len(matmul.ARGUMENTS))
    for depth in (group + 1, 3 * group, bfloat16.CHUNK + group - 1):
        product = Product(np.random.default_rng(depth), matmul.ALONG_K, 9, 2, depth, group)
        assert np.array_equal(product.run(run, matmul.ZERO), product.expected(matmul.ZERO))


def test_nothing_to_add_up(kernel):
    """C becomes what it starts from."""
    along, run = kernel
    product = Product(np.random.default_rng(0), along, 5, 2, 0)
    assert np.array_equal(product.run(run, matmul.FROM_C), product.c)
    assert not product.run(run, matmul.ZERO).any()


def test_an_odd_depth_adds_no_nan(kernel):
    """Infinite numbers of the last k are multiplied with one another alone, and with no 0 behind them."""
    along, run = kernel
    product = Product(np.random.default_rng(0), along, 5, 2, 3)
    product.a[:, -1], product.b[-1] = np.inf, np.inf
    assert np.isposinf(product.run(run, matmul.ZERO)).all()


@pytest.mark.parametrize("along", [matmul.ALONG_K, matmul.ALONG_ROWS], ids=["along-k", "along-rows"])
def test_tiles_of_other_vectors(monkeypatch, along):
    """Those of AVX-512, whatever this CPU's are: LLVM makes several instructions of one."""
    with as_if(monkeypatch, Isa(64, 32, True)):
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1
        )
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(code_of(along)), machine)
        run = callback(engine.get_function_address("product"), len(matmul.ARGUMENTS))
        monkeypatch.setattr(f"{__name__}.LANES", 16)
        rng = np.random.default_rng(0)
        for rows, vectors, depth in itertools.product((1, 3, 14, 71), (1, 4, 7), (3, bfloat16.CHUNK + 2)):
            product = Product(rng, along, rows, vectors, depth)
            want = product.expected(matmul.FROM_ROW)
            assert np.array_equal(product.run(run, matmul.FROM_ROW), want), (rows, vectors, depth)


# ---- the instruction ---------------------------------------------------------------------------------------


def assembly_for(monkeypatch, isa, cpu, along=matmul.ALONG_K):
    """The microkernel as it is compiled for another CPU."""
    with as_if(monkeypatch, isa):
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        machine = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(cpu=cpu, opt=2)
        code = llvm.parse_assembly(code_of(along))
        code.verify()
        return machine.emit_assembly(code)


@pytest.mark.parametrize(
    ("cpu", "along"), [("znver4", matmul.ALONG_K), ("sapphirerapids", matmul.ALONG_ROWS)]
)
def test_the_instruction_is_what_is_compiled(monkeypatch, cpu, along):
    """For CPUs that have it, whatever this one is: one for each accumulator of each tile, and no other
    multiply-add. A pair of vectors of B is rounded by two more, and A by one or two."""
    code = assembly_for(monkeypatch, Isa(64, 32, True, False, True), cpu, along)
    shapes = {1: 16, 2: 14, 3: 1, 4: 7, 5: 1, 6: 1, 7: 1, 8: 3}
    accumulators = sum(width * height * (height + 1) // 2 for width, height in shapes.items())
    assert code.count("vdpbf16ps") == accumulators
    assert "zmm" in code and "vfmadd" not in code
    assert code.count("vcvtneps2bf16") == (2 + 1 if along == matmul.ALONG_K else 2 + 2) + 1  # an odd depth's


@on_x86
def test_elsewhere_it_is_emulated(monkeypatch):
    code = assembly_for(monkeypatch, Isa(32, 16, True), "znver3")
    assert "vfmadd" in code and "bf16" not in code


# ---- what is kept rounded ------------------------------------------------------------------------------


def halves(x):
    """The bits of rounded numbers."""
    return (rounded(x).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("columns", [1, LANES, 2 * LANES + 3, 5 * LANES])
@pytest.mark.parametrize("group", [1, 2, 8])
def test_rounding_in_pairs(rows, columns, group):
    """Along the rows and across them; 0 beyond the columns and the last row, of which nothing is read."""
    rng = np.random.default_rng(columns)
    x = np.full((rows + 1, columns + 3), np.nan, np.float32)
    x[:rows, :columns] = numbers(rng, rows, columns)
    vectors, pairs_of_rows = -(-columns // LANES), -(-rows // 2)
    whole = np.zeros((2 * pairs_of_rows, vectors * LANES), np.float32)
    whole[:rows, :columns] = x[:rows, :columns]
    across = np.stack([halves(whole[0::2]), halves(whole[1::2])], axis=-1)
    round_pairs = callback(rounding.round_pairs(), 10)
    for both in (True, False):
        along = np.full((rows, vectors * LANES), 7, np.uint16)
        groups = -(-vectors // group)
        to = np.full((groups, pairs_of_rows, group * LANES, 2), 7, np.uint16)
        round_pairs(
            *(data_at(x), x.strides[0], rows, columns, data_at(along) if both else 0, along.strides[0]),
            *(data_at(to), to.strides[1], group, to.strides[0]),
        )
        assert np.array_equal(along, halves(whole[:rows]) if both else np.full_like(along, 7))
        got = to.transpose(1, 0, 2, 3).reshape(pairs_of_rows, -1, 2)
        assert np.array_equal(got[:, : vectors * LANES], across)
