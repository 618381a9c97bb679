"""Compiled code on disk, and what it depends on.

What is cached depends on all sources of the engine, on Numba and on the CPU, all of it in the file's name. So
an edit is seen by the next process, and two versions or two CPUs can share a cache directory.
"""

from __future__ import annotations

import hashlib
import pathlib
import pickle
import sys
import time
import uuid
from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite
import numba
import numpy
from numba.core.caching import CodeLibraryCacheImpl, CompileResultCacheImpl, FunctionCache
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps

# Whether this is a version of which the insides are known. With others, functions are compiled and loaded
# as Numba does it, in more time.
INSIDES_ARE_KNOWN = numba.version_info.short == (0, 68)

DIGEST_BYTES = hashlib.sha256().digest_size


PACKAGE = pathlib.Path(__file__).resolve().parents[2]  # the folder fastbp
ENDING = pathlib.Path(__file__).suffix  # ".pyc" where bytecode is all that there is, as in a frozen program
_IMPORTED = time.time()


def compiled_sources() -> list[pathlib.Path]:
    """The files that compiled code comes from: the engine, and the definitions whose constants it takes
    over."""
    of_package = (PACKAGE / f"{name}{ENDING}" for name in ("activations", "losses"))
    definitions = [*of_package, *(PACKAGE / "formulas").glob(f"*{ENDING}")]
    folders = (PACKAGE / "engine", PACKAGE / "kernels")
    return sorted([*(path for folder in folders for path in folder.rglob(f"*{ENDING}")), *definitions])


def sources_changed() -> bool:
    """Whether they may be others by now than this process has imported: a new version was installed, or
    somebody edits. Then nothing that it compiles is for processes that import them now, nor theirs for it."""
    changes = (max(stat.st_mtime, stat.st_ctime) for stat in map(pathlib.Path.stat, compiled_sources()))
    return any(changed > _IMPORTED for changed in changes)


@cache
def source_digest() -> str:
    """The digest in the names of the process's files, which is nobody else's where sources have changed."""
    digest = digest_of_sources()
    return uuid.uuid4().hex[:16] if sources_changed() else digest


def digest_of_sources() -> str:
    """A digest of everything that compiled code depends on besides its signature."""
    versions = (
        sys.implementation.cache_tag,
        sys.platform,
        numba.__version__,
        llvmlite.__version__,
        numpy.__version__,
    )
    h = hashlib.sha256(repr(versions).encode())
    for path in compiled_sources():
        h.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
    codegen = cpu_target.target_context.codegen()
    h.update(repr(codegen.magic_tuple()).encode())
    return h.hexdigest()[:16]


class Cache(FunctionCache):
    """Numba's function cache, with a file for each signature: a SHA-256 of all the rest, then the pickled
    code.

    The file's name holds the signature and `source_digest` instead of an index with a time stamp, because
    Numba numbers a function's signatures as they are compiled, and two processes that do so at the same time
    give the same number to different ones. Nothing is unpickled or run that is not what was written: a file
    that disks or people have damaged is like none, and is written again. Where nothing can be written, every
    process compiles for itself.
    """

    _impl_class: Any = CompileResultCacheImpl

    def __init__(self, py_func: Callable[..., Any], key: str) -> None:
        self._name = repr(py_func)
        self._py_func = py_func
        self._key = key
        try:
            self._impl = self._impl_class(py_func)
        except (
            RuntimeError
        ):  # "no locator available": neither NUMBA_CACHE_DIR, nor next to the source, nor at home
            self.disable()
            return
        self._cache_path = self._impl.locator.get_cache_path()
        self.enable()

    def _file_of(self, sig: Any) -> pathlib.Path:
        signature = hashlib.sha256(str(sig).encode()).hexdigest()[:8]
        return pathlib.Path(self._cache_path, f"fastbp-{self._key}-{signature}-{source_digest()}.nbc")

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if not self._enabled:
            return None
        try:
            content = self._file_of(sig).read_bytes()
        except OSError:  # not there, or not readable
            return None
        digest, code = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if digest != _digest_of(sig, code):
            return None
        if INSIDES_ARE_KNOWN:
            # Numba first loads all of its type registries, for 0.3 s, which is of use only to those who
            # compile.
            rtsys.initialize(target_context)
        else:
            target_context.refresh()
        return self._impl.rebuild(target_context, pickle.loads(code))

    def save_overload(self, sig: Any, data: Any) -> None:
        if not self._enabled or sources_changed() or not self._impl.check_cachable(data):
            return
        code = dumps(self._impl.reduce(data))
        try:
            self._impl.locator.ensure_cache_path()
            _replace(self._file_of(sig), _digest_of(sig, code) + code)
        except (
            OSError
        ):  # the disk is full, the folder has become read-only, or something else bears the file's name
            self.disable()


class _Libraries(CodeLibraryCacheImpl):
    _filename_prefix: Any = ""


class CallbackCache(Cache):
    """The same for machine code alone."""

    _impl_class = _Libraries


def _digest_of(sig: Any, code: bytes) -> bytes:
    return hashlib.sha256(str(sig).encode() + b"\0" + code).digest()


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Write a file so that other processes see all of it or what was there before."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def cache_location() -> str | None:
    """The folder where compiled code is kept, or None if there is none that can be written."""
    cache = Cache(cache_location, "location")
    return str(cache.cache_path) if cache._enabled else None
