"""Which core a thread runs on, and how it leaves one that somebody else needs.

A system may wake a thread on the very core of the one that called it, and move one of the two to an idle core
only at one of its next ticks: until then, some milliseconds, a team has one core.
"""

from __future__ import annotations

import sys

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastbp.engine.compile.intrinsics import I32, I64

# Words of a set of cores, as the C library has it (sched.h: 1024 cores).
WORDS = 16
_KNOWS_CORES = sys.platform == "linux"


@intrinsic
def this_core(typingctx):
    """The number of the core that runs this, from 1 on; 0 if nobody can say."""

    def codegen(context, builder, signature, values):
        if not _KNOWS_CORES:
            return I64(0)
        kind = ir.FunctionType(I32, [])
        core = builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_getcpu"), [])
        return builder.sext(builder.add(core, I32(1)), I64)

    return types.int64(), codegen


@intrinsic
def leave_core(typingctx, core):
    """Go on on another core than this one (as of `this_core`), if there is one that the thread may use. Then
    it may use the same ones as before."""

    def codegen(context, builder, signature, values):
        if _KNOWS_CORES:
            _emit_leaving(builder, builder.sub(values[0], I64(1)))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _emit_leaving(b, core):
    words = ir.ArrayType(I64, WORDS)
    size = I64(WORDS * 8)
    allowed, others = cgutils.alloca_once(b, words), cgutils.alloca_once(b, words)
    kind = ir.FunctionType(I32, [I32, I64, words.as_pointer()])
    get, put = (cgutils.get_or_insert_function(b.module, kind, f"sched_{x}etaffinity") for x in "gs")
    known = b.icmp_signed("==", b.call(get, [I32(0), size, allowed]), I32(0))
    known = b.and_(known, b.icmp_unsigned("<", core, I64(WORDS * 64)))
    with b.if_then(known, likely=False):
        b.store(b.load(allowed), others)
        word = b.gep(others, [I64(0), b.lshr(core, I64(6))])
        bit = b.shl(I64(1), b.and_(core, I64(63)))
        b.store(b.and_(b.load(word), b.not_(bit)), word)
        left = I64(0)
        for i in range(WORDS):
            left = b.or_(left, b.load(b.gep(others, [I64(0), I64(i)])))
        with b.if_then(b.icmp_signed("!=", left, I64(0))):
            b.call(put, [I32(0), size, others])
            b.call(put, [I32(0), size, allowed])
