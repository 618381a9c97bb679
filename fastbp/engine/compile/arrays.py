"""Arrays that callers hand to compiled code: refused unless they are C-ordered, aligned, writable and in this
machine's byte order.

Where an array may be of several types, Numba finds the code by its type. It looks at the array itself only
where that is well-behaved; for all others it keeps what it once found by number of dimensions, order and kind
of numbers, whatever their byte order, and for the whole process. So after one misaligned array anywhere, a
big-endian one would be taken for an array of numbers that it does not hold. Hence an array is looked at once
more when its address is taken out of the Python object; and where it can be of one type only, nowhere else.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.extending import NativeValue, unbox


class CallersArray(types.Array):
    """As `types.Array`, in signatures of functions for Python only: any object may come, and all but arrays
    of this type (no subclasses) are refused."""

    def __init__(self, plain: types.Array) -> None:
        self.plain = plain
        super().__init__(plain.dtype, plain.ndim, plain.layout, name=f"callers_{plain}")
        self.expected = (
            f"expected a C-ordered, aligned, writable array of {plain.dtype} in native byte order with "
            f"{plain.ndim} dimensions"
        )

    def taken(self, array: Any) -> Any:
        """What the function gets, where it runs as Python."""
        if not (is_behaved(array) and array.dtype == self.dtype.name and array.ndim == self.ndim):
            raise TypeError(self.expected)
        return array


register_default(CallersArray)(models.ArrayModel)


class _ArrayObject(ctypes.Structure):
    """The fields of a NumPy array behind the header that all Python objects have (numpy/ndarraytypes.h: they
    are part of NumPy's ABI)."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("nd", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("dimensions", "strides", "base", "descr")),
        ("flags", ctypes.c_int),
    ]


class _Descr(ctypes.Structure):
    """The same of a dtype."""

    _fields_ = [
        ("type", ctypes.c_void_p),
        ("kind", ctypes.c_char),
        ("char", ctypes.c_char),
        ("byteorder", ctypes.c_char),
    ]


C_CONTIGUOUS, ALIGNED, WRITEABLE = 0x0001, 0x0100, 0x0400  # numpy/ndarraytypes.h
SWAPPED = ord(np.dtype(np.float32).newbyteorder("S").byteorder)
_HEADER = object.__basicsize__

ARRAY_TYPE = "fastbp_numpy_array_type"  # compiled code may come from another process: it has the name alone
binding.add_symbol(ARRAY_TYPE, id(np.ndarray))


def is_behaved(array: Any) -> bool:
    """What compiled code looks for, in Python."""
    return bool(type(array) is np.ndarray and array.flags.carray and array.dtype.isnative)


_word_at = ctypes.c_int64.from_address
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def capsule_pointer(capsule: Any, name: bytes | None) -> int:
    """The address that one of NumPy's capsules of that name holds."""
    return int(_capsule_pointer(capsule, name))


def data_at(array: np.ndarray[Any, Any]) -> int:
    """Where the array's numbers begin. (`array.ctypes.data` makes objects on its way there, for 1.4 us: two
    small training steps.)"""
    return _word_at(id(array) + _HEADER).value


def array_field(b, obj, name, kind):
    """In compiled code: a field of a NumPy array."""
    return load_at(b, obj, _HEADER + getattr(_ArrayObject, name).offset, kind)


def load_at(b, base, offset, kind):
    """In compiled code: what stands so many bytes behind an address."""
    at = b.gep(b.bitcast(base, ir.IntType(8).as_pointer()), [ir.IntType(64)(offset)])
    return b.load(b.bitcast(at, kind.as_pointer()))


def is_refused(b, obj, wanted):
    """In compiled code: whether an array lacks one of the flags, or its numbers are in the other byte
    order."""
    byte, wanted = ir.IntType(8), ir.IntType(32)(wanted)
    flags = array_field(b, obj, "flags", ir.IntType(32))
    descr = array_field(b, obj, "descr", byte.as_pointer())
    order = load_at(b, descr, _HEADER + _Descr.byteorder.offset, byte)
    return b.or_(
        b.icmp_unsigned("!=", b.and_(flags, wanted), wanted), b.icmp_unsigned("==", order, byte(SWAPPED))
    )


def array_at(context, b, kind, obj):
    """In compiled code: an array of Numba's type without a reference, from a NumPy array."""
    word = ir.IntType(64)
    array = context.make_array(kind)(context, b)
    array.data = array_field(b, obj, "data", array.data.type)
    array.meminfo, array.parent = array.meminfo.type(None), array.parent.type(None)
    array.itemsize = word(kind.dtype.bitwidth // 8)
    shape, strides = (
        [load_at(b, array_field(b, obj, name, word.as_pointer()), 8 * i, word) for i in range(kind.ndim)]
        for name in ("dimensions", "strides")
    )
    array.nitems = functools.reduce(b.mul, shape, word(1))
    array.shape, array.strides = (cgutils.pack_array(b, words, word) for words in (shape, strides))
    return array._getvalue()


def array_type(context, b):
    """In compiled code: the Python object that is NumPy's type of arrays."""
    return context.get_c_value(b, ir.IntType(8), ARRAY_TYPE)


def is_array(context, b, obj):
    """In compiled code: whether a Python object is an array, of no subclass."""
    of_object = load_at(b, obj, _HEADER - 8, ir.IntType(8).as_pointer())  # its header ends with its type
    return b.icmp_unsigned("==", of_object, array_type(context, b))


def is_of(b, obj, kind):
    """In compiled code: whether an array has these dimensions and numbers of this type, in whatever order."""
    byte, number = ir.IntType(8), ir.IntType(32)
    descr = array_field(b, obj, "descr", byte.as_pointer())
    of_numbers = load_at(b, descr, _HEADER + _Descr.char.offset, byte)
    return b.and_(
        b.icmp_unsigned("==", of_numbers, byte(ord(np.dtype(kind.dtype.name).char))),
        b.icmp_unsigned("==", array_field(b, obj, "nd", number), number(kind.ndim)),
    )


@unbox(CallersArray)
def _unbox(typ, obj, c):
    """Without a reference: whoever called has one until the call is over."""
    b = c.builder
    array = cgutils.alloca_once(b, c.context.get_value_type(typ.plain), zfill=True)
    refused = cgutils.alloca_once_value(b, cgutils.true_bit)
    with (
        b.if_then(is_array(c.context, b, obj), likely=True),
        b.if_then(is_of(b, obj, typ.plain), likely=True),
    ):
        b.store(is_refused(b, obj, C_CONTIGUOUS | ALIGNED | WRITEABLE), refused)
        b.store(array_at(c.context, b, typ.plain, obj), array)
    with b.if_then(b.load(refused), likely=False):
        c.pyapi.err_set_string("PyExc_TypeError", typ.expected)
    return NativeValue(b.load(array), is_error=b.load(refused))
