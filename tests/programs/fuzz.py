"""Calls of every public function and method with odd arguments: python fuzz.py [calls] [seed].

Each call takes good arguments, of which one or two are replaced by odd ones, and is made twice: of fastbp and
of fastbp.reference. It counts as

    accepted   both return, and the results agree
    refused    both raise TypeError, ValueError or the like, and nothing that was given has changed
    wrong      whatever else happens: other results, only one of them raises, a warning of NumPy's, an
               argument that is changed by a refused call, an exception that says nothing to a user
    unnamed    refused, but the message does not name an argument that is odd

Everything follows from the seed. `report` prints the counts, and each call that is wrong or unnamed.
"""

import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import fuzz_values
import numpy as np
from fuzz_targets import TARGETS, Target

import fastbp
import fastbp.reference

MODULES = (fastbp, fastbp.reference)
REFUSALS = (TypeError, ValueError, OSError, FloatingPointError)


@dataclass
class Report:
    counts: Counter = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def complain(self, kind: str, text: str) -> None:
        self.counts[kind] += 1
        self.complaints.append(f"{kind}: {text}")

    def __str__(self) -> str:
        kinds = ("calls", "accepted", "refused", "wrong", "unnamed")
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds)


# ---- one call ---------------------------------------------------------------------------------------------


def outcome(target: Target, module: Any, arguments: dict[str, Any]) -> tuple[str, Any]:
    """("accepted", results), ("refused", message) or ("wrong", what happened)."""
    before = {name: fuzz_values.frozen(value) for name, value in arguments.items()}
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            result = target.call(module, **arguments)
    except REFUSALS as error:
        if "became" in str(error):  # training with such numbers has diverged
            return "accepted", "diverged"
        changed = [n for n, value in arguments.items() if fuzz_values.frozen(value) != before[n]]
        if changed:
            return "wrong", f"{changed} changed by a refused call: {error}"
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        return "wrong", f"{type(error).__name__}: {error}"
    numpys = [str(w.message) for w in caught if not issubclass(w.category, UserWarning)]
    return ("wrong", f"warns {numpys}") if numpys else ("accepted", result)


def agree(ours: Any, theirs: Any) -> bool:
    """Whether results are the same to rounding. What overflows may do so in different places."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return bool(ours == theirs)
    if isinstance(ours, (list, tuple)):
        return len(ours) == len(theirs) and all(map(agree, ours, theirs))
    if ours is None or theirs is None:
        return ours is theirs
    a, b = np.asarray(ours), np.asarray(theirs)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return True
    a, b = a.astype(np.longdouble), b.astype(np.longdouble)
    eps = 1e-7 if isinstance(ours, np.ndarray) and ours.dtype == np.float64 else 1e-3
    return bool(np.abs(a - b).max(initial=0) <= eps * (1 + np.abs(b).max(initial=0)))


def names(message: str, target: Target, odd: list[str]) -> bool:
    """Whether the message speaks of an odd argument."""
    words = set(re.findall(r"\w+", message))
    return bool(words & set(odd)) or any(name in message for name in target.also)


def check(target: Target, rng: np.random.Generator, report: Report) -> None:
    arguments = target.good(rng)
    odd = list(
        rng.choice(list(target.kinds), min(len(target.kinds), 1 + (rng.random() < 0.3)), replace=False)
    )
    labels = {}
    for name in odd:
        labels[name], arguments[name] = fuzz_values.odd(target.kinds[name], arguments.get(name), rng)
    what = f"{target.name}({', '.join(f'{name}={label}' for name, label in labels.items())})"
    report.counts["calls"] += 1
    # fuzz_values.copied: each module gets arguments of its own
    (kind, ours), (other, theirs) = (
        outcome(target, module, {n: fuzz_values.copied(v) for n, v in arguments.items()})
        for module in MODULES
    )
    if "wrong" in (kind, other):
        report.complain("wrong", f"{what}: {ours if kind == 'wrong' else theirs}")
    elif kind != other:
        report.complain("wrong", f"{what}: fastbp {kind} ({ours}), reference {other} ({theirs})")
    elif kind == "refused":
        report.counts["refused"] += 1
        for message in {ours, theirs}:
            if not names(message, target, odd):
                report.complain("unnamed", f"{what}: {message}")
    elif agree(ours, theirs):
        report.counts["accepted"] += 1
    else:
        report.complain("wrong", f"{what}: {ours} instead of {theirs}")


def fuzz(calls: int, seed: int = 0) -> Report:
    """So many calls, each target in turn."""
    rng, report = np.random.default_rng(seed), Report()
    for i in range(calls):
        check(TARGETS[i % len(TARGETS)], rng, report)
    return report


def main() -> None:
    calls, seed = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 3000), (2, 0)))
    report = fuzz(calls, seed)
    print(*report.complaints, report, sep="\n")


if __name__ == "__main__":
    main()
