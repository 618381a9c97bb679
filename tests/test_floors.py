"""The floors of the house: which modules may import which, and that no circle of imports closes.

Imports within functions and those for type checkers count, too: what names somebody depends on them.
"""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

import fastbp

PACKAGE = Path(fastbp.__file__).parent

# From the ground up: a floor's folders and modules import from floors below, and within the same folder.
FLOORS = (
    ("version", "formulas", "data", "pages"),
    ("checks",),
    ("activations",),
    ("initializers", "losses"),
    ("metrics", "inputs"),
    ("plot",),
    ("history",),
    ("schedules", "callbacks"),
    ("optimizer_base",),
    ("optimizers",),
    ("engine",),
    ("mpi",),
    ("network", "kernels"),
    ("inspection", "storage"),
    ("training",),
    ("embed",),
    ("model", "functional"),
    ("many",),
    ("reference", "tables"),
    ("fastbp",),  # the package's __init__.py
    ("sklearn",),
    ("cli", "tutorial"),
    ("__main__",),
)
# The same within the engine. (probes.py is what benchmarks call.)
ENGINE = (
    ("compile",),
    ("simd", "structs", "threads"),
    ("kernels",),
    ("worker", "settings"),
    ("memory",),
    ("pairs",),
    ("tables",),
    ("binding",),
    ("plan",),
    ("entries", "probes"),
)
# Two folders of one floor that know each other, without a circle of modules: the tutorial is a command, and
# measures with what `fastbp bench` measures with.
NEIGHBOURS = {("cli", "tutorial"), ("tutorial", "cli")}


# What a model, a part of one, or another model in its place is called.
PARTS = ("model", "network", "twin", "architecture", "parameters", "streams", "backend", "reader")


def modules(package: Path) -> dict[str, Path]:
    """Files by the names of their modules."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: Iterable[str], package: str = "fastbp") -> set[str]:
    """The modules of the package that are imported anywhere in a file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not looked at"
            module = node.module or ""
            of_module = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else module for name in of_module}
    return {name for name in found if name.split(".")[0] == package} & set(known)


@cache
def graph(package: Path) -> dict[str, set[str]]:
    files = modules(package)
    return {name: imports(path, files, package.name) - {name} for name, path in files.items()}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Every way round, found by going on from each module until one is met again."""
    done: set[str] = set()
    found = []

    def go_on(way: list[str]) -> None:
        for name in sorted(edges[way[-1]]):
            if name in way:
                found.append([*way[way.index(name) :], name])
            elif name not in done:
                go_on([*way, name])
        done.add(way[-1])

    for name in sorted(edges):
        if name not in done:
            go_on([name])
    return found


def place(module: str, root: str) -> str:
    """The folder or module directly in `root` that this module is or lies in."""
    return root.split(".")[-1] if module == root else module.removeprefix(root + ".").split(".")[0]


def climbs(edges: dict[str, set[str]], floors: tuple[tuple[str, ...], ...], root: str) -> list[str]:
    """Imports that go up, or across a floor from one folder to another."""
    height = {name: level for level, floor in enumerate(floors) for name in floor}
    found = []
    for module, targets in edges.items():
        for target in targets:
            if not module.startswith(root) or not target.startswith(root):
                continue
            here, there = place(module, root), place(target, root)
            if here != there and (here, there) not in NEIGHBOURS and height[there] >= height[here]:
                found.append(f"{module} imports {target}")
    return found


def test_no_circle():
    assert circles(graph(PACKAGE)) == []


@pytest.mark.parametrize(("floors", "root"), [(FLOORS, "fastbp"), (ENGINE, "fastbp.engine")])
def test_imports_go_down(floors, root):
    edges = graph(PACKAGE)
    if root != "fastbp":  # whose package is empty, and imported by nobody
        edges = {module: targets for module, targets in edges.items() if module != root}
    there = {place(module, root) for module in edges if module.startswith(root)}
    assert there == {name for floor in floors for name in floor}, "each folder and module has its floor"
    assert climbs(edges, floors, root) == []


def test_the_test(tmp_path):
    """Imports of every kind are found, with those that go up and the circles that they close."""
    package = tmp_path / "fastbp"
    for name, text in {
        "__init__.py": "from fastbp.top import x\n",
        "ground.py": "import math\n",
        "low/__init__.py": "",
        "low/a.py": "from fastbp import ground\ndef later():\n    from fastbp.top import x\n",
        "low/b.py": "from fastbp.low.a import later\n",
        "other.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import fastbp.low.b\n",
        "top.py": "from fastbp.low import b\nx = 1\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")
    edges = graph(package)
    assert edges["fastbp.low.a"] == {"fastbp.ground", "fastbp.top"}
    assert edges["fastbp.other"] == {"fastbp.low.b"}
    assert circles(edges) == [["fastbp.top", "fastbp.low.b", "fastbp.low.a", "fastbp.top"]]
    floors = (("ground",), ("low", "other"), ("top",), ("fastbp",))
    found = climbs(edges, floors, "fastbp")
    assert sorted(found) == ["fastbp.low.a imports fastbp.top", "fastbp.other imports fastbp.low.b"]


def test_nobody_reads_what_is_private_to_a_model():
    """Parts have public names: training, files, inspection and pictures need no others."""
    found = []
    for name, path in modules(PACKAGE).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                not isinstance(node, ast.Attribute)
                or not node.attr.startswith("_")
                or node.attr.endswith("__")
            ):
                continue
            owner = node.value
            of = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if of in (
                "model",
                "network",
                "twin",
                "architecture",
                "parameters",
                "streams",
                "backend",
                "reader",
            ):
                found.append(f"{name}:{node.lineno} {of}.{node.attr}")
    assert [line for line in found if not line.startswith("fastbp.network.network:")] == []
