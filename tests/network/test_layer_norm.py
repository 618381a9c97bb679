"""Layer normalisation: the formula, its gradients, training as in the reference, and files with gains."""

import copy
import json
import pickle
import re

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.inspection.symmetry import symmetric_layers
from fastbp.storage import model_file

EPS = 1e-5


def data(rows, sizes, seed=0):
    rng = np.random.default_rng(seed)
    Y = rng.random((rows, sizes[-1]))
    return rng.standard_normal((rows, sizes[0])), Y / Y.sum(axis=1, keepdims=True)


def normalised(module, sizes, **options):
    """A model whose biases and gains are not what they begin with."""
    model = module.MLP(sizes, **{"hidden": "tanh", "seed": 1, "layer_norm": True, **options})
    rng = np.random.default_rng(2)
    for array in (*model.biases, *model.gains):
        array += rng.uniform(-0.5, 0.5, array.shape)
    return model


def test_the_formula(module, dtype):
    """Odd widths, few rows (which read the parameters in place) and more than fill a sweep."""
    sizes = [4, 17, 33, 1, 5]
    model = normalised(module, sizes, dtype=dtype)
    X, _ = data(13, sizes)
    trace = model.forward(X)
    a = X
    for i, (W, b) in enumerate(zip(model.weights, model.biases, strict=True)):
        z = a @ W.astype(np.float64)
        if i < 3:
            n = (z - z.mean(axis=1, keepdims=True)) / np.sqrt(z.var(axis=1, keepdims=True) + EPS)
            np.testing.assert_allclose(trace.n[i], n, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-13)
            np.testing.assert_allclose(trace.inverse_std[i], 1 / np.sqrt(z.var(axis=1) + EPS), rtol=1e-4)
            z = model.gains[i] * n
        z = z + b
        a = np.tanh(z) if i < 3 else 1 / (1 + np.exp(-z))
        np.testing.assert_allclose(trace.z[i], z, rtol=0, atol=1e-4 if dtype == np.float32 else 1e-13)
    assert len(trace.n) == len(trace.inverse_std) == len(model.gains) == 3
    assert not trace.n[2].any()  # one unit is its own mean
    for rows in (1, 3, 13):
        x = X[:rows].astype(dtype)
        np.testing.assert_allclose(model.predict(x), a[:rows], rtol=0, atol=1e-6)


def test_a_large_mean_does_not_swallow_the_variance(module):
    model = module.MLP([1, 33, 2], layer_norm=True)
    s = 1000 + np.arange(33) / 32  # all of them numbers of float32
    model.weights[0][...] = s
    expected = (s - s.mean()) / np.sqrt(s.var() + EPS)
    np.testing.assert_allclose(model.forward(np.ones((5, 1))).n[0], np.tile(expected, (5, 1)), atol=2e-3)


TRAININGS = [
    (1, [3, 3, 1], {}, lambda m: m.SGD(0.05), {}),
    (13, [5, 33, 17, 3], {"max_norm": 0.8}, lambda m: m.SGD(0.05, momentum=0.5, clip_norm=0.1), {}),
    (50, [4, 1, 16, 31, 20], {"dropout": [0, 0.25, 0.6]}, lambda m: m.SGD(0.05, weight_decay=0.1), {}),
    (
        13,
        [4, 33, 15],
        {"output": "softmax", "loss": "categorical_crossentropy"},
        lambda m: m.Adam(0.01, eps=1e-3, l1=0.01, clip_norm=0.05),
        {"accumulate": 2},
    ),
    (50, [7, 14, 3, 2], {"dropout": 0.5, "reduction": "sum"}, lambda m: m.RMSprop(0.001, eps=1e-2), {}),
]


@pytest.mark.parametrize("case", range(len(TRAININGS)))
def test_training_is_that_of_the_reference(dtype, case):
    batch, sizes, network, optimizer, options = TRAININGS[case]
    X, Y = data(batch * 3 + batch // 2, sizes)
    trained = []
    for module in (fastbp, fastbp.reference):
        model = normalised(module, sizes, dtype=dtype, **network)
        before = [g.copy() for g in model.gains]
        history = model.fit(X, Y, epochs=5, batch_size=batch, optimizer=optimizer(module), **options)
        moved = [np.abs(g - old).max() for g, old in zip(model.gains, before, strict=True) if g.size > 1]
        assert min(moved) > 1e-4
        trained.append((model.parameters.flat, history.loss))
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("hidden", ["tanh", "relu"])
def test_gradients(module, hidden):
    sizes = [4, 9, 3, 17, 2]
    X, Y = data(6, sizes)
    check = normalised(module, sizes, hidden=hidden).check_gradients(X, Y, max_entries=20)
    assert list(check.errors) == ["W1", "b1", "g1", "W2", "b2", "g2", "W3", "b3", "g3", "W4", "b4"]
    assert check.passed, str(check)
    assert min(check.checked.values()) > 1


def test_like_torch(module, dtype):
    torch = pytest.importorskip("torch")
    sizes = [4, 33, 17, 3]
    X, Y = data(13, sizes)
    model = normalised(module, sizes, dtype=dtype, output="identity")
    gradients = model.backward(model.forward(X), Y)
    tensors = [torch.tensor(p, requires_grad=True) for p in model.parameters.views]
    weights, biases, gains = tensors[:3], tensors[3:6], tensors[6:]
    a = torch.tensor(X.astype(dtype))
    for i in range(2):
        a = torch.tanh(torch.nn.functional.layer_norm(a @ weights[i], (sizes[i + 1],), gains[i], biases[i]))
    y_pred = a @ weights[2] + biases[2]
    (0.5 * ((y_pred - torch.tensor(Y.astype(dtype))) ** 2).sum() / 13).backward()
    tolerance = {"rtol": 0, "atol": 32 * np.finfo(dtype).eps}
    np.testing.assert_allclose(model.predict(X), y_pred.detach().numpy(), **tolerance)
    for ours, theirs in zip((*gradients.weights, *gradients.biases, *gradients.gains), tensors, strict=True):
        np.testing.assert_allclose(ours, theirs.grad.numpy(), **tolerance)


def test_gains_are_parameters(module):
    """They begin at 1, may be replaced, are copied and pickled with the model, and `reset` puts them back."""
    sizes = [3, 5, 2]
    model = module.MLP(sizes, seed=0, layer_norm=True)
    assert [g.tolist() for g in model.gains] == [[1] * 5]
    assert module.MLP(sizes).gains == [] and not module.MLP(sizes).layer_norm
    assert model.n_parameters == module.MLP(sizes).n_parameters + 5
    assert "gains" in model.summary() and "gains" not in module.MLP(sizes).summary()
    assert "layer_norm=True" in repr(model)
    X, _ = data(9, sizes)
    model.gains[0] = np.linspace(0, 1, 5)
    trace = model.forward(X)
    np.testing.assert_allclose(trace.z[0], np.linspace(0, 1, 5) * trace.n[0], rtol=0, atol=1e-6)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.gains[0], model.gains[0])
        assert np.array_equal(other.predict(X), model.predict(X))
    model.reset()
    assert [g.tolist() for g in model.gains] == [[1] * 5]


