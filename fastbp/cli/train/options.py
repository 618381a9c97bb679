"""The options of `fastbp train`, by the groups in which its help shows them."""

from __future__ import annotations

import inspect

from fastbp import losses, metrics
from fastbp.activations import ACTIVATIONS
from fastbp.cli.options import (
    Option,
    Read,
    checked,
    folds,
    natural,
    non_negative,
    one_of,
    pair,
    positive,
    positive_int,
    share,
    text,
)
from fastbp.initializers import INITIALIZERS
from fastbp.network.architecture import REDUCTIONS
from fastbp.optimizers import OPTIMIZERS

# For standardised columns; the optimizers' own defaults are made for larger data sets and more epochs.
LEARNING_RATES = {name: optimizer.rate_for_tables for name, optimizer in OPTIMIZERS.items()}
SCHEDULES = ("constant", "step", "exponential", "cosine", "one-cycle", "plateau")
TEST_SIZE = 0.2
EPOCHS = 50
# hinge is not among them: what it puts out are margins, not scores from 0 to 1. A table's target has one
# output, not a pair, and is standardised: then it is no count.
LOSSES = tuple(
    name
    for name, loss in losses.LOSSES.items()
    if not (loss.targets_are_signs or loss.of_pairs or loss.targets_are_counts)
)


def _of_optimizer(name: str, read: Read | None, help: str, **more: object) -> Option:
    """One of those optimizers that have such an argument."""
    argument = name.replace("-", "_")
    fitting = tuple(key for key, cls in OPTIMIZERS.items() if argument in inspect.signature(cls).parameters)
    whose = "" if len(fitting) == len(OPTIMIZERS) else f"{', '.join(fitting)}: "
    return Option(name, read, whose + help, only_for=("optimizer", fitting), **more)  # type: ignore[arg-type]


def _of_schedule(name: str, schedules: tuple[str, ...], read: Read, help: str, metavar: str) -> Option:
    help = f"{', '.join(schedules)}: {help}"
    return Option(name, read, help, metavar=metavar, only_for=("schedule", schedules))


def _loss(value: str) -> str:
    name, bracket, number = value.partition("(")
    known: str = one_of("loss", LOSSES)(name) + bracket + number
    losses.get(known)
    return known


def _metric(value: str) -> str:
    metrics.get(value)
    return value


_brackets = ", ".join(
    f"{name}({number.example:g}) another {number.name}"
    for name in LOSSES
    if (number := losses.LOSSES[name].takes)
)
_rates = ", ".join(f"{name} {rate:g}" for name, rate in LEARNING_RATES.items())

