"""Elementwise work on a block of a matrix: activations, the output layer's error, bias sums, optimizer updates, transposes.

A block is `rows` x `vectors`: vector j of row i lies at address + i * row + j * vector (strides in bytes). The formulas come from
fastbp.activations, fastbp.losses and fastbp.optimizers; this module turns each into a compiled loop over a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.engine.compile import jit
from fastbp.engine.kernels import formulas
from fastbp.engine.simd.vector import I32, I64, Vec, Vectors


def compile_block(key: str, dtype: str, count: int, emit: Callable[[ir.IRBuilder, list[ir.Value]], None]) -> int:
    """Address of a callback of `count` integers whose code `emit` writes."""

    def make():
        @intrinsic
        def code(typingctx, arguments):
            def codegen(context, builder, signature, values):
                emit(builder, [builder.extract_value(values[0], i) for i in range(count)])
                return context.get_dummy_value()

            return types.void(types.UniTuple(types.int64, count)), codegen

        # A C callback has a fixed number of arguments, and so has a Python function.
        names = ", ".join(f"x{i}" for i in range(count))
        scope: dict[str, Any] = {"code": code, "__name__": __name__}
        exec(compile(f"def body({names}): code(({names},))", __file__, "exec"), scope)
        return scope["body"]

    return jit.address_of(f"{key}-{dtype}", jit.void(count), make)


def _rows_and_vectors(builder: ir.IRBuilder, rows: ir.Value, vectors: ir.Value, visit: Callable[..., None]) -> None:
    with cgutils.for_range(builder, rows, intp=I64) as outer, cgutils.for_range(builder, vectors, intp=I64) as inner:
        visit(outer.index, inner.index)


def _at(b: ir.IRBuilder, base: ir.Value, i: ir.Value, row: ir.Value, j: ir.Value, vector: ir.Value) -> ir.Value:
    return b.add(b.add(base, b.mul(i, row)), b.mul(j, vector))


def activation(name: str, dtype: str) -> int:
    """(z, a, rows, vectors, row, columns): a = act(z). 0 if a is z.

    columns: how many of the block's columns exist. Beyond them z and a are 0, whatever act(0) is: a thin layer above takes whole vectors.
    """
    value, keeps_zero = formulas.ACTIVATIONS[name].value, formulas.ACTIVATIONS[name].keeps_zero
    if value is None:
        return 0

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, rows, vectors, row, columns = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)

        def visit(i: ir.Value, j: ir.Value) -> None:
            v = value(ops, ops.load(_at(b, z, i, row, j, step)))
            if not keeps_zero:
                v = ops.select(ops.first_lanes(b.sub(columns, b.mul(j, I64(ops.lanes)))), v, 0.0)
            ops.store(v, _at(b, a, i, row, j, step))

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block(f"activation-{name}", dtype, 6, emit)


def slope(name: str, dtype: str) -> int:
    """(d, z, a, rows, vectors, row): d *= act'(z), with a = act(z). 0 if that is 1."""
    chain = formulas.ACTIVATIONS[name].chain
    if chain is None:
        return 0

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, z, a, rows, vectors, row = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)

        def visit(i: ir.Value, j: ir.Value) -> None:
            at = _at(b, d, i, row, j, step)
            zv, av = ops.load(_at(b, z, i, row, j, step)), ops.load(_at(b, a, i, row, j, step))
            ops.store(chain(ops, zv, av, ops.load(at)), at)

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block(f"slope-{name}", dtype, 6, emit)


def error(activation: str, loss: str, dtype: str, *, activated: bool) -> int:
    """(z, a, d, y_true, y_row, rows, columns, row, scale): d = scale * d(loss)/dz.

    activated: a is there already; else a = act(z) is computed here, and the loss replaces z (a is not written).
    columns: how many of the block's columns exist; beyond them the results are 0. scale: address of one number.
    """
    formula, kind = formulas.loss(loss), formulas.ACTIVATIONS[activation]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, a, d, y, y_row, rows, columns, row, scale = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        factor = ops.load_splat(scale)
        vectors = b.sdiv(b.add(columns, I64(ops.lanes - 1)), I64(ops.lanes))

        def visit(i: ir.Value, j: ir.Value) -> None:
            mask = ops.first_lanes(b.sub(columns, b.mul(j, I64(ops.lanes))))
            target = ops.load_masked(_at(b, y, i, y_row, j, step), mask)
            at = _at(b, z, i, row, j, step)
            zv = ops.load(at)
            av = kind.value(ops, zv) if kind.value and not activated else zv
            if activated:
                av = ops.load(_at(b, a, i, row, j, step))
            value, delta = formula(ops, zv, av, target, kind.chain)
            if not activated:
                ops.store(ops.select(mask, value, 0.0), at)
            ops.store(ops.select(mask, delta * factor, 0.0), _at(b, d, i, row, j, step))

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block(f"error-{activation}-{loss}-{'a' if activated else 'z'}", dtype, 9, emit)


