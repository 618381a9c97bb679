"""One training that tests end early in all sorts of ways, and what must be equal afterwards."""

import numpy as np

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((50, 5)), RNG.random((50, 2))


def training(module, **changes):
    """Model, optimizer and history after a training of 6 epochs of 7 steps."""
    options = {"seed": 3, "hidden": "tanh", "sizes": [5, 16, 2], "optimizer": module.Adam(0.01)}
    options |= {"X": X, "Y": Y, "batch_size": 8, "epochs": 6} | changes
    names = (
        "seed",
        "dropout",
        "layer_norm",
        "input_noise",
        "hidden",
        "output",
        "loss",
        "dtype",
        "init",
        "reduction",
        "input_scale",
    )
    model = module.MLP(options.pop("sizes"), **{k: options.pop(k) for k in names if k in options})
    data = options.pop("X"), options.pop("Y")
    return model, options["optimizer"], model.fit(*data, **options)


def assert_same(got, expected):
    (model, optimizer, history), (other, its_optimizer, its_history) = got, expected
    np.testing.assert_array_equal(model.parameters.flat, other.parameters.flat)
    state, its_state = (
        optimizer._states[model.parameters.owner],
        its_optimizer._states[other.parameters.owner],
    )
    assert state.steps == its_state.steps
    np.testing.assert_array_equal(state.buffers, its_state.buffers)
    assert history.names == its_history.names
    for name in set(history.names) - {"epoch_seconds"}:
        np.testing.assert_array_equal(history._array(name), its_history._array(name))
    for name in ("best_epoch", "stopped_early", "interrupted"):
        assert getattr(history, name) == getattr(its_history, name)
    assert model.streams.state() == other.streams.state()


class Stop:
    """Ends the training the hard way when its `hook` is called for the n-th time."""

    def __init__(self, hook, n, error=KeyboardInterrupt):
        self.n, self.error = n, error
        setattr(self, hook, self.count)

    def count(self, *arguments):
        self.n -= 1
        if self.n == 0:
            raise self.error
