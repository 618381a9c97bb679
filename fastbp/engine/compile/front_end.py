"""How functions of numbers go through Numba: without what only others need.

Before LLVM sees a function, Numba finds the types of all its values and rewrites it, and that takes longer
than all that LLVM does. Of its passes most look for array expressions, closures, comprehensions, lists to
unroll and the like, and renew the function's analysis behind them. And for each operator it goes through all
that may be meant by it, for each `+` anew. Drivers know nothing but integers and tuples of them: they leave
those passes out, and what an operator means for some types is found once. A first fit takes 1.5 s less.
And `min` and `max` are instructions: a first call of a kernel takes up to 0.2 s less.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache, reduce
from typing import Any

from numba import types
from numba.core import typed_passes, untyped_passes
from numba.core.compiler import Compiler, DumpParforDiagnostics
from numba.core.datamodel import models
from numba.core.errors import TypingError
from numba.core.typing import Context, signature
from numba.core.typing.templates import AbstractTemplate
from numba.extending import lower_builtin, register_model

# Passes without which a function of numbers is compiled to the same code. (If one that needs them comes here,
# Numba does not compile it. GenericRewrites stays: without it `shape[0]` is looked up as any index is.)
_NEEDLESS = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.DeadBranchPrune,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,
    typed_passes.AnnotateTypes,
    DumpParforDiagnostics,
}


class _Function(types.Function):
    """One of Numba's functions or operators, which remembers what it returns."""

    def __init__(self, function: types.Function) -> None:
        super().__init__((*_OF_INTEGERS.get(function.typing_key, ()), *function.templates))
        self._returns: dict[Any, Any] = {}

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return super().get_call_type(context, args, kws)
        if args not in self._returns:
            self._returns[args] = super().get_call_type(context, args, kws)
        return self._returns[args]


register_model(_Function)(models.OpaqueModel)
_remembering_function = cache(_Function)


class _OfIntegers(AbstractTemplate):
    """`min` and `max`: two instructions. (Numba's own is one more function to be compiled.)"""

    def generic(self, args: Any, kws: Any) -> Any:
        if kws or len(args) < 2 or any(kind != types.int64 for kind in args):
            return None
        return signature(types.int64, *args)


class _Min(_OfIntegers):
    key = min


class _Max(_OfIntegers):
    key = max


_OF_INTEGERS: dict[Any, tuple[type[_OfIntegers]]] = {min: (_Min,), max: (_Max,)}


def _keeping(sign: str) -> Any:
    """What emits code that keeps each number that is so, compared with those before."""

    def emit(context: Any, builder: Any, signature: Any, numbers: Any) -> Any:
        return reduce(lambda a, b: builder.select(builder.icmp_signed(sign, b, a), b, a), numbers)

    return emit


lower_builtin(min, types.VarArg(types.int64))(_keeping("<"))
lower_builtin(max, types.VarArg(types.int64))(_keeping(">"))


class _Remembering(Context):
    """A typing context whose functions remember what they return."""

    def resolve_value_type(self, value: Any) -> Any:
        kind = super().resolve_value_type(value)
        return _remembering_function(kind) if type(kind) is types.Function else kind

    def resolve_function_type(self, function: Any, args: Any, kws: Any) -> Any:
        if isinstance(function, _Function):
            with suppress(TypingError):  # of which Numba makes a report
                return function.get_call_type(self, args, kws)
        return super().resolve_function_type(function, args, kws)


@cache
def _remembering(context: Any) -> Any:
    """The same context, of which nothing is copied."""
    made = object.__new__(_Remembering)
    made.__dict__ = context.__dict__
    return made


class OfNumbers(Compiler):
    """Numba's compiler for functions of numbers."""

    def __init__(self, typing: Any, *arguments: Any) -> None:
        super().__init__(typing, *arguments)
        self.state.typingctx = self.state.targetctx.typing_context = _remembering(typing)

    def define_pipelines(self) -> list[Any]:
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [(kind, about) for kind, about in pipeline.passes if kind not in _NEEDLESS]
        pipeline.finalize()
        return [pipeline]
