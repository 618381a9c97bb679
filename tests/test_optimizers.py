"""Optimizers: both implementations against the formulas, step by step in float64."""

import pickle
import re

import numpy as np
import pytest
from definitions import OPTIMIZERS

import fastbp
import fastbp.reference

# What every optimizer can do to a gradient first, in amounts that matter for `problem`.
FIRST = [
    {"l1": 0.01},
    {"clip_value": 0.01},
    {"clip_norm": 0.05},
    {"l1": 0.01, "clip_value": 0.01, "clip_norm": 0.05},
]
PLAIN = {name: definition.plain for name, definition in OPTIMIZERS.items()}
CASES = [(name, options) for name, o in OPTIMIZERS.items() for options in (o.plain, *o.cases)]
CASES += [(name, options | first) for name, options in PLAIN.items() for first in FIRST]
CASES += [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01} | FIRST[3]),
    ("RMSprop", {"momentum": 0.5, "weight_decay": 0.01} | FIRST[3]),
    ("Adam", {"lr": 0.01, "clip_norm": 1e3, "clip_value": 1e3}),  # nothing is that large
]


class Formula:
    """An optimizer's definition on one flat vector in float64, after what every optimizer can do first."""

    def __init__(self, name, options):
        self.definition, self.memory = OPTIMIZERS[name], {"t": 0}
        self.own = self.definition.defaults | options
        self.first = {key: self.own.pop(key) for key in ("l1", "clip_value", "clip_norm") if key in self.own}

    def step(self, p, g):
        first = self.first
        self.memory["t"] += 1
        if "clip_norm" in first:
            g = g * min(1, first["clip_norm"] / (np.linalg.norm(g) + 1e-6))
        if "clip_value" in first:
            g = np.clip(g, -first["clip_value"], first["clip_value"])
        return self.definition.step(self.memory, p, g + first.get("l1", 0) * np.sign(p), **self.own)


