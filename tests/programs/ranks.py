"""Trains one network by several processes: mpiexec -n P python ranks.py FOLDER CASE ...

Rank 0 prints a line of JSON: what came out of each case on each rank, mostly digests.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time

os.environ.setdefault("NUMBA_NUM_THREADS", "2")

import numpy as np
from mpi4py import MPI

import fastbp
from fastbp.callbacks import EarlyStopping
from fastbp.mpi import communicator

COMM = MPI.COMM_WORLD
X = np.random.default_rng(0).standard_normal((203, 6)).astype(np.float32)
Y = (X[:, :2] * X[:, 2:4]).astype(np.float32)


def model(**options):
    return fastbp.MLP([6, 17, 2], **{"output": "identity", "seed": 5, "hidden": "tanh", **options})


def digest(trained, history):
    sha = hashlib.sha256(trained.parameters.flat.tobytes())
    for name in history.names:
        if name != "epoch_seconds":
            sha.update(history._array(name).tobytes())
    sha.update(repr(trained.streams.state()).encode())
    sha.update(repr((history.best_epoch, history.stopped_early, history.interrupted)).encode())
    return sha.hexdigest()[:16]


def fit(trained, *, data=(X, Y), **options):
    settings = {"epochs": 3, "batch_size": 50, "shards": 8, "comm": COMM, "progress": False, **options}
    settings.setdefault("optimizer", fastbp.Adam(0.01))
    return trained.fit(*data, **settings)


def plain(_):
    """SGD without anything, more than one epoch in a chunk."""
    trained = model()
    return digest(trained, fit(trained, optimizer=fastbp.SGD(0.05)))


def halves(_):
    """As `plain`, with sums made by halves, as those of larger networks are."""
    before, communicator.HALVES_FROM_BYTES = communicator.HALVES_FROM_BYTES, 0
    try:
        return plain(_)
    finally:
        communicator.HALVES_FROM_BYTES = before


def rich(_):
    """Dropout, noise, weights, validation, clipping, a schedule that watches the history, early stopping."""
    trained = model(dropout=0.2, input_noise=0.1, layer_norm=True)
    rate = fastbp.schedules.ReduceOnPlateau(0.05, patience=0, factor=0.5)
    history = fit(
        trained,
        optimizer=fastbp.SGD(rate, momentum=0.9, clip_norm=1.0),
        epochs=12,
        sample_weight=np.arange(203) % 3,
        validation_split=0.2,
        metrics=["r2"],
        callbacks=[EarlyStopping(patience=2)],
    )
    return digest(trained, history)


def changes(_):
    """Rank 0's callback sets a rate, writes to parameters and ends the training."""

    def callback(model, epoch, history):
        if epoch == 1:
            optimizer.lr = 0.002
        if epoch == 2:
            model.weights[0] = model.weights[0] / 2
        if epoch == 3:
            model.reset()
        return epoch == 5

    trained, optimizer = model(), fastbp.Adam(0.01)
    history = fit(trained, optimizer=optimizer, epochs=9, callbacks=callback)
    return digest(trained, history) + f" {history.epochs} {optimizer.lr}"


def resumed(folder):
    """Goes on from the checkpoint of others that were killed, or begins where there is none."""
    trained, file = model(dropout=0.1), f"{folder}/{COMM.size}"
    if COMM.rank == 0 and os.path.exists(f"{folder}/killed"):
        shutil.copy(f"{folder}/killed", file)
    history = fit(trained, epochs=6, checkpoint=file, every_steps=3, callbacks=[EarlyStopping("loss")])
    again = model(dropout=0.1)  # it is finished, and says so on all ranks
    same = fit(again, epochs=6, checkpoint=file, every_steps=3, callbacks=[EarlyStopping("loss")])
    assert digest(again, same) == digest(trained, history)
    return digest(trained, history)


def stopped(folder):
    """The last rank is killed when some steps are done."""
    last = COMM.allgather(os.getpid())[-1]

    class Kill:
        def on_chunk_end(self, model, step, history):
            if step >= 12:
                os.kill(last, signal.SIGKILL)

    callbacks, file = [EarlyStopping("loss"), Kill()], f"{folder}/killed"
    fit(model(dropout=0.1), epochs=6, checkpoint=file, every_steps=3, callbacks=callbacks)


def mapped(folder):
    """Every rank maps the same files."""
    trained = model()
    paths = f"{folder}/X.npy", f"{folder}/Y.npy"
    return digest(trained, fit(trained, data=paths))


def local(_):
    """Parts of the ranks' own: as many rows as there are, or one fewer."""
    trained, own = model(), slice(COMM.rank, None, COMM.size)
    history = fit(trained, data=(X[own], Y[own]), local=True, batch_size=48)
    return digest(trained, history)


def interrupted(_):
    """Ctrl-C comes to one rank, the last, while steps run."""
    trained = model()
    before = trained.parameters.flat.copy()

    def press():
        while np.array_equal(before, trained.parameters.flat):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    if COMM.rank == COMM.size - 1:
        threading.Thread(target=press, daemon=True).start()
    history = fit(trained, epochs=10**7)
    assert history.interrupted, history
    return hashlib.sha256(trained.parameters.flat.tobytes()).hexdigest()[:16]


def three(_):
    """Three of the ranks want to train."""
    some = COMM.Split(int(COMM.rank < 3))
    try:
        return "trained" if COMM.rank > 2 else digest(model(), fit(model(), comm=some))
    except ValueError as error:
        return str(error)


class Fails(fastbp.schedules.Schedule):
    """A rate that fails on the last rank, within steps: the others wait for its part of a sum."""

    def __call__(self, step):
        if COMM.rank == COMM.size - 1 and np.any(np.asarray(step) > 6):
            raise LookupError("no rate for this step")
        return np.full(np.shape(step), 0.01)


def refused(kind):
    """One rank is different from the others: what all of them are told."""
    last = COMM.rank == COMM.size - 1
    trained = model(seed=6 if kind == "seed" and last else 5)
    options = {}
    if kind == "data" and last:
        options["data"] = X, Y + 1
    if kind == "optimizer" and last:
        options["optimizer"] = fastbp.Adam(0.02)
    if kind == "argument" and last:
        options["epochs"] = -1
    if kind == "shards":
        options["shards"] = 3 * COMM.size // 2
    if kind == "comm":
        options["comm"] = "COMM_WORLD"
    if kind == "callback":
        options["callbacks"] = [lambda model, epoch, history: 1 / 0]
    if kind == "steps":
        options["optimizer"] = fastbp.Adam(Fails())
    before = trained.parameters.flat.copy()
    try:
        fit(trained, **options)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        same = np.array_equal(before, trained.parameters.flat)
        return f"{type(error).__name__}: {error} (parameters {'as they were' if same else 'changed'})"
    return "not refused"


def refusals(_):
    """Of each kind one."""
    kinds = ("seed", "data", "optimizer", "argument", "shards", "comm", "callback")
    return {kind: refused(kind) for kind in kinds}


def failing(_):
    """A rank fails where nobody hears it."""
    communicator.GRACE_SECONDS = 0.5
    return refused("steps")


def vectors(_):
    """Ranks on different CPUs."""
    return refused("vectors")


def alone(_):
    """Without a communicator."""
    global COMM
    COMM = None
    return [plain(_), rich(_), changes(_)]


if __name__ == "__main__":
    result = {case: globals()[case](sys.argv[1]) for case in sys.argv[2:]}
    everyone = MPI.COMM_WORLD.gather(result)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(everyone), flush=True)
