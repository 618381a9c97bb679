"""Many networks in one call: each is what its own `fit` makes of it, and ends for itself."""

import signal
import threading
import warnings

import numpy as np
import pytest
from many_networks import LABELS, X, Y, assert_as_alone, columns

import fastbp
from fastbp import reference


def small(count, **options):
    return [fastbp.MLP([6, 8, 2], seed=i, **options) for i in range(count)]


def train(models, **changes):
    options = {"epochs": 3, "optimizers": fastbp.Adam(0.01), "progress": False} | changes
    return fastbp.fit_many(models, options.pop("X", X), options.pop("Y", Y), **options)


@pytest.mark.parametrize(
    ("count", "threads"), [(24, 1), (24, 2), pytest.param(200, 2, marks=pytest.mark.slow)]
)
def test_every_network_is_that_of_its_own_fit(count, threads):
    assert_as_alone(count, threads=threads)


def test_another_call_goes_on_where_the_first_ended():
    once, twice = small(5), small(5)
    optimizer, other = fastbp.Adam(0.01), fastbp.Adam(0.01)
    train(once, epochs=4, optimizers=optimizer)
    train(twice, epochs=2, optimizers=other)
    train(twice[::-1], epochs=2, optimizers=other)
    for model, same in zip(once, twice, strict=True):
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_networks_that_share_an_optimizer_with_a_schedule_do_not_disturb_each_other():
    def optimizer():
        return fastbp.Adam(fastbp.schedules.ReduceOnPlateau(0.05, monitor="loss", patience=1))

    alone, together = small(6), small(6)
    histories = [model.fit(X, Y, epochs=12, optimizer=optimizer(), progress=False) for model in alone]
    got = train(together, epochs=12, optimizers=optimizer())
    assert len({history.lr[-1] for history in histories}) > 1, "a case that shows nothing"
    assert [columns(history) for history in got] == [columns(history) for history in histories]


def test_a_large_network_among_small_ones_has_the_same_bits():
    sizes = [[6, 300, 300, 2], [6, 8, 2], [6, 16, 2]]
    alone, together = ([fastbp.MLP(s, seed=1) for s in sizes] for _ in range(2))
    for model in alone:
        model.fit(X, Y, epochs=2, optimizer=fastbp.SGD(0.1), progress=False)
    train(together, epochs=2, optimizers=fastbp.SGD(0.1))
    for model, same in zip(alone, together, strict=True):
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_early_stopping_ends_each_for_itself():
    held_out = X[:20], Y[:20]
    alone, together = small(4), small(4)
    options = {"epochs": 60, "validation_data": held_out, "metrics": ["r2"]}
    expected = [
        model.fit(
            X,
            Y,
            optimizer=fastbp.Adam(0.05),
            callbacks=[fastbp.EarlyStopping(patience=2)],
            progress=False,
            **options,
        )
        for model in alone
    ]
    got = train(
        together, optimizers=fastbp.Adam(0.05), callbacks=[fastbp.EarlyStopping(patience=2)], **options
    )
    assert any(history.stopped_early for history in expected)
    assert [columns(history) for history in got] == [columns(history) for history in expected]
    assert [h.best_epoch for h in got] == [h.best_epoch for h in expected]
    for model, same in zip(alone, together, strict=True):
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_one_that_diverges_ends_alone_and_says_so():
    def networks():
        return [fastbp.MLP([6, 8, 2], output="identity", seed=i) for i in range(4)]

    optimizers = [fastbp.SGD(0.01), fastbp.SGD(1e6), fastbp.SGD(0.01), fastbp.SGD(0.02)]
    together, alone = networks(), networks()
    with pytest.warns(RuntimeWarning, match=r"1 of 4 networks .*models 1\. models\[1\]: the loss became"):
        histories = train(together, epochs=30, optimizers=optimizers)
    with pytest.raises(FloatingPointError) as error:
        alone[1].fit(X, Y, epochs=30, optimizer=fastbp.SGD(1e6), progress=False)
    assert histories[1].diverged == str(error.value)
    assert "diverged" in repr(histories[1])
    assert together[1].parameters.flat.tobytes() == alone[1].parameters.flat.tobytes()
    assert [history.diverged is None for history in histories] == [True, False, True, True]
    assert [history.epochs for history in histories if history.diverged is None] == [30] * 3


