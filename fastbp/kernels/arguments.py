"""What kernels are given: arrays of the right kind, shapes that line up, an `out` that shares no memory.

Types are looked at when code is compiled, shapes when it runs.
"""

from __future__ import annotations

import inspect
import numbers
from typing import Any

import numpy as np
from numba import config, errors, typeof, types
from numba.core.dispatcher import OmittedArg
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic, overload

from fastbp.engine.compile import jit, linked
from fastbp.engine.compile.cache import Cache
from fastbp.engine.compile.uncounted import Borrowed, fresh, plain
from fastbp.engine.simd.vector import isa

EXPECTED = "expected C-ordered arrays of float32, or all of float64"
EXPECTED_NUMBER = "expected a real number"
NUMBERS = {"lr"}  # arguments that are one number


class ShapeError(ValueError):
    """Shapes that do not line up, or an `out` that shares memory with another argument. args: a text with
    a %s for each shape that follows."""

    def __str__(self) -> str:
        text, *shapes = self.args
        return str(text) % tuple(shapes)


def unfit(kind: Any, dimensions: int, dtype: Any = None, *, written: bool = False) -> str | None:
    """Why an argument of this type is no array for kernels, or None; dtype: of the other arrays."""
    if not isinstance(kind, types.Array):
        return "is no array"
    if kind.dtype not in (types.float32, types.float64):
        return f"holds {kind.dtype}"
    if dtype is not None and kind.dtype != dtype:
        return f"holds {kind.dtype}, another argument {dtype}"
    if dimensions and kind.ndim != dimensions:
        return f"has {kind.ndim} dimensions, not {dimensions}"
    if kind.layout != "C":
        return f"is in {kind.layout} order" if kind.layout == "F" else "is not contiguous"
    if not kind.aligned:
        return "is not aligned"
    if written and not kind.mutable:
        return "is read-only"
    return None


def _says_nothing(argument: Any) -> bool:
    return argument is None or isinstance(argument, (types.NoneType, types.Omitted))


@intrinsic(prefer_literal=True)
def check(typingctx: Any, name: Any, array: Any, dimensions: Any, like: Any) -> Any:
    """In compiled code, when it is compiled: `array` is a C-ordered array with so many dimensions (0: any)
    and with the dtype of `like`."""
    if not isinstance(dimensions, types.Literal):
        return None  # Numba asks with literals, too
    reason = unfit(plain(array), dimensions.literal_value, getattr(like, "dtype", None))
    if reason is not None:
        raise errors.TypingError(f"{name.literal_value} {reason}: {EXPECTED}")
    signature = types.void(name, array, dimensions, like)
    return signature, lambda context, builder, signature, values: context.get_dummy_value()


def result(out, shape, like):
    """In compiled code: `out`, whose memory others check, or a new array where it is None."""
    if out is None:
        return np.empty(shape, like.dtype)
    if reason := unfit(typeof(out), len(shape), typeof(like).dtype, written=True):
        raise TypeError(f"out {reason}: {EXPECTED}, or None")
    if out.shape != shape:
        raise ShapeError("out has shape %s, the result %s", out.shape, shape)
    return out


@overload(result, jit_options=jit.INNER)
def _result(out, shape, like):
    if _says_nothing(out):
        if isinstance(like, Borrowed):
            return lambda out, shape, like: fresh((shape,), like)[0]
        return lambda out, shape, like: np.empty(shape, like.dtype)
    reason = unfit(plain(out), len(shape), like.dtype, written=True)
    if reason is not None:
        raise errors.TypingError(f"out {reason}: {EXPECTED}, or None")
    if out.ndim == len(shape):

        def same(out, shape, like):
            if out.shape != shape:
                raise ShapeError("out has shape %s, the result %s", out.shape, shape)
            return out

        return same


def lanes(array):
    """How many numbers of the array's dtype a vector register holds."""
    return isa().bytes // int(array.itemsize)


@overload(lanes, jit_options=jit.INNER)
def _lanes(array):
    count = isa().bytes // (array.dtype.bitwidth // 8)
    return lambda array: count


def _of_cpu(ask: Any) -> Any:
    """A function without arguments that compiled code may call, too: there it is what it is on this CPU."""

    @overload(ask)
    def known():
        answer = ask()
        return lambda: answer

    return ask


@_of_cpu
def two_passes():
    """Whether a vector goes through units of half its width in two passes."""
    return isa().two_passes


@_of_cpu
def masks():
    """Whether writing with a mask takes no longer than without one."""
    return isa().masks


def alike(text, a, b):
    """In compiled code: ShapeError(text) unless the shapes of two arrays are the same."""
    if a.shape != b.shape:
        raise ShapeError(text, a.shape, b.shape)


@overload(alike, jit_options=jit.INNER)
def _alike(text, a, b):
    if a.ndim != b.ndim:

        def never(text, a, b):
            raise ShapeError(text, a.shape, b.shape)

        return never

    def compare(text, a, b):
        if a.shape != b.shape:
            raise ShapeError(text, a.shape, b.shape)

    return compare


def _is_number(value: Any) -> bool:
    return isinstance(value, (numbers.Real, np.floating)) and not isinstance(value, (bool, np.bool_))


@intrinsic(prefer_literal=True)
def bits(typingctx: Any, name: Any, number: Any) -> Any:
    """In compiled code: the bits of a real number as a float64."""
    if not isinstance(name, types.Literal):
        return None
    kind = types.unliteral(number)
    if not isinstance(kind, (types.Float, types.Integer)):
        raise errors.TypingError(f"{name.literal_value} is {kind}: {EXPECTED_NUMBER}")

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        exact = context.cast(builder, values[1], kind, types.float64)
        return builder.bitcast(exact, context.get_value_type(types.int64))

    return types.int64(name, kind), codegen


