"""What a callback changes of model, optimizer and data in use: it takes effect as a whole, or is refused."""

import copy
import threading

import numpy as np
import pytest

from fastbp.schedules import Cosine, ReduceOnPlateau

ROWS, BATCH, CHANGED_AFTER, EPOCHS = 30, 10, 2, 5


def problem():
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, 4)).astype(np.float32), rng.random((ROWS, 2)).astype(np.float32)


class Change:
    """Calls a function of the model once, when an epoch has ended, from one of the hooks."""

    def __init__(self, hook, change):
        self.change, self.done = change, False
        count = CHANGED_AFTER if hook == "on_epoch_end" else CHANGED_AFTER * ROWS // BATCH

        def call(model, n, history):
            if n == count:
                self.done = True
                change(model)

        setattr(self, hook, call)


def setting(optimizer, **values):
    def change(model):
        optimizer.assign(values)

    return change


CHANGES = {
    "momentum on": ("SGD", {"lr": 0.1}, {"momentum": 0.9}),
    "momentum off": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"momentum": 0.0}),
    "nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9}, {"nesterov": True}),
    "lr": ("SGD", {"lr": 0.1}, {"lr": 0.3}),
    "lr becomes a schedule": ("Adam", {"lr": 0.1}, {"lr": Cosine(0.1, 20)}),
    "weight_decay": ("SGD", {"lr": 0.1}, {"weight_decay": 0.1}),
    "clip_norm": ("SGD", {"lr": 0.1}, {"clip_norm": 1e-2}),
    "clip_norm off": ("Adam", {"lr": 0.1, "clip_norm": 1e-2}, {"clip_norm": None}),
    "clip_value and l1": ("SGD", {"lr": 0.1}, {"clip_value": 1e-2, "l1": 1e-3}),
    "betas and eps": ("Adam", {"lr": 0.1}, {"betas": [0.5, 0.6], "eps": 1e-2}),
    "momentum of RMSprop on": ("RMSprop", {"lr": 0.01}, {"momentum": 0.9}),
    "momentum of RMSprop off": ("RMSprop", {"lr": 0.01, "momentum": 0.9}, {"momentum": 0.0}),
}


@pytest.fixture(params=["on_epoch_end", "on_chunk_end"])
def hook(request, monkeypatch):
    if request.param == "on_chunk_end":
        monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)  # each step a chunk
    return request.param


def assert_same(model, optimizer, other, other_optimizer):
    assert model.parameters.flat.tobytes() == other.parameters.flat.tobytes()
    states = [
        o.state(m.parameters.owner, m.n_parameters, m.dtype)
        for m, o in ((model, optimizer), (other, other_optimizer))
    ]
    assert states[0].steps == states[1].steps
    buffers = [[b.tobytes() for b in state.buffers] for state in states]
    assert buffers[0] == buffers[1]


@pytest.mark.parametrize("name", CHANGES)
def test_the_optimizer_is_as_if_it_had_been_changed_between_two_trainings(module, hook, name):
    X, Y = problem()
    kind, given, changed = CHANGES[name]
    results = []
    for in_callback in (True, False):
        model, optimizer = module.MLP([4, 9, 2], seed=1), getattr(module, kind)(**given)
        change = setting(optimizer, **changed)
        options = {"optimizer": optimizer, "batch_size": BATCH}
        if in_callback:
            callback = Change(hook, change)
            model.fit(X, Y, epochs=EPOCHS, callbacks=callback, **options)
            assert callback.done
        else:
            model.fit(X, Y, epochs=CHANGED_AFTER, **options)
            change(model)
            model.fit(X, Y, epochs=EPOCHS - CHANGED_AFTER, **options)
        results += [model, optimizer]
    assert_same(*results)


