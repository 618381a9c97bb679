"""The engine is right to rounding, and a wrong result is rejected."""

import numpy as np
import pytest
from bits import rng_of
from engine_bits import ACTIVATIONS, OPTIMIZERS, OUTPUTS
from rounding import SHAPES, assert_within, expected, make
from rounding_of_steps import check_step

import fastbp
from fastbp.engine.memory import Design

# Every hidden activation with every output. Kernels are compiled for one or the other, and for a dtype: in
# those that are not marked, each of either occurs with both dtypes, and the others have one of them.
COMBINATIONS = [
    pytest.param(hidden, output, loss, dtype, marks=() if each else pytest.mark.combination)
    for i, hidden in enumerate(ACTIVATIONS)
    for j, (output, loss) in enumerate(OUTPUTS)
    for each in [j % len(ACTIVATIONS) == i]
    for k, dtype in enumerate(["float32", "float64"])
    if each or (i + j) % 2 == k
]
# Each loss once, and the others.
FIRST_OF_LOSS = {loss: output for output, loss in reversed(OUTPUTS)}
WEIGHTED = [
    pytest.param(output, loss, marks=() if FIRST_OF_LOSS[loss] == output else pytest.mark.combination)
    for output, loss in OUTPUTS
] + [("softmax", "categorical_crossentropy(0.1)")]


@pytest.mark.parametrize(("hidden", "output", "loss", "dtype"), COMBINATIONS)
def test_forward_and_gradients_are_right_to_rounding(hidden, output, loss, dtype):
    for shape in SHAPES:
        model, X, Y, activations = make(shape, hidden, output, loss, dtype)
        z, a, gradients, _ = expected(model, X, Y, activations, loss)
        trace = model.forward(X)
        ours = model.backward(trace, Y)
        for name, actual, approximate in (
            ("z", trace.z, z),
            ("a", trace.a, a),
            ("gradient", [*ours.weights, *ours.biases], gradients),
        ):
            for i, (x, y) in enumerate(zip(actual, approximate, strict=True)):
                assert_within(x, y, f"{shape} {name}[{i}]")
        assert_within(model.predict(X), a[-1], f"{shape} predict")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_are_right_to_rounding(optimizer, dtype):
    kinds = [(hidden, *output) for hidden in ACTIVATIONS for output in OUTPUTS]
    for i, shape in enumerate(SHAPES):
        hidden, output, loss = kinds[(7 * i + 3 * list(OPTIMIZERS).index(optimizer)) % len(kinds)]
        model, X, Y, activations = make(shape, hidden, output, loss, dtype, max_norm=(None, 0.8)[i % 2])
        o = OPTIMIZERS[optimizer]()
        for step in range(4):
            check_step(model, X, Y, o, activations, loss, f"{shape} {hidden} {output} {loss} step {step}:")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        *((5, [3, 128, 2]), (29, [9, 256, 10]), (64, [20, 128, 12]), (40, [5, 12, 512, 1])),
        *((32, [32, 64, 1]), (50, [19, 45, 7])),
    ],
)
def test_dot_products_in_parts_are_right_to_rounding(batch, sizes, optimizer, dtype):
    """A last layer of few outputs and many inputs; for what several threads do there see engine_bits."""
    assert Design(tuple(sizes), ("relu", "sigmoid"), "mse", dtype, "add", batch, "train").parts > 1
    for output, loss in (("sigmoid", "mse"), ("softmax", "categorical_crossentropy")):
        model, X, Y, activations = make((batch, sizes), "relu", output, loss, dtype)
        o = OPTIMIZERS[optimizer]()
        for step in range(3):
            check_step(model, X, Y, o, activations, loss, f"{output} step {step}:")
        assert any(plan.table.parts.count > 1 for plan in model.backend._plans.values())


@pytest.mark.parametrize(("output", "loss"), WEIGHTED)
def test_weighted_samples_are_right_to_rounding(output, loss, dtype):
    """As above, the error and loss of every sample times a weight."""
    for shape in SHAPES:
        model, X, Y, activations = make(shape, "tanh", output, loss, dtype)
        weight = rng_of(3).choice([0, 0.5, 1, 3], len(X)).astype(dtype)
        _, _, gradients, _ = expected(model, X, Y, activations, loss, weight)
        ours = model.backward(model.forward(X), Y, sample_weight=weight)
        for i, (x, y) in enumerate(zip([*ours.weights, *ours.biases], gradients, strict=True)):
            assert_within(x, y, f"{shape} gradient[{i}]")
        check_step(model, X, Y, fastbp.SGD(0.1), activations, loss, f"{shape}:", weight)