@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c_leaves_all_usable(threads):
    models, begun = small(12), threading.Event()

    def press(model, epoch, history):
        if epoch == 3 and not begun.is_set():
            begun.set()
            signal.raise_signal(signal.SIGINT) if threads == 1 else signal.pthread_kill(
                threading.main_thread().ident, signal.SIGINT
            )

    before = [model.parameters.flat.copy() for model in models]
    histories = train(models, epochs=4000, callbacks=press, threads=threads)
    assert all(history.interrupted for history in histories)
    assert 0 < max(history.epochs for history in histories) < 4000
    untouched = 0
    for model, history, values in zip(models, histories, before, strict=True):
        untouched += not history.epochs
        assert history.epochs or np.array_equal(model.parameters.flat, values)
        twin = fastbp.MLP([6, 8, 2])
        twin.parameters.replace(model.parameters.flat)
        np.testing.assert_array_equal(model.predict(X), twin.predict(X))
    assert untouched
    train(models, epochs=1, threads=threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_a_callback_raises_comes_out_and_ends_the_others(threads):
    def fail(model, epoch, history):
        if model is models[2] and epoch == 2:
            raise LookupError("mine")

    models = small(6)
    with pytest.raises(LookupError, match="mine") as error:
        train(models, epochs=50, callbacks=fail, threads=threads)
    assert error.value.history.epochs == 2
    assert len(error.value.histories) == 6
    assert min(history.epochs for history in error.value.histories) < 50


def test_callbacks_wait_for_one_another():
    inside, most = [], []

    def callback(model, epoch, history):
        inside.append(model)
        most.append(len(inside))
        threading.Event().wait(0.0005)
        inside.remove(model)

    train(small(6), epochs=10, callbacks=callback, threads=2)
    assert len(most) == 60 and set(most) == {1}


def test_each_model_may_have_its_own_data_weights_and_callbacks():
    seen = []
    models, rng = small(3), np.random.default_rng(1)
    data = [rng.standard_normal((n, 6)).astype(np.float32) for n in (20, 30, 40)]
    targets = [rng.random((n, 2)) for n in (20, 30, 40)]
    weights = [rng.random(n) for n in (20, 30, 40)]
    callbacks = [[], [lambda model, epoch, history: seen.append(model)], []]
    train(models, X=data, Y=targets, sample_weight=weights, callbacks=callbacks)
    assert seen == [models[1]] * 3
    for i, model in enumerate(models):
        alone = fastbp.MLP([6, 8, 2], seed=i)
        alone.fit(
            data[i],
            targets[i],
            epochs=3,
            optimizer=fastbp.Adam(0.01),
            sample_weight=weights[i],
            progress=False,
        )
        assert alone.parameters.flat.tobytes() == model.parameters.flat.tobytes()


def test_data_in_the_memory_of_a_model_are_copied():
    models = small(2)
    other = fastbp.MLP([6, 15, 1], seed=0)
    view = other.parameters.flat[:90].reshape(15, 6)
    before = view.copy()
    train([*models, other], X=[view, view, X], Y=[Y[:15], Y[:15], Y[:, :1]], threads=2)
    alone = small(1)[0]
    alone.fit(before, Y[:15], epochs=3, optimizer=fastbp.Adam(0.01), progress=False)
    assert alone.parameters.flat.tobytes() == models[0].parameters.flat.tobytes()


def test_networks_of_the_reference():
    models = [reference.MLP([6, 8, 2], seed=i) for i in range(3)]
    alone = [reference.MLP([6, 8, 2], seed=i) for i in range(3)]
    train(models, threads=2)
    for model, same in zip(models, alone, strict=True):
        same.fit(X, Y, epochs=3, optimizer=fastbp.Adam(0.01), progress=False)
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_plans_are_not_kept_for_each_network():
    models = small(30)
    train(models)
    assert not any(model.backend._plans for model in models)


TWICE = small(1)[0]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": []}, ValueError, "models is empty"),
        ({"models": TWICE}, TypeError, "got a single one"),
        ({"models": [TWICE, *small(1), TWICE]}, ValueError, r"models\[2\] is models\[0\] again"),
        ({"models": [TWICE, "model"]}, TypeError, r"models\[1\] must be a model like MLP, got 'model'"),
        ({"epochs": [1, 2]}, ValueError, "epochs has 2 entries for 3 models"),
        ({"epochs": [1, 2, -1]}, ValueError, r"epochs\[2\] is -1"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"optimizers": "adam"}, TypeError, "optimizers must be an object like"),
        ({"optimizers": [fastbp.SGD(0.1)] * 2}, ValueError, "optimizers has 2 entries"),
        ({"X": [X, X]}, ValueError, "X has 2 entries for 3 models"),
        ({"Y": [Y, Y]}, ValueError, "Y has 2 entries for 3 models"),
        ({"Y": None}, TypeError, "Y must be given"),
        ({"Y": Y[:, :1]}, ValueError, "Y has shape"),
        ({"rows": np.arange(5)}, TypeError, "rows must be a list with the rows of each model"),
        ({"rows": [None, None]}, ValueError, "rows has 2 entries"),
        ({"rows": [None, [0, 90], None]}, ValueError, r"rows\[1\] holds 90, expected 0 to 89"),
        ({"rows": [None, [-1], None]}, ValueError, r"rows\[1\] holds -1"),
        ({"rows": [None, [0.5], None]}, ValueError, r"rows\[1\] has shape \(1,\) and dtype float64"),
        ({"rows": [None, [], None]}, ValueError, r"rows\[1\] has shape \(0,\)"),
        ({"rows": [None, [True], None]}, ValueError, r"rows\[1\] has 1 flags, X has 90 rows"),
        ({"sample_weight": np.zeros(90)}, ValueError, "sample_weight is 0 for all"),
        ({"callbacks": [[], []]}, ValueError, "callbacks has 2 entries"),
        ({"callbacks": 3}, TypeError, "callbacks must be functions"),
        ({"validation_data": (X, Y[:3])}, ValueError, r"validation_data\[1\]"),
        ({"metrics": "no"}, ValueError, "no"),
        ({"threads": 0}, ValueError, "threads is 0"),
        ({"progress": "no"}, TypeError, "progress must be True or False"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_trains(changes, error, message):
    models = changes.get("models", small(3))
    changes = {key: value for key, value in changes.items() if key != "models"}
    networks = [m for m in (models if isinstance(models, list) else [models]) if isinstance(m, fastbp.MLP)]
    before = [model.parameters.flat.copy() for model in networks]
    with pytest.raises(error, match=message):
        train(models, **changes)
    for model, values in zip(networks, before, strict=True):
        np.testing.assert_array_equal(model.parameters.flat, values)
        assert model.streams.steps_trained == 0


def test_a_network_with_nan_is_refused_by_its_number():
    models = small(3)
    models[1].weights[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="weights, biases or gains hold NaN") as error:
        train(models)
    assert error.value.__notes__ == ["(of models[1])"]


def test_labels_stay_labels():
    models = [
        fastbp.MLP([6, 8, 2], output="softmax", loss="categorical_crossentropy", seed=i) for i in range(2)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        histories = train(models, Y=LABELS, rows=[np.arange(30), np.arange(30, 90)])
    assert [history.epochs for history in histories] == [3, 3]
