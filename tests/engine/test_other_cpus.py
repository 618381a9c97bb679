"""The engine on other CPUs and threading layers, and without compiling."""

import re
import sys

import pytest
from bits import assert_same_bits, run_bits
from processes import (
    AVX2,
    GENERIC,
    GUARDED_CASES,
    NO_JIT,
    PAIRS,
    SUPPORT,
    WORKQUEUE,
    assert_nothing_outside_is_touched,
    avx2_beside_more,
    on_x86,
    python,
    tiles_beside_pairs,
)

from fastbp.engine.kernels import matmul
from fastbp.engine.simd import vector

ARMS = {
    "avx2": (
        AVX2,
        {"vector_bits": 256, "vector_registers": 16, "fused_multiply_add": True},
        [on_x86, avx2_beside_more],
    ),
    "generic": (GENERIC, {"vector_bits": 128, "fused_multiply_add": False}, [on_x86]),
    "no-jit": (NO_JIT, {"jit": False, "threads": 1}, []),
}

TESTS_OF_COMPUTATION = (
    "engine/test_same_bits.py",
    "engine/test_rounding.py",
    "engine/kernels/test_functions.py",
    "engine/kernels/test_bfloat16.py",
    "engine/kernels/test_copies.py",
    "test_dropin.py",
    "test_dropin_arguments.py",
)
# Without JIT only: what drives them runs as Python then.
NETWORKS_SIDE_BY_SIDE = ("many/test_fit_many.py",)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "config"), [pytest.param(e, c, id=name, marks=m) for name, (e, c, m) in ARMS.items()]
)
def test_core_tests_elsewhere(environment, config):
    """Compiled for another CPU, or not compiled at all: each kernel, though not in each combination.
    In one test, since what is compiled for such a CPU is needed three times."""
    shown = python("-c", "import fastbp; print(repr(fastbp.show_config()))", **environment).splitlines()[-1]
    namespace = eval(shown)  # a dict of plain values
    assert {k: namespace[k] for k in config} == config
    # Python runs the same statements for both dtypes. Whatever the CPU, who does what is the same;
    # float64 is in the other tests and in the bits below.
    # The kernels of test_bfloat16 are compiled without JIT, too, and as with it.
    without_jit = "(float32 or test_bfloat16 or own_fit)"
    elsewhere = "(any_number_of_threads or test_rounding and float64 or instruction_is_what or other_vectors)"
    left_out = without_jit if environment is NO_JIT else elsewhere
    out = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not combination"),
        *("-k", f"not {left_out}"),
        *(
            SUPPORT.parent / name
            for name in TESTS_OF_COMPUTATION + NETWORKS_SIDE_BY_SIDE * (environment is NO_JIT)
        ),
        cwd=SUPPORT.parents[1],
        **environment,
    )
    assert re.search(r"\d\d\d passed", out), out
    if environment is not NO_JIT:
        assert_same_bits(run_bits(every=71, NUMBA_NUM_THREADS="2", **environment))
        if sys.platform.startswith("linux"):
            assert_nothing_outside_is_touched("after", GUARDED_CASES // 2, len(environment), **environment)


@pytest.mark.slow
@tiles_beside_pairs
def test_products_of_pairs_where_there_are_tiles():
    """What CPUs with AVX512_BF16 and no AMX compute, on one that has both."""
    shown = python("-c", "import fastbp; print(fastbp.show_config()['bfloat16'])", **PAIRS).splitlines()[-1]
    assert shown == "avx512_bf16"
    names = "engine/kernels/test_bfloat16.py", "network/test_precision.py"
    out = python(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", *(SUPPORT.parent / name for name in names)),
        cwd=SUPPORT.parents[1],
        **PAIRS,
    )
    assert re.search(r"\d\d\d passed", out), out


@pytest.mark.slow
def test_same_bits_in_every_case():
    """With two threads: four on two cores, as in test_same_bits, take much longer."""
    results = run_bits(every=1, NUMBA_NUM_THREADS="2")
    assert_same_bits(results)
    assert {"threads-1", "threads-2"} < set(results)


@pytest.mark.slow
def test_same_bits_with_workqueue():
    """Of all that is compiled, the threading layer meets the teams only; they are of two, as above."""
    assert_same_bits(run_bits(every=11, NUMBA_NUM_THREADS="2", **WORKQUEUE))


@pytest.mark.slow
def test_same_bits_without_jit():
    """Drivers that run as Python do the same as compiled ones."""
    assert run_bits(every=35, **NO_JIT)["threads-1"][0] == run_bits(every=35)["threads-1"][0]


def test_isa_and_tile_fit_each_other():
    """All accumulators of a tile, and a vector of B for each of its columns, have registers."""
    isa = vector.isa()
    for width, height in matmul.shapes().items():
        assert height * width + width + 1 <= isa.registers + 1, (width, height)