@pytest.mark.parametrize("outputs", [2, 3, 10, 12, 13, 17, 33, 100])
def test_softmax_is_right_to_rounding(outputs, dtype):
    """Every number of rows up to 33, in training, prediction and one by one."""
    rng = rng_of(outputs)
    for batch in range(1, 34):
        loss = ["categorical_crossentropy", "categorical_crossentropy(0.1)"][batch % 2]
        model, X, _, activations = make((batch, [5, 9, outputs]), "tanh", "softmax", loss, dtype, batch)
        one_hot = np.eye(outputs, dtype=dtype)[rng.integers(0, outputs, batch)]
        predicted = model.predict(X)
        _, a, _, _ = expected(model, X, one_hot, activations, loss)
        assert_within(predicted, a[-1], f"{batch} predict")
        np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=8 * np.finfo(dtype).eps)
        np.testing.assert_array_equal(model.predict(X[-1:])[0], predicted[-1])
        check_step(model, X, one_hot, fastbp.SGD(0.5), activations, loss, f"{batch}:")


@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_what_fills_up_vectors_stays_out(hidden, dtype):
    """Whole epochs, where parameters stay packed: act(0) beyond a layer's width has no part in anything."""
    X = rng_of(0).standard_normal((26, 5))
    for sizes in ([5, 9, 7, 3], [5, 9, 7, 17], [5, 3]):
        Y = rng_of(1).random((26, sizes[-1]))
        trained = []
        for module in (fastbp, fastbp.reference):
            model = module.MLP(sizes, hidden=hidden, output="tanh", dtype=dtype, seed=1)
            model.fit(X, Y, epochs=5, batch_size=4, optimizer=fastbp.SGD(0.01), shuffle=False)
            trained.append(model.parameters.flat)
        np.testing.assert_allclose(*trained, rtol=0, atol=64 * np.finfo(dtype).eps)


@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_a_wrong_result_is_rejected(shape, dtype):
    """A test of the tests: a sum without one of its terms is noticed, in the first and in the last layer, and
    so is a number with only half of its digits."""
    model, X, Y, activations = make(shape, "tanh", "identity", "mse", dtype)
    z, _, gradients, _ = expected(model, X, Y, activations, "mse")
    u = float(np.finfo(dtype).eps)
    layers = len(z)
    for approximate, left, right in (
        (gradients[0], X[0, 0], gradients[layers].value[0] / len(X)),
        (z[0], X[0, -1], model.weights[0][-1, 0]),
        (z[-1], np.tanh(z[-2].value)[0, -1], model.weights[-1][-1, 0]),
    ):
        good = approximate.value.astype(dtype)
        assert_within(good, approximate)
        wrong = good.copy()
        wrong[0, 0] -= left * right
        with pytest.raises(AssertionError, match="off by"):
            assert_within(wrong, approximate)
        wrong = good.copy()
        wrong.flat[np.argmax(np.abs(wrong))] *= 1 + np.sqrt(u)
        with pytest.raises(AssertionError, match="off by"):
            assert_within(wrong, approximate)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_wrong_step_is_rejected(optimizer, dtype, monkeypatch):
    """The same for the formulas: with another learning rate, or other data, nothing fits."""
    model, X, Y, activations = make(SHAPES[3], "tanh", "sigmoid", "mse", dtype)
    o = OPTIMIZERS[optimizer]()
    o.state(model.parameters.owner, model.n_parameters, model.dtype)
    train_step = model.train_step

    def wrong_rate(X, Y, o):
        o.lr *= 1.01
        try:
            return train_step(X, Y, o)
        finally:
            o.lr /= 1.01

    monkeypatch.setattr(model, "train_step", wrong_rate)
    with pytest.raises(AssertionError, match="off by"):
        check_step(model, X, Y, o, activations, "mse")
    monkeypatch.setattr(model, "train_step", lambda X, Y, o: train_step(np.roll(X, 1, axis=0), Y, o))
    with pytest.raises(AssertionError, match="off by"):
        check_step(model, X, Y, o, activations, "mse")
