"""fit from an iterable of batches: lists, generators, functions that return one, other libraries' loaders."""

import itertools
import re
import signal
import sys

import numpy as np
import pytest

import fastbp
from fastbp import callbacks, schedules


def data(rows=50, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, 3)), rng.random((rows, 2))


def cut(X, Y, *sizes):
    """Batches of these sizes, the last one again and again."""
    batches, at = [], 0
    for size in itertools.chain(sizes, itertools.repeat(sizes[-1])):
        batches.append((X[at : at + size], Y[at : at + size]))
        at += size
        if at >= len(X):
            return batches


def net(module, **options):
    return module.MLP([3, 4, 2], **{"hidden": "tanh", "seed": 0} | options)


def state_of(model, history):
    """All that training has made, as bytes; times excepted."""
    columns = history.to_dict()["columns"]
    return model.parameters.flat.tobytes(), model.streams.steps_trained, {**columns, "epoch_seconds": None}


class Loader:
    """As PyTorch's: begins anew with each iter(), and its batches are lists of things with __array__."""

    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return np.array(self.values, dtype)

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return ([self.Tensor(field) for field in batch] for batch in self.batches)


class Log:
    """What fit says at which step and epoch."""

    def __init__(self):
        self.seen = []

    def on_chunk_end(self, model, step, history):
        self.seen.append(step)

    def on_epoch_end(self, model, epoch, history):
        self.seen.append(f"epoch {epoch}")


# ---- the same as with arrays ------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_same_bits_as_arrays_in_their_order(module, dtype, accumulate):
    """With all that fit has: validation, metrics, weights, schedules, early stopping, dropout, noise."""
    X, Y = data()
    weights = np.linspace(0, 2, 50)
    batches = [(x, y, w) for (x, y), (w, _) in zip(cut(X, Y, 16), cut(weights, weights, 16), strict=True)]
    options = {"validation_data": data(9, seed=1), "metrics": "mae", "accumulate": accumulate}
    results = []
    given = {"list": batches, "loader": Loader(batches), "function": lambda: iter(batches)}
    for name in ("arrays", *given):
        model = net(module, dtype=dtype, dropout=0.25, input_noise=0.1, input_scale=0.5)
        optimizer = module.Adam(schedules.ReduceOnPlateau(0.1, patience=0, cooldown=1))
        stop = module.EarlyStopping("val_mae", patience=3)
        options |= {"epochs": 12, "optimizer": optimizer, "callbacks": stop}
        if name == "arrays":
            history = model.fit(X, Y, batch_size=16, shuffle=False, sample_weight=weights, **options)
        else:
            history = model.fit(given[name], **options)
        results.append((state_of(model, history), history.best_epoch, history.stopped_early))
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize(
    ("asked", "seen", "seen_of_endless"),
    [
        ({"steps": 7}, [1, 2, 3, 4, 5, "epoch 1", 6, 7, "epoch 2"], [*range(1, 8), "epoch 1"]),
        ({"epochs": 2}, [1, 2, 3, 4, 5, "epoch 1", 6, 7, 8, 9, 10, "epoch 2"], None),
        ({"epochs": 2, "steps_per_epoch": 3}, [1, 2, 3, "epoch 1", 4, 5, 6, "epoch 2"], "the same"),
        ({"steps": 5, "steps_per_epoch": 3}, [1, 2, 3, "epoch 1", 4, 5, "epoch 2"], "the same"),
    ],
)
def test_how_much(module, asked, seen, seen_of_endless):
    """An epoch is a pass, or steps_per_epoch wherever a pass ends; a chunk is a step."""
    batches = cut(*data(), 10)
    for endless in (False, True) if seen_of_endless else (False,):
        expected = seen_of_endless if endless and seen_of_endless != "the same" else seen
        log, model, optimizer = Log(), net(module), module.SGD(0.1, momentum=0.5)
        given = itertools.cycle(batches) if endless else batches
        history = model.fit(given, optimizer=optimizer, callbacks=log, **asked)
        assert log.seen == expected
        ends = [expected[i - 1] for i, s in enumerate(expected) if type(s) is str]
        by_hand, optimizer = net(module), module.SGD(0.1, momentum=0.5)
        taken = itertools.islice(itertools.cycle(batches), ends[-1])
        losses = [by_hand.train_step(*batch, optimizer) for batch in taken]
        assert model.parameters.flat.tobytes() == by_hand.parameters.flat.tobytes()
        means = [np.mean(losses[a:b]) for a, b in itertools.pairwise([0, *ends])]
        np.testing.assert_allclose(history.loss, means, rtol=1e-6)


