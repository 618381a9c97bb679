"""The command line: `fastbp` and `python -m fastbp`.

An error is one line on stderr and exit code 2; Ctrl-C is exit code 130. Results go to stdout; progress goes
to stderr, and only where that is a terminal.
"""

from __future__ import annotations

import argparse
import difflib
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from fastbp.cli import options as kinds
from fastbp.cli.train.options import TRAIN

USAGE_ERROR = 2
CHECK_FAILED = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `fastbp predict ... | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("fastbp: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (OSError, ValueError, TypeError, ArithmeticError, MemoryError, ImportError) as error:
        if os.environ.get("FASTBP_TRACEBACK"):
            raise
        print(f"fastbp: error: {_one_line(error)}", file=sys.stderr)
        return USAGE_ERROR


def _run(argv: Sequence[str]) -> int:
    try:
        arguments = _parse(argv)
    except SystemExit as request:  # argparse has printed the help, the version or the error
        return int(request.code or 0)
    code: int = arguments.run(arguments)
    return code


# ---- the commands ----


def _train(arguments: argparse.Namespace) -> int:
    from fastbp.cli.train import command as train_command

    settings = kinds.gather(TRAIN, vars(arguments), arguments.config)
    settings.config = arguments.config
    return train_command.train(settings)


def _predict(arguments: argparse.Namespace) -> int:
    from fastbp.cli.train import command as train_command

    return train_command.predict(arguments)


def _demo(arguments: argparse.Namespace) -> int:
    from fastbp.cli.demo import command as demo_command

    return demo_command.run(arguments.out, epochs=arguments.epochs, seed=arguments.seed)


def _check(arguments: argparse.Namespace) -> int:
    from fastbp.cli import check as check_command

    return 0 if check_command.check(seed=arguments.seed) else CHECK_FAILED


def _bench(arguments: argparse.Namespace) -> int:
    from fastbp.cli.bench import command as bench_command
    from fastbp.cli.bench.problems import QUICK, SHAPES
    from fastbp.storage.atomic import check_writable

    _known("shape", arguments.shape, SHAPES)
    _known("library", arguments.against, bench_command.LIBRARIES)
    for path in (arguments.json, arguments.plot):
        if path is not None:
            check_writable(path)
    quick = arguments.quick
    bench_command.bench(
        arguments.shape or (QUICK if quick else list(SHAPES)),
        arguments.against or ["numpy"],
        rounds=arguments.rounds or (3 if quick else 7),
        seconds=arguments.seconds or (0.03 if quick else 0.2),
        threads=arguments.threads,
        command=shlex.join(["fastbp", *arguments.command_line]),
        json_file=arguments.json,
        plot_file=arguments.plot,
    )
    return 0


def _tutorial(arguments: argparse.Namespace) -> int:
    from fastbp.tutorial import command as tutorial_command

    return tutorial_command.run(arguments.lang, arguments.out, notebook=arguments.notebook)


def _known(what: str, names: Sequence[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, list(known), n=len(list(known)), cutoff=0.0)
            raise ValueError(f"unknown {what} {name!r}; there are {', '.join(near)}")


def _data(arguments: argparse.Namespace) -> int:
    from fastbp.data import load_digits
    from fastbp.storage import atomic

    X, y = load_digits()
    names = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
    content = io.BytesIO()
    suffix = Path(arguments.out).suffix.lower()
    if suffix == ".npz":
        np.savez_compressed(content, X=X, y=y)
    elif suffix == ".csv":
        table, header = np.column_stack([X, y]), ",".join([*names, "digit"])
        np.savetxt(content, table, fmt="%d", delimiter=",", header=header, comments="")
    else:
        raise ValueError(f"{arguments.out}: the digits can be written as .csv or .npz")
    atomic.write(arguments.out, content.getvalue())
    target = "digit" if suffix == ".csv" else "y"
    print(f"wrote {arguments.out}: {len(X)} rows, {X.shape[1]} features, target {target!r}")
    return 0


# ---- the options ----


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, **options
        )  # an abbreviation breaks when a longer option is added

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_ERROR, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    arguments.command_line = list(argv)
    command: _Parser = getattr(arguments, "parser", parser)
    if unknown:
        option = unknown[0].split("=")[0]
        if not option.startswith("-"):
            command.error(f"unexpected argument {option!r}")
        known = [name for action in command._actions for name in action.option_strings]
        near = difflib.get_close_matches(option, known, n=1)
        command.error(f"unknown option {option}" + (f": did you mean {near[0]}?" if near else ""))
    if command is parser:  # not left to argparse, which would report this rather than an unknown option
        parser.error("a COMMAND is needed")
    return arguments


def _parser() -> _Parser:
    from fastbp import __version__

    parser = _Parser(
        prog="fastbp",
        description="Train multi-layer perceptrons on the CPU, with backpropagation compiled by Numba.",
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help: str, description: str = ""
    ) -> _Parser:
        made = commands.add_parser(name, help=help, description=description or help)
        made.set_defaults(run=run, parser=made)
        return made

    demo = command(
        "demo",
        _demo,
        "train on the digits that ship with fastbp, beside the NumPy reference, and draw the result",
    )
    demo.add_argument(
        "--out", default="fastbp-demo.png", metavar="PNG", help="the picture (default: %(default)s)"
    )
    demo.add_argument("--epochs", type=kinds.positive_int, default=60, help="default: %(default)s")
    demo.add_argument(
        "--seed",
        type=kinds.natural,
        default=0,
        help="of weights, batches and split (default: %(default)s)",
    )

    tutorial = command(
        "tutorial",
        _tutorial,
        "write the tutorial: from the equations to the fast network, in pictures (中文: --lang zh)",
        "Writes one HTML page that needs no internet, made afresh from runs on this machine, or a notebook.",
    )
    tutorial.add_argument("--lang", choices=("en", "zh"), default="en", help="default: %(default)s")
    tutorial.add_argument("--out", metavar="FILE", help="default: tutorial.html, or tutorial.ipynb")
    tutorial.add_argument("--notebook", action="store_true", help="write a notebook rather than a page")

    train = command(
        "train",
        _train,
        "train a network on a table or on images and write it to a file",
        "Train a network on a CSV with a header, a .npy matrix (columns are numbered from 0), an .npz file "
        "(features in the array X) or IDX files of images and labels. A target of text or of few whole "
        "numbers is taken as classes, any other as a quantity.",
    )
    train.usage = "fastbp train [OPTION ...] DATA --target COLUMN --out MODEL"
    train.add_argument(
        "--config", metavar="TOML", help="a file with these options: name = value; the command line wins"
    )
    kinds.add_to(train, TRAIN)

    predict = command(
        "predict",
        _predict,
        "predict the rows of a table, or images, with a network that `train` wrote",
        "Columns are found by their names, others are ignored. Classes come with one score each, 0 to 1.",
    )
    predict.add_argument("model", metavar="MODEL", help="a file written by fastbp train")
    predict.add_argument("data", metavar="DATA", help=".csv, .npy, .npz or an IDX file of images")
    predict.add_argument("--labels", metavar="FILE", help="the IDX file with the labels, to compare with")
    predict.add_argument("--out", metavar="FILE", help=".csv, .npy or .npz (default: CSV to standard output)")

    check = command(
        "check", _check, "check the gradients and the agreement with the NumPy reference on this machine"
    )
    check.add_argument("--seed", type=kinds.natural, default=0, help="default: %(default)s")

    bench = command(
        "bench",
        _bench,
        "time a training step of fastbp and of other libraries on this machine",
        "Times a training step of fastbp and of other libraries, each in a process of its own, in turn, "
        "round after round. Before it is timed, each must reach the weights of the NumPy reference.",
    )
    bench.add_argument("shape", nargs="*", metavar="SHAPE", help="which shapes (default: all)")
    bench.add_argument(
        "--against",
        type=_names,
        default=[],
        metavar="LIBRARIES",
        help="any of numpy,sklearn,torch,jax; those that are not installed are named (default: numpy)",
    )
    bench.add_argument(
        "--quick", action="store_true", help="three shapes, three short rounds, unless said otherwise"
    )
    bench.add_argument("--rounds", type=kinds.positive_int, help="default: 7")
    bench.add_argument("--seconds", type=kinds.positive, help="of one measurement (default: 0.2)")
    bench.add_argument("--threads", type=kinds.positive_int, help="for each library (default: all cores)")
    bench.add_argument("--json", metavar="FILE", help="write all figures there")
    bench.add_argument("--plot", metavar="FILE", help="draw the ratios with their spread: .png, .svg or .pdf")

    data = command("data", _data, "write the digits that ship with fastbp to a file, to try `train` on")
    data.add_argument("out", metavar="FILE", help="digits.csv or digits.npz")
    return parser


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError):
        return "out of memory"
    return " ".join(str(error).split()) or type(error).__name__
