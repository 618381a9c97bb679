"""`model.train_step(X, Y, state)` in functions that Numba compiles."""

import copy
import pickle
import threading

import numba
import numpy as np
import pytest
from numba import njit
from processes import NO_JIT, python

import fastbp
import fastbp.reference

compiled = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="nothing is compiled")


@njit(nogil=True)
def train(model, X, Y, state, batch, steps):
    """(steps,) losses of steps on one batch after another."""
    losses = np.empty(steps)
    start = 0
    for step in range(steps):
        end = min(start + batch, len(X))
        losses[step] = model.train_step(X[start:end], Y[start:end], state)
        start = end % len(X)
    return losses


OPTIMIZERS = {
    "sgd": lambda: fastbp.SGD(0.1),
    "momentum": lambda: fastbp.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: fastbp.Adam(0.01),
    "adamw": lambda: fastbp.AdamW(0.01, clip_norm=0.1),
    "rmsprop": lambda: fastbp.RMSprop(0.01, l1=0.001),
    "schedule": lambda: fastbp.SGD(fastbp.schedules.Cosine(0.1, steps=50), clip_value=0.01),
    "scheduled adam": lambda: fastbp.Adam(fastbp.schedules.Exponential(0.01, 0.99)),
}
ARCHITECTURES = {
    "usual": {"layer_sizes": [3, 16, 2], "hidden": "tanh"},
    "sum": {"layer_sizes": [5, 33, 1], "reduction": "sum", "max_norm": 1.0},
    "classes": {"layer_sizes": [6, 20, 20, 14], "output": "softmax", "loss": "categorical_crossentropy"},
    "noisy": {"layer_sizes": [6, 40, 3], "dropout": 0.3, "input_noise": 0.1},
    "normalised": {"layer_sizes": [4, 33, 2], "layer_norm": True, "input_scale": 0.5, "input_offset": 0.1},
}


def data_for(model, rows, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, model.layer_sizes[0])).astype(model.dtype)
    Y = np.eye(model.layer_sizes[-1], dtype=model.dtype)[rng.integers(0, model.layer_sizes[-1], rows)]
    return X, Y


def twins(options, optimizer, dtype="float32"):
    """The same model twice, with an optimizer each."""
    return [(fastbp.MLP(seed=0, dtype=dtype, **options), optimizer()) for _ in range(2)]


def assert_alike(models, optimizers):
    first, second = models
    assert np.array_equal(first.parameters.flat, second.parameters.flat)
    states = [
        rule.state(model.parameters.owner, len(model.parameters), model.dtype)
        for model, rule in zip(models, optimizers, strict=True)
    ]
    assert states[0].steps == states[1].steps
    assert all(np.array_equal(a, b) for a, b in zip(states[0].buffers, states[1].buffers, strict=True))
    assert first.streams.steps_trained == second.streams.steps_trained


CASES = [
    *[pytest.param(ARCHITECTURES["usual"], rule, id=name) for name, rule in OPTIMIZERS.items()],
    *[pytest.param(of, OPTIMIZERS["adam"], id=name) for name, of in ARCHITECTURES.items()],
    pytest.param(ARCHITECTURES["sum"], OPTIMIZERS["sgd"], id="sum sgd"),
]


@pytest.mark.parametrize(
    ("options", "optimizer", "dtype"),
    [
        pytest.param(*case.values, dtype, id=f"{case.id} {dtype}")
        for case, dtype in zip(CASES, ["float32", "float64"] * len(CASES), strict=False)
    ],
)
def test_the_bits_of_train_step(options, optimizer, dtype):
    """Losses, parameters, moments and counts, for batches of all kinds and what is left at the end."""
    (ours, rule), (theirs, other) = twins(options, optimizer, dtype)
    X, Y = data_for(ours, 70)
    state = ours.training_state(rule, batch_size=64, steps=8)
    for batch in (64, 32, 7, 3, 2, 1):
        found = train(ours, X, Y, state, batch, 5)
        expected = train.py_func(theirs, X, Y, other, batch, 5)
        assert np.array_equal(found, expected)
        assert_alike([ours, theirs], [rule, other])
    assert np.isfinite(ours.parameters.flat).all()


