"""Models for C and for whoever calls C functions: an address, a header, and what SciPy's integrators take."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastbp.engine.entries import embedded
from fastbp.network.network import Network

_HEADER = """\
/* {description} */
#ifndef FASTBP_MODEL_H
#define FASTBP_MODEL_H

#include <stdint.h>

#define FASTBP_INPUTS {inputs}
#define FASTBP_OUTPUTS {outputs}
typedef {number} fastbp_number;

/* out[rows][FASTBP_OUTPUTS] = the output for X[rows][FASTBP_INPUTS], rows one after another. Does nothing if
   rows < 1. Any thread may call it, several at a time; out must not overlap X. The model's parameters are
   read at each call. NaN and infinity in X come out as what arithmetic makes of them. */
typedef void (*fastbp_predict)(const fastbp_number *X, int64_t rows, fastbp_number *out, void *model);

#endif
"""


class ModelPointer(ctypes.c_void_p):
    """A pointer for C to a model, which lives as long as this object."""

    model: Network


@dataclass(frozen=True)
class CFunction:
    """`predict` for C: void predict(const T *X, int64_t rows, T *out, void *user_data).

    address : of the function, an integer. It is the same for all models of a process: `user_data` says which.
    user_data : the last argument, a `ctypes.c_void_p`. Both are valid in this process, and the second one as
        long as this object (or user_data itself) lives, which keeps the model alive.
    ctypes : the function for Python's ctypes, called as ctypes(X, rows, out, user_data) with C-ordered arrays
        of the model's dtype. It does not look at their shapes.
    header : the text of a C header with these types and the model's widths.
    """

    address: int
    user_data: ModelPointer
    ctypes: Callable[..., None]
    header: str


def _pointer_to(model: Network, address: int) -> ModelPointer:
    pointer = ModelPointer(address)
    pointer.model = model
    return pointer


def c_function(model: Network, embedded_at: int) -> CFunction:
    """The model as a C function; embedded_at: the address of what compiled code reads of it."""
    pointer, architecture = _pointer_to(model, embedded_at), model.architecture
    address = embedded.predict_address()
    dtype = architecture.dtype
    read = np.ctypeslib.ndpointer(dtype, 2, flags=("C", "A"))
    written = np.ctypeslib.ndpointer(dtype, 2, flags=("C", "A", "W"))
    prototype: Any = ctypes.CFUNCTYPE(None, read, ctypes.c_int64, written, ctypes.c_void_p)
    sizes = "-".join(map(str, architecture.layer_sizes))
    header = _HEADER.format(
        description=f"A network of fastbp: {sizes}, {dtype}.",
        inputs=architecture.inputs,
        outputs=architecture.outputs,
        number="float" if dtype.itemsize == 4 else "double",
    )
    return CFunction(address, pointer, prototype(address), header)


def low_level_callable(model: Network, embedded_at: int) -> Any:
    """The model as a `scipy.LowLevelCallable`."""
    if model.architecture.outputs != 1:
        raise ValueError(
            f"the model has {model.architecture.outputs} outputs, an integrand is a model with one"
        )
    from scipy import LowLevelCallable  # no dependency

    prototype = ctypes.CFUNCTYPE(
        ctypes.c_double, ctypes.c_int, ctypes.POINTER(ctypes.c_double), ctypes.c_void_p
    )
    address = embedded.integrand_address(model.architecture.dtype.name)
    return LowLevelCallable(prototype(address), user_data=_pointer_to(model, embedded_at))
