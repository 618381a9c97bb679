"""np.seterr is the caller's business: whatever he wants of his own computations, fastbp's run."""

import numpy as np
import pytest

from fastbp import activations


@pytest.mark.parametrize("size", [1e-42, 1.0, 100.0, 1e4])
@pytest.mark.parametrize(
    ("output", "loss"),
    [
        *(("identity", name) for name in ("mse", "huber", "pinball(0.9)", "hinge")),
        ("sigmoid", "binary_crossentropy"),
        ("softmax", "categorical_crossentropy"),
    ],
)
def test_nothing_is_raised_that_numpy_could_ignore(module, dtype, output, loss, size):
    rng = np.random.default_rng(0)
    X, Y = (rng.standard_normal((12, 5)) * size).astype(dtype), rng.integers(0, 2, (12, 3)) * 2.0 - 1
    Y = {"hinge": Y, "categorical_crossentropy": rng.integers(0, 3, 12)}.get(loss, Y > 0)
    hidden = list(activations.ACTIVATIONS)
    with np.errstate(all="raise"):
        for name in hidden:
            options = {"hidden": name, "output": output, "loss": loss, "dtype": dtype, "seed": 0}
            model = module.MLP([5, 7, 3], **options, dropout=0.1, input_scale=0.5)
            model.backward(model.forward(X), Y)
            model.predict(X)
            model.loss(X, Y)
            model.train_step(X, Y, module.Adam())
            more = {"epochs": 2, "progress": False, "validation_data": (X, Y)}
            model.fit(X, Y, optimizer=module.NAdam(), **more)
            model.fit(X, Y, optimizer=module.SGD(1e-3, momentum=0.5, clip_norm=0.1), **more)
            model.diagnose(X, Y)


def test_the_functions(module):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((6, 3)) * 1e-160, rng.random((6, 2))
    W1, b1, W2, b2 = (rng.standard_normal(shape) * 1e-160 for shape in ((3, 4), 4, (4, 2), 2))
    with np.errstate(all="raise"):
        z1, a1, _, y_pred = module.forward(X, W1, b1, W2, b2)
        gradients = module.backward(X, Y, z1, a1, y_pred, W2)
        module.sgd_update([W1, b1, W2, b2], gradients, 1e-160)
        module.train_step(X, Y, W1, b1, W2, b2, 1e-160)
    assert np.isfinite(W1).all()