def _sums_over_rows(ops: Vectors, shape: Sequence[ir.Value], out: ir.Value, out_vector: ir.Value, term: Callable[[ir.Value], Vec]) -> None:
    """out = the sum over rows of term(offset), each column its own chain... in four interleaved chains. shape: rows, vectors, row."""
    b = ops.b
    rows, vectors, row = shape
    step = I64(ops.lanes * ops.itemsize)
    chains = 4
    whole = b.sdiv(rows, I64(chains))
    with cgutils.for_range(b, vectors, intp=I64) as loop:
        sums = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(chains)]
        for s in sums:
            b.store(ops.const(0.0).value, s)
        first = b.mul(loop.index, step)

        def add(s: ir.Value, offset: ir.Value) -> None:
            b.store((ops.wrap(b.load(s)) + term(b.add(first, offset))).value, s)

        with cgutils.for_range(b, whole, intp=I64) as quads:
            base = b.mul(quads.index, b.mul(row, I64(chains)))
            for c, s in enumerate(sums):
                add(s, b.add(base, b.mul(row, I64(c))))
        with cgutils.for_range(b, b.srem(rows, I64(chains)), intp=I64) as rest:
            add(sums[0], b.mul(row, b.add(b.mul(whole, I64(chains)), rest.index)))
        s = [ops.wrap(b.load(x)) for x in sums]
        ops.store((s[0] + s[1]) + (s[2] + s[3]), b.add(out, b.mul(loop.index, out_vector)))


def touch() -> int:
    """(address, stride, rows, bytes): fetch `bytes` bytes, more than 0, of each of the rows, `stride` apart, to the second-level cache."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        address, stride, rows, size = args
        ops = Vectors(b, "float32")
        with cgutils.for_range(b, rows, intp=I64) as outer:
            first = b.add(address, b.mul(outer.index, stride))
            begin = b.and_(first, I64(-64))
            lines = b.lshr(b.add(b.sub(b.add(first, size), begin), I64(63)), I64(6))
            with cgutils.for_range(b, lines, intp=I64) as inner:
                ops.prefetch(b.add(begin, b.shl(inner.index, I64(6))), level=2)

    return compile_block("touch", "bytes", 4, emit)


def column_sums(dtype: str) -> int:
    """(d, rows, vectors, row, out, out_vector): out = the sum over rows."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, *shape, out, out_vector = args
        ops = Vectors(b, dtype)
        _sums_over_rows(ops, shape, out, out_vector, lambda at: ops.load(b.add(d, at)))

    return compile_block("column-sums", dtype, 6, emit)


