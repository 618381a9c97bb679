"""Networks that are trained in chains are what their own `fit` makes of them."""

import itertools
import signal
import threading
import time

import numpy as np
import pytest
from many_networks import columns

import fastbp
from fastbp.many import chains

ROWS = 45
MAIN = threading.main_thread().ident
rng = np.random.default_rng(4)
X, Y = rng.standard_normal((ROWS, 6)), rng.random((ROWS, 3))
LABELS = rng.integers(0, 3, ROWS)
WEIGHT = rng.choice([0.0, 0.5, 2.0], ROWS)
FOLDS = [np.flatnonzero(np.arange(ROWS) % 5 != i) for i in range(5)]
BOOTSTRAP = [rng.integers(0, ROWS, ROWS) for _ in range(5)]

# What the models, the optimizer and the call are made with.
CASES = {
    "plain": ({}, fastbp.SGD(0.1), {}),
    "adam, one epoch": ({}, fastbp.Adam(0.01), {"epochs": 1}),
    "orders of some epochs at a time": ({}, fastbp.SGD(0.1, momentum=0.9), {"epochs": 50}),
    "in order": ({"reduction": "sum"}, fastbp.Adam(0.01), {"shuffle": False}),
    "folds in order": ({}, fastbp.Adam(0.01), {"shuffle": False, "rows": FOLDS}),
    "bootstrap": ({"hidden": "tanh"}, fastbp.SGD(0.1, momentum=0.9), {"rows": BOOTSTRAP}),
    "folds": ({"dtype": "float64"}, fastbp.AdamW(0.01), {"rows": FOLDS, "sample_weight": WEIGHT}),
    "labels": (
        {"output": "softmax", "loss": "categorical_crossentropy"},
        fastbp.Adam(0.01),
        {"Y": LABELS, "sample_weight": WEIGHT},
    ),
    "norms": ({"layer_norm": True, "max_norm": 0.9}, fastbp.Adam(0.01, clip_norm=0.1), {}),
    "penalty": ({"l2": 0.01, "input_scale": 0.5}, fastbp.SGD(0.1, clip_value=0.01), {"rows": FOLDS}),
    "weights without biases": ({}, fastbp.SGD(0.1, weight_decay=0.1, decay_biases=False), {}),
    "small batches": ({}, fastbp.Adam(0.01), {"batch_size": 1}),
    "large batches": ({}, fastbp.Adam(0.01), {"batch_size": 1000}),
}


def networks(options, count=5):
    return [fastbp.MLP([6, 8, 7, 3], seed=i, **options) for i in range(count)]


@pytest.fixture
def chained(monkeypatch):
    """How many networks each chain trained has had."""
    counts = []
    Queue = chains.Queue

    def counted(networks, *arguments):
        counts.append(len(networks.parameters))
        return Queue(networks, *arguments)

    monkeypatch.setattr(chains, "Queue", counted)
    monkeypatch.setattr(chains, "CHAINS_PER_CORE", 1)
    return counts


def state_of(model, optimizer):
    """All that the next training depends on."""
    state = optimizer.state(model.parameters.owner, len(model.parameters), model.parameters.flat.dtype)
    arrays = [model.parameters.flat, *state.buffers]
    return [array.tobytes() for array in arrays], state.steps, model.streams.state()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_chains_have_the_bits_of_single_fits(chained, case, threads):
    options, optimizer, call = CASES[case]
    call = {"X": X, "Y": Y, "epochs": 3, "batch_size": 16} | call
    together, alone = networks(options), networks(options)
    for _ in range(2):  # the second time on states that are there
        got = fastbp.fit_many(together, optimizers=optimizer, threads=threads, progress=False, **call)
        assert sum(chained) >= 4, "a case that shows nothing"
        chained.clear()
        for i, (model, same) in enumerate(zip(together, alone, strict=True)):
            own = dict(call)
            rows = own.pop("rows", [slice(None)] * 5)[i]
            data = own.pop("X")[rows], own.pop("Y")[rows]
            if "sample_weight" in own:
                own["sample_weight"] = own["sample_weight"][rows]
            history = same.fit(*data, optimizer=optimizer, progress=False, **own)
            assert state_of(model, optimizer) == state_of(same, optimizer)
            assert columns(got[i]) == columns(history)
            assert got[i].seconds > 0 and not got[i].interrupted


