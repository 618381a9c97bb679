"""`fastbp demo`: the two-layer network on the digits, in plain NumPy and compiled, and a picture of it.

Both start from the same weights and see the same batches, so that they must end in the same place.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

import fastbp
import fastbp.reference
from fastbp.cli import files
from fastbp.cli.bench.measuring import interleaved, largest_difference, machine
from fastbp.cli.demo.picture import Run, draw
from fastbp.cli.output import progress, text_table
from fastbp.data import Split, split_digits
from fastbp.training.interrupt import or_interrupt

LAYERS = (64, 128, 10)
BATCH = 32
LEARNING_RATE = 1.0  # large, because the gradient of half squares behind a sigmoid is small
ACCURACY = 0.95
# The largest difference of a parameter after the first epoch. float32 rounds at 6e-8, and the two add up in
# different orders. Later a ReLU unit now and then falls on the other side of 0, and thousands of steps widen
# that to a hundredth, as much as lies between float32 and float64.
AGREEMENT = 1e-4

GET_MATPLOTLIB = "python -m pip install matplotlib"


def run(out: str, *, epochs: int, seed: int) -> int:
    """Train, print, draw. Return 0 if both implementations agree and reach the accuracy, else 1."""
    if not out.lower().endswith(".png"):
        raise ValueError(f"--out {out}: the picture is a PNG, its name must end in .png")
    files.check_outputs({"--out": out})
    data = split_digits(seed=seed)
    print(machine())
    print(
        f"digits: {len(data.X_train)} rows to train on, {len(data.X_test)} to test with; "
        f"network {'-'.join(map(str, LAYERS))}, ReLU and Sigmoid,\n"
        f"half squared error, SGD with lr {LEARNING_RATE:g}, {epochs} epochs, batches of {BATCH}, float32\n",
        flush=True,
    )
    started = time.perf_counter()
    reference, fast = (_train(module, data, epochs, seed) for module in (fastbp.reference, fastbp))
    difference = largest_difference(reference.model, fast.model)
    early = largest_difference(
        *(_train(module, data, 1, seed).model for module in (fastbp.reference, fastbp))
    )
    times = _seconds_per_step(data, seed)

    rows = [
        [name, f"{result.accuracy:.4f}", f"{result.history.loss[-1]:.5f}", f"{seconds * 1e6:.1f}"]
        for name, result, seconds in (
            ("NumPy reference", reference, statistics.median(times[0])),
            ("fastbp", fast, statistics.median(times[1])),
        )
    ]
    print(text_table(["", "test accuracy", "training loss", "us per step"], rows))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    print(f"\nfastbp's step is {ratio:.1f} times as fast (medians; compile time is excluded by a warm-up)")
    print(f"parameters after one epoch: largest difference {early:.1e} (after all of them {difference:.1e})")

    agree = early <= AGREEMENT
    good = min(reference.accuracy, fast.accuracy) >= ACCURACY
    if not agree:
        print(f"NOT AS EXPECTED: the implementations differ by more than {AGREEMENT:g} after one epoch")
    if not good:
        print(f"NOT AS EXPECTED: a test accuracy is below {ACCURACY} (were the epochs too few?)")
    try:
        draw(out, data, reference, fast, ratio)
        print(f"picture: {out}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        print(f"no picture: it needs matplotlib ({GET_MATPLOTLIB})")
    print(f"took {time.perf_counter() - started:.0f} s, most of it compiling and measuring")
    return 0 if agree and good else 1


def _train(module: Any, data: Split, epochs: int, seed: int) -> Run:
    one_hot = np.eye(LAYERS[-1], dtype=np.float32)
    model = module.MLP(LAYERS, hidden="relu", output="sigmoid", loss="mse", dtype="float32", seed=seed)
    history = or_interrupt(
        model.fit(
            data.X_train,
            one_hot[data.y_train],
            epochs=epochs,
            batch_size=BATCH,
            optimizer=module.SGD(lr=LEARNING_RATE),
            validation_data=(data.X_test, one_hot[data.y_test]),
        )
    )
    predicted = model.predict(data.X_test).argmax(axis=1)
    return Run(model, history, predicted, float(np.mean(predicted == data.y_test)))


def _seconds_per_step(data: Split, seed: int) -> list[list[float]]:
    """Of the reference and of fastbp, a value a round."""
    Y = np.eye(LAYERS[-1], dtype=np.float32)[data.y_train]

    def epochs_of(module: Any) -> Any:
        model = module.MLP(LAYERS, hidden="relu", output="sigmoid", loss="mse", dtype="float32", seed=seed)
        optimizer = module.SGD(lr=LEARNING_RATE)
        return lambda count: or_interrupt(
            model.fit(data.X_train, Y, epochs=count, batch_size=BATCH, optimizer=optimizer, progress=False)
        )

    progress("measuring ...")
    steps = -(-len(data.X_train) // BATCH)
    measured = interleaved([epochs_of(fastbp.reference), epochs_of(fastbp)], steps, rounds=9, seconds=0.05)
    progress("")
    return measured