@pytest.mark.parametrize("name", CHANGES)
def test_what_was_changed_comes_back_from_a_checkpoint(module, name, tmp_path):
    X, Y = problem()
    kind, given, changed = CHANGES[name]
    results = []

    class End(Exception):
        pass

    def end(model, epoch, history):
        if epoch == 4:
            raise End

    for broken in (True, False):
        for attempt in range(2 if broken else 1):
            model, optimizer = module.MLP([4, 9, 2], seed=1), getattr(module, kind)(**given)
            callbacks = [Change("on_epoch_end", setting(optimizer, **changed))]
            callbacks += [end] * (broken and attempt == 0)
            options = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": optimizer, "callbacks": callbacks}
            path = tmp_path / str(broken)
            if attempt == 0 and broken:
                with pytest.raises(End):
                    model.fit(X, Y, checkpoint=path, **options)
            elif name == "lr becomes a schedule" and broken:
                with pytest.raises(ValueError, match="a callback had set lr to"):
                    model.fit(X, Y, checkpoint=path, **options)
                return
            else:
                model.fit(X, Y, checkpoint=path, **options)
        results += [model, optimizer]
    assert_same(*results)


def test_a_schedule_that_watches_is_told_of_epochs_from_then_on(module, hook):
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1), module.SGD(0.1)
    watching = ReduceOnPlateau(0.2, 0.5, patience=0, threshold=1e3)
    callback = Change(hook, setting(optimizer, lr=watching))
    history = model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, callbacks=callback)
    # a chunk ends before its epoch does, so that the schedule hears of that epoch, too
    later = [0.2, 0.2, 0.1] if hook == "on_epoch_end" else [0.2, 0.1, 0.05]
    assert history.lr[-3:].tolist() == later
    other = setting(optimizer, lr=ReduceOnPlateau(0.2, monitor="val_loss"))
    with pytest.raises(ValueError, match="unknown monitor 'val_loss'"):
        model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, callbacks=Change(hook, other))


@pytest.mark.parametrize("values", [{"lr": -5}, {"clip_norm": float("nan")}, {"momentum": 2}], ids=str)
def test_what_the_optimizer_refuses_ends_the_training(module, hook, values):
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1), module.SGD(0.1)
    [name] = values
    callback = Change(hook, setting(optimizer, **values))
    with pytest.raises(ValueError, match=name) as caught:
        model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, callbacks=callback)
    assert caught.value.history.epochs == CHANGED_AFTER
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == CHANGED_AFTER * ROWS // BATCH
    assert np.isfinite(model.fit(X, Y, epochs=1, optimizer=optimizer).loss).all()


def test_a_model_that_is_reset_begins_anew(module):
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1, dropout=0.2), module.Adam(0.01)
    callback = Change("on_epoch_end", lambda model: model.reset())
    options = {"batch_size": BATCH, "optimizer": optimizer}
    model.fit(X, Y, epochs=EPOCHS, callbacks=callback, **options)
    fresh, again = module.MLP([4, 9, 2], seed=1, dropout=0.2), module.Adam(0.01)
    fresh.fit(X, Y, epochs=EPOCHS - CHANGED_AFTER, batch_size=BATCH, optimizer=again)
    assert_same(model, optimizer, fresh, again)


def test_training_within_training(module):
    """The same model and optimizer in a callback: as if the trainings had been done in turn."""
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1), module.Adam(0.01)

    def more(model):
        model.fit(X[:7], Y[:7], epochs=2, batch_size=3, optimizer=optimizer, shuffle=False)
        model.train_step(X, Y, optimizer)

    callback = Change("on_epoch_end", more)
    options = {"batch_size": BATCH, "shuffle": False}
    model.fit(X, Y, epochs=EPOCHS, callbacks=callback, optimizer=optimizer, **options)
    other, again = module.MLP([4, 9, 2], seed=1), module.Adam(0.01)
    other.fit(X, Y, epochs=CHANGED_AFTER, optimizer=again, **options)
    other.fit(X[:7], Y[:7], epochs=2, batch_size=3, optimizer=again, shuffle=False)
    other.train_step(X, Y, again)
    other.fit(X, Y, epochs=EPOCHS - CHANGED_AFTER, optimizer=again, **options)
    assert_same(model, optimizer, other, again)


