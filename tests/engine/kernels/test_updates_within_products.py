"""A block of weights updated on the way of a product: the same bits as one after the other."""

import numpy as np
import pytest
from bits import callback, rng_of

import fastbp
from fastbp.engine import binding, plan
from fastbp.engine.compile.arrays import data_at
from fastbp.engine.kernels import matmul, optimizers
from fastbp.engine.memory import Design, aligned
from fastbp.engine.simd.vector import isa

TALLEST = matmul.shapes()[2]
HEIGHTS = range((TALLEST + 1) // 2, TALLEST + 1)


def numbers(rng, dtype, *shape):
    array = aligned(int(np.prod(shape)) * dtype.itemsize).view(dtype).reshape(shape)
    array[...] = rng.random(shape) + 0.5
    return array


@pytest.mark.parametrize("prefetch", [False, True])
def test_both_give_the_same_bits(dtype, prefetch):
    """Every height of both tiles, and depths from which groups of k come out even and uneven."""
    rule, count, vector = optimizers.RULES["adam"], len(matmul.ARGUMENTS), isa().bytes
    product = callback(matmul.microkernel(dtype.name, matmul.ALONG_ROWS), count)
    update = callback(optimizers.update("adam", dtype.name), 10)
    both = callback(optimizers.product_and_update("adam", dtype.name, prefetch=prefetch), count + 11)
    rng, columns, size = rng_of(1), 2 * vector // dtype.itemsize, dtype.itemsize
    settings = numbers(rng, dtype, 1 + len(rule.coefficients))
    for rows, other in ((h, HEIGHTS[-1 - i]) for i, h in enumerate(HEIGHTS)):
        for depth in (2 * other, 2 * other + 1, 100):
            a, b = numbers(rng, dtype, depth, rows), numbers(rng, dtype, depth, columns)
            g, w = numbers(rng, dtype, other, columns), numbers(rng, dtype, 1 + rule.states, other, columns)
            copied, source = depth % (2 * other + 1), numbers(rng, dtype, other * columns)
            target, results = np.zeros_like(source), []
            for one_call in (False, True):
                out, parameters = numbers(rng, dtype, rows, columns), numbers(rng, dtype, *w.shape)
                parameters[...] = w
                lie = data_at(parameters), vector, 2 * vector
                of_a = data_at(a), size, rows * size, depth, 0
                of_b, of_c = (data_at(b), vector, 2 * vector), (data_at(out), vector, 2 * vector)
                tile = rows, 2, depth, *of_a, *of_b, *of_c, 0, 0, matmul.ZERO
                if one_call:
                    aside = data_at(g), *lie, w[0].nbytes, other, data_at(settings)
                    both(*tile, *aside, data_at(source), data_at(target), copied, data_at(source))
                    assert (
                        target[: copied * columns // 2].tobytes() == source[: copied * columns // 2].tobytes()
                    )
                    assert not target[copied * columns // 2 :].any()
                else:
                    product(*tile)
                    at_g = data_at(g), vector, 2 * vector
                    update(*at_g, *lie, w[0].nbytes, other, 2, data_at(settings))
                results.append((out, parameters))
            for separate, together in zip(*results, strict=True):
                assert separate.tobytes() == together.tobytes(), (rows, other, depth)


def test_trainings_have_the_same_bits(monkeypatch):
    """Rows of weights in one tile and in several, an odd panel, batches that are too small at an epoch's
    end."""
    rng, flats = rng_of(2), []
    X, Y = rng.standard_normal((230, 33)), rng.standard_normal((230, 5))
    for within in (True, False):
        if not within:
            monkeypatch.setattr(Design, "updates_within_products", False)
        model = fastbp.MLP([33, 40, 14, 5], output="identity", loss="mse", seed=1)
        model.fit(X, Y, epochs=2, batch_size=101, optimizer=fastbp.Adam(weight_decay=0.1))
        flats.append(model.parameters.flat.copy())
    assert flats[0].tobytes() == flats[1].tobytes()


@pytest.mark.skipif(isa().registers != 32, reason="fewer registers")
def test_where_that_is_prepared():
    """It takes a while to compile: only where tiles follow each other, and by rules that compute."""

    def prepared(sizes, rule="adam", batch=100, **other):
        activations = ("relu",) * (len(sizes) - 2) + ("identity",)
        design = Design(sizes, activations, "mse", np.dtype("float32"), rule, batch, "train", **other)
        return design.updates_within_products

    assert prepared((15, 17, 1)) and prepared((3, 15, 17))
    assert not prepared((14, 17, 1)) and not prepared((15, 16, 1)) and not prepared((15, 17, 1), batch=27)
    assert not prepared((15, 17, 1), rule="add") and not prepared((15, 17, 1), clip_norm=True)
    assert not prepared((15, 17, 1), precision="bfloat16")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "hidden", "batch"), [(33, 40, 101), (70, 300, 30), (7, 20, 30)])
def test_batches_gathered_on_the_way(monkeypatch, inputs, hidden, batch, dtype, threads):
    """Rows of several pieces, some of which overlap, all of a batch's rows and few of them: the same bits as
    by copies of whole batches, and the optimizer's steps behind the products."""
    monkeypatch.setattr(binding, "NEAR_DATA", 0)
    monkeypatch.setattr(plan, "TRY_TEAM_FROM_MULTIPLY_ADDS", 0)
    monkeypatch.setattr(plan, "ALWAYS_TEAM_FROM_MULTIPLY_ADDS", 0)
    options = {"dtype": dtype, "threads": threads}
    rng, flats = rng_of(3), []
    X, Y = rng.standard_normal((230, inputs)).astype(dtype), rng.standard_normal((230, 5)).astype(dtype)
    for on_the_way in (True, False):
        if not on_the_way:
            monkeypatch.setattr(Design, "updates_within_products", False)
        model = fastbp.MLP([inputs, hidden, 5], output="identity", loss="mse", seed=1, **options)
        model.fit(X, Y, epochs=2, batch_size=batch, optimizer=fastbp.Adam(weight_decay=0.1))
        (used,) = model.backend._plans.values()
        within = on_the_way and isa().registers == 32
        assert bool(used.table.ahead) == (within and inputs >= used.design.lanes)
        flats.append(model.parameters.flat.copy())
    assert flats[0].tobytes() == flats[1].tobytes()
