"""Compiled code on disk, and what it depends on.

What is cached depends on all sources of the engine, on Numba and on the CPU, all of it in the file's name. So an edit is
seen by the next process, and two versions or two CPUs can share a cache directory.
"""

from __future__ import annotations

import hashlib
import pathlib
import pickle
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import numba
import numpy
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

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


class Cache(FunctionCache):
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
    cache = Cache(cache_location, "location")
    return str(cache.cache_path) if cache._enabled else None
