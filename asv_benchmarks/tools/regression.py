"""Is fastbp slower than it was? Measures two commits side by side; exit code 1 says yes.

    python asv_benchmarks/tools/regression.py main            the work tree against main: 2 to 3 minutes
    python asv_benchmarks/tools/regression.py v0.1.0 main     two commits
    python asv_benchmarks/tools/regression.py main --quick    fewer cases, fewer processes: 1 minute
    python asv_benchmarks/tools/regression.py --self-test     is that so? half an hour (--quick: 12 minutes)

Each side gets a folder with its own `fastbp` and its own compilation cache, and runs in processes of its own.
Two of them, one of each side, are measured in turn: some 20 ms of one, the same of the other, so that a
change of the machine's clock rate or another program hits both. What differs from process to process (where
memory lies, which threads got which core) does not go away by measuring longer: so there are several such
pairs, the *launches*.

The noise model: of each round the ratio of the two times counts, of a launch the median of its rounds. A
bootstrap over the launches gives an interval for the ratio. A case is slower when the whole interval lies
above the minimum effect (5%), and still does when the case is measured once more with new launches. NumPy's
reference, in the same run, is printed beside.

The self-test measures a copy of the work tree in which `fit` takes 10% longer, which must be found, and the
unchanged work tree against itself ten times, which must not be blamed. Exit code 0 if so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sides import CASES, QUICK, RegressionError, export, launched

SLOWER, FAILED = 1, 2  # exit codes
SELF_TEST_RUNS = 10  # of unchanged code
CONFIDENCE = 0.99  # of the bootstrap; with six launches it covers the truth in some 95 of 100 cases
RESAMPLES = 4000


# ---- the noise model -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    ratio: float  # time now / time before
    low: float
    high: float
    minimum: float  # 1.05: what is less than 5% does not count

    @property
    def slower(self) -> bool:
        return self.low > self.minimum

    @property
    def faster(self) -> bool:
        return self.high < 1 / self.minimum

    def __str__(self) -> str:
        word = "SLOWER" if self.slower else "faster" if self.faster else ""
        return f"{self.ratio:5.3f}  ({self.low:.3f} to {self.high:.3f})  {word}"


def judge(base: np.ndarray, head: np.ndarray, minimum: float, seed: int = 0) -> Verdict:
    """From seconds (launches, rounds) of both sides; those at the same place were measured together."""
    rng = np.random.default_rng(seed)
    launches = np.median(np.log(np.asarray(head) / np.asarray(base)), axis=1)
    n = len(launches)
    # The rounds are not resampled, too: what they leave uncertain is in the spread of the launches already.
    means = launches[rng.integers(n, size=(RESAMPLES, n))].mean(axis=1)
    # The spread of n resampled values is too narrow by sqrt((n - 1) / n).
    centre = launches.mean()
    means = centre + (means - centre) * np.sqrt(n / (n - 1))
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Verdict(*(float(np.exp(value)) for value in (centre, low, high)), minimum)


# Appended to model.py in the self-test. It names nothing but MLP.fit, which is what the cases measure: it
# finds its place however the engine is written, and if it should not, the package cannot be imported.
SLOWDOWN = """

def _slower(fit):
    import functools
    import time

    @functools.wraps(fit)
    def fit_and_wait(*arguments, **options):
        began = time.perf_counter()
        history = fit(*arguments, **options)
        end = began + 1.1 * (time.perf_counter() - began)
        while time.perf_counter() < end:
            pass
        return history

    return fit_and_wait


