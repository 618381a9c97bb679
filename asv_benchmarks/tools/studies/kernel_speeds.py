"""A table of fastbp.kernels next to NumPy, in one process: microseconds of a call from Python, and how many
times NumPy's line takes as long; of products also what they reach of the machine's limit.

    python asv_benchmarks/tools/studies/kernel_speeds.py [--dtype float32] [--kernel relu]
    python asv_benchmarks/tools/studies/kernel_speeds.py --example    the step of fastbp/kernels/README.md
    python asv_benchmarks/tools/studies/kernel_speeds.py --compiled   matmul and np.dot (needs SciPy), relu
                                                                      and np.maximum, from compiled code, all
                                                                      with out

On a machine with nothing else to do. NumPy's threads go on to spin for a while after a product: each pair is
measured with a pause between.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from fastbp import kernels

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import kernels as hot_loops

PAUSE = 0.05  # seconds


PAGE = Path(__file__).resolve().parents[3] / "fastbp" / "kernels" / "README.md"
NETWORKS = {
    "tiny": (32, (8, 16, 16, 1)),
    "small": (32, (32, 64, 64, 1)),
    "tabular": (128, (64, 128, 128, 10)),
    "mnist": (128, (784, 256, 256, 10)),
    "wide": (256, (1024, 1024, 1024, 10)),
}


def example() -> None:
    """How long a step of three layers takes with kernels and with NumPy."""
    (code,) = [block for block in PAGE.read_text("utf-8").split("```python\n") if "def numpy_step" in block]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code.split("```")[0], str(PAGE), "exec"), names)
    print("| network | dtype | us | NumPy takes |\n|---|---|---|---|")
    for network, (rows, sizes) in NETWORKS.items():
        for dtype in hot_loops.DTYPES:
            rng = np.random.default_rng(0)
            arrays = [rng.standard_normal((rows, sizes[0])), rng.random((rows, sizes[-1]))]
            for a, b in itertools.pairwise(sizes):
                arrays += [rng.standard_normal((a, b)) / np.sqrt(a), np.zeros(b)]
            arrays = [array.astype(dtype) for array in arrays]
            lr = np.dtype(dtype).type(1e-6)
            ours, numpy = (
                hot_loops.seconds(functools.partial(names[step], *arrays, lr))
                for step in ("step", "numpy_step")
            )
            print(f"| {network} | {dtype} | {1e6 * ours:.2f} | {numpy / ours:.2f} x |", flush=True)


# rows, depth, columns
SIZES = [
    *((1, 1, 1), (2, 3, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32), (48, 48, 48), (63, 63, 63), (64, 64, 64)),
    *((1, 8, 16), (1, 64, 64), (32, 8, 16), (32, 32, 1), (64, 64, 3), (1, 1024, 1024), (1024, 1024, 1)),
    *((128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)),
]
COUNTS = (1, 10, 100, 1000, 10_000, 100_000, 1_000_000)


def compiled() -> None:
    """What calls from compiled code take: a product, and an elementwise kernel."""
    print("| call | dtype | size | ns | NumPy takes |\n|---|---|---|---|---|")
    for dtype in hot_loops.DTYPES:
        rng = np.random.default_rng(0)
        for rows, depth, columns in SIZES:
            shapes = ((rows, depth), (depth, columns), (rows, columns))
            arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
            times = max(1, 200_000 // (rows * depth * columns + 300))
            compare("matmul", dtype, f"{rows} x {depth}-{columns}", (multiply, dot), arrays, times)
        for count in COUNTS:
            arrays = [rng.standard_normal(count).astype(dtype) for _ in range(2)]
            compare("relu", dtype, str(count), (relu, maximum), arrays, max(1, 20_000 // (count + 100)))


def compare(name: str, dtype: str, size: str, functions: Any, arrays: Any, times: int) -> None:
    """A line of the table; functions: ours and NumPy's."""
    ours: list[float] = []
    numpy: list[float] = []
    for _ in range(15):
        for function, seconds in zip(functions, (ours, numpy), strict=True):
            time.sleep(PAUSE / 10)
            function(*arrays, 1)
            began = time.perf_counter()
            function(*arrays, times)
            seconds.append((time.perf_counter() - began) / times)
    print(
        f"| {name} | {dtype} | {size} | {1e9 * min(ours):.0f} | {min(numpy) / min(ours):.2f} x |", flush=True
    )


@njit
def multiply(A: Any, B: Any, C: Any, times: int) -> None:
    for _ in range(times):
        kernels.matmul(A, B, C)


@njit
def dot(A: Any, B: Any, C: Any, times: int) -> None:
    for _ in range(times):
        np.dot(A, B, C)


@njit
def relu(z: Any, a: Any, times: int) -> None:
    for _ in range(times):
        kernels.relu(z, a)


@njit
def maximum(z: Any, a: Any, times: int) -> None:
    for _ in range(times):
        np.maximum(z, z.dtype.type(0), a)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", choices=hot_loops.DTYPES, help="this one alone")
    parser.add_argument("--kernel", choices=list(hot_loops.KERNELS), help="this one alone")
    parser.add_argument("--example", action="store_true", help="the training step of the kernels' page")
    parser.add_argument("--compiled", action="store_true", help="calls from compiled code")
    options = parser.parse_args()
    if options.compiled:
        compiled()
        return
    if options.example:
        example()
        return
    print("| kernel | dtype | shape | us | NumPy takes | of the limit |\n|---|---|---|---|---|---|")
    for kernel in [options.kernel] if options.kernel else hot_loops.KERNELS:
        for dtype in [options.dtype] if options.dtype else hot_loops.DTYPES:
            for layer in hot_loops.LAYERS:
                mine = hot_loops.call(kernel, layer, dtype, "fastbp")
                ours = hot_loops.seconds(mine)
                time.sleep(PAUSE)
                numpy = hot_loops.seconds(hot_loops.call(kernel, layer, dtype, "numpy"))
                time.sleep(PAUSE)
                share = ""
                if kernel in hot_loops.PRODUCTS:
                    share = f"{hot_loops.share_of_limit(mine, layer, dtype):.0%}"
                print(
                    f"| {kernel} | {dtype} | {layer} | {1e6 * ours:.2f} | {numpy / ours:.2f} x | {share} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
