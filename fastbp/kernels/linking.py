"""How compiled code of anybody reaches the engine's kernels, also when it comes from a cache.

But for elementwise work on few numbers, a kernel's machine code is no part of the caller's. The caller's code
knows it by a name that only the process resolves: a symbol, behind which lie the addresses of this process.
Who compiles the caller's code, or loads it from a cache, makes them known first: a `Link` is among the
constants of the compiled function, and to unpickle it is to load the kernel (for calls from Python: to know
who will, see `run`). Where fastbp has changed since,
that fails as a missing cache file does (OSError), and Numba compiles the caller's function again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.engine.compile import jit
from fastbp.engine.compile.cache import source_digest
from fastbp.engine.compile.intrinsics import call
from fastbp.engine.compile.uncounted import Borrowed
from fastbp.engine.entries import elementwise, flat, launch
from fastbp.engine.entries.matrices import narrow_products, packed, products, turning
from fastbp.engine.threads.runtime import LEAST_NANOSECONDS, TEAM_NANOSECONDS
from fastbp.engine.threads.team import possible

_I64 = ir.IntType(64)

PRODUCTS = {"product": packed.PLAIN, "product_at_b": packed.A_TRANSPOSED}
# What is behind the names of products of which less is compiled, for calls from Python.
WAYS = {products.PACKED: "_packed", products.IN_PLACE: "_in_place", products.FEW_ROWS: "_of_few_rows"}

Parts = tuple[Callable[[], int], Callable[[str], list[int]]]


def _product(kind: int, way: int) -> Parts:
    return partial(products.body, way), partial(products.kernels_of, kind=kind, way=way)


# kernel -> what makes its body, and the kernels that the body calls for a dtype
KERNELS: dict[str, Parts] = {
    **{
        f"{name}{ending}": _product(kind, way)
        for name, kind in PRODUCTS.items()
        for way, ending in ((products.ANY_WAY, ""), *WAYS.items())
    },
    "dots": (narrow_products.dots_body, narrow_products.dots_of),
    "few_columns": (narrow_products.few_columns_body, narrow_products.few_columns_of),
    "turned": (turning.turned_body, turning.turned_of),
    "narrow": (narrow_products.narrow_body, partial(narrow_products.narrow_of, kind=packed.PLAIN)),
    "narrow_at_b": (
        narrow_products.narrow_body,
        partial(narrow_products.narrow_of, kind=packed.A_TRANSPOSED),
    ),
    "across_at_b": (narrow_products.across_body, narrow_products.across_of),
    "softmax": (elementwise.softmax, elementwise.softmax_of),
    "sums": (elementwise.sums, elementwise.sums_of),
    **{
        name: (elementwise.elementwise, lambda dtype, name=name: [flat.flat(name, dtype)])
        for name in flat.FORMULAS
    },
}


def symbol(kernel: str, dtype: str) -> str:
    return f"fastbp_{kernel}_{dtype}_{source_digest()}"


@cache
def _declare(kernel: str, dtype: str) -> np.ndarray[Any, Any]:
    """Make a kernel's symbol known to this process, with nothing behind it yet but who finds it."""
    memory = launch.no_links()
    finders = (partial(_find_body, kernel, dtype), partial(load, kernel, dtype))
    _kept.append(finders)
    memory[launch.FIND_BODY], memory[launch.FIND_LAUNCH] = map(id, finders)
    binding.add_symbol(symbol(kernel, dtype), memory.ctypes.data)
    return memory


_kept: list[Any] = []  # Python objects whose addresses stand in links


def _find_body(kernel: str, dtype: str, *others: Callable[[], int]) -> None:
    """Compile a kernel, or load it from the cache; others: what else is begun with it."""
    body, kernels = KERNELS[kernel]
    jit.ahead(lambda: (kernels(dtype), body(), *(other() for other in others)))
    launch.link_body(_declare(kernel, dtype), body(), dtype, kernels(dtype))


@cache
def load(kernel: str, dtype: str) -> None:
    """Compile all of a kernel and what starts a team, or load it from the cache."""
    _find_body(kernel, dtype, launch.launch, *([launch.part] if possible() else []))
    launch.link_launch(_declare(kernel, dtype))


