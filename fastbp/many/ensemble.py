"""Models whose predictions are looked at together: their mean, and how far they are apart."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks, losses
from fastbp.engine.memory import most_workers
from fastbp.engine.threads import own_thread, team
from fastbp.history import History
from fastbp.inputs import sources
from fastbp.inputs.sources import Rows
from fastbp.many import arguments
from fastbp.many.fit import fit_many
from fastbp.model import MLP
from fastbp.network.network import Network
from fastbp.network.spare_plans import SparePlans
from fastbp.storage import ensemble_file

Array = NDArray[Any]

# Multiply-adds of all members from which other threads are worth starting.
THREADS_FROM_MULTIPLY_ADDS = 20_000_000


class Ensemble:
    """Models of the same inputs and outputs, trained and asked together.

    models : any mixture of architectures, also with different losses and seeds. ValueError if their inputs
        or outputs differ, or one is there twice.

    Lakshminarayanan, Pritzel and Blundell, NeurIPS 2017: some five networks that differ in nothing but their
    seed, each trained on all data, say with their spread what they do not know.
    """

    def __init__(self, models: Sequence[Network]) -> None:
        self.models = tuple(arguments.networks(models))
        ends = {(model.layer_sizes[0], model.layer_sizes[-1]) for model in self.models}
        if len(ends) > 1:
            raise ValueError(
                "the models of an ensemble have the same inputs and outputs, got "
                + " and ".join(f"{i} to {o}" for i, o in sorted(ends))
            )
        if len({model.architecture.loss.of_pairs for model in self.models}) > 1:
            raise ValueError("of an ensemble either all models have loss='gaussian_nll' or none")
        self._spare = SparePlans(4 * most_workers())

    def __len__(self) -> int:
        return len(self.models)

    def __iter__(self) -> Iterator[Network]:
        return iter(self.models)

    def __getitem__(self, i: int) -> Network:
        return self.models[i]

    def __repr__(self) -> str:
        return f"Ensemble of {len(self)}, the first: {self.models[0]!r}"

    def __getstate__(self) -> dict[str, Any]:
        return {"models": self.models}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.models = state["models"]
        self._spare = SparePlans(4 * most_workers())

    def fit(self, X: ArrayLike, Y: ArrayLike, **options: Any) -> list[History]:
        """`fit_many` of its models, with the same options; `rows` may give each a bootstrap sample."""
        return fit_many(self.models, X, Y, **options)

    def predict(self, X: ArrayLike, *, threads: int | None = None, check_finite: bool = True) -> Array:
        """(members, rows, outputs): what each model's `predict` returns for X (rows, inputs), to the bit.

        Each core asks another model. threads, check_finite and errors as in `fit_many` and `MLP.predict`.
        """
        if threads is not None:
            checks.count("threads", threads)
        read: dict[Any, Array | Rows] = {}
        inputs = []
        for model in self.models:
            model.parameters.adopt()
            way = arguments.reading_of(model)[:4]
            if way not in read:
                read[way] = model.reader.input_rows(X, check_finite)
            inputs.append(read[way])
        rows, outputs = len(inputs[0]), self.models[0].architecture.outputs
        dtype = np.result_type(*{model.dtype for model in self.models})
        out = np.empty((len(self), rows, outputs), dtype)
        queue = deque(range(len(self)))
        cores = min(team.available(threads), len(self))
        if cores == 1 or rows * sum(map(_size, self.models)) < THREADS_FROM_MULTIPLY_ADDS:
            self._ask(queue, inputs, out)
        else:
            own_thread.run(lambda: self._ask_side_by_side(cores, queue, inputs, out), np.zeros(1, np.int64))
        return out

    def _ask_side_by_side(
        self, cores: int, queue: deque[int], inputs: Sequence[Array | Rows], out: Array
    ) -> None:
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                with team.alone():
                    self._ask(queue, inputs, out)
            except BaseException as error:
                queue.clear()
                errors.append(error)

        others = [threading.Thread(target=ask) for _ in range(cores - 1)]
        for thread in others:
            thread.start()
        ask()
        for thread in others:
            thread.join()
        if errors:
            raise errors[0]

    def _ask(self, queue: deque[int], inputs: Sequence[Array | Rows], out: Array) -> None:
        """Take models from the queue until it is empty."""
        while True:
            try:
                i = queue.popleft()
            except IndexError:
                return
            x, backend = inputs[i], self.models[i].backend
            few = backend.predict_few_rows(x, False)
            if few is not None:
                out[i] = few
                continue
            backend.share_plans(self._spare)
            try:
                if isinstance(x, Rows):
                    for rows in sources.row_blocks(x):
                        out[i, rows] = backend.predict(x[rows])
                else:
                    out[i] = backend.predict(x)
            finally:
                backend.give_plans_back()

    def mean(self, X: ArrayLike, **options: Any) -> Array:
        """(rows, outputs): the mean of the predictions; of probabilities, a probability. As `predict`.

        With loss "gaussian_nll" (rows, outputs / 2): the mean of the means.
        """
        return self.mean_and_std(X, **options)[0]

    def std(self, X: ArrayLike, **options: Any) -> Array:
        """(rows, outputs): the standard deviation of the predictions over the models. As `predict`.

        With loss "gaussian_nll" (rows, outputs / 2): that of the mixture of the models' normal distributions,
        whose variance is the mean of variance + mean², less the mean's square (Lakshminarayanan and others,
        section 2.4).
        """
        return self.mean_and_std(X, **options)[1]

    def mean_and_std(self, X: ArrayLike, **options: Any) -> tuple[Array, Array]:
        """Both, from one call of `predict`."""
        predictions = self.predict(X, **options)
        if self.models[0].architecture.loss.of_pairs:
            return self._of_mixture(predictions)
        mean = predictions.mean(axis=0, dtype=np.float64)
        std = np.sqrt(np.square(predictions - mean).mean(axis=0))
        return mean.astype(predictions.dtype), std.astype(predictions.dtype)

    def _of_mixture(self, predictions: Array) -> tuple[Array, Array]:
        rows, outputs = predictions.shape[1:]
        means, variances = losses.gaussian(predictions.reshape(-1, outputs).astype(np.float64))
        means, variances = (part.reshape(len(self), rows, -1) for part in (means, variances))
        mean = means.mean(axis=0)
        std = np.sqrt((variances + np.square(means - mean)).mean(axis=0))
        return mean.astype(predictions.dtype), std.astype(predictions.dtype)

    def plot(self, X: ArrayLike, Y: ArrayLike) -> Any:
        """The band of an ensemble of one input and one output, as `fastbp.plot.band` draws it: a Figure."""
        from fastbp import plot

        return plot.band(self, X, Y)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all models into one safetensors file, or on an error nothing. As `MLP.save`."""
        ensemble_file.save(self.models, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The ensemble in a file that `save` wrote. Runs no code of the file; errors as of `MLP.load`."""
        models = []
        for architecture, metadata, feature_names, parameters in ensemble_file.load(path):
            model = MLP(**architecture.to_json())
            model.parameters.replace(parameters)
            model.metadata, model.reader.feature_names = metadata, feature_names
            models.append(model)
        return cls(models)


def _size(model: Network) -> int:
    return len(model.parameters)
