"""What a bug report should say about the machine, Numba and the engine."""

from __future__ import annotations

import os
import platform
import sys
from typing import Any

import numpy as np

from fastbp.version import __version__


def show_config() -> dict[str, Any]:
    """Print, and return as a dict, what the engine was compiled for and how it would run.

    Starts no threads and compiles nothing. Contains no names of users or machines beyond the cache's folder.
    """
    import llvmlite
    import numba
    from numba.core.registry import cpu_target

    from fastbp.engine import plan
    from fastbp.engine.compile import cache, jit
    from fastbp.engine.kernels import matmul
    from fastbp.engine.kernels.bfloat16 import products
    from fastbp.engine.simd import vector
    from fastbp.engine.threads import runtime, team

    settings: Any = numba.config
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    isa = vector.isa()
    folder = cache.cache_location()
    config: dict[str, Any] = {
        "fastbp": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "platform": platform.platform(),
        "triple": triple,
        "cpu": cpu,
        "cpu_features": sorted(f[1:] for f in features.split(",") if f.startswith("+")),
        "vector_bits": 8 * isa.bytes,
        "vector_registers": isa.registers,
        "fused_multiply_add": isa.fma,
        "bfloat16": products.implementation(),
        "tile": {f"{width} vectors": f"{height} rows" for width, height in matmul.shapes().items()},
        "cores": _cores(),
        "threads": team.available(None),
        "threads_of_numba": int(settings.NUMBA_NUM_THREADS),
        "threads_limited_by": team.limit(),
        "threading_layer": team.threading_layer() or "not started yet",
        "teams_of_kernels": runtime.state(),
        "thresholds": {k: v for k, v in sorted(vars(plan).items()) if "_FROM_" in k},
        "jit": not settings.DISABLE_JIT,
        "cache": folder or "none: no folder can be written to, every process compiles for itself",
        "cache_writable": folder is not None,
        "engine_sources": cache.source_digest(),
        "callbacks_from": jit.callbacks_from(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("NUMBA_", "OMP_"))},
    }
    for name, value in config.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k}: {v}" for k, v in value.items()) or "-"
        elif isinstance(value, list):
            value = " ".join(value) or "-"
        sys.stdout.write(f"{name:<24}{value}\n")
    return config


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