def test_fit_goes_on_and_is_gone_on_from():
    """With the optimizer's moments, and its hyper-parameters as they are set in between."""
    (ours, rule), (theirs, other) = twins(ARCHITECTURES["usual"], OPTIMIZERS["adam"])
    X, Y = data_for(ours, 40)
    state = ours.training_state(rule, batch_size=8)
    for model, given, optimizer in ((ours, state, rule), (theirs, other, other)):
        step = train if model is ours else train.py_func
        step(model, X, Y, given, 8, 10)
        model.fit(X, Y, epochs=2, batch_size=10, optimizer=optimizer, progress=False)
        optimizer.lr = 0.02
        step(model, X, Y, given, 8, 3)
        model.weights[0] = model.weights[0] * 2
        step(model, X, Y, given, 8, 3)
        optimizer.clip_norm = 0.01  # another rule
        step(model, X, Y, given, 8, 3)
        model.reset()
        step(model, X, Y, given, 8, 3)
        model.train_step(X[:8], Y[:8], given)
    assert_alike([ours, theirs], [rule, other])
    assert np.array_equal(ours.predict(X), theirs.predict(X))


@compiled
def test_a_schedule_that_learns():
    plateau = fastbp.schedules.ReduceOnPlateau(0.1, factor=0.1, patience=0)
    (ours, rule), (theirs, other) = twins(ARCHITECTURES["usual"], lambda: fastbp.SGD(copy.deepcopy(plateau)))
    X, Y = data_for(ours, 40)
    state = ours.training_state(rule)
    for _ in range(3):
        train(ours, X, Y, state, 8, 3)
        train.py_func(theirs, X, Y, other, 8, 3)
        for optimizer in (rule, other):
            optimizer.lr.load_state_dict({**optimizer.lr.state_dict(), "rate": optimizer.lr.rate / 2})
    assert_alike([ours, theirs], [rule, other])


