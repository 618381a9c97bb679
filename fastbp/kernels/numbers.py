"""What all kernels do that work number by number on several arrays. (For one array, a call from Python takes
10 ns more so.)"""

from __future__ import annotations

from numba import types
from numba.extending import overload

from fastbp.kernels.arguments import INLINED, address, result, span, unlike_overlap
from fastbp.kernels.linking import run

# What a byte of numbers takes one core, in 1024ths of a nanosecond, about: whether a team pays.
SIMPLE, OF_EXP = 48, 160


def number_by_number(kernel, cost, x, y, z, out, scalar):
    """In compiled code: out, or a new array, with the kernel's numbers of x, y and z, which are not counted
    and have one shape; z: None for kernels of two. kernel: a literal, with its cost of a byte; scalar:
    the bits of a number."""
    new = result(out, x.shape, x)
    unlike_overlap(span(out), span(x))
    unlike_overlap(span(out), span(y))
    unlike_overlap(span(out), span(z))
    numbers = (address(x), address(y), address(z), address(new), x.size, scalar)
    run(kernel, x, x.nbytes * cost >> 10, numbers)
    return new


@overload(number_by_number, prefer_literal=True, jit_options=INLINED)
def _number_by_number(kernel, cost, x, y, z, out, scalar):
    return number_by_number if isinstance(kernel, types.Literal) else None
