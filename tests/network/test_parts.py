"""A model's parts: what a trace must be, what copies and pickles share, what an architecture may be."""

import copy
import pickle
import re
import weakref

import numpy as np
import pytest

import fastbp

SIZES = [5, 8, 2]


def data(rows=20):
    rng = np.random.default_rng(3)
    return rng.standard_normal((rows, SIZES[0])), rng.random((rows, SIZES[-1]))


def changed(trace, name, i, value):
    """A copy of the trace with another value for one of its arrays; i: which of a list, None: no list."""
    other = copy.deepcopy(trace)
    if i is None:
        setattr(other, name, value)
    else:
        getattr(other, name)[i] = value
    return other


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_of_another_model_is_refused(module, dtype):
    """Each array's shape is compared with the network's: compiled code takes its extents from there."""
    X, Y = data()
    model = module.MLP(SIZES, dtype=dtype, seed=0, layer_norm=True)
    trace = model.forward(X)
    expected = model.backward(trace, Y)
    refused = [
        module.MLP(sizes, dtype=dtype, layer_norm=True).forward(np.zeros((20, sizes[0])))
        for sizes in ([100, 8, 2], [4, 8, 2], [5, 7, 2], [5, 8, 3], [5, 8, 8, 2])
    ]
    refused.append(module.MLP(SIZES, dtype=dtype).forward(X))
    shapes = {"X": (20, 5), "z": [(20, 8), (20, 2)], "a": [(20, 8), (20, 2)], "n": [(20, 8)]}
    shapes["inverse_std"] = [(20,)]
    for name, of in shapes.items():
        for i, shape in [(None, of)] if name == "X" else enumerate(of):
            for wrong in ((shape[0] - 1, *shape[1:]), (*shape[:-1], shape[-1] + 1), (*shape[::-1], 1), ()):
                refused.append(changed(trace, name, i, np.zeros(wrong)))
        if name != "X":
            refused += [changed(trace, name, None, value) for value in ([], [np.zeros((20, 8))] * 5, None, 3)]
    for wrong in refused:
        with pytest.raises(ValueError, match="trace is not of this model: trace"):
            model.backward(wrong, Y if np.ndim(wrong.X) != 2 else Y[: len(wrong.X)])
    with pytest.raises(TypeError, match="trace must be what forward returned, got list"):
        model.backward([X], Y)
    with pytest.raises(TypeError, match=re.escape("trace.z[0] has dtype")):
        model.backward(changed(trace, "z", 0, np.full((20, 8), "a")), Y)
    again = model.backward(trace, Y)
    assert all(np.array_equal(a, b) for a, b in zip(expected.weights, again.weights, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_trace_may_be_stored_in_other_ways(module, dtype):
    """Strides, byte order and dtype of a trace's arrays do not change the gradients."""
    X, Y = data()
    model = module.MLP(SIZES, dtype=dtype, seed=0)
    trace = model.forward(X)
    expected = model.backward(trace, Y)

    def stored_otherwise(array):
        wide = np.zeros((2 * len(array), array.shape[1] + 3), array.dtype.newbyteorder(">"), order="F")
        wide[::2, 3:] = array
        return wide[::2, 3:]

    other = copy.deepcopy(trace)
    other.X = stored_otherwise(other.X)
    other.z, other.a = [stored_otherwise(z) for z in other.z], tuple(a.astype("f8") for a in other.a)
    found = model.backward(other, Y)
    for a, b in zip(found.weights + found.biases, expected.weights + expected.biases, strict=True):
        assert a.tobytes() == b.tobytes()


# ---- copies and pickles -----------------------------------------------------------------------------------


def trained(module, optimizer, schedule=None):
    X, Y = data()
    model = module.MLP(SIZES, seed=4, dropout=0.25)
    model.fit(X, Y, epochs=3, batch_size=6, optimizer=optimizer)
    return model


def goes_on(model, optimizer):
    X, Y = data()
    history = model.fit(X, Y, epochs=2, batch_size=6, optimizer=optimizer)
    return model.parameters.flat.tobytes(), history.loss.tolist(), history.lr.tolist()


@pytest.mark.parametrize(
    "duplicate",
    [
        copy.deepcopy,
        lambda pair: pickle.loads(pickle.dumps(pair)),
        lambda pair: copy.deepcopy(pair[::-1])[::-1],
    ],
    ids=["deepcopy", "pickle", "optimizer first"],
)
def test_model_and_optimizer_copied_together_go_on_together(module, duplicate):
    """Adam's moments, the number of steps and what a schedule has learned come along."""
    schedule = module.schedules.ReduceOnPlateau(
        0.05, monitor="loss", patience=0, threshold=10.0, threshold_mode="abs"
    )
    pair = trained(module, optimizer := module.Adam(schedule)), optimizer
    twins = duplicate(pair)
    assert twins[1].state(twins[0].parameters.owner, 0, twins[0].dtype).steps == 12
    expected = goes_on(*pair)
    assert goes_on(*twins) == expected
    assert expected[2][0] < 0.05


def test_copied_alone_they_begin_anew(module):
    optimizer = module.Adam(0.01)
    model = trained(module, optimizer)
    for duplicate in (copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        other = duplicate(model)
        assert optimizer.state(other.parameters.owner, len(other.parameters), other.dtype).steps == 0
        alone = duplicate(optimizer)
        assert alone.state(model.parameters.owner, len(model.parameters), model.dtype).steps == 0
        assert repr(alone) == repr(optimizer)
        assert not alone._states or list(alone._states) == [model.parameters.owner]
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == 12


def test_copies_share_nothing(module):
    """copy.copy, too: the copy's training must not move the original's generators or parameters."""
    expected = goes_on(trained(module, module.SGD(0.1)), module.SGD(0.1))
    for duplicate in (copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))):
        model = trained(module, module.SGD(0.1))
        model.metadata["names"] = ["a"]
        other = duplicate(model)
        before = model.parameters.flat.tobytes(), model.streams.state()
        assert goes_on(other, module.SGD(0.1)) == expected
        other.metadata["names"].append("b")
        other.weights[0][...] = 0
        assert (model.parameters.flat.tobytes(), model.streams.state()) == before
        assert model.metadata == {"names": ["a"]}
        assert goes_on(model, module.SGD(0.1)) == expected


def test_reset_begins_anew_with_every_optimizer(module):
    optimizer = module.Adam(0.01)
    model = trained(module, optimizer)
    model.reset()
    assert goes_on(model, optimizer) == goes_on(module.MLP(SIZES, seed=4, dropout=0.25), module.Adam(0.01))


# ---- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [2**128, 10**400, -1, 1e3, "7", True, [1]])
def test_absurd_seeds(module, seed):
    with pytest.raises((TypeError, ValueError), match=r"^seed"):
        module.MLP(SIZES, seed=seed)
    assert module.MLP(SIZES, seed=2**128 - 1).predict(np.zeros((1, 5))).shape == (1, 2)


@pytest.mark.parametrize(
    "sizes", [np.array(3.0), np.ones((2, 2), int), [[5], [2]], [5, [2]], 3, "52", {5, 2}]
)
def test_layer_sizes_that_are_no_list(module, sizes):
    with pytest.raises(TypeError, match=r"^layer_sizes"):
        module.MLP(sizes)


def test_layer_sizes_beyond_all_memory(module):
    with pytest.raises(ValueError, match=r"^layer_sizes .* more than memory can hold"):
        module.MLP([10**12, 10**12])


def test_dropout_as_an_array_of_no_dimensions(module):
    assert module.MLP(SIZES, dropout=np.array(0.25)).dropout == (0.25,)
    with pytest.raises(ValueError, match=r"^dropout"):
        module.MLP(SIZES, dropout=np.array(3.0))


def test_messages_name_what_users_call(module):
    """Python words an argument that is missing after the class that has the method."""
    with pytest.raises(TypeError, match=r"MLP\.fit\(\) missing 1 required keyword-only argument") as caught:
        module.MLP(SIZES).fit(*data(), epochs=1)
    assert "Base" not in str(caught.value)
    assert isinstance(fastbp.MLP(SIZES), fastbp.MLP)


def test_a_model_takes_its_optimizer_states_along(module):
    """An optimizer that is used for many models holds on to none of them, nor to what it knew of them."""
    optimizer = module.Adam(0.01)
    model = trained(module, optimizer)
    state = weakref.ref(optimizer.state(model.parameters.owner, len(model.parameters), model.dtype))
    assert len(optimizer._states) == 1
    model.reset()
    assert state() is None and len(optimizer._states) == 0
    goes_on(model, optimizer)
    flat = weakref.ref(model.parameters)
    del model
    assert flat() is None and len(optimizer._states) == 0  # without a garbage collection
