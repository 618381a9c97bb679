"""The product of bfloat16 numbers by AMX's tiles, where the CPU has them: `matmul.emit_product` for operands
that are rounded and lie as pairs along the depth.

    for 32 rows:                              # or what is left of them
        for 2 vectors:
            C[rows, vectors] in 4 tiles
            for k in range(0, depth, 16):     # pairs
                C += A[rows, k : k + 16] @ B[k : k + 16, vectors]

A's numbers are adjacent along k. Both have zeros behind the depth, up to a multiple of 16 pairs. Rows that do
not exist are neither read nor written.

A sum is one chain over such 16 pairs, in each of which even and odd k are added up apart (simd/amx.py). So it
has other last bits than the chain of AVX512_BF16, but the same ones however C is cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels.activations import ACTIVATIONS
from fastbp.engine.kernels.matmul import ARGUMENTS, FROM_C, MASKED, RECTIFIED, ZERO
from fastbp.engine.simd.amx import LINE, PAIRS, ROWS, Tiles
from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.vector import I64, Vec, Vectors

Arguments = dict[str, ir.Value]  # by name, those of matmul.ARGUMENTS

HEIGHT = 2 * ROWS  # of what is multiplied at once


def emit_product(b: ir.IRBuilder, args: Sequence[ir.Value], *, relu: bool = False) -> None:
    """args: as matmul.ARGUMENTS, where A's k are one group; relu: whether sums may end with it."""
    v, tiles = dict(zip(ARGUMENTS, args, strict=True)), Tiles(b)
    v["whole_c"] = v["c"]
    v["steps"] = b.lshr(b.add(v["depth"], I64(PAIRS - 1)), I64(PAIRS.bit_length() - 1))
    v |= _start(b, v)
    blocks = b.udiv(b.add(v["rows"], I64(HEIGHT - 1)), I64(HEIGHT))
    last = b.sub(blocks, I64(1))
    with cgutils.for_range(b, blocks, intp=I64) as of_blocks:
        i = of_blocks.index
        top = b.mul(i, I64(HEIGHT))
        left = b.sub(v["rows"], top)
        lower = b.sub(left, I64(ROWS))
        at_an_end = b.or_(b.icmp_signed("==", i, I64(0)), b.icmp_signed("==", i, last))
        with b.if_then(at_an_end):
            tiles.set_rows(_between(b, left, ROWS), _between(b, lower, ROWS))
        here = {**v, "height": _between(b, left, HEIGHT)}
        for name in ("a", "c", "from"):
            here[name] = b.add(v[name], b.mul(top, v[f"{name}_row"]))
        with b.if_else(b.icmp_signed(">", lower, I64(0))) as (both, upper):
            with both:
                _vectors(tiles, here, 2, relu)
            with upper:
                _vectors(tiles, here, 1, relu)
    tiles.put_back()


def _between(b: ir.IRBuilder, x: ir.Value, most: int) -> ir.Value:
    """x, but at least 1 and no more than that."""
    x = b.select(b.icmp_signed("<", x, I64(most)), x, I64(most))
    return b.select(b.icmp_signed(">", x, I64(1)), x, I64(1))


def _start(b: ir.IRBuilder, v: Arguments) -> Arguments:
    """What C begins with, as a matrix in memory: zeros, C itself, or one row for all."""
    with b.goto_entry_block():
        memory = b.alloca(ir.ArrayType(I64, LINE // 8))
        memory.align = LINE
    b.store(ir.Constant(memory.type.pointee, None), memory)
    from_c, zeros = b.icmp_signed("==", v["start"], I64(FROM_C)), I64(0)
    zero = b.or_(*(b.icmp_signed("==", v["start"], I64(kind)) for kind in (ZERO, MASKED)))
    ways = (
        ("from", b.ptrtoint(memory, I64), "c", "row"),
        ("from_row", zeros, "c_row", None),
        ("from_vector", zeros, "c_vector", "row_vector"),
    )
    return {
        name: b.select(zero, nothing, b.select(from_c, v[of_c], v[of_row] if of_row else zeros))
        for name, nothing, of_c, of_row in ways
    }


def _vectors(tiles: Tiles, v: Arguments, rows: int, relu: bool) -> None:
    """All vectors of so many rows of tiles."""
    b = tiles.b
    with cgutils.for_range(b, b.lshr(b.add(v["vectors"], I64(1)), I64(1)), intp=I64) as of_pairs:
        j = b.shl(of_pairs.index, I64(1))
        here = dict(v)
        for name in ("b", "c", "from"):
            here[name] = b.add(v[name], b.mul(j, v[f"{name}_vector"]))
        with b.if_else(b.icmp_signed(">", b.sub(v["vectors"], j), I64(1))) as (both, one):
            for branch, columns in ((both, 2), (one, 1)):
                with branch:
                    _square(tiles, here, rows, columns)
                    if relu:
                        _finish(b, here, columns)


def _square(tiles: Tiles, v: Arguments, rows: int, columns: int) -> None:
    """C, of so many tiles each way, from what it begins with."""
    b = tiles.b
    cells = [(i, j) for i in range(rows) for j in range(columns)]

    def below(base: ir.Value, i: int, row: ir.Value) -> ir.Value:
        return b.add(base, b.mul(row, I64(ROWS))) if i else base

    def beside(base: ir.Value, j: int, vector: ir.Value) -> ir.Value:
        return b.add(base, vector) if j else base

    for i, j in cells:
        place = below(beside(v["from"], j, v["from_vector"]), i, v["from_row"])
        tiles.load(2 * i + j, place, v["from_row"])
    with cgutils.for_range(b, v["steps"], intp=I64) as of_steps:
        a = b.add(v["a"], b.mul(of_steps.index, I64(LINE)))
        right = b.add(v["b"], b.mul(of_steps.index, b.mul(v["b_k"], I64(PAIRS))))
        for j in range(columns):
            tiles.load(6 + j, beside(right, j, v["b_vector"]), v["b_k"])
        for i in range(rows):
            tiles.load(4 + i, below(a, i, v["a_row"]), v["a_row"])
            for j in range(columns):
                tiles.multiply(2 * i + j, 4 + i, 6 + j)
    for i, j in cells:
        place = below(beside(v["c"], j, v["c_vector"]), i, v["c_row"])
        tiles.store(2 * i + j, place, v["c_row"])


def _finish(b: ir.IRBuilder, v: Arguments, columns: int) -> None:
    """The ReLU of what has just been stored, or its mask, where sums end with one."""
    ops, formula = Vectors(b, "float32"), ACTIVATIONS["relu"]
    assert formula.value is not None and formula.backward is not None

    def rectified(x: Vec, _: ir.Value) -> Vec:
        return formula.value(ops, x)

    def masked(x: Vec, place: ir.Value) -> Vec:
        a = ops.load(b.add(v["row"], b.sub(place, v["whole_c"])))
        return formula.backward(ops, a, a, x)

    for kind, end in ((RECTIFIED, rectified), (MASKED, masked)):
        with (
            b.if_then(b.icmp_signed("==", v["start"], I64(kind))),
            cgutils.for_range(b, v["height"], intp=I64) as of_rows,
        ):
            row = b.add(v["c"], b.mul(of_rows.index, v["c_row"]))
            for j in range(columns):
                place = b.add(row, b.mul(v["c_vector"], I64(j)))
                ops.store(end(ops.load(place), place), place)


def product() -> int:
    """(*matmul.ARGUMENTS) -> the compiled product; sums may end with the ReLU."""
    return compile_block(
        "product-of-tiles", "float32", len(ARGUMENTS), lambda b, args: emit_product(b, args, relu=True)
    )
