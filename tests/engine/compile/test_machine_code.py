"""LLVM is at work on callbacks while others are typed; they are what they are without that."""

import ast
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from llvmlite.binding import ffi
from numba import config

import fastbp
from fastbp.engine.compile import jit, machine_code
from fastbp.engine.compile.direct.library import Callback
from fastbp.engine.compile.intrinsics import call, observe, publish, room

pytestmark = pytest.mark.skipif(
    config.DISABLE_JIT or not jit.INSIDES_ARE_KNOWN, reason="nothing is compiled by threads of its own"
)


def _doubled(first, out):
    publish(out, 2 * first)


def _of(address, first):
    @jit.dispatcher
    def ask(address, first):
        out = room()
        call(address, (first, out))
        return observe(out)

    return ask(address, first)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def _address(key):
    return jit.address_of(key, jit.void(2), lambda: _doubled, driver=True)


def _ahead(*keys):
    found = []
    jit.ahead(lambda: found.extend(map(_address, keys)))
    return found


def test_what_was_begun_is_finished_when_its_address_is_asked_for(empty_cache):
    assert _ahead("test-begun", "test-begun") == [0, 0]  # and is not begun again
    begun = jit._begun["test-begun"]
    address = _address("test-begun")
    assert jit._compiled["test-begun"] is begun and not jit._begun
    assert address == _address("test-begun") and _of(address, 21) == 42
    assert _ahead("test-begun") == [address]  # there is nothing to wait for
    assert jit.ahead(lambda: _address("test-begun"))
    assert not jit.ahead(lambda: (_address("test-begun"), _address("test-not-begun")))


def test_nobody_keeps_what_is_no_address_yet():
    """A cached function that asks for an address ahead of time would go on to return 0."""
    asking = 0
    for path in Path(fastbp.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(function, ast.FunctionDef) or "address_of(" not in ast.unparse(function):
                continue
            if function.returns is not None and ast.unparse(function.returns) in ("int", "list[int]"):
                asking += 1
                assert "cache" not in "".join(map(ast.unparse, function.decorator_list)), function.name
    assert asking > 10


def test_others_do_not_begin_ahead_of_this_thread():
    found = []

    def ask():
        thread = threading.Thread(target=lambda: found.append(_address("test-of-another-thread")))
        thread.start()
        thread.join()

    jit.ahead(ask)
    assert _of(*found, 4) == 8


def test_ahead_ends_wherever_it_is_interrupted():
    """Ctrl-C at each of its lines, and of what it calls."""
    before, line, seen = sys.gettrace(), 0, 0

    def trace(frame, event, argument):
        nonlocal seen
        if event == "line" and frame.f_code.co_filename in (jit.__file__, __file__):
            seen += 1
            if seen == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    while seen == line or line < 3:
        line, seen = line + 1, 0
        sys.settrace(trace)
        try:
            jit.ahead(lambda: _address("test-interrupted"))
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        assert _address(f"test-after-line-{line}") != 0
    assert _address("test-interrupted") != 0 and line > 5


def test_what_fails_in_the_other_thread_is_raised_where_it_is_asked_for(monkeypatch):
    def fail(self, machine):
        raise MemoryError("none left")

    with monkeypatch.context() as patch:
        patch.setattr(Callback, "_passes", fail)
        _ahead("test-fails")
        with pytest.raises(MemoryError, match="none left"):
            _address("test-fails")
    assert _of(_address("test-fails"), 5) == 10  # another time


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("pause", [0, 0.01, 0.05])
def test_a_child_goes_on_wherever_a_fork_meets_another_thread_that_compiles(pause):
    """It has none of its parent's threads, and no lock that one of them held."""
    keys = [f"test-forked-{pause}-{i}" for i in range(6)]
    done = []

    def compile():
        _ahead(*keys)
        done.extend(_address(key) for key in keys)

    thread = threading.Thread(target=compile)
    thread.start()
    children = []
    while thread.is_alive():
        time.sleep(pause)
        children.append(os.fork())
        if children[-1] == 0:
            signal.alarm(60)
            right = all(_of(_address(key), i) == 2 * i for i, key in enumerate([*keys, f"{keys[0]}-own"]))
            os._exit(0 if right else 1)
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [_of(address, i) for i, address in enumerate(done)] == [0, 2, 4, 6, 8, 10]


def test_the_cache_has_machine_code_and_the_name_of_its_entry(empty_cache):
    address = _address("test-cached")
    own = jit._compiled.pop("test-cached")
    loaded = _address("test-cached")
    assert jit._compiled["test-cached"] is not own and loaded != address and _of(loaded, 7) == 14
    (entry,) = jit._compiled["test-cached"]._made._shared_module.functions
    assert entry.name == "cfunc.fastbp.test-cached"
    (instruction,) = (i for block in entry.blocks for i in block.instructions)
    assert instruction.opcode == "unreachable"


def test_llvmlite_keeps_its_functions_where_they_are_looked_for():
    """Else callbacks compile as before, but one after the other: see machine_code.py."""
    for name in ("LLVMPY_RunNewModulePassManager", "LLVMPY_TargetMachineEmitToMemory"):
        assert machine_code._unlocked(name) is not getattr(ffi.lib, name)
