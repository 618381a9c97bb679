"""diagnose: networks built to show each trouble, and ones that have none."""

import numpy as np
import pytest


def data(rows=200, inputs=10, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, inputs)), rng.integers(0, 2, (rows, outputs)).astype(float)


def verdict_of(model, X, Y):
    diagnosis = model.diagnose(X, Y)
    assert diagnosis.verdict == "\n".join(diagnosis.verdicts)
    assert diagnosis.verdict in str(diagnosis)
    assert len(diagnosis.layers) == len(model.weights)
    return diagnosis.verdict


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("hidden", ["relu", "tanh", "sigmoid", "identity"])
def test_fine(module, hidden, reduction):
    X, Y = data()
    for depth in (1, 2, 4) if hidden != "sigmoid" else (1, 2):
        for seed in range(5):
            model = module.MLP([10, *[32] * depth, 2], hidden=hidden, reduction=reduction, seed=seed)
            assert verdict_of(model, X, Y).startswith("fine"), (depth, seed)


def test_fine_after_training(module):
    X, _ = data()
    Y = (X[:, :1] > 0) * 1.0
    model = module.MLP([10, 32, 1], loss="binary_crossentropy", seed=0)
    model.fit(X, Y, epochs=100, optimizer=module.Adam(0.01))
    assert verdict_of(model, X, Y).startswith("fine")


def test_fine_with_few_rows(module):
    for rows in (1, 2, 4):  # half of the ReLUs are off for one row: that is not death
        X, Y = data(rows)
        for seed in range(10):
            assert verdict_of(module.MLP([10, 64, 2], seed=seed), X, Y).startswith("fine")


def test_vanishing_gradients(module):
    X, Y = data()
    model = module.MLP([10, *[20] * 8, 2], hidden="sigmoid", seed=0)
    diagnosis = model.diagnose(X, Y)
    assert "gradients vanish from layer" in diagnosis.verdict
    deltas = [s.delta for s in diagnosis.layers]
    from_layer = int(diagnosis.verdict.split("vanish from layer ")[1].split()[0])
    assert deltas[from_layer - 1] < 1e-3 * deltas[-1] <= deltas[from_layer]


def test_exploding_gradients(module):
    X, Y = data()
    model = module.MLP([10, *[20] * 8, 2], hidden="identity", output="identity", init="he", seed=0)
    for W in model.weights[1:]:
        W *= 4
    assert "gradients explode from layer" in verdict_of(model, X, Y)


def test_exploding_activations(module):
    X, Y = data()
    model = module.MLP([10, *[20] * 8, 2], output="identity", init="he", seed=0)
    for W in model.weights:
        W *= 6
    assert "activations explode from layer" in verdict_of(model, X, Y)


def test_gradients_too_large_for_the_weights(module):
    X, Y = data()
    for reduction in ("mean", "sum"):
        model = module.MLP([10, 20, 2], output="identity", reduction=reduction, seed=0)
        assert "gradients explode: in layer" in verdict_of(model, X * 1e3, Y)


def test_vanishing_signal(module):
    X, Y = data()
    model = module.MLP([10, *[20] * 4, 2], hidden="tanh", init="normal", seed=0)
    assert "the signal vanishes from layer" in verdict_of(model, X, Y)


def test_dead_units(module):
    X, Y = data()
    model = module.MLP([10, 128, 2], seed=0)
    model.biases[0][:97] = -100
    diagnosis = model.diagnose(X, Y)
    assert "layer 1: 97 of 128 units are dead" in diagnosis.verdict
    assert diagnosis.layers[0].dead == 97
    assert diagnosis.layers[0].dead_share == pytest.approx(97 / 128)
    model.biases[0][:] = -100
    assert "layer 1: 128 of 128 units are dead" in verdict_of(model, X, Y)
    assert "no gradient passes" in verdict_of(model, X, Y)
    assert "128 of 128 units are dead" in verdict_of(model, X[:1], Y[:1])


@pytest.mark.parametrize("hidden", ["sigmoid", "tanh"])
def test_saturated_units(module, hidden):
    X, Y = data()
    model = module.MLP([10, 64, 2], hidden=hidden, seed=0)
    model.weights[0][:, :60] *= 200
    diagnosis = model.diagnose(X, Y)
    assert "layer 1:" in diagnosis.verdict
    assert f"of 64 units are saturated: their {hidden}" in diagnosis.verdict
    assert 50 <= diagnosis.layers[0].saturated <= 60


