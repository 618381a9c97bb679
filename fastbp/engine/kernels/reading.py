"""Stored numbers become floats: the compiled loop that reads a row of the caller's matrix, of whatever dtype.

Integers and bytes take a half, a quarter, an eighth of the memory of floats, so converting each batch as it
is gathered costs less than what is saved by reading less. The result has the bits of NumPy's
`values.astype(dtype) * scale + offset`.

The source is a row of the caller's array or file, whatever its byte order and alignment, of which exactly its
numbers are read. The target is a row of the plan's own copy of the batch, owned by one worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.simd.emit import compile_block
from fastbp.engine.simd.vector import I64, Vectors


def _shaped(kind: ir.Type, lanes: int) -> ir.Type:
    return ir.VectorType(kind, lanes) if lanes else kind


def _constant(kind: ir.Type, lanes: int, value: float) -> ir.Constant:
    return ir.Constant(_shaped(kind, lanes), [value] * lanes if lanes else value)


def _half(b: ir.IRBuilder, bits: ir.Value, lanes: int) -> ir.Value:
    """float16 as its bits to float32: shifted to where float32 has them, then the exponent's bias made up for
    by a power of two.

    Instructions for it exist on some CPUs only, and the library functions that replace them cannot be linked
    here.
    """
    integer = ir.IntType(32)
    wide = b.zext(bits, _shaped(integer, lanes))
    sign = b.shl(b.and_(wide, _constant(integer, lanes, 0x8000)), _constant(integer, lanes, 16))
    size = b.shl(b.and_(wide, _constant(integer, lanes, 0x7FFF)), _constant(integer, lanes, 13))
    value = b.fmul(
        b.bitcast(size, _shaped(ir.FloatType(), lanes)), _constant(ir.FloatType(), lanes, 2.0**112)
    )
    special = b.icmp_unsigned(">=", size, _constant(integer, lanes, 0x7C00 << 13))  # NaN and infinity
    size = b.select(
        special, b.or_(size, _constant(integer, lanes, 0x7F800000)), b.bitcast(value, _shaped(integer, lanes))
    )
    return b.bitcast(b.or_(size, sign), _shaped(ir.FloatType(), lanes))


def _convert(b: ir.IRBuilder, bits: ir.Value, stored: np.dtype[Any], scalar: ir.Type, lanes: int) -> ir.Value:
    """The stored numbers, given as integers of their size, as floats of type `scalar`; lanes = 0 is a single
    number."""
    target = _shaped(scalar, lanes)
    if not stored.isnative and stored.itemsize > 1:
        kind = bits.type
        width = f"v{lanes}i{8 * stored.itemsize}" if lanes else f"i{8 * stored.itemsize}"
        f = cgutils.get_or_insert_function(b.module, ir.FunctionType(kind, [kind]), f"llvm.bswap.{width}")
        bits = b.call(f, [bits])
    if stored.kind in "bu":
        return b.uitofp(bits, target)
    if stored.kind == "i":
        return b.sitofp(bits, target)
    if stored.itemsize == 2:
        value = _half(b, bits, lanes)
        size = 4
    else:
        size = stored.itemsize
        value = b.bitcast(bits, _shaped(ir.FloatType() if size == 4 else ir.DoubleType(), lanes))
    wanted = 4 if isinstance(scalar, ir.FloatType) else 8
    if size == wanted:
        return value
    return b.fpext(value, target) if size < wanted else b.fptrunc(value, target)


def label_reader(dtype: str, weighted: bool) -> int:
    """(source, column, target, columns, scale, offset): target = the row that stands for the label at
    `source` (see inputs.Labels).

    Zeros, and a one where the label says; in the last column, if `weighted`, the weight behind the label.
    Labels were checked: each is a column. column, scale and offset are not looked at, they make it callable
    where a row_reader is.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, _, target, columns, _, _ = args
        ops = Vectors(b, dtype)

        def place(i: ir.Value) -> ir.Value:
            return b.inttoptr(b.add(target, b.mul(i, I64(ops.itemsize))), ops.scalar.as_pointer())

        with cgutils.for_range(b, columns, intp=I64) as loop:
            b.store(ir.Constant(ops.scalar, 0.0), place(loop.index), align=ops.itemsize)
        label = b.load(b.inttoptr(source, I64.as_pointer()), align=8)
        b.store(ir.Constant(ops.scalar, 1.0), place(label), align=ops.itemsize)
        if weighted:
            weight = b.load(b.inttoptr(b.add(source, I64(8)), ops.scalar.as_pointer()), align=ops.itemsize)
            b.store(weight, place(b.sub(columns, I64(1))), align=ops.itemsize)

    return compile_block(f"read-label{'-weighted' if weighted else ''}", dtype, 6, emit)


