"""Learning rate schedules: PyTorch's where it is installed, their shapes, and training with them."""

import pickle
import re

import numpy as np
import pytest

import fastbp
from fastbp.schedules import Constant, Cosine, Exponential, OneCycle, Step, WarmUp

SCHEDULES = [
    Constant(0.1),
    Step(0.1, 7, 0.5),
    Exponential(0.1, 0.9),
    Cosine(0.1, 30, 0.01),
    Cosine(0.1, 7, restarts=True),
    Cosine(0.1, 4, 0.01, restarts=True, growth=2),
    WarmUp(0.1, 10),
    WarmUp(Step(0.1, 7, 0.5), 5, 0.1),
    WarmUp(Cosine(0.1, 40), 10),
    OneCycle(0.1, 40),
    OneCycle(0.1, 50, 0.4, 0.1, 0.01),
]
OPTIMIZERS = [
    lambda lr: fastbp.SGD(lr),
    lambda lr: fastbp.SGD(lr, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda lr: fastbp.Adam(lr),
    lambda lr: fastbp.AdamW(lr),
    lambda lr: fastbp.RMSprop(lr),
    lambda lr: fastbp.Adagrad(lr),
]


def of_torch(torch, schedule, optimizer):
    s, kinds = schedule, torch.optim.lr_scheduler
    if isinstance(s, Constant):
        return kinds.ConstantLR(optimizer, factor=1.0)
    if isinstance(s, Step):
        return kinds.StepLR(optimizer, s.every, s.factor)
    if isinstance(s, Exponential):
        return kinds.ExponentialLR(optimizer, s.factor)
    if isinstance(s, Cosine):
        if s.restarts:
            return kinds.CosineAnnealingWarmRestarts(optimizer, s.steps, s.growth, s.low)
        return kinds.CosineAnnealingLR(optimizer, s.steps, s.low)
    if isinstance(s, OneCycle):
        return kinds.OneCycleLR(
            optimizer, s.lr, s.steps, pct_start=s.up, div_factor=1 / s.start, final_div_factor=1 / s.end
        )
    after = s.after if isinstance(s.after, fastbp.schedules.Schedule) else Constant(s.after)
    first = kinds.LinearLR(optimizer, s.start, total_iters=s.steps)
    return kinds.SequentialLR(optimizer, [first, of_torch(torch, after, optimizer)], [s.steps])


@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # SequentialLR's own
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_like_torch(schedule):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = of_torch(torch, schedule, optimizer)
    steps = getattr(schedule, "steps", 50) if isinstance(schedule, (OneCycle, Cosine)) else 50
    steps = 50 if getattr(schedule, "restarts", False) else steps
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(rates) < steps:
            theirs.step()
    np.testing.assert_allclose(schedule(np.arange(steps)), rates, rtol=1e-10, atol=1e-15)


def test_shapes():
    """Some values of each, without PyTorch."""
    t = np.arange(1000)
    assert set(Constant(0.5)(t)) == {0.5}
    np.testing.assert_allclose(Step(1.0, 10)(t)[[0, 9, 10, 19, 20]], [1, 1, 0.1, 0.1, 0.01])
    np.testing.assert_allclose(Exponential(1.0, 0.5)(t)[:4], [1, 0.5, 0.25, 0.125])
    np.testing.assert_allclose(Cosine(1.0, 10, 0.2)(t)[[0, 5, 10, 11, 999]], [1, 0.6, 0.2, 0.2, 0.2])
    again = Cosine(1.0, 10, restarts=True, growth=3)(t)
    assert list(np.flatnonzero(again == 1)) == [0, 10, 40, 130, 400]
    np.testing.assert_allclose(again[[5, 25, 85]], 0.5)
    np.testing.assert_allclose(WarmUp(1.0, 10, 0.0)(t)[[0, 5, 10, 11, 999]], [0, 0.5, 1, 1, 1])
    np.testing.assert_allclose(
        WarmUp(Exponential(1.0, 0.5), 4, 0.5)(t)[:7], [0.5, 0.625, 0.75, 0.875, 1, 0.5, 0.25]
    )
    cycle = OneCycle(1.0, 100)(t)
    assert (cycle.argmax(), cycle.max()) == (29, 1.0)
    np.testing.assert_allclose(cycle[[0, 99, 999]], [0.04, 4e-6, 4e-6])
    assert (np.diff(cycle[:30]) > 0).all()
    assert (np.diff(cycle[29:100]) < 0).all()


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_training(schedule, make):
    """fit, in one go and in parts, in both implementations, is single steps with a number set before each."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 5)), rng.random((40, 2))
    results = []
    for module in (fastbp, fastbp.reference):
        for parts in ([10], [3, 5, 2]):
            model = module.MLP([5, 9, 2], hidden="tanh", dtype="float64", seed=0)
            optimizer = make(schedule)
            for epochs in parts:
                model.fit(X, Y, epochs=epochs, batch_size=8, optimizer=optimizer, shuffle=False)
            results.append(model._parameters)
    stepped = fastbp.reference.MLP([5, 9, 2], hidden="tanh", dtype="float64", seed=0)
    optimizer = make(0.0)
    for t in range(50):
        optimizer.lr = float(schedule(np.array([t]))[0])
        rows = slice(t % 5 * 8, t % 5 * 8 + 8)
        stepped.train_step(X[rows], Y[rows], optimizer)
    for parameters in results:
        np.testing.assert_allclose(parameters, stepped._parameters, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_repr_and_pickle(schedule):
    assert eval(repr(schedule)) == schedule
    optimizer = pickle.loads(pickle.dumps(fastbp.Adam(schedule)))
    assert optimizer.lr == schedule
    assert repr(optimizer).startswith(f"Adam(lr={schedule!r}, ")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Constant(-1), ValueError, "lr is -1.0, expected a number finite and at least 0"),
        (lambda: Step(0.1, 0), ValueError, "every is 0"),
        (lambda: Exponential(0.1, "x"), TypeError, "factor must be a number"),
        (lambda: Cosine(0.1, 0), ValueError, "steps is 0"),
        (
            lambda: Cosine(0.1, 10, growth=2),
            ValueError,
            "growth is 2, which means something with restarts=True only",
        ),
        (lambda: WarmUp("x", 10), TypeError, "after must be a number"),
        (lambda: OneCycle(0.1, 1), ValueError, "steps is 1"),
        (lambda: OneCycle(0.1, 10, up=1), ValueError, "up is 1.0"),
        (lambda: fastbp.SGD(Constant), TypeError, "lr must be a number"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()
