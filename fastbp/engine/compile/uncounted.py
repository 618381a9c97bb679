"""Arrays in compiled code of which it holds no reference.

A compiled function counts a reference of each argument when it begins and one less when it ends. Where it is
inlined LLVM takes both away, but only if nothing can be raised in between; they take as long as to work on
some hundred numbers. So kernels that look at shapes first turn their arguments into what is not counted.
Whoever called keeps them alive. Python does so, too: from its arrays no more is read than where the numbers
are and how many (with a reference, an array takes 0.15 us).
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, box, intrinsic, register_model, unbox
from numpy._core._multiarray_umath import _ARRAY_API  # type: ignore[import-not-found]

from fastbp.engine.compile.arrays import (
    ALIGNED,
    C_CONTIGUOUS,
    WRITEABLE,
    array_at,
    array_type,
    capsule_pointer,
    is_refused,
)


class Uncounted(types.Type):
    """An array's type without the references."""

    def __init__(self, array: types.Array) -> None:
        self.array, self.dtype, self.ndim = array, array.dtype, array.ndim
        super().__init__(name=f"uncounted_{array}")


def plain(kind: Any) -> Any:
    """The array's type, of either."""
    return kind.array if isinstance(kind, Uncounted) else kind


class Borrowed(Uncounted):
    """The type of an argument from Python, never counted. A kernel that returns it returns its object."""

    def __init__(self, array: types.Array) -> None:
        super().__init__(array)
        self.name = f"borrowed_{array}"


class Fresh(Borrowed):
    """The type of a new array that is Python's own, and that Python gets."""

    def __init__(self, array: types.Array) -> None:
        super().__init__(array)
        self.name = f"fresh_{array}"


@register_model(Fresh)
@register_model(Borrowed)
@register_model(Uncounted)
class _UncountedModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, dmm.lookup(fe_type.array).get_value_type())


@infer_getattr
class _Attributes(AttributeTemplate):
    key = Uncounted

    def generic_resolve(self, kind: Any, name: str) -> Any:  # type: ignore[override]
        if name == "shape":
            return types.UniTuple(types.intp, kind.ndim)
        if name == "dtype":
            return types.DType(kind.dtype)
        return types.intp if name in ("size", "nbytes", "itemsize") else None


