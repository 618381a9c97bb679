"""Arrays in compiled code of which it holds no reference.

A compiled function counts a reference of each argument when it begins and one less when it ends. Where it is
inlined LLVM takes both away, but only if nothing can be raised in between; they take as long as to work on
some hundred numbers. So kernels that look at shapes first turn their arguments into what is not counted.
Whoever called keeps them alive.
"""

from __future__ import annotations

from typing import Any

from numba import config, types
from numba.core.datamodel import models
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, register_model


class Uncounted(types.Type):
    """An array's type without the references."""

    def __init__(self, array: types.Array) -> None:
        self.array, self.dtype, self.ndim = array, array.dtype, array.ndim
        super().__init__(name=f"uncounted_{array}")


def plain(kind: Any) -> Any:
    """The array's type, of either."""
    return kind.array if isinstance(kind, Uncounted) else kind


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
        return types.intp if name in ("size", "nbytes") else None


@lower_getattr_generic(Uncounted)
def _attribute(context: Any, builder: Any, kind: Any, value: Any, name: str) -> Any:
    if name == "dtype":
        return context.get_dummy_value()
    array = context.make_array(kind.array)(context, builder, value)
    if name == "shape":
        return array.shape
    return array.nitems if name == "size" else builder.mul(array.nitems, array.itemsize)


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

    return plain(array)(array), codegen


if config.DISABLE_JIT:

    def uncounted(argument: Any) -> Any:
        """The same in Python."""
        return argument

    def counted(array: Any) -> Any:
        """The same in Python."""
        return array
