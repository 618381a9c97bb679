"""Which benchmarks `run` executes.

python benchmark_cases.py results/benchmarks.json I N prints a regular expression for asv, of the I-th of N
parts; a benchmark is in one of them, since each part that has some of its cases runs its setup_cache. asv
starts a process for each combination of parameters, and there are hundreds. What breaks with a value of a
parameter hardly needs a certain combination: of the parameter with the most values each one occurs, of the
others each combination, in as many cases as that takes.
"""

import itertools
import json
import re
import sys


def cases(parameters: list[list[str]]) -> list[tuple[str, ...]]:
    """Some of the product of these lists of values; all of it, if there is one list only, or none."""
    longest = max(parameters, key=len, default=[""])
    at = parameters.index(longest) if parameters else 0
    others = list(itertools.product(*parameters[:at], *parameters[at + 1 :]))
    return [
        (*other[:at], value, *other[at:])
        for i in range(max(len(longest), len(others)))
        for other, value in [(others[i % len(others)], longest[i % len(longest)])]
    ]


def main(path: str, part: str = "0", parts: str = "1") -> None:
    with open(path, encoding="utf-8") as file:
        benchmarks = [found for found in json.load(file).values() if isinstance(found, dict)]
    names = []
    for benchmark in benchmarks[int(part) :: int(parts)]:
        name, parameters = benchmark["name"], benchmark["params"]
        names += [f"{name}({', '.join(case)})" for case in cases(parameters)] if parameters else [name]
    print("^(" + "|".join(map(re.escape, names)) + ")$")


if __name__ == "__main__":
    main(*sys.argv[1:])
