"""How functions are compiled that only compiled code calls: to code that is linked into their callers, and
optimised there.

Numba does for each function all that it does for one that Python calls: it optimises it with all of its
callees, and makes machine code of them, which nobody runs. In a driver of twenty functions that takes a third
of the time. Left out for the version of which the insides are known.
"""

from __future__ import annotations

from typing import Any

import numba
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler


class _Linked(JITCodeLibrary):
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


class _Pipeline(Compiler):
    """Numba's own, with such a library at its end. (The context is this compilation's own copy.)"""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        context = self.state.targetctx
        context.get_executable = _no_executable
        self.state.library = _Linked(context.codegen(), "linked")


# What `njit` is given for it. Such a function has no environment: no Python object among its constants.
OPTIONS: dict[str, Any] = {"pipeline_class": _Pipeline} if numba.version_info.short == (0, 68) else {}
