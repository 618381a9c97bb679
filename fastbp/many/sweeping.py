"""Which hyper-parameters are best: a grid of configurations, each judged by cross-validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastbp import checks, metrics
from fastbp.engine.memory import most_workers
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.inputs.sources import Labels
from fastbp.many import grid as grids
from fastbp.many import splits
from fastbp.many.fit import train
from fastbp.many.preparation import Data, prepared
from fastbp.many.table import Sweep
from fastbp.metrics import Function
from fastbp.network.network import Network
from fastbp.network.spare_plans import SparePlans
from fastbp.optimizer_base import Optimizer
from fastbp.optimizers import Adam
from fastbp.training.options import BATCH_SIZE
from fastbp.training.validation import Validation

# Of each round of halving a third goes on, for three times as many epochs: Li and others, Hyperband, JMLR 18
# (2018), take 3 or 4.
ETA = 3


@dataclass
class Candidate:
    """A configuration, its models (one for each fold), and how they have done."""

    configuration: dict[str, Any]
    models: list[Network]
    optimizer: Optimizer
    epochs: int
    batch_size: int
    done: int = 0  # epochs
    scores: list[float] = field(default_factory=list)
    diverged: int = 0

    @property
    def score(self) -> float:
        """The mean over the folds, NaN if one of the models has diverged."""
        return math.nan if self.diverged else float(np.mean(self.scores))


def sweep(
    base: Network,
    grid: Mapping[str, Sequence[Any]],
    X: ArrayLike,
    Y: ArrayLike,
    *,
    cv: Any = 5,
    metric: str | Function = "loss",
    mode: str = "auto",
    epochs: int = 50,
    batch_size: int = BATCH_SIZE,
    optimizer: Optimizer | None = None,
    random: int | None = None,
    halving: bool = False,
    seed: int = 0,
    threads: int | None = None,
    executor: Any = None,
    progress: bool = True,
) -> Sweep:
    """Train every configuration of a grid on every fold, all side by side, and rank them.

    Parameters
    ----------
    base : a model, whose options hold where the grid says nothing. It is not trained.
    grid : names and lists of values: options of `MLP` ("dropout", "hidden", ...), "hidden sizes" (lists of
        widths, without inputs and outputs), hyper-parameters of the optimizer ("lr", ...), "optimizer" (a
        list of them), "epochs", "batch_size". With `random` also distributions with scipy's
        rvs(random_state=).
    X, Y : as in `fit`.
    cv : the number of folds, drawn from `seed`, with each class's share in every fold; or pairs of indices
        (rows to train on, rows that judge); or an object with scikit-learn's split(X, Y).
    metric : "loss", or as in `fit(metrics=)`, on the rows that judge; `mode`: "min" or "max" is better, where
        "auto" cannot know.
    epochs, batch_size, optimizer : where the grid says nothing; optimizer None: Adam().
    random : draw so many configurations instead of taking all.
    halving : all are trained for a part of their epochs; the best third goes on three times as long, and so
        on. (Successive halving: Jamieson and Talwalkar, AISTATS 2016.)
    threads, executor, progress : as in `fit_many`.

    Returns
    -------
    `Sweep`, the table of configurations, best first. Errors as of `fit_many`, before anything trains; at
    Ctrl-C KeyboardInterrupt.
    """
    if not isinstance(base, Network):
        raise TypeError(f"base must be a model like MLP, got {checks.shown(base)}")
    default = Adam() if optimizer is None else optimizer
    if not isinstance(default, Optimizer):
        raise TypeError(f"optimizer must be an object like SGD(0.1) or Adam(), got {checks.shown(optimizer)}")
    halving = checks.flag("halving", halving)
    found = grids.configurations(grid, default, random, seed)
    samples = base.reader.samples(X, Y, None, True)
    judge = Judge(metric, mode, samples, base)
    pairs = splits.folds(cv, X, Y, len(samples), classes_of(samples, base), seed)
    candidates = [
        _candidate(base, default, configuration, len(pairs), epochs, batch_size) for configuration in found
    ]
    field_of = Field(X, Y, pairs, judge, threads, progress, executor)
    for share, kept in _rounds(len(candidates), halving):
        going_on = _ranked(candidates, judge)[:kept]
        field_of.train(going_on, share)
    return Sweep(
        [
            {
                **c.configuration,
                judge.name: c.score,
                "std": float(np.std(c.scores)),
                "scores": tuple(c.scores),
                "epochs_done": c.done,
            }
            for c in _ranked(candidates, judge)
        ],
        list(found[0]),
        judge.name,
        judge.more_is_better,
        base,
        default,
        (epochs, batch_size),
    )


def _candidate(
    base: Network, default: Optimizer, configuration: dict[str, Any], folds: int, epochs: int, batch_size: int
) -> Candidate:
    try:
        return Candidate(
            configuration,
            [grids.model_of(base, configuration) for _ in range(folds)],
            grids.optimizer_of(default, configuration),
            checks.count("epochs", configuration.get("epochs", epochs)),
            checks.count("batch_size", configuration.get("batch_size", batch_size)),
        )
    except (ValueError, TypeError) as error:
        error.add_note(f"(of the configuration {configuration})")
        raise


def _rounds(count: int, halving: bool) -> list[tuple[float, int]]:
    """(share of the epochs that are then done, how many go that far) of each round."""
    rounds = int(math.log(count, ETA) + 1e-9) if halving else 0
    return [(ETA ** (k - rounds), max(1, count // ETA**k)) for k in range(rounds + 1)]


def _ranked(candidates: list[Candidate], judge: Judge) -> list[Candidate]:
    """The best first: those that were trained longer before others, those that diverged last."""

    def rank(candidate: Candidate) -> tuple[Any, ...]:
        if not candidate.scores:
            return 0, 0, 0.0
        lost = math.isnan(candidate.score)
        sign = -1.0 if judge.more_is_better else 1.0
        return lost, -candidate.done / candidate.epochs, 0.0 if lost else sign * candidate.score

    return sorted(candidates, key=rank)


def classes_of(samples: Samples, model: Network) -> Any:
    """(rows,) the class of each row, where targets are classes; None elsewhere."""
    loss, targets = model.architecture.loss, samples.targets
    if isinstance(targets, Labels):
        return targets.labels
    if loss.of_classes:
        return targets[:].argmax(axis=1)
    one = targets.shape[1] == 1 and (loss.targets_are_signs or loss.targets_in_unit_interval)
    values = np.unique(targets[:]) if one else np.empty(0)
    return targets[:, 0] if one and len(values) <= 2 else None


class Judge:
    """What configurations are ranked by."""

    def __init__(self, metric: str | Function, mode: str, samples: Samples, base: Network) -> None:
        checks.known_name("mode", mode, ("auto", "min", "max"))
        self.entries: Sequence[metrics.Metric] = ()
        self.name = "loss"
        if not isinstance(metric, str) and not callable(metric):
            raise TypeError(f"metric must be a name or a function, got {checks.shown(metric)}")
        if metric != "loss":
            targets = samples.targets
            values = targets.labels if isinstance(targets, Labels) else targets[:]
            self.entries = metrics.chosen(metric, values, samples.outputs, base.architecture.loss.name)
            self.name = self.entries[0].name
        better = False if self.name == "loss" else metrics.more_is_better(self.name)
        if mode == "auto" and better is None:
            raise ValueError(f"sweep cannot tell whether more or less of {self.name!r} is better: use mode=")
        self.more_is_better = bool(better) if mode == "auto" else mode == "max"


@dataclass
class Field:
    """The data, the folds, and how models are trained and judged on them."""

    X: Any
    Y: Any
    pairs: list[tuple[Any, Any]]
    judge: Judge
    threads: int | None
    progress: bool
    executor: Any

    def train(self, candidates: list[Candidate], share: float) -> None:
        """Go on until that share of each one's epochs is done."""
        folds = len(self.pairs)
        wanted = [max(1, round(c.epochs * share)) for c in candidates]
        models = [model for c in candidates for model in c.models]
        members = prepared(
            models,
            Data(self.X, self.Y, rows=[rows for rows, _ in self.pairs] * len(candidates)),
            [n - c.done for c, n in zip(candidates, wanted, strict=True) for _ in range(folds)],
            [c.optimizer for c in candidates for _ in range(folds)],
            [c.batch_size for c in candidates for _ in range(folds)],
            None,
            {},
        )
        train(members, self.threads, self.progress, self.executor)
        histories = [member.history for member in members]
        if any(history.interrupted for history in histories):
            raise KeyboardInterrupt
        spare = SparePlans(4 * most_workers())
        for i, (candidate, epochs) in enumerate(zip(candidates, wanted, strict=True)):
            own = members[i * folds : (i + 1) * folds]
            candidate.done = epochs
            candidate.diverged = sum(member.history.diverged is not None for member in own)
            candidate.scores = [
                self._score(member.model, member.samples.picked(rows), member.history, spare)
                for member, (_, rows) in zip(own, self.pairs, strict=True)
            ]

    def _score(self, model: Network, samples: Samples, history: History, spare: SparePlans) -> float:
        if history.diverged:
            return math.nan
        model.backend.share_plans(spare)
        try:
            return Validation(samples, self.judge.entries).evaluate(model)[self.judge.name]
        finally:
            model.backend.give_plans_back()
