"""Models in training that the storm of SIGINTs (interrupts.py) ends, and what they must do afterwards."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fastbp
from fastbp.callbacks import EarlyStopping
from fastbp.engine import memory

Array = np.ndarray[Any, Any]
SIZES, ROWS, BATCH = [20, 40, 3], 200, 40


_numbers = itertools.count()  # of files


@dataclass
class Subject:
    """A model in training, its optimizer and its data."""

    module: ModuleType
    make: Callable[[], tuple[Any, Any]]  # a new model, and its optimizer
    X: Array
    Y: Array
    path: Path | None = None  # of a checkpoint
    stopping: Any = None
    model: Any = field(init=False)
    optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        self.model, self.optimizer = self.make()

    @property
    def state(self) -> Any:
        return self.optimizer.state(self.model.parameters.owner, self.model.n_parameters, self.model.dtype)

    def fresh(self) -> "Subject":
        """Untrained, with a checkpoint of its own if there is to be one."""
        path = None if self.path is None else self.path.with_name(f"{next(_numbers)}")
        return Subject(self.module, self.make, self.X, self.Y, path)

    def twin(self) -> "Subject":
        """A new model that has what this one has."""
        twin = self.fresh()
        twin.model.parameters.flat[...] = self.model.parameters.flat
        twin.model.streams.restore(self.model.streams.state())
        twin.state.steps = self.state.steps
        for new, buffer in zip(twin.state.buffers, self.state.buffers, strict=True):
            new[...] = buffer
        return twin

    def arrays(self) -> list[Array]:
        """All that training changes."""
        return [self.model.parameters.flat.copy(), *map(np.copy, self.state.buffers)]


def everything(subject: Subject) -> dict[str, list[Array]]:
    """What a model computes, and how it trains; it is another one afterwards."""
    model, X, Y = subject.model, subject.X, subject.Y
    found: dict[str, list[Array]] = {}
    trace = model.forward(X)
    found["forward"] = [*trace.z, *trace.a]
    gradients = model.backward(trace, Y)
    found["backward"] = [*gradients.weights, *gradients.biases]
    found["predict"] = [model.predict(X), model.predict(X[:3])]
    found["loss"] = [np.array(model.loss(X, Y))]
    found["train_step"] = [np.array(model.train_step(X[:BATCH], Y[:BATCH], subject.optimizer))]
    found["after train_step"] = [model.parameters.flat.copy()]
    history = model.fit(X, Y, epochs=2, batch_size=BATCH, optimizer=subject.optimizer, progress=False)
    found["fit"] = [history.loss, model.parameters.flat.copy(), *map(np.copy, subject.state.buffers)]
    parameters = two_layers()
    found["functions"] = [
        np.array(subject.module.train_step(X, Y, *parameters, 1e-3)),
        *parameters,
        *subject.module.forward(X, *parameters),
    ]
    return found


def two_layers() -> list[Array]:
    """Parameters for the functions on arrays."""
    shapes = ((SIZES[0], 8), (8,), (8, SIZES[-1]), (SIZES[-1],))
    return [np.full(shape, 0.1, np.float32) for shape in shapes]


def differences(first: dict[str, list[Array]], second: dict[str, list[Array]]) -> list[str]:
    return [
        name
        for name, arrays in first.items()
        if len(arrays) != len(second[name])
        or any(a.tobytes() != b.tobytes() for a, b in zip(arrays, second[name], strict=True))
    ]


# ---- what is interrupted --------------------------------------------------------------------------------


def fit(subject: Subject, **options: Any) -> Any:
    """fit, as long as nothing ends it, of steps enough for every moment."""
    given = {"epochs": 6, "batch_size": BATCH, "optimizer": subject.optimizer, "progress": False, **options}
    return subject.model.fit(subject.X, given.pop("Y", subject.Y), **given)


def long_fit(subject: Subject) -> Any:
    return fit(subject, epochs=1500 if subject.module is fastbp else 30)


def fit_with_validation(subject: Subject) -> Any:
    seen: list[float] = []
    return fit(
        subject,
        validation_data=(subject.X[:50], subject.Y[:50]),
        metrics=["mae", lambda y_true, y_pred: float(np.abs(y_true - y_pred).max())],
        callbacks=lambda model, epoch, history: seen.append(float(model.predict(subject.X[:3]).sum())),
    )


def fit_accumulate(subject: Subject) -> Any:
    return fit(subject, batch_size=BATCH // 2, accumulate=2)


def fit_batches(subject: Subject) -> Any:
    def batches() -> Iterator[tuple[Array, Array]]:
        for start in range(0, ROWS, BATCH):
            yield subject.X[start : start + BATCH], subject.Y[start : start + BATCH]

    return subject.model.fit(batches, epochs=6, optimizer=subject.optimizer, progress=False)


def fit_checkpoint(subject: Subject) -> Any:
    assert subject.path is not None
    subject.stopping = EarlyStopping(patience=100)
    return fit(
        subject,
        validation_split=0.2,
        callbacks=subject.stopping,
        checkpoint=subject.path,
        every_steps=3,
        every=1,
    )


def predict(subject: Subject) -> None:
    for _ in range(3):
        subject.model.predict(subject.X)
        subject.model.predict(subject.X[:2])


def loss(subject: Subject) -> None:
    for _ in range(3):
        subject.model.loss(subject.X, subject.Y)


def forward_backward(subject: Subject) -> None:
    for _ in range(3):
        subject.model.backward(subject.model.forward(subject.X), subject.Y)


def train_steps(subject: Subject) -> None:
    for _ in range(4):
        subject.model.train_step(subject.X, subject.Y, subject.optimizer)


def functions(subject: Subject) -> None:
    X, Y, m, parameters = subject.X, subject.Y, subject.module, two_layers()
    for _ in range(3):
        m.train_step(X, Y, *parameters, 1e-3)
        z1, a1, _, y_pred = m.forward(X, *parameters)
        gradients = m.backward(X, Y, z1, a1, y_pred, parameters[2])
        m.sgd_update(parameters, gradients, 1e-3)


def unequal_uses(subject: Subject) -> None:
    """Each of them wants the prepared state for itself."""
    fit(subject, epochs=1)
    predict(subject)
    subject.model.train_step(subject.X[:7], subject.Y[:7], subject.optimizer)
    fit(subject, epochs=1, batch_size=16)


# What is run, and whether the parameters that it leaves are those of so many steps of an unbroken `fit`.
SCENARIOS: dict[str, tuple[Callable[[Subject], Any], bool]] = {
    "fit": (fit, True),
    "long fit": (long_fit, True),
    "fit with validation": (fit_with_validation, True),
    "fit accumulate": (fit_accumulate, False),
    "fit batches": (fit_batches, False),
    "fit checkpoint": (fit_checkpoint, False),
    "predict": (predict, False),
    "loss": (loss, False),
    "forward and backward": (forward_backward, False),
    "train_step": (train_steps, False),
    "functions": (functions, False),
    "all in turn": (unequal_uses, False),
}


def models(module: ModuleType) -> list[Callable[[], tuple[Any, Any]]]:
    """Several kinds of models and optimizers."""

    def plain() -> tuple[Any, Any]:
        return module.MLP(SIZES, output="identity", seed=3), module.Adam(0.01)

    def noisy() -> tuple[Any, Any]:
        options = {"dropout": 0.2, "input_noise": 0.1, "layer_norm": True, "max_norm": 1.0}
        return module.MLP(SIZES, hidden="tanh", seed=3, **options), module.SGD(
            0.1, momentum=0.9, clip_norm=1.0
        )

    def rounded() -> tuple[Any, Any]:
        """Which keeps copies of its weights, rounded, in two layouts."""
        memory.PAIRS_FROM = 0
        options = {"precision": "bfloat16", "output": "identity", "max_norm": 1.0}
        return module.MLP(SIZES, seed=3, **options), module.Adam(0.01, clip_norm=1.0)

    return [plain, noisy, rounded]
