"""Learning rate schedules: PyTorch's where it is installed, their shapes, and training with them."""

import copy
import json
import pickle
import re

import numpy as np
import pytest

import fastbp
from fastbp.schedules import Constant, Cosine, Exponential, OneCycle, ReduceOnPlateau, Schedule, Step, WarmUp

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
            results.append(model.parameters.flat)
    stepped = fastbp.reference.MLP([5, 9, 2], hidden="tanh", dtype="float64", seed=0)
    optimizer = make(0.0)
    for t in range(50):
        optimizer.lr = float(schedule(np.array([t]))[0])
        rows = slice(t % 5 * 8, t % 5 * 8 + 8)
        stepped.train_step(X[rows], Y[rows], optimizer)
    for parameters in results:
        np.testing.assert_allclose(parameters, stepped.parameters.flat, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", [*SCHEDULES, ReduceOnPlateau(0.1, 0.5, monitor="val_mae")], ids=str)
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
        (lambda: ReduceOnPlateau(0.1, 1.0), ValueError, "factor is 1.0, expected a number in [0, 1)"),
        (lambda: ReduceOnPlateau(0.1, patience=-1), ValueError, "patience is -1"),
        (
            lambda: ReduceOnPlateau(0.1, mode="low"),
            ValueError,
            "unknown mode 'low', expected one of 'min', 'max'",
        ),
        (lambda: ReduceOnPlateau(0.1, threshold_mode="r"), ValueError, "unknown threshold_mode 'r'"),
        (lambda: ReduceOnPlateau(0.1, monitor=1), TypeError, "monitor must be the name of a column"),
    ],
)
def test_refused(make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        make()


# ---- what depends on how training goes --------------------------------------------------------------------

PLATEAUS = [
    {},
    {"patience": 0, "factor": 0.5},
    {"patience": 2, "cooldown": 3, "factor": 0.5, "min_lr": 1e-3},
    {"patience": 1, "threshold": 0.05, "factor": 0.5},
    {"patience": 1, "threshold": 0.05, "factor": 0.5, "threshold_mode": "abs"},
    {"patience": 1, "threshold": 0.05, "factor": 0.5, "mode": "max"},
    {"patience": 1, "threshold": 0.05, "factor": 0.5, "threshold_mode": "abs", "mode": "max", "cooldown": 1},
    {"patience": 0, "min_lr": 0.03},
    {"patience": 0, "factor": 0.1, "eps": 1e-3},
]


def rates_of(schedule, values):
    """The rate of each epoch, if epochs end with these values."""
    rates = []
    for value in values:
        rates.append(schedule(np.zeros(1, np.int64))[0])
        schedule.observe(value)
    return rates


def test_reduce_on_plateau_by_hand():
    rates = rates_of(ReduceOnPlateau(1.0, 0.5, patience=1), [3, 2, 2, 2, 2, 2, 1, 1, 1, 1])
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.125]
    # the two epochs after the reduction are not counted
    rates = rates_of(ReduceOnPlateau(1.0, 0.5, patience=0, cooldown=2), [1] * 8)
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]
    rates = rates_of(ReduceOnPlateau(1.0, 0.5, patience=0, min_lr=0.3), [1, 1, 1, 1])
    assert rates == [1, 1, 0.5, 0.3]
    # better by less than a tenth is no improvement, seen from the best value so far
    rates = rates_of(ReduceOnPlateau(1.0, 0.5, patience=0, threshold=0.1), [10, 9.5, 8.9, 8.1, 8.0])
    assert rates == [1, 1, 0.5, 0.5, 0.25]
    absolute = ReduceOnPlateau(1.0, 0.5, patience=0, threshold=0.1, threshold_mode="abs")
    assert rates_of(absolute, [10, 9.95, 9.85, 9.7, 9.6]) == [1, 1, 0.5, 0.5, 0.5]
    rising = ReduceOnPlateau(1.0, 0.5, patience=0, mode="max", threshold=0.0)
    assert rates_of(rising, [1, 2, 2, 3, 1, 4]) == [1, 1, 1, 0.5, 0.5, 0.25]
    nan = float("nan")
    assert rates_of(ReduceOnPlateau(1.0, 0.5, patience=1), [nan, nan, nan, nan]) == [1, 1, 0.5, 0.5]


