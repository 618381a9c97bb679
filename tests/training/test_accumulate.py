"""Gradient accumulation: the same steps as with larger batches, in less memory."""

import numpy as np
import pytest

import fastbp

# inputs, hidden, outputs: thin and broad output layers, odd sizes
SHAPES = [(1, 1, 1), (3, 17, 2), (16, 33, 31), (13, 15, 16, 1)]
OPTIMIZERS = {
    "SGD": {"lr": 0.1},
    "SGD, momentum": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.5},
    "Adagrad": {"lr": 0.01},
    "SGD, clipped, max_norm": {"lr": 0.1, "clip_norm": 0.05, "l1": 0.001},
    "SGD, max_norm": {"lr": 0.1},
    "Adam, clipped": {"lr": 0.01, "clip_norm": 0.05, "clip_value": 0.02},
}


def data(shape, rows=61):
    rng = np.random.default_rng(0)
    return rng.standard_normal((rows, shape[0])), rng.random((rows, shape[-1]))


def trained(module, shape, optimizer, dtype="float64", reduction="mean", max_norm=None, **options):
    X, Y = data(shape)
    model = module.MLP(shape, hidden="tanh", dtype=dtype, reduction=reduction, seed=0, max_norm=max_norm)
    history = model.fit(X, Y, **{"epochs": 5, "optimizer": optimizer} | options)
    model.fit(X, Y, **{"epochs": 1, "optimizer": optimizer} | options)  # the state is kept
    return model, history


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_is_that_of_a_larger_batch(module, name, shape):
    """61 rows: the last step of an epoch has fewer batches, and the last batch has fewer rows."""
    max_norm = 0.7 if "max_norm" in name else None
    for batch_size, accumulate, rows in ((7, 3, 21), (30, 2, 60), (16, 100, 61)):
        (model, history), (large, large_history) = (
            trained(
                module,
                shape,
                getattr(module, name.split(",")[0])(**OPTIMIZERS[name]),
                max_norm=max_norm,
                **options,
            )
            for options in ({"batch_size": batch_size, "accumulate": accumulate}, {"batch_size": rows})
        )
        np.testing.assert_allclose(history.loss, large_history.loss, rtol=1e-11)
        np.testing.assert_allclose(model.parameters.flat, large.parameters.flat, rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_both_implementations_and_dtypes(dtype, reduction, shuffle):
    options = {"batch_size": 8, "accumulate": 4, "shuffle": shuffle, "reduction": reduction, "dtype": dtype}
    results = [
        trained(m, (9, 20, 3), m.SGD(0.01, momentum=0.5), **options)[0] for m in (fastbp, fastbp.reference)
    ]
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(results[0].parameters.flat, results[1].parameters.flat, rtol=0, atol=tolerance)


def test_one_batch_a_step_is_no_accumulation(module):
    a, b = (
        trained(module, (3, 17, 2), module.Adam(), batch_size=61, **o)[0] for o in ({}, {"accumulate": 3})
    )
    assert a.parameters.flat.tobytes() == b.parameters.flat.tobytes()


def test_steps_are_those_of_the_optimizer(module, monkeypatch):
    """steps=, schedules and callbacks count updates; chunks do not change the result."""
    X, Y = data((3, 5, 2))
    results = []
    for seconds in (1e-9, 10.0):
        monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", seconds)
        model, optimizer = module.MLP([3, 5, 2], seed=0), module.Adam(fastbp.schedules.Step(0.1, 3))
        history = model.fit(X, Y, steps=8, batch_size=7, accumulate=3, optimizer=optimizer)
        assert optimizer.state(model.parameters.owner, 0, model.dtype).steps == 8
        assert history.epochs == 3  # 61 rows are 9 batches and 3 steps
        np.testing.assert_allclose(history.lr, [0.1, 0.01, 0.001])
        results.append(model.parameters.flat.tobytes())
    assert results[0] == results[1]


def test_dropout_and_noise(dtype):
    """Each batch has masks and noise of its own, whose numbers count batches, the same in both."""
    X, Y = data((9, 20, 3))
    models = []
    for module in (fastbp, fastbp.reference):
        model, optimizer = (
            module.MLP([9, 20, 20, 3], dropout=0.5, input_noise=0.1, dtype=dtype, seed=0),
            module.SGD(0.1),
        )
        for _ in range(2):
            model.fit(X, Y, epochs=2, batch_size=8, accumulate=4, optimizer=optimizer)
        assert model.streams.steps_trained == 4 * 8
        models.append(model)
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(models[0].parameters.flat, models[1].parameters.flat, rtol=0, atol=tolerance)


def test_divergence(module):
    X, Y = data((3, 6, 2))
    model = module.MLP([3, 6, 2], output="identity", seed=0)
    with pytest.raises(FloatingPointError, match=r"at epoch \d+, step \d of 3\. .*last finite"):
        model.fit(X, Y, epochs=1000, batch_size=7, accumulate=3, optimizer=module.SGD(50.0, momentum=0.5))
    assert np.isfinite(model.parameters.flat).all()


def test_activations_of_one_batch_only():
    X, Y = data((3, 300, 2), 4096)
    model = fastbp.MLP([3, 300, 2], seed=0)
    model.fit(X, Y, epochs=1, batch_size=64, accumulate=32, optimizer=fastbp.Adam())
    assert {plan.design.batch for plan in model.backend._plans.values()} == {64, 1}
    assert sum(plan.memory.nbytes for plan in model.backend._plans.values()) < 2048 * 300 * 4


@pytest.mark.parametrize("accumulate", [0, 1.5])
def test_how_many(module, accumulate):
    X, Y = data((3, 6, 2))
    with pytest.raises((TypeError, ValueError), match="accumulate"):
        module.MLP([3, 6, 2]).fit(X, Y, epochs=1, accumulate=accumulate, optimizer=module.SGD(0.1))