def test_files(module, tmp_path):
    sizes = [3, 5, 4, 2]
    model = normalised(module, sizes)
    model.save(tmp_path / "model")
    tensors, texts = model_file.read(tmp_path / "model", "model")
    assert sorted(tensors) == ["W1", "W2", "W3", "b1", "b2", "b3", "g1", "g2"]
    for loader in (fastbp, fastbp.reference):
        loaded = loader.MLP.load(tmp_path / "model")
        assert repr(loaded) == repr(model)
        assert np.array_equal(loaded.parameters.flat, model.parameters.flat)
    del tensors["g2"]
    model_file.write(tmp_path / "model", tensors, texts)
    with pytest.raises(ValueError, match="do not fit the arrays"):
        module.MLP.load(tmp_path / "model")


def test_files_from_before_there_was_layer_norm(module, tmp_path):
    """They do not mention it: models load, and trainings go on."""
    sizes = [3, 5, 2]
    X, Y = data(20, sizes)
    model = module.MLP(sizes, seed=0)

    def forget(path, key):
        tensors, texts = model_file.read(path, "model")
        described = json.loads(texts[key])
        del (described if key == "architecture" else described["model"])["layer_norm"]
        model_file.write(path, tensors, {**texts, key: json.dumps(described)})

    model.save(tmp_path / "model")
    forget(tmp_path / "model", "architecture")
    assert repr(module.MLP.load(tmp_path / "model")) == repr(model)

    def trained(epochs, **options):
        m = module.MLP(sizes, seed=0)
        m.fit(X, Y, epochs=epochs, optimizer=module.SGD(0.1), **options)
        return m.parameters.flat

    run = tmp_path / "run"
    trained(2, checkpoint=run)
    forget(run, "settings")
    assert not module.MLP.load(run).layer_norm
    assert np.array_equal(trained(4, checkpoint=run), trained(4))


def test_diagnosis(module):
    """The error signal of a layer is that of its z: for one row the gradient of its bias."""
    sizes = [4, 9, 17, 2]
    X, Y = data(1, sizes)
    model = normalised(module, sizes, dtype="float64")
    gradients = model.backward(model.forward(X), Y)
    deltas = [layer.delta for layer in model.diagnose(X, Y).layers]
    np.testing.assert_allclose(deltas, [np.sqrt(np.mean(db**2)) for db in gradients.biases], rtol=1e-10)


def test_symmetry_is_that_of_gains_too(module):
    model = module.MLP([3, 4, 2], layer_norm=True)
    for W in model.weights:
        W[...] = 0.5
    assert 1 in symmetric_layers(model)
    model.gains[0][0] = 2
    assert 1 not in symmetric_layers(model)


@pytest.mark.parametrize(
    ("error", "message", "sizes", "layer_norm"),
    [
        (TypeError, "layer_norm must be True or False, got 1", [2, 3, 1], 1),
        (TypeError, "layer_norm must be True or False, got 'yes'", [2, 3, 1], "yes"),
        (ValueError, "layer_norm is True, but layer_sizes [2, 1] has no hidden layer", [2, 1], True),
    ],
)
def test_what_cannot_be_made(module, error, message, sizes, layer_norm):
    with pytest.raises(error, match=re.escape(message)):
        module.MLP(sizes, layer_norm=layer_norm)


def test_what_does_not_fit(module):
    sizes = [2, 3, 1]
    X, Y = data(4, sizes)
    model, plain = module.MLP(sizes, seed=0, layer_norm=True), module.MLP(sizes, seed=0)
    for m, other in ((model, plain), (plain, model)):
        with pytest.raises(ValueError, match=r"trace is not of this model: trace\.n has"):
            m.backward(other.forward(X), Y)
    gain = model.gains[0]
    model.gains[0] = np.ones(4)
    with pytest.raises(ValueError, match=re.escape("gains[0] has shape (4,), expected (3,)")):
        model.predict(X)
    model.gains = []
    with pytest.raises(ValueError, match="the model has 1 normalised layers, but 0 gains"):
        model.predict(X)
    assert gain.tolist() == [1, 1, 1]
