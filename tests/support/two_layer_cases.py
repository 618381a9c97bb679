"""Networks for the tests of the drop-in functions, and what is right for them in float64."""

import numpy as np

# odd and rectangular shapes (batch, inputs, hidden, outputs), some across plausible tile edges; then some
# whose rows are whole vectors, and some of these whole pages
SHAPES = [(1, 1, 1, 1), (4, 2, 8, 1), (7, 3, 5, 2), (13, 31, 33, 15), (32, 64, 130, 10), (129, 40, 65, 17)]
SHAPES += [(1, 9, 64, 32), (60, 131, 112, 16), (5, 20, 48, 3), (1, 11, 1024, 2), (3, 11, 1024, 48)]
SHAPES += [(66, 1030, 1024, 5), (64, 1024, 2048, 32), (66, 37, 1024, 20)]  # whose rows crowd the cache,
SHAPES += [(530, 230, 1024, 3)]  # and are more than one block of them
SHAPES += [(97, 45, 288, 7), (67, 520, 512, 3), (70, 300, 768, 5)]  # others that are copied on some CPUs
FUNCTIONS = ["forward", "backward", "sgd_update", "train_step"]


def network(shape, dtype, seed=0):
    """X, y_true and [W1, b1, W2, b2]."""
    batch, inputs, hidden, outputs = shape
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((batch, inputs)).astype(dtype)
    y_true = rng.random((batch, outputs)).astype(dtype)
    params = [
        rng.standard_normal((inputs, hidden)) * np.sqrt(2 / inputs),
        rng.standard_normal(hidden) * 0.1,
        rng.standard_normal((hidden, outputs)) * np.sqrt(2 / hidden),
        rng.standard_normal(outputs) * 0.1,
    ]
    return X, y_true, [p.astype(dtype) for p in params]


def expected_step(X, y_true, params):
    """[z1, a1, z2, y_pred], [dW1, db1, dW2, db2] and the loss, in float64."""
    X, y, W1, b1, W2, b2 = (np.asarray(a, np.float64) for a in (X, y_true, *params))
    z1 = X @ W1 + b1
    a1 = np.maximum(0, z1)
    z2 = a1 @ W2 + b2
    y_pred = 1 / (1 + np.exp(-z2))
    dz2 = (y_pred - y) * y_pred * (1 - y_pred)
    dz1 = (dz2 @ W2.T) * (z1 > 0)
    grads = [X.T @ dz1, dz1.sum(0), a1.T @ dz2, dz2.sum(0)]
    return [z1, a1, z2, y_pred], grads, 0.5 * ((y_pred - y) ** 2).sum()


def assert_close(actual, expected, terms, what=""):
    """Equal up to the rounding of sums of `terms` terms whose sizes are those of the expected array."""
    actual = np.asarray(actual)
    assert actual.shape == np.shape(expected), what
    tolerance = 8 * terms * np.finfo(actual.dtype).eps * max(1e-3, float(np.max(np.abs(expected))))
    error = float(np.max(np.abs(actual - expected)))
    assert error <= tolerance, f"{what}: largest error {error:.3g}, tolerance {tolerance:.3g}"


def terms(shape):
    return sum(shape)
