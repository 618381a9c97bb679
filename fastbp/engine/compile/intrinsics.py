"""What compiled functions can do with addresses, other cores and the core they run on."""

from __future__ import annotations

import ctypes
import threading
import time

import numpy
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

I64 = ir.IntType(64)
I32 = ir.IntType(32)
ALIGNED = 64  # bytes: a cache line, and the longest vector
SCRATCH = 16 * 1024


@intrinsic
def call(typingctx, address, args):
    """call(address, (i, j, ...)): run the callback at that address.

    An argument may be a tuple of integers, which stands for all of them.
    """
    kinds = [kind if isinstance(kind, types.BaseTuple) else types.int64 for kind in args]

    def codegen(context, builder, signature, values):
        numbers = []
        for i, kind in enumerate(kinds):
            value = builder.extract_value(values[1], i)
            if isinstance(kind, types.BaseTuple):
                numbers += [builder.extract_value(value, j) for j in range(len(kind))]
            else:
                numbers.append(value)
        fnty = ir.FunctionType(ir.VoidType(), [I64] * len(numbers))
        builder.call(builder.inttoptr(values[0], fnty.as_pointer()), numbers)
        return context.get_dummy_value()

    return types.void(types.int64, types.Tuple(kinds)), codegen


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
def exchange(typingctx, address, value):
    """Store an integer, and return what was there: to take what others may want to take, too."""

    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[0], I64.as_pointer())
        return builder.atomic_rmw("xchg", pointer, values[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def room(typingctx):
    """The address of a 64-bit integer on the stack, there until the function returns. It differs from thread
    to thread."""

    def codegen(context, builder, signature, values):
        return builder.ptrtoint(cgutils.alloca_once(builder, I64), I64)

    return types.int64(), codegen


@intrinsic
def scratch(typingctx):
    """The address of SCRATCH bytes on the stack, a multiple of ALIGNED, there until the function returns. (To
    allocate and release some takes 40 ns.)"""

    def codegen(context, builder, signature, values):
        memory = cgutils.alloca_once(builder, I64, size=I64((SCRATCH + ALIGNED) // 8))
        return builder.and_(builder.add(builder.ptrtoint(memory, I64), I64(ALIGNED - 1)), I64(-ALIGNED))

    return types.int64(), codegen


@intrinsic
def load_number(typingctx, address, like):
    """The number at address, of the type of `like`."""

    def codegen(context, builder, signature, values):
        kind = context.get_value_type(signature.return_type)
        return builder.load(builder.inttoptr(values[0], kind.as_pointer()))

    return like(types.int64, like), codegen


@intrinsic
def store_number(typingctx, address, value):
    """Store a number, of whatever type it is."""

    def codegen(context, builder, signature, values):
        builder.store(values[1], builder.inttoptr(values[0], values[1].type.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, value), codegen


@intrinsic
def allocate(typingctx, size):
    """The address of so many bytes, until they are released; it is a multiple of ALIGNED. MemoryError where
    there are none. (`np.empty` takes 0.12 s to compile.)"""

    def codegen(context, builder, signature, values):
        size = builder.add(values[0], I64(ALIGNED))
        memory = builder.ptrtoint(context.nrt.allocate(builder, size), I64)
        begin = builder.and_(builder.add(memory, I64(ALIGNED)), I64(-ALIGNED))
        # (What Numba gives is aligned for any number, so there is room for one in between.)
        builder.store(memory, builder.inttoptr(builder.sub(begin, I64(8)), I64.as_pointer()))
        return begin

    return types.int64(types.int64), codegen


@intrinsic
def release(typingctx, address):
    """What `allocate` gave."""

    def codegen(context, builder, signature, values):
        place = builder.inttoptr(builder.sub(values[0], I64(8)), I64.as_pointer())
        context.nrt.free(builder, builder.inttoptr(builder.load(place), cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def cpu_pause(typingctx):
    """Tell the core that this is a waiting loop (x86 only; elsewhere nothing)."""

    def codegen(context, builder, signature, values):
        if "86" in str(context.codegen()._tm.triple):
            f = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
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


@intrinsic
def leave_python(typingctx):
    """Let others run Python if this thread may: what `return_to_python` takes, or 0 where nobody waits for
    this thread."""

    def codegen(context, builder, signature, values):
        python = context.get_python_api(builder)
        check = cgutils.get_or_insert_function(builder.module, ir.FunctionType(I32, []), "PyGILState_Check")
        state = cgutils.alloca_once_value(builder, I64(0))
        with builder.if_then(builder.icmp_signed("!=", builder.call(check, []), I32(0))):
            builder.store(builder.ptrtoint(python.save_thread(), I64), state)
        return builder.load(state)

    return types.int64(), codegen


@intrinsic
def return_to_python(typingctx, state):
    """Behind `leave_python`."""

    def codegen(context, builder, signature, values):
        python = context.get_python_api(builder)
        with builder.if_then(builder.icmp_signed("!=", values[0], I64(0))):
            python.restore_thread(builder.inttoptr(values[0], cgutils.voidptr_t))
        return context.get_dummy_value()

    return types.void(types.int64), codegen


if config.DISABLE_JIT:
    # For debuggers and coverage: drivers run as Python, alone, and call the compiled kernels through
    # ctypes.
    _allocated = {}

    def call(address, args):
        numbers = [int(number) for arg in args for number in (arg if isinstance(arg, tuple) else (arg,))]
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(numbers))(address)(*numbers)

    def peek(address, index):
        return ctypes.c_int64.from_address(int(address) + 8 * int(index)).value

    def allocate(size):
        memory = ctypes.create_string_buffer(int(size) + ALIGNED)
        address = (ctypes.addressof(memory) + ALIGNED) & -ALIGNED
        _allocated[address] = memory
        return address

    def release(address):
        del _allocated[int(address)]

    def observe(address):
        return peek(address, 0)

    def publish(address, value):
        ctypes.c_int64.from_address(int(address)).value = int(value)

    def load_number(address, like):
        return numpy.frombuffer(ctypes.string_at(int(address), like.itemsize), like.dtype)[0]

    def store_number(address, value):
        number = numpy.asarray(value)  # (of 64 bits where Python's own)
        ctypes.memmove(int(address), number.tobytes(), number.itemsize)

    def fetch_add(address, value):
        before = peek(address, 0)
        publish(address, before + value)
        return before

    def exchange(address, value):
        before = peek(address, 0)
        publish(address, value)
        return before

    def yield_core():
        time.sleep(0)

    _own = threading.local()

    def room():
        if not hasattr(_own, "integer"):
            _own.integer = ctypes.c_int64()
        return ctypes.addressof(_own.integer)

    def scratch():
        if not hasattr(_own, "scratch"):
            _own.scratch = allocate(SCRATCH)
        return _own.scratch
