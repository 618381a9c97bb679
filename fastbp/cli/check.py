"""`fastbp check`: are the results right on this machine, with its CPU and the installed versions?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

import fastbp
import fastbp.reference
from fastbp.activations import ACTIVATIONS, OUTPUTS
from fastbp.cli.bench.measuring import largest_difference, machine
from fastbp.cli.output import progress, text_table
from fastbp.losses import LOSSES
from fastbp.optimizers import OPTIMIZERS
from fastbp.training.interrupt import or_interrupt

LAYERS = (13, 33, 17, 3)  # odd widths: the ends of vectors and tiles are where a kernel goes wrong
ROWS = 70
BATCH = 31
EPOCHS = 7  # of 3 steps each
# Rounding alone, widened by 21 steps of training; a wrong gradient is off by 1e-3 and more.
AGREEMENT = {"float32": 1e-4, "float64": 1e-12}


def check(*, seed: int) -> bool:
    """Print two tables; return whether everything in them is right."""
    print(machine() + "\n")
    print(
        "Gradients against central differences in float64, largest relative error (1e-6 or less is right):\n"
    )
    gradients, gradients_right = _gradients(seed)
    print(gradients + "\n")
    print(
        f"Parameters of both after {EPOCHS * -(-ROWS // BATCH)} steps, largest difference\n"
        f"({AGREEMENT['float32']:g} in float32 and {AGREEMENT['float64']:g} in float64 or less is right):\n"
    )
    agreement, agreement_right = _agreement(seed)
    print(agreement + "\n")
    print("all right" if gradients_right and agreement_right else "FAILED: see the lines above")
    return gradients_right and agreement_right


def _data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((ROWS, LAYERS[0])), rng.random((ROWS, LAYERS[-1]))


def _layers(loss: str) -> list[int]:
    """The network's, with an even number of outputs where they are pairs."""
    odd = LOSSES[loss].of_pairs and LAYERS[-1] % 2
    return [*LAYERS[:-1], LAYERS[-1] + odd]


def _targets(loss: str, Y: np.ndarray) -> np.ndarray:
    """Such as the loss needs, from Y in [0, 1]."""
    if LOSSES[loss].of_pairs:
        return Y[:, : _layers(loss)[-1] // 2]
    if LOSSES[loss].targets_are_signs:
        return np.where(Y < 0.5, -1, 1)
    return Y / Y.sum(axis=1, keepdims=True) if LOSSES[loss].of_classes else Y


def _combinations() -> list[tuple[str, str, str, bool]]:
    """(hidden, output, loss, layer_norm): every hidden activation with every loss; the others take turns."""
    outputs = list(OUTPUTS)
    return [
        (hidden, LOSSES[loss].output or outputs[(i + k + 1) % len(outputs)], loss, (i + k) % 3 == 2)
        for i, hidden in enumerate(ACTIVATIONS)
        for k, loss in enumerate(LOSSES)
    ]


def _gradients(seed: int) -> tuple[str, bool]:
    X, Y = _data(seed)
    rows, right = [], True
    for hidden, output, loss, layer_norm in _combinations():
        name = hidden + (" (layer norm)" if layer_norm else "")
        progress(f"gradients of {name}, {output}, {loss}")
        cells = []
        for module in (fastbp.reference, fastbp):
            targets = _targets(loss, Y)
            options = {"hidden": hidden, "output": output, "loss": loss, "layer_norm": layer_norm}
            model = module.MLP(_layers(loss), dtype="float64", seed=seed, **options)
            result = model.check_gradients(X, targets, max_entries=40)
            right &= result.passed
            cells.append(f"{result.largest:.0e}" + ("" if result.passed else " FAILED"))
        rows.append([name, output, loss, *cells])
    progress("")
    return text_table(["hidden", "output", "loss", "reference", "fastbp"], rows), right


def _trainings() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """(what it is called, the optimizer and its options, those of the network): every optimizer, and what an
    optimizer or a network may do besides."""
    for name in OPTIMIZERS:
        yield name, name, {"lr": 0.1 if name == "SGD" else 1e-3}, {}
    momentum = {"lr": 0.1, "momentum": 0.9}
    yield "SGD (Nesterov)", "SGD", {**momentum, "nesterov": True}, {}
    yield "SGD (decay of weights)", "SGD", {**momentum, "weight_decay": 0.01, "decay_biases": False}, {}
    yield "Adam (l2)", "Adam", {"lr": 1e-3}, {"l2": 0.1, "reduction": "weighted_mean"}


def _agreement(seed: int) -> tuple[str, bool]:
    X, Y = _data(seed)
    rows, right = [], True
    for name, optimizer, options, penalties in _trainings():
        cells = []
        for dtype, allowed in AGREEMENT.items():
            progress(f"agreement of {name}, {dtype}")
            models = []
            for module in (fastbp.reference, fastbp):
                model = module.MLP(LAYERS, hidden="tanh", dtype=dtype, seed=seed, **penalties)
                or_interrupt(
                    model.fit(
                        X,
                        Y,
                        epochs=EPOCHS,
                        batch_size=BATCH,
                        optimizer=getattr(module, optimizer)(**options),
                        progress=False,
                    )
                )
                models.append(model)
            difference = largest_difference(*models)
            agree = difference <= allowed
            right &= agree
            cells.append(f"{difference:.0e}" + ("" if agree else " FAILED"))
        rows.append([name, *cells])
    progress("")
    return text_table(["optimizer", *AGREEMENT], rows), right
