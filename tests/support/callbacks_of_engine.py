"""Compiled callbacks, to be called from Python."""

import ctypes


def callback(address, count):
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * count)(address)
