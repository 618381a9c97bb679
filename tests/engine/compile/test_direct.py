"""Functions of numbers that are translated from their text mean what they mean in Python."""

import itertools
import linecache
import sys
from typing import NamedTuple

import numpy as np
import pytest
from numba import config, types
from numba.extending import intrinsic

from fastbp.engine.compile import jit
from fastbp.engine.compile.direct import text
from fastbp.engine.compile.direct.program import module_of
from fastbp.engine.compile.direct.values import Refused
from fastbp.engine.compile.intrinsics import allocate, call, load_number, peek, publish, room, store_number
from fastbp.engine.compile.jit import inner

pytestmark = pytest.mark.skipif(
    config.DISABLE_JIT or not jit.INSIDES_ARE_KNOWN, reason="nothing is translated from its text"
)
NUMBERS = (-(1 << 63) + 5, -17, -8, -1, 0, 1, 3, 8, 100, (1 << 62) + 11)
SMALL = [n for n in NUMBERS if abs(n) <= 100]


class Pair(NamedTuple):
    first: int
    second: int


@inner
def divisions(a, b):
    by = b if b != 0 else 7
    return a // by, a % by, a // 8 + a // 10, a % 8 + a % 10


@inner
def signs(a, b):
    return min(a, b, 3) - max(a, -b), abs(a), -a, (a >> 3) ^ (b & 12) + (1 << 5) if a < b else a & -8


@inner
def comparisons(a, b):
    chain = 1 if -9 < a <= b < 50 else 0
    either = 1 if (a == b or a > 3) and not b >= 8 else 2
    number = a and b
    return chain, either, number, (a != b) + (a == 0) * 10


@inner
def early(a, b):
    """A text that is long enough for a function of its own, with several ways out of it."""
    if a < 0:
        return b, a
    total = 0
    for i in range(a):
        if i % 3 == 1:
            continue
        for j in range(10, 0, -2):
            if j + i > b + 9:
                break
            total += i * j
        if total > 300:
            return total, i
    while total > 7:
        total //= 2
        if total == 33:
            break
    steps, step = 0, 3 if b > 0 else -3
    for k in range(a, b, step):
        steps += k
    return (total + steps, a) if b > 2 else (steps - total, b)


@inner
def loops(a, b):
    x, y = early(a, b)
    x, y = y, x
    again, _ = early(y % 40, x)
    return x, y, again, early(b, a)[0]


@inner
def tuples(a, b):
    pair = Pair(a, b)
    if a > b:
        pair = Pair(pair.second, a)
    other = (*pair, 5)
    first, (second, third) = other[0], (other[1] + other[2], pair.first)
    pair = first - second, 3, a  # of another type from here on
    return first, second, third + pair[0], pair[2]


@inner
def floats(a, b):
    place, total = room(), 0.5
    for i in range(3):
        total += i * 0.25 - a / 4
    store_number(place, min(total, 1.5 * b))
    y = load_number(place, np.float64(0))
    return int(np.float32(y)), 1 if y < b else 0, int(abs(total)), int(float(a) * y)


def _callback(function):
    def callback(a, b, out):
        first, second, third, fourth = function(a, b)
        publish(out, first)
        publish(out + 8, second)
        publish(out + 16, third)
        publish(out + 24, fourth)

    return callback


def _enter(address, a, b, out):
    call(address, (a, b, out))


@pytest.fixture(scope="module")
def enter():
    return jit.dispatcher(_enter)


