"""Prints by how many MB the memory of a process grows, at most, while `fit` reads a large file, or batches.

python memory_of_fit.py X.npy Y.npy MODULE: a process of its own, whose memory nobody else uses. Counted is
what is the process's own (RssAnon): pages of a file that is mapped are the system's cache.
"""

import importlib
import pathlib
import re
import sys
import threading
import time

import numpy as np


def megabytes() -> float:
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1024


def work(module, model, X, Y, batches: int) -> None:
    """Train on, and predict, a file or the rows of one; then train on so many batches."""
    model.fit(X, Y, epochs=1, batch_size=512, optimizer=module.SGD(0.1), validation_data=(X, Y))
    model.predict(X)
    model.loss(X, Y)
    inputs = model.weights[0].shape[0]
    several = ((np.ones((512, inputs), np.float32), np.ones((512, 1))) for _ in range(batches))
    model.fit(several, epochs=1, optimizer=module.SGD(0.1), accumulate=2)


def main(x: str, y: str, name: str) -> None:
    module = importlib.import_module(name)
    X, Y = (np.load(path, mmap_mode="r") for path in (x, y))
    model = module.MLP([X.shape[1], 8, 1], seed=0, input_scale=1 / 255)
    work(module, model, X[:600], Y[:600], batches=2)  # compiles, which takes memory of its own
    before, peak, done = megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], megabytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work(module, model, x, y, batches=100)
    done.set()
    watcher.join()
    print(peak[0] - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
