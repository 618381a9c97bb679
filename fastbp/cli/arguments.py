"""What stands on the command line: the commands and their options, and how mistakes in them are worded."""

from __future__ import annotations

import argparse
import contextlib
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from fastbp.cli import errors
from fastbp.cli import options as kinds
from fastbp.cli.train.options import SWEEP, TRAIN


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments, with the command's name as `command`. SystemExit after help, version or an error."""
    parser = _parser()
    arguments: argparse.Namespace
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


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation would break when a longer option is added.
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        return super().parse_known_args(self._joined(args), namespace)

    def _joined(self, words: Sequence[str]) -> list[str]:
        """With a value that begins with a dash (--class-weights -1=2, --target -x) put behind an =."""
        options = self._option_string_actions
        joined: list[str] = []
        for word in words:
            before = options.get(joined[-1]) if joined else None
            needs_value = before is not None and before.nargs is None
            if needs_value and word.startswith("-") and not word.startswith("--") and word not in options:
                joined[-1] += f"={word}"
            else:
                joined.append(word)
        return joined

    def _print_message(self, message: str, file: Any = None) -> None:
        # Before 3.11.4 argparse raised AttributeError where the stream is closed.
        with contextlib.suppress(AttributeError):
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        self.exit(
            errors.REFUSED, f"{self.prog}: error: {' '.join(message.split())} (see {self.prog} --help)\n"
        )


Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _parser() -> _Parser:
    from fastbp import __version__

    parser = _Parser(
        prog="fastbp",
        description="Train multi-layer perceptrons on the CPU, with backpropagation compiled by Numba.",
    )
    parser.add_argument("--version", action="version", version=f"fastbp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    of_networks = _add_train, _add_predict, _add_sweep
    for add in (_add_demo, _add_tutorial, *of_networks, _add_check, _add_bench, _add_data):
        add(commands)
    return parser


def _command(commands: Commands, name: str, help: str, description: str = "") -> _Parser:
    made: _Parser = commands.add_parser(name, help=help, description=description or help)
    made.set_defaults(command=name, parser=made)
    return made


def _add_demo(commands: Commands) -> None:
    demo = _command(
        commands,
        "demo",
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


def _add_tutorial(commands: Commands) -> None:
    tutorial = _command(
        commands,
        "tutorial",
        "write the tutorial: from the equations to the fast network, in pictures (中文: --lang zh)",
        "Writes one HTML page that needs no internet, made afresh from runs on this machine, or a notebook.",
    )
    tutorial.add_argument("--lang", choices=("en", "zh"), default="en", help="default: %(default)s")
    tutorial.add_argument("--out", metavar="FILE", help="default: tutorial.html, or tutorial.ipynb")
    tutorial.add_argument("--notebook", action="store_true", help="write a notebook rather than a page")


def _add_train(commands: Commands) -> None:
    train = _command(
        commands,
        "train",
        "train a network on a table or on images and write it to a file",
        "Train a network on a table (CSV with a header, parquet, JSON lines, Excel: columns of numbers, "
        "text, truth and dates), a .npy matrix (columns are numbered from 0), an .npz file "
        "(features in the array X) or IDX files of images and labels. A target of text or of few whole "
        "numbers is taken as classes, any other as a quantity.",
    )
    train.usage = "fastbp train [OPTION ...] DATA --target COLUMN --out MODEL"
    train.add_argument(
        "--config", metavar="TOML", help="a file with these options: name = value; the command line wins"
    )
    kinds.add_to(train, TRAIN)


def _add_predict(commands: Commands) -> None:
    predict = _command(
        commands,
        "predict",
        "predict the rows of a table, or images, with a network that `train` wrote",
        "Columns are found by their names, others are ignored. Classes come with one score each, 0 to 1.",
    )
    predict.add_argument("model", metavar="MODEL", help="a file written by fastbp train")
    predict.add_argument("data", metavar="DATA", help="a table as for train, or an IDX file of images")
    for option in ("separator", "decimal"):
        predict.add_argument(f"--{option}", metavar="MARK", help="of a CSV, as for train")
    predict.add_argument("--encoding", metavar="NAME", help="of a CSV, as for train")
    predict.add_argument("--labels", metavar="FILE", help="the IDX file with the labels, to compare with")
    predict.add_argument("--out", metavar="FILE", help=".csv, .npy or .npz (default: CSV to standard output)")


def _add_sweep(commands: Commands) -> None:
    sweep = _command(
        commands,
        "sweep",
        "rank the hyper-parameters of a grid by cross-validation on a table",
        "Trains every configuration of a grid on every fold, many at once, and ranks them. The grid is a "
        "TOML file of lists: hidden_sizes = [[32], [64, 32]], lr = [0.001, 0.01], and other options of a "
        "network, its optimizer, epochs and batch_size.",
    )
    sweep.usage = "fastbp sweep [OPTION ...] DATA --target COLUMN --grid TOML"
    sweep.add_argument(
        "--config", metavar="TOML", help="a file with these options: name = value; the command line wins"
    )
    kinds.add_to(sweep, SWEEP)


def _add_check(commands: Commands) -> None:
    check = _command(
        commands,
        "check",
        "check the gradients and the agreement with the NumPy reference on this machine",
    )
    check.add_argument("--seed", type=kinds.natural, default=0, help="default: %(default)s")


def _add_bench(commands: Commands) -> None:
    bench = _command(
        commands,
        "bench",
        "time a training step of fastbp and of other libraries on this machine",
        "Times a training step of fastbp and of other libraries, each in a process of its own, in turn, "
        "round after round. Before it is timed, each must reach the weights of the NumPy reference. With "
        "--against sklearn, fits of its estimators and of those of fastbp.sklearn, too.",
    )
    bench.add_argument("shape", nargs="*", metavar="SHAPE", help="which shapes and fits (default: all)")
    bench.add_argument(
        "--against",
        type=_names,
        default=[],
        metavar="LIBRARIES",
        help="any of numpy,sklearn,torch,jax,tensorflow; those not installed are named (default: numpy)",
    )
    bench.add_argument(
        "--quick", action="store_true", help="three shapes, three short rounds, unless said otherwise"
    )
    bench.add_argument("--rounds", type=kinds.positive_int, help="default: 7")
    bench.add_argument("--seconds", type=kinds.positive, help="of one measurement (default: 0.2)")
    bench.add_argument("--threads", type=kinds.positive_int, help="for each library (default: all cores)")
    bench.add_argument(
        "--many",
        type=kinds.positive_int,
        metavar="N",
        help="instead: N networks in one call, on one core and on all, beside JAX; with sklearn also a sweep",
    )
    bench.add_argument("--json", metavar="FILE", help="write all figures there")
    bench.add_argument("--plot", metavar="FILE", help="draw the ratios with their spread: .png, .svg or .pdf")


def _add_data(commands: Commands) -> None:
    data = _command(commands, "data", "write the digits that ship with fastbp to a file, to try `train` on")
    data.add_argument("out", metavar="FILE", help="digits.csv or digits.npz")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
