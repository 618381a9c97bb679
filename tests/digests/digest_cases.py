"""The configurations for digests.py that are one training each: tables, and generators of (name, run)."""

import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from digest_training import Array, Digest, Training

import fastbp
from fastbp import SGD, Adagrad, Adam, AdamW, EarlyStopping, RMSprop, schedules
from fastbp.data import load_digits, split_digits

# Around one, two and four vectors of every width that there is, and the rows that kernels take at once.
WIDTHS = [1, 2, 3, 7, 8, 13, 14, 15, 16, 17, 31, 32, 33, 48, 64, 65, 100, 131, 256, 300, 784]
BATCHES = [1, 2, 3, 4, 7, 8, 13, 14, 15, 31, 32, 33, 48, 64, 100, 128, 257]
OUTPUTS = [*range(1, 14), 16, 32, 64]
HIDDEN = ["relu", "leaky_relu", "elu", "selu", "gelu", "gelu_tanh", "silu", "softplus"]
HIDDEN += ["tanh", "sigmoid", "identity"]
LOSSES = [  # (loss, output)
    ("mse", "softmax"),
    ("mae", "identity"),
    ("mae", "tanh"),
    ("mae", "softmax"),
    ("huber", "identity"),
    ("huber(0.5)", "softplus"),
    ("huber(0.05)", "sigmoid"),
    ("hinge", "identity"),
    ("hinge", "tanh"),
    ("binary_crossentropy", "sigmoid"),
    ("categorical_crossentropy", "softmax"),
    ("categorical_crossentropy(0.1)", "softmax"),
]
OPTIMIZERS = {
    "sgd": partial(SGD, 0.05),
    "sgd decay": partial(SGD, 0.05, weight_decay=0.01),
    "sgd l1": partial(SGD, 0.05, l1=0.001),
    "sgd norm": partial(SGD, 0.05, clip_norm=0.1),
    "sgd value": partial(SGD, 0.05, clip_value=0.01),
    "momentum": partial(SGD, 0.02, momentum=0.8),
    "momentum all": partial(SGD, 0.02, 0.8, weight_decay=0.01, l1=0.001, clip_value=0.05, clip_norm=0.2),
    "nesterov": partial(SGD, 0.02, momentum=0.8, nesterov=True),
    "nesterov decay": partial(SGD, 0.02, momentum=0.8, nesterov=True, weight_decay=0.01),
    "adam": partial(Adam, 0.01),
    "adam betas": partial(Adam, 0.01, betas=(0.5, 0.9), eps=1e-4),
    "adam decay": partial(Adam, 0.01, weight_decay=0.01),
    "adam norm": partial(Adam, 0.01, clip_norm=0.1),
    "adam l1": partial(Adam, 0.01, l1=0.01),
    "adamw": partial(AdamW, 0.01),
    "adamw all": partial(AdamW, 0.01, weight_decay=0.1, l1=0.01, clip_value=0.01, clip_norm=0.1),
    "rmsprop": partial(RMSprop, 0.003),
    "rmsprop momentum": partial(RMSprop, 0.003, alpha=0.9, momentum=0.5, weight_decay=0.01),
    "rmsprop value": partial(RMSprop, 0.003, eps=1e-5, clip_value=0.02, l1=0.001),
    "adagrad": partial(Adagrad, 0.01),
    "adagrad all": partial(Adagrad, 0.01, 1e-6, weight_decay=0.01, l1=0.001, clip_value=0.02, clip_norm=0.5),
}
# For 3 epochs of 4 steps.
SCHEDULES = {
    "constant": lambda: schedules.Constant(0.02),
    "step": lambda: schedules.Step(0.05, every=3, factor=0.5),
    "exponential": lambda: schedules.Exponential(0.05, 0.9),
    "cosine": lambda: schedules.Cosine(0.05, 9, low=0.001),
    "restarts": lambda: schedules.Cosine(0.05, 2, restarts=True, growth=2),
    "one cycle": lambda: schedules.OneCycle(0.1, 12),
    "warm-up": lambda: schedules.WarmUp(schedules.Cosine(0.05, 8), 4, start=0.1),
    "plateau": lambda: schedules.ReduceOnPlateau(0.05, factor=0.5, patience=0, threshold=0.5),
}
# What a model may have besides, and how it is then trained.
MODELS: dict[str, dict[str, Any]] = {
    "dropout": {"dropout": 0.3},
    "dropout of each layer": {"dropout": (0.0, 0.5)},
    "input noise": {"input_noise": 0.2},
    "layer norm": {"layer_norm": True},
    "max norm": {"max_norm": 0.7},
    "noise, dropout, layer norm, max norm": {
        "input_noise": 0.1,
        "dropout": 0.2,
        "layer_norm": True,
        "max_norm": 0.8,
    },
    "scale": {"input_scale": 0.5, "input_offset": -0.25},
    "scale of each input": {"input_scale": np.linspace(0.5, 2, 17), "input_offset": np.linspace(-1, 1, 17)},
    "sum": {"reduction": "sum"},
    "init normal": {"init": "normal"},
    "init he": {"init": "he", "hidden": "tanh"},
    "init glorot": {"init": "glorot"},
    "init lecun": {"init": "lecun"},
}