@dataclass(frozen=True)
class Link:
    """A constant of compiled code that uses a kernel; lazy: it is compiled when a call first needs it."""

    kernel: str
    dtype: str
    lazy: bool

    def make(self) -> None:
        (_declare if self.lazy else load)(self.kernel, self.dtype)

    def __reduce__(self) -> tuple[Any, tuple[str, str, bool, str]]:
        return _unpickled, (self.kernel, self.dtype, self.lazy, source_digest())


def _unpickled(kernel: str, dtype: str, lazy: bool, digest: str) -> Link:
    if digest != source_digest():
        raise OSError("this was compiled with another version of fastbp")
    link = Link(kernel, dtype, lazy)
    link.make()
    return link


def _job(builder: ir.IRBuilder, links: ir.Value, numbers: list[ir.Value]) -> ir.Value:
    """The address of the struct that describes a job."""
    job = cgutils.alloca_once(builder, ir.ArrayType(_I64, len(numbers) + 1))
    for i, number in enumerate([builder.ptrtoint(links, _I64), *numbers]):
        builder.store(number, builder.gep(job, [ir.IntType(32)(0), ir.IntType(32)(i)]))
    return builder.ptrtoint(job, _I64)


def _find(context: Any, builder: ir.IRBuilder, links: ir.Value, field: int, finder: int) -> ir.Value:
    """The address in a field of the links; where it is 0, a Python object is called first, which writes it.
    What that raises is raised."""

    def at(i: int) -> ir.Value:
        return builder.gep(links, [ir.IntType(32)(0), ir.IntType(32)(i)])

    found = builder.load_atomic(at(field), "acquire", 8)
    with builder.if_then(builder.icmp_signed("==", found, _I64(0)), likely=False):
        python = context.get_python_api(builder)
        state = python.gil_ensure()
        callable = builder.inttoptr(builder.load(at(finder)), python.pyobj)
        none = python.call_function_objargs(callable, ())
        with builder.if_then(cgutils.is_null(builder, none), likely=False):
            python.gil_release(state)
            context.call_conv.return_exc(builder)
        python.decref(none)
        python.gil_release(state)
    return builder.load(at(field))


@intrinsic(prefer_literal=True)
def run(typingctx: Any, kernel: Any, like: Any, nanoseconds: Any, numbers: Any) -> Any:
    """run("kernel", array of the dtype, nanoseconds, (i, j, ...)): do the job that the numbers describe, as
    the kernel's struct has them behind `links`; nanoseconds: what it takes one worker, about.

    Called from Python, which the array's type tells, the kernel is compiled where this call needs it.
    Anybody's compiled code cannot wait for Python where it runs (a thread of a team that its caller waits for
    with the GIL would wait for ever): there all is compiled before."""
    if not isinstance(kernel, types.Literal):
        return None  # Numba asks with literals, too
    lazy = isinstance(like, Borrowed)
    signature = types.void(kernel, like, types.int64, types.UniTuple(types.int64, len(numbers)))
    return signature, _codegen({0: Link(kernel.literal_value, like.dtype.name, lazy)})


@intrinsic(prefer_literal=True)
def run_one(typingctx: Any, kernels: Any, like: Any, nanoseconds: Any, numbers: Any, which: Any) -> Any:
    """`run` of one of the kernels "first second ...": which of them, from 0 on."""
    if not isinstance(kernels, types.Literal):
        return None
    lazy, names = isinstance(like, Borrowed), kernels.literal_value.split()
    links = {i: Link(name, like.dtype.name, lazy) for i, name in enumerate(names)}
    kinds = (types.int64, types.UniTuple(types.int64, len(numbers)), types.int64)
    return types.void(kernels, like, *kinds), _codegen(links)


@intrinsic(prefer_literal=True)
def run_product(typingctx: Any, kernel: Any, like: Any, nanoseconds: Any, numbers: Any, way: Any) -> Any:
    """`run` of A @ B or A.T @ B. way: how it is done, see `products.way_of`; from Python, no other is
    compiled."""
    if not isinstance(kernel, types.Literal):
        return None
    lazy = isinstance(like, Borrowed)
    ways = WAYS if lazy else {products.ANY_WAY: ""}
    links = {way: Link(kernel.literal_value + end, like.dtype.name, lazy) for way, end in ways.items()}
    kinds = (types.int64, types.UniTuple(types.int64, len(numbers)), types.int64)
    return types.void(kernel, like, *kinds), _codegen(links)