def test_batches_of_any_size(module, dtype):
    """The loss of an epoch is the mean over its samples; also labels, and integers that are scaled."""
    rng = np.random.default_rng(0)
    X, labels = rng.integers(0, 256, (40, 3), np.uint8), rng.integers(0, 2, 40)
    options = {
        "output": "softmax",
        "loss": "categorical_crossentropy",
        "input_scale": 1 / 255,
        "dtype": dtype,
    }
    model, by_hand = net(module, **options), net(module, **options)
    optimizer, by_hand_optimizer = module.SGD(0.1), module.SGD(0.1)
    batches = cut(X, labels, 3, 20, 1, 9)
    history = model.fit(batches, epochs=1, optimizer=optimizer, class_weight={0: 0.5})
    weights = np.where(labels, 1, 0.5)
    losses = [
        by_hand.train_step(x, y, by_hand_optimizer, sample_weight=w) * len(x)
        for (x, y), (w, _) in zip(batches, cut(weights, weights, 3, 20, 1, 9), strict=True)
    ]
    tolerance = 4 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(model.parameters.flat, by_hand.parameters.flat, rtol=0, atol=tolerance)
    np.testing.assert_allclose(history.loss, sum(losses) / 40, rtol=tolerance)


def test_a_generator_may_use_its_memory_again_and_look_at_the_model(module):
    X, Y = data()
    seen = []

    def generator():
        x, y = np.empty((10, 3)), np.empty((10, 2))
        for source in cut(X, Y, 10):
            x[...], y[...] = source
            seen.append(model.parameters.flat.copy())
            yield x, y

    results = []
    for accumulate in (1, 5):
        for given in (generator, cut(X, Y, 10)):
            model = net(module, dtype="float64")
            model.fit(given, epochs=1, accumulate=accumulate, optimizer=module.SGD(0.1))
            results.append(model.parameters.flat.tobytes())
    assert results[0] == results[1] != results[2] == results[3]
    assert len({parameters.tobytes() for parameters in seen[:5]}) == 5  # after each step, before the next


# ---- the end of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"epochs": 3}, "after 1 of 3 epochs"),
        ({"steps": 9}, "after 5 of 9 steps"),
        ({"epochs": 2, "steps_per_epoch": 4}, "after 5 of 8 steps"),
    ],
)
def test_an_iterator_that_ends_too_early(module, asked, message):
    model, log = net(module), Log()
    with pytest.warns(UserWarning, match=f"X has no more batches {message}: training has ended") as caught:
        history = model.fit(iter(cut(*data(), 10)), optimizer=module.SGD(0.1), callbacks=log, **asked)
    assert caught[0].filename == __file__
    assert [s for s in log.seen if type(s) is int] == [1, 2, 3, 4, 5]
    assert history.epochs == (2 if "steps_per_epoch" in asked else 1)
    assert not history.interrupted


def test_an_iterator_is_left_where_training_ended(module):
    batches = iter(cut(*data(), 10))
    model = net(module)
    model.fit(batches, steps=2, optimizer=module.SGD(0.1))
    assert model.fit(batches, epochs=1, optimizer=module.SGD(0.1)).epochs == 1
    assert next(batches, None) is None


def test_what_a_generator_raises_comes_out(module):
    """The model is at the last finished step."""
    batches = cut(*data(), 10)

    def generator():
        yield from batches[:3]
        raise OSError("the disk")

    model, expected = net(module), net(module)
    expected.fit(batches[:3], epochs=1, optimizer=module.Adam())
    with pytest.raises(OSError, match="the disk"):
        model.fit(generator(), epochs=1, optimizer=module.Adam())
    assert model.parameters.flat.tobytes() == expected.parameters.flat.tobytes()


def test_ctrl_c_in_a_generator(module):
    batches = cut(*data(), 10)

    def generator():
        yield from batches[:3]
        signal.raise_signal(signal.SIGINT)

    model, optimizer = net(module), module.SGD(0.1, momentum=0.5)
    history = model.fit(itertools.chain(batches, generator()), epochs=1, optimizer=optimizer)
    assert history.interrupted
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == 8
    assert history.epochs == 0


def test_a_step_that_blows_up(module, dtype):
    X, Y = data()
    batches = cut(X, Y, 10)
    batches[2] = (np.full((10, 3), 1e30 if dtype == "float32" else 1e300), Y[:10])
    model, expected = (net(module, output="identity", hidden="relu", dtype=dtype) for _ in range(2))
    expected.fit(batches[:2], epochs=1, optimizer=module.SGD(0.1))
    with pytest.raises(
        FloatingPointError, match=r"at epoch 1, step 3\. .* before step 3 of epoch 1"
    ) as caught:
        model.fit(iter(batches), epochs=1, optimizer=module.SGD(0.1))
    assert model.parameters.flat.tobytes() == expected.parameters.flat.tobytes()
    assert re.search("explode|overflow", str(caught.value))
    with pytest.raises(FloatingPointError, match=r"at epoch 1, step 1 of 4\. "):
        model.fit(batches[2:], epochs=1, steps_per_epoch=4, optimizer=module.SGD(0.1))


