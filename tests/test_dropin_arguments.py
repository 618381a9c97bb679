"""What may be passed to the drop-in functions, and what is refused."""

import re

import numpy as np
import pytest
from two_layer_cases import assert_close, expected_step, network

# ---- what may be passed -------------------------------------------------------------------------------


def strided(a):
    """The same values, every second element of a larger array in each direction, backwards in the last."""
    big = np.zeros([2 * n for n in a.shape], a.dtype)
    view = big[tuple([slice(None, None, 2)] * (a.ndim - 1) + [slice(None, None, -2)])]
    view[...] = a
    assert not view.flags.c_contiguous or view.size <= 1
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


LAYOUTS = {
    "F": np.asfortranarray,
    "strided": strided,
    "read-only": read_only,
    "unaligned": unaligned,
    "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder()),
    "memmap-like subclass": lambda a: a.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout_is_read(module, dtype, layout):
    X, y_true, params = network((7, 3, 5, 2), dtype)
    change = LAYOUTS[layout]
    expected_trace = module.forward(X, *params)
    trace = module.forward(change(X), *map(change, params))
    for a, e in zip(trace, expected_trace, strict=True):
        assert type(a) is np.ndarray or layout == "memmap-like subclass"
        assert a.dtype == dtype
        assert_close(a, e, 5)
    z1, a1, _z2, y_pred = expected_trace
    expected_grads = module.backward(X, y_true, z1, a1, y_pred, params[2])
    grads = module.backward(*map(change, (X, y_true, z1, a1, y_pred, params[2])))
    for a, e in zip(grads, expected_grads, strict=True):
        assert a.dtype == dtype
        assert_close(a, e, 7)


@pytest.mark.parametrize("layout", ["F", "strided", "unaligned"])
def test_parameters_of_any_layout_are_updated_where_they_lie(module, dtype, layout):
    X, y_true, params = network((7, 3, 5, 2), dtype)
    others = [LAYOUTS[layout](p.copy()) for p in params]
    owners = [o if o.base is None else o.base for o in others]
    loss = module.train_step(X, y_true, *params, 0.5)
    assert module.train_step(LAYOUTS[layout](X), y_true, *others, 0.5) == pytest.approx(loss, rel=1e-6)
    for o, owner, p in zip(others, owners, params, strict=True):
        assert np.shares_memory(o, owner)
        assert_close(o, p, 7)
    grads = [LAYOUTS[layout](np.ones_like(p)) for p in others]
    module.sgd_update(others, grads, 0.25)
    for o, p in zip(others, params, strict=True):
        assert_close(o, p - 0.25, 7)


def test_lists_and_integers_are_converted(module):
    X = [[0, 0], [0, 1], [1, 0], [1, 1]]
    W1, b1, W2, b2 = [[1, -1, 2], [1, -1, 2]], [0, 1, 0], [[1], [-1], [2]], [0]
    expected = module.forward(*(np.array(a, float) for a in (X, W1, b1, W2, b2)))
    for given in [(X, W1, b1, W2, b2), tuple(np.array(a) for a in (X, W1, b1, W2, b2))]:
        for a, e in zip(module.forward(*given), expected, strict=True):
            assert a.dtype == np.float64
            assert np.array_equal(a, e)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float16, np.float64, list])
def test_inputs_take_the_dtype_of_the_parameters(module, kind):
    _, _, params = network((4, 2, 3, 1), np.float32)
    X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    Y = np.array([[0], [1], [1], [0]], np.float32)
    expected = [p.copy() for p in params]
    loss = module.train_step(X, Y, *expected, 1.0)
    given_X, given_Y = (X.tolist(), Y.tolist()) if kind is list else (X.astype(kind), Y.astype(kind))
    assert all(a.dtype == np.float32 for a in module.forward(given_X, *params))
    assert module.train_step(given_X, given_Y, *params, 1.0) == loss
    assert all(np.array_equal(p, e) for p, e in zip(params, expected, strict=True))


