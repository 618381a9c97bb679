"""A table of fastbp.kernels next to NumPy, in one process: microseconds of a call from Python, and how many
times NumPy's line takes as long; of products also what they reach of the machine's limit.

    python asv_benchmarks/tools/studies/kernel_speeds.py [--dtype float32] [--kernel relu]
    python asv_benchmarks/tools/studies/kernel_speeds.py --example    the step of fastbp/kernels/README.md
    python asv_benchmarks/tools/studies/kernel_speeds.py --compiled   from compiled code: matmul and np.dot
                                                                      (needs SciPy) with out, and what works
                                                                      number by number, mostly without

On a machine with nothing else to do. NumPy's threads go on to spin for a while after a product: each pair is
measured with a pause between.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from fastbp import kernels

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import kernels as hot_loops

PAUSE = 0.15  # seconds


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
            steps = [functools.partial(names[step], *arrays, lr) for step in ("step", "numpy_step")]
            rounds = []
            for _ in range(5):
                rounds.append([])
                for step in steps:
                    time.sleep(PAUSE)
                    rounds[-1].append(hot_loops.seconds(step, leg=0.03))
            took = statistics.median(ours for ours, numpy in rounds)
            ratio = statistics.median(numpy / ours for ours, numpy in rounds)
            print(f"| {network} | {dtype} | {1e6 * took:.2f} | {ratio:.2f} x |", flush=True)


# rows, depth, columns
SIZES = [
    *((1, 1, 1), (2, 3, 4), (8, 8, 8), (16, 16, 16), (32, 32, 32), (48, 48, 48), (63, 63, 63), (64, 64, 64)),
    *((1, 8, 16), (1, 64, 64), (32, 8, 16), (32, 32, 1), (64, 64, 3), (1, 1024, 1024), (1024, 1024, 1)),
    *((4, 1024, 1024), (16, 1024, 1024), (1024, 1021, 1), (1000, 37, 1)),
    *((128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (2048, 2048, 2048)),
]
COUNTS = (1, 4, 10, 30, 100, 300, 1000, 10_000, 100_000, 1_000_000)


def compiled(kernels: list[str], dtypes: list[str]) -> None:
    """What calls from compiled code take: a product, and elementwise kernels; kernels: their names."""
    print("| call | dtype | size | ns | NumPy takes |\n|---|---|---|---|---|")
    for dtype in dtypes if "matmul" in kernels else ():
        for shape in SIZES:
            compare_products(dtype, *shape)
    for name, (operands, kernel, line) in ELEMENTWISE.items():
        if name.split()[0] not in kernels:
            continue
        functions = [repeated(njit(function), operands) for function in (kernel, line)]
        for dtype in dtypes:
            rng = np.random.default_rng(0)
            for count in COUNTS:
                shape = (-(-count // 64), min(count, 64)) if name == "bias_sums" else (count,)
                arrays = [rng.standard_normal(shape).astype(dtype) for _ in range(operands)]
                size = " x ".join(map(str, shape))
                compare(name, dtype, size, functions, arrays, max(1, 100_000 // (count + 100)), pause=0)


def compare_products(dtype: str, rows: int, depth: int, columns: int) -> None:
    """A line of the table; each leg has so many calls that a team which they share is awake."""
    rng = np.random.default_rng(0)
    shapes = ((rows, depth), (depth, columns), (rows, columns))
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    times = max(1, 60_000_000 // (rows * depth * columns + 30_000))
    compare("matmul", dtype, f"{rows} x {depth}-{columns}", (multiply, dot), arrays, times, pause=PAUSE)


def compare(
    name: str, dtype: str, size: str, functions: Any, arrays: Any, times: int, *, pause: float
) -> None:
    """A line of the table; functions: ours and NumPy's; pause: before each leg, for NumPy's threads."""
    ours: list[float] = []
    numpy: list[float] = []
    for _ in range(15):
        for function, seconds in zip(functions, (ours, numpy), strict=True):
            time.sleep(pause)
            function(*arrays, times)
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


# kernel -> how many operands it has, a call of it, and NumPy's line
ELEMENTWISE: dict[str, tuple[int, Any, Any]] = {
    "relu": (1, lambda z: kernels.relu(z), lambda z: np.maximum(z, z.dtype.type(0))),
    "relu with out": (
        2,
        lambda z, out: kernels.relu(z, out),
        lambda z, out: np.maximum(z, z.dtype.type(0), out),
    ),
    "relu_mask": (2, lambda d, z: kernels.relu_mask(d, z), lambda d, z: d * (z > 0)),
    "sigmoid": (1, lambda z: kernels.sigmoid(z), lambda z: 1 / (1 + np.exp(-z))),
    "sigmoid_derivative": (
        2,
        lambda d, y: kernels.sigmoid_derivative(d, y),
        lambda d, y: d * (y * (1 - y)),
    ),
    "mse_sigmoid_error": (
        2,
        lambda y, t: kernels.mse_sigmoid_error(y, t),
        lambda y, t: (y - t) * y * (1 - y),
    ),
    "sgd_step": (
        2,
        lambda w, g: kernels.sgd_step(w, g, 0.125),
        lambda w, g: w - w.dtype.type(0.125) * g,
    ),
    "exp": (1, lambda z: kernels.exp(z), lambda z: np.exp(z)),
    "tanh": (1, lambda z: kernels.tanh(z), lambda z: np.tanh(z)),
    "silu": (1, lambda z: kernels.silu(z), lambda z: z / (1 + np.exp(-z))),
    "leaky_relu": (1, lambda z: kernels.leaky_relu(z), lambda z: np.where(z > 0, z, z.dtype.type(0.01) * z)),
    "bias_sums": (1, lambda d: kernels.bias_sums(d), lambda d: d.sum(axis=0)),
}


def repeated(function: Any, operands: int) -> Any:
    """A compiled loop that calls a compiled function of one or two arrays."""

    @njit
    def of_one(x: Any, times: int) -> None:
        for _ in range(times):
            function(x)

    @njit
    def of_two(x: Any, y: Any, times: int) -> None:
        for _ in range(times):
            function(x, y)

    return of_one if operands == 1 else of_two


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", choices=hot_loops.DTYPES, help="this one alone")
    parser.add_argument("--kernel", choices=list(hot_loops.KERNELS), help="this one alone")
    parser.add_argument("--example", action="store_true", help="the training step of the kernels' page")
    parser.add_argument("--compiled", action="store_true", help="calls from compiled code")
    options = parser.parse_args()
    dtypes = [options.dtype] if options.dtype else hot_loops.DTYPES
    kernels = [options.kernel] if options.kernel else [*hot_loops.KERNELS, *ELEMENTWISE]
    if options.compiled:
        compiled(kernels, dtypes)
        return
    if options.example:
        example()
        return
    print("| kernel | dtype | shape | us | NumPy takes | of the limit |\n|---|---|---|---|---|---|")
    for kernel in [options.kernel] if options.kernel else hot_loops.KERNELS:
        for dtype in dtypes:
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