@pytest.mark.parametrize("options", PLATEAUS, ids=str)
def test_reduce_on_plateau_is_that_of_torch(options):
    torch = pytest.importorskip("torch")
    values = np.round(np.exp(-np.arange(80) / 20) + 0.05 * np.random.default_rng(0).standard_normal(80), 2)
    values = np.concatenate([values, -values])
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
    expected = []
    for value in values:
        expected.append(optimizer.param_groups[0]["lr"])
        theirs.step(value)
    assert rates_of(ReduceOnPlateau(0.1, **options), values) == expected


def test_the_state_goes_on_from_a_dict():
    values = list(np.random.default_rng(0).random(40))
    once = ReduceOnPlateau(0.1, 0.9, patience=1, cooldown=1)
    expected = rates_of(once, values)
    rates, schedule = [], WarmUp(ReduceOnPlateau(0.1, 0.9, patience=1, cooldown=1), 1)
    for start in range(0, 40, 4):
        rates += rates_of(schedule.after, values[start : start + 4])
        state = json.loads(json.dumps(schedule.state_dict()))
        schedule = WarmUp(ReduceOnPlateau(0.1, 0.9, patience=1, cooldown=1), 1)
        schedule.load_state_dict(state)
    assert rates == expected
    assert schedule.after == once
    once.reset()
    assert once == ReduceOnPlateau(0.1, 0.9, patience=1, cooldown=1)
    assert Step(0.1, 2).state_dict() == {}
    Step(0.1, 2).load_state_dict({})
    for other in (Step(0.1, 2), ReduceOnPlateau(0.1)):
        with pytest.raises(ValueError, match=r"the state of \w+ has \[.*\], got one that has \['x'\]"):
            other.load_state_dict({"x": 1})
    with pytest.raises(ValueError, match="rate is -1"):
        ReduceOnPlateau(0.1).load_state_dict({**state, "rate": -1})


class Told(Schedule):
    """A schedule of a user's own: what it is told, and when."""

    watches = True

    def __init__(self):
        self.epochs, self.columns = [], None

    def __call__(self, steps):
        return np.full(len(steps), 0.1 / (1 + len(self.epochs)))

    def check_columns(self, names):
        self.columns = list(names)

    def epoch_ended(self, history):
        self.epochs.append((history.epochs, history.last("loss"), history.last("lr")))


def test_fit_tells_a_schedule_of_each_epoch(module):
    X, Y = np.random.default_rng(0).random((2, 20, 3))
    schedule, seen = Told(), []
    model = module.MLP([3, 4, 3], seed=0)
    history = model.fit(
        X,
        Y,
        epochs=6,
        batch_size=8,
        optimizer=module.SGD(WarmUp(schedule, 3, 1.0)),
        callbacks=lambda _, epoch, __: seen.append((epoch, len(schedule.epochs))) and None,
    )
    assert seen == [(i, i) for i in range(1, 7)]  # before the callbacks
    assert schedule.epochs == list(zip(range(1, 7), history.loss, history.lr, strict=True))
    np.testing.assert_allclose(history.lr, 0.1 / np.arange(1, 7))
    assert "loss" in schedule.columns and "val_loss" not in schedule.columns