def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((12, 3)), rng.random((12, 2))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_fifty_steps_of_the_formula(module, name, options):
    X, Y = problem()
    model = module.MLP([3, 5, 2], hidden="tanh", dtype="float64", seed=0)
    optimizer, formula = getattr(module, name)(**options), Formula(name, options)
    expected = model.parameters.flat.copy()
    for _ in range(50):
        gradients = model.backward(model.forward(X), Y)
        flat = np.concatenate(
            [g.ravel() for pair in zip(gradients.weights, gradients.biases, strict=True) for g in pair]
        )
        expected = formula.step(expected, flat)
        model.train_step(X, Y, optimizer)
        np.testing.assert_allclose(model.parameters.flat, expected, rtol=0, atol=1e-11)
        model.parameters.flat[:] = expected  # rounding does not add up: each step is compared
    assert optimizer.state(model.parameters.owner, 0, np.dtype(float)).steps == 50


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_fifty_steps_of_torch(module, name, options):
    torch = pytest.importorskip("torch")
    if {"epsilon_hat", "lr_in_velocity"} & set(options):
        pytest.skip("torch.optim has no such form")
    X, Y = problem()
    model = module.MLP([3, 5, 2], hidden="tanh", dtype="float64", seed=0)
    optimizer = getattr(module, name)(**options)
    theirs = torch.tensor(model.parameters.flat.copy(), requires_grad=True)
    first = {k: options[k] for k in ("l1", "clip_value", "clip_norm") if k in options}
    own = {k: v for k, v in options.items() if k not in first}
    their_optimizer = getattr(torch.optim, name)([theirs], **own)
    for _ in range(50):
        gradients = model.backward(model.forward(X), Y)
        pairs = zip(gradients.weights, gradients.biases, strict=True)
        theirs.grad = torch.tensor(np.concatenate([g.ravel() for pair in pairs for g in pair]))
        if "clip_norm" in first:
            torch.nn.utils.clip_grad_norm_([theirs], first["clip_norm"])
        if "clip_value" in first:
            torch.nn.utils.clip_grad_value_([theirs], first["clip_value"])
        theirs.grad += first.get("l1", 0) * torch.sign(theirs.detach())
        their_optimizer.step()
        model.train_step(X, Y, optimizer)
        np.testing.assert_allclose(model.parameters.flat, theirs.detach().numpy(), rtol=0, atol=1e-11)
        with torch.no_grad():
            theirs[:] = torch.tensor(model.parameters.flat)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_float32_is_the_same_to_rounding(module, name, options):
    X, Y = problem()
    results = []
    for dtype in ("float32", "float64"):
        model = module.MLP([3, 5, 2], hidden="tanh", dtype=dtype, seed=0)
        # with Adam's default eps, the sign of a gradient that is nearly 0 decides: start away from that
        optimizer = getattr(module, name)(**({"eps": 1e-3} | options if name != "SGD" else options))
        model.fit(X, Y, epochs=5, batch_size=5, optimizer=optimizer, shuffle=False)
        assert model.parameters.flat.dtype == dtype
        results.append(model.parameters.flat)
    np.testing.assert_allclose(*results, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_state_goes_on_from_call_to_call(module, name, options):
    X, Y = problem()
    once, twice = (module.MLP([3, 5, 2], dtype="float64", seed=0) for _ in range(2))
    once.fit(X, Y, epochs=4, batch_size=5, optimizer=getattr(module, name)(**options), shuffle=False)
    optimizer = getattr(module, name)(**options)
    other = module.MLP([3, 5, 2], dtype="float64", seed=1)  # has its own state
    for _ in range(2):
        twice.fit(X, Y, epochs=2, batch_size=5, optimizer=optimizer, shuffle=False)
        other.fit(X, Y, epochs=1, optimizer=optimizer)
    assert np.array_equal(once.parameters.flat, twice.parameters.flat)


def test_hyperparameters_can_be_changed(module):
    X, Y = problem()
    model = module.MLP([3, 5, 2], seed=0)
    optimizer = module.SGD(0.1)
    model.train_step(X, Y, optimizer)
    before = model.parameters.flat.copy()
    optimizer.lr = 0.0
    model.train_step(X, Y, optimizer)
    assert np.array_equal(model.parameters.flat, before)
    optimizer.momentum = 0.5
    model.train_step(X, Y, optimizer)
    optimizer.lr = 0.1
    model.train_step(X, Y, optimizer)
    assert not np.array_equal(model.parameters.flat, before)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("SGD", {"lr": -1}, ValueError, "lr is -1.0, expected a number finite and at least 0"),
        ("SGD", {"lr": float("inf")}, ValueError, "lr is inf"),
        ("SGD", {"lr": "fast"}, TypeError, "lr must be a number, got 'fast'"),
        ("SGD", {"lr": 1, "momentum": -0.1}, ValueError, "momentum"),
        ("SGD", {"lr": 1, "nesterov": True}, ValueError, "nesterov=True needs a momentum above 0"),
        ("Adam", {"betas": (0.9, 1.0)}, ValueError, "betas[1] is 1.0, expected a number in [0, 1)"),
        ("Adam", {"betas": 0.9}, TypeError, "betas must be a list or tuple of two numbers, got 0.9"),
        ("SGD", {"lr": 1, "momentum": 1}, ValueError, "momentum is 1.0, expected a number in [0, 1)"),
        ("SGD", {"lr": 1, "momentum": 0.9, "nesterov": "no"}, TypeError, "nesterov must be True or False"),
        ("SGD", {"lr": 1, "momentun": 0.9}, TypeError, "has no option 'momentun', expected one of momentum,"),
        ("AdamW", {"learning_rate": 1}, TypeError, "AdamW has no option 'learning_rate', expected one of"),
        ("RMSprop", {"momentum": 1}, ValueError, "momentum is 1.0"),
        ("AdamW", {"weight_decay": -1}, ValueError, "weight_decay"),
        ("RMSprop", {"alpha": 1}, ValueError, "alpha"),
        ("RMSprop", {"eps": -1e-8}, ValueError, "eps"),
        ("Adam", {"l1": -1}, ValueError, "l1 is -1.0, expected a number finite and at least 0"),
        (
            "SGD",
            {"lr": 1, "clip_value": 0},
            ValueError,
            "clip_value is 0, expected None or a number finite and above 0",
        ),
        ("AdamW", {"clip_norm": float("inf")}, ValueError, "clip_norm is inf, expected None or a number"),
        ("Adagrad", {"clip_norm": "1"}, TypeError, "clip_norm must be a number or None, got '1'"),
    ],
)
def test_hyperparameters_that_are_refused(module, name, options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        getattr(module, name)(**options)


@pytest.mark.parametrize(
    ("name", "attribute", "value", "error", "message"),
    [
        ("SGD", "lr", -5, ValueError, "lr is -5.0"),
        ("SGD", "lr", float("nan"), ValueError, "lr is nan"),
        ("SGD", "clip_norm", float("nan"), ValueError, "clip_norm is nan"),
        ("SGD", "clip_value", -1, ValueError, "clip_value is -1"),
        ("SGD", "weight_decay", "much", TypeError, "weight_decay must be a number"),
        ("SGD", "nesterov", True, ValueError, "nesterov=True needs a momentum above 0"),
        ("SGD", "momentum", 1.0, ValueError, "momentum is 1.0"),
        ("Adam", "betas", (0.9, 1.0), ValueError, "betas[1] is 1.0"),
        ("Adam", "eps", -1, ValueError, "eps is -1.0"),
        ("AdamW", "l1", None, TypeError, "l1 must be a number"),
        ("RMSprop", "alpha", 1, ValueError, "alpha is 1.0"),
    ],
)
def test_what_is_assigned_is_checked_at_once(module, name, attribute, value, error, message):
    """In a callback nobody else would look, and nothing is half set."""
    optimizer = getattr(module, name)(lr=0.1)
    before = repr(optimizer)
    with pytest.raises(error, match=re.escape(message)):
        setattr(optimizer, attribute, value)
    assert repr(optimizer) == before
    optimizer.lr = np.array(0.5)
    assert optimizer.lr == 0.5 and type(optimizer.lr) is float


def test_what_is_set_cannot_be_changed_in_place(module):
    betas = [0.9, 0.99]
    optimizer = module.Adam(0.1, betas)
    betas[0] = 5
    assert optimizer.betas == (0.9, 0.99)
    optimizer.betas = [0.5, 0.6]
    assert optimizer.betas == (0.5, 0.6)


def test_what_is_no_hyperparameter_cannot_be_set(module):
    optimizer = module.SGD(0.1)
    with pytest.raises(TypeError, match="SGD has no option 'momentun', expected one of momentum"):
        optimizer.momentun = 0.9
    assert "momentun" not in repr(optimizer)


def test_several_hyperparameters_at_once(module):
    optimizer = module.SGD(0.1, momentum=0.9, nesterov=True)
    with pytest.raises(ValueError, match="nesterov=True needs a momentum"):
        optimizer.momentum = 0.0
    optimizer.assign({"momentum": 0.0, "nesterov": False})
    assert (optimizer.momentum, optimizer.nesterov) == (0.0, False)


@pytest.mark.parametrize("rates", [[np.nan], [-1.0], [np.inf], [0.1, 0.1]], ids=str)
def test_what_a_schedule_gives_is_checked(module, rates):
    class Mine(fastbp.schedules.Schedule):
        def __call__(self, steps):
            return np.array(rates)

    X, Y = problem()
    model = module.MLP([3, 5, 2], seed=0)
    before = model.parameters.flat.copy()
    with pytest.raises(ValueError, match=r"lr: <.*Mine.*> gives"):
        model.train_step(X, Y, module.SGD(Mine()))
    assert np.array_equal(model.parameters.flat, before)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_repr_and_pickle(module, name, options):
    optimizer = getattr(module, name)(**options)
    again = eval(repr(optimizer), {name: getattr(module, name) for name in module.__all__})
    assert repr(again) == repr(optimizer)
    assert repr(pickle.loads(pickle.dumps(optimizer))) == repr(optimizer)


def test_state_is_freed_with_its_model(module):
    X, Y = problem()
    optimizer = module.Adam()
    model = module.MLP([3, 5, 2])
    model.train_step(X, Y, optimizer)
    assert len(optimizer._states) == 1
    del model
    assert len(optimizer._states) == 0


# ---- clipping and max-norm --------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[3, 5, 2], [1, 1], [17, 33, 16], [33, 15, 1], [15, 31, 32, 13]], ids=str)
def test_clipping_is_that_of_the_reference(sizes, dtype):
    """Whole epochs, in which gradients are longer and shorter than the limit, on all kinds of layers."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, sizes[0])), rng.random((40, sizes[-1]))
    for name, options in PLAIN.items():
        results = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP(sizes, hidden="tanh", dtype=dtype, seed=0, max_norm=1.0)
            epsilon = {"eps": 1e-3} if name != "SGD" else {}
            o = getattr(module, name)(**options | epsilon, clip_norm=0.05, clip_value=0.02)
            model.fit(X, Y, epochs=5, batch_size=16, optimizer=o)
            results.append(model.parameters.flat)
        np.testing.assert_allclose(*results, rtol=0, atol=1e-12 if dtype == "float64" else 1e-5)


def test_max_norm(module, dtype):
    """After a step each column is as the step alone left it, or cut to the limit; biases stay free."""
    limits = []
    for sizes in ([3, 5, 2], [3, 20, 17]):
        X, Y = problem()
        Y = np.resize(Y, (12, sizes[-1]))
        free, limited = (module.MLP(sizes, dtype=dtype, seed=0, max_norm=m) for m in (None, 0.9))
        for model in (free, limited):
            model.biases[0][...] = 2.0
            model.train_step(X, Y, module.SGD(0.1))
        for before, after in zip(free.weights, limited.weights, strict=True):
            norms = np.linalg.norm(before, axis=0)
            expected = before * np.where(norms > 0.9, 0.9 / (norms + 1e-7), 1)
            np.testing.assert_allclose(after, expected, rtol=4 * np.finfo(dtype).eps)
            limits += list(norms > 0.9)
        for before, after in zip(free.biases, limited.biases, strict=True):
            assert np.array_equal(before, after)
    assert set(map(bool, limits)) == {True, False}


def test_max_norm_is_renorm_of_torch(module):
    torch = pytest.importorskip("torch")
    X, Y = problem()
    free, limited = (module.MLP([3, 20, 2], dtype="float64", seed=0, max_norm=m) for m in (None, 0.5))
    for _ in range(50):
        free.parameters.flat[:] = limited.parameters.flat
        for model in (free, limited):
            model.train_step(X, Y, module.SGD(0.5))
        for ours, theirs in zip(limited.weights, free.weights, strict=True):
            expected = torch.renorm(torch.tensor(theirs), 2, 1, 0.5).numpy()
            np.testing.assert_allclose(ours, expected, rtol=1e-13)


@pytest.mark.parametrize("max_norm", [0, -1, float("nan"), "1"])
def test_max_norm_that_is_refused(module, max_norm):
    with pytest.raises((ValueError, TypeError), match=r"max_norm .*None"):
        module.MLP([3, 2], max_norm=max_norm)


def test_a_gradient_whose_norm_is_not_finite(module):
    """Clipping would make ordinary numbers of some of it: it does not hide that."""
    X, Y = np.ones((4, 3)), np.ones((4, 2))
    model = module.MLP([3, 2], output="identity", dtype="float64", seed=0, loss="mae")
    clipping = module.SGD(0.1, clip_norm=1.0)
    model.fit(1e100 * X, Y, epochs=1, optimizer=clipping)
    before = model.parameters.flat.copy()
    with pytest.raises(
        FloatingPointError, match="a parameter became NaN or infinite at epoch 1, step 1 of 1"
    ):
        model.fit(1e200 * X, Y, epochs=1, optimizer=clipping)  # the gradient is finite, but not its square
    assert np.array_equal(model.parameters.flat, before)


@pytest.mark.parametrize("name", [name for name, o in OPTIMIZERS.items() if "eps" in o.defaults])
def test_eps_may_be_0(name, dtype):
    """No gradient here is 0; what fills up the engine's vectors is."""
    X, Y = problem()
    results = []
    for module in (fastbp, fastbp.reference):
        model = module.MLP([3, 5, 2], hidden="tanh", dtype=dtype, seed=0)
        for eps in (0.0, 1e-60):
            model.fit(X, Y, epochs=2, optimizer=getattr(module, name)(eps=eps), batch_size=12)
        results.append(model.parameters.flat)
    np.testing.assert_allclose(*results, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-10)
