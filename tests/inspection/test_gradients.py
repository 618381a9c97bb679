"""check_gradients: every activation and loss, in both implementations; and that it finds mistakes."""

import numpy as np
import pytest
from definitions import LOSS_NAMES, outputs_for, targets

import fastbp
from fastbp.activations import ACTIVATIONS, OUTPUTS
from fastbp.losses import LOSSES

# Every hidden activation with every loss, and every output activation with every loss that takes it.
COMBINATIONS = [
    (hidden, output, loss)
    for i, hidden in enumerate(ACTIVATIONS)
    for k, loss in enumerate(LOSSES)
    for output in [LOSSES[loss].output or list(OUTPUTS)[(i + k + 1) % len(OUTPUTS)]]
] + [("tanh", "softmax", loss) for loss in LOSS_NAMES if "(" in loss or loss in ("mse", "mae")]


@pytest.mark.parametrize(("hidden", "output", "loss"), COMBINATIONS)
def test_every_activation_and_loss(module, hidden, output, loss):
    for reduction in ("mean", "sum"):
        sizes = [5, 9, 7, outputs_for(loss, 3)]
        model = module.MLP(sizes, hidden=hidden, output=output, loss=loss, reduction=reduction, seed=4)
        rng = np.random.default_rng(0)
        for b in model.biases:
            b[:] = rng.standard_normal(b.shape) * 0.1
        check = model.check_gradients(
            rng.standard_normal((13, 5)), targets(loss, rng.random((13, sizes[-1]))), max_entries=None
        )
        assert list(check.errors) == ["W1", "b1", "W2", "b2", "W3", "b3"]
        assert check.largest <= 1e-6, str(check)
        assert check.passed
        assert sum(check.checked.values()) + sum(check.skipped.values()) == model.n_parameters
        # entries at a kink are the exception
        assert sum(check.skipped.values()) <= 0.02 * model.n_parameters
        assert min(check.checked.values()) > 0


@pytest.mark.parametrize("outputs", [1, 3, 14])
@pytest.mark.parametrize("loss", LOSSES)
def test_weighted_samples(module, loss, outputs):
    rng = np.random.default_rng(1)
    output = LOSSES[loss].output or "identity"
    outputs = outputs_for(loss, outputs) + (output == "softmax")
    model = module.MLP([4, 6, outputs], hidden="tanh", output=output, loss=loss, seed=0)
    X, Y = rng.standard_normal((9, 4)), targets(loss, rng.random((9, outputs)))
    check = model.check_gradients(X, Y, sample_weight=rng.choice([0, 0.1, 2, 7], 9))
    assert check.passed, str(check)


def test_model_is_not_changed(module):
    model = module.MLP([3, 4, 1], seed=0)
    before = model.parameters.flat.copy()
    model.check_gradients([[1, 2, 3]], [[1]])
    assert np.array_equal(model.parameters.flat, before)


def test_entries_can_be_limited(module):
    model = module.MLP([30, 40, 1], hidden="tanh", seed=0)
    X = np.random.default_rng(0).standard_normal((4, 30))
    check = model.check_gradients(X, np.ones((4, 1)), max_entries=17)
    assert check.checked == {"W1": 17, "b1": 17, "W2": 17, "b2": 1}
    with pytest.raises(ValueError, match="max_entries is 0"):
        model.check_gradients(X, np.ones((4, 1)), max_entries=0)


def test_a_kink_is_skipped_not_misjudged(module):
    """At zero input every ReLU is at its kink: a step of its bias crosses it."""
    model = module.MLP([2, 3, 1], seed=0)
    check = model.check_gradients(np.zeros((1, 2)), [[1.0]])
    assert check.skipped["b1"] == 3
    assert check.passed


@pytest.mark.parametrize(("array", "factor"), [(0, 1.001), (1, 0.0), (3, -1.0)])
def test_wrong_gradients_are_found(module, monkeypatch, array, factor):
    """A test of the test: one array's gradient is off by a thousandth, missing, or of the wrong sign."""
    original = module.MLP.backend_type.backward

    def wrong(self, trace, Y):
        gradient = original(self, trace, Y)
        weights, biases, _ = self.parameters.split(gradient)
        [a for pair in zip(weights, biases, strict=True) for a in pair][array][...] *= factor
        return gradient

    monkeypatch.setattr(module.MLP.backend_type, "backward", wrong)
    model = module.MLP([4, 6, 2], hidden="tanh", seed=0)
    rng = np.random.default_rng(0)
    check = model.check_gradients(rng.standard_normal((8, 4)), rng.random((8, 2)))
    assert not check.passed
    assert "FAILED" in str(check)
    name = ["W1", "b1", "W2", "b2"][array]
    assert check.errors[name] == pytest.approx(abs(factor - 1), rel=0.01, abs=1e-5) or factor == -1.0
    assert all(error <= 1e-6 for other, error in check.errors.items() if other != name)


def test_float32_models_are_checked_in_float64():
    model = fastbp.MLP([4, 6, 2], hidden="tanh", dtype="float32", seed=0)
    check = model.check_gradients(np.ones((3, 4)), np.zeros((3, 2)))
    assert check.largest <= 1e-7
    assert "passed" in str(check)
