"""The loss "gaussian_nll": pairs of outputs with one target each, and ensembles that know their limits."""

import numpy as np
import pytest

import fastbp
from fastbp import losses


def data(rows=60, targets=2, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, 4))
    return X, X[:, :targets] + 0.1 * rng.standard_normal((rows, targets))


def network(module, outputs=4, **options):
    options = {"output": "identity", "loss": "gaussian_nll", "hidden": "tanh", "seed": 0} | options
    return module.MLP([4, 8, outputs], **options)


@pytest.mark.parametrize("sizes", [[4, 6, 2], [4, 6, 12], [4, 6, 14], [4, 2], [4, 34], [4, 40, 70]])
@pytest.mark.parametrize("batch", [1, 3, 8, 29])
def test_training_is_the_references(sizes, batch, dtype):
    """In every way in which a last layer may lie: few outputs, many, of one row, one layer alone."""
    X, Y = data(58, sizes[-1] // 2 if sizes[-1] < 9 else 1)
    Y = np.tile(Y, (1, sizes[-1] // 2))[:, : sizes[-1] // 2]
    for weights in (None, np.random.default_rng(1).random(58)):
        models = [
            module.MLP(sizes, output="identity", loss="gaussian_nll", hidden="tanh", seed=0, dtype=dtype)
            for module in (fastbp, fastbp.reference)
        ]
        ours, its = [
            model.fit(
                X,
                Y,
                epochs=2,
                batch_size=batch,
                optimizer=fastbp.SGD(0.01),
                sample_weight=weights,
                progress=False,
            )
            for model in models
        ]
        tolerance = 200 * float(np.finfo(dtype).eps)
        np.testing.assert_allclose(ours.loss, its.loss, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            models[0].parameters.flat, models[1].parameters.flat, rtol=tolerance, atol=tolerance
        )


def test_it_is_the_likelihood_of_a_normal_distribution(module):
    model, (X, Y) = network(module, dtype="float64"), data()
    mean, variance = losses.gaussian(model.predict(X))
    assert mean.shape == variance.shape == Y.shape and (variance > 0).all()
    density = np.exp(-((Y - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)
    expected = -np.log(density).sum(axis=1).mean() - np.log(2 * np.pi)  # of two targets
    assert model.loss(X, Y) == pytest.approx(expected, rel=1e-12)


def test_spread_is_learned(module):
    """Noise of standard deviation 0.1 where x < 0, and 1 elsewhere."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1000, 1))
    y = rng.standard_normal((1000, 1)) * np.where(x < 0, 0.1, 1.0)
    model = module.MLP([1, 16, 2], output="identity", loss="gaussian_nll", hidden="tanh", seed=0)
    model.fit(x, y[:, 0], epochs=60, optimizer=fastbp.Adam(0.01), progress=False)
    _, variance = losses.gaussian(model.predict([[-0.5], [0.5]]))
    assert np.sqrt(variance[:, 0]) == pytest.approx([0.1, 1.0], rel=0.25)


def test_metrics_look_at_means(module):
    model, (X, Y) = network(module), data()
    history = model.fit(
        X,
        Y,
        epochs=2,
        optimizer=fastbp.Adam(),
        validation_data=(X, Y),
        metrics=["r2", "mae"],
        progress=False,
    )
    mean = model.predict(X)[:, ::2]
    assert history.val_metrics["r2"][-1] == pytest.approx(fastbp.metrics.r2(Y, mean), rel=1e-5)
    assert history.val_metrics["mae"][-1] == pytest.approx(fastbp.metrics.mae(Y, mean), rel=1e-5)


def test_an_ensemble_is_a_mixture():
    X, Y = data()
    ensemble = fastbp.Ensemble([network(fastbp, seed=i, dtype="float64") for i in range(5)])
    ensemble.fit(X, Y, epochs=2, optimizers=fastbp.Adam(), progress=False)
    parts = [losses.gaussian(model.predict(X)) for model in ensemble]
    mean = np.mean([m for m, _ in parts], axis=0)
    variance = np.mean([v + m**2 for m, v in parts], axis=0) - mean**2
    assert ensemble.predict(X).shape == (5, 60, 4)
    np.testing.assert_allclose(ensemble.mean(X), mean, rtol=1e-12)
    np.testing.assert_allclose(ensemble.std(X), np.sqrt(variance), rtol=1e-9)
    with pytest.raises(ValueError, match="either all models have loss='gaussian_nll' or none"):
        fastbp.Ensemble([network(fastbp), network(fastbp, loss="mse")])


def test_refused(module):
    with pytest.raises(ValueError, match=r"a mean and a spread for each target, got 3 outputs: use 4"):
        network(module, 3)
    with pytest.raises(ValueError, match=r"defined for output='identity', got output='sigmoid'"):
        network(module, output="sigmoid")
    model, (X, Y) = network(module), data()
    with pytest.raises(ValueError, match=r"Y has shape \(60, 4\), expected \(60, 2\)"):
        model.loss(X, np.hstack([Y, Y]))


def test_targets_in_a_file(module, tmp_path):
    X, Y = data()
    np.save(tmp_path / "Y.npy", Y)
    models = [network(module), network(module)]
    for model, targets in zip(models, (Y, tmp_path / "Y.npy"), strict=True):
        model.fit(X, targets, epochs=1, optimizer=fastbp.Adam(), progress=False)
    assert models[0].parameters.flat.tobytes() == models[1].parameters.flat.tobytes()