def add_products(dtype: str) -> int:
    """(x, rows, d, vectors, w, w_vector, w_row): w[i, vector j] += x[i] * d[vector j], the update from a batch of one row."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, rows, d, vectors, w, w_vector, w_row = args
        ops = Vectors(b, dtype)
        size = I64(ops.lanes * ops.itemsize)

        def number(i: ir.Value) -> Vec:
            return ops.load_splat(b.add(x, b.mul(i, I64(ops.itemsize))))

        def delta(j: ir.Value) -> Vec:
            return ops.load(b.add(d, b.mul(j, size)))

        def sweep(count: ir.Value, visit: Callable[[ir.Value], None]) -> None:
            """visit(0), ... visit(count - 1), four at a time: an eighth faster than one (300-300-10)."""
            unroll = 4
            whole = b.sdiv(count, I64(unroll))
            with cgutils.for_range(b, whole, intp=I64) as inner:
                for k in range(unroll):
                    visit(b.add(b.mul(inner.index, I64(unroll)), I64(k)))
            with cgutils.for_range(b, b.srem(count, I64(unroll)), intp=I64) as rest:
                visit(b.add(b.mul(whole, I64(unroll)), rest.index))

        def add(xi: Vec, dj: Vec, i: ir.Value, j: ir.Value) -> None:
            at = _at(b, w, i, w_row, j, w_vector)
            ops.store(ops.fma(xi, dj, ops.load(at)), at)

        # In the order in which the weights lie in memory.
        with b.if_else(b.icmp_signed("<", w_vector, w_row)) as (in_rows, in_panels):
            with in_rows, cgutils.for_range(b, rows, intp=I64) as outer:
                xi = number(outer.index)
                sweep(vectors, lambda j: add(xi, delta(j), outer.index, j))
            with in_panels, cgutils.for_range(b, vectors, intp=I64) as outer:
                dj = delta(outer.index)
                sweep(rows, lambda i: add(number(i), dj, i, outer.index))

    return compile_block("add-products", dtype, 7, emit)


def column_sums_of_products(dtype: str) -> int:
    """(x, y, rows, vectors, row, out, out_vector): out = the sum over rows of x * y, which lie alike."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, y, *shape, out, out_vector = args
        ops = Vectors(b, dtype)
        _sums_over_rows(ops, shape, out, out_vector, lambda at: ops.load(b.add(x, at)) * ops.load(b.add(y, at)))

    return compile_block("column-sums-of-products", dtype, 7, emit)


def update(name: str, dtype: str) -> int:
    """(g, g_vector, g_row, w, w_vector, w_row, state, rows, vectors, settings): one optimizer step on a block of parameters.

    State k of the parameter at address p lies at p + (k + 1) * state. settings: address of this step's numbers.
    """
    rule = formulas.RULES[name]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        g, g_vector, g_row, w, w_vector, w_row, state, rows, vectors, settings = args
        ops = Vectors(b, dtype)
        numbers = [ops.load_splat(b.add(settings, I64((1 + k) * ops.itemsize))) for k in range(rule.settings)]

        def visit(i: ir.Value, j: ir.Value) -> None:
            at = _at(b, w, i, w_row, j, w_vector)
            places = [b.add(at, b.mul(state, I64(k))) for k in range(rule.states + 1)]
            old = [ops.load(p) for p in places]
            new = rule.step(ops, ops.load(_at(b, g, i, g_row, j, g_vector)), old[0], old[1:], numbers)
            for value, place in zip(new, places, strict=True):
                ops.store(value, place)

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block(f"update-{name}", dtype, 10, emit)


def update_of_clipped(name: str, dtype: str) -> int:
    """(w, state, vectors, settings, factor): one optimizer step on adjacent vectors of parameters, with `factor` times the gradient.

    The gradient of the parameter at address p lies at p + state, state k at p + (k + 2) * state. factor: address of one number.
    """
    rule = formulas.RULES[name]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        w, state, vectors, settings, factor = args
        ops = Vectors(b, dtype)
        numbers = [ops.load_splat(b.add(settings, I64((1 + k) * ops.itemsize))) for k in range(rule.settings)]
        scale = ops.load_splat(factor)
        with cgutils.for_range(b, vectors, intp=I64) as loop:
            at = b.add(w, b.mul(loop.index, I64(ops.lanes * ops.itemsize)))
            places = [at, *(b.add(at, b.mul(state, I64(k + 2))) for k in range(rule.states))]
            old = [ops.load(p) for p in places]
            new = rule.step(ops, ops.load(b.add(at, state)) * scale, old[0], old[1:], numbers)
            for value, place in zip(new, places, strict=True):
                ops.store(value, place)

    return compile_block(f"update-of-clipped-{name}", dtype, 5, emit)


# ---- norms: sums of squares in float64, whatever the dtype ------------------------------------------------


def _wide(ops: Vectors) -> ir.Type:
    return ir.VectorType(ir.DoubleType(), ops.lanes)


