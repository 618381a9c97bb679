"""Pictures: rendered without a display, and what they show is looked at."""

import subprocess
import sys

import numpy as np
import pytest

import fastbp

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def rendered(figure):
    """The picture as an array, (height, width, 4)."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


def blobs(k, rows=90, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % k
    centers = 3 * np.column_stack(
        [np.cos(2 * np.pi * np.arange(k) / k), np.sin(2 * np.pi * np.arange(k) / k)]
    )
    return centers[labels] + rng.standard_normal((rows, 2)), labels


def fitted(module, sizes, X, Y, **options):
    model = module.MLP(sizes, seed=0, **options)
    history = model.fit(
        X, Y, epochs=25, optimizer=module.Adam(0.05), validation_split=0.3, callbacks=module.EarlyStopping()
    )
    return model, history


def test_history(module):
    X, labels = blobs(3)
    model = module.MLP([2, 8, 3], seed=0)
    history = model.fit(
        X,
        np.eye(3)[labels],
        epochs=12,
        optimizer=module.Adam(0.05),
        validation_split=0.3,
        metrics=["accuracy", "top_k(2)"],
        callbacks=module.EarlyStopping(patience=99),
    )
    figure = history.plot()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy", "top_k(2)"]
    losses, accuracy, _ = figure.axes
    training, validation, best = losses.lines
    assert np.array_equal(training.get_xdata(), np.arange(1, 13))
    assert np.array_equal(training.get_ydata(), history.loss)
    assert np.array_equal(validation.get_ydata(), history.val_loss)
    assert best.get_xdata() == [history.best_epoch] * 2
    assert [t.get_text() for t in losses.get_legend().get_texts()] == [
        "training",
        "validation",
        f"best: epoch {history.best_epoch}",
    ]
    assert np.array_equal(accuracy.lines[0].get_ydata(), history.val_metrics["accuracy"])
    assert rendered(figure).std() > 5


def test_history_of_losses_only():
    history = fastbp.History()
    with pytest.raises(ValueError, match="no epochs to draw"):
        history.plot()
    history._add_epochs([100.0, 10.0, 0.1, float("nan")], [0.1] * 4, 0.0)
    (axes,) = fastbp.plot.history(history).axes
    assert axes.get_yscale() == "log"
    assert len(axes.lines) == 1
    history._columns["loss"] = [2.0, 1.0, 1.5, 1.0]
    assert fastbp.plot.history(history).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("as_labels", [True, False])
def test_decision_boundary(module, k, as_labels):
    X, labels = blobs(k)
    one_hot = np.eye(k)[labels] if k > 2 else labels[:, None]
    model, _ = fitted(module, [2, 16, one_hot.shape[1]], X, one_hot)
    axes = fastbp.plot.decision_boundary(model, X, labels if as_labels else one_hot, resolution=50)
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    assert left < X[:, 0].min()
    assert right > X[:, 0].max()
    assert bottom < X[:, 1].min()
    assert top > X[:, 1].max()
    # The color under a point is nearest to that of the class predicted there.
    shade = image.get_array()
    assert shade.shape == (50, 50, 3)
    colors = np.array([matplotlib.colors.to_rgb(c) for c in fastbp.plot.CLASSES[:k]])
    x, y = np.linspace(left, right, 50)[[5, 40]], np.linspace(bottom, top, 50)[[7, 30]]
    for i, row in ((5, 7), (40, 30)):
        point = [[x[0] if i == 5 else x[1], y[0] if row == 7 else y[1]]]
        expected = fastbp.plot._decided(model.predict(point), 0.5 if k == 2 else None)[0]
        hue = (1 - shade[row, i]) / (1 - shade[row, i]).max()
        hues = (1 - colors) / (1 - colors).max(axis=1, keepdims=True)
        assert np.abs(hues - hue).sum(axis=1).argmin() == expected
    # All points, by their class; rings around those that are misclassified.
    dots = {
        c.get_label(): c.get_offsets() for c in axes.collections if c.get_label().startswith(("class", "mis"))
    }
    for c in range(k):
        np.testing.assert_allclose(dots[f"class {c}"], X[labels == c])
    y_pred = model.predict(X)
    predicted = y_pred.argmax(axis=1) if k > 2 else (y_pred[:, 0] > 0.5)
    wrong = X[predicted != labels]
    assert (f"misclassified ({len(wrong)})" in dots) == bool(len(wrong))
    assert len(dots) == k + bool(len(wrong))
    assert rendered(axes.figure).std() > 5


def test_decision_boundary_of_signs_and_on_given_axes(module):
    X, labels = blobs(2)
    model, _ = fitted(module, [2, 8, 1], X, 2.0 * labels[:, None] - 1, output="identity", loss="hinge")
    _, axes = plt.subplots()
    assert fastbp.plot.decision_boundary(model, X, 2 * labels - 1, axes=axes, resolution=20) is axes
    predicted = fastbp.plot._decided(model.predict(X), 0.0)
    rings = [c for c in axes.collections if c.get_label().startswith("mis")]
    assert sum(len(c.get_offsets()) for c in rings) == (predicted != labels).sum()


def test_map_of_a_quantity(module):
    X, _ = blobs(2)
    Y = X[:, :1] ** 2
    model, _ = fitted(module, [2, 16, 1], X, Y, output="identity")
    axes = fastbp.plot.decision_boundary(model, X, Y, resolution=20)
    np.testing.assert_allclose(axes.collections[0].get_array(), Y[:, 0])
    assert axes.images[0].get_array().shape == (20, 20)
    assert axes.images[0].get_clim() == axes.collections[0].get_clim()


def test_decision_boundary_checks_its_arguments(module):
    X, labels = blobs(3)
    with pytest.raises(ValueError, match="needs a model with 2 inputs, this one has 3"):
        fastbp.plot.decision_boundary(module.MLP([3, 4, 1]), X, labels)
    model = module.MLP([2, 4, 3])
    with pytest.raises(ValueError, match="y_true holds the label 3"):
        fastbp.plot.decision_boundary(model, X, labels + 3)
    with pytest.raises(ValueError, match="resolution is 1, expected at least 2"):
        fastbp.plot.decision_boundary(model, X, labels, resolution=1)
    assert not plt.get_fignums()


def test_weights(module):
    model = module.MLP([5, 3, 2], hidden="tanh", seed=0)
    model.biases[0][...] = [1, 2, 3]
    figure = fastbp.plot.weights(model)
    maps = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title(loc="left") for axes in maps] == [
        "layer 1: 5 → 3, tanh",
        "layer 2: 3 → 2, sigmoid",
    ]
    for axes, W in zip(maps, model.weights, strict=True):
        assert np.array_equal(axes.images[0].get_array(), W)
        low, high = axes.images[0].get_clim()
        assert -low == high == pytest.approx(np.abs(W).max())
    below = [axes for axes in figure.axes if axes.patches]
    assert [sum(bar.get_height() for bar in axes.patches) for axes in below] == [15, 6]
    assert [line.get_xdata()[0] for line in below[0].lines] == [1, 2, 3]
    assert rendered(figure).std() > 5
    for W in model.weights:
        W[...] = 0
    rendered(fastbp.plot.weights(model))


def test_diagnosis(module):
    X, labels = blobs(3)
    model = module.MLP([2, 8, 8, 3], seed=0)
    model.biases[0][...] = -30
    found = model.diagnose(X, np.eye(3)[labels])
    figure = fastbp.plot.diagnosis(found)
    activations, silent, signal, ratio = figure.axes
    mean = activations.containers[0].lines[0]
    np.testing.assert_allclose(mean.get_ydata(), [s.mean for s in found.layers])
    assert [bar.get_height() for bar in silent.containers[0]] == [100 * s.dead_share for s in found.layers]
    assert [bar.get_height() for bar in signal.containers[0]] == [s.delta for s in found.layers]
    assert [bar.get_height() for bar in ratio.containers[0]] == [s.ratio for s in found.layers]
    assert "8 of 8 units are dead" in " ".join(figure.get_supxlabel().split())
    assert rendered(figure).std() > 5


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"fastbp\.plot needs matplotlib, .* pip install matplotlib"):
        fastbp.plot.weights(fastbp.MLP([1, 1]))


def test_importing_does_not_import_matplotlib():
    code = "import sys, fastbp; fastbp.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
