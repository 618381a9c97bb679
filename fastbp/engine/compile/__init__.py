"""How kernels are compiled and kept on disk, what they may read of Python's objects, and intrinsics."""