def _sum_of_squares(b: ir.IRBuilder, ops: Vectors, first: ir.Value, count: ir.Value, stride: ir.Value) -> ir.Value:
    """The sum over `count` vectors, `stride` bytes apart, lane by lane, in four interleaved chains."""
    wide, chains = _wide(ops), 4
    zero = ir.Constant(wide, [0.0] * ops.lanes)
    sums = [cgutils.alloca_once_value(b, zero) for _ in range(chains)]
    for s in sums:
        b.store(zero, s)

    def add(s: ir.Value, i: ir.Value) -> None:
        v = ops.load(b.add(first, b.mul(i, stride))).value
        x = b.fpext(v, wide) if ops.single else v
        b.store(b.fadd(b.load(s), b.fmul(x, x)), s)

    whole = b.sdiv(count, I64(chains))
    with cgutils.for_range(b, whole, intp=I64) as loop:
        for c, s in enumerate(sums):
            add(s, b.add(b.mul(loop.index, I64(chains)), I64(c)))
    with cgutils.for_range(b, b.srem(count, I64(chains)), intp=I64) as rest:
        add(sums[0], b.add(b.mul(whole, I64(chains)), rest.index))
    x = [b.load(s) for s in sums]
    return b.fadd(b.fadd(x[0], x[1]), b.fadd(x[2], x[3]))


def _sum_of_lanes(b: ir.IRBuilder, ops: Vectors, v: ir.Value) -> ir.Value:
    result: ir.Value = b.extract_element(v, I32(0))
    for lane in range(1, ops.lanes):
        result = b.fadd(result, b.extract_element(v, I32(lane)))
    return result


def squares(dtype: str) -> int:
    """(g, vectors, out): out (one float64) = the sum of squares of adjacent vectors."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        g, vectors, out = args
        ops = Vectors(b, dtype)
        lanes = _sum_of_squares(b, ops, g, vectors, I64(ops.lanes * ops.itemsize))
        b.store(_sum_of_lanes(b, ops, lanes), b.inttoptr(out, ir.DoubleType().as_pointer()))

    return compile_block("squares", dtype, 3, emit)


def clip_factor(dtype: str) -> int:
    """(squares, count, limit, out): out (one number) = min(1, limit / (norm + 1e-6)), norm the root of the sum of `count` float64s.

    It is NaN if the norm is not finite: no step can be taken from there, and that shall be seen.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        squares, count, limit, out = args
        ops = Vectors(b, dtype)
        double = ir.DoubleType()
        acc = cgutils.alloca_once_value(b, double(0.0))
        b.store(double(0.0), acc)
        with cgutils.for_range(b, count, intp=I64) as loop:
            part = b.load(b.inttoptr(b.add(squares, b.mul(loop.index, I64(8))), double.as_pointer()))
            b.store(b.fadd(b.load(acc), part), acc)
        root = cgutils.get_or_insert_function(b.module, ir.FunctionType(double, [double]), "llvm.sqrt.f64")
        norm = b.call(root, [b.load(acc)])
        most = b.load(b.inttoptr(limit, ops.scalar.as_pointer()))
        factor = b.fdiv(b.fpext(most, double) if ops.single else most, b.fadd(norm, double(1e-6)))
        factor = b.select(b.fcmp_ordered("<", factor, double(1.0)), factor, double(1.0))
        factor = b.select(b.fcmp_ordered("<", norm, double(math.inf)), factor, double(math.nan))
        b.store(b.fptrunc(factor, ops.scalar) if ops.single else factor, b.inttoptr(out, ops.scalar.as_pointer()))

    return compile_block("clip-factor", dtype, 4, emit)


