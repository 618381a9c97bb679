"""Short trainings, which are one entry into compiled code: the bits of those that go from chunk to chunk."""

import pickle
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import fastbp
from fastbp.training import start

PACKAGE = str(Path(fastbp.__file__).parent)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((90, 6)).astype(np.float32)
Y = RNG.random((90, 2)).astype(np.float32)
OPTIMIZERS = {
    "sgd": lambda: fastbp.SGD(0.1),
    "momentum": lambda: fastbp.SGD(0.1, momentum=0.9, clip_norm=1.0),
    "adam": lambda: fastbp.Adam(0.01, decay_biases=False, weight_decay=0.1),
    "nadam": lambda: fastbp.NAdam(0.01, epsilon_hat=True),
}


@pytest.fixture
def done(monkeypatch):
    """Whether each call of `fit` was done at once."""
    monkeypatch.setattr(start, "SHORT_SECONDS", 1e9)  # however slow the machine is
    answers, fit_at_once = [], start._fit_at_once

    def told(*arguments):
        answers.append(fit_at_once(*arguments))
        return answers[-1]

    monkeypatch.setattr(start, "_fit_at_once", told)
    return lambda: [answer is not None for answer in answers]


def in_chunks(fit):
    """The same of a model that is never trained at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "SHORT_SECONDS", -1.0)
        return fit()


def network(**options):
    return fastbp.MLP([6, 9, 2], hidden="tanh", seed=1, **options)


def everything(model, optimizer, histories=()):
    state = optimizer.state(model.parameters.owner, len(model.parameters), model.dtype)
    arrays = [
        model.parameters.flat,
        *state.buffers,
        *(h._array(n) for h in histories for n in ("loss", "lr")),
    ]
    return [array.tobytes() for array in arrays], state.steps, repr(model.streams.state())


def trained(make, epochs=(1, 1, 4, 2), model=None, **options):
    model, optimizer = model or network(), make()
    histories = [model.fit(X, Y, epochs=n, optimizer=optimizer, **options) for n in epochs]
    return everything(model, optimizer, histories)


@pytest.mark.parametrize("batch_size", [32, 90, 100, 7])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_bits_are_those_of_chunks(done, make, batch_size):
    options = {"batch_size": batch_size, "shuffle": batch_size != 100}
    assert trained(make, **options) == in_chunks(lambda: trained(make, **options))
    assert done() == [False, True, True, True] + 4 * [False]


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.3, "input_noise": 0.1},
        {"reduction": "sum", "l2": 0.01},
        {"reduction": "weighted_mean", "max_norm": 0.5},
        {"layer_norm": True},
    ],
    ids=lambda options: "-".join(options),
)
def test_bits_of_networks_of_all_kinds(done, options):
    def of():
        return trained(OPTIMIZERS["adam"], model=network(**options))

    assert of() == in_chunks(of)
    assert done()[1:4] == 3 * [True]


def test_what_others_change_between_calls_holds_in_the_next(done):
    """Parameters, hyper-parameters, data in place, batch sizes, a reset: whatever is kept between calls."""

    def course():
        model, optimizer, x, y = network(dropout=0.2), fastbp.SGD(0.1), X.copy(), Y.copy()
        found = []

        def fit(**options):
            model.fit(x, y, **({"epochs": 1, "optimizer": optimizer} | options))
            found.append(everything(model, optimizer))

        fit(), fit()
        model.weights[0][0] = 0.5
        fit()
        model.weights[1] = np.ones_like(model.weights[1]) / 3
        fit()
        optimizer.lr = 0.3
        fit()
        optimizer.momentum = 0.5
        fit(), fit()
        x *= 0.5
        fit()
        y.shape = (2, 90)
        y.shape = (90, 2)
        fit(batch_size=10), fit(batch_size=10), fit()
        fit(optimizer=fastbp.SGD(0.1)), fit(shuffle=False), fit()
        model.fit(X[:50], Y[:50], epochs=1, optimizer=optimizer)
        fit()
        model.predict(X), model.train_step(X[:32], Y[:32], optimizer)
        fit()
        model.reset()
        fit(), fit()
        model = pickle.loads(pickle.dumps(model))
        optimizer = fastbp.SGD(0.2)
        fit(), fit()
        return found

    assert course() == in_chunks(course)
    assert sum(done()) > 10


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda m, x, y: x.__setitem__((3, 2), np.nan), ValueError),
        (lambda m, x, y: y.__setitem__((3, 1), np.inf), ValueError),
        (lambda m, x, y: m.weights[0].__setitem__((0, 0), np.nan), ValueError),
        (lambda m, x, y: m.weights[1].setflags(write=False), ValueError),
        (lambda m, x, y: x.__imul__(1e30), FloatingPointError),
    ],
    ids=["X", "Y", "parameters", "read-only", "diverges"],
)
def test_what_is_wrong_is_said_as_ever(spoil, error):
    def course():
        model, optimizer = fastbp.MLP([6, 9, 2], output="identity", seed=1), fastbp.SGD(1e-3)
        x, y = X.copy(), Y.copy()
        for _ in range(2):
            model.fit(x, y, epochs=1, optimizer=optimizer)
        spoil(model, x, y)
        with pytest.raises(error) as caught:
            model.fit(x, y, epochs=2, optimizer=optimizer)
        return str(caught.value), everything(model, optimizer)

    assert course() == in_chunks(course)


def test_what_is_warned_of_is_warned_of_once_and_at_the_callers_line():
    def course():
        model = network()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for y in (Y, Y, 3 * Y):
                model.fit(X, y, epochs=1, optimizer=fastbp.SGD(0.1))
            for array in (*model.weights, *model.biases):
                array[...] = 0.5
            model.fit(X, Y, epochs=1, optimizer=fastbp.SGD(0.1))
            model.fit(X, Y, epochs=1, optimizer=fastbp.SGD(0.1))
        return [(str(w.message), w.filename) for w in caught]

    found = course()
    assert found == in_chunks(course)
    assert [filename for _, filename in found] == 2 * [__file__]


def test_data_in_the_models_own_parameters_are_those_of_the_beginning():
    def course():
        model, optimizer = fastbp.MLP([6, 6, 2], seed=1), fastbp.SGD(0.1)
        for _ in range(3):
            model.fit(model.weights[0], Y[:6], epochs=2, optimizer=optimizer)
        return everything(model, optimizer)

    assert course() == in_chunks(course)


def test_rows_of_larger_arrays_and_partial_fit(done):
    def course():
        model, optimizer = network(), fastbp.Adam()
        losses = [
            model.partial_fit(X[i : i + 30], Y[i : i + 30], optimizer=optimizer) for i in (0, 30, 60, 10)
        ]
        return losses, everything(model, optimizer)

    assert course() == in_chunks(course)
    assert done()[1:4] == 3 * [True]


def test_steps_one_by_one_are_those_of_a_fit():
    """Whatever changes between them: the numbers of some steps are made ahead."""
    for make in OPTIMIZERS.values():
        model, optimizer = network(), make()
        twin, other = network(), make()
        for step in range(300):
            if step in (100, 290):
                optimizer.lr = other.lr = 0.003 * step
            model.train_step(X, Y, optimizer)
            in_chunks(lambda: twin.fit(X, Y, steps=1, batch_size=90, optimizer=other, shuffle=False))  # noqa: B023
            if step == 200:
                optimizer.state(model.parameters.owner, 0, model.dtype).steps = 7
                other.state(twin.parameters.owner, 0, model.dtype).steps = 7
        assert everything(model, optimizer) == everything(twin, other)


def test_on_a_terminal_there_is_a_bar(done, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    model, optimizer = network(), fastbp.SGD(0.1)
    for _ in range(2):
        model.fit(X, Y, epochs=1, optimizer=optimizer)
        model.fit(X, Y, epochs=1, optimizer=optimizer, progress=False)
    assert done() == [False, True, False, True]


def test_ctrl_c_within_ends_nothing_and_is_said(monkeypatch):
    model, optimizer = network(), fastbp.SGD(0.1)
    model.fit(X, Y, epochs=1, optimizer=optimizer)
    train_at_once = model.backend.train_at_once

    def pressed(*arguments):
        signal.raise_signal(signal.SIGINT)
        return train_at_once(*arguments)

    monkeypatch.setattr(model.backend, "train_at_once", pressed)
    history = model.fit(X, Y, epochs=2, optimizer=optimizer)
    assert history.interrupted and history.epochs == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X, Y, optimizer=optimizer)
    twin, other = network(), fastbp.SGD(0.1)
    twin.fit(X, Y, epochs=4, optimizer=other)
    assert everything(model, optimizer) == everything(twin, other)


def fit_with_ctrl_c_at_line(moment, fit):
    """What `fit` returns, None if Ctrl-C came out of it, and how many lines of fastbp ran; Ctrl-C comes at
    that one of them."""
    seen = [0]

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            seen[0] += 1
            if seen[0] == moment:
                signal.raise_signal(signal.SIGINT)
        return trace

    sys.settrace(trace)
    try:
        return fit(), seen[0]
    except KeyboardInterrupt:
        return None, seen[0]
    finally:
        sys.settrace(None)


def test_ctrl_c_at_every_line_leaves_all_epochs_or_none(done):
    def begun():
        model, optimizer = network(dropout=0.2), fastbp.Adam(0.01)
        model.fit(X, Y, epochs=1, optimizer=optimizer)
        return model, optimizer

    def after(epochs):
        model, optimizer = begun()
        for n in epochs:
            model.fit(X, Y, epochs=n, optimizer=optimizer)
        return everything(model, optimizer)

    model, optimizer = begun()
    _, lines = fit_with_ctrl_c_at_line(0, lambda: model.fit(X, Y, epochs=2, optimizer=optimizer))
    assert done() == [False, True] and lines > 100
    unbroken = {0: (after(()), after((3,))), 2: (after((2,)), after((2, 3)))}
    outcomes = []
    for moment in range(1, lines + 1):
        model, optimizer = begun()

        def fit(model=model, optimizer=optimizer):
            return model.fit(X, Y, epochs=2, optimizer=optimizer)

        history, _ = fit_with_ctrl_c_at_line(moment, fit)
        assert history is None or history.interrupted
        left = everything(model, optimizer)
        epochs = history.epochs if history else 2 * (left == unbroken[2][0])
        model.fit(X, Y, epochs=3, optimizer=optimizer)
        assert (left, everything(model, optimizer)) == unbroken[epochs], moment
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        outcomes.append((history is not None, epochs))
    # Before it begins, Ctrl-C comes out of `fit`; then all is done, and it is said.
    assert {(False, 0), (True, 2)} <= set(outcomes)


def test_threads_lose_no_epoch():
    model, optimizer = network(), fastbp.SGD(0.1)
    model.fit(X, Y, epochs=1, optimizer=optimizer)

    def work():
        for _ in range(20):
            model.fit(X, Y, epochs=1, optimizer=optimizer)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    twin, other = network(), fastbp.SGD(0.1)
    twin.fit(X, Y, epochs=61, optimizer=other)
    assert everything(model, optimizer) == everything(twin, other)
