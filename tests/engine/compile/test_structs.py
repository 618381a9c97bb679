"""Structs that Python fills in and compiled code reads: the same fields on both sides, in every process."""

import ast
import ctypes
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp.engine import structs
from fastbp.engine.compile import jit
from fastbp.engine.compile.struct import Struct, at, size_of, struct, view_of
from tests.support.processes import python


@struct
class Inner(Struct):
    first: int
    second: int


@struct
class Outer(Struct):
    before: int
    inner: Inner
    after: int


outer_at = view_of(Outer)


@jit.inner
def swap(inner):
    inner.first, inner.second = inner.second, inner.first
    return inner.here


def visit(address):
    outer = outer_at(address)
    place = swap(outer.inner)
    outer.before = place - address
    outer.after = outer.after + outer.inner.first


def test_compiled_code_reads_and_writes_the_fields_that_python_has():
    memory = np.array([1, 20, 300, 4000], np.int64)
    outer = at(Outer, memory.ctypes.data)
    assert (size_of(Outer), outer.here) == (32, memory.ctypes.data)
    assert (outer.before, outer.inner.first, outer.inner.second, outer.after) == (1, 20, 300, 4000)
    address = jit.address_of("test-structs", jit.void(1), lambda: visit, driver=True)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(memory.ctypes.data)
    assert memory.tolist() == [8, 300, 20, 4300]


def test_every_struct_is_whole_integers_without_gaps():
    """So that a struct is what its fields say, and two structs follow each other in memory."""
    found = [
        kind
        for kind in vars(structs).values()
        if isinstance(kind, type) and issubclass(kind, ctypes.Structure)
    ]
    assert len(found) > 15
    for kind in found:
        sizes = [ctypes.sizeof(field) for _, field in kind._fields_]
        assert ctypes.sizeof(kind) == sum(sizes), kind
        assert kind.__doc__ or kind is structs.Layer, kind


ORDERS = (
    "MLP([3, 40, 2], hidden='tanh', layer_norm=True)",
    "MLP([3, 2], output='softmax')",
)


@pytest.mark.slow
def test_processes_that_compile_in_other_orders_share_a_cache(tmp_path):
    """The types' names depend on no counter of the process, and cached code works whoever has compiled it."""
    code = """
import hashlib
import numba
import numpy as np
from numba.core.itanium_mangler import mangle_type_or_value
from fastbp.engine.compile.struct import Struct, struct
{before}
from fastbp import MLP
from fastbp.engine import structs
X = np.ones((40, 3), "f")
digests = []
for model in ({models}):
    digests.append(hashlib.sha256(model.predict(X).tobytes()).hexdigest()[:8])
print([mangle_type_or_value(kind.compiled) for kind in (structs.Plan, structs.Layer)], sorted(digests))
"""
    others = """
numba.typeof(np.zeros(1, [("x", "i8"), ("y", "f4")]))
@struct
class Other(Struct):
    x: int
"""
    found, files = [], []
    for folder, models, before in (
        ("a", ORDERS, ""),
        ("b", ORDERS[::-1], others),
        ("a", ORDERS[::-1], others),
    ):
        with_seed = ", ".join(model[:-1] + ", seed=0)" for model in models)
        found.append(
            python("-c", code.format(models=with_seed, before=before), NUMBA_CACHE_DIR=str(tmp_path / folder))
        )
        files.append(sorted(path.name for path in (tmp_path / folder).rglob("fastbp-*")))
    assert found[0] == found[1] == found[2]
    assert files[0] == files[1] == files[2]  # the third process has compiled nothing
    assert len(files[0]) > 10


def test_no_two_structs_share_a_name():
    """Compiled code knows a struct by its name alone."""
    package = Path(fastbp.__file__).parent
    found = [
        node.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(b, ast.Name) and b.id == "Struct" for b in node.bases)
    ]
    assert len(found) > 10 and len(set(found)) == len(found), sorted(found)