def constrain(dtype: str, across: bool) -> int:
    """(w, count, stride, limit): scale weights whose norm is above the limit (address of one float64) by limit / (norm + 1e-7).

    `count` vectors, `stride` bytes apart: each lane is a unit's weights, or (across) all lanes together are one unit's.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        w, count, stride, limit = args
        ops = Vectors(b, dtype)
        double, wide = ir.DoubleType(), _wide(ops)

        def splat(x: ir.Value) -> ir.Value:
            v = b.insert_element(ir.Constant(wide, ir.Undefined), x, I32(0))
            return b.shuffle_vector(v, v, ir.Constant(ir.VectorType(I32, ops.lanes), [0] * ops.lanes))

        sums = _sum_of_squares(b, ops, w, count, stride)
        if across:
            sums = splat(_sum_of_lanes(b, ops, sums))
        root = cgutils.get_or_insert_function(b.module, ir.FunctionType(wide, [wide]), f"llvm.sqrt.v{ops.lanes}f64")
        norm = b.call(root, [sums])
        most = splat(b.load(b.inttoptr(limit, double.as_pointer())))
        above = b.fcmp_ordered(">", norm, most)
        factor = b.fdiv(most, b.fadd(norm, ir.Constant(wide, [1e-7] * ops.lanes)))
        factor = b.select(above, factor, ir.Constant(wide, [1.0] * ops.lanes))
        scale = ops.wrap(b.fptrunc(factor, ops.type) if ops.single else factor)
        any_above = b.icmp_unsigned("!=", b.bitcast(above, ir.IntType(ops.lanes)), ir.IntType(ops.lanes)(0))
        with b.if_then(any_above), cgutils.for_range(b, count, intp=I64) as loop:
            at = b.add(w, b.mul(loop.index, stride))
            ops.store(ops.load(at) * scale, at)

    return compile_block("constrain-across" if across else "constrain", dtype, 4, emit)


def transpose(dtype: str) -> int:
    """(source, source_row, target, count, target_step): `count` square blocks of lanes x lanes, below each other in source; in target each
    is contiguous."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        source, source_row, target, count, target_step = args
        ops = Vectors(b, dtype)
        n = ops.lanes
        size = n * ops.itemsize
        with cgutils.for_range(b, count, intp=I64) as loop:
            base = b.add(source, b.mul(loop.index, b.mul(source_row, I64(n))))
            out = b.add(target, b.mul(loop.index, target_step))
            rows = [ops.load(b.add(base, b.mul(source_row, I64(i)))).value for i in range(n)]
            # Swap ever larger off-diagonal squares: of size 1, 2, 4, ...
            span = 1
            while span < n:
                swapped = list(rows)
                for i in range(n):
                    if i & span:
                        continue
                    low = [c if not c & span else n + c - span for c in range(n)]
                    high = [c + span if not c & span else n + c for c in range(n)]
                    masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (low, high)]
                    swapped[i] = b.shuffle_vector(rows[i], rows[i + span], masks[0])
                    swapped[i + span] = b.shuffle_vector(rows[i], rows[i + span], masks[1])
                rows = swapped
                span *= 2
            for i in range(n):
                ops.store(ops.wrap(rows[i]), b.add(out, I64(i * size)))

    return compile_block("transpose", dtype, 5, emit)


def total(dtype: str) -> int:
    """(z, rows, panels, chunk, row, chunk_bytes, out): out (one float64) = the sum of all panels, `chunk` of them side by side."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, rows, panels, chunk, row, chunk_bytes, out = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        double = ir.DoubleType()
        wide = ir.VectorType(double, ops.lanes)
        zero = ir.Constant(wide, [0.0] * ops.lanes)
        acc = cgutils.alloca_once_value(b, zero)
        b.store(zero, acc)

        def visit(i: ir.Value, j: ir.Value) -> None:
            v = ops.load(_at(b, z, i, row, j, step)).value
            b.store(b.fadd(b.load(acc), b.fpext(v, wide) if ops.single else v), acc)

        chunks = b.sdiv(b.add(panels, b.sub(chunk, I64(1))), chunk)
        with cgutils.for_range(b, chunks, intp=I64) as loop:
            z = b.add(args[0], b.mul(loop.index, chunk_bytes))
            left = b.sub(panels, b.mul(loop.index, chunk))
            _rows_and_vectors(b, rows, b.select(b.icmp_signed("<", left, chunk), left, chunk), visit)
        sums = b.load(acc)
        result: ir.Value = ir.Constant(double, 0.0)
        for lane in range(ops.lanes):
            result = b.fadd(result, b.extract_element(sums, I32(lane)))
        b.store(result, b.inttoptr(out, double.as_pointer()))

    return compile_block("total", dtype, 7, emit)


def copy_rows(dtype: str, into: bool) -> int:
    """(outside, outside_row, inside, inside_row, inside_vector, rows, columns): copy between a caller's matrix (columns adjacent)
    and a block of whole vectors; `into` the block, where what is beyond the columns becomes 0, or out of it."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        outside, outside_row, inside, inside_row, inside_vector, rows, columns = args
        ops = Vectors(b, dtype)
        step = I64(ops.lanes * ops.itemsize)
        vectors = b.sdiv(b.add(columns, I64(ops.lanes - 1)), I64(ops.lanes))

        def visit(i: ir.Value, j: ir.Value) -> None:
            mask = ops.first_lanes(b.sub(columns, b.mul(j, I64(ops.lanes))))
            there, here = _at(b, outside, i, outside_row, j, step), _at(b, inside, i, inside_row, j, inside_vector)
            if into:
                ops.store(ops.load_masked(there, mask), here)
            else:
                ops.store_masked(ops.load(here), there, mask)

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block("copy-in" if into else "copy-out", dtype, 7, emit)