TRAIN = {
    "data": [
        Option(
            "data",
            text,
            ".csv, .parquet, .jsonl, .xlsx, .npy, .npz; an IDX file of images; or a folder with the four IDX "
            "files of MNIST's names",
            metavar="DATA",
            positional=True,
        ),
        Option("target", text, "what to predict: a column, or an array of the .npz", metavar="COLUMN"),
        Option("labels", text, "the IDX file with what to predict of each image", metavar="FILE"),
        Option("drop", text, "columns to leave out: a,b,c", metavar="COLUMNS", many=True),
        Option("weights", text, "the column with the rows' weights in training", metavar="COLUMN"),
        Option("test", text, "hold out this file instead of a share", metavar="DATA", not_with="test-size"),
        Option("test-labels", text, "the IDX file that belongs to --test", metavar="FILE", needs="test"),
        Option(
            "test-size",
            share,
            f"rows held out for the table at the end; 0 trains on all (default: {TEST_SIZE})",
            metavar="SHARE",
        ),
        Option(
            "folds",
            folds,
            "cross-validation besides: hold out each of so many parts once",
            metavar="N",
            not_with="test",
        ),
        Option("separator", text, "between the cells of a CSV (default: found out)", metavar="MARK"),
        Option("decimal", text, "the mark in numbers of a CSV, such as a comma (default: .)", metavar="MARK"),
        Option("encoding", text, "of a CSV, such as latin-1 (default: UTF-8)", metavar="NAME"),
        Option("dates", None, "take dates apart into year, month, weekday and hour", False),
        Option(
            "rare",
            positive_int,
            "texts in fewer rows share an input (default: 5; of fewer than 500 rows 1%)",
            metavar="ROWS",
        ),
        Option("max-columns", positive_int, "inputs that columns may become (default: 1000)", metavar="N"),
        Option(
            "missing-target",
            one_of("missing-target", ["refuse", "drop"]),
            "rows without a target: refuse or drop",
            "refuse",
            metavar="WHAT",
        ),
        Option(
            "task",
            one_of("task", ["auto", "classification", "regression"]),
            "auto, classification or regression",
            "auto",
            metavar="TASK",
        ),
    ],
    "network": [
        Option("hidden", positive_int, "units of the hidden layers: 64,64", [64], metavar="SIZES", many=True),
        Option(
            "activation",
            one_of("activation", ACTIVATIONS),
            f"of the hidden layers: {', '.join(ACTIVATIONS)}",
            "relu",
            metavar="NAME",
        ),
        Option(
            "output",
            one_of("output", ["identity", "sigmoid", "softmax"]),
            "activation of the outputs: identity, sigmoid or softmax (default: by task and loss)",
            metavar="NAME",
        ),
        Option(
            "loss",
            checked(_loss),
            f"{', '.join(LOSSES)}; {_brackets} (default: by task)",
            metavar="NAME",
        ),
        Option("reduction", one_of("reduction", REDUCTIONS), f"{', '.join(REDUCTIONS)} of losses", "mean"),
        Option(
            "init",
            one_of("init", ["auto", *INITIALIZERS]),
            f"initial weights: auto, {', '.join(INITIALIZERS)}",
            "auto",
            metavar="NAME",
        ),
        Option("layer-norm", None, "normalise the units of each hidden layer, row by row", False),
        Option(
            "dtype", one_of("dtype", ["float32", "float64"]), "float32 or float64", "float32", metavar="NAME"
        ),
        Option("precision", one_of("precision", ["bfloat16"]), "bfloat16: of products", metavar="NAME"),
    ],
    "training": [
        Option(
            "epochs",
            positive_int,
            f"times through the data (default: {EPOCHS})",
            not_with="steps",
            metavar="N",
        ),
        Option("steps", positive_int, "instead of epochs: updates", metavar="N"),
        Option("batch-size", positive_int, "rows of a batch", 32, metavar="ROWS"),
        Option("accumulate", positive_int, "batches whose gradients make one step", 1, metavar="N"),
        Option(
            "mpi",
            None,
            "train together with the other ranks that mpiexec has started (needs mpi4py)",
            False,
            not_with="ensemble",
        ),
        Option(
            "shards",
            positive_int,
            "parts of a batch, whose gradients are added along one tree: a multiple of the ranks (default: "
            "1, with --mpi 8)",
            metavar="N",
            not_with="ensemble",
        ),
        Option("shuffle", None, "the rows, in each epoch", True),
        Option(
            "class-weights",
            lambda value: value if value == "balanced" else pair(value),
            "balanced, or CLASS=WEIGHT,CLASS=WEIGHT (others have 1)",
            metavar="WEIGHTS",
            many=True,
        ),
        Option(
            "ensemble",
            positive_int,
            "train so many networks, which differ in their seed; predictions are their mean",
            metavar="N",
        ),
        Option("seed", natural, "of split, weights, batches, dropout and noise", 0, metavar="N"),
        Option(
            "threads",
            positive_int,
            "at most so many (default: Numba's: NUMBA_NUM_THREADS, or all cores)",
            metavar="N",
        ),
    ],
    "optimizer": [
        Option("optimizer", one_of("optimizer", OPTIMIZERS), ", ".join(OPTIMIZERS), "Adam", metavar="NAME"),
        Option("lr", positive, f"learning rate (default: {_rates})", metavar="RATE"),
        _of_optimizer(
            "momentum", non_negative, "share of the last step in the next (default: 0)", metavar="NUMBER"
        ),
        _of_optimizer("nesterov", None, "Nesterov's form of momentum"),
        _of_optimizer(
            "betas",
            share,
            "decay of the means of gradient and square (default: 0.9,0.999)",
            metavar="B1,B2",
            many=True,
        ),
        _of_optimizer("alpha", share, "decay of the mean of squares (default: 0.99)", metavar="NUMBER"),
        _of_optimizer(
            "eps",
            non_negative,
            "added to the root of the mean square (default: 1e-8; Adagrad 1e-10)",
            metavar="NUMBER",
        ),
        _of_optimizer(
            "weight-decay", non_negative, "L2; of AdamW decoupled (default: 0, of AdamW 0.01)", metavar="RATE"
        ),
        _of_optimizer("l1", non_negative, "L1 (default: 0)", metavar="RATE"),
        _of_optimizer("decay-biases", None, "weight decay and L1 for biases as well (default: yes)"),
        _of_optimizer("clip-value", positive, "limit of each gradient's size", metavar="NUMBER"),
        _of_optimizer("clip-norm", positive, "limit of the norm of all gradients together", metavar="NUMBER"),
    ],
    "learning rate over time": [
        Option(
            "schedule",
            one_of("schedule", SCHEDULES),
            f"{', '.join(SCHEDULES)}; cosine and one-cycle span the whole training",
            "constant",
            metavar="NAME",
        ),
        Option(
            "warm-up", positive, "epochs in which the rate rises, in front of any schedule", metavar="EPOCHS"
        ),
        Option(
            "warm-up-start",
            share,
            "share of the rate that it begins with (default: 1/3)",
            metavar="SHARE",
            needs="warm-up",
        ),
        _of_schedule("decay-every", ("step",), positive, "epochs between two falls (default: 10)", "EPOCHS"),
        _of_schedule(
            "decay-factor",
            ("step", "exponential", "plateau"),
            share,
            "what the rate is multiplied by (default: 0.1; exponential: 0.95 an epoch)",
            "NUMBER",
        ),
        _of_schedule("min-lr", ("cosine", "plateau"), non_negative, "the lowest rate (default: 0)", "RATE"),
        _of_schedule(
            "restart-every",
            ("cosine",),
            positive,
            "start again after so many epochs (default: never)",
            "EPOCHS",
        ),
        Option(
            "restart-growth",
            positive_int,
            "cosine: each period so many times as long as the one before (default: 1)",
            metavar="N",
            needs="restart-every",
        ),
        _of_schedule(
            "cycle-up", ("one-cycle",), share, "share of the steps that rise (default: 0.3)", "SHARE"
        ),
        _of_schedule(
            "cycle-start",
            ("one-cycle",),
            non_negative,
            "first rate, as a share of --lr (default: 0.04)",
            "SHARE",
        ),
        _of_schedule(
            "cycle-end",
            ("one-cycle",),
            non_negative,
            "last rate, as a share of the first (default: 1e-4)",
            "SHARE",
        ),
        _of_schedule(
            "plateau-patience",
            ("plateau",),
            natural,
            "epochs without progress that are borne (default: 10)",
            "N",
        ),
        _of_schedule(
            "plateau-threshold",
            ("plateau",),
            non_negative,
            "relative progress that counts (default: 1e-4)",
            "NUMBER",
        ),
        _of_schedule(
            "plateau-cooldown", ("plateau",), natural, "epochs not counted after a fall (default: 0)", "N"
        ),
        _of_schedule(
            "plateau-monitor",
            ("plateau",),
            text,
            "what is looked at: val_loss, val_accuracy, ... (default: the validation loss, else the loss)",
            "NAME",
        ),
    ],
    "against overfitting": [
        Option(
            "dropout",
            share,
            "of the hidden units; one number, or one for each layer (default: 0)",
            metavar="SHARES",
            many=True,
        ),
        Option("input-noise", non_negative, "standard deviation; inputs have 1", 0, metavar="NUMBER"),
        Option("l2", non_negative, "half of it times the weights' squares is added to a batch's loss", 0),
        Option("max-norm", positive, "limit of the norm of the weights into a unit", metavar="NUMBER"),
    ],
    "validation": [
        Option("validation", share, "rows that are watched rather than trained on", 0, metavar="SHARE"),
        Option(
            "metrics",
            checked(_metric),
            "watched beside the loss: accuracy,top_k(3),auc, or r2,mae of the "
            "standardised target (default: accuracy or r2)",
            metavar="NAMES",
            many=True,
            needs="validation",
        ),
        Option(
            "patience",
            positive_int,
            "stop after so many epochs without progress, and keep the best one",
            metavar="EPOCHS",
        ),
        Option(
            "min-delta", non_negative, "less is no progress (default: 0)", metavar="NUMBER", needs="patience"
        ),
        Option(
            "monitor",
            text,
            "what --patience looks at: val_loss, val_accuracy, loss, ... (default: val_loss)",
            metavar="NAME",
            needs="patience",
        ),
    ],
    "files": [
        Option("out", text, "the model to write, e.g. model.safetensors", metavar="MODEL"),
        Option("plot", text, "draw curves and confusion matrix: .png, .svg or .pdf", metavar="FILE"),
        Option(
            "checkpoint",
            text,
            "written during training; if it is there, training goes on from it",
            metavar="FILE",
        ),
        Option(
            "every",
            positive_int,
            "epochs between two checkpoints (default: 1)",
            metavar="EPOCHS",
            needs="checkpoint",
        ),
    ],
}

# What a sweep has of these: an option that only one training can have is not among them.
_OF_ONE = ("folds", "steps", "accumulate", "mpi", "shards", "class-weights", "weights", "shuffle", "ensemble")
SWEEP = {
    **{
        group: [option for option in options if option.name not in _OF_ONE]
        for group, options in TRAIN.items()
        if group not in ("learning rate over time", "validation", "files")
    },
    "sweep": [
        Option("grid", text, "a TOML file: name = [value, value, ...]", metavar="TOML"),
        Option("cv", positive_int, "folds of the cross-validation", 5, metavar="N"),
        Option("metric", text, "loss, accuracy, r2, ... (default: accuracy or r2)", metavar="NAME"),
        Option("random", positive_int, "draw so many configurations instead of all", metavar="N"),
        Option("halving", None, "train the best third three times as long, and so on", False),
        Option("top", positive_int, "how many rows of the table are shown", 20, metavar="N"),
        Option("out", text, "the model to write, of the best configuration", metavar="MODEL"),
        Option("plot", text, "draw the metric against each parameter: .png, .svg or .pdf", metavar="FILE"),
    ],
}
