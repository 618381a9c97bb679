"""How the engine is compiled: the one place with the jit flags, the cache, and the machine-level intrinsics.

Kernels are compiled once each as C callbacks and call one another by address. That keeps the first start short
(Numba would otherwise link every callee into every caller and optimise it again) and lets one driver serve
every dtype, activation and optimizer: it is handed the addresses of the kernels it needs.

What is cached depends on all sources of the engine, on Numba and on the CPU, all of it in the file's name. So an edit is
seen by the next process, and two versions or two CPUs can share a cache directory.
"""

from __future__ import annotations

import ctypes
import hashlib
import pathlib
import pickle
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import numba
import numpy
from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.extending import intrinsic

I64 = ir.IntType(64)
I32 = ir.IntType(32)


# Numba's own way to load a function from the cache first loads all of its type registries. That takes 0.3 s and is of use only to those
# who compile; left out for the version of which that is known.
LOADS_WITHOUT_REGISTRIES = numba.version_info.short == (0, 68)


PACKAGE = pathlib.Path(__file__).resolve().parents[2]  # the folder fastbp


def compiled_sources() -> list[pathlib.Path]:
    """The files that compiled code comes from: the engine, and the definitions whose constants it takes over."""
    definitions = [PACKAGE / "activations.py", PACKAGE / "losses.py", *(PACKAGE / "formulas").glob("*.py")]
    return sorted([*(PACKAGE / "engine").rglob("*.py"), *definitions])


@cache
def source_digest() -> str:
    """A digest of everything that compiled code depends on besides its signature."""
    versions = sys.implementation.cache_tag, sys.platform, numba.__version__, llvmlite.__version__, numpy.__version__
    h = hashlib.sha256(repr(versions).encode())
    for path in compiled_sources():
        h.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    codegen = cpu_target.target_context.codegen()
    h.update(repr(codegen.magic_tuple()).encode())
    return h.hexdigest()[:16]


class _Cache(FunctionCache):
    """Numba's function cache, with the digest in the file names instead of one file's time stamp in the index.

    Each signature has an index of its own: Numba numbers a function's signatures as they are compiled, and two processes that do so
    at the same time give the same number to different ones. Where nothing can be written, every process compiles for itself.
    """

    _impl_class = CompileResultCacheImpl

    def __init__(self, py_func: Callable[..., Any], key: str) -> None:
        self._name = repr(py_func)
        self._py_func = py_func
        self._key = key
        try:
            self._impl = self._impl_class(py_func)
        except RuntimeError:  # "no locator available": neither NUMBA_CACHE_DIR, nor next to the source, nor at home
            self.disable()
            return
        self._cache_path = self._impl.locator.get_cache_path()
        self.enable()

    def _file_of(self, sig: Any) -> None:
        name = f"fastbp-{self._key}-{hashlib.sha256(str(sig).encode()).hexdigest()[:8]}-{source_digest()}"
        self._cache_file = IndexDataCacheFile(cache_path=self._cache_path, filename_base=name, source_stamp=source_digest())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        self._file_of(sig)
        try:
            if not LOADS_WITHOUT_REGISTRIES:
                return super().load_overload(sig, target_context)
            rtsys.initialize(target_context)
            with self._guard_against_spurious_io_errors():
                return self._load_overload(sig, target_context)
        except (OSError, EOFError, pickle.UnpicklingError):  # gone or cut short meanwhile
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled:
            return
        self._file_of(sig)
        try:
            super().save_overload(sig, data)
        except OSError:  # the disk is full, or the folder has become read-only
            self.disable()

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (sig, codegen.magic_tuple())


def cache_location() -> str | None:
    """The folder where compiled code is kept, or None if there is none that can be written."""
    cache = _Cache(cache_location, "location")
    return str(cache.cache_path) if cache._enabled else None


_compiled: dict[str, Any] = {}


def address_of(key: str, signature: Any, make: Callable[[], Callable[..., Any]], *, driver: bool = False) -> int:
    """Address of the C callback named `key`, compiled (or loaded from the cache) on first use.

    make: returns the Python function; called only when the callback is needed. driver: it calls other jitted functions.
    """
    if key not in _compiled:
        uninterrupted(lambda: _compile(key, signature, make, driver))
    callback = _compiled[key]
    if isinstance(callback, CFunc):
        return int(callback.address)  # type: ignore[arg-type]
    return int(ctypes.cast(callback, ctypes.c_void_p).value)  # type: ignore[arg-type]


def _compile(key: str, signature: Any, make: Callable[[], Callable[..., Any]], driver: bool) -> None:
    with global_compiler_lock:
        if key in _compiled:  # by another thread
            return
        function = make()
        if driver and config.DISABLE_JIT:
            _compiled[key] = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(signature.args))(function)
            return
        callback = CFunc(function, (signature.args, signature.return_type), locals={}, options=OPTIONS)
        callback._cache = _Cache(function, key)
        callback.compile()
        _compiled[key] = callback


