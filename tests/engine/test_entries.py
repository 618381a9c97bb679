"""What belongs to one entry into compiled code: stop flags, threads, re-entry, forks."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

import fastbp
from fastbp.engine.entries import two_layer
from fastbp.engine.plan import Plan
from fastbp.engine.threads import own_thread, team
from fastbp.inputs.samples import Samples
from fastbp.network import prediction
from fastbp.network.backend import Steps

RNG = np.random.default_rng(0)
SIZES = (20, 40, 3)


def model_and_data(rows=64, sizes=SIZES, **options):
    rng = np.random.default_rng(1)
    X, Y = rng.standard_normal((rows, sizes[0])).astype("f"), rng.random((rows, sizes[-1])).astype("f")
    return fastbp.MLP(list(sizes), seed=0, **options), X, Y


def results(model, X, Y):
    """All that the model computes, as bytes."""
    trace = model.forward(X)
    gradients = model.backward(trace, Y)
    arrays = [
        *trace.z,
        *trace.a,
        *gradients.weights,
        *gradients.biases,
        model.predict(X),
        model.predict(X[:3]),
    ]
    return [array.tobytes() for array in arrays] + [model.loss(X, Y)]


# ---- the stop flag ------------------------------------------------------------------------------------


def test_a_request_to_stop_ends_with_the_chunk_that_it_was_meant_for():
    """A flag that outlived its chunk made every later call skip its products."""
    model, X, Y = model_and_data()
    twin, _, _ = model_and_data()
    optimizer, of_twin = fastbp.Adam(), fastbp.Adam()
    for _ in range(3):
        model.fit(X, Y, epochs=2, optimizer=optimizer, batch_size=16)
        twin.fit(X, Y, epochs=2, optimizer=of_twin, batch_size=16)
        model.backend.request_stop()
        assert results(model, X, Y) == results(twin, X, Y)
        model.backend.request_stop()


def test_a_short_chunk_is_finished_whenever_the_request_comes(monkeypatch):
    model, X, Y = model_and_data()
    twin, _, _ = model_and_data()
    enter = team.run

    def stopped(*arguments):
        model.backend.request_stop()
        return enter(*arguments)

    monkeypatch.setattr(team, "run", stopped)
    model.fit(X, Y, epochs=3, optimizer=fastbp.Adam(), batch_size=16)
    monkeypatch.undo()
    twin.fit(X, Y, epochs=3, optimizer=fastbp.Adam(), batch_size=16)
    assert results(model, X, Y) == results(twin, X, Y)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_long_chunk_that_was_stopped_has_never_been(monkeypatch, accumulate):
    """It is not counted and leaves parameters, optimizer state and later results as they were."""
    model, X, Y = model_and_data()
    twin, _, _ = model_and_data()
    optimizer, of_twin = fastbp.Adam(), fastbp.Adam()
    for m, o in ((model, optimizer), (twin, of_twin)):
        m.fit(X, Y, epochs=2, optimizer=o, batch_size=16, accumulate=accumulate)
    before = model.parameters.flat.tobytes()
    state = optimizer.state(model.parameters.owner, model.parameters.flat.size, model.dtype)
    moments = [buffer.tobytes() for buffer in state.buffers]
    enter = team.run

    def stopped(*arguments):
        model.backend.request_stop()
        return enter(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("fastbp.engine.plan.LONG_SECONDS", 0.0)  # every chunk is a long one
        patch.setattr(team, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            steps = Steps(Samples(X, Y, Y.shape[1]), None, 0, 4, 32, 32 // accumulate)
            model.backend.train(steps, optimizer, state, np.empty(4))
    assert model.parameters.flat.tobytes() == before
    assert [buffer.tobytes() for buffer in state.buffers] == moments
    assert state.steps == of_twin.state(twin.parameters.owner, 0, twin.dtype).steps
    assert model.streams.steps_trained == twin.streams.steps_trained
    assert results(model, X, Y) == results(twin, X, Y)
    for m, o in ((model, optimizer), (twin, of_twin)):
        m.fit(X, Y, epochs=2, optimizer=o, batch_size=16, accumulate=accumulate)
    assert results(model, X, Y) == results(twin, X, Y)


# ---- a thread of one's own ----------------------------------------------------------------------------


class Alarm(Exception):
    pass


@pytest.fixture
def storm():
    """Signals to this process every so many seconds, whose handler raises an Alarm where armed[0] is True."""
    before = signal.getsignal(signal.SIGALRM)
    armed = [False]

    def handle(signum, frame):
        if armed[0]:
            raise Alarm

    signal.signal(signal.SIGALRM, handle)
    try:
        yield armed, lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds, seconds)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("interval", [0.0002, 0.001, 0.01])
def test_nobody_returns_while_the_work_goes_on(storm, interval):
    """However many signals come, and whenever: before the thread has begun, while it works, while it ends."""
    interrupted = 0
    armed, begin = storm
    own_thread.run(lambda: None, np.zeros(1, np.int64))  # what it needs is compiled
    begin(interval)
    for i in range(60):
        running, stop = [False], np.zeros(1, np.int64)

        def work(running=running, stop=stop, i=i):
            running[0] = True
            end = time.perf_counter() + 0.0005 * i
            while time.perf_counter() < end and not stop[0]:
                time.sleep(0.0001)
            time.sleep(0.002)  # the stop is heard late
            running[0] = False

        try:
            armed[0] = True
            own_thread.run(work, stop)
        except Alarm:
            interrupted += 1
        finally:
            armed[0] = False
        assert not running[0]
    assert interrupted > 10


def test_what_the_work_raises_is_raised_here():
    def work():
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        own_thread.run(work, np.zeros(1, np.int64))


def test_a_signal_in_a_large_pass_leaves_nobody_behind(storm):
    """The arrays are released as the exception leaves: who still worked would write into others' memory."""
    model, X, _ = model_and_data(600, (700, 1400, 300))
    expected = model.forward(X).y_pred.tobytes()
    armed, begin = storm
    interrupted = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastbp.engine.plan.LONG_SECONDS", 0.0)
        for i in range(12):
            fresh, _, _ = model_and_data(1, (700, 1400, 300))
            begin(0.001 + 0.003 * i)
            try:
                armed[0] = True
                fresh.forward(X.copy())
            except Alarm:
                interrupted += 1
            finally:
                armed[0] = False
            assert not any(share.cores for share in team._shares)
            del fresh
            gc.collect()
            canary = np.zeros(1 << 22)
            time.sleep(0.002)
            assert not canary.any()
    assert interrupted > 2
    assert model.forward(X).y_pred.tobytes() == expected