def test_only_what_is_said_to_be_updated_changes(module, dtype):
    X, y_true, params = network((7, 3, 5, 2), dtype)
    given = [X, y_true, *params]
    before = [a.copy() for a in given]
    z1, a1, z2, y_pred = module.forward(X, *params)
    trace_before = [a.copy() for a in (z1, a1, z2, y_pred)]
    grads = module.backward(X, y_true, z1, a1, y_pred, params[2])
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip((z1, a1, z2, y_pred), trace_before, strict=True))
    grads_before = [g.copy() for g in grads]
    module.sgd_update(params, grads, 0.1)
    assert all(np.array_equal(a, b) for a, b in zip(grads, grads_before, strict=True))
    module.train_step(X, y_true, *params, 0.1)
    assert np.array_equal(X, before[0])
    assert np.array_equal(y_true, before[1])


def test_results_are_new_arrays(module, dtype):
    X, _, params = network((7, 3, 5, 2), dtype)
    first = module.forward(X, *params)
    second = module.forward(X, *params)
    arrays = [*first, *second, X, *params]
    for i, a in enumerate(arrays):
        assert not any(np.shares_memory(a, b) for b in arrays[i + 1 :])


OVERLAPS = [
    {"W2": "W1.T"},  # tied weights
    {"W2": 0},
    {"W2": 8},
    {"b2": 16},
    {"b1": 5},
    {"X": 0},
    {"y_true": 20},
    {},  # neighbours in one buffer, which is no overlap
]


@pytest.mark.parametrize("places", OVERLAPS, ids=str)
def test_parameters_that_share_memory_are_updated_in_turn(module, dtype, places):
    def arrays():
        buffer = np.random.default_rng(3).random(80).astype(dtype)
        at = {"X": 40, "y_true": 60, "W1": 0, "b1": 16, "W2": 20, "b2": 36} | places
        made = {k: buffer[i : i + 16].reshape(4, 4) for k, i in at.items() if i != "W1.T"}
        made["W2"] = made.get("W2", made["W1"].T)
        X, y_true, W1, b1, W2, b2 = (made[name] for name in at)
        return buffer, X, y_true, W1, b1[0], W2, b2[0]

    expected, X, y_true, *params = arrays()
    _, grads, expected_loss = expected_step(X, y_true, params)
    for param, grad in zip(params, grads, strict=True):
        param -= 0.5 * grad.astype(dtype)
    buffer, *given = arrays()
    loss = module.train_step(*given, 0.5)
    assert loss == pytest.approx(expected_loss, rel=32 * float(np.finfo(dtype).eps))
    assert_close(buffer, expected, 4)


# ---- what is refused ----------------------------------------------------------------------------------


def refused(module, error, message, change, functions=("forward", "train_step"), **kwargs):
    """Call with one thing wrong: the message fits and nothing has changed."""
    for dtype in (np.float32, np.float64):
        for function in functions:
            X, y_true, params = network((6, 4, 8, 2), dtype)
            given = dict(zip(["X", "y_true", "W1", "b1", "W2", "b2"], [X, y_true, *params], strict=True))
            if function == "forward":
                del given["y_true"]
            elif function == "train_step":
                given["lr"] = 0.1
            else:
                z1, a1, _, y_pred = module.forward(X, *params)
                given = {"X": X, "y_true": y_true, "z1": z1, "a1": a1, "y_pred": y_pred, "W2": params[2]}
            change(given)
            before = {k: v.copy() for k, v in given.items() if isinstance(v, np.ndarray)}
            with pytest.raises(error, match=re.escape(message)):
                getattr(module, function)(**given, **kwargs)
            for name, value in before.items():
                np.testing.assert_array_equal(given[name], value)


ALL = ("forward", "train_step", "backward")