@lower_getattr_generic(Uncounted)
def _attribute(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    if name == "dtype":
        return context.get_dummy_value()
    array = context.make_array(kind.array)(context, builder, value)
    if name == "shape":
        return array.shape
    if name == "itemsize":
        return array.itemsize
    return array.nitems if name == "size" else builder.mul(array.nitems, array.itemsize)


@unbox(Borrowed)
def _borrow(typ: Any, obj: Any, c: Any) -> NativeValue:
    b = c.builder
    refused = is_refused(b, obj, C_CONTIGUOUS | ALIGNED | (WRITEABLE if typ.array.mutable else 0))
    with b.if_then(refused, likely=False):
        c.pyapi.err_set_string("PyExc_TypeError", "expected a C-ordered, aligned array in native byte order")
    return NativeValue(_borrowed(c.context, b, typ, obj), is_error=refused)


def _borrowed(context: Any, b: Any, kind: Borrowed, obj: Any) -> Any:
    """The array that a Python object is; it can be given back."""
    array = context.make_array(kind.array)(context, b, array_at(context, b, kind.array, obj))
    array.parent = b.bitcast(obj, array.parent.type)
    return array._getvalue()


@box(Borrowed)
def _give_back(typ: Any, value: Any, c: Any) -> Any:
    obj = c.context.make_array(typ.array)(c.context, c.builder, value).parent
    c.pyapi.incref(obj)
    return obj


def _new_array() -> int:
    """The address of PyArray_New, as NumPy gives it to all who are compiled: from a table of its C API, whose
    places never change (numpy/__multiarray_api.h)."""
    return ctypes.c_int64.from_address(capsule_pointer(_ARRAY_API, None) + 93 * 8).value


NEW_ARRAY = "fastbp_numpy_new_array"  # compiled code may come from another process: it has the name alone
binding.add_symbol(NEW_ARRAY, _new_array())


def _new(context: Any, builder: Any, kind: Fresh, sizes: Any) -> Any:
    """A new array's object, or null, by NumPy; who has this emitted has the GIL there."""
    python, word, number = context.get_python_api(builder), ir.IntType(64), ir.IntType(32)
    obj, memory, dimensions = python.pyobj, ir.IntType(8).as_pointer(), word.as_pointer()
    arguments = [obj, number, dimensions, number, memory, memory, number, number, obj]
    new = cgutils.get_or_insert_function(builder.module, ir.FunctionType(obj, arguments), NEW_ARRAY)
    shaped = (number(kind.ndim), builder.bitcast(cgutils.alloca_once_value(builder, sizes), dimensions))
    dtype = number(np.dtype(kind.dtype.name).num)
    # Strides, memory, size of a number, flags and parent: NumPy finds them itself.
    of_numpy = memory(None), memory(None), number(0), number(0), obj(None)
    return builder.call(new, (array_type(context, builder), *shaped, dtype, *of_numpy))


@intrinsic
def fresh(typingctx: Any, shapes: Any, like: Any) -> Any:
    """In compiled code that Python called: new arrays of these shapes, by NumPy. (Numba's own first becomes a
    Python object at the end, and `np.empty` first makes Python objects of the sizes: each takes three times
    as long.)"""
    kinds = [Fresh(types.Array(like.dtype, len(shape), "C")) for shape in shapes]

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        python, made = context.get_python_api(builder), []
        state = python.gil_ensure()
        for i, kind in enumerate(kinds):
            made.append(_new(context, builder, kind, builder.extract_value(values[0], i)))
            with builder.if_then(cgutils.is_null(builder, made[-1]), likely=False):
                for array in made[:-1]:
                    python.decref(array)
                python.gil_release(state)
                context.call_conv.return_exc(builder)
        python.gil_release(state)
        arrays = [_borrowed(context, builder, k, array) for k, array in zip(kinds, made, strict=True)]
        return context.make_tuple(builder, signature.return_type, arrays)

    return types.Tuple(kinds)(shapes, like), codegen


@box(Fresh)
def _give(typ: Any, value: Any, c: Any) -> Any:
    return c.context.make_array(typ.array)(c.context, c.builder, value).parent


@intrinsic
def uncounted(typingctx: Any, argument: Any) -> Any:
    """In compiled code: an argument without a reference if it is an array; None stays None. Comes before
    anything that may raise."""
    if isinstance(argument, types.Array):
        return Uncounted(argument)(argument), lambda context, builder, signature, values: values[0]
    if isinstance(argument, (types.NoneType, types.Omitted)):
        return types.none(argument), lambda context, builder, signature, values: context.get_dummy_value()
    return argument(argument), lambda context, builder, signature, values: values[0]  # others refuse it


@intrinsic
def counted(typingctx: Any, array: Any) -> Any:
    """In compiled code: an array, counted or not, for whoever called. Comes behind all that may raise."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        context.nrt.incref(builder, signature.return_type, values[0])
        return values[0]

    if isinstance(array, Borrowed):
        return array(array), lambda context, builder, signature, values: values[0]
    return plain(array)(array), codegen


@intrinsic
def view(typingctx: Any, array: Any) -> Any:
    """In compiled code: an array with all that arrays can do, of which no references are counted, either."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.return_type)(context, builder, values[0])
        array.meminfo = array.meminfo.type(None)
        return array._getvalue()

    return plain(array)(array), codegen


if config.DISABLE_JIT:

    def fresh(shapes: Any, like: Any) -> Any:
        """The same in Python."""
        return tuple(np.empty(shape, like.dtype) for shape in shapes)

    def uncounted(argument: Any) -> Any:
        """The same in Python."""
        return argument

    def counted(array: Any) -> Any:
        """The same in Python."""
        return array

    def view(array: Any) -> Any:
        """The same in Python."""
        return array
