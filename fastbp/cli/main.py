"""The command line: `fastbp` and `python -m fastbp`.

An error is one line on stderr and exit code 2 (see `errors` for the others). Results go to stdout; progress
goes to stderr, and only where that is a terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from fastbp.cli import errors, files, output
from fastbp.cli import options as kinds
from fastbp.cli.arguments import parse
from fastbp.cli.train.options import SWEEP, TRAIN


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    results = output.Results(sys.stdout)
    with contextlib.redirect_stdout(cast(TextIO, results)), output.worded_warnings():
        try:
            code = _run(sys.argv[1:] if argv is None else argv, results)
        except KeyboardInterrupt:
            output.complain("interrupted", what="")
            code = errors.INTERRUPTED
        except (OSError, ValueError, TypeError, ArithmeticError, MemoryError, ImportError) as error:
            if os.environ.get("FASTBP_TRACEBACK"):
                raise
            output.complain(errors.one_line(error))
            code = errors.REFUSED
    return results.finish(code)


def _run(argv: Sequence[str], results: output.Results) -> int:
    try:
        arguments = parse(argv)
        arguments.results = results
    except SystemExit as request:  # argparse has printed the help, the version or the error
        return int(request.code or 0)
    return COMMANDS[arguments.command](arguments)


# ---- the commands ----


def _train(arguments: argparse.Namespace) -> int:
    from fastbp.cli.train import command as train_command

    settings = kinds.gather(TRAIN, vars(arguments), arguments.config)
    settings.config = arguments.config
    return train_command.train(settings)


def _predict(arguments: argparse.Namespace) -> int:
    from fastbp.cli.train import predict as predict_command

    return predict_command.predict(arguments, arguments.results)


def _sweep(arguments: argparse.Namespace) -> int:
    from fastbp.cli.train import sweep as sweep_command

    settings = kinds.gather(SWEEP, vars(arguments), arguments.config)
    return sweep_command.sweep(settings)


def _demo(arguments: argparse.Namespace) -> int:
    from fastbp.cli.demo import command as demo_command

    return demo_command.run(arguments.out, epochs=arguments.epochs, seed=arguments.seed)


def _check(arguments: argparse.Namespace) -> int:
    from fastbp.cli import check as check_command

    return errors.OK if check_command.check(seed=arguments.seed) else errors.NOT_AS_EXPECTED


def _bench(arguments: argparse.Namespace) -> int:
    from fastbp.cli.bench import command as bench_command
    from fastbp.cli.bench import estimators
    from fastbp.cli.bench.problems import LIBRARIES, QUICK, SHAPES

    if arguments.many is not None:
        from fastbp.cli.bench import many

        many.many(
            arguments.many, rounds=arguments.rounds or 5, threads=arguments.threads, against=arguments.against
        )
        return errors.OK
    _known("shape", arguments.shape, [*SHAPES, *estimators.ESTIMATORS])
    _known("library", arguments.against, LIBRARIES)
    files.check_outputs({"--json": arguments.json, "--plot": arguments.plot})
    quick = arguments.quick
    usual = list(QUICK if quick else SHAPES)
    if "sklearn" in arguments.against:
        usual += estimators.QUICK if quick else estimators.ESTIMATORS
    bench_command.bench(
        arguments.shape or usual,
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


COMMANDS = {
    "demo": _demo,
    "tutorial": _tutorial,
    "train": _train,
    "predict": _predict,
    "sweep": _sweep,
    "check": _check,
    "bench": _bench,
    "data": _data,
}