# ---- a second entry in the midst of a first -----------------------------------------------------------


@pytest.mark.parametrize("what", ["train", "predict", "forward", "loss"])
def test_a_call_in_the_midst_of_another_one_of_the_same_model(what, monkeypatch):
    """As from a signal handler or a finaliser, which come between any two bytecodes."""
    model, X, Y = model_and_data()
    twin, _, _ = model_and_data()
    other = RNG.standard_normal(X.shape).astype("f")
    expected, of_other = results(model, X, Y), results(model, other, Y)
    depth, heard = [0], []

    def entered(enter):
        def with_another(self, *arguments, **options):
            if depth[0] == 0:
                depth[0] = 1
                heard.append(results(model, other, Y))
                depth[0] = 0
            return enter(self, *arguments, **options)

        return with_another

    with monkeypatch.context() as patch:
        for entry in ("_enter", "train_alone"):
            patch.setattr(Plan, entry, entered(getattr(Plan, entry)))
        if what == "train":
            model.fit(X, Y, epochs=2, optimizer=fastbp.SGD(0.0), batch_size=16)
        elif what == "predict":
            many = np.resize(X, (2 * prediction.SMALL_ROWS, X.shape[1]))  # of fewer one entry is all there is
            assert model.predict(many).tobytes() == twin.predict(many).tobytes()
        elif what == "forward":
            assert model.forward(X).y_pred.tobytes() == twin.forward(X).y_pred.tobytes()
        else:
            assert model.loss(X, Y) == twin.loss(X, Y)
    assert heard
    assert all(one == of_other for one in heard)
    assert results(model, X, Y) == expected


def test_a_train_step_in_the_midst_of_another_one_of_the_same_shapes(monkeypatch):
    """One that takes so long that Ctrl-C is heard meanwhile: Python stands between filling the plan in and
    running it."""
    monkeypatch.setattr(two_layer, "_prepared", two_layer._PerThread())
    monkeypatch.setattr("fastbp.engine.plan.LONG_SECONDS", 0.0)

    def arrays(seed):
        rng = np.random.default_rng(seed)
        shapes = (64, 100), (64, 48), (100, 80), (80,), (80, 48), (48,)
        return [rng.standard_normal(shape).astype("f") for shape in shapes]

    def steps(own):
        return [fastbp.train_step(*own, 0.01) for _ in range(3)] + [array.tobytes() for array in own]

    expected, of_second = steps(arrays(1)), steps(arrays(2))
    way = Plan.run_as
    inside, second = [False], []

    def ran(self, *arguments, **options):
        if not inside[0]:
            inside[0] = True
            second.append(steps(arrays(2)))
            inside[0] = False
        return way(self, *arguments, **options)

    monkeypatch.setattr(Plan, "run_as", ran)
    assert steps(arrays(1)) == expected
    assert second
    assert all(one == of_second for one in second)