# ---- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("third", "error", "message"),
    [
        ((np.ones((4, 2)), np.ones((4, 2))), ValueError, "X has 2 columns, the model has 3 inputs"),
        ((np.ones((4, 3)), np.ones((5, 2))), ValueError, "Y has shape (5, 2), expected (4, 2)"),
        ((np.full((1, 3), np.nan), np.ones((1, 2))), ValueError, "X holds NaN or infinity (3 of 3 values"),
        ((np.ones((0, 3)), np.ones((0, 2))), ValueError, "X has shape (0, 3) and is empty"),
        (
            (np.ones((1, 3)), np.ones((1, 2)), [-1]),
            ValueError,
            "got a tuple of 3, expected (X, Y) as in batch 1",
        ),
        (np.ones((4, 3)), TypeError, "got ndarray of shape (4, 3), expected (X, Y)"),
        ((np.ones((1, 3)), None), TypeError, "Y has dtype object"),
    ],
)
def test_a_batch_that_does_not_fit(module, third, error, message):
    batches = cut(*data(), 10)
    model, expected = net(module), net(module)
    expected.fit(batches[:2], epochs=1, optimizer=module.SGD(0.1))
    with pytest.raises(error, match=re.escape(f"batch 3: {message}")):
        model.fit([*batches[:2], third], epochs=1, optimizer=module.SGD(0.1))
    assert model.parameters.flat.tobytes() == expected.parameters.flat.tobytes()
    with pytest.raises((ValueError, TypeError), match="batch 1: "):
        model.fit([third[:1] if isinstance(third, tuple) else third], epochs=1, optimizer=module.SGD(0.1))
    passes = iter([batches, [third]])
    with pytest.raises(error, match=re.escape(f"batch 1 of pass 2: {message}")):
        model.fit(lambda: next(passes), epochs=2, optimizer=module.SGD(0.1))


def test_what_is_refused_before_anything_begins(module, tmp_path):
    X, Y = data()
    begun = []

    class Begin(callbacks.EarlyStopping):
        def on_train_begin(self, model, history):
            begun.append(model)

    for given, options, error, message in [
        ([], {}, ValueError, "X has no batches, expected at least one"),
        (lambda: iter([]), {}, ValueError, "X has no batches"),
        (X, {}, TypeError, "without Y, X must be an iterable of batches (X, Y) or a function"),
        (str(tmp_path / "X.npy"), {}, TypeError, "without Y, X must be an iterable of batches"),
        (3, {}, TypeError, "or a function that returns one, got int"),
        (lambda: None, {}, TypeError, "got NoneType"),
        (iter([(X, Y)]), {"Y": Y}, TypeError, "a list_iterator, which gives batches (X, Y): leave Y out"),
        (Loader([(X, Y)]), {"Y": Y}, TypeError, "X is a Loader, which gives batches (X, Y): leave Y out"),
        (X, {"Y": Y, "steps_per_epoch": 2}, ValueError, "steps_per_epoch is for an iterable of batches"),
        ([(X, Y)], {"steps_per_epoch": 0}, ValueError, "steps_per_epoch is 0"),
        ([(X, Y)], {"batch_size": 8}, ValueError, "batch_size is for arrays"),
        ([(X, Y)], {"sample_weight": np.ones(50)}, ValueError, "sample_weight is for arrays"),
        ([(X, Y)], {"validation_split": 0.5}, ValueError, "validation_split is for arrays"),
        ([(X, Y)], {"checkpoint": tmp_path / "c"}, ValueError, "checkpoint is for arrays, but"),
        ([(X, Y)], {"class_weight": "balanced"}, ValueError, "class_weight='balanced' is for arrays"),
        ([(X, Y)], {"metrics": "mae"}, ValueError, "metrics"),
    ]:  # fmt: skip
        with pytest.raises(error, match=re.escape(message)):
            net(module).fit(
                given, **{"epochs": 1, "optimizer": module.SGD(0.1), "callbacks": Begin()} | options
            )
    assert not begun


def test_progress_bar(module, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for options, shown in [
        ({"epochs": 3}, ["epoch 3/3", "15/15"]),
        ({"epochs": 3, "steps_per_epoch": 4}, ["epoch 3/3", "12/12"]),
        ({"steps": 7}, ["epoch 2, loss", "7/7"]),
    ]:
        net(module).fit(cut(*data(), 10), optimizer=module.SGD(0.1), **options)
        printed = capsys.readouterr().err
        assert all(text in printed for text in shown), printed


def test_rows_read_and_rows_that_lie_there_take_turns():
    """Integers are read into memory of the plan's, floats where they are: there is one such memory."""
    X, Y = data()
    batches = cut((10 * X).astype(np.int8), Y.astype("f4"), 10) + cut(
        (10 * X).astype("f4"), Y.astype("f4"), 10
    )
    model = net(fastbp)
    model.fit(batches, epochs=20, optimizer=fastbp.SGD(0.1))
    before = sum(len(plan.memory.arrays) for plan in model.backend._plans.values())
    model.fit(batches, epochs=20, optimizer=fastbp.SGD(0.1))
    assert sum(len(plan.memory.arrays) for plan in model.backend._plans.values()) == before