MLP.fit = _slower(MLP.fit)
"""


def plant(folder: Path) -> None:
    """Make `fit` of the package in `folder` take a tenth longer."""
    with open(folder / "fastbp" / "model.py", "a", encoding="utf-8") as package:
        package.write(SLOWDOWN)


@dataclass
class Measured:
    base: dict[str, np.ndarray]  # case -> seconds of a step (launches, rounds)
    head: dict[str, np.ndarray]
    reference: dict[str, float]  # case -> seconds of a step in NumPy, the best launch
    missing: dict[str, str]


def measure(
    folders: Sequence[Path],
    cases: Sequence[str],
    launches: int,
    rounds: int,
    launch: Callable[..., Any] = launched,
    tell: Callable[[str], None] = lambda text: None,
) -> Measured:
    """Rounds of both sides in turn. `launch` makes the processes; tests give one that needs none."""
    times: list[dict[str, list[list[float]]]] = [{case: [] for case in cases} for _ in folders]
    reference: dict[str, float] = {}
    missing: dict[str, str] = {}
    for number in range(launches):
        tell(f"launch {number + 1} of {launches}")
        with launch(folders, cases) as (sides, absent):
            missing.update(absent)
            there = [case for case in cases if case not in missing]
            for side in times:
                for case in there:
                    side[case].append([])
            for turn in range(rounds):
                for case in there:
                    # Who comes second finds the clock rate and the caches as the first has left them.
                    for i in (0, 1) if (turn + number) % 2 else (1, 0):
                        times[i][case][-1].append(sides[i].seconds(case))
            if number == 0:
                for case in there:
                    reference[case] = sides[0].seconds(case, "fastbp.reference")
    base, head = (
        {case: np.array(found) for case, found in side.items() if case not in missing} for side in times
    )
    return Measured(base, head, reference, missing)


def compare(
    folders: Sequence[Path],
    cases: Sequence[str],
    *,
    minimum: float,
    launches: int,
    rounds: int,
    launch: Callable[..., Any] = launched,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[Measured, dict[str, Verdict]]:
    """Measure all cases, and those that look slower once more with new launches, which then decide."""
    measured = measure(folders, cases, launches, rounds, launch, tell)
    verdicts = {case: judge(measured.base[case], measured.head[case], minimum) for case in measured.base}
    suspects = [case for case, verdict in verdicts.items() if verdict.slower]
    if suspects:
        tell(f"once more: {', '.join(suspects)}")
        again = measure(folders, suspects, launches, rounds, launch, tell)
        for case in suspects:
            verdicts[case] = judge(again.base[case], again.head[case], minimum, seed=1)
            measured.base[case], measured.head[case] = again.base[case], again.head[case]
    return measured, verdicts


def self_test(runs: int, judged: Callable[[Sequence[Path]], dict[str, Verdict]]) -> int:
    """One run with a planted slowdown, then `runs` of unchanged code; 0 if each says what it should."""
    with tempfile.TemporaryDirectory(prefix="fastbp-regression-") as temporary:
        base, same, planted = folders = [Path(temporary, name) for name in ("base", "same", "planted")]
        for folder in folders:
            folder.mkdir()
            export(None, folder)
        plant(planted)
        wrong = 0
        for number, head in enumerate([planted, *[same] * runs]):
            verdicts = judged([base, head])
            slower = any(verdict.slower for verdict in verdicts.values())
            wrong += slower != (head is planted)
            what = "planted slowdown" if head is planted else f"unchanged code, {number} of {runs}"
            print(f"{what}: {'slower' if slower else 'not slower'}")
            print(*(f"    {verdict!s:<36}{case}" for case, verdict in verdicts.items()), sep="\n", flush=True)
    print(f"{1 + runs - wrong} of {1 + runs} runs as they should be")
    return SLOWER if wrong else 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What is asked for, with `cases` and `launches` filled in."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", metavar="BASE", nargs="?", help="a commit: a branch, a tag, a hash")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="another one (default: the work tree)")
    parser.add_argument("--quick", action="store_true", help="four cases, three launches")
    parser.add_argument("--case", action="append", metavar="TEXT", help="only cases whose name contains this")
    parser.add_argument(
        "--minimum",
        type=float,
        default=5,
        metavar="PERCENT",
        help="less does not count (default: %(default)s)",
    )
    parser.add_argument("--launches", type=int, help="pairs of processes (default: 6)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="of each case in a launch (default: %(default)s)"
    )
    parser.add_argument(
        "--self-test",
        type=int,
        nargs="?",
        const=SELF_TEST_RUNS,
        metavar="N",
        help=f"a planted slowdown, and N runs of unchanged code (default: {SELF_TEST_RUNS})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there")
    options = parser.parse_args(arguments)
    if (options.base is None) == (options.self_test is None):
        parser.error(
            "give a commit to compare with, or --self-test, which compares the work tree with itself"
        )
    if options.self_test is not None and (options.self_test < 1 or options.json):
        parser.error("--self-test wants at least 1 run, and writes no times")
    options.launches = options.launches or (3 if options.quick else 6)
    if options.launches < 2 or options.rounds < 1 or not options.minimum > 0:
        parser.error("there must be at least 2 launches, 1 round, and a minimum above 0")
    words = options.case or [""]
    options.cases = [
        case for case in (QUICK if options.quick else CASES) if any(word in case for word in words)
    ]
    if not options.cases:
        parser.error(f"no case contains {' or '.join(words)}; there are: {'; '.join(CASES)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    cases, launches = options.cases, options.launches

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    minimum = 1 + options.minimum / 100

    def judged(folders: Sequence[Path]) -> tuple[Measured, dict[str, Verdict]]:
        tell("compiling both")
        with launched(folders, cases):
            pass
        return compare(folders, cases, minimum=minimum, launches=launches, rounds=options.rounds, tell=tell)

    try:
        if options.self_test is not None:
            return self_test(options.self_test, lambda folders: judged(folders)[1])
        with tempfile.TemporaryDirectory(prefix="fastbp-regression-") as temporary:
            folders = [Path(temporary, "base"), Path(temporary, "head")]
            for folder in folders:
                folder.mkdir()
            names = [
                export(commit, folder)
                for commit, folder in zip((options.base, options.head), folders, strict=True)
            ]
            measured, verdicts = judged(folders)
    except RegressionError as error:
        print(f"regression: {error}", file=sys.stderr)
        return FAILED
    print(report(names, measured, verdicts, launches, options.rounds))
    if options.json:
        sides = {"base": measured.base, "head": measured.head}
        record = {name: {case: t.tolist() for case, t in side.items()} for name, side in sides.items()}
        options.json.write_text(
            json.dumps({"names": names, **record, "reference": measured.reference}, indent=1)
        )
    return SLOWER if any(verdict.slower for verdict in verdicts.values()) else 0


def report(
    names: Sequence[str], measured: Measured, verdicts: dict[str, Verdict], launches: int, rounds: int
) -> str:
    from fastbp.cli.bench.measuring import machine
    from fastbp.cli.output import text_table

    rows = []
    for case, verdict in verdicts.items():
        before, now = (1e6 * float(np.median(side[case])) for side in (measured.base, measured.head))
        word = "SLOWER" if verdict.slower else "faster" if verdict.faster else "."
        numpy = [f"{1e6 * measured.reference[case] / us:.1f}" for us in (before, now)]
        interval = f"{verdict.low:.3f} to {verdict.high:.3f}"
        rows.append([case, f"{before:,.2f}", f"{now:,.2f}", f"{verdict.ratio:.3f}", interval, word, *numpy])
    header = [
        "a training step of",
        "before us",
        "now us",
        "now / before",
        f"{CONFIDENCE:.0%} interval",
        "",
        "NumPy / before",
        "NumPy / now",
    ]
    slower = [case for case, verdict in verdicts.items() if verdict.slower]
    smallest = next(iter(verdicts.values())).minimum - 1 if verdicts else 0
    lines = [
        machine(),
        f"before: {names[0]}; now: {names[1]}; {launches} launches of {rounds} rounds",
        "",
        text_table(header, rows) if rows else "no case can be measured on both",
        *(f"not measured: {case}: {why}" for case, why in measured.missing.items()),
        "",
        f"{len(slower)} of {len(verdicts)} slower by more than {smallest:.0%}"
        + f": {'; '.join(slower)}" * bool(slower),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
