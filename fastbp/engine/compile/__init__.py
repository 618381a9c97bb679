"""How kernels are compiled and cached, and the machine-level intrinsics."""