@pytest.mark.parametrize("hidden", [48, 1024])
def test_a_long_forward_and_backward_work_on_the_callers_rows_all_the_same(monkeypatch, hidden):
    """They write to new arrays, which nobody gets if Ctrl-C ends them: bits and places are those of short
    calls."""
    rng = np.random.default_rng(0)
    shapes = (70, 24), (24, hidden), (hidden,), (hidden, 16), (16,)
    X, *params = (rng.standard_normal(shape).astype("f") for shape in shapes)

    def results():
        monkeypatch.setattr(two_layer, "_prepared", two_layer._PerThread())
        trace = fastbp.forward(X, *params)
        gradients = fastbp.backward(X, trace[3] / 2, trace[0], trace[1], trace[3], params[2])
        first = next(iter(two_layer._prepared.backward.values())).plan.layers[0]
        return [array.tobytes() for array in (*trace, *gradients)], first.in_place

    expected = results()
    assert expected[1]
    monkeypatch.setattr("fastbp.engine.plan.LONG_SECONDS", 0.0)
    assert results() == expected


def test_an_interrupted_call_hands_nothing_on(monkeypatch):
    """The plan of a call that an exception has ended is thrown away with all that was written to it."""
    model, X, Y = model_and_data()
    expected = results(model, X, Y)
    for method in ("bind_data", "bind_parameters", "bind_activations", "bind_output", "run", "_enter"):

        def interrupted(self, *arguments, method=method, **options):
            raise KeyboardInterrupt

        for call in (lambda: model.forward(X), lambda: model.predict(X)):
            with monkeypatch.context() as patch:
                patch.setattr(Plan, method, interrupted)
                with contextlib.suppress(KeyboardInterrupt):
                    call()
            assert results(model, X, Y) == expected


# ---- threads and processes ----------------------------------------------------------------------------


def test_two_python_threads_and_one_set_of_functions():
    """The functions on the caller's arrays, large and small, in several threads at a time."""

    def steps(seed, rows, hidden):
        rng = np.random.default_rng(seed)
        shapes = (rows, 30), (rows, 8), (30, hidden), (hidden,), (hidden, 8), (8,)
        own = [rng.standard_normal(shape).astype("f") for shape in shapes]
        losses = [fastbp.train_step(*own, 0.01) for _ in range(40)]
        forward = fastbp.forward(own[0], *own[2:])
        return losses, [array.tobytes() for array in (*own, *forward)]

    jobs = [(seed, rows, hidden) for seed in range(3) for rows, hidden in ((5, 8), (64, 128))]
    expected = [steps(*job) for job in jobs]
    found = [None] * len(jobs)

    def job(i):
        found[i] = steps(*jobs[i])

    threads = [threading.Thread(target=job, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_another_thread_trains_predicts_with_the_same_model():
    """In the parent the model's lock is held by a thread that does not exist in the child."""
    model, X, Y = model_and_data(256)
    expected = results(model, X, Y)  # training with a rate of 0 leaves it so
    over = threading.Event()
    thread = threading.Thread(
        target=lambda: model.fit(
            X, Y, epochs=10**9, optimizer=fastbp.SGD(0.0), callbacks=lambda *_: over.is_set(), progress=False
        )
    )
    thread.start()
    try:
        for _ in range(20):
            time.sleep(0.003)
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that hangs is killed
                held = not model.backend._lock.acquire(blocking=False)
                same = results(model, X, Y) == expected
                os._exit(2 if held else 0 if same else 1)
            _, status = os.waitpid(child, 0)
            assert status == 0
    finally:
        over.set()
        thread.join()


# ---- references ---------------------------------------------------------------------------------------


def test_arrays_are_held_by_those_who_hold_them():
    """Compiled code counts no references of arguments and makes the results itself: nobody else holds any."""
    model, X, Y = model_and_data()
    parameters = [*model.weights[:1], *model.biases[:1], *model.weights[1:], *model.biases[1:]]
    parameters = [p.copy() for p in parameters]
    z1, a1, _, y_pred = fastbp.forward(X, *parameters)
    given = [X, Y, z1, a1, y_pred, *parameters]
    unfit = [*parameters[:-1], np.zeros(len(parameters[-1]) + 1, np.float32)]
    before = [sys.getrefcount(array) for array in given]
    for _ in range(3):
        found = [
            *fastbp.forward(X, *parameters),
            *fastbp.backward(X, Y, z1, a1, y_pred, parameters[2]),
            model.predict(X[:1]),
        ]
        plain = [np.empty(1) for _ in found]
        assert [sys.getrefcount(a) for a in found] == [sys.getrefcount(a) for a in plain]
        assert all(array.base is None and array.flags.owndata for array in found)
        fastbp.train_step(X, Y, *parameters, 0.0)
        with contextlib.suppress(ValueError):
            fastbp.forward(X, *unfit)
    assert [sys.getrefcount(array) for array in given] == before