def test_outputs_saturated_at_the_wrong_end(module):
    X, Y = data()
    model = module.MLP([10, 16, 2], seed=0)
    model.biases[1][:] = 30
    assert "output layer: " in verdict_of(model, X, Y)
    assert "saturated at the wrong value" in verdict_of(model, X, Y)


def test_symmetry(module):
    X, Y = data()
    model = module.MLP([10, 16, 2], hidden="tanh", seed=0)
    for W in model.weights:
        W[...] = 0
    assert "layer 1: all units have identical weights" in verdict_of(model, X, Y)


def test_overflow(module):
    X, Y = data()
    model = module.MLP([10, 16, 8, 2], seed=0)
    model.weights[1][...] = 1e38
    assert "numbers overflow in layer 2" in verdict_of(model, X * 100, Y)


def test_figures(module, dtype):
    """Mean, spread, norms and their ratio by definition."""
    X, Y = data()
    model = module.MLP([10, 16, 2], dtype=dtype, seed=0)
    trace = model.forward(X)
    gradients = model.backward(trace, Y)
    for i, s in enumerate(model.diagnose(X, Y).layers):
        assert (s.layer, s.units, s.activation) == (i + 1, (16, 2)[i], ("relu", "sigmoid")[i])
        assert s.mean == pytest.approx(float(trace.a[i].mean()), rel=1e-4)
        assert s.spread == pytest.approx(float(trace.a[i].std()), rel=1e-4)
        assert s.gradient_norm == pytest.approx(float(np.linalg.norm(gradients.weights[i])), rel=1e-4)
        assert s.weight_norm == pytest.approx(float(np.linalg.norm(model.weights[i])), rel=1e-4)
        assert s.ratio == pytest.approx(s.gradient_norm / s.weight_norm)


def test_model_is_not_changed(module):
    X, Y = data()
    model = module.MLP([10, 16, 2], seed=0)
    before = model.parameters.flat.copy()
    model.diagnose(X, Y)
    assert np.array_equal(model.parameters.flat, before)


# ---- advice -------------------------------------------------------------------------------------------


def test_nobody_is_told_what_he_does_already(module):
    X, Y = data()
    deep = {"hidden": "sigmoid", "seed": 0}
    for init, advised in (("auto", False), ("normal", True)):
        verdict = verdict_of(module.MLP([10, *[20] * 8, 2], init=init, **deep), X, Y)
        assert "gradients vanish" in verdict
        assert ("init='auto'" in verdict) == advised
        assert "fewer layers or ReLU" in verdict
    model = module.MLP([10, *[20] * 4, 2], hidden="relu", seed=0)
    for W in model.weights:
        W *= 1e-2
    verdict = verdict_of(model, X, Y)
    assert "vanish" in verdict
    assert "init='auto'" not in verdict
    assert "ReLU" not in verdict


def test_what_is_to_be_scaled_is_named(module):
    X, Y = data()
    model = module.MLP([10, 20, 2], output="identity", seed=0)
    of_targets = verdict_of(model, X, Y * 1e6)
    assert "scale the targets (their root mean square is 6.7e+05), or use a much smaller" in of_targets
    assert "inputs" not in of_targets
    of_inputs = verdict_of(model, X * 1e4, Y)
    assert "scale the inputs (their root mean square is 1e+04), or use a much smaller" in of_inputs
    assert "targets" not in of_inputs
    saturated = module.MLP([10, 20, 2], hidden="tanh", seed=0)
    for W in saturated.weights[:1]:
        W *= 100
    assert "flat for nearly every row, so hardly any gradient passes; use smaller weights" in verdict_of(
        saturated, X, Y
    )


def test_a_step_that_is_too_long_is_not_fine(module):
    X, Y = data()
    for dtype, rate in (("float32", 1e39), ("float64", 1e308)):
        model = module.MLP([10, 20, 2], output="identity", dtype=dtype, seed=0)
        with pytest.raises(FloatingPointError, match="use a smaller learning rate") as caught:
            model.fit(X, 30 * Y, epochs=2, optimizer=module.SGD(rate, momentum=0.5), progress=False)
        assert "fine" not in str(caught.value)
    assert "so it is the step that is too long: use a smaller learning rate than 1e+308" in str(caught.value)
