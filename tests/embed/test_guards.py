"""No byte outside of arrays is touched by compiled code either: arrays lie between pages without access."""

import os
import pathlib

import pytest
from processes import SUPPORT, on_linux, python

PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"
CODE = """if True:
    import numpy as np, fastbp, guard_pages
    from numba import njit

    @njit
    def use(model, X, Y, out, state):
        model.predict_into(X, out)
        return model.train_step(X, Y, state), model.predict(X)

    def case(sizes, rows, dtype, **options):
        model = fastbp.MLP(sizes, seed=0, dtype=dtype, **options)
        X = rng.random((rows, sizes[0])).astype(dtype)
        Y, out = rng.random((rows, sizes[-1])).astype(dtype), np.empty((rows, sizes[-1]), dtype)
        expected = model.predict(X)
        state = model.training_state(fastbp.Adam(), batch_size=rows)
        _, y = use(model, X, Y, out, state)
        assert np.array_equal(out, expected) and np.array_equal(y, model.predict(X))
        function = model.c_function()
        function.ctypes(X, rows, out, function.user_data)
        assert np.array_equal(out, y)

    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        case([3, 5, 1], 2, dtype)  # compiled
    guarded, cases = guard_pages.Guarded("{side}"), 0
    with guarded():
        for dtype in ("float32", "float64"):
            for sizes in ([1, 1], [17, 33, 19], [9, 16, 7, 3]):
                for rows in (1, 3, 9, 33):
                    case(sizes, rows, dtype)
                    cases += 1
            case([5, 8, 2], 9, dtype, input_scale=2.0, dropout=0.5)
    print(cases, guarded.allocations > 1000, flush=True)
    guard_pages.os._exit(0)
"""


@on_linux
@pytest.mark.parametrize("side", ["after", "before"])
def test_nothing_outside_of_arrays_is_touched(side):
    path = os.pathsep.join(map(str, (PROGRAMS, SUPPORT)))
    code = CODE.replace("{side}", side)
    assert python("-c", code, PYTHONPATH=path).split() == ["24", "True"]