def uninterrupted(compile: Callable[[], Any]) -> None:
    """Compile in a thread of its own, where there is one. Only the main thread gets Ctrl-C, and gets it at once; the other goes on to its end.

    In the middle of LLVM's work, Python code that it calls would swallow a KeyboardInterrupt and leave half a function behind.
    """
    if threading.current_thread() is not threading.main_thread():
        return compile()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            compile()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        thread.join(0.1)
    if errors:
        raise errors[0]


def dispatcher(function: Callable[..., Any], arguments: tuple[Any, ...] | None = None, *, parallel: bool = False) -> Any:
    """`function` compiled for calls from Python, cached like the callbacks; if the types of its arguments are given: now, and for no others."""
    if config.DISABLE_JIT:

        def as_compiled(*values: Any) -> Any:
            try:
                given = None if arguments is None else tuple(map(numba.typeof, values))
            except numba.errors.NumbaError as error:
                raise TypeError(str(error)) from error
            if given != arguments:
                raise TypeError(f"no code for {given}, only for {arguments}")
            return _as_python(function(*values))

        return as_compiled
    options: dict[str, Any] = {k: v for k, v in OPTIONS.items() if k != "nopython"}
    compiled: Any = njit(parallel=parallel, **options)(function)
    compiled._cache = _Cache(function, f"{function.__name__}")
    if arguments is not None:
        uninterrupted(lambda: compiled.compile(arguments))
        compiled.disable_compile()
    return compiled


def _as_python(value: Any) -> Any:
    """NumPy's numbers become Python's, as they do when compiled code returns them."""
    if isinstance(value, tuple):
        return tuple(map(_as_python, value))
    return value.item() if isinstance(value, numpy.generic) else value


# nogil: other Python threads run while a kernel does. No fastmath: sums keep their order, so the bits do not depend on
# how a loop was vectorised. error_model numpy: no division checks.
OPTIONS = {"nopython": True, "nogil": True, "error_model": "numpy"}
# For functions that only compiled code calls: no entries for Python or C are made. Numba compiles such a function once more for each
# constant that it is called with: hence np.int64(0) where 0 would do.
_INNER: dict[str, Any] = {k: v for k, v in OPTIONS.items() if k != "nopython"} | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
inner = njit(**_INNER)


def void(n: int) -> Any:
    """The signature of a callback that takes n 64-bit integers (addresses, strides in bytes, counts)."""
    return types.void(*([types.int64] * n))


@intrinsic
def call(typingctx, address, args):
    """call(address, (i, j, ...)): run the callback at that address."""
    n = len(args)

    def codegen(context, builder, signature, values):
        fnty = ir.FunctionType(ir.VoidType(), [I64] * n)
        builder.call(builder.inttoptr(values[0], fnty.as_pointer()), [builder.extract_value(values[1], i) for i in range(n)])
        return context.get_dummy_value()

    return types.void(types.int64, types.UniTuple(types.int64, n)), codegen


@intrinsic
def peek(typingctx, address, index):
    """The index-th 64-bit integer at address."""

    def codegen(context, builder, signature, values):
        base = builder.inttoptr(values[0], I64.as_pointer())
        return builder.load(builder.gep(base, [values[1]]))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def publish(typingctx, address, value):
    """Store an integer so that whoever reads it with `observe` also sees all that was written before."""

    def codegen(context, builder, signature, values):
        builder.store_atomic(values[1], builder.inttoptr(values[0], I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def observe(typingctx, address):
    def codegen(context, builder, signature, values):
        return builder.load_atomic(builder.inttoptr(values[0], I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def fetch_add(typingctx, address, value):
    def codegen(context, builder, signature, values):
        return builder.atomic_rmw("add", builder.inttoptr(values[0], I64.as_pointer()), values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def cpu_pause(typingctx):
    """Tell the core that this is a waiting loop (x86 only; elsewhere nothing)."""

    def codegen(context, builder, signature, values):
        if "86" in str(context.codegen()._tm.triple):
            f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause")
            builder.call(f, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def cycles(typingctx):
    """The time stamp counter (x86 only; elsewhere always 0)."""

    def codegen(context, builder, signature, values):
        if "86" not in str(context.codegen()._tm.triple):
            return I64(0)
        f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I64, []), "llvm.readcyclecounter")
        return builder.call(f, [])

    return types.int64(), codegen


@intrinsic
def yield_core(typingctx):
    """Let another thread have this core."""
    import sys

    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"

    def codegen(context, builder, signature, values):
        f = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), name)
        builder.call(f, [])
        return context.get_dummy_value()

    return types.void(), codegen


if config.DISABLE_JIT:
    # For debuggers and coverage: drivers run as Python, alone, and call the compiled tile and blocks through ctypes.

    def call(address, args):
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(args))(address)(*map(int, args))

    def peek(address, index):
        return ctypes.c_int64.from_address(int(address) + 8 * int(index)).value

    def observe(address):
        return peek(address, 0)
