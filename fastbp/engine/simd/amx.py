"""Intel's AMX: eight registers that are matrices of up to 16 rows of 64 bytes ("tiles"), and an instruction
that multiplies two of them, of bfloat16 numbers, and adds the product to a third one, of float32 numbers.

    C (16 x 16) += A (16 x 32, along k) @ B (16 pairs of k x 16 columns)

Here registers 0 to 3 are a square of C of two tiles each way, 4 and 5 two tiles of A below each other, 6 and
7 two of B beside each other. How many rows they have is set before they are used, for all of them at once,
which makes them 0. What was set before is put back in the end: other libraries on the same thread have tiles,
too.

The system gives tiles to a process that asks for them (Linux: a process that does not is killed).
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache

from llvmlite import ir
from numba.core import cgutils

from fastbp.engine.compile.intrinsics import I64
from fastbp.engine.simd.instructions import isa

ROWS, LINE = 16, 64  # of a tile, and bytes of a row
PAIRS = LINE // 4  # of bfloat16 numbers in a row

# Linux's arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), see its Documentation/arch/x86/xstate.rst.
ARCH_PRCTL, ASK_FOR, TILE_DATA = 158, 0x1023, 18

I8 = ir.IntType(8)
_POINTER = I8.as_pointer()


@cache
def _permitted() -> bool:
    """Whether this process may use tiles. Those forked from it may, too."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return False
    numbers = (ctypes.c_long(x) for x in (ARCH_PRCTL, ASK_FOR, TILE_DATA))
    return bool(ctypes.CDLL(None).syscall(*numbers) == 0)


def available() -> bool:
    """Whether products of bfloat16 numbers are taken by tiles here."""
    return isa().tiles and _permitted()


class Tiles:
    """The instructions, at one place in the code that is being built; addresses are 64-bit integers."""

    def __init__(self, b: ir.IRBuilder) -> None:
        self.b = b
        with b.goto_entry_block():
            self._setting, self._before = (self._line() for _ in range(2))
        words = [1, 0, *[0x0040_0040_0040_0040] * 2, 0, 0, 0, 0]  # palette 1; all rows of 64 bytes
        for i, word in enumerate(words):
            self._set(i, I64(word))
        self._call("sttilecfg", self._before)

    def _line(self) -> ir.Value:
        memory = self.b.alloca(ir.ArrayType(I64, LINE // 8))
        memory.align = LINE
        return memory

    def _set(self, i: int, word: ir.Value) -> None:
        self.b.store(word, self.b.gep(self._setting, [I64(0), I64(i)]))

    def _call(self, name: str, *args: ir.Value) -> None:
        pointers = [self.b.bitcast(x, _POINTER) if isinstance(x.type, ir.PointerType) else x for x in args]
        kind = ir.FunctionType(ir.VoidType(), [x.type for x in pointers])
        f = cgutils.get_or_insert_function(self.b.module, kind, f"llvm.x86.{name}")
        self.b.call(f, pointers)

    def set_rows(self, upper: ir.Value, lower: ir.Value) -> None:
        """So many rows of A and C in the upper tiles and in the lower ones, 1 to 16 each."""
        b = self.b
        rows = b.add(b.mul(upper, I64(0x1_0000_0101)), b.mul(lower, I64(0x100_0101_0000)))
        self._set(6, b.add(rows, I64(ROWS * 0x101 << 48)))
        self._call("ldtilecfg", self._setting)

    def put_back(self) -> None:
        self._call("ldtilecfg", self._before)

    def load(self, register: int, address: ir.Value, row: ir.Value) -> None:
        """row: bytes from a row to the next."""
        self._call("tileloadd64", I8(register), self.b.inttoptr(address, _POINTER), row)

    def store(self, register: int, address: ir.Value, row: ir.Value) -> None:
        self._call("tilestored64", I8(register), self.b.inttoptr(address, _POINTER), row)

    def multiply(self, c: int, a: int, b: int) -> None:
        """c += a @ b.

        Even k of a row and a column are summed from 0, in their order, and odd ones; their sum is added to c.
        Subnormal numbers are taken for 0. (Intel, Instruction Set Reference, TDPBF16PS.)
        """
        self._call("tdpbf16ps", I8(c), I8(a), I8(b))
