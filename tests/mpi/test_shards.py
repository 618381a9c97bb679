"""fit(shards=): a step's batch in parts, whose gradients are added along one fixed tree."""

import numpy as np
import pytest

import fastbp
import fastbp.reference

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((101, 7)), rng.random((101, 3))


def trained(module, *, optimizer=None, of_model=None, **options):
    model = module.MLP([7, 13, 9, 3], hidden="tanh", seed=3, **{"dtype": "float64", **(of_model or {})})
    settings = {"epochs": 3, "batch_size": 30, "progress": False, **options}
    history = model.fit(X, Y, optimizer=optimizer or module.Adam(0.01), **settings)
    return model.parameters.flat.copy(), history.loss, model.streams.steps_trained


@pytest.mark.parametrize("shards", [2, 3, 8, 40])  # 101 = 3 * 30 + 11: unequal ones, of 40 some are empty
@pytest.mark.parametrize(
    ("of_model", "optimizer"),
    [
        ({}, lambda m: m.SGD(0.1)),
        ({"dropout": 0.3, "input_noise": 0.1}, lambda m: m.SGD(0.1, momentum=0.9, clip_norm=0.1)),
        ({"layer_norm": True, "max_norm": 0.5}, lambda m: m.RMSprop(0.01, l1=1e-3)),
        ({"reduction": "sum"}, lambda m: m.Adam(0.01, clip_value=0.1)),
    ],
    ids=["plain", "dropout", "norms", "sum"],
)
def test_shards_are_the_references(shards, of_model, optimizer):
    ours, theirs = (
        trained(module, shards=shards, of_model=of_model, optimizer=optimizer(module))
        for module in (fastbp, fastbp.reference)
    )
    assert np.allclose(ours[0], theirs[0], rtol=1e-11, atol=1e-13)
    assert np.allclose(ours[1], theirs[1], rtol=1e-12)
    assert ours[2] == theirs[2] == 3 * 4 * shards


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"sample_weight": rng.random(101)}])
def test_a_step_is_the_same_but_for_rounding(options):
    whole, cut = trained(fastbp, **options), trained(fastbp, shards=5, **options)
    assert np.allclose(whole[0], cut[0], rtol=1e-9, atol=1e-11) and np.allclose(whole[1], cut[1])


def test_threads_and_chunks_change_no_bit(monkeypatch):
    first = trained(fastbp, shards=6, of_model={"dtype": "float32", "threads": 1})
    monkeypatch.setattr("fastbp.training.run.CHUNK_SECONDS", 1e-9)
    second = trained(fastbp, shards=6, of_model={"dtype": "float32", "threads": 2})
    assert first[0].tobytes() == second[0].tobytes() and first[1].tobytes() == second[1].tobytes()


def test_one_that_diverges_leaves_the_last_finite_parameters():
    model = fastbp.MLP([7, 5, 3], output="identity", seed=0)
    with pytest.raises(FloatingPointError, match="epoch"):
        model.fit(X, Y, epochs=300, shards=4, optimizer=fastbp.SGD(1e6), progress=False)
    assert np.isfinite(model.parameters.flat).all()


def test_checkpoints_know_the_shards(tmp_path):
    file = tmp_path / "run.fastbp"
    whole = trained(fastbp, shards=4, epochs=4)
    trained(fastbp, shards=4, epochs=2, checkpoint=file)
    with pytest.raises(ValueError, match="shards: 4 in the checkpoint, nothing given"):
        trained(fastbp, epochs=4, checkpoint=file)
    assert trained(fastbp, shards=4, epochs=4, checkpoint=file)[0].tobytes() == whole[0].tobytes()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"shards": 0}, "shards is 0, expected at least 1"),
        ({"shards": 2.0}, "shards must be an integer"),
        ({"shards": 2, "accumulate": 2}, "give shards or accumulate, not both"),
    ],
)
def test_refusals(options, error):
    with pytest.raises((ValueError, TypeError), match=error):
        trained(fastbp, **options)
    with pytest.raises(ValueError, match="shards is for arrays"):
        fastbp.MLP([7, 3]).fit([(X, Y)], epochs=1, shards=2, optimizer=fastbp.SGD(0.1))
