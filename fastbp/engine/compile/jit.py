"""How the engine is compiled: the one place with the jit flags.

Kernels are compiled once each as C callbacks and call one another by address. That keeps the first start
short (Numba would otherwise link every callee into every caller and optimise it again) and lets one driver
serve every dtype, activation and optimizer: it is handed the addresses of the kernels it needs.
"""

from __future__ import annotations

import _thread
import contextvars
import ctypes
import gc
import threading
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import numba
import numpy
from numba import config, njit, types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from fastbp.engine.compile import linked
from fastbp.engine.compile.arrays import CallersArray
from fastbp.engine.compile.cache import ENDING, INSIDES_ARE_KNOWN, Cache, CallbackCache, sources_changed
from fastbp.engine.compile.direct import library, program
from fastbp.engine.compile.direct.text import NoText
from fastbp.engine.compile.lists import WhileHeld

_compiled: dict[str, Any] = {}
_begun: dict[str, Any] = {}
_ahead: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("ahead", default=None)
# What the types of drivers are called in C, for where they run as Python.
_OF_C: dict[Any, Any] = {
    types.void: None,
    types.int64: ctypes.c_int64,
    types.intc: ctypes.c_int,
    types.float64: ctypes.c_double,
}


def address_of(
    key: str,
    signature: Any,
    make: Callable[[], Callable[..., Any]],
    *,
    driver: bool = False,
    parallel: bool = False,
    emit: Callable[..., None] | None = None,
    as_it_is: bool = False,
) -> int:
    """Address of the C callback named `key`, compiled (or loaded from the cache) on first use.

    make: returns the Python function; called only when the callback is needed. driver: it calls other jitted
    functions. parallel: its `prange` loops have threads. emit: what writes its code, if that is not to be
    found in the function's text. as_it_is: LLVM has nothing to make better in it (see `library.AsItIs`).
    """
    if key not in _compiled:

        def made() -> Any:
            if driver and config.DISABLE_JIT:
                return _AsPython(make(), signature)
            if INSIDES_ARE_KNOWN and not parallel:
                return _Direct(key, make() if emit is None else emit, signature, emit is not None, as_it_is)
            options = OPTIONS | {"parallel": True} if parallel else OPTIONS
            return _Callback(key, _named(make(), key), signature, options)

        missing = _ahead.get()
        if missing is not None:
            missing.append(key)
            if key not in _begun:
                uninterrupted(lambda: _begin(key, made))
            return 0
        uninterrupted(lambda: _finish(key, made))
    return _compiled[key].address


def ahead(ask: Callable[[], object]) -> bool:
    """Call `ask`, and return whether it got all addresses. In it `address_of` begins to compile, and returns
    0 for what is not there yet, which nobody is to keep: no function that asks for an address is cached, and
    who has got none asks again. LLVM is then at work on one callback while the next one is typed and lowered.

    (In a context of its own: a flag that is set and taken back would stay where Ctrl-C comes in between, and
    what is asked for next would have no address.)
    """
    missing: list[str] = []
    context = contextvars.copy_context()
    context.run(_ahead.set, missing)
    context.run(ask)
    return not missing


def _named(function: Callable[..., Any], key: str) -> Callable[..., Any]:
    """The same function under a name of its own, which is that of its machine code.

    Many are made by one line of Python. Numba tells them apart by numbers, which it counts in each process:
    another process gives the same number to another function, and where a third one finds both in the cache
    and has them loaded before it asks where they are, it would get one of them for both.
    """
    f = function
    twin = FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    twin.__module__, twin.__qualname__ = f.__module__, f"{f.__qualname__}.{key}"
    return twin


