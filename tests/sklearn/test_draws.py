"""What fits draw from a number is drawn once, and is what scikit-learn draws."""

import numpy as np
import pytest
from bits import rng_of

import fastbp.sklearn as ours
from fastbp.sklearn import initial

KINDS = {"a": 3, "b": 700, "large": initial.MOST_BYTES // 8 + 1}


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    monkeypatch.setattr(initial, "MEMORY", initial.Memory())
    return initial.MEMORY


def drawn(random_state, kinds, made=None):
    """The first numbers of draws of these kinds, one after the other; "itself": from the generator."""
    draws, found = initial.Draws(random_state), []
    for kind in kinds:
        if kind == "itself":
            found.append(draws.generator().random_sample())
            continue

        def draw(random, kind=kind):
            if made is not None:
                made.append(kind)
            return (random.random_sample(KINDS[kind]), random.random_sample(2))

        numbers, more = draws.once(kind, draw)
        assert len(numbers) == KINDS[kind]
        found += [numbers[0], *more]
    return found


@pytest.mark.parametrize("kinds", ["a b a b", "a large b", "a itself b", "itself a", "b itself itself a a"])
def test_numbers_are_those_of_a_generator(kinds):
    """Looked up wholly, in part, or not at all; in whatever order fits come."""
    kinds = kinds.split()
    expected = {seed: drawn(np.random.RandomState(seed), kinds) for seed in (0, 1)}
    for begun in ("", "a", "a b", "b", " ".join(kinds)):
        for seed in (0, 1):
            drawn(seed, begun.split())
            assert drawn(seed, kinds) == expected[seed]


def test_what_was_drawn_is_looked_up(memory):
    made = []
    for _ in range(3):
        drawn(7, ["a", "b"], made)
    assert made == ["a", "b"]
    drawn(7, ["a", "b", "a"], made)  # the generator is brought to where it should be
    assert made == ["a", "b", "a", "b", "a"]
    drawn(np.random.RandomState(7), ["a"], made)
    assert made[5:] == ["a"]


def test_memory_is_limited(memory):
    drawn(0, ["large"])
    assert not memory._known
    for seed in range(2 * initial.MOST_DRAWS):
        drawn(seed, ["a"])
    assert len(memory._known) == initial.MOST_DRAWS
    assert memory.get((0, "a")) is None and memory.get((2 * initial.MOST_DRAWS - 1, "a")) is not None
    fitting = initial.MOST_IN_ALL // initial.MOST_BYTES
    assert fitting < initial.MOST_DRAWS
    for seed in range(2 * fitting):
        memory.put((seed,), (np.zeros(initial.MOST_BYTES, np.uint8),))
    assert list(memory._known) == [(seed,) for seed in range(fitting, 2 * fitting)]


@pytest.mark.parametrize(
    "options", [{}, {"early_stopping": True}, {"dropout": 0.5}, {"shuffle": False}], ids=str
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_fits_do_not_depend_on_those_before(memory, options):
    """And nobody writes into what is remembered."""
    rng = rng_of(1)
    X, y = rng.standard_normal((90, 7)), rng.integers(3, size=90)

    def fit(epochs, **more):
        given = {"hidden_layer_sizes": (6,), **options, **more}
        return ours.MLPClassifier(max_iter=epochs, random_state=2, **given).fit(X, y).coefs_

    expected = {}
    for epochs in (1, 3, 4):
        memory._known.clear()
        expected[epochs] = fit(epochs)
    for epochs in (4, 1, 3, 4, 3):
        fit(epochs, hidden_layer_sizes=(5,))
        fit(epochs, activation="logistic")
        for mine, alone in zip(fit(epochs), expected[epochs], strict=True):
            assert np.array_equal(mine, alone)


def test_weights_of_a_large_layer_are_drawn_in_pieces_of_one_sequence():
    drawn, sizes = np.random.RandomState(3), (90, 301)  # no whole number of pieces
    bound = np.sqrt(6 / sum(sizes))
    (weights,), (biases,) = initial.draw(sizes, "relu", initial.Draws(3), np.dtype(np.float32))
    np.testing.assert_array_equal(weights, drawn.uniform(-bound, bound, sizes).astype(np.float32))
    np.testing.assert_array_equal(biases, drawn.uniform(-bound, bound, sizes[1:]).astype(np.float32))
