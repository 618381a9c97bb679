"""l2, the model's own penalty on its weights; and decay_biases=False, which leaves biases out."""

import copy
import pickle

import numpy as np
import pytest

import fastbp
import fastbp.reference
from fastbp.inputs.samples import Samples
from fastbp.network.backend import Steps

ROWS = 53
RNG = np.random.default_rng(8)
X = RNG.standard_normal((ROWS, 5))
WEIGHTS = RNG.choice([0.0, 0.5, 1.0, 3.0], ROWS)
# One layer, wide and narrow outputs, dot products in parts.
SIZES = [[5, 3], [5, 9, 3], [5, 33, 17, 30], [5, 128, 2]]


def targets(sizes):
    return np.random.default_rng(3).random((ROWS, sizes[-1]))


def network(module, sizes=(5, 9, 3), **changes):
    model = module.MLP(sizes, **({"hidden": "tanh", "dtype": "float64", "seed": 2, "l2": 0.3} | changes))
    for b in model.biases:
        b[...] = np.linspace(-0.5, 0.5, len(b))
    return model


def squares(model):
    return sum(float(np.square(W, dtype=np.float64).sum()) for W in model.weights)


@pytest.mark.parametrize("reduction", ["mean", "sum", "weighted_mean"])
def test_loss_and_gradients_have_the_penalty(module, reduction):
    weights = {"sample_weight": WEIGHTS}
    model, plain = (network(module, l2=l2, reduction=reduction) for l2 in (0.3, 0.0))
    divisor = {"mean": ROWS, "sum": 1, "weighted_mean": WEIGHTS.sum()}[reduction]
    Y = targets([3])
    expected = plain.loss(X, Y, **weights) + 0.15 * squares(model) / divisor
    assert model.loss(X, Y, **weights) == pytest.approx(expected, rel=1e-14)
    assert model.train_step(X, Y, module.SGD(0), **weights) == pytest.approx(expected, rel=1e-13)
    history = model.fit(X, Y, epochs=1, batch_size=ROWS, optimizer=module.SGD(0), **weights)
    assert history.loss[0] == pytest.approx(expected, rel=1e-13)
    found, without = (m.backward(m.forward(X), Y, **weights) for m in (model, plain))
    for dW, other, W in zip(found.weights, without.weights, model.weights, strict=True):
        np.testing.assert_allclose(dW, other + 0.3 / divisor * W, rtol=1e-13, atol=1e-16)
    for db, other in zip(found.biases, without.biases, strict=True):
        assert np.array_equal(db, other)
    assert model.check_gradients(X, Y, **weights).passed


@pytest.mark.parametrize("part", [None, 16])
def test_losses_may_count_the_penalty_more_often(module, part):
    """`Steps.penalty_times`, which leaves the training as it is."""
    losses, trained, penalties = {}, {}, [0.15 * squares(network(module))]
    for times in (1, 3):
        model, optimizer = network(module), module.SGD(0.1)
        samples, state = Samples(X, targets([3]), 3), optimizer.state(model, model.n_parameters, model.dtype)
        losses[times] = np.empty(2)
        for s in range(2):
            steps = Steps(samples, None, s, s + 1, ROWS, part, penalty_times=times)
            model.backend.train(steps, optimizer, state, losses[times][s : s + 1])
            penalties.append(0.15 * squares(model))
        trained[times] = model.parameters.flat.tobytes()
    assert trained[1] == trained[3]
    np.testing.assert_allclose(losses[3] - losses[1], 2 * np.array(penalties[:2]), rtol=1e-12)


def test_gains_have_no_part_in_it(module):
    model = network(module, layer_norm=True)
    model.gains[0][...] = 2
    assert model.check_gradients(X, targets([3])).passed
    expected = network(module, layer_norm=True, l2=0.0)
    expected.gains[0][...] = 2
    penalty = 0.15 * squares(model) / ROWS
    assert model.loss(X, targets([3])) == pytest.approx(expected.loss(X, targets([3])) + penalty, rel=1e-14)