def strided(X: Array) -> Array:
    """The same values with gaps between the rows and between the columns."""
    wide = np.zeros((2 * X.shape[0], 3 * X.shape[1]), X.dtype)
    wide[::2, 1::3] = X
    return wide[::2, 1::3]


def read_only(X: Array) -> Array:
    X = X.copy()
    X.flags.writeable = False
    return X


# How X may be stored.
STORED: dict[str, Callable[[Array], Any]] = {
    "float16": lambda X: X.astype(np.float16),
    "float64": lambda X: X.astype(np.float64),
    "float32": lambda X: X.astype(np.float32),
    "big-endian": lambda X: X.astype(">f4"),
    "fortran": np.asfortranarray,
    "strided": strided,
    "backwards": lambda X: X[::-1, ::-1],
    "read-only": read_only,
    "int8": lambda X: (20 * X).astype(np.int8),
    "int64": lambda X: (20 * X).astype(np.int64),
    "strided uint16": lambda X: strided((20 * abs(X)).astype(np.uint16)),
    "bool": lambda X: X > 0,
    "list": lambda X: X.tolist(),
}


Case = tuple[str, Callable[[str], str]]  # a name, and what makes a digest from it


def shapes() -> Iterator[Case]:
    """Every width as inputs and inside, every batch and number of outputs, 1 to 5 layers, both dtypes."""
    rules = ["sgd", "adam", "momentum", "sgd norm"]
    for i in range(51):
        layers = 1 + i % 5
        sizes = [WIDTHS[(5 * i + 8 * layer) % len(WIDTHS)] for layer in range(layers)]
        sizes.append(OUTPUTS[7 * i % len(OUTPUTS)])
        batch, dtype = BATCHES[3 * i % len(BATCHES)], ("float32", "float64")[(i + i // 16) % 2]
        rule, hidden = rules[i // 2 % len(rules)], HIDDEN[i % len(HIDDEN)]
        steady = partial(SGD, 0.005) if rule == "sgd" else OPTIMIZERS[rule]
        yield (
            f"shape/{'-'.join(map(str, sizes))} batch {batch} {dtype} {hidden} {rule}",
            Training(
                sizes,
                batch,
                steady,
                {"hidden": hidden, "dtype": dtype},
                threads=(1, 2) if i % 4 == 0 else (1,),
            ).run,
        )
    for batch, dtype in itertools.product(BATCHES, ("float32", "float64")):
        options = {"hidden": "silu", "dtype": dtype, "output": "identity"}
        yield f"batch/{batch} {dtype}", Training([7, 48, 17, 9], batch, partial(SGD, 0.01), options).run
    for sizes, batch, dtype in [  # worth a team of threads, always or after a trial
        ([784, 256, 10], 128, "float32"),
        ([300, 784, 784, 10], 257, "float32"),
        ([784, 300, 131, 64], 257, "float64"),
        ([256, 784, 1], 100, "float64"),
        ([100, 2048, 13], 64, "float32"),
    ]:
        yield (
            f"team/{'-'.join(map(str, sizes))} batch {batch} {dtype}",
            Training(sizes, batch, partial(SGD, 0.01), {"dtype": dtype}, threads=(1, 2)).run,
        )


def functions_of_layers() -> Iterator[Case]:
    """Every activation and loss, in both dtypes."""
    for hidden, dtype in itertools.product(HIDDEN, ("float32", "float64")):
        options = {"hidden": hidden, "dtype": dtype}
        yield f"hidden/{hidden} {dtype}", Training([7, 33, 16, 3], 13, model=options).run
    entries = [("mse", output) for output in HIDDEN] + LOSSES
    for i, (loss, output) in enumerate(entries):
        dtype = ("float32", "float64")[i % 2]
        options = {"loss": loss, "output": output, "dtype": dtype}
        yield f"loss/{loss} {output} {dtype} of 5", Training([8, 31, 5], 14, model=options).run
        options = {"loss": loss, "output": output, "dtype": ("float64", "float32")[i % 2]}
        wide = Training([8, 15, 17], 33, model=options, fit=lambda: {"sample_weight": np.linspace(0, 2, 78)})
        yield f"loss/{loss} {output} {options['dtype']} of 17, weighted", wide.run


def optimizers() -> Iterator[Case]:
    for i, (name, optimizer) in enumerate(OPTIMIZERS.items()):
        dtype = ("float32", "float64")[i % 2]
        sizes = [[17, 33, 13], [13, 100, 3], [7, 15, 31, 16]][i % 3]
        yield f"optimizer/{name} {dtype}", Training(sizes, 15, optimizer, {"dtype": dtype}).run
    for i, (name, schedule) in enumerate(SCHEDULES.items()):
        optimizer = [
            lambda s=schedule: SGD(s(), momentum=0.5),
            lambda s=schedule: Adam(s()),
        ][i % 2]
        fit = partial(dict, epochs=3, validation_split=0.2)
        yield f"schedule/{name}", Training([13, 32, 7], 16, optimizer, fit=fit, samples=80).run


def models() -> Iterator[Case]:
    for name, options in MODELS.items():
        for rule, dtype in (("sgd", "float32"), ("adamw", "float64")):
            training = Training(
                [17, 33, 48, 5],
                14,
                partial(SGD, 0.01) if rule == "sgd" else OPTIMIZERS[rule],
                {**options, "dtype": dtype},
                threads=(1, 2) if rule == "sgd" else (1,),
            )
            yield f"model/{name} {dtype} {rule}", training.run


def of_75_rows(
    fit: Callable[[], dict[str, Any]] = dict, sizes: tuple[int, ...] = (13, 31, 4), **options: Any
) -> Callable[[str], str]:
    return Training(list(sizes), 16, fit=fit, samples=75, **options).run


def ways_to_fit() -> Iterator[Case]:
    """The options of `fit`, apart from those about weights."""
    fits: dict[str, Callable[[], dict[str, Any]]] = {
        "no shuffle": lambda: {"shuffle": False},
        "steps": lambda: {"steps": 7},
        "one row in the last batch": lambda: {"batch_size": 37},
        "batch larger than the data": lambda: {"batch_size": 1000},
        "no look for NaN": lambda: {"check_finite": False},
        "accumulate": lambda: {"accumulate": 3},
        "accumulate with a momentum and limits": lambda: {
            "accumulate": 3,
            "optimizer": OPTIMIZERS["momentum all"](),
        },
        "accumulate adam": lambda: {"accumulate": 3, "optimizer": OPTIMIZERS["adam norm"]()},
        "validation": lambda: {"epochs": 6, "validation_split": 0.25, "metrics": ["r2", "mae"]},
        "early stopping": lambda: {
            "epochs": 40,
            "validation_split": 0.3,
            "optimizer": Adam(0.03),
            "callbacks": [EarlyStopping(patience=2)],
        },
        "callback": lambda: {"epochs": 4, "callbacks": [shrink]},
    }
    for name, fit in fits.items():
        yield f"fit/{name}", of_75_rows(fit)
    noisy = {"dropout": 0.3, "input_noise": 0.1, "layer_norm": True, "max_norm": 0.8, "dtype": "float64"}
    both = partial(dict, accumulate=2, batch_size=8, sample_weight=np.linspace(0, 2, 75))
    yield "fit/accumulate dropout, noise, weights", of_75_rows(both, model=noisy)


def weights_and_labels() -> Iterator[Case]:
    """Weights of samples and classes, and targets that are labels."""
    classes = {"loss": "categorical_crossentropy", "output": "softmax"}
    weights = np.linspace(0, 2, 75)
    yield "fit/sample weights", of_75_rows(lambda: {"sample_weight": weights})
    labels: dict[str, Callable[[Array], Any]] = {
        "int64": lambda Y: Y.argmax(axis=1),
        "uint8 in a column": lambda Y: Y.argmax(axis=1)[:, None].astype(np.uint8),
        "list": lambda Y: Y.argmax(axis=1).tolist(),
    }
    for name, as_labels in labels.items():
        yield f"labels/{name}", of_75_rows(model=classes, Y=as_labels)
    smoothed = {**classes, "loss": "categorical_crossentropy(0.2)", "dtype": "float64"}
    yield "labels/smoothed", of_75_rows(model=smoothed, Y=labels["int64"])
    measured = partial(dict, epochs=4, validation_split=0.25, metrics=["accuracy", "top_k(2)"])
    yield "labels/validation", of_75_rows(measured, model=classes, Y=labels["int64"])
    kinds: dict[str, Any] = {"balanced": "balanced", "dict": {1: 3.0}, "array": [1, 2, 0, 0.5]}
    for name, weight in kinds.items():
        yield f"class weights/{name}", of_75_rows(partial(dict, class_weight=weight), model=classes)
    one = (13, 31, 1)
    both = partial(dict, class_weight="balanced", sample_weight=weights)
    binary = {"loss": "binary_crossentropy"}
    yield "class weights/and of samples", of_75_rows(both, one, model=binary, Y=lambda Y: np.round(Y))
    signs = {"loss": "hinge", "output": "identity"}
    yield "class weights/hinge", of_75_rows(partial(dict, class_weight={-1: 0.5}), one, model=signs)


def shrink(model: fastbp.MLP, epoch: int, history: fastbp.History) -> bool:
    """A callback that writes into parameters, puts other ones in their place, and ends after 3 epochs."""
    model.biases[0][...] *= 0.5
    model.weights[-1] = model.weights[-1] * np.float32(0.9)
    return epoch == 3


def inputs() -> Iterator[Case]:
    for name, stored in STORED.items():
        for dtype in ("float32", "float64"):
            scale = 0.05 if "int" in name else 1.0
            training = Training(
                [15, 32, 3], 13, X=stored, Y=np.asfortranarray, model={"input_scale": scale, "dtype": dtype}
            )
            yield f"input/{name} {dtype}", training.run

    def images(name: str) -> str:
        """Bytes, scaled batch by batch, from an array and from a file: the same."""
        images, labels = load_digits()
        X, Y = images[:300], labels[:300].astype(np.int64)
        options = {"loss": "categorical_crossentropy", "output": "softmax", "input_scale": 1 / 16}
        training = Training([64, 100, 10], 32, OPTIMIZERS["adam"], {**options, "dropout": 0.2})
        texts = []
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "X.npy")
            np.save(path, X)
            for source in (X, path, np.load(path, mmap_mode="r")):
                model, digest = training.new_model(), Digest()
                digest.history(training.trained(model, source, Y))
                digest.model(model, X, Y, 32)
                digest.add(model.predict(source))
                texts.append(digest.text())
        assert len(set(texts)) == 1, f"digests of an array, a file and a memory map: {texts}"
        return texts[0]

    def scaled_digits(name: str) -> str:
        digits = split_digits()
        training = Training([64, 128, 10], 32, partial(SGD, 1.0), threads=(1, 2))
        Y = np.eye(10, dtype="float32")[digits.y_train]
        model, digest = training.new_model(2), Digest()
        digest.history(training.trained(model, digits.X_train, Y))
        digest.model(model, digits.X_test, np.eye(10)[digits.y_test], 100)
        return digest.text()

    yield "input/digits as bytes", images
    yield "input/digits, the README's network", scaled_digits
