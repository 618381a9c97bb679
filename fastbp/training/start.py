"""From what `fit` is given to a run: samples, and rows held out; or, of short trainings, to the history."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks, metrics
from fastbp.history import History
from fastbp.inputs.samples import Samples
from fastbp.inputs.sources import Labels
from fastbp.inputs.targets import is_within_reach, require_values, warn_if_out_of_reach
from fastbp.inspection.symmetry import symmetric_layers, warn_if_symmetric
from fastbp.mpi.shards import Shards
from fastbp.network.backend import Steps
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.schedules import Schedule
from fastbp.training.batch_run import BatchRun
from fastbp.training.batches import Batches, gives_batches
from fastbp.training.interrupt import Interrupts
from fastbp.training.options import NO_CALLBACKS, FitOptions
from fastbp.training.run import Run
from fastbp.training.shared.agreement import agreed_shards
from fastbp.training.shared.run import SharedRun, cut_into
from fastbp.training.validation import Validation

# Trainings that are expected to take no longer may be done at once: Ctrl-C waits for them.
SHORT_SECONDS = 0.02


def make_ready(model: Network, optimizer: Optimizer) -> None:
    """Have the parameters as training takes them. TypeError or ValueError for what cannot be trained."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an object like SGD(0.1) or Adam(), got {checks.shown(optimizer)}")
    parameters = model.parameters
    parameters.adopt()
    parameters.require_updatable()
    parameters.changed()


def train_step(
    model: Network,
    X: Any,
    Y: Any,
    optimizer: Optimizer,
    sample_weight: ArrayLike | None,
    check_finite: bool,
) -> float:
    """One call of `MLP.train_step`."""
    make_ready(model, optimizer)
    parameters, architecture = model.parameters, model.architecture
    batch = model.reader.batch(X, Y, sample_weight, check_finite).apart_from(parameters.flat)
    model.reader.learns(batch)
    steps = Steps(batch, None, 0, 1, len(batch))
    out = None if batch.weighted else model.backend.train_at_once(steps, 0, optimizer)
    if out is None:
        rule, out = optimizer.snapshot(), np.empty(1)
        state = rule.state(parameters.owner, len(parameters), architecture.dtype)
        model.backend.train(steps, rule, state, out)
    return float(out[0]) if architecture.reduction == "sum" else float(out[0]) / len(batch)


def fit(model: Network, X: Any, Y: Any, options: FitOptions) -> History:
    """One call of `MLP.fit`."""
    make_ready(model, options.optimizer)
    if options.is_plain and Y is not None:
        history = _fit_at_once(model, X, Y, options)
        if history is not None:
            return history
    held_out = None
    if options.leads:
        held_out = model.reader.validation(options.validation_data, options.check_finite)
    if Y is None:
        run, validation = _run_of_batches(model, X, held_out, options)
    else:
        run, validation = _run_of_arrays(model, X, Y, held_out, options)
    if options.checkpoints is not None and options.leads:
        options.checkpoints.compare(run)
        run.checkpoints = options.checkpoints
    callbacks = options.sorted_callbacks if options.leads else NO_CALLBACKS
    history = run.train(validation, callbacks, options.progress and options.leads)
    if run.shortage:
        checks.warn(run.shortage)
    return history


# ---- all at once -------------------------------------------------------------------------------------------