def copy_sliver(dtype: str) -> int:
    """(x, x_row, sliver, sliver_row, rows, columns): copy some columns of x; what fills up the sliver's vectors becomes 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, x_row, sliver, sliver_row, rows, columns = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
        with cgutils.for_range(b, b.sdiv(b.add(columns, b.sub(lanes, I64(1))), lanes), intp=I64) as outer:
            mask = ops.first_lanes(b.sub(columns, b.mul(outer.index, lanes)))  # once for all rows: this loop costs what it loads
            with cgutils.for_range(b, rows, intp=I64) as inner:
                v = ops.load_masked(_at(b, x, inner.index, x_row, outer.index, size), mask)
                ops.store(v, _at(b, sliver, inner.index, sliver_row, outer.index, size))

    return compile_block("copy-sliver", dtype, 6, emit)


def gather(dtype: str) -> int:
    """(x, x_copy, columns, y, y_copy, y_columns): copy one row of each."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        size = I64(Vectors(b, dtype).itemsize)
        for source, target, columns in (args[0:3], args[3:6]):
            cgutils.raw_memcpy(b, b.inttoptr(target, ir.IntType(8).as_pointer()), b.inttoptr(source, ir.IntType(8).as_pointer()), columns, size)

    return compile_block("gather", dtype, 6, emit)


