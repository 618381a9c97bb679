"""How functions are compiled that only compiled code calls: to code that is linked into their callers, and
optimised there.

Numba does for each function all that it does for one that Python calls: it optimises it alone and with all
of its callees, and makes machine code of them, which nobody runs. For a function that calls twenty others
that takes a third of the time. It is left out for the version of which the insides are known.
"""

from __future__ import annotations

from typing import Any

from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.environment import lookup_environment

from fastbp.engine.compile.cache import INSIDES_ARE_KNOWN
from fastbp.engine.compile.front_end import OfNumbers


class _Once(JITCodeLibrary):
    """Code that is optimised when all that it calls is linked in, and not before."""

    def _optimize_functions(self, module: Any) -> None:
        """Numba does so first for each function alone, to need less memory."""
        module.data_layout = self._codegen._data_layout


class _Linked(_Once):
    """Code that is never run itself."""

    def _optimize_final_module(self) -> None:
        """Left to the caller's library."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True


def _no_executable(library: Any, description: Any, environment: Any) -> Any:
    """What stands for the function in Numba's tables; it cannot be called."""
    name = description.qualname.split(".")[-1]
    return _dynfunc.make_function(description.lookup_module(), name, "", 0, environment, (library,))


class _Pipeline(OfNumbers):
    """With such a library at its end. (The context is this compilation's own copy.)"""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx
        context.get_executable = _no_executable
        self.state.library = _Linked(context.codegen(), "linked")


class _KernelPipeline(OfNumbers):
    """For functions that Python calls, too. Those that are linked into them are never run themselves, so
    the Python objects among their constants are made known here."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx
        self._executable, context.get_executable = context.get_executable, self._with_objects
        self.state.library = _Once(context.codegen(), "kernel")
        self.state.library.enable_object_caching()

    def _with_objects(self, library: Any, description: Any, environment: Any) -> Any:
        made = self._executable(library, description, environment)
        for name in (variable.name for variable in library._final_module.global_variables):
            if (others := lookup_environment(name)) is not None:
                library.codegen.set_env(name, others)
        return made


# What `njit` is given for it.
OPTIONS: dict[str, Any] = {"pipeline_class": _Pipeline} if INSIDES_ARE_KNOWN else {}
# What a dispatcher is given whose function is linked with such ones that have Python objects.
OF_KERNELS: dict[str, Any] = {"pipeline_class": _KernelPipeline} if INSIDES_ARE_KNOWN else {}