@pytest.mark.parametrize(
    "name", ["dropout", "max_norm", "threads", "seed", "dtype", "layer_sizes", "loss", "hidden"]
)
def test_what_is_fixed_when_a_model_is_made_cannot_be_set(module, name):
    model = module.MLP([4, 9, 2], seed=1, max_norm=2.0, threads=1)
    with pytest.raises(AttributeError, match=name):
        setattr(model, name, 3)
    with pytest.raises(AttributeError, match=name):
        setattr(model.architecture, name, 3)


@pytest.mark.parametrize("name", ["architecture", "parameters", "streams", "backend", "reader"])
def test_a_models_parts_cannot_be_replaced(module, hook, name):
    """Compiled code holds the addresses of the parts that it was made for."""
    X, Y = problem()
    model, other = module.MLP([4, 9, 2], seed=1), module.MLP([40, 90, 20], seed=1)
    replace = Change(hook, lambda model: setattr(model, name, getattr(other, name)))
    with pytest.raises(AttributeError, match=f"{name} is a part of the model"):
        model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=module.SGD(0.1), callbacks=replace)
    replace = Change(hook, lambda model: setattr(model.parameters, "flat", np.zeros(3, model.dtype)))
    with pytest.raises(AttributeError, match="flat"):
        model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=module.SGD(0.1), callbacks=replace)
    np.testing.assert_array_equal(copy.deepcopy(model).predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model.weights[0], "shape", (9, 4)), r"weights\[0\] has shape \(9, 4\)"),
        (lambda model: setattr(model.biases[1], "shape", (1, 2)), r"biases\[1\] has shape \(1, 2\)"),
        (lambda model: setattr(model, "weights", model.weights[:1]), "2 layers, but 1 weights"),
        (lambda model: model.weights.__setitem__(0, np.zeros((3, 3))), r"weights\[0\] has shape \(3, 3\)"),
        (lambda model: model.weights[0].fill(np.nan), "hold NaN or infinity, which somebody"),
        (lambda model: model.weights[0].setflags(write=False), r"weights\[0\] .*read-only"),
    ],
    ids=["W shape", "b shape", "fewer", "other shape", "nan", "read-only"],
)
def test_parameters_that_training_cannot_go_on_from(module, hook, change, message):
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1), module.SGD(0.1)
    with pytest.raises(ValueError, match=message):
        model.fit(X, Y, epochs=EPOCHS, batch_size=BATCH, optimizer=optimizer, callbacks=Change(hook, change))
    assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == CHANGED_AFTER * ROWS // BATCH