def test_of_a_chain_those_that_diverge_end_alone(chained):
    """Parameters that are finite, but so large that squares of differences are not."""
    options = {"output": "identity"}
    together, alone = networks(options), networks(options)
    for model in (together[2], alone[2]):
        model.weights[0][...] *= 1e25
    optimizer = fastbp.SGD(0.01)
    with pytest.warns(RuntimeWarning, match=r"1 of 5 networks .*models\[2\]: the loss became"):
        got = fastbp.fit_many(together, X, Y, epochs=4, optimizers=optimizer, threads=1, progress=False)
    assert chained == [5]
    for i, (model, same) in enumerate(zip(together, alone, strict=True)):
        if i == 2:
            with pytest.raises(FloatingPointError) as error:
                same.fit(X, Y, epochs=4, optimizer=optimizer, progress=False)
            assert got[i].diverged == str(error.value)
        else:
            same.fit(X, Y, epochs=4, optimizer=optimizer, progress=False)
        assert state_of(model, optimizer) == state_of(same, optimizer)


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_ends_chains_between_networks(chained, monkeypatch, threads):
    """Pressed when so many are prepared. Whoever was not trained is as before, also its order of rows."""
    together, alone = networks({}, 60), networks({}, 60)
    look = chains.look_at
    calls = []

    def pressing(member, is_first):
        calls.append(member)
        if len(calls) == 45:  # of the third chain of 20
            signal.pthread_kill(MAIN, signal.SIGINT)
            time.sleep(0.3 * (threads > 1))  # until the main thread has heard it
        look(member, is_first)

    monkeypatch.setattr(chains, "look_at", pressing)
    monkeypatch.setattr(chains, "CHAIN_SECONDS", 2e-4)
    optimizer = fastbp.Adam(0.01)
    options = {"epochs": 3, "batch_size": 16, "progress": False}
    got = fastbp.fit_many(together, X, Y, optimizers=optimizer, threads=threads, **options)
    trained = sum(history.epochs == 3 for history in got)
    assert 0 < trained < 60 and all(history.epochs in (0, 3) for history in got)
    for history, model, same in zip(got, together, alone, strict=True):
        assert history.interrupted == (history.epochs == 0)
        if history.epochs:
            same.fit(X, Y, optimizer=optimizer, **options)
        assert state_of(model, optimizer) == state_of(same, optimizer)
    monkeypatch.undo()
    fastbp.fit_many(together, X, Y, optimizers=optimizer, threads=threads, **options)
    assert np.isfinite(together[-1].predict(X)).all()


def test_an_error_before_training_leaves_the_order_of_rows(chained, monkeypatch):
    """Whatever it is: here, as if there were no memory for the last one's."""
    models, before = networks({}), networks({})

    def fails(member, is_first):
        if member.model is models[4]:
            raise MemoryError("no room")

    monkeypatch.setattr(chains, "look_at", fails)
    optimizer = fastbp.SGD(0.1)
    with pytest.raises(MemoryError, match="no room"):
        fastbp.fit_many(models, X, Y, epochs=2, optimizers=optimizer, threads=1, progress=False)
    for model, same in zip(models, before, strict=True):
        assert state_of(model, optimizer) == state_of(same, optimizer)


def test_an_error_of_the_first_core_is_no_riddle_to_the_others(chained, monkeypatch):
    """They wait until it trains."""

    def fails(member, is_first):
        raise MemoryError("no room")

    monkeypatch.setattr(chains, "look_at", fails)
    with pytest.raises(MemoryError, match="no room"):
        fastbp.fit_many(networks({}), X, Y, epochs=2, optimizers=fastbp.SGD(0.1), threads=2, progress=False)