def test_wrong_shapes(module):
    def cut(name, index):
        return lambda given: given.update({name: np.ascontiguousarray(given[name][index])})

    columns3 = (slice(None), slice(3))
    refused(module, ValueError, "X has 3 columns, W1 has 4 rows: X must be (batch, 4)", cut("X", columns3))
    refused(
        module, ValueError, "W2 has 7 rows, W1 has 8 columns: W2 must be (8, outputs)", cut("W2", slice(7))
    )
    refused(module, ValueError, "b1 has shape (7,), W1 has 8 columns: b1 must be (8,)", cut("b1", slice(7)))
    refused(module, ValueError, "b2 has shape (1,), W2 has 2 columns: b2 must be (2,)", cut("b2", slice(1)))
    refused(
        module,
        ValueError,
        "y_true has shape (5, 2), expected (6, 2): one row for each of the 6 rows of X",
        cut("y_true", slice(5)),
        ("train_step", "backward"),
    )
    refused(
        module,
        ValueError,
        "y_true has shape (6, 1), expected (6, 2)",
        cut("y_true", (slice(None), slice(1))),
        ("train_step", "backward"),
    )
    refused(
        module,
        ValueError,
        "z1 has shape (5, 8), X has 6 rows and W2 has 8 rows: z1 must be (6, 8)",
        cut("z1", slice(5)),
        ("backward",),
    )
    refused(module, ValueError, "a1 must be (6, 8)", cut("a1", columns3), ("backward",))
    refused(module, ValueError, "y_pred must be (6, 2)", cut("y_pred", slice(1)), ("backward",))
    refused(
        module,
        ValueError,
        "b1 has shape (1, 8), W1 has 8 columns: b1 must be (8,)",
        lambda given: given.update(b1=given["b1"][None, :]),
    )
    refused(
        module,
        ValueError,
        "X has shape (4,), expected two dimensions (batch, 4); for a single row use X.reshape(1, -1)",
        lambda given: given.update(X=given["X"][0]),
    )
    refused(
        module,
        ValueError,
        "X has shape (1, 6, 4), expected two dimensions",
        lambda given: given.update(X=given["X"][None]),
        ALL,
    )
    refused(module, ValueError, "X has shape (0, 4) and is empty", cut("X", slice(0)), ALL)
    refused(module, ValueError, "W1 has shape (8,), expected two dimensions", cut("W1", 0))


def test_one_dimensional_targets(module):
    X, y_true, params = network((6, 4, 8, 1), np.float32)
    before = [p.copy() for p in params]
    message = re.escape("y_true has shape (6,), expected (6, 1)") + ".*" + re.escape("y_true.reshape(-1, 1)")
    with pytest.raises(ValueError, match=message):
        module.train_step(X, y_true[:, 0], *params, 0.1)
    z1, a1, _, y_pred = module.forward(X, *params)
    with pytest.raises(ValueError, match=message):
        module.backward(X, y_true[:, 0], z1, a1, y_pred, params[2])
    assert all(np.array_equal(p, b) for p, b in zip(params, before, strict=True))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(module, bad):
    def spoil(name):
        def change(given):
            given[name] = given[name].copy()
            given[name][2, 1] = bad

        return change

    refused(
        module,
        ValueError,
        f"X holds NaN or infinity (1 of 24 values, the first is X[2, 1] = {bad})",
        spoil("X"),
    )
    refused(module, ValueError, "y_true holds NaN or infinity", spoil("y_true"), ("train_step", "backward"))
    refused(module, ValueError, "X holds NaN or infinity", spoil("X"), ("backward",))


def test_the_finite_check_can_be_switched_off(module, dtype):
    X, y_true, params = network((6, 4, 8, 2), dtype)
    X[0, 0] = np.nan
    z1, a1, _, y_pred = module.forward(X, *params, check_finite=False)
    assert np.isnan(y_pred[0]).all()
    assert np.isfinite(y_pred[1:]).all()
    grads = module.backward(X, y_true, z1, a1, y_pred, params[2], check_finite=False)
    assert np.isnan(grads[3]).any()
    module.sgd_update(params, grads, 0.1, check_finite=False)
    assert np.isnan(module.train_step(X, y_true, *params, 0.1, check_finite=False))