APART = {"decay_biases": False}
OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "clip_norm": 0.1}),
    (
        "SGD",
        {"lr": 0.05, "momentum": 0.9, "lr_in_velocity": True, "weight_decay": 0.1, "decay_biases": False},
    ),
    ("Adam", {"lr": 0.01, "epsilon_hat": True, "eps": 1e-3}),
    (
        "AdamW",
        {"l1": 0.01, "clip_norm": 0.05, "clip_value": 0.01, "weight_decay": 0.5, "decay_biases": False},
    ),
    ("AdamW", {"lr": 0.01, "epsilon_hat": True, "eps": 1e-3, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.01, "epsilon_hat": True, "eps": 1e-3, "weight_decay": 0.1} | APART),
    ("RMSprop", {"clip_value": 0.01, "eps": 1e-3}),
]
KINDS = [
    ({}, {}),
    ({"reduction": "weighted_mean", "max_norm": 1.0}, {"sample_weight": WEIGHTS}),
    ({"dropout": 0.3, "layer_norm": True, "l2": 0.0}, {}),
    ({"dropout": 0.3, "layer_norm": True}, {"batch_size": 5, "accumulate": 2}),
]


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_engine_and_reference_agree(name, options, dtype):
    for i, sizes in enumerate(SIZES):
        kind, more = KINDS[i if len(sizes) > 2 else 0]
        results = []
        for module in (fastbp, fastbp.reference):
            model = network(module, sizes, dtype=dtype, **kind)
            optimizer = getattr(module, name)(**options)
            history = model.fit(X, targets(sizes), epochs=3, optimizer=optimizer, **{"batch_size": 8, **more})
            results.append((model.parameters.flat, history.loss))
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 if dtype == "float32" else 1e-11)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.05}, {"clip_value": 0.01}], ids=str)
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_it_is_part_of_the_gradient_that_is_clipped(module, options, momentum):
    model, Y = network(module), targets([3])
    gradients = model.backward(model.forward(X), Y)
    before = [array.copy() for array in model.weights + model.biases]
    model.train_step(X, Y, module.SGD(0.1, momentum, **options))
    flat = gradients.weights + gradients.biases
    if "clip_norm" in options:
        norm = np.sqrt(sum((g**2).sum() for g in flat))
        flat = [g * min(1, options["clip_norm"] / (norm + 1e-6)) for g in flat]
    if "clip_value" in options:
        flat = [np.clip(g, -options["clip_value"], options["clip_value"]) for g in flat]
    for old, g, new in zip(before, flat, model.weights + model.biases, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * g, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_any_number_of_threads_gives_the_same_bits(sizes, monkeypatch):
    from fastbp.engine import plan

    for bound in [name for name in vars(plan) if "TEAM_FROM" in name]:
        monkeypatch.setattr(plan, bound, 0)
    results = []
    for threads in (1, 2):
        for options in ({}, {"clip_norm": 0.1, "weight_decay": 0.1, "decay_biases": False}):
            model = network(fastbp, sizes, threads=threads, dtype="float32")
            history = model.fit(
                X, targets(sizes), epochs=4, batch_size=16, optimizer=fastbp.Adam(0.01, **options)
            )
            results.append(model.parameters.flat.tobytes() + history.loss.tobytes())
    assert results[:2] == results[2:]
    assert results[0] != results[1]


def test_without_decay_biases_only_weights_shrink(module):
    """Where the gradient is 0, decay is all that there is."""
    for options in ({"weight_decay": 0.5}, {"l1": 0.5}, {"weight_decay": 0.5, "clip_norm": 1.0}):
        for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"):
            model = network(module, l2=0.0, layer_norm=True, output="identity")
            before = copy.deepcopy(model)
            Y = model.predict(X)
            optimizer = getattr(module, name)(lr=0.01, **options, decay_biases=False)
            model.train_step(X, Y, optimizer)
            for kind in ("biases", "gains"):
                for ours, old in zip(getattr(model, kind), getattr(before, kind), strict=True):
                    np.testing.assert_allclose(ours, old, rtol=0, atol=1e-6)
            assert squares(model) < squares(before)
            decays = getattr(module, name)(lr=0.01, **options)
            before.train_step(X, Y, decays)
            assert not np.allclose(before.biases[0], model.biases[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fastbp.MLP([2, 1], l2=-1), ValueError, "l2 is -1.0, expected a number finite"),
        (lambda: fastbp.MLP([2, 1], l2="much"), TypeError, "l2 must be a number, got 'much'"),
        (lambda: fastbp.SGD(1, decay_biases="no"), TypeError, "decay_biases must be True or False"),
        (lambda: fastbp.SGD(1, lr_in_velocity=2), TypeError, "lr_in_velocity must be True or False"),
        (lambda: fastbp.Adam(epsilon_hat=None), TypeError, "epsilon_hat must be True or False"),
        (
            lambda: network(fastbp).fit(X, targets([3]), epochs=1, optimizer=fastbp.SGD(1), shards=2),
            ValueError,
            "l2 is 0.3, shards=2: each shard would add the penalty",
        ),
    ],
)
def test_what_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_it_is_saved_and_shown(module, tmp_path):
    model = network(module)
    model.save(tmp_path / "model")
    loaded = module.MLP.load(tmp_path / "model")
    assert loaded.architecture.l2 == 0.3
    assert "l2=0.3" in repr(loaded)
    assert "l2 0.3" in loaded.summary()
    assert pickle.loads(pickle.dumps(model)).loss(X, targets([3])) == model.loss(X, targets([3]))


def test_optimizers_of_older_pickles_have_the_options_that_came_later(module):
    for name in ("SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad"):
        new = getattr(module, name)(lr=0.1)
        older = {k: v for k, v in new.__getstate__().items() if k not in type(new).later}
        restored = object.__new__(type(new))
        restored.__setstate__(older)
        assert vars(restored) == {**vars(new), "_states": restored._states}


@pytest.mark.parametrize("together", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adagrad"])
def test_an_optimizer_keeps_its_state_when_it_is_copied_with_its_model(module, together, name):
    lr = module.schedules.Exponential(0.01, 0.9)
    options = {"momentum": 0.9, "lr_in_velocity": True} if name == "SGD" else {}
    pair = network(module), getattr(module, name)(lr=lr, **options)
    pair[0].fit(X, targets([3]), epochs=2, optimizer=pair[1])
    model, optimizer = together(pair)
    for m, o in (pair, (model, optimizer)):
        m.fit(X, targets([3]), epochs=2, optimizer=o)
    assert np.array_equal(pair[0].parameters.flat, model.parameters.flat)
    assert optimizer.state(model.parameters.owner, 0, np.dtype(float)).steps == 8
    alone = copy.copy(optimizer).state(model.parameters.owner, len(model.parameters), np.dtype(float))
    assert alone.steps == 0  # a copy of the optimizer alone begins anew


def test_steps_in_compiled_code_refuse_it():
    for model, optimizer in (
        (network(fastbp), fastbp.SGD(0.1)),
        (network(fastbp, l2=0.0), fastbp.SGD(0.1, weight_decay=0.1, decay_biases=False)),
    ):
        with pytest.raises(ValueError, match="steps in compiled code train weights and biases alike"):
            model.training_state(optimizer).embedded()