@pytest.mark.parametrize(
    "function, numbers",
    [
        (divisions, NUMBERS),
        (signs, SMALL),
        (comparisons, NUMBERS),
        (loops, SMALL),
        (tuples, SMALL),
        (floats, SMALL),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_what_is_computed_is_what_python_computes(function, numbers, enter, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    address = jit.address_of(
        f"test-{function.__name__}", jit.void(3), lambda: _callback(function), driver=True
    )
    out = np.empty(4, np.int64)
    for a, b in itertools.product(numbers, numbers):
        enter(address, a, b, out.ctypes.data)
        assert tuple(out.tolist()) == _in_python(function, a, b), (a, b)


def _in_python(function, a, b):
    if function is floats:
        totals = list(itertools.accumulate((i * 0.25 - a / 4 for i in range(3)), initial=0.5))
        y = min(totals[-1], 1.5 * b)
        return int(np.float32(y)), 1 if y < b else 0, int(abs(totals[-1])), int(float(a) * y)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "early", early.py_func)
        return tuple(int(n) for n in function.py_func(a, b))


def test_what_has_no_quotient_is_0_and_no_crash(enter, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))

    @inner
    def quotients(a, b):
        return a // b, a % b, 1, 1

    address = jit.address_of("test-no-quotient", jit.void(3), lambda: _callback(quotients), driver=True)
    out = np.empty(4, np.int64)
    for a, b in ((5, 0), (-(1 << 63), -1)):
        enter(address, a, b, out.ctypes.data)
        assert out.tolist() == [0, 0, 1, 1]


def _lists(a):
    publish(a, [1][0])


def _unbound(a):
    if a > 3:
        once = a
    publish(a, once)


def _of_two_types(a):
    x = a
    for _ in range(a):
        publish(a, x)
        x = 0.5


def _unknown(a):
    publish(a, nowhere)  # noqa: F821


@inner
def _deeper(a):
    return _deeper(a)


def _endless(a):
    publish(a, _deeper(a))


def _of_strings(a):
    publish("a", a)


def _of_python(a):
    publish(a, id(a))


@intrinsic
def _object(typingctx, number):
    def codegen(context, builder, signature, values):
        return context.add_dynamic_addr(builder, id(NUMBERS), info="NUMBERS")

    return types.int64(types.int64), codegen


def _of_this_process(a):
    publish(a, _object(a))


@pytest.mark.parametrize(
    "function, why",
    [
        (_lists, "List is not known"),
        (_unbound, "once has no value here"),
        (_of_two_types, "x is of another type in the next turn"),
        (_unknown, "nowhere has no value here"),
        (_endless, "calls itself"),
        (_of_strings, "is no number"),
        (_of_python, "cannot be called"),
        (_of_this_process, "the address of NUMBERS is of this process"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_its_place(function, why):
    with pytest.raises(Refused, match=why) as refused:
        module_of("test", function, jit.void(1))
    assert "line " in str(refused.value) and f"in {function.__name__}, {__file__}" in str(refused.value)


def test_a_file_that_has_changed_is_not_taken_for_what_was_imported(tmp_path):
    path = tmp_path / "changing.py"
    path.write_text("def f(a):\n    return a + 1\n")
    scope = {}
    exec(compile(path.read_text(), str(path), "exec"), scope)
    assert text.text_of(scope["f"]).name == "f"
    for changed in ("def f(a):\n    return a + 2\n", "\ndef f(a):\n    return a + 1\n", ""):
        text.text_of.cache_clear()
        text._definitions.cache_clear()
        path.write_text(changed)
        linecache.clearcache()
        with pytest.raises(text.NoText, match=r"changing\.py has no text, or another one, of f"):
            text.text_of(scope["f"])
    text.text_of.cache_clear()


@inner
def _much(n):
    """A function of its own, so what it cannot do is known where it is called."""
    first, second = 0, 1
    for i in range(n % 7):
        first, second = second, first + second + i
        if first > 50:
            first = first - 50
        while second > 90:
            second -= 90
    memory = allocate(n)
    first += second + peek(memory, 0) * 0
    return memory + first * 0


def _ask_for(n, unused, out):
    publish(out, 1)
    place = _much(n)
    publish(out, 2 + place * 0)


def test_where_there_is_no_memory_a_callback_ends_and_says_so(enter, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", lambda seen: raised.append((seen.exc_type, seen.object)))
    address = jit.address_of("test-memory", jit.void(3), lambda: _ask_for, driver=True)
    out = np.zeros(1, np.int64)
    enter(address, 64, 0, out.ctypes.data)
    assert out[0] == 2 and not raised
    enter(address, 1 << 62, 0, out.ctypes.data)
    assert out[0] == 1 and raised == [(MemoryError, "cfunc.fastbp.test-memory")]