# ---- data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["X", "Y", "validation X", "validation Y"])
@pytest.mark.parametrize("stored", ["float32", "uint8"])
def test_shapes_are_those_at_the_start(module, hook, which, stored):
    """Trained on as if nobody had touched them, whatever shape a callback gives the caller's arrays."""
    X, Y = (np.ascontiguousarray((values * 9).astype(stored)) for values in problem())
    expected = None
    for touched in (False, True):
        x, y, held_x, held_y = X.copy(), Y.copy(), X[:12].copy(), Y[:12].copy()

        def change(model, x=x, y=y, held_x=held_x, held_y=held_y, touched=touched):
            array = {"X": x, "Y": y, "validation X": held_x, "validation Y": held_y}[which]
            if touched:
                array.shape = (array.size // 2, 2) if array.shape[1] != 2 else (array.size // 3, 3)

        model = module.MLP([4, 9, 2], output="identity", seed=1)
        history = model.fit(
            x,
            y,
            epochs=EPOCHS,
            batch_size=BATCH,
            optimizer=module.SGD(0.001),
            validation_data=(held_x, held_y),
            callbacks=Change(hook, change),
        )
        result = [model.parameters.flat.tobytes(), history.loss.tobytes(), history.val_loss.tobytes()]
        expected = expected or result
    assert result == expected


def test_a_file_that_is_cut_short_is_an_error(module, hook, tmp_path):
    """Reading it would end the process. (That holds for what is cut off between chunks.)"""
    X, Y = problem()
    path = tmp_path / "X.npy"
    np.save(path, np.tile(X, (1000, 1)))

    def cut(model):
        with open(path, "r+b") as file:
            file.truncate(5000)

    model, optimizer = module.MLP([4, 9, 2], seed=1), module.SGD(0.1)
    Y = np.tile(Y, (1000, 1))
    seen = []

    class Cut:
        pass

    setattr(Cut, hook, lambda self, model, n, history: seen.append(n) or cut(model))
    with pytest.raises(OSError, match="the file that X is mapped from has been cut to 5000 bytes") as caught:
        model.fit(path, Y, epochs=3, batch_size=3000, optimizer=optimizer, callbacks=Cut())
    assert len(seen) == 1
    assert caught.value.history.epochs == (hook == "on_epoch_end")
    with pytest.raises((OSError, ValueError)):
        model.fit(path, Y, epochs=1, optimizer=optimizer)


def test_nothing_reads_a_file_that_was_cut_short(module, tmp_path):
    X, Y = problem()
    model = module.MLP([4, 9, 2], seed=1)
    for name, data in (("X", X), ("Y", Y)):
        np.save(tmp_path / f"{name}.npy", np.tile(data, (1000, 1)))
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "XY"}
    expected = model.predict(mapped["X"][:100])
    for name in "XY":
        with open(tmp_path / f"{name}.npy", "r+b") as file:
            file.truncate(8192)
    message = "is mapped from has been cut to 8192 bytes since"
    x, y = np.asarray(mapped["X"]), mapped["Y"]
    for call in (
        lambda: model.predict(x),
        lambda: model.forward(mapped["X"]),
        lambda: model.loss(x, np.tile(Y, (1000, 1))),
        lambda: model.loss(np.tile(X, (1000, 1)), y),
        lambda: model.train_step(x, y, module.SGD(0.1)),
        lambda: model.train_step(np.tile(X, (1000, 1)), y, module.SGD(0.1)),
        lambda: model.fit(x, y, epochs=1, optimizer=module.SGD(0.1)),
        lambda: model.fit(
            np.tile(X, (1000, 1)), y, epochs=1, optimizer=module.SGD(0.1), validation_data=(x, y)
        ),
    ):
        with pytest.raises(OSError, match=message):
            call()
    np.testing.assert_array_equal(model.predict(x[:100]), expected)  # what is still there can be read


# ---- what a callback must take -------------------------------------------------------------------------


class TooFew:
    def on_train_end(self, model):
        raise AssertionError


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda model, epoch: None, r"cannot be called with \(model, epoch, history\): too many positional"),
        (lambda: None, r"cannot be called with \(model, epoch, history\)"),
        (lambda model, epoch, history, more: None, r"missing a required argument: 'more'"),
        (TooFew(), r"TooFew.on_train_end\(model\) cannot be called with \(model, history\)"),
    ],
)
def test_a_callback_of_other_arguments_is_refused_before_training(module, callback, message):
    X, Y = problem()
    model, optimizer = module.MLP([4, 9, 2], seed=1), module.SGD(0.1)
    before = model.parameters.flat.copy()
    with pytest.raises(TypeError, match=message):
        model.fit(X, Y, epochs=1, optimizer=optimizer, callbacks=[callback])
    assert np.array_equal(model.parameters.flat, before)


# ---- threads ---------------------------------------------------------------------------------------------


def test_another_thread_may_change_the_optimizer_meanwhile():
    """A chunk goes by the hyper-parameters at its beginning, whatever is set while it runs."""
    import fastbp

    X, Y = problem()
    model, optimizer = fastbp.MLP([4, 9, 2], seed=1), fastbp.SGD(1e-3)
    over = threading.Event()

    def toggle():
        while not over.is_set():
            optimizer.momentum = 0.5
            optimizer.clip_norm = 1.0
            optimizer.momentum = 0.0
            optimizer.clip_norm = None

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        for _ in range(300):
            model.fit(X, Y, epochs=2, batch_size=BATCH, optimizer=optimizer, callbacks=lambda *_: None)
            model.train_step(X, Y, optimizer)
    finally:
        over.set()
        thread.join()
    state = optimizer.state(model.parameters.owner, model.n_parameters, model.dtype)
    assert state.steps == 300 * 7
    assert np.isfinite(model.predict(X)).all()


# ---- weights -------------------------------------------------------------------------------------------
