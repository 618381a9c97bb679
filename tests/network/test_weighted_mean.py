"""reduction="weighted_mean": loss and gradients divided by the sum of a batch's weights."""

import numpy as np
import pytest
from trainings import assert_same

import fastbp
import fastbp.reference

ROWS, BATCH = 53, 8
RNG = np.random.default_rng(5)
X = RNG.standard_normal((ROWS, 5))
Y = RNG.random((ROWS, 3))
LABELS = RNG.integers(0, 3, ROWS)
WEIGHTS = RNG.choice([0.0, 0.5, 1.0, 3.0], ROWS)
# Two whole batches without weight (the second and the last one), where rows are taken as they lie.
WITH_GAPS = WEIGHTS.copy()
WITH_GAPS[8:16] = WITH_GAPS[48:] = 0


def network(module, **changes):
    options = {"hidden": "tanh", "dtype": "float64", "seed": 2, "reduction": "weighted_mean"}
    return module.MLP([5, 9, 3], **(options | changes))


def of_classes(**changes):
    return {"output": "softmax", "loss": "categorical_crossentropy", **changes}


def test_loss_and_gradients_are_those_of_the_sum_divided_by_the_weights(module):
    model, of_sum = network(module), network(module, reduction="sum")
    found = model.backward(model.forward(X), Y, sample_weight=WEIGHTS)
    expected = of_sum.backward(of_sum.forward(X), Y, sample_weight=WEIGHTS)
    for ours, theirs in zip(found.weights + found.biases, expected.weights + expected.biases, strict=True):
        np.testing.assert_allclose(ours, theirs / WEIGHTS.sum(), rtol=1e-13, atol=1e-16)
    loss = of_sum.loss(X, Y, sample_weight=WEIGHTS) / WEIGHTS.sum()
    assert model.loss(X, Y, sample_weight=WEIGHTS) == pytest.approx(loss, rel=1e-14)
    assert model.train_step(X, Y, module.SGD(0), sample_weight=WEIGHTS) == pytest.approx(loss, rel=1e-13)


def test_gradients_are_those_of_the_loss(module):
    model = network(module, layer_norm=True)
    assert model.check_gradients(X, Y, sample_weight=WEIGHTS).passed
    assert model.check_gradients(X, Y).passed


def test_without_weights_it_is_the_mean(module):
    results = [network(module, reduction=reduction, seed=1) for reduction in ("mean", "weighted_mean")]
    histories = [
        model.fit(X, Y, epochs=3, batch_size=BATCH, optimizer=module.Adam(0.01)) for model in results
    ]
    assert np.array_equal(results[0].parameters.flat, results[1].parameters.flat)
    assert np.array_equal(histories[0].loss, histories[1].loss)


@pytest.mark.parametrize("weights", [WEIGHTS, WITH_GAPS], ids=["weights", "gaps"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ({}, {}),
        ({"dtype": "float32", "dropout": 0.3, "input_noise": 0.1}, {"accumulate": 2, "batch_size": 4}),
        (of_classes(), {"shuffle": False}),
        (of_classes(layer_norm=True, max_norm=1.0), {"steps": 17}),
    ],
    ids=["plain", "parts", "labels", "steps"],
)
def test_engine_and_reference_agree(weights, kind, options):
    options = {"epochs": 4, "batch_size": BATCH} | options
    if "steps" in options:
        del options["epochs"]
    results = []
    for module in (fastbp, fastbp.reference):
        model = network(module, **kind)
        optimizer = module.Adam(module.schedules.Exponential(0.01, 0.99), clip_norm=0.1, eps=1e-4)
        targets = LABELS if "loss" in kind else Y
        history = model.fit(X, targets, optimizer=optimizer, sample_weight=weights, **options)
        results.append((model.parameters.flat, history.loss, history.lr, optimizer))
    rtol = 1e-4 if kind.get("dtype") == "float32" else 1e-11
    for ours, theirs in zip(*(result[:3] for result in results), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol / 10)