# What follows takes addresses: to hand an array to a compiled function is to count its references, which
# takes longer than to work on some numbers.


@intrinsic
def address(typingctx: Any, array: Any) -> Any:
    """In compiled code: where the array's numbers are; of None, 0."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if _says_nothing(array):
            return context.get_constant(types.int64, 0)
        data = context.make_array(plain(array))(context, builder, values[0]).data
        return builder.ptrtoint(data, context.get_value_type(types.int64))

    return types.int64(array), codegen


@intrinsic
def span(typingctx: Any, array: Any) -> Any:
    """In compiled code: the address of a C-ordered array's first number, and its size in bytes; of None, that
    of no memory."""
    signature = types.UniTuple(types.int64, 2)(array)

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = context.get_value_type(types.int64)
        if _says_nothing(array):
            begin, size = kind(0), kind(0)
        else:
            given = context.make_array(plain(array))(context, builder, values[0])
            begin = builder.ptrtoint(given.data, kind)
            size = builder.mul(given.nitems, given.itemsize)
        return context.make_tuple(builder, signature.return_type, (begin, size))

    return signature, codegen


@jit.inner
def _overlap(a, b):
    """Whether two spans of memory have a byte in common."""
    return a[0] < b[0] + b[1] and b[0] < a[0] + a[1]


@jit.inner
def no_overlap(out, array):
    """ShapeError where the span of out has a byte in common with the array's."""
    if _overlap(out, array):
        raise ShapeError("out shares memory with another argument: the result cannot be written there")


@jit.inner
def unlike_overlap(out, array):
    """The same, unless out begins where the array does: numbers are read before others are written there."""
    if out[0] != array[0] and _overlap(out, array):
        raise ShapeError("out shares memory with a part of another argument")


class Kernel(CPUDispatcher):
    """A compiled function for Python and for compiled code, kept in fastbp's cache. From Python, arguments
    that there is no code for are a TypeError."""

    def _compile_for_args(self, *args: Any, **kwargs: Any) -> Any:
        names = inspect.signature(self.py_func).parameters
        kinds = tuple(map(self._kind_from_python, names, args))
        found: list[Any] = []
        try:
            jit.uninterrupted(lambda: found.append(self.compile(kinds)))
            return found[0]
        except errors.TypingError as error:
            raise TypeError(f"{self.py_func.__name__}: {_reason(error)}") from error

    def _kind_from_python(self, name: str, value: Any) -> Any:
        """The type of an argument that the caller keeps alive."""
        if isinstance(value, OmittedArg):
            return types.Omitted(value.value)
        if name == "out" and value is None:
            return types.none
        if name in NUMBERS:
            return self._kind_of_number(name, value)
        if not isinstance(value, np.ndarray):
            reason: Any = f"is no array, but {type(value).__name__}"
        else:
            try:
                kind = typeof(value)
                reason = unfit(kind, 0)
            except errors.NumbaValueError as error:  # of a dtype that Numba does not know
                reason = f"cannot be taken: {error}"
        if reason is not None:
            raise TypeError(f"{self.py_func.__name__}: {name} {reason}: {EXPECTED}")
        return Borrowed(kind)

    def _kind_of_number(self, name: str, value: Any) -> Any:
        if not _is_number(value):
            reason = f"{name} is {value!r}: {EXPECTED_NUMBER}"
            raise TypeError(f"{self.py_func.__name__}: {reason}")
        return typeof(value)

    def add_overload(self, cres: Any) -> None:
        """Python finds the code for borrowed arrays alone, by the types that Numba sees."""
        kinds = tuple(cres.signature.args)
        if any(isinstance(kind, Borrowed) for kind in kinds):
            codes = [plain(kind)._code for kind in kinds]
            self._insert(codes, cres.entry_point, cres.objectmode)
        self.overloads[kinds] = cres


def _reason(error: Exception) -> str:
    """The line of Numba's report that says what was wrong with the arguments."""
    for line in str(error).splitlines():
        if EXPECTED in line or EXPECTED_NUMBER in line:
            return line.split("TypingError: ")[-1].strip()
    return str(error)


# Inlined, what goes in and comes out need not be counted (see uncounted.py).
INLINED: Any = jit.OPTIONS | {"forceinline": True, "no_cfunc_wrapper": True}


def kernel(function: Any) -> Any:
    """Compile `function` for what it is called with, when it is called."""
    if config.DISABLE_JIT:
        return function
    # To give the GIL away and to take it back is a quarter of a call on few numbers: only what is large
    # enough for a team does (see linking.py).
    made = Kernel(function, targetoptions=INLINED | {"nogil": False}, **linked.OF_KERNELS)
    made._cache = Cache(function, f"kernels-{function.__name__}")
    return made


if config.DISABLE_JIT:

    def check(name: str, array: Any, dimensions: int, like: Any) -> None:
        """The same in Python."""
        if reason := unfit(typeof(array), dimensions, typeof(like).dtype):
            raise TypeError(f"{name} {reason}: {EXPECTED}")

    def address(array: Any) -> int:
        """The same in Python."""
        return 0 if array is None else int(array.ctypes.data)

    def bits(name: str, number: Any) -> int:
        """The same in Python."""
        if not _is_number(number):
            raise TypeError(f"{name} is {number!r}: {EXPECTED_NUMBER}")
        return int(np.float64(number).view(np.int64))

    def span(array: Any) -> tuple[int, int]:
        """The same in Python."""
        return (0, 0) if array is None else (int(array.ctypes.data), int(array.nbytes))
