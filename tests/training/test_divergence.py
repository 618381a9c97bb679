"""Numbers that blow up, and weights that stay alike."""

import re
import warnings

import numpy as np
import pytest
from fit_data import arrays, data

import fastbp
import fastbp.reference

# ---- symmetry -----------------------------------------------------------------------------------------


def test_all_zero_weights_warn_once_and_name_the_layer(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], hidden="tanh", seed=0)
    for W in model.weights:
        W[...] = 0
    with pytest.warns(
        UserWarning, match="hidden units of layer 1 will stay identical.*zero.*symmetry"
    ) as seen:
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    assert len(seen) == 1
    assert seen[0].filename == __file__
    model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))  # a second warning would be an error here
    # and it is true: all hidden units are still the same
    assert np.all(model.weights[0] == model.weights[0][:, :1])


def test_symmetry_in_several_layers(module):
    X, Y = data()
    model = module.MLP([3, 4, 5, 2], seed=0)
    for W in model.weights:
        W[...] = 0
    with pytest.warns(UserWarning, match="layers 1, 2 will stay identical") as seen:
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    assert len(seen) == 1


def test_symmetry_is_not_claimed_where_it_breaks(module):
    X, Y = data()
    for zero in (0, 1):  # with tanh, one random array of the two is enough for units to part
        model = module.MLP([3, 4, 2], hidden="tanh", seed=0)
        model.weights[zero][...] = 0
        model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1))
        assert not np.all(model.weights[0] == model.weights[0][:, :1])
    module.MLP([3, 1, 2], seed=0).fit(X, Y, epochs=1, optimizer=module.SGD(0.1))  # one unit is like itself
    # zero weights into ReLUs: no gradient passes, whatever follows
    model = module.MLP([3, 4, 2], seed=0)
    model.weights[0][...] = 0
    with pytest.warns(UserWarning, match="layer 1 will stay identical"):
        model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1))
    assert np.all(model.weights[0] == 0)


# ---- NaN and infinity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("callbacks", [(), [lambda *_: None]], ids=["chunks span epochs", "epoch by epoch"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_divergence_stops_with_the_last_finite_parameters(module, dtype, shuffle, callbacks):
    X, Y = data(40, 3, 2)
    model = module.MLP([3, 6, 2], output="identity", dtype=dtype, seed=0)
    optimizer = module.SGD(50.0, momentum=0.5)
    with pytest.raises(FloatingPointError, match=r"at epoch \d+, step \d+ of 5\. .*last finite") as caught:
        model.fit(X, Y, epochs=1000, batch_size=8, optimizer=optimizer, shuffle=shuffle, callbacks=callbacks)
    assert all(np.isfinite(p).all() for p in arrays(model))
    message = str(caught.value)
    assert re.search("explode|overflow|dead", message)  # what diagnose says
    # Both numbers are right: trained to there, a model has these parameters, and one step more is not finite.
    pattern = r"those before step (\d+) of epoch (\d+)"
    step, epoch = (int(n) for n in re.search(pattern, message).groups())
    again = module.MLP([3, 6, 2], output="identity", dtype=dtype, seed=0)
    again_optimizer = module.SGD(50.0, momentum=0.5)
    taken = (epoch - 1) * 5 + step - 1
    state = optimizer.state(model.parameters.owner, 0, model.dtype)
    assert state.steps == taken
    order = np.tile(np.arange(40), (epoch, 1))
    order = again.streams.shuffling.permuted(order, axis=1) if shuffle else order
    steps = [order[e][s * 8 : s * 8 + 8] for e in range(epoch) for s in range(5)]
    for rows in steps[:taken]:
        again.train_step(X[rows], Y[rows], again_optimizer)
    for a, b in zip(arrays(model), arrays(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3 if dtype == np.float32 else 1e-9)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = again.train_step(X[steps[taken]], Y[steps[taken]], again_optimizer)
        assert not (np.isfinite(loss) and all(np.isfinite(p).all() for p in arrays(again)))


def test_a_loss_that_overflows_at_once(module):
    """Finite parameters and data, but no finite loss at the first step: nothing has changed."""
    X, Y = data(10, 3, 2)
    model = module.MLP([3, 6, 2], output="identity", seed=0)
    for factor, expected in [
        (1.0, "the loss became inf at epoch 1, step 1 of 1.*gradients explode"),
        (1e3, "the loss became nan at epoch 1, step 1 of 1.*numbers overflow in layer 1"),
    ]:
        model.weights[0] *= factor
        before = model.parameters.flat.copy()
        with pytest.raises(FloatingPointError, match=expected) as caught:
            model.fit(X * 1e37, Y, epochs=3, optimizer=module.SGD(0.1))
        assert "before step 1 of epoch 1" in str(caught.value)
        assert np.array_equal(model.parameters.flat, before)


def test_training_does_not_start_from_nan(module):
    X, Y = data()
    model = module.MLP([3, 4, 2], seed=0)
    model.weights[0][0, 0] = np.nan
    with pytest.raises(ValueError, match="weights, biases or gains hold NaN or infinity"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))


