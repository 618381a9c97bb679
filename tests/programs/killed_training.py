"""Trains in processes that are killed, one after another, until one gets to the end.

python killed_training.py MODULE CHECKPOINT KILLS SEED: so many processes are killed with SIGKILL at random
moments (fewer if one of them is done before), the last one is left alone. Without KILLS: one that is left
alone. CHECKPOINT "-": none. Prints a digest of the results, and how many steps each process found done.
"""

import hashlib
import importlib
import json
import os
import pathlib
import random
import signal
import sys
import time

import numpy as np

from fastbp.callbacks import EarlyStopping
from fastbp.schedules import Cosine

EPOCHS, BATCH = 60, 16


def train(module, checkpoint: str) -> str:
    rng = np.random.default_rng(1)
    X, Y = rng.integers(0, 256, (300, 9), dtype=np.uint8), rng.random((300, 2))
    model = module.MLP([9, 13, 2], hidden="tanh", seed=2, input_scale=1 / 255)
    history = model.fit(
        X,
        Y,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=module.Adam(Cosine(0.03, 100, restarts=True)),
        validation_split=0.2,
        metrics=["r2"],
        callbacks=[EarlyStopping(patience=EPOCHS)],
        checkpoint=None if checkpoint == "-" else checkpoint,
        every_steps=None if checkpoint == "-" else 7,
    )
    digest = hashlib.sha256(model.parameters.flat.tobytes())
    for name in ("loss", "lr", "val_loss", "val_r2"):
        digest.update(history._array(name).tobytes())
    digest.update(repr((history.best_epoch, model.streams.shuffling.bit_generator.state)).encode())
    return digest.hexdigest()


def steps_done(checkpoint: str) -> int:
    from fastbp.training.checkpoint import read

    path = pathlib.Path(checkpoint)
    return read(path).progress["done"] if path.exists() else 0


def main(name: str, checkpoint: str, kills: str = "0", seed: str = "0") -> None:
    module, moments = importlib.import_module(name), random.Random(int(seed))
    warm = module.MLP([9, 13, 2], hidden="tanh", input_scale=1 / 255)
    data = np.zeros((50, 9), np.uint8), np.zeros((50, 2))
    warm.fit(*data, epochs=1, batch_size=BATCH, optimizer=module.Adam())  # children need not compile
    found: list[int] = []
    for i in range(int(kills)):
        child = os.fork()
        if child == 0:
            train(module, checkpoint)
            os._exit(0)
        if i % 3:  # not before it has done something, however busy the machine is
            latest = time.monotonic() + 30
            while steps_done(checkpoint) == (found or [0])[-1] and time.monotonic() < latest:
                time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.04))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        found.append(steps_done(checkpoint))
        if not os.WIFSIGNALED(status):
            break
    print(json.dumps({"digest": train(module, checkpoint), "found": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
