"""Models in functions that Numba compiles: an extension type, and its methods.

All models of one dtype have the same type, whatever their layers, so a function is compiled once for all of
them. A value of it holds the address of what compiled code reads (`handle`), which comes in as an argument
with each call from Python, and a reference to the model, which keeps that alive. No address is part of the
code: it may be cached. The type's name carries a digest of what the code depends on, so that code in a user's
cache is compiled again when fastbp has changed.
"""

from __future__ import annotations

import hashlib
import pathlib
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.extending import (
    NativeValue,
    box,
    intrinsic,
    models,
    overload_method,
    register_jitable,
    register_model,
    unbox,
)

from fastbp.embed.errors import (
    NoStepsLeftError,
    NotFiniteError,
    OtherModelError,
    RowsError,
    SharedMemoryError,
    TargetError,
    TargetSumError,
    TooManyRowsError,
    WidthError,
)
from fastbp.engine.compile.cache import source_digest
from fastbp.engine.compile.intrinsics import call, load_number, peek, room
from fastbp.engine.entries.embedded_structs import embedded_at, training_at
from fastbp.engine.entries.embedded_training import DONE
from fastbp.inputs.targets import SUM_TOLERANCE
from fastbp.network.network import Network

ITEM = {"float32": types.float32, "float64": types.float64}


@cache
def digest() -> str:
    """Of all that a user's compiled code takes over from fastbp."""
    h = hashlib.sha256(source_digest().encode())
    for path in sorted(pathlib.Path(__file__).parent.glob("*.py")):
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()[:16]


class ModelType(types.Type):
    """A model of this dtype. (Users' caches have it under its module's and its own name.)"""

    def __init__(self, dtype: str, digest: str) -> None:
        self.dtype = ITEM[dtype]
        super().__init__(name=f"fastbp.MLP({dtype}, {digest})")


class StateType(types.Type):
    """The training state of a model of this dtype."""

    def __init__(self, dtype: str, digest: str) -> None:
        self.dtype = ITEM[dtype]
        super().__init__(name=f"fastbp.TrainingState({dtype}, {digest})")


@cache
def _types(dtype: str) -> tuple[ModelType, StateType]:
    return ModelType(dtype, digest()), StateType(dtype, digest())


def type_of(model: Network) -> ModelType:
    """The Numba type of a model."""
    return _types(model.architecture.dtype.name)[0]


def state_type_of(model: Network) -> StateType:
    """The Numba type of the model's training states."""
    return _types(model.architecture.dtype.name)[1]


