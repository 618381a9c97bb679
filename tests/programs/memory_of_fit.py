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


def main(x: str, y: str, name: str) -> None:
    module = importlib.import_module(name)
    inputs = np.load(x, mmap_mode="r").shape[1]
    model = module.MLP([inputs, 8, 1], seed=0, input_scale=1 / 255)
    small = np.zeros((100, inputs), np.uint8)
    model.fit(small, np.zeros((100, 1)), epochs=1, batch_size=512, optimizer=module.SGD(0.1))  # compiles
    model.predict(small)
    before, peak, done = megabytes(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], megabytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    model.fit(x, y, epochs=1, batch_size=512, optimizer=module.SGD(0.1), validation_data=(x, y))
    model.predict(x)
    model.loss(x, y)
    batches = ((np.ones((512, inputs), np.float32), np.ones((512, 1))) for _ in range(100))
    model.fit(batches, epochs=1, optimizer=module.SGD(0.1), accumulate=2)
    done.set()
    watcher.join()
    print(peak[0] - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