class _Callback(CFunc):
    """Numba's, cached."""

    address = 0

    def __init__(self, key: str, function: Callable[..., Any], signature: Any, options: Any) -> None:
        super().__init__(function, (signature.args, signature.return_type), {}, options)
        self._cache = Cache(function, key)

    def begin(self) -> None:
        """Load it from the cache; if it is not there, compile it."""
        self._made = self._cache.load_overload(self._sig, self._targetdescr.target_context)
        if self._made is None:
            self._made = self._compile_uncached()
            self._cache.save_overload(self._sig, self._made)

    def finish(self) -> None:
        name = self._made.fndesc.llvm_cfunc_wrapper_name
        self.address = int(self._made.library.get_pointer_to_function(name))


class _Direct:
    """A callback that comes from its text, or from what emits it, and is compiled in two steps."""

    address = 0

    def __init__(
        self, key: str, source: Callable[..., Any], signature: Any, emits: bool, as_it_is: bool
    ) -> None:
        """source: the function, or what emits its code, which `emits` says."""
        # (The loader knows it by its name, and another process may have compiled it.)
        self._name, self._source, self._signature = f"cfunc.fastbp.{key}", source, signature
        self._key, self._emits, self._as_it_is = key, emits, as_it_is
        self._cache = CallbackCache(source, key)

    def begin(self) -> None:
        """Load it from the cache; if it is not there, do all that LLVM has no part in."""
        context = cpu_target.target_context
        self._made = self._cache.load_overload(self._signature, context)
        self._is_new = self._made is None
        if not self._is_new:
            return
        rtsys.initialize(context)
        make = program.module_of_code if self._emits else program.module_of
        module = make(self._name, self._source, self._signature)
        kind = library.AsItIs if self._as_it_is else library.Callback
        self._made = kind(context.codegen(), module, self._name)
        self._made.begin()

    def from_bytecode(self) -> _Callback:
        """The same by Numba, for who has no text of it."""
        key = f"{self._key}-bytecode"
        return _Callback(key, _named(self._source, key), self._signature, OPTIONS)

    def finish(self) -> None:
        if self._is_new:
            self._cache.save_overload(self._signature, self._made)
        self.address = int(self._made.get_pointer_to_function(self._name))


class _AsPython:
    """A driver where nothing is compiled."""

    def __init__(self, function: Callable[..., Any], signature: Any) -> None:
        result, *arguments = (_OF_C[kind] for kind in (signature.return_type, *signature.args))
        self._callback = ctypes.CFUNCTYPE(result, *arguments)(function)
        self.address = int(ctypes.cast(self._callback, ctypes.c_void_p).value)  # type: ignore[arg-type]

    def begin(self) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def callbacks_from() -> str:
    """What callbacks are compiled from, and why not from their texts."""
    if not INSIDES_ARE_KNOWN:
        return "bytecode: the insides of this version of Numba are not known"
    if ENDING != ".py":
        return "bytecode: there are no sources"
    if sources_changed():
        return "bytecode where texts have changed since the import; what is compiled now is not kept"
    return "their texts"


def _begin(key: str, make: Callable[[], Any]) -> None:
    with global_compiler_lock:
        if key not in _compiled and key not in _begun:
            callback = make()
            try:
                callback.begin()
            except NoText:
                callback = callback.from_bytecode()
                callback.begin()
            _begun[key] = callback


def _finish(key: str, make: Callable[[], Any]) -> None:
    with global_compiler_lock:
        if key in _compiled:  # by another thread
            return
        _begin(key, make)
        callback = _begun.pop(key)
        callback.finish()
        _compiled[key] = callback


def uninterrupted(compile: Callable[[], Any]) -> None:
    """Compile in a thread of its own, where there is one. Only the main thread gets Ctrl-C, and gets it at
    once; the other goes on to its end.

    In the middle of LLVM's work, Python code that it calls would swallow a KeyboardInterrupt and leave half a
    function behind. Who is compiling already (code of his own, which uses a kernel) goes on himself.
    """
    if global_compiler_lock.is_locked():
        compile()
    elif threading.current_thread() is not threading.main_thread():
        _uncollected(compile)
    else:
        _compile_elsewhere(lambda: _uncollected(compile))