def _fit_at_once(model: Network, X: Any, Y: Any, options: FitOptions) -> History | None:
    """A short training that nobody watches, with data that are taken as they are: all of it is one entry into
    compiled code, as what a `Run` does between its chunks would take longer than the steps.

    None where it is another one, or there is something to be said of it (also that it diverges): nothing has
    changed then.
    """
    backend, samples = model.backend, model.reader.samples_as_they_are(X, Y)
    if samples is None or not options.epochs or isinstance(options.optimizer.lr, Schedule):
        return None
    if samples.apart_from(model.parameters.flat) is not samples:
        return None
    rows, batch_size = len(samples), min(options.batch_size, len(samples))
    steps = Steps(samples, None, 0, options.epochs * -(-rows // batch_size), batch_size)
    if steps.last * backend.expected_step_seconds(batch_size, None) > SHORT_SECONDS:
        return None
    if options.progress and sys.stderr is not None and sys.stderr.isatty():
        return None
    if not _raises_no_doubt(model, samples, options.check_finite):
        return None
    interrupts, history = Interrupts(backend.request_stop), None
    try:
        with interrupts:
            try:
                history = _train_at_once(model, steps, options)
            except KeyboardInterrupt:  # of a handler that is not ours
                history = History()
                history.interrupted = True
    except Exception as error:
        error.history = History()  # type: ignore[attr-defined]
        raise
    finally:
        model.parameters.changed()
    if interrupts.pressed:
        history = history or History()
        history.interrupted = True
    if history is not None and history.interrupted:
        interrupts.pass_on()
    return history


def _raises_no_doubt(model: Network, samples: Samples, check_finite: bool) -> bool:
    """Whether there is nothing to be said against, or about, the data and the units. (Parameters that are not
    finite do not become so.)"""
    architecture, backend = model.architecture, model.backend
    X, Y, loss = samples.X, samples.Y, architecture.loss
    assert isinstance(X, np.ndarray) and isinstance(Y, np.ndarray)
    if checks.flag("check_finite", check_finite):
        if not (backend.is_finite(X) and backend.is_finite(Y)):
            return False
        require_values("Y", Y, loss)
    reached = is_within_reach(Y, architecture.activations[-1], loss, backend.is_within)
    return reached and (model.parameters.symmetry_reported or not symmetric_layers(model))


def _train_at_once(model: Network, steps: Steps, options: FitOptions) -> History | None:
    """Do all steps; None: nothing has changed."""
    began, epochs, backend = time.perf_counter(), options.epochs or 0, model.backend
    losses = backend.train_at_once(steps, epochs if options.shuffle else 0, options.optimizer)
    if losses is None:
        return None
    seconds = time.perf_counter() - began
    backend.measured_step = (steps.batch_size, None), seconds / steps.last
    divisor = 1 if model.architecture.reduction == "sum" else len(steps.samples)
    rate = float(options.optimizer.lr)  # type: ignore[arg-type]  # no schedule
    means = [total / divisor for total in np.add.reduce(losses.reshape(epochs, -1), axis=1).tolist()]
    return History._of_run(means, [rate] * epochs, [seconds / epochs] * epochs, seconds)


# ---- runs --------------------------------------------------------------------------------------------------


def samples_to_train(
    model: Network, X: Any, Y: Any, sample_weight: ArrayLike | None, check_finite: bool
) -> Samples:
    """What the caller gave, checked, and not in the memory of the model's own parameters."""
    return model.reader.samples(X, Y, sample_weight, check_finite).apart_from(model.parameters.flat)


def _run_of_arrays(
    model: Network, X: Any, Y: Any, held_out: Samples | None, options: FitOptions
) -> tuple[Run, Validation | None]:
    if gives_batches(X):
        raise TypeError(f"X is a {type(X).__name__}, which gives batches (X, Y): leave Y out")
    options.require_for_arrays()
    samples = samples_to_train(model, X, Y, options.sample_weight, options.check_finite)
    samples.require_some_weight("sample_weight", "trained on")
    checkpoints = options.checkpoints
    if checkpoints is not None and options.leads:
        checkpoints.open(model, options.described(model.architecture, samples, held_out))
        model.streams.splitting = checkpoints.splitting(model.streams.splitting)
    if options.validation_split:
        rows, held_rows = split_rows(model, len(samples), options.validation_split)
        samples, held_out = samples.picked(rows), samples.picked(held_rows)
        samples.require_some_weight("sample_weight", "not held out")
        held_out.require_some_weight("sample_weight", "held out")
    return run_of_samples(model, samples, held_out, options)


def run_of_samples(
    model: Network, samples: Samples, held_out: Samples | None, options: FitOptions
) -> tuple[Run, Validation | None]:
    """A run on samples of this model's reader, and what judges it on those that are held out."""
    samples = samples.class_weighted(options.class_weight, model.architecture.loss)
    samples.require_some_weight("class_weight", "trained on")
    output, loss = model.architecture.activations[-1], model.architecture.loss
    warn_if_out_of_reach(samples.targets, output, loss, model.backend.is_within)
    validation = validation_of(model, held_out, options)
    _require_trainable(model)
    rows_of_step = min(options.accumulate * options.batch_size, len(samples))
    if options.local:
        rows_of_step = options.batch_size_of_rank
    part = options.batch_size if options.batch_size < rows_of_step else None
    steps = options.steps
    if steps is None:
        assert options.epochs is not None
        steps = options.epochs * -(-len(samples) // rows_of_step)
    _require_cuttable(model, samples, options)
    model.reader.learns(samples)
    if options.ranks is not None and options.ranks.size > 1:
        shards = agreed_shards(model, samples, options)
        return SharedRun(model, samples, steps, options, shards), validation
    run = Run(model, samples, steps, rows_of_step, options.optimizer, options.shuffle, part)
    run.row_order = options.order
    if options.shards > 1:
        cut_into(Shards(options.shards), run)
    return run, validation


def _require_cuttable(model: Network, samples: Samples, options: FitOptions) -> None:
    """ValueError for what cannot be had where batches are cut into shards, or a rank has rows of its own."""
    network, shared = model.architecture, options.ranks is not None and options.ranks.size > 1
    if network.l2 and (options.shards > 1 or shared):
        raise ValueError(
            f"l2 is {network.l2:g}, shards={options.shards}: each shard would add the penalty of all "
            "weights. Give the optimizer weight_decay (and decay_biases=False), or no shards"
        )
    if shared and options.order is not None:
        raise ValueError("order is for one process: with comm, all ranks draw from the model's seed")
    if shared and options.local and network.reduction == "weighted_mean" and samples.weighted:
        raise ValueError(
            "reduction='weighted_mean' needs the weights of whole batches, which no rank has with local=True"
        )


def _run_of_batches(
    model: Network, X: Any, held_out: Samples | None, options: FitOptions
) -> tuple[Run, Validation | None]:
    options.require_for_batches()
    validation = validation_of(model, held_out, options)
    _require_trainable(model)

    def prepare(X: Any, Y: Any, weights: Any) -> Samples:
        batch = samples_to_train(model, X, Y, weights, options.check_finite)
        model.reader.learns(batch)
        return batch.class_weighted(options.class_weight, model.architecture.loss)

    return BatchRun(model, Batches(X, options.accumulate, prepare), options), validation


def validation_of(model: Network, held_out: Samples | None, options: FitOptions) -> Validation | None:
    """ValueError for metrics that cannot be computed, or have nothing to be computed on."""
    if not options.leads:
        return None
    targets = None
    if held_out and options.metrics:
        given = held_out.targets
        targets = given.labels if isinstance(given, Labels) else given[:]
    architecture = model.architecture
    entries = metrics.chosen(options.metrics, targets, architecture.outputs, architecture.loss.name)
    return Validation(held_out, entries) if held_out else None


def has_finite_parameters(model: Network) -> bool:
    """Whether there is no NaN and no infinity, by the backend's quick look where it has one."""
    return model.backend.is_finite(model.parameters.flat) or model.parameters.are_finite()


def require_finite_parameters(model: Network) -> None:
    """ValueError if there is NaN or infinity."""
    if not has_finite_parameters(model):
        raise ValueError("weights, biases or gains hold NaN or infinity: training cannot start from them")


def _require_trainable(model: Network) -> None:
    """ValueError for parameters that are not finite; a warning where units are all alike, to the caller of
    `fit`, so many calls above."""
    require_finite_parameters(model)
    warn_if_symmetric(model)


def split_rows(model: Network, rows: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to train on and rows held out, both in the order of the data; the same ones in every call."""
    held = round(fraction * rows)
    if not 0 < held < rows:
        side = "training" if held else "validation"
        raise ValueError(f"validation_split={fraction:g} of {rows} rows leaves nothing for {side}")
    order = np.random.default_rng(model.streams.splitting).permutation(rows)
    return np.sort(order[held:]), np.sort(order[:held])