def test_the_loss_of_an_epoch(module):
    """Batches count as often as they have rows, skipped ones not at all."""
    model, twin = network(module), network(module)
    history = model.fit(
        X, Y, epochs=1, batch_size=BATCH, optimizer=module.SGD(0.1), sample_weight=WITH_GAPS, shuffle=False
    )
    total = rows = 0.0
    optimizer = module.SGD(0.1)
    for start in range(0, ROWS, BATCH):
        batch = slice(start, start + BATCH)
        loss = twin.train_step(X[batch], Y[batch], optimizer, sample_weight=WITH_GAPS[batch])
        count = len(X[batch]) if WITH_GAPS[batch].any() else 0
        total, rows = total + loss * count, rows + count
    assert rows == ROWS - 8 - 5
    np.testing.assert_allclose(history.loss, [total / rows], rtol=1e-13)
    np.testing.assert_allclose(model.parameters.flat, twin.parameters.flat, rtol=0, atol=1e-14)


def test_a_batch_without_weight_is_skipped(module):
    """As if it were not there: momentum does not move the parameters either, and time stands still."""
    model, optimizer = network(module), module.Adam(0.01)
    model.train_step(X, Y, optimizer)
    before = model.parameters.flat.copy()
    assert model.train_step(X, Y, optimizer, sample_weight=np.zeros(ROWS)) == 0
    assert np.array_equal(model.parameters.flat, before)
    assert optimizer.state(model.parameters.owner, 0, np.dtype(float)).steps == 1
    assert model.loss(X, Y, sample_weight=np.zeros(ROWS)) == 0
    gradients = model.backward(model.forward(X), Y, sample_weight=np.zeros(ROWS))
    assert not any(array.any() for array in gradients.weights + gradients.biases)
    history = model.fit(
        [(X, Y, np.zeros(ROWS)), (X, Y, WEIGHTS)], epochs=2, optimizer=optimizer, progress=False
    )
    twin, other = network(module), module.Adam(0.01)
    twin.train_step(X, Y, other)
    expected = [twin.train_step(X, Y, other, sample_weight=WEIGHTS) for _ in range(2)]
    np.testing.assert_allclose(history.loss, expected, rtol=1e-13)
    np.testing.assert_allclose(model.parameters.flat, twin.parameters.flat, rtol=0, atol=1e-14)


@pytest.mark.parametrize("weights", [WEIGHTS, WITH_GAPS], ids=["weights", "gaps"])
def test_epochs_at_once_are_epochs_one_by_one(module, weights):
    def trained(calls, **more):
        model, optimizer = network(module, dropout=0.2), module.Adam(0.01)
        losses = [
            model.fit(
                X, Y, epochs=6 // calls, batch_size=BATCH, optimizer=optimizer, sample_weight=weights, **more
            ).loss
            for _ in range(calls)
        ]
        return model.parameters.flat, np.concatenate(losses)

    expected = trained(1)
    for found in (trained(6), trained(1, callbacks=lambda *_: None)):
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_checkpoint_within_gaps(module, tmp_path):
    def trained(steps, path=None):
        model, optimizer = network(module, dropout=0.2), module.Adam(0.01)
        history = model.fit(
            X,
            Y,
            steps=steps,
            batch_size=BATCH,
            optimizer=optimizer,
            sample_weight=WITH_GAPS,
            checkpoint=path,
            every_steps=None if path is None else 3,
        )
        return model, optimizer, history

    path = tmp_path / "run"
    trained(14, path)
    assert_same(trained(28, path), trained(28))


def test_validation_is_judged_by_its_weights(module):
    model = network(module)
    history = model.fit(
        X, Y, epochs=1, optimizer=module.SGD(0.1), validation_data=(X[:7], Y[:7], WEIGHTS[:7] + 1)
    )
    expected = model.loss(X[:7], Y[:7], sample_weight=WEIGHTS[:7] + 1)
    assert history.val_loss[0] == pytest.approx(expected, rel=1e-14)
