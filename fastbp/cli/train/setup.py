"""From the options of `fastbp train` to what `MLP` and `MLP.fit` are given."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import fastbp
from fastbp import checks, losses, metrics, schedules
from fastbp.cli.train.options import EPOCHS, LEARNING_RATES
from fastbp.optimizer_base import Optimizer
from fastbp.optimizers import OPTIMIZERS
from fastbp.tables.answer import Answer
from fastbp.tables.parts import Data

HYPER_PARAMETERS = (
    *("momentum", "nesterov", "betas", "alpha", "eps"),
    *("weight_decay", "l1", "decay_biases", "clip_value", "clip_norm"),
)


def network(settings: argparse.Namespace, data: Data) -> fastbp.MLP:
    output, loss = _output_and_loss(settings, data.answer)
    dropout = settings.dropout or [0.0]
    scale, offset = data.scaling
    return fastbp.MLP(
        [data.training.X.shape[1], *settings.hidden, data.answer.outputs],
        hidden=settings.activation,
        output=output,
        loss=loss,
        reduction=settings.reduction,
        l2=settings.l2,
        init=settings.init,
        dtype=settings.dtype,
        precision=settings.precision,
        seed=settings.seed,
        threads=settings.threads,
        max_norm=settings.max_norm,
        input_scale=scale,
        input_offset=offset,
        layer_norm=settings.layer_norm,
        dropout=dropout[0] if len(dropout) == 1 else dropout,
        input_noise=settings.input_noise,
    )


def _output_and_loss(settings: argparse.Namespace, answer: Answer) -> tuple[str, str]:
    """ValueError for what does not fit the answer. The first output and loss that fit it are its defaults."""
    outputs = answer.activations
    fitting = tuple(name for name, entry in losses.LOSSES.items() if entry.of_quantities)
    what = "a quantity"
    if answer.classes is not None:
        what = f"{len(answer.classes)} classes"
        fitting = ("binary_crossentropy", *fitting)
        if answer.outputs == 1:
            what = "two classes, which share one output"
        elif settings.output != "sigmoid":
            fitting = ("categorical_crossentropy", *fitting)
    loss = settings.loss or fitting[0]
    if loss.partition("(")[0] not in fitting:
        given = f" with --output {settings.output}" if settings.output else ""
        raise ValueError(f"--loss {loss} is not for {what}{given}: give {_or(fitting)}")
    needed = losses.get(loss).output
    output = settings.output or needed or outputs[0]
    if output not in outputs:
        raise ValueError(f"--output {output} is not for {what}: give {_or(outputs)}")
    if needed not in (None, output):
        raise ValueError(f"--loss {loss} is defined for --output {needed}, got {output}")
    return output, loss


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# ---- how it is trained --------------------------------------------------------------------------------


def steps_per_epoch(settings: argparse.Namespace, rows: int) -> int:
    """As `fit` counts them."""
    rows_of_step: int = min(settings.accumulate * settings.batch_size, rows)
    return -(-rows // rows_of_step)


def optimizer(settings: argparse.Namespace, data: Data, columns: list[str]) -> Optimizer:
    """columns: of the history, which a schedule may look at."""
    given = {name: getattr(settings, name) for name in HYPER_PARAMETERS}
    given = {name: value for name, value in given.items() if value is not None}
    made: Callable[..., Optimizer] = OPTIMIZERS[settings.optimizer]
    return made(_rate(settings, len(data.training), columns), **given)


def _rate(settings: argparse.Namespace, rows: int, columns: list[str]) -> float | schedules.Schedule:
    lr = settings.lr or LEARNING_RATES[settings.optimizer]
    per_epoch = steps_per_epoch(settings, rows)
    total = settings.steps or (settings.epochs or EPOCHS) * per_epoch

    def steps(epochs: float) -> int:
        return max(1, round(epochs * per_epoch))

    rising = 0 if settings.warm_up is None else steps(settings.warm_up)
    if rising >= total:
        raise ValueError(
            f"--warm-up {settings.warm_up:g} leaves none of the {total} steps for what comes after it"
        )
    made = _schedule(settings, lr, total - rising, steps, columns)
    if not rising:
        return made
    return schedules.WarmUp(made, rising, **_given(start=settings.warm_up_start))


def _schedule(
    settings: argparse.Namespace, lr: float, left: int, steps: Callable[[float], int], columns: list[str]
) -> float | schedules.Schedule:
    """left: steps that it has; steps(n): how many n epochs are."""
    factor = settings.decay_factor
    match settings.schedule:
        case "step":
            return schedules.Step(lr, steps(settings.decay_every or 10), **_given(factor=factor))
        case "exponential":
            return schedules.Exponential(lr, (0.95 if factor is None else factor) ** (1 / steps(1)))
        case "cosine":
            low = _given(low=settings.min_lr)
            if settings.restart_every is None:
                return schedules.Cosine(lr, left, **low)
            growth = _given(growth=settings.restart_growth)
            return schedules.Cosine(lr, steps(settings.restart_every), restarts=True, **low, **growth)
        case "one-cycle":
            shape = _given(up=settings.cycle_up, start=settings.cycle_start, end=settings.cycle_end)
            return schedules.OneCycle(lr, left, **shape)
        case "plateau":
            monitor = settings.plateau_monitor
            if monitor is not None:
                checks.known_name("--plateau-monitor", monitor, columns)
            return schedules.ReduceOnPlateau(
                lr,
                monitor=monitor,
                mode="max" if monitor is not None and _more_is_better(monitor) else "min",
                **_given(
                    factor=factor,
                    patience=settings.plateau_patience,
                    threshold=settings.plateau_threshold,
                    cooldown=settings.plateau_cooldown,
                    min_lr=settings.min_lr,
                ),
            )
    return lr


def _given(**options: Any) -> dict[str, Any]:
    """Those that were given; for the others, what is called has defaults."""
    return {name: value for name, value in options.items() if value is not None}


def _more_is_better(column: str) -> bool:
    return bool(metrics.more_is_better(column.removeprefix("val_")))


def watched_metrics(settings: argparse.Namespace, answer: Answer) -> list[str]:
    """What is computed on the validation rows after each epoch."""
    if not settings.validation:
        return []
    if settings.metrics is not None:
        return list(settings.metrics)
    return ["r2"] if answer.classes is None else ["accuracy"]


def columns(settings: argparse.Namespace, answer: Answer) -> list[str]:
    """Of the history, as far as they can be monitored."""
    watched = ["loss", *watched_metrics(settings, answer)] if settings.validation else []
    return ["loss", *(f"val_{name}" for name in watched)]


def callbacks(settings: argparse.Namespace, known: list[str]) -> list[fastbp.EarlyStopping]:
    if settings.patience is None:
        return []
    monitor = settings.monitor or "val_loss"
    if monitor.startswith("val_") and not settings.validation:
        raise ValueError(f"--patience looks at {monitor}: give --validation SHARE as well, or --monitor loss")
    checks.known_name("--monitor", monitor, known)
    return [fastbp.EarlyStopping(monitor, patience=settings.patience, min_delta=settings.min_delta or 0.0)]


def class_weights(settings: argparse.Namespace, answer: Answer) -> str | dict[int, float] | None:
    """By the classes' positions, as `fit` calls them."""
    given = settings.class_weights
    if given is None:
        return None
    if answer.classes is None:
        raise ValueError("--class-weights is for classes, the target is a quantity")
    if "balanced" in given:
        if len(given) > 1:
            raise ValueError("--class-weights is balanced, or a weight for each class; not both")
        return "balanced"
    names = [str(label) for label in answer.classes]
    weights: dict[int, float] = {}
    for name, weight in given:
        position = names.index(checks.known_name("class in --class-weights", name, names))
        if position in weights:
            raise ValueError(f"--class-weights names class {name!r} twice")
        weights[position] = weight
    return weights