@register_model(ModelType)
@register_model(StateType)
class _Model(models.StructModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        # The reference is counted by `owner`; `model` is the object itself, to be given back to Python.
        members = [
            ("address", types.int64),
            ("model", types.voidptr),
            ("owner", types.MemInfoPointer(types.voidptr)),
        ]
        super().__init__(dmm, fe_type, members)


@unbox(ModelType)
@unbox(StateType)
def _unbox(typ, obj, c):
    """Ask the Python object for the address, and hold the object."""
    native = cgutils.create_struct_proxy(typ)(c.context, c.builder)
    failed = cgutils.alloca_once_value(c.builder, cgutils.false_bit)
    number = c.pyapi.object_getattr_string(obj, "_embedded_at_")
    with c.builder.if_else(cgutils.is_null(c.builder, number)) as (error, fine):
        with error:
            c.builder.store(cgutils.true_bit, failed)
        with fine:
            native.address = c.pyapi.long_as_longlong(number)
            c.pyapi.decref(number)
            pointer = c.builder.bitcast(obj, cgutils.voidptr_t)
            native.model = pointer
            native.owner = c.pyapi.nrt_meminfo_new_from_pyobject(pointer, pointer)
    return NativeValue(native._getvalue(), is_error=c.builder.load(failed))


@box(ModelType)
@box(StateType)
def _box(typ, value, c):
    """The object that it was unboxed from."""
    native = cgutils.create_struct_proxy(typ)(c.context, c.builder, value)
    obj = c.builder.bitcast(native.model, c.pyapi.pyobj)
    c.pyapi.incref(obj)
    c.context.nrt.decref(c.builder, typ, value)
    return obj


@lower_constant(ModelType)
@lower_constant(StateType)
def _constant(context, builder, typ, value):
    raise TypingError(
        "a model outside of the compiled function would become a constant of it, and its address that of "
        "another process where the code is cached: give the model to the function as an argument"
    )


@intrinsic
def address_of(typingctx: Any, model: Any) -> Any:
    """Of what compiled code reads of a model."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> ir.Value:
        proxy = cgutils.create_struct_proxy(signature.args[0])(context, builder, values[0])
        return proxy.address

    return types.int64(model), codegen


# ---- the methods -------------------------------------------------------------------------------------------


def require_matrix(name: str, array: Any, model: Any, *, written: bool = False) -> None:
    """TypingError unless it is a matrix of the model's dtype."""
    wanted = (
        f"{name} must be a {'writable, C-ordered ' if written else ''}{model.dtype} array of two dimensions"
    )
    if not isinstance(array, types.Array):
        raise TypingError(f"{name} is {array}: {wanted}")
    if array.dtype != model.dtype or array.ndim != 2:
        hint = f" ({name}.astype(np.{model.dtype}) converts it)" if array.ndim == 2 else ""
        raise TypingError(f"{name} is {array}: {wanted}{hint}")
    if written and (not array.mutable or array.layout != "C" or not array.aligned):
        raise TypingError(f"{name} is {array}: {wanted}")


def rows_of(array: Any) -> Any:
    """A function that makes rows that lie one after another of an array of this type; a copy, unless it is
    such an array."""
    if array.layout != "C":
        return np.ascontiguousarray
    return _itself if array.aligned else _copy


@register_jitable
def _itself(array):
    return array


@register_jitable
def _copy(array):
    return array.copy()


@register_jitable
def _require_inputs(network, X, check_finite):
    if X.shape[0] == 0:
        raise RowsError("X", 0, 1)
    if X.shape[1] != network.inputs:
        raise WidthError("X", X.shape[1], "inputs", network.inputs)
    if check_finite:
        bad = room()
        call(network.finite, (X.ctypes.data, X.size, bad))
        if peek(bad, 0) != 0:
            raise NotFiniteError("X")


@register_jitable
def _predict(model, X, check_finite):
    network = embedded_at(address_of(model))
    _require_inputs(network, X, check_finite)
    out = np.empty((X.shape[0], network.outputs), X.dtype)
    call(network.predict, (X.ctypes.data, X.shape[0], out.ctypes.data, network.here))
    return out


@register_jitable
def _predict_into(model, X, out, check_finite):
    network = embedded_at(address_of(model))
    _require_inputs(network, X, check_finite)
    if out.shape[0] != X.shape[0]:
        raise RowsError("out", out.shape[0], X.shape[0])
    if out.shape[1] != network.outputs:
        raise WidthError("out", out.shape[1], "outputs", network.outputs)
    begin, end = out.ctypes.data, out.ctypes.data + out.size * out.itemsize
    if begin < X.ctypes.data + X.size * X.itemsize and X.ctypes.data < end:
        raise SharedMemoryError("out", "X")
    if begin < network.parameters_end and network.parameters < end:
        raise SharedMemoryError("out", "the model's parameters")
    call(network.predict, (X.ctypes.data, X.shape[0], begin, network.here))


@register_jitable
def _require_targets(training, Y, rows, check_finite):
    if Y.shape[0] != rows:
        raise RowsError("Y", Y.shape[0], rows)
    if Y.shape[1] != training.outputs:
        raise WidthError("Y", Y.shape[1], "outputs", training.outputs)
    if not check_finite:
        return
    bad = room()
    call(training.finite, (Y.ctypes.data, Y.size, bad))
    if peek(bad, 0) != 0:
        raise NotFiniteError("Y")
    low, high = load_number(training.targets, 0.0), load_number(training.targets + 8, 0.0)
    if low == -np.inf:  # then there is no highest one either, and no sum
        return
    sums = load_number(training.targets + 16, 0.0) != 0
    for i in range(rows):
        total = 0.0
        for j in range(Y.shape[1]):
            y = Y[i, j]
            if y < low or y > high or (training.signs != 0 and y != low and y != high):
                raise TargetError(y)
            total += y
        if sums and abs(total - 1) > SUM_TOLERANCE:
            raise TargetSumError(i, total)


@register_jitable
def _train_step(model, X, Y, state, check_finite):
    network, training = embedded_at(address_of(model)), training_at(address_of(state))
    if training.network != network.here:
        raise OtherModelError()
    _require_inputs(network, X, check_finite)
    _require_targets(training, Y, X.shape[0], check_finite)
    if X.shape[0] > training.most_rows:
        raise TooManyRowsError(X.shape[0], training.most_rows)
    loss, outcome = room(), room()
    call(training.train, (X.ctypes.data, Y.ctypes.data, X.shape[0], loss, outcome, training.here))
    if peek(outcome, 0) != DONE:
        raise NoStepsLeftError()
    return load_number(loss, 0.0)


@overload_method(ModelType, "predict")
def _overload_predict(model, X, check_finite=True):
    require_matrix("X", X, model)
    rows = rows_of(X)
    return lambda model, X, check_finite=True: _predict(model, rows(X), check_finite)


@overload_method(ModelType, "predict_into")
def _overload_predict_into(model, X, out, check_finite=True):
    require_matrix("X", X, model)
    require_matrix("out", out, model, written=True)
    rows = rows_of(X)
    return lambda model, X, out, check_finite=True: _predict_into(model, rows(X), out, check_finite)


@overload_method(ModelType, "train_step")
def _overload_train_step(model, X, Y, optimizer, check_finite=True):
    require_matrix("X", X, model)
    require_matrix("Y", Y, model)
    if not isinstance(optimizer, StateType) or optimizer.dtype != model.dtype:
        raise TypingError(
            f"the third argument is {optimizer}: in compiled code it must be what "
            "model.training_state(optimizer) returns"
        )
    rows_of_x, rows_of_y = rows_of(X), rows_of(Y)
    return lambda model, X, Y, optimizer, check_finite=True: _train_step(
        model, rows_of_x(X), rows_of_y(Y), optimizer, check_finite
    )