def not_finite(dtype: str) -> int:
    """(x, count, out): out (one integer) becomes 1 if a number is NaN or infinite: only for those is x * 0 not 0."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        x, count, out = args
        ops = Vectors(b, dtype)
        zero = ops.const(0.0).value
        sums = [cgutils.alloca_once_value(b, zero) for _ in range(4)]
        for s in sums:
            b.store(zero, s)
        size = ops.lanes * ops.itemsize
        whole = b.sdiv(count, I64(4 * ops.lanes))

        def add(s: ir.Value, v: Vec) -> None:
            b.store(ops.fma(v, 0.0, ops.wrap(b.load(s))).value, s)

        with cgutils.for_range(b, whole, intp=I64) as loop:
            for k, s in enumerate(sums):
                add(s, ops.load(b.add(x, b.add(b.mul(loop.index, I64(4 * size)), I64(k * size)))))
        done = b.mul(whole, I64(4 * ops.lanes))
        left = b.sub(count, done)
        with cgutils.for_range(b, b.sdiv(b.add(left, I64(ops.lanes - 1)), I64(ops.lanes)), intp=I64) as loop:
            at = b.add(done, b.mul(loop.index, I64(ops.lanes)))
            add(sums[0], ops.load_masked(b.add(x, b.mul(at, I64(ops.itemsize))), ops.first_lanes(b.sub(count, at))))
        s = [ops.wrap(b.load(x)) for x in sums]
        total = ((s[0] + s[1]) + (s[2] + s[3])).value
        bad = b.fcmp_unordered("une", total, zero)
        any_bad = b.icmp_unsigned("!=", b.bitcast(bad, ir.IntType(ops.lanes)), ir.IntType(ops.lanes)(0))
        b.store(b.zext(any_bad, I64), b.inttoptr(out, I64.as_pointer()))

    return compile_block("not-finite", dtype, 3, emit)


# ---- a thin output layer: its matrices lie transposed, with the batch along the lanes (see step.py) ------


def dots(dtype: str) -> int:
    """(a, a_row, chunk, chunk_bytes, panels, w, w_panel, outputs, bias, z, z_row, blocks): z[o, r] = bias[o] + the sum over k of a[r, k] w[k, o].

    For `blocks` times as many rows r as a vector has lanes. a: `panels` panels, `chunk` of them side by side; w: panels of [outputs][lanes].
    Each dot product is kept in a vector of its own; at the end a tree of additions turns one vector for each row into one vector.
    """

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, chunk, chunk_bytes, panels, w, w_panel, outputs, bias, z, z_row, blocks = args
        ops = Vectors(b, dtype)
        n, size = ops.lanes, ops.lanes * ops.itemsize
        sums = [cgutils.alloca_once_value(b, ops.const(0.0).value) for _ in range(n)]

        def visit(block: ir.Value, o: ir.Value) -> None:
            for s in sums:
                b.store(ops.const(0.0).value, s)
            rows = b.add(a, b.mul(block, b.mul(a_row, I64(n))))
            with cgutils.for_range(b, panels, intp=I64) as loop:
                p = loop.index
                weights = ops.load(_at(b, w, p, w_panel, o, I64(size)))
                here = _at(b, rows, b.sdiv(p, chunk), chunk_bytes, b.srem(p, chunk), I64(size))
                for r, s in enumerate(sums):
                    v = ops.load(b.add(here, b.mul(a_row, I64(r))))
                    b.store(ops.fma(v, weights, ops.wrap(b.load(s))).value, s)
            vectors = [ops.wrap(b.load(s)) for s in sums]
            while len(vectors) > 1:  # lane i of the result will be the sum of vector i
                half = len(vectors) // 2
                lower = [c for g in range(0, n, 2 * half) for c in (*range(g, g + half), *range(n + g, n + g + half))]
                upper = [c + half for c in lower]
                masks = [ir.Constant(ir.VectorType(I32, n), m) for m in (lower, upper)]
                pairs = zip(vectors[:half], vectors[half:], strict=True)
                vectors = [
                    ops.wrap(b.shuffle_vector(x.value, y.value, masks[0])) + ops.wrap(b.shuffle_vector(x.value, y.value, masks[1])) for x, y in pairs
                ]
            start = ops.load_splat(b.add(bias, b.mul(o, I64(ops.itemsize))))
            ops.store(start + vectors[0], _at(b, z, o, z_row, block, I64(size)))

        _rows_and_vectors(b, blocks, outputs, visit)

    return compile_block("dots", dtype, 12, emit)


def add_parts(dtype: str) -> int:
    """(part, part_bytes, parts, z, rows, row, vectors): z = the sum of the parts, `part_bytes` apart, in their order; blocks that lie alike."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        part, part_bytes, parts, z, rows, row, vectors = args
        ops = Vectors(b, dtype)
        acc = cgutils.alloca_once_value(b, ops.const(0.0).value)

        def visit(i: ir.Value, j: ir.Value) -> None:
            here = _at(b, I64(0), i, row, j, I64(ops.lanes * ops.itemsize))
            first = b.add(part, here)
            b.store(ops.load(first).value, acc)
            with cgutils.for_range(b, b.sub(parts, I64(1)), intp=I64) as loop:
                at = b.add(first, b.mul(b.add(loop.index, I64(1)), part_bytes))
                b.store((ops.wrap(b.load(acc)) + ops.load(at)).value, acc)
            ops.store(ops.wrap(b.load(acc)), b.add(z, here))

        _rows_and_vectors(b, rows, vectors, visit)

    return compile_block("add-parts", dtype, 7, emit)