def row_reader(stored: np.dtype[Any], dtype: str, scaled: np.dtype[Any] | None) -> int:
    """(source, column, target, columns, scale, offset): target = the row at `source`, in floats, times scale
    plus offset.

    column: bytes from one stored number to the next. Nothing is read or written beyond the columns. scale and
    offset: addresses of as many numbers of dtype `scaled`, in which product and sum are computed; None:
    nothing is done.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, column, target, columns, scale, offset = args
        ops = Vectors(b, dtype)
        integer = ir.IntType(8 * stored.itemsize)
        computed = (
            ops.scalar if scaled is None else ir.FloatType() if scaled.itemsize == 4 else ir.DoubleType()
        )
        size = ops.itemsize if scaled is None else scaled.itemsize

        def visit(first: ir.Value, lanes: int) -> None:
            def at(base: ir.Value, kind: ir.Type) -> ir.Value:
                return b.inttoptr(
                    b.add(base, b.mul(first, I64(ops.itemsize))), _shaped(kind, lanes).as_pointer()
                )

            def factors(base: ir.Value) -> ir.Value:
                address = b.add(base, b.mul(first, I64(size)))
                return b.load(b.inttoptr(address, _shaped(computed, lanes).as_pointer()), align=size)

            place = b.inttoptr(b.add(source, b.mul(first, column)), _shaped(integer, lanes).as_pointer())
            value = _convert(b, b.load(place, align=1), stored, computed, lanes)
            if scaled:
                value = b.fadd(b.fmul(value, factors(scale)), factors(offset))
            if computed != ops.scalar:
                value = b.fptrunc(value, _shaped(ops.scalar, lanes))
            b.store(value, at(target, ops.scalar), align=ops.itemsize)

        adjacent = b.icmp_signed("==", column, I64(stored.itemsize))
        vectors = b.select(adjacent, b.sdiv(columns, I64(ops.lanes)), I64(0))
        with cgutils.for_range(b, vectors, intp=I64) as loop:
            visit(b.mul(loop.index, I64(ops.lanes)), ops.lanes)
        done = b.mul(vectors, I64(ops.lanes))
        with cgutils.for_range(b, b.sub(columns, done), intp=I64) as loop:
            visit(b.add(done, loop.index), 0)

    order = "" if stored.isnative else "-swapped"
    return compile_block(
        f"read-{stored.kind}{stored.itemsize}{order}{f'-scaled{scaled.itemsize}' if scaled else ''}",
        dtype,
        6,
        emit,
    )


def sparse_reader(dtype: str, stored: str, *, scaled: bool) -> int:
    """(source, places, target, columns, scale, offset): target = a row of a sparse matrix, dense, times scale
    plus offset.

    source: two int64, where the row begins and ends in numbers (dtype `stored`) and their columns (int32).
    places: two addresses, of these numbers and columns. scale and offset: addresses of as many numbers of
    dtype `stored`, if `scaled`.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, places, target, columns, scale, offset = args
        ops = Vectors(b, dtype)
        computed, size = (ir.FloatType(), 4) if stored == "float32" else (ir.DoubleType(), 8)

        def integer(address: ir.Value, place: int) -> ir.Value:
            return b.load(b.inttoptr(b.add(address, I64(8 * place)), I64.as_pointer()), align=8)

        def number(base: ir.Value, index: ir.Value) -> ir.Value:
            address = b.add(base, b.mul(index, I64(size)))
            return b.load(b.inttoptr(address, computed.as_pointer()), align=size)

        def put(value: ir.Value, index: ir.Value) -> None:
            value = b.fptrunc(value, ops.scalar) if computed != ops.scalar else value
            address = b.add(target, b.mul(index, I64(ops.itemsize)))
            b.store(value, b.inttoptr(address, ops.scalar.as_pointer()), align=ops.itemsize)

        with cgutils.for_range(b, columns, intp=I64) as loop:
            put(number(offset, loop.index) if scaled else computed(0.0), loop.index)
        begin, numbers, indices = integer(source, 0), integer(places, 0), integer(places, 1)
        with cgutils.for_range(b, b.sub(integer(source, 1), begin), intp=I64) as loop:
            at = b.add(begin, loop.index)
            index = b.inttoptr(b.add(indices, b.mul(at, I64(4))), ir.IntType(32).as_pointer())
            column = b.sext(b.load(index, align=4), I64)
            value = number(numbers, at)
            if scaled:
                value = b.fadd(b.fmul(value, number(scale, column)), number(offset, column))
            put(value, column)

    return compile_block(f"read-sparse-{stored}{'-scaled' if scaled else ''}", dtype, 6, emit)