@pytest.mark.parametrize("monitor", ["loss", "val_loss", "val_mae"])
def test_fit_with_reduce_on_plateau(module, monitor):
    """Rates follow the validation loss, or the training loss where there is none, or what was asked for."""
    rng = np.random.default_rng(0)
    X, Y = rng.random((40, 3)), rng.random((40, 2))
    data = {} if monitor == "loss" else {"validation_data": (X[:10], Y[:10]), "metrics": ["mae"]}
    schedule = ReduceOnPlateau(2.0, 0.7, patience=0, monitor="val_mae" if monitor == "val_mae" else None)
    model = module.MLP([3, 8, 2], seed=0)
    optimizer = module.SGD(schedule)
    parts = [model.fit(X, Y, epochs=n, batch_size=4, optimizer=optimizer, **data) for n in (20, 10)]
    values = np.concatenate([history._array(monitor) for history in parts])
    expected = rates_of(ReduceOnPlateau(2.0, 0.7, patience=0), values)
    assert len(set(expected)) > 3
    np.testing.assert_array_equal(np.concatenate([history.lr for history in parts]), expected)


def test_a_column_that_is_not_there_is_refused_first(module):
    X, Y = np.random.default_rng(0).random((2, 20, 3))
    model = module.MLP([3, 3], seed=0)
    before = model.parameters.flat.copy()
    optimizer = module.SGD(WarmUp(ReduceOnPlateau(0.1, monitor="val_loss"), 3))
    with pytest.raises(ValueError, match="unknown monitor 'val_loss', expected one of 'loss'"):
        model.fit(X, Y, epochs=2, optimizer=optimizer)
    assert np.array_equal(model.parameters.flat, before)


def test_a_model_that_is_reset_begins_with_the_first_rate(module):
    X, Y = np.random.default_rng(0).random((2, 20, 3))
    model = module.MLP([3, 3], seed=0)
    optimizer = module.SGD(WarmUp(ReduceOnPlateau(0.1, 0.5, patience=0, threshold=1e3), 1, 1.0))
    lrs = []
    for _ in range(2):
        lrs.append([*model.fit(X, Y, epochs=3, optimizer=optimizer).lr])
        lrs.append([*model.fit(X, Y, epochs=1, optimizer=optimizer).lr])
        model.reset()
    assert lrs == [[0.1, 0.1, 0.05], [0.025]] * 2


@pytest.mark.parametrize("shared", ["optimizer", "schedule"])
def test_each_fresh_model_begins_with_the_first_rate(module, shared):
    """Folds of a cross-validation, trained with one optimizer or one schedule: each as if it were alone."""
    X, Y = np.random.default_rng(0).random((2, 20, 3))

    def schedule():
        return WarmUp(ReduceOnPlateau(0.1, 0.5, patience=0, threshold=1e3), 1, 1.0)

    def lr_of(model, optimizer, epochs):
        return [*model.fit(X, Y, epochs=epochs, optimizer=optimizer).lr]

    alone = lr_of(module.MLP([3, 3], seed=0), module.SGD(schedule()), 5)
    assert len(set(alone)) > 2
    one_schedule = schedule()
    one_optimizer = module.SGD(one_schedule)
    models = [module.MLP([3, 3], seed=0) for _ in range(3)]
    optimizers = [one_optimizer if shared == "optimizer" else module.SGD(one_schedule) for _ in range(3)]
    # whole trainings one after the other, then some in turn
    assert lr_of(models[0], optimizers[0], 5) == alone
    in_turn = [[], []]
    for epochs in (2, 1, 2):
        for k in (1, 2):
            in_turn[k - 1] += lr_of(models[k], optimizers[k], epochs)
    assert in_turn == [alone, alone]


def test_what_was_learned_stays_with_a_pickled_pair(module):
    X, Y = np.random.default_rng(0).random((2, 20, 3))
    model = module.MLP([3, 3], seed=0)
    optimizer = module.SGD(ReduceOnPlateau(0.1, 0.5, patience=0, threshold=1e3))
    model.fit(X, Y, epochs=3, optimizer=optimizer)
    rate = optimizer.lr.rate
    assert rate < 0.1
    assert pickle.loads(pickle.dumps(optimizer)).lr.rate == rate
    assert copy.deepcopy(optimizer).lr.rate == rate
