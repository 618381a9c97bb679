"""Data for the tests of `fit`."""

import numpy as np


def data(rows=50, inputs=3, outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, inputs)), rng.random((rows, outputs))


def arrays(model):
    return [*model.weights, *model.biases]
