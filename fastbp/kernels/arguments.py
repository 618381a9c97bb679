"""What kernels are given: arrays of the right kind, shapes that line up, an `out` that shares no memory.

Types are looked at when code is compiled, shapes when it runs.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numba import config, errors, typeof, types
from numba.core.dispatcher import OmittedArg
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic, overload

from fastbp.engine.compile import jit
from fastbp.engine.compile.cache import Cache
from fastbp.engine.simd.vector import isa

EXPECTED = "expected C-ordered arrays of float32, or all of float64"


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
    reason = unfit(array, dimensions.literal_value, getattr(like, "dtype", None))
    if reason is not None:
        raise errors.TypingError(f"{name.literal_value} {reason}: {EXPECTED}")
    signature = types.void(name, array, dimensions, like)
    return signature, lambda context, builder, signature, values: context.get_dummy_value()


def result(out, shape, like):
    """In compiled code: `out`, whose shape and memory others check, or a new array where it is None."""
    return np.empty(shape, like.dtype) if out is None else out


@overload(result)
def _result(out, shape, like):
    if _says_nothing(out):
        return lambda out, shape, like: np.empty(shape, like.dtype)
    reason = unfit(out, len(shape), like.dtype, written=True)
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


@overload(lanes)
def _lanes(array):
    count = isa().bytes // (array.dtype.bitwidth // 8)
    return lambda array: count


def alike(text, a, b):
    """In compiled code: ShapeError(text) unless the shapes of two arrays are the same."""
    if a.shape != b.shape:
        raise ShapeError(text, a.shape, b.shape)


@overload(alike)
def _alike(text, a, b):
    if a.ndim != b.ndim:

        def never(text, a, b):
            raise ShapeError(text, a.shape, b.shape)

        return never

    def compare(text, a, b):
        if a.shape != b.shape:
            raise ShapeError(text, a.shape, b.shape)

    return compare


@jit.inner
def _overlap(a, b):
    """Whether two C-ordered arrays share memory."""
    first, second = a.ctypes.data, b.ctypes.data
    return first < second + b.nbytes and second < first + a.nbytes


@jit.inner
def no_overlap(out, array):
    """ShapeError where out is not None and shares memory with the array."""
    if out is not None and _overlap(out, array):
        raise ShapeError("out shares memory with another argument: the result cannot be written there")


@jit.inner
def unlike_overlap(out, a, b, c):
    """The same, unless out begins where the array does: numbers are read before others are written there."""
    if out is not None:
        here = out.ctypes.data
        if (
            (here != a.ctypes.data and _overlap(out, a))
            or (here != b.ctypes.data and _overlap(out, b))
            or (here != c.ctypes.data and _overlap(out, c))
        ):
            raise ShapeError("out shares memory with a part of another argument")


class Kernel(CPUDispatcher):
    """A compiled function for Python and for compiled code, kept in fastbp's cache. From Python, arguments
    that there is no code for are a TypeError."""

    def _compile_for_args(self, *args: Any, **kwargs: Any) -> Any:
        for name, value in zip(inspect.signature(self.py_func).parameters, args, strict=False):
            if not isinstance(value, (np.ndarray, str, OmittedArg)) and not (name == "out" and value is None):
                raise TypeError(
                    f"{self.py_func.__name__}: {name} is no array, but {type(value).__name__}: {EXPECTED}"
                )
        compile = super()._compile_for_args
        found: list[Any] = []
        try:
            jit.uninterrupted(lambda: found.append(compile(*args, **kwargs)))
            return found[0]
        except errors.TypingError as error:
            raise TypeError(f"{self.py_func.__name__}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The line of Numba's report that says what was wrong with the arguments."""
    for line in str(error).splitlines():
        if EXPECTED in line:
            return line.split("TypingError: ")[-1].strip()
    return str(error)


def kernel(function: Any) -> Any:
    """Compile `function` for what it is called with, when it is called."""
    if config.DISABLE_JIT:
        return function
    made = Kernel(function, targetoptions=dict(jit.OPTIONS))
    made._cache = Cache(function, f"kernels-{function.__name__}")
    return made


if config.DISABLE_JIT:

    def check(name: str, array: Any, dimensions: int, like: Any) -> None:
        """The same in Python."""
        if reason := unfit(typeof(array), dimensions, typeof(like).dtype):
            raise TypeError(f"{name} {reason}: {EXPECTED}")
