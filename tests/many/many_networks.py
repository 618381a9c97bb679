"""Networks of all kinds, the arguments with which each is trained, and what must be equal afterwards."""

import numpy as np

import fastbp

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((90, 6)), RNG.random((90, 2))
LABELS = RNG.integers(0, 2, 90)

KINDS = (
    {"sizes": [6, 16, 2]},
    {"sizes": [6, 5, 7, 2], "hidden": "tanh", "dtype": "float64", "loss": "mae", "output": "identity"},
    {"sizes": [6, 33, 2], "dropout": 0.25, "hidden": "gelu"},
    {"sizes": [6, 8, 2], "output": "softmax", "loss": "categorical_crossentropy", "labels": True},
    {"sizes": [6, 16, 2], "input_noise": 0.1, "layer_norm": True},
    {"sizes": [6, 2], "loss": "binary_crossentropy", "reduction": "sum"},
    {"sizes": [6, 20, 2], "max_norm": 0.9, "input_scale": 0.5, "batch_size": 1},
    {"sizes": [6, 140, 130, 2], "batch_size": 64},
)
OPTIMIZERS = (
    lambda: fastbp.Adam(0.01),
    lambda: fastbp.SGD(0.05, momentum=0.9),
    lambda: fastbp.SGD(0.05),
    lambda: fastbp.RMSprop(0.003, clip_norm=1.0),
    lambda: fastbp.Adam(fastbp.schedules.ReduceOnPlateau(0.02, monitor="loss", patience=1)),
)


def cases(count):
    """(model's arguments, fit's arguments) of so many networks, no two alike."""
    for i in range(count):
        kind = dict(KINDS[i % len(KINDS)])
        labels, batch_size = kind.pop("labels", False), kind.pop("batch_size", 7 + i % 30)
        rows = None if i % 3 else np.random.default_rng(i).integers(0, 90, 40 + i % 50)
        fit = {"labels": labels, "batch_size": batch_size, "epochs": 1 + i % 4, "rows": rows}
        yield {**kind, "seed": i}, fit | {"optimizer": OPTIMIZERS[i % len(OPTIMIZERS)]}


def models_of(listed):
    return [
        fastbp.MLP(kind["sizes"], **{k: v for k, v in kind.items() if k != "sizes"}) for kind, _ in listed
    ]


def fit_each(models, listed):
    """Each by its own `fit`: the optimizers and histories."""
    optimizers, histories = [], []
    for model, (_, fit) in zip(models, listed, strict=True):
        rows = slice(None) if fit["rows"] is None else fit["rows"]
        optimizers.append(fit["optimizer"]())
        targets = LABELS if fit["labels"] else Y
        histories.append(
            model.fit(
                X[rows],
                targets[rows],
                epochs=fit["epochs"],
                batch_size=fit["batch_size"],
                optimizer=optimizers[-1],
                progress=False,
            )
        )
    return optimizers, histories


def fit_together(models, listed, **options):
    optimizers = [fit["optimizer"]() for _, fit in listed]
    histories = fastbp.fit_many(
        models,
        X,
        [LABELS if fit["labels"] else Y for _, fit in listed],
        epochs=[fit["epochs"] for _, fit in listed],
        optimizers=optimizers,
        batch_size=[fit["batch_size"] for _, fit in listed],
        rows=[fit["rows"] for _, fit in listed],
        progress=False,
        **options,
    )
    return optimizers, histories


def columns(history):
    return {name: history._array(name).tobytes() for name in history.names if name != "epoch_seconds"}


def assert_same(model, optimizer, history, other, its_optimizer, its_history):
    """Byte for byte: parameters, what the optimizer keeps, the course, the random state."""
    assert model.parameters.flat.tobytes() == other.parameters.flat.tobytes()
    state = optimizer._states[model.parameters.owner]
    its_state = its_optimizer._states[other.parameters.owner]
    assert state.steps == its_state.steps
    assert [b.tobytes() for b in state.buffers] == [b.tobytes() for b in its_state.buffers]
    assert columns(history) == columns(its_history)
    for name in ("best_epoch", "stopped_early", "interrupted", "diverged"):
        assert getattr(history, name) == getattr(its_history, name)
    assert model.streams.state() == other.streams.state()


def assert_as_alone(count, **options):
    """So many networks that `fit_many` trains with these options are those of their own fits."""
    listed = list(cases(count))
    alone, together = models_of(listed), models_of(listed)
    expected = fit_each(alone, listed)
    got = fit_together(together, listed, **options)
    for model, optimizer, history, *others in zip(together, *got, alone, *expected, strict=True):
        assert_same(model, optimizer, history, *others)