def test_nan_in_data_is_met_in_the_loss_when_not_checked(module):
    X, Y = data()
    X[7, 1] = np.nan
    model = module.MLP([3, 4, 2], seed=0)
    with pytest.raises(ValueError, match="X holds NaN"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1))
    with pytest.raises(FloatingPointError, match="epoch 1, step 2 of 10"):
        model.fit(X, Y, epochs=1, batch_size=5, optimizer=module.SGD(0.1), shuffle=False, check_finite=False)
    assert np.isfinite(model.parameters.flat).all()


# ---- the best epoch, and the history, outlive it ------------------------------------------------------


class Jump(fastbp.schedules.Schedule):
    """A learning rate that becomes absurd at step 60."""

    def __call__(self, steps):
        return np.where(steps < 60, 0.05, 1e20)


@pytest.mark.parametrize("callbacks", [True, False], ids=["EarlyStopping", "no callback"])
def test_divergence_late_in_training_gives_the_best_epoch_back(module, callbacks):
    X, Y = data(40, 3, 2)
    options = {"batch_size": 8, "validation_data": (X[:20], Y[:20])}  # 5 steps an epoch
    model, optimizer = module.MLP([3, 6, 2], output="identity", seed=0), module.SGD(Jump())
    stopping = [module.EarlyStopping(patience=99)] * callbacks
    with pytest.raises(FloatingPointError, match="at epoch 13, step ") as caught:
        model.fit(X, Y, epochs=99, optimizer=optimizer, callbacks=stopping, **options)
    history = caught.value.history
    assert history.epochs == 12
    assert len(history.val_loss) == 12 and np.isfinite(history.val_loss).all()
    assert np.isfinite(model.predict(X)).all() or not callbacks
    message = str(caught.value)
    if callbacks:
        best = module.MLP([3, 6, 2], output="identity", seed=0)
        best.fit(X, Y, epochs=history.best_epoch, optimizer=module.SGD(0.05), **options)
        assert model.parameters.flat.tobytes() == best.parameters.flat.tobytes()
        assert (
            f"The model has the parameters of the best epoch, {history.best_epoch}. With the last" in message
        )
    else:
        assert "The model has the last finite parameters, those before step" in message


def test_other_callbacks_may_save_the_model_then(module):
    X, Y = data(40, 3, 2)
    model = module.MLP([3, 6, 2], output="identity", seed=0)

    class Own:
        ended = 0

        def on_train_end(self, model, history):
            self.ended += 1
            model.weights[0][...] = 1

    own = Own()
    with pytest.raises(FloatingPointError, match="The model has the parameters of a callback"):
        model.fit(X, Y, epochs=99, batch_size=8, optimizer=module.SGD(Jump()), callbacks=own)
    assert own.ended == 1
    assert (model.weights[0] == 1).all()


def test_a_callbacks_own_floating_point_error_is_no_divergence(module):
    X, Y = data()

    class Own:
        def on_epoch_end(self, model, epoch, history):
            raise FloatingPointError("mine")

        def on_train_end(self, model, history):
            raise AssertionError

    with pytest.raises(FloatingPointError, match=r"^mine$") as caught:
        module.MLP([3, 4, 2]).fit(X, Y, epochs=3, optimizer=module.SGD(0.1), callbacks=Own())
    assert caught.value.history.epochs == 1


@pytest.mark.parametrize("loss", ["mse", "huber(1e20)"])
@pytest.mark.parametrize(("error", "finite"), [(1e18, True), (2.5e19, True), (2.7e19, False), (1e30, False)])
def test_a_loss_that_the_dtype_cannot_hold_is_infinite_everywhere(module, dtype, loss, error, finite):
    """In training as in loss(), for the engine as for its twin."""
    X, Y = np.zeros((3, 2), dtype), np.zeros((3, 1), dtype)
    Y[1] = error
    model = module.MLP([2, 1], output="identity", loss=loss, dtype=dtype, seed=0)
    found = [model.loss(X, Y)]
    optimizer = module.SGD(0.0)
    found.append(model.train_step(X, Y, optimizer))
    if finite or dtype == np.float64:
        found.append(model.fit(X, Y, epochs=1, optimizer=optimizer, batch_size=3).last("loss"))
        e = np.float64(Y[1, 0])
        exact = (e * e / 2 if loss == "mse" or e < 1e20 else 1e20 * (e - 5e19)) / 3
        np.testing.assert_allclose(found, exact, rtol=1e-6)
    else:
        assert found == [np.inf] * 2
        with pytest.raises(FloatingPointError, match="the loss became inf at epoch 1, step 1"):
            model.fit(X, Y, epochs=1, optimizer=optimizer)
