"""LLVM's work on a function, done by a thread of its own while the next function is typed and lowered.

A first start is half Python's work (Numba's) and half LLVM's, which needs nothing of Python. But llvmlite
lets one thread at a time into LLVM, because all that Numba makes is in one LLVM context. Here a module gets a
context and a target machine of its own, as LLVM wants it for several threads, and its two long calls do
without that lock.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from ctypes import string_at
from typing import Any

from llvmlite import binding
from llvmlite.binding import ffi
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

# From a target machine: passes over a module, and the builder that they run with.
Passes = Callable[[Any], tuple[Any, Any]]


def _cores() -> int:
    """How many threads may work for LLVM. (The one that makes its modules waits for them at the end, so as
    many as there are cores.)"""
    of_process = getattr(os, "sched_getaffinity", None)
    return (len(of_process(0)) if of_process else os.cpu_count()) or 1


_free = threading.Semaphore(_cores())
_at_work: list[threading.Thread] = []


def _wait() -> None:
    """Before a fork: for whoever is compiling. The child would have none of these threads, but all locks that
    they hold, Numba's and LLVM's own."""
    global_compiler_lock.acquire()
    for thread in _at_work:
        thread.join()


def _go_on() -> None:
    """After it, in both."""
    if global_compiler_lock.is_locked():
        global_compiler_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_go_on)


def begin(module: Any, codegen: Any, passes: Passes) -> Future[bytes]:
    """Begin to make the object file of a module for Numba's target. The caller holds Numba's lock.

    passes: what is done to the module before.
    """
    made: Future[bytes] = Future()
    options: dict[str, Any] = {"opt": config.OPT}
    codegen._customize_tm_options(options)
    bitcode, triple = module.as_bitcode(), module.triple

    def work() -> None:
        try:
            with _free:
                machine = binding.Target.from_triple(triple).create_target_machine(**options)
                result = _make(bitcode, machine, *passes(machine))
        except BaseException as error:
            made.set_exception(error)
        else:
            made.set_result(result)

    thread = threading.Thread(target=work)
    thread.start()
    _at_work[:] = [*filter(threading.Thread.is_alive, _at_work), thread]
    return made


def _make(bitcode: bytes, machine: Any, passes: Any, builder: Any) -> bytes:
    module = binding.parse_bitcode(bitcode, binding.create_context())
    _unlocked("LLVMPY_RunNewModulePassManager")(passes, module, builder)
    with ffi.OutputString() as error:
        buffer = _unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        code = string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)
    return code


def _unlocked(name: str) -> Any:
    """One of llvmlite's functions without its lock around it, if that is where it was."""
    function = getattr(ffi.lib, name)
    return getattr(function, "_cfn", function)
