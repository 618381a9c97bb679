"""What the house is measured by: lengths of modules and functions, parameters, folders, format skips.

As a program it prints what is over a limit: `python tests/programs/house.py [folder ...]`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("fastbp", "tests", "asv_benchmarks")
MODULE_LINES, FUNCTION_LINES, PARAMETERS, FORMAT_SKIPS = 400, 60, 8, 9
FOLDER_MODULES = 12  # __init__.py not counted
# Where users name what they mean, a long list of keywords is what they expect.
MANY_PARAMETERS = ("__init__", "__new__", "fit", "fit_many", "sweep", "train_table")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules(folders: Iterable[str] = CODE) -> list[Path]:
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))
    own = (path for path in found if not any(part == "assets" or part[0] == "." for part in path.parts))
    return sorted(ROOT / path for path in own)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def body_lines(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        text = function.body[0]
        lines -= (text.end_lineno or 0) - text.lineno + 1
    return lines


def parameters(function: Function) -> int:
    """How many parameters a caller can give, `self` and `cls` not counted."""
    given = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return len([argument for argument in given if argument.arg not in ("self", "cls")])


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def long_modules(paths: Iterable[Path]) -> list[str]:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    return [f"{name(path)}: {lines} lines" for path, lines in lengths.items() if lines > MODULE_LINES]


def long_functions(paths: Iterable[Path]) -> list[str]:
    return [
        f"{name(path)}:{function.lineno} {function.name}: {lines} lines"
        for path in paths
        for function in functions(path)
        if (lines := body_lines(function)) > FUNCTION_LINES
    ]


def wide_functions(paths: Iterable[Path]) -> list[str]:
    return [
        f"{name(path)}:{function.lineno} {function.name}: {count} parameters"
        for path in paths
        for function in functions(path)
        if (count := parameters(function)) > PARAMETERS and function.name not in MANY_PARAMETERS
    ]


def folders(paths: Iterable[Path]) -> list[str]:
    """Folders with a single module, or with more than one looks through."""
    inside: dict[Path, int] = {}
    for path in paths:
        inside[path.parent] = inside.get(path.parent, 0) + (path.name not in ("__init__.py", "conftest.py"))
    return [
        f"{name(folder)}: {count} modules"
        for folder, count in inside.items()
        if folder.parent != ROOT and (count > FOLDER_MODULES or (count == 1 and not any(folder.glob("*/"))))
    ]


def format_skips(paths: Iterable[Path]) -> list[str]:
    found = [
        f"{name(path)}:{number}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "# fmt: " + "skip" in line
    ]
    return found if len(found) > FORMAT_SKIPS else []


MEASURES = (long_modules, long_functions, wide_functions, folders, format_skips)

if __name__ == "__main__":
    chosen = [path for path in modules() if not sys.argv[1:] or name(path).startswith(tuple(sys.argv[1:]))]
    for measure in MEASURES:
        print(f"== {measure.__name__.replace('_', ' ')}")
        print(*measure(chosen), sep="\n")
