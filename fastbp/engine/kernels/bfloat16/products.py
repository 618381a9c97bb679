"""Matrix products of bfloat16 numbers, summed in float32: the microkernel of `matmul.py` with another
multiply-add.

This is how products are taken outside of training, where they may read the caller's own arrays. In training
what they read is rounded before (worker/operands.py), and `product_of_pairs` is all that is left.

Operands and results are float32, and the interface is that of `matmul.microkernel`. On their way into the
product A and B are rounded to bfloat16 and laid out as pairs along the depth, since that is what one
instruction multiplies and adds:

    for k in range(0, depth, CHUNK):                      # C goes on from C
        pairs of B[k : k + CHUNK, all vectors]            # in memory on the stack, some KB
        for rows in blocks of at most PAIRED_ROWS:
            pairs of A[rows, k : k + CHUNK]               # the same
            for vectors in pieces of 4, 2 or 1:
                C[rows, vectors] += A's pairs @ B's pairs[vectors]    # matmul.emit_product, with dot_pairs

To round a number takes longer than to multiply it, so it pays to ask for many rows and vectors at once:
whoever calls this takes up to MOST_VECTORS vectors side by side, and does not cut rows into tiles.

An odd depth has one pair whose second factors are both 0. Each element of C is one chain of sums in the order
of k, and which k make a pair is decided by k alone. So here, too, the cut into tiles cannot change a bit.

Where A's k come in several groups (ALONG_K only), a group is a whole number of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels.bfloat16 import amx
from fastbp.engine.kernels.bfloat16.rounding import turned
from fastbp.engine.kernels.matmul import ALONG_K, ARGUMENTS, FROM_C, NOTHING, emit_product, shapes
from fastbp.engine.simd.amx import available
from fastbp.engine.simd.bfloat16 import dot_pairs, halves, pairs_across, store_pairs_within
from fastbp.engine.simd.emit import compile_block, each_vector_of
from fastbp.engine.simd.vector import I32, I64, Vectors, isa
from fastbp.engine.structs import MOST_VECTORS, PAIRED_ROWS

# Of a piece that is packed at once: 64 rows x 64 pairs of A are 16 KB, of two vectors of B with AVX-512 8 KB,
# so what is met again and again is in the first-level cache.
PAIRS = 64
CHUNK = 2 * PAIRS
PAIR = 4  # bytes


Arguments = dict[str, ir.Value]  # by name, those of matmul.ARGUMENTS


def implementation() -> str:
    """How products of pairs are computed on the CPU that Numba compiles for: "amx" or "avx512_bf16", by their
    instructions, or "emulated"."""
    if available():
        return "amx"
    return "avx512_bf16" if isa().bfloat16 else "emulated"


def emit(b: ir.IRBuilder, along: int, args: Sequence[ir.Value]) -> None:
    """The whole callback; args: as matmul.ARGUMENTS."""
    ops, v = Vectors(b, "float32"), dict(zip(ARGUMENTS, args, strict=True))
    packed_a = _on_the_stack(b, PAIRED_ROWS * PAIRS * PAIR)
    packed_b = _on_the_stack(b, MOST_VECTORS * PAIRS * isa().bytes)
    chunks = b.udiv(b.add(v["depth"], I64(CHUNK - 1)), I64(CHUNK))
    chunks = b.select(b.icmp_signed("==", chunks, I64(0)), I64(1), chunks)  # (C becomes what it starts from)
    blocks = b.udiv(b.add(v["rows"], I64(PAIRED_ROWS - 1)), I64(PAIRED_ROWS))
    with cgutils.for_range(b, chunks, intp=I64) as of_chunks:
        k = b.mul(of_chunks.index, I64(CHUNK))
        left = _smaller(b, b.sub(v["depth"], k), I64(CHUNK))
        start = b.select(b.icmp_signed("==", k, I64(0)), v["start"], I64(FROM_C))
        pairs = b.udiv(b.add(left, I64(1)), I64(2))
        _pack_b(ops, v, k, left, packed_b)
        with cgutils.for_range(b, blocks, intp=I64) as of_blocks:
            top, bottom = (
                b.udiv(b.mul(v["rows"], i), blocks) for i in (of_blocks.index, b.add(of_blocks.index, I64(1)))
            )
            rows = b.sub(bottom, top)
            a = b.add(v["a"], b.mul(top, v["a_row"]))
            of_rows = _pack_a_turned if available() else _pack_a_along_rows
            pack = _pack_a_along_k if along == ALONG_K else of_rows
            pack(ops, {**v, "a": a, "rows": rows}, k, left, packed_a)
            here = {**v, **_lying_packed(b, along, v["vectors"]), "a": packed_a, "b": packed_b}
            here.update({"rows": rows, "depth": pairs, "group": pairs, "start": start})
            here["c"] = b.add(v["c"], b.mul(top, v["c_row"]))
            if available():
                amx.emit_product(b, [here[name] for name in ARGUMENTS])
            else:
                _products(b, along, here)


def _products(b: ir.IRBuilder, along: int, v: Arguments) -> None:
    """All vectors of packed operands, in pieces that there are tiles for: of four where rows are few."""
    four, two, one = I64(4), I64(2), I64(1)
    few, before = b.icmp_signed("<=", v["rows"], I64(shapes()[4])), b.block
    loop, done = b.append_basic_block("vectors"), b.append_basic_block("no_vectors")
    b.branch(loop)
    b.position_at_end(loop)
    j = b.phi(I64)
    left = b.sub(v["vectors"], j)
    several = b.and_(few, b.icmp_signed(">=", left, four))
    width = b.select(several, four, b.select(b.icmp_signed(">=", left, two), two, one))
    offsets = (("b", "b_vector"), ("c", "c_vector"), ("row", "row_vector"))
    here = {**v, "vectors": width, **{name: b.add(v[name], b.mul(j, v[by])) for name, by in offsets}}
    emit_product(b, "float32", along, NOTHING, [here[name] for name in ARGUMENTS], dot_pairs)
    following = b.add(j, width)
    j.add_incoming(I64(0), before)
    j.add_incoming(following, b.block)
    b.cbranch(b.icmp_signed("<", following, v["vectors"]), loop, done)
    b.position_at_end(done)


def _lying_packed(b: ir.IRBuilder, along: int, vectors: ir.Value) -> Arguments:
    """The strides of packed operands."""
    by_rows = along == ALONG_K or available()
    row, k = (PAIRS * PAIR, PAIRS * PAIR) if by_rows else (PAIR, PAIRED_ROWS * PAIR)
    of_a = {"a_row": I64(row), "a_stride": I64(k), "a_group_stride": I64(0)}
    return {**of_a, "b_vector": I64(isa().bytes), "b_k": b.mul(vectors, I64(isa().bytes))}


def _on_the_stack(b: ir.IRBuilder, size: int) -> ir.Value:
    """(Numba's own way fills it with zeros, number by number.)"""
    with b.goto_entry_block():
        memory = b.alloca(ir.ArrayType(I32, size // 4))
    memory.align = 64
    return b.ptrtoint(memory, I64)


def _smaller(b: ir.IRBuilder, x: ir.Value, y: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed("<", x, y), x, y)


def _pack_b(ops: Vectors, v: Arguments, first: ir.Value, left: ir.Value, packed: ir.Value) -> None:
    """Pairs of so many k, the first one and those that follow it: [pair][vector]."""
    b = ops.b
    source, row = b.add(v["b"], b.mul(first, v["b_k"])), b.mul(v["vectors"], I64(isa().bytes))

    def pack(pair: ir.Value, is_whole: bool) -> None:
        k = b.add(source, b.mul(b.shl(pair, I64(1)), v["b_k"]))
        to = b.add(packed, b.mul(pair, row))
        with cgutils.for_range(b, v["vectors"], intp=I64) as of_vectors:
            at = b.add(k, b.mul(of_vectors.index, v["b_vector"]))
            odd = ops.load(b.add(at, v["b_k"])) if is_whole else ops.const(0.0)
            pairs = pairs_across(ops, ops.load(at), odd)
            ops.store(pairs, b.add(to, b.mul(of_vectors.index, I64(isa().bytes))))

    whole = b.lshr(left, I64(1))
    with cgutils.for_range(b, whole, intp=I64) as of_pairs:
        pack(of_pairs.index, True)
    with b.if_then(b.icmp_signed("!=", b.and_(left, I64(1)), I64(0))):
        pack(whole, False)
    if available():
        pairs = b.lshr(b.add(left, I64(1)), I64(1))
        zeros = b.sub(_whole_tiles(b, pairs), pairs)
        first = b.add(packed, b.mul(pairs, row))
        count = b.mul(b.mul(zeros, v["vectors"]), I64(ops.lanes))
        each_vector_of(ops, count, lambda at: ops.store(0.0, b.add(first, at)), 1)


def _whole_tiles(b: ir.IRBuilder, pairs: ir.Value) -> ir.Value:
    """So many pairs, and those that fill up the last tile."""
    return b.and_(b.add(pairs, I64(amx.PAIRS - 1)), I64(-amx.PAIRS))


def _pack_a_along_k(ops: Vectors, v: Arguments, first: ir.Value, left: ir.Value, packed: ir.Value) -> None:
    """Pairs of so many k of all rows: [row][pair]."""
    b, lanes = ops.b, I64(ops.lanes)
    vectors = b.udiv(b.add(left, b.sub(lanes, I64(1))), lanes)
    if available():  # zeros up to a whole tile, which is two of them
        vectors = b.and_(b.add(vectors, I64(1)), I64(-2))
    with cgutils.for_range(b, vectors, intp=I64) as of_vectors:
        done = b.mul(of_vectors.index, lanes)
        k, mask = b.add(first, done), ops.first_lanes(b.sub(left, done))
        group = b.udiv(k, v["group"])
        within = b.mul(b.sub(k, b.mul(group, v["group"])), I64(ops.itemsize))
        source = b.add(v["a"], b.add(b.mul(group, v["a_group_stride"]), within))
        to = b.add(packed, b.mul(done, I64(PAIR // 2)))
        with cgutils.for_range(b, v["rows"], intp=I64) as of_rows:
            numbers = ops.load_masked(b.add(source, b.mul(of_rows.index, v["a_stride"])), mask)
            store_pairs_within(ops, numbers, b.add(to, b.mul(of_rows.index, I64(PAIRS * PAIR))))


def _pack_a_along_rows(ops: Vectors, v: Arguments, first: ir.Value, left: ir.Value, packed: ir.Value) -> None:
    """Pairs of so many k of all rows: [pair][row]."""
    b, lanes, vector = ops.b, I64(ops.lanes), I64(isa().bytes)
    source = b.add(v["a"], b.mul(first, v["a_stride"]))
    with cgutils.for_range(b, b.udiv(b.add(v["rows"], b.sub(lanes, I64(1))), lanes), intp=I64) as of_vectors:
        across = b.mul(of_vectors.index, vector)
        rows = ops.first_lanes(b.sub(v["rows"], b.mul(of_vectors.index, lanes)))
        none = ir.Constant(rows.type, [False] * ops.lanes)
        with cgutils.for_range(b, b.lshr(b.add(left, I64(1)), I64(1)), intp=I64) as of_pairs:
            k = b.shl(of_pairs.index, I64(1))
            at = b.add(b.add(source, across), b.mul(k, v["a_stride"]))
            both = b.icmp_signed("<", b.add(k, I64(1)), left)
            even = ops.load_masked(at, rows)
            odd = ops.load_masked(b.add(at, v["a_stride"]), b.select(both, rows, none))
            to = b.add(b.add(packed, across), b.mul(of_pairs.index, I64(PAIRED_ROWS * PAIR)))
            ops.store(pairs_across(ops, even, odd), to)


def _pack_a_turned(ops: Vectors, v: Arguments, first: ir.Value, left: ir.Value, packed: ir.Value) -> None:
    """Pairs of so many k of all rows, as `_pack_a_along_k`'s lie, where numbers are adjacent along rows."""
    b, lanes, high = ops.b, I64(ops.lanes), 2 * ops.lanes
    source = b.add(v["a"], b.mul(first, v["a_stride"]))
    with cgutils.for_range(b, b.udiv(b.add(v["rows"], b.sub(lanes, I64(1))), lanes), intp=I64) as of_vectors:
        done = b.mul(of_vectors.index, lanes)
        rows = ops.first_lanes(b.sub(v["rows"], done))
        none = ir.Constant(rows.type, None)
        blocks = b.udiv(b.add(left, I64(high - 1)), I64(high))
        with cgutils.for_range(b, blocks, intp=I64) as of_blocks:
            k = b.mul(of_blocks.index, I64(high))
            at = b.add(b.add(source, b.mul(done, I64(ops.itemsize))), b.mul(k, v["a_stride"]))
            numbers = []
            for i in range(high):
                mask = b.select(b.icmp_signed("<", b.add(k, I64(i)), left), rows, none)
                numbers.append(halves(ops, ops.load_masked(b.add(at, b.mul(v["a_stride"], I64(i))), mask)))
            to = b.add(b.add(packed, b.mul(done, I64(PAIRS * PAIR))), b.mul(k, I64(PAIR // 2)))
            for i, vector in enumerate(turned(ops, numbers)):
                ops.store(ops.wrap(vector), b.add(to, I64(i * PAIRS * PAIR)))


def microkernel(along: int) -> int:
    """The compiled microkernel, to be called as `matmul.microkernel`'s is."""
    name = f"microkernel-rounding-{'k' if along == ALONG_K else 'rows'}{'-tiles' if available() else ''}"
    return compile_block(name, "float32", len(ARGUMENTS), lambda b, args: emit(b, along, args))


def alone() -> tuple[int, int]:
    """The fastest loop alone on this CPU, of two vectors and pairs, and the height that it likes."""
    return (amx.product(), amx.HEIGHT) if available() else (product_of_pairs(), shapes()[2])


def product_of_pairs(along: int = ALONG_K, *, prefetch: int = NOTHING) -> int:
    """The loop alone, of operands that are rounded and lie as pairs already: a k of `matmul.ARGUMENTS` is a
    pair. What a training step reads is kept so (worker/operands.py)."""
    name = f"product-of-pairs-{'k' if along == ALONG_K else 'rows'}{'-prefetch' if prefetch else ''}"
    return compile_block(
        name,
        "float32",
        len(ARGUMENTS),
        lambda b, args: emit_product(b, "float32", along, prefetch, args, dot_pairs, relu=True),
    )