@compiled
def test_steps_of_several_threads_are_done_one_after_another():
    """On the same batch, so that their order does not matter."""
    (ours, rule), (theirs, other) = twins(ARCHITECTURES["usual"], OPTIMIZERS["adam"])
    X, Y = data_for(ours, 16)
    state = ours.training_state(rule)
    train(ours, X, Y, state, 16, 1)
    threads = [threading.Thread(target=train, args=(ours, X, Y, state, 16, 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    train.py_func(theirs, X, Y, other, 16, 2001)
    assert_alike([ours, theirs], [rule, other])


def test_states_and_models_are_pickled():
    model = fastbp.MLP([3, 8, 2], seed=0)
    X, Y = data_for(model, 8)
    state = model.training_state(fastbp.Adam(), batch_size=8, steps=100)
    train(model, X, Y, state, 8, 3)
    twin, of_twin = pickle.loads(pickle.dumps((model, state)))
    assert (of_twin.batch_size, of_twin.steps) == (8, 100) and of_twin.model is twin
    assert np.array_equal(train(model, X, Y, state, 8, 3), train(twin, X, Y, of_twin, 8, 3))


def test_without_numba_the_same_code_gives_the_same_numbers():
    code = """if True:
        import numpy as np, fastbp
        from numba import njit
        @njit
        def train(model, X, Y, state, steps):
            for _ in range(steps):
                loss = model.train_step(X, Y, state)
            return loss
        model = fastbp.MLP([3, 8, 2], seed=0)
        X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
        print(train(model, X, Y, model.training_state(fastbp.Adam()), 5), model.weights)
    """
    assert python("-c", code, **NO_JIT) == python("-c", code)


@compiled
def test_the_steps_come_to_an_end():
    model = fastbp.MLP([3, 8, 2], seed=0)
    X, Y = data_for(model, 8)
    state = model.training_state(fastbp.Adam(), steps=10)
    for _ in range(5):
        train(model, X, Y, state, 8, 10)  # so many are always there
    with pytest.raises(RuntimeError, match=r"no learning rates for further steps.*training_state"):
        train(model, X, Y, state, 8, 21)
    train(
        model, X, Y, model.training_state(fastbp.SGD(0.1), steps=1), 8, 1000
    )  # whose rate is always the same


@pytest.mark.parametrize(
    ("options", "X", "Y", "message"),
    [
        ({}, np.ones((4, 2)), np.ones((4, 2)), "X has 2 columns, the model has 3 inputs"),
        ({}, np.ones((4, 3)), np.ones((4, 1)), "Y"),
        ({}, np.ones((4, 3)), np.ones((3, 2)), "Y has"),
        ({}, np.ones((65, 3)), np.ones((65, 2)), r"X has 65 rows, the state is for steps of up to 64"),
        ({}, np.full((4, 3), np.nan), np.ones((4, 2)), "X.*(NaN|nan)"),
        ({}, np.ones((4, 3)), np.full((4, 2), np.inf), "Y.*(infinity|inf)"),
        ({"loss": "binary_crossentropy"}, np.ones((4, 3)), np.full((4, 2), 1.5), r"Y has|Y holds 1\.5"),
        ({"loss": "poisson", "output": "exp"}, np.ones((4, 3)), np.full((4, 2), -1), "Y"),
        ({"loss": "hinge", "output": "identity"}, np.ones((4, 3)), np.zeros((4, 2)), "Y holds 0"),
        (
            {"loss": "categorical_crossentropy", "output": "softmax"},
            np.ones((4, 3)),
            np.ones((4, 2)),
            "row 0 of Y has the sum 2",
        ),
    ],
)
def test_bad_batches_are_errors_before_anything_is_changed(options, X, Y, message):
    model, rule = fastbp.MLP([3, 8, 2], seed=0, **options), fastbp.Adam()
    state, before = model.training_state(rule, batch_size=64), model.parameters.flat.copy()
    X, Y = X.astype(np.float32), Y.astype(np.float32)
    for step in (njit(lambda model, X, Y, state: model.train_step(X, Y, state)), model.train_step):
        with pytest.raises(ValueError, match=message):
            step(*((model,) if step != model.train_step else ()), X, Y, state)
    assert np.array_equal(model.parameters.flat, before) and model.streams.steps_trained == 0


def test_the_state_must_be_the_models():
    model, other = (fastbp.MLP([3, 8, 2], seed=0) for _ in range(2))
    X, Y = data_for(model, 8)
    state = other.training_state(fastbp.Adam())
    for step in (train, train.py_func):
        with pytest.raises(ValueError, match="the state is another model's"):
            step(model, X, Y, state, 8, 1)
    with pytest.raises(TypeError, match="optimizer must be an object like"):
        model.training_state(3)
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.training_state(fastbp.Adam(), batch_size=0)
    with pytest.raises(TypeError, match=r"compiled code needs a model of fastbp\.MLP"):
        fastbp.reference.MLP([3, 8, 2]).training_state(fastbp.Adam())
    with pytest.raises((numba.core.errors.TypingError, ValueError), match=r"training_state|Y"):
        train(model, X, Y[:, 0], model.training_state(fastbp.Adam()), 8, 1)


@compiled
@pytest.mark.parametrize(
    ("l2", "decay_biases"), [pytest.param(0.1, True, id="l2"), pytest.param(0.0, False, id="biases")]
)
def test_biases_that_are_trained_apart_are_refused(l2, decay_biases):
    model = fastbp.MLP([3, 8, 2], seed=0, l2=l2)
    X, Y = data_for(model, 8)
    state = model.training_state(fastbp.AdamW(decay_biases=decay_biases))
    with pytest.raises(ValueError, match="steps in compiled code train weights and biases alike"):
        train(model, X, Y, state, 8, 1)
    assert model.streams.steps_trained == 0


@compiled
def test_what_is_no_state_is_refused_when_it_is_compiled():
    model = fastbp.MLP([3, 8, 2], seed=0)
    X, Y = data_for(model, 8)
    with pytest.raises(
        numba.core.errors.TypingError, match=r"it must be what model\.training_state\(optimizer\)"
    ):
        train(model, X, Y, 0.1, 8, 1)