def dots_of_rows(dtype: str) -> int:
    """(a, a_row, rows, panels, w, w_panel, outputs, bias, z, z_row): as `dots`, with the same bits, for a few rows whose panels are all side
    by side."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        a, a_row, rows, panels, w, w_panel, outputs, bias, z, z_row = args
        ops = Vectors(b, dtype)
        n, size = ops.lanes, I64(ops.lanes * ops.itemsize)
        acc = cgutils.alloca_once_value(b, ops.const(0.0).value)

        def visit(r: ir.Value, o: ir.Value) -> None:
            b.store(ops.const(0.0).value, acc)
            with cgutils.for_range(b, panels, intp=I64) as loop:
                v, weights = ops.load(_at(b, a, r, a_row, loop.index, size)), ops.load(_at(b, w, loop.index, w_panel, o, size))
                b.store(ops.fma(v, weights, ops.wrap(b.load(acc))).value, acc)
            total, half = b.load(acc), n
            while half > 1:  # the same pairs of lanes as there
                half //= 2
                masks = [ir.Constant(ir.VectorType(I32, half), [first + i for i in range(half)]) for first in (0, half)]
                total = b.fadd(*(b.shuffle_vector(total, total, mask) for mask in masks))
            scalar = ops.scalar.as_pointer()
            start = b.load(b.inttoptr(b.add(bias, b.mul(o, I64(ops.itemsize))), scalar))
            b.store(b.fadd(start, b.extract_element(total, I32(0))), b.inttoptr(_at(b, z, o, z_row, r, I64(ops.itemsize)), scalar))

        _rows_and_vectors(b, rows, outputs, visit)

    return compile_block("dots-of-rows", dtype, 10, emit)


def thin_error(activation: str, loss: str, dtype: str) -> int:
    """(z, d, y_true, y_row, rows, outputs, row, scale): as `error`, where z and d are [outputs][rows] and y_true is [rows][outputs]."""
    formula, kind = formulas.loss(loss), formulas.ACTIVATIONS[activation]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        z, d, y, y_row, rows, outputs, row, scale = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)
        factor = ops.load_splat(scale)

        def visit(o: ir.Value, j: ir.Value) -> None:
            first = b.mul(j, lanes)
            mask = ops.first_lanes(b.sub(rows, first))
            target = ops.gather(_at(b, y, first, y_row, o, I64(ops.itemsize)), y_row, mask)
            at = _at(b, z, o, row, j, size)
            zv = ops.load(at)
            value, delta = formula(ops, zv, kind.value(ops, zv) if kind.value else zv, target, kind.chain)
            ops.store(ops.select(mask, value, 0.0), at)
            ops.store(ops.select(mask, delta * factor, 0.0), _at(b, d, o, row, j, size))

        _rows_and_vectors(b, outputs, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), visit)

    return compile_block(f"thin-error-{activation}-{loss}", dtype, 8, emit)


def row_sums(dtype: str) -> int:
    """(d, rows, vectors, row, out): number i of out = the sum of row i, vector by vector, then lane by lane; 0 to fill its last vector."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        d, rows, vectors, row, out = args
        ops = Vectors(b, dtype)
        acc = cgutils.alloca_once_value(b, ops.const(0.0).value)
        lanes = I64(ops.lanes)
        with cgutils.for_range(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), intp=I64) as fill:
            ops.store(0.0, b.add(out, b.mul(fill.index, I64(ops.lanes * ops.itemsize))))
        with cgutils.for_range(b, rows, intp=I64) as outer:
            b.store(ops.const(0.0).value, acc)
            with cgutils.for_range(b, vectors, intp=I64) as inner:
                v = ops.load(_at(b, d, outer.index, row, inner.index, I64(ops.lanes * ops.itemsize)))
                b.store((ops.wrap(b.load(acc)) + v).value, acc)
            sums = b.load(acc)
            result = b.extract_element(sums, I32(0))
            for lane in range(1, ops.lanes):
                result = b.fadd(result, b.extract_element(sums, I32(lane)))
            place = b.add(out, b.mul(outer.index, I64(ops.itemsize)))
            b.store(result, b.inttoptr(place, ops.scalar.as_pointer()))

    return compile_block("row-sums", dtype, 5, emit)


def copy_columns(dtype: str, into: bool) -> int:
    """(outside, outside_row, inside, inside_panel, rows, columns): as `copy_rows`, but inside lie panels of [columns][lanes], with the
    rows of the caller's matrix along the lanes."""

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        outside, outside_row, inside, inside_panel, rows, columns = args
        ops = Vectors(b, dtype)
        lanes, size = I64(ops.lanes), I64(ops.lanes * ops.itemsize)

        def visit(p: ir.Value, o: ir.Value) -> None:
            first = b.mul(p, lanes)
            mask = ops.first_lanes(b.sub(rows, first))
            there, here = _at(b, outside, first, outside_row, o, I64(ops.itemsize)), _at(b, inside, p, inside_panel, o, size)
            if into:
                ops.store(ops.gather(there, outside_row, mask), here)
            else:
                ops.scatter(ops.load(here), there, outside_row, mask)

        _rows_and_vectors(b, b.sdiv(b.add(rows, b.sub(lanes, I64(1))), lanes), columns, visit)

    return compile_block("columns-in" if into else "columns-out", dtype, 6, emit)