def _uncollected(compile: Callable[[], Any]) -> None:
    """Without Python's search for garbage meanwhile: it would look again and again through all that Numba has
    made and still needs, for a seventh of the time."""
    searches = gc.isenabled()
    gc.disable()
    try:
        compile()
    finally:
        if searches:
            gc.enable()


def _compile_elsewhere(compile: Callable[[], Any]) -> None:
    """In a thread that goes on to its end whatever comes here. (Not `thread.join`: an interrupted one marks a
    live thread as finished.)"""
    asleep = _thread.allocate_lock()
    asleep.acquire()
    over: list[BaseException | None] = []

    def work() -> None:
        error = None
        try:
            compile()
        except BaseException as raised:
            error = raised
        finally:
            over.append(error)
            asleep.release()

    threading.Thread(target=work).start()
    while not over:
        asleep.acquire(timeout=0.1)
    if over[0] is not None:
        raise over[0]


def dispatcher(
    function: Callable[..., Any], arguments: tuple[Any, ...] | None = None, *, parallel: bool = False
) -> Any:
    """`function` compiled for calls from Python, cached like the callbacks; if the types of its arguments are
    given: now, and for no others.

    Among them may be a `CallersArray` for each array that is not fastbp's own, and a `WhileHeld`. They look
    at what comes, so calls do without Numba's look at the types of all arguments (0.2 us); anything else
    raises TypeError.
    """
    if config.DISABLE_JIT:
        return _uncompiled(function, arguments)
    options: dict[str, Any] = {k: v for k, v in OPTIONS.items() if k != "nopython"}
    options["no_cfunc_wrapper"] = True
    compiled: Any = njit(parallel=parallel, **options)(function)
    compiled._cache = Cache(function, f"{function.__name__}")
    if arguments is not None:
        uninterrupted(lambda: compiled.compile(arguments))
        compiled.disable_compile()
        if any(isinstance(kind, CallersArray | WhileHeld) for kind in arguments):
            return compiled.overloads[arguments].entry_point
    return compiled


def _taken(value: Any, kind: Any) -> Any:
    """What compiled code gets for an argument of that type; TypeError if it would refuse it."""
    if isinstance(kind, CallersArray | WhileHeld):
        return kind.taken(value)
    try:
        given = numba.typeof(value)
    except numba.errors.NumbaError as error:
        raise TypeError(str(error)) from error
    if given != kind:
        raise TypeError(f"no code for {given}, only for {kind}")
    return value


def _uncompiled(function: Callable[..., Any], arguments: tuple[Any, ...] | None) -> Callable[..., Any]:
    """What `dispatcher` returns where nothing is compiled: it takes the same arguments and returns the same
    results."""

    def call(*values: Any) -> Any:
        if arguments is None:
            return _as_python(function(*values))
        if len(values) != len(arguments):
            raise TypeError(f"{len(values)} arguments, expected {len(arguments)}")
        return _as_python(function(*map(_taken, values, arguments)))

    return call


def _as_python(value: Any) -> Any:
    """NumPy's numbers become Python's, as they do when compiled code returns them."""
    if isinstance(value, tuple):
        return tuple(map(_as_python, value))
    return value.item() if isinstance(value, numpy.generic) else value


# nogil: other Python threads run while a kernel does. No fastmath: sums keep their order, so the bits do not
# depend on how a loop was vectorised. error_model numpy: no division checks.
OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy"}
# For functions that only compiled code calls: no entries for Python or C are made. Numba compiles such a
# function once more for each constant that it is called with: hence np.int64(0) where 0 would do.
_INNER: dict[str, Any] = {k: v for k, v in OPTIONS.items() if k != "nopython"} | {
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}
INNER: Any = _INNER | linked.OPTIONS
inner = njit(**INNER)


@cache
def void(n: int) -> Any:
    """The signature of a callback that takes n 64-bit integers (addresses, strides in bytes, counts)."""
    return types.void(*([types.int64] * n))