def _codegen(kernels: dict[int, Link]) -> Callable[..., Any]:
    """What makes the code of those."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
        numbers = [builder.extract_value(values[3], i) for i in range(len(signature.args[3]))]
        which = values[4] if len(values) > 4 else _I64(0)
        _emit_run(context, builder, kernels, which, values[2], numbers)
        return context.get_dummy_value()

    return codegen


def _emit_links(context: Any, builder: ir.IRBuilder, link: Link) -> ir.Value:
    """Where a kernel's links are."""
    link.make()
    # (Whoever asks for the environment has it among those that are kept with the code.)
    context.get_env_manager(builder).add_const(link)
    name = symbol(link.kernel, link.dtype)
    if name in builder.module.globals:
        return builder.module.globals[name]
    links = cgutils.add_global_variable(builder.module, ir.ArrayType(_I64, launch.LINK_FIELDS), name)
    links.linkage = "external"
    return links


def _emit_run(
    context: Any,
    builder: ir.IRBuilder,
    kernels: dict[int, Link],
    which: ir.Value,
    nanoseconds: ir.Value,
    numbers: list[ir.Value],
) -> None:
    """The code of `run` for one of some kernels: that of the number `which`, or the first one if none is."""
    (_, link), *others = kernels.items()
    links = _emit_links(context, builder, link)
    for number, other in others:
        here = builder.icmp_signed("==", which, _I64(number))
        links = builder.select(here, _emit_links(context, builder, other), links)

    def address_in(field: int, finder: int) -> ir.Value:
        """The address that stands in that field of the links."""
        if link.lazy:
            return _find(context, builder, links, field, finder)
        return builder.load(builder.gep(links, [ir.IntType(32)(0), ir.IntType(32)(field)]))

    def enter(address: ir.Value, *arguments: ir.Value) -> None:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * len(arguments))
        builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)

    alone = builder.icmp_signed("<", nanoseconds, _I64(LEAST_NANOSECONDS))
    with builder.if_else(alone, likely=True) as (small, large):
        with small:
            if link.kernel in flat.FORMULAS:
                flat.emit(builder, link.kernel, link.dtype, numbers)
            else:
                job = _job(builder, links, numbers)
                enter(address_in(launch.BODY, launch.FIND_BODY), _I64(0), _I64(1), job)
        with large:
            entry, job = address_in(launch.LAUNCH, launch.FIND_LAUNCH), _job(builder, links, numbers)
            if not link.lazy:
                enter(entry, job, nanoseconds)
                return
            short = builder.icmp_signed("<", nanoseconds, _I64(TEAM_NANOSECONDS))
            with builder.if_else(short) as (held, given):
                with held:
                    enter(entry, job, nanoseconds)
                with given:
                    python = context.get_python_api(builder)
                    others = python.save_thread()  # may run meanwhile (see `kernel`)
                    enter(entry, job, nanoseconds)
                    python.restore_thread(others)


def _run_as_python(kernel: str, dtype: Any, nanoseconds: int, numbers: tuple[int, ...]) -> None:
    memory = _declare(kernel, dtype.dtype.name)
    _find_body(kernel, dtype.dtype.name)
    job = np.array([memory.ctypes.data, *numbers], np.int64)
    call(int(memory[launch.BODY]), (0, 1, job.ctypes.data))


if config.DISABLE_JIT:  # for debuggers and coverage: what drives the engine's kernels runs as Python
    run = _run_as_python  # type: ignore[assignment]

    def run_one(kernels: str, like: Any, nanoseconds: int, numbers: tuple[int, ...], which: int) -> None:
        """The same in Python."""
        run(kernels.split()[which], like, nanoseconds, numbers)

    def run_product(kernel: str, like: Any, nanoseconds: int, numbers: tuple[int, ...], way: int) -> None:
        """The same in Python."""
        run(kernel, like, nanoseconds, numbers)
