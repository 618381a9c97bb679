"""How functions of numbers go through Numba: without what only others need.

Before LLVM sees a function, Numba finds the types of all its values and rewrites it, and that takes longer
than all that LLVM does. Of its passes most look for array expressions, closures, comprehensions, lists to
unroll and the like, and renew the function's analysis behind them. And for each operator it goes through all
that may be meant by it, for each `+` anew. Drivers know nothing but integers and tuples of them: they leave
those passes out, and what an operator means for some types is found once. A first fit takes 1.5 s less.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from numba import types
from numba.core import typed_passes, untyped_passes
from numba.core.compiler import Compiler, DumpParforDiagnostics
from numba.core.typing import Context

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


class _Remembering(Context):
    """A typing context that remembers what operators and functions of Numba's own return."""

    signatures: ClassVar[dict[Any, Any]] = {}

    def resolve_function_type(self, function: Any, args: Any, kws: Any) -> Any:
        if kws or not isinstance(function, types.Function):
            return super().resolve_function_type(function, args, kws)
        key = function, args
        if key not in self.signatures:
            signature = super().resolve_function_type(function, args, kws)
            if signature is None:
                return None
            self.signatures[key] = signature
        return self.signatures[key]


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
        self.state.typingctx = _remembering(typing)

    def define_pipelines(self) -> list[Any]:
        (pipeline,) = super().define_pipelines()
        pipeline.passes = [(kind, about) for kind, about in pipeline.passes if kind not in _NEEDLESS]
        pipeline.finalize()
        return [pipeline]
