"""One configuration for digests.py: a model, how it is trained and on what, and the digest of the results."""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastbp

Array = np.ndarray[Any, Any]


class Digest:
    """A hash of arrays, numbers and what else has a repr, with their shapes and dtypes."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, *values: Any) -> None:
        for value in values:
            if isinstance(value, list | tuple):
                self.add(len(value), *value)
            elif isinstance(value, np.ndarray):
                self._hash.update(f"{value.shape}{value.dtype}".encode() + value.tobytes())
            else:
                self._hash.update(repr(value).encode())

    def history(self, history: fastbp.History) -> None:
        self.add(history.loss, history.lr, history.val_loss, sorted(history.val_metrics.items()))
        self.add(history.best_epoch, history.stopped_early)

    def parameters(self, model: fastbp.MLP) -> None:
        self.add(model.weights, model.biases, model.gains)

    def model(self, model: fastbp.MLP, X: Any, Y: Any, batch: int) -> None:
        """Parameters and predictions; the trace, loss and gradients of a batch; predictions of a few rows."""
        self.parameters(model)
        self.add(model.predict(X))
        few = slice(0, batch)
        trace = model.forward(X[few])
        self.add(trace.z, trace.a, trace.n, trace.inverse_std)
        gradients = model.backward(trace, Y[few])
        self.add(gradients.weights, gradients.biases, gradients.gains, model.loss(X, Y))
        for rows in (1, 2, 5):
            self.add(model.predict(np.asarray(X)[:rows].astype(model.dtype)))

    def text(self) -> str:
        return self._hash.hexdigest()[:16]


@dataclass
class Training:
    """A configuration: `MLP(sizes, **model).fit(X, Y, batch_size=batch, optimizer=optimizer(), **fit())`."""

    sizes: list[int]
    batch: int = 32
    optimizer: Callable[[], Any] = lambda: fastbp.SGD(0.05)
    model: dict[str, Any] = field(default_factory=dict)
    fit: Callable[[], dict[str, Any]] = dict
    X: Callable[[Array], Any] = np.asarray  # what becomes of standard normal X
    Y: Callable[[Array], Any] = np.asarray  # what becomes of the loss's targets
    samples: int = 0  # 0: two batches and a part of one
    threads: tuple[int, ...] = (1,)  # the numbers of threads, which all have to give the same

    def data(self, name: str) -> tuple[Any, Any]:
        """X and Y, from the name of the configuration."""
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        samples = self.samples or 2 * self.batch + self.batch // 3 + 1
        X = rng.standard_normal((samples, self.sizes[0]))
        Y = rng.random((samples, self.sizes[-1]))
        loss, dtype = self.model.get("loss", "mse"), self.model.get("dtype", "float32")
        if loss == "hinge":
            Y = np.where(Y < 0.5, -1.0, 1.0)
        elif loss.startswith("categorical"):
            Y = np.eye(self.sizes[-1])[Y.argmax(axis=1)]
        return self.X(X.astype(dtype)), self.Y(Y.astype(dtype))

    def new_model(self, threads: int = 1) -> fastbp.MLP:
        model = fastbp.MLP(self.sizes, **{"seed": 3, **self.model}, threads=threads)
        for b in model.biases:
            b[...] = np.linspace(-0.3, 0.5, len(b))
        return model

    def trained(self, model: fastbp.MLP, X: Any, Y: Any, **options: Any) -> fastbp.History:
        options = {"epochs": 2, "batch_size": self.batch, **self.fit(), **options}
        if "steps" in options:
            del options["epochs"]
        options.setdefault("optimizer", self.optimizer())
        return model.fit(X, Y, progress=False, **options)

    def run(self, name: str) -> str:
        """The digest; AssertionError if training did nothing, or depends on the number of threads."""
        X, Y = self.data(name)
        results = []
        for threads in self.threads:
            model, digest = self.new_model(threads), Digest()
            before = [W.copy() for W in model.weights]
            digest.history(self.trained(model, X, Y))
            for i, (W, old) in enumerate(zip(model.weights, before, strict=True)):
                assert np.isfinite(W).all() and not np.array_equal(W, old), f"weights[{i}] were not trained"
            digest.model(model, X, Y, self.batch)
            results.append(digest.text())
        assert len(set(results)) == 1, f"digests of {self.threads} threads: {results}"
        return results[0]