def test_who_leaves_a_chain_first_notes_what_has_ended(monkeypatch):
    """The other core, which has trained some, too, leaves when that is done."""
    leaving, both_are_there = itertools.count(), threading.Barrier(2, timeout=30)
    first_has_noted, counts = threading.Event(), []
    note = chains.Chain._note_trained

    class Queue(chains.Queue):
        def train(self, plan):
            both_are_there.wait()
            super().train(plan)
            if next(leaving):
                assert first_has_noted.wait(30)

    def noted(self, indices):
        note(self, indices)
        counts.append(len(indices))
        first_has_noted.set()

    monkeypatch.setattr(chains.Chain, "_note_trained", noted)
    monkeypatch.setattr(chains, "Queue", Queue)
    monkeypatch.setattr(chains, "CHAINS_PER_CORE", 0.5)
    options = {"epochs": 20, "batch_size": 16, "threads": 2, "progress": False}
    got = fastbp.fit_many(networks({}, 40), X, Y, optimizers=fastbp.SGD(0.1), **options)
    assert len(counts) == 2 and sum(counts) == 40 and counts[0] >= 39
    assert all(history.epochs == 20 and history.seconds > 0 for history in got)


def test_optimizers_of_a_chain_may_differ_in_their_numbers(chained):
    together, alone = networks({}), networks({})
    optimizers = [fastbp.Adam(0.001 * (i + 1), betas=(0.9 - 0.1 * i, 0.99)) for i in range(5)]
    call = {"epochs": 2, "batch_size": 20, "progress": False}
    fastbp.fit_many(together[:2], X, Y, optimizers=optimizers[:2], **call)  # so that they have done steps
    for model, optimizer in zip(alone[:2], optimizers, strict=False):
        model.fit(X, Y, optimizer=optimizer, **call)
    chained.clear()
    got = fastbp.fit_many(together, X, Y, optimizers=optimizers, threads=1, **call)
    assert chained == [5]
    for i, (model, same) in enumerate(zip(together, alone, strict=True)):
        history = same.fit(X, Y, optimizer=optimizers[i], **call)
        assert state_of(model, optimizers[i]) == state_of(same, optimizers[i])
        assert columns(got[i]) == columns(history)


def test_networks_that_differ_in_anything_are_not_in_one_chain(chained):
    models = [
        *networks({}, 2),
        *networks({"reduction": "sum"}, 2),
        *networks({"l2": 0.1}, 2),
        *networks({"dtype": "float64"}, 2),
        *networks({"hidden": "tanh"}, 2),
        *networks({"dropout": 0.2}, 2),  # whose random numbers are their own
    ]
    optimizers = [fastbp.SGD(0.1)] * len(models)
    models += networks({}, 6)
    optimizers += [
        fastbp.SGD(0.1, weight_decay=0.1, decay_biases=decays) for decays in (True, True, False, False)
    ]
    optimizers += [fastbp.SGD(fastbp.schedules.Cosine(0.1, 9))] * 2
    fastbp.fit_many(models, X, Y, epochs=1, optimizers=optimizers, threads=1, progress=False)
    assert chained == [2] * 7


def test_cores_take_the_networks_of_one_chain(monkeypatch):
    """Who has nothing to begin helps with what another core has begun. One of the networks diverges."""
    plans, both_are_there = [], threading.Barrier(2, timeout=30)

    class Queue(chains.Queue):
        def train(self, plan):
            plans.append(plan)
            both_are_there.wait()
            super().train(plan)

    monkeypatch.setattr(chains, "Queue", Queue)
    monkeypatch.setattr(chains, "CHAINS_PER_CORE", 0.5)
    together, alone = networks({"output": "identity"}, 50), networks({"output": "identity"}, 50)
    for model in (together[30], alone[30]):
        model.weights[0][...] *= 1e25
    optimizer = fastbp.SGD(0.01, momentum=0.9)
    options = {"epochs": 20, "batch_size": 16, "progress": False}
    with pytest.warns(RuntimeWarning, match=r"1 of 50 networks .*models\[30\]: the loss became"):
        got = fastbp.fit_many(together, X, Y, optimizers=optimizer, threads=2, **options)
    assert len(plans) == 2 and plans[0] is not plans[1]
    for i, (model, same) in enumerate(zip(together, alone, strict=True)):
        if i == 30:
            with pytest.raises(FloatingPointError):
                same.fit(X, Y, optimizer=optimizer, **options)
        else:
            assert columns(got[i]) == columns(same.fit(X, Y, optimizer=optimizer, **options))
        assert state_of(model, optimizer) == state_of(same, optimizer)
