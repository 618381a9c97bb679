"""Optimizers: the rules, and one step on a block of packed parameters. fastbp.reference has each rule in
NumPy.

Parameters and states are the plan's packed memory, in which state k of a parameter lies k + 1 times the size
of all parameters behind it. A block belongs to one worker, which reads the gradient once and writes parameter
and states in the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.kernels import matmul
from fastbp.engine.simd.emit import compile_block, each_vector, vector_at
from fastbp.engine.simd.vector import I64, Vec, Vectors, isa


class States(Protocol):
    """What a rule keeps of a vector of parameters: a list, or what stands in memory only."""

    def __len__(self) -> int: ...
    def __getitem__(self, k: int, /) -> Vec: ...
    def __setitem__(self, k: int, value: Vec, /) -> None: ...


@dataclass(frozen=True)
class Rule:
    """step(v, g, w, states, settings) is the new w, and puts the new states in the place of the old ones.

    Within a product each of these is in memory, and read wherever it stands in a formula: what is needed late
    should stand there late.

    states: how many there are. coefficients: the names of the settings in their order, as
    Optimizer.coefficients calls them.
    """

    states: int
    coefficients: tuple[str, ...]
    step: Callable[[Vectors, Vec, Vec, States, Sequence[Vec]], Vec]


def _sgd(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    lr, decay = settings
    return w - lr * v.fma(decay, w, g)


def _momentum(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    lr, decay, momentum, of_g, of_m = settings  # Nesterov: 1 and momentum; else 0 and 1
    g = v.fma(decay, w, g)
    states[0] = v.fma(momentum, states[0], g)
    return w - lr * v.fma(of_g, g, of_m * states[0])


def _velocity(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    lr, decay, momentum, of_g, of_m = settings  # as of _momentum, with the learning rate within the state
    step = lr * v.fma(decay, w, g)
    states[0] = v.fma(momentum, states[0], -step)
    return w + v.fma(of_m, states[0], -(of_g * step))


def _adam(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    beta1, rest1, beta2, rest2, lr, unbias, eps, decay, keep = settings
    g = v.fma(decay, w, g)
    states[0] = v.fma(beta1, states[0], rest1 * g)
    states[1] = s = v.fma(beta2, states[1], rest2 * (g * g))
    deviation = v.fma(v.sqrt(s), unbias, eps)
    return w * keep - lr * states[0] / deviation


def _nadam(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    beta1, rest1, beta2, rest2, unbias, eps, decay, of_g, of_m = settings
    g = v.fma(decay, w, g)
    states[0] = v.fma(beta1, states[0], rest1 * g)
    states[1] = s = v.fma(beta2, states[1], rest2 * (g * g))
    deviation = v.fma(v.sqrt(s), unbias, eps)
    return w - v.fma(of_g, g, of_m * states[0]) / deviation


def _rmsprop(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    alpha, rest, lr, eps, decay, momentum = settings
    g = v.fma(decay, w, g)
    states[0] = s = v.fma(alpha, states[0], rest * (g * g))
    g = g / (v.sqrt(s) + eps)
    if len(states) == 1:
        return w - lr * g
    states[1] = m = v.fma(momentum, states[1], g)
    return w - lr * m


def _adagrad(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    lr, eps, decay = settings
    g = v.fma(decay, w, g)
    states[0] = s = v.fma(g, g, states[0])
    return w - lr * (g / (v.sqrt(s) + eps))


def _kept(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    states[0] = g
    return w


def _added_up(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
    states[0] = states[0] + g
    return w


RULES: dict[str, Rule] = {
    # deltas carry -lr, and whole tiles of the product are added without coming here: only biases do
    "add": Rule(0, (), lambda v, g, w, states, settings: w + g),
    # the gradient itself, kept where a state would be
    "gradient": Rule(1, (), _kept),
    # added up over the batches of a step (Plan.step_with is the step)
    "sum": Rule(1, (), _added_up),
    "sgd": Rule(0, ("lr", "weight_decay"), _sgd),
    "momentum": Rule(1, ("lr", "weight_decay", "momentum", "of_g", "of_m"), _momentum),
    "velocity": Rule(1, ("lr", "weight_decay", "momentum", "of_g", "of_m"), _velocity),
    "adam": Rule(
        2, ("beta1", "rest1", "beta2", "rest2", "lr", "unbias", "eps", "weight_decay", "keep"), _adam
    ),
    "nadam": Rule(
        2, ("beta1", "rest1", "beta2", "rest2", "unbias", "eps", "weight_decay", "of_g", "of_m"), _nadam
    ),
    "rmsprop": Rule(1, ("alpha", "rest", "lr", "eps", "weight_decay", "momentum"), _rmsprop),
    "rmsprop-momentum": Rule(2, ("alpha", "rest", "lr", "eps", "weight_decay", "momentum"), _rmsprop),
    "adagrad": Rule(1, ("lr", "eps", "weight_decay"), _adagrad),
}


def _with_limit_and_l1(rule: Rule) -> Rule:
    """The rule for a gradient cut at +- limit, to which then l1 * sign(w) was added; these are its last two
    settings."""

    def step(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
        *own, limit, l1 = settings
        g = v.minimum(v.maximum(g, -limit), limit)
        g = g + v.select(w > 0.0, l1, v.select(w < 0.0, -l1, 0.0))
        return rule.step(v, g, w, states, own)

    return Rule(rule.states, (*rule.coefficients, "limit", "l1"), step)


RULES |= {
    f"{name}-limit-l1": _with_limit_and_l1(rule)
    for name, rule in RULES.items()
    if name not in ("add", "gradient", "sum")
}

# Behind the name of a rule that adds the gradient of the model's own penalty on weights first.
L2 = "-l2"


def _with_l2(rule: Rule) -> Rule:
    """The rule for a gradient to which l2 * w is added before all else, also before it is kept to be clipped:
    the penalty is part of the loss. Its factor is the first setting."""

    def step(v: Vectors, g: Vec, w: Vec, states: States, settings: Sequence[Vec]) -> Vec:
        l2, *own = settings
        return rule.step(v, v.fma(l2, w, g), w, states, own)

    return Rule(rule.states, ("l2", *rule.coefficients), step)


RULES |= {f"{name}{L2}": _with_l2(rule) for name, rule in RULES.items() if name not in ("add", "sum")}


def update(name: str, dtype: str) -> int:
    """(g, g_vector, g_row, w, w_vector, w_row, state, rows, vectors, settings): one optimizer step on a block
    of parameters.

    State k of the parameter at address p lies at p + (k + 1) * state. settings: address of this step's
    numbers.
    """
    rule = RULES[name]

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        g, g_vector, g_row, w, w_vector, w_row, state, rows, vectors, settings = args
        ops = Vectors(b, dtype)
        numbers = _numbers_of(ops, rule, settings)

        def visit(i: ir.Value, j: ir.Value) -> None:
            gradient, at = vector_at(b, g, i, g_row, j, g_vector), vector_at(b, w, i, w_row, j, w_vector)
            places = _places(b, at, b.add(at, state), state, rule)
            _step(ops, rule, ops.load(gradient), places, numbers)

        each_vector(b, rows, vectors, visit)

    return compile_block(f"update-{name}", dtype, 10, emit)


def _numbers_of(ops: Vectors, rule: Rule, settings: ir.Value) -> list[Vec]:
    return [ops.load_splat(place) for place in _places_of_numbers(ops, rule, settings)]


def _places_of_numbers(ops: Vectors, rule: Rule, settings: ir.Value) -> list[ir.Value]:
    return [ops.b.add(settings, I64((1 + k) * ops.itemsize)) for k in range(len(rule.coefficients))]


class _Fresh(Vec):
    """A vector in memory, which is read anew each time it is used, and not before."""

    def __init__(self, ops: Vectors, place: ir.Value, load: Callable[[ir.Value], Vec]) -> None:
        self.ops, self.place, self._load = ops, place, load

    @property
    def value(self) -> ir.Value:
        self.ops.keep_order()
        return self._load(self.place).value


class _Stored:
    """Vectors that are nowhere but in memory."""

    def __init__(self, vectors: Sequence[_Fresh]) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, k: int, /) -> Vec:
        return self._vectors[k]

    def __setitem__(self, k: int, value: Vec, /) -> None:
        vector = self._vectors[k]
        vector.ops.store(value, vector.place)


def _places(
    b: ir.IRBuilder, w: ir.Value, first_state: ir.Value, state: ir.Value, rule: Rule
) -> list[ir.Value]:
    """Where a vector of parameters is and its states are, `state` bytes from one to the next."""
    return [w, *(b.add(first_state, b.mul(state, I64(k))) for k in range(rule.states))]


def _step(ops: Vectors, rule: Rule, g: Vec, places: Sequence[ir.Value], numbers: Sequence[Vec]) -> None:
    """The step of a vector of parameters and its states, which are at these places."""
    w, *states = (ops.load(place) for place in places)
    w = rule.step(ops, g, w, states, numbers)
    for value, place in zip((w, *states), places, strict=True):
        ops.store(value, place)


def _step_in_few_registers(
    ops: Vectors, rule: Rule, g: ir.Value, places: Sequence[ir.Value], settings: ir.Value
) -> None:
    """The same with the gradient at g, where a product's sums have nearly all registers: nothing else stays
    in one for long. (LLVM would read everything first, and keep it on the stack meanwhile: 28 vectors of
    float64 by Adam took 0.24 us within a product, so 0.16.)"""
    w, *states = (_Fresh(ops, place, ops.load) for place in places)
    numbers = [_Fresh(ops, place, ops.load_splat) for place in _places_of_numbers(ops, rule, settings)]
    new = rule.step(ops, _Fresh(ops, g, ops.load), w, _Stored(states), numbers)
    ops.store(new, places[0])


def product_and_update(name: str, dtype: str, *, prefetch: int) -> int:
    """(the microkernel's arguments, g, w, w_vector, w_row, state, rows, settings, there, here, vectors,
    following): a tile of a product, as `matmul.emit_tile` has it, and on the way `update` on another block of
    two vectors in a row, whose gradient is adjacent. There are twice as many k as that has rows at least.
    Also copied are so many vectors, not more than the block has, and as many asked for that are next.

    Divisions and square roots take place beside multiply-adds that do not wait for them: of 28 vectors of
    float64 by Adam, 0.20 us behind the product, and 0.16 within it. Parameters and states of the next tile,
    whose turn is when this product is done, are asked for one by one: all at once would hold up the product.
    """
    rule, of_product = RULES[name], len(matmul.ARGUMENTS)

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        g, w, w_vector, w_row, state, rows, settings, there, here, vectors, following = args[of_product:]
        size = isa().bytes

        def piece(ops: Vectors, number: ir.Value) -> None:
            i, j = ops.b.lshr(number, I64(1)), ops.b.and_(number, I64(1))
            offset = ops.b.mul(number, I64(size))
            with ops.b.if_then(ops.b.icmp_signed("<", number, vectors)):
                ops.store(ops.load(ops.b.add(there, offset)), ops.b.add(here, offset))
                ops.prefetch(ops.b.add(following, offset), level=2)
            gradient = ops.b.add(g, offset)
            at = vector_at(ops.b, w, i, w_row, j, w_vector)
            places = _places(ops.b, at, ops.b.add(at, state), state, rule)
            next_tile = ops.b.mul(rows, w_row)
            for place in places:
                ops.prefetch(ops.b.add(place, next_tile), level=2)
            _step_in_few_registers(ops, rule, gradient, places, settings)

        aside = matmul.Aside(b.mul(rows, I64(2)), piece)
        matmul.emit_tile(b, dtype, prefetch, args[:of_product], aside)

    far = "-prefetch" if prefetch else ""
    return compile_block(f"product{far}-and-update-{name}", dtype, of_product + 11, emit, as_it_is=True)


def update_of_clipped(name: str, dtype: str) -> int:
    """(w, state, vectors, settings, factor): one optimizer step on adjacent vectors of parameters, with
    `factor` times the gradient.

    The gradient of the parameter at address p lies at p + state, state k at p + (k + 2) * state. factor:
    address of one number. The gradient of a penalty on weights is part of it already.
    """
    rule, first = RULES[name.removesuffix(L2)], 1 + name.endswith(L2)

    def emit(b: ir.IRBuilder, args: Sequence[ir.Value]) -> None:
        w, state, vectors, settings, factor = args
        ops = Vectors(b, dtype)
        numbers = [
            ops.load_splat(b.add(settings, I64((first + k) * ops.itemsize)))
            for k in range(len(rule.coefficients))
        ]
        scale = ops.load_splat(factor)
        with cgutils.for_range(b, vectors, intp=I64) as loop:
            at = b.add(w, b.mul(loop.index, I64(ops.lanes * ops.itemsize)))
            gradient = b.add(at, state)
            places = _places(b, at, b.add(gradient, state), state, rule)
            _step(ops, rule, ops.load(gradient) * scale, places, numbers)

    return compile_block(f"update-of-clipped-{name}", dtype, 5, emit)


def add_products(dtype: str) -> int:
    """(x, rows, d, vectors, w, w_vector, w_row): w[i, vector j] += x[i] * d[vector j], the update from a
    batch of one row."""

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
            at = vector_at(b, w, i, w_row, j, w_vector)
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