def test_finite_sums_that_overflow_are_not_mistaken(module):
    X, y_true, params = network((6, 4, 8, 2), np.float32)
    X[:] = np.finfo(np.float32).max
    params[0][:] = 0
    assert np.isfinite(module.train_step(X, y_true, *params, 0.0))


def test_dtypes_that_are_refused(module):
    def retype(name, dtype):
        return lambda given: given.update({name: given[name].astype(dtype)})

    refused(module, TypeError, "X has dtype complex128, expected real numbers", retype("X", complex), ALL)
    refused(module, TypeError, "X has dtype object, expected real numbers", retype("X", object), ALL)
    refused(module, TypeError, "X has dtype <U", retype("X", str), ALL)
    refused(module, TypeError, "W2 has dtype complex128", retype("W2", complex), ALL)
    refused(module, TypeError, "W2 has dtype float16", retype("W2", np.float16), ALL)
    refused(
        module,
        TypeError,
        "updated in place and must be float32 or float64",
        retype("W1", int),
        ("train_step",),
    )
    refused(
        module,
        ValueError,
        "X is not a rectangular array of numbers",
        lambda given: given.update(X=[[1, 2], [3]]),
        ALL,
    )
    refused(
        module,
        TypeError,
        "W1 is updated in place and must be a NumPy array, got list",
        lambda given: given.update(W1=given["W1"].tolist()),
        ("train_step",),
    )


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_mixed_parameter_dtypes(module, name):
    def change(given):
        other = np.float32 if given[name].dtype == np.float64 else np.float64
        given[name] = given[name].astype(other)

    refused(module, TypeError, "all must have the same dtype, float32 or float64", change)
    if name == "W2":
        refused(module, TypeError, "all must have the same dtype", change, ("backward",))


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_read_only_parameters(module, name):
    def change(given):
        given[name].flags.writeable = False

    refused(
        module, ValueError, f"{name} is read-only, but would be updated in place", change, ("train_step",)
    )


@pytest.mark.parametrize(
    ("lr", "error"),
    [
        *((-0.1, ValueError), (np.nan, ValueError), (np.inf, ValueError), (10**400, ValueError)),
        *(("0.1", TypeError), (None, TypeError)),
    ],
    ids=["negative", "nan", "inf", "beyond floats", "text", "None"],
)
def test_learning_rates_that_are_refused(module, lr, error):
    refused(module, error, "lr", lambda given: given.update(lr=lr), ("train_step",))
    param = np.ones(3)
    with pytest.raises(error, match="lr"):
        module.sgd_update([param], [np.ones(3)], lr)
    assert np.array_equal(param, np.ones(3))


def test_sgd_update_refuses_before_it_changes_anything(module):
    good, grad = np.ones((2, 3)), np.ones((2, 3))
    read_only_array = read_only(good)
    cases = [
        (ValueError, "2 params, but 1 grads", [good, good], [grad]),
        (ValueError, "grads[1] has shape (3, 2), params[1] has (2, 3)", [good, good], [grad, grad.T]),
        (ValueError, "grads[1] holds NaN or infinity", [good, good], [grad, grad * np.nan]),
        (ValueError, "params[1] is read-only", [good, read_only_array], [grad, grad]),
        (TypeError, "params[1] is updated in place and must be a NumPy array", [good, [1.0]], [grad, [1.0]]),
        (TypeError, "params[1] has dtype int64", [good, np.ones(3, int)], [grad, np.ones(3)]),
        (TypeError, "same dtype", [good, good.astype("f")], [grad, grad.astype("f")]),
        (TypeError, "same dtype", [good], [grad.astype("f")]),
        (TypeError, "params must be a list or tuple of arrays, got ndarray", good, [grad]),
    ]
    for error, message, params, grads in cases:
        with pytest.raises(error, match=re.escape(message)):
            module.sgd_update(params, grads, 0.5)
        assert np.array_equal(good, np.ones((2, 3)))
