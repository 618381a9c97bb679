"""What is compiled once and kept: edits, other CPUs, read-only installations, processes at once."""

import ast
import compileall
import os
import shutil
import subprocess
import sys

import pytest
from processes import GENERIC, PACKAGE, on_x86, python

from fastbp.engine.compile import cache

# Two of the public kernels, which are compiled in two seconds. How it is with whole trainings: test_structs.
SIGMOID = "print(hashlib.sha256(kernels.sigmoid(numpy.ones((4, 3)))).hexdigest())"
KERNELS = "import hashlib, numpy, fastbp; from fastbp import kernels"

# Compiles a callback and a function for Python, which takes a second instead of ten.
PARTS = """if True:
    import numpy, fastbp, ctypes
    from fastbp.engine.kernels import finite
    from fastbp.engine.compile.intrinsics import call
    from fastbp.engine.compile import jit
    x, out = numpy.array([1, numpy.nan], "f4"), numpy.zeros(1, "i8")
    def check(address, x, out):
        call(address, (x.ctypes.data, x.size, out.ctypes.data))
    jit.dispatcher(check)(finite.not_finite("float32"), x, out)
    print(out[0])
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, and how to run code with it: run(code, **environment) is what that prints."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "fastbp", ignore=shutil.ignore_patterns("__pycache__"))

    def run(code, **environment):
        paths = {"PYTHONPATH": str(tmp_path / "site"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        return python(
            "-c", code, cwd=tmp_path, **{**paths, "PYTHONDONTWRITEBYTECODE": "1", **environment}
        ).strip()

    return run


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_an_edit_is_seen_by_the_next_process(copy, tmp_path):
    """And what was cached before the edit is still there, and still right: versions share a folder."""
    code = f"{KERNELS}; {SIGMOID}"
    first = copy(code)
    assert copy(code) == first
    cached = files(tmp_path / "cache")
    assert cached
    path = tmp_path / "site/fastbp/engine/simd/vector.py"
    source = path.read_text()
    edited = source.replace("self._exp_of_rest(r), 1.0))", "self._exp_of_rest(r), 1.5))")  # in the sigmoid
    assert edited != source
    path.write_text(edited)
    assert copy(code) != first
    with_both = files(tmp_path / "cache")
    assert {k: with_both[k] for k in cached} == cached
    path.write_text(source)
    assert copy(code) == first
    assert files(tmp_path / "cache") == with_both  # nothing was compiled anew


# Stands between the import and the first use of a kernel: other sources are installed meanwhile.
EDIT = """
import pathlib, fastbp
path = pathlib.Path(fastbp.__file__).parent / {!r}
path.write_text(path.read_text().replace({!r}, {!r}))
"""
SUMS = "print(kernels.bias_sums(numpy.arange(800.0).reshape(20, 40)).sum())"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path, old, new, use",
    [
        ("engine/simd/vector.py", "self._exp_of_rest(r), 1.0))", "self._exp_of_rest(r), 1.5))", SIGMOID),
        ("engine/entries/elementwise.py", "rows - i * job.block)", "rows - i * job.block) - 1", SUMS),
    ],
    ids=["what is emitted", "a text"],
)
def test_a_process_whose_sources_change_has_what_it_imported(copy, tmp_path, path, old, new, use):
    """Between its import and its first call another version is installed: it compiles its own one, for itself
    alone, and gets nothing of the other one's."""
    edited_meanwhile = f"{KERNELS}\n{EDIT.format(path, old, new)}\n{use}"
    first = copy(f"{KERNELS}\n{use}")
    cached = files(tmp_path / "cache")
    assert copy(edited_meanwhile) == first
    assert files(tmp_path / "cache") == cached
    second = copy(f"{KERNELS}\n{use}")
    assert second != first
    source = tmp_path / "site" / "fastbp" / path
    source.write_text(source.read_text().replace(new, old))
    assert copy(edited_meanwhile) == first  # and what is cached of the other version is not for it


@pytest.mark.slow
def test_without_sources_everything_is_compiled_from_bytecode(copy, tmp_path):
    """As in a program that somebody froze."""
    code = f"{KERNELS}\n{SIGMOID}\n{SUMS}\nfastbp.show_config()"
    first = copy(code).splitlines()[:2]
    package = tmp_path / "site" / "fastbp"
    compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.rglob("*.py"):
        path.unlink()
    for _ in range(2):  # compiled, and from the cache
        printed = copy(code).splitlines()
        assert printed[:2] == first
        assert any("bytecode: there are no sources" in line for line in printed)


@on_x86
def test_cpus_share_a_cache(copy, tmp_path):
    """A folder on a network drive, two machines: each finds its own code."""
    assert copy(PARTS) == "1"
    cached = files(tmp_path / "cache")
    assert copy(PARTS, **GENERIC) == "1"
    with_both = files(tmp_path / "cache")
    assert {k: with_both[k] for k in cached} == cached
    assert len(with_both) == 2 * len(cached)
    assert copy(PARTS) == copy(PARTS, **GENERIC) == "1"
    assert files(tmp_path / "cache") == with_both


def test_every_source_counts(tmp_path, monkeypatch):
    """The digest in the cache's file names changes with each file that compiled code comes from only."""
    package = tmp_path / "fastbp"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    of_process = cache.source_digest()
    monkeypatch.setattr(cache, "PACKAGE", package)
    digest = cache.digest_of_sources
    original = digest()
    assert original == of_process == digest()
    (package / "engine" / "notes.txt").write_text("not a source")
    for other in ("model.py", "cli/main.py", "training/run.py"):
        (package / other).write_text("# edited\n")
    assert digest() == original
    sources = cache.compiled_sources()
    folders = {path.parent.relative_to(package).as_posix() for path in sources}
    assert {"engine", "engine/kernels", "engine/simd", "engine/worker", "formulas", "."} <= folders
    for path in sources:
        source = path.read_bytes()
        path.write_bytes(source + b"\n# edited\n")
        assert digest() != original, path.name
        path.write_bytes(source)
    assert digest() == original


def imported(path):
    """The files of fastbp that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            place = PACKAGE.parent.joinpath(*name.split("."))
            yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def test_what_compiled_code_imports_is_a_source():
    """Numbers that are frozen into compiled code come from files that the digest knows."""
    sources = set(cache.compiled_sources())
    # At the top of the engine is what Python fills in; below and in the formulas is what is compiled.
    compiled = [
        path for path in sources if path.parent.name == "formulas" or path.parent.parent.name == "engine"
    ]
    assert len(compiled) > 30
    unknown = {
        (path.relative_to(PACKAGE).as_posix(), used.relative_to(PACKAGE).as_posix())
        for path in compiled
        for used in imported(path)
        if used not in sources and used != PACKAGE / "__init__.py"
    }
    assert unknown == set()


def unwritable(path):
    """Make it impossible to create the folder, for the superuser as well: a file takes its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")


def test_a_read_only_installation(copy, tmp_path):
    """Compiled code goes to the home folder; without that either, it is compiled each time."""
    package = tmp_path / "site" / "fastbp"
    for folder in (package, *(path for path in package.rglob("*") if path.is_dir())):
        unwritable(folder / "__pycache__")
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    (tmp_path / "home").mkdir()
    assert copy(PARTS, **home) == "1"
    cached = files(tmp_path / "home")
    assert any("fastbp-" in path.name for path in cached)
    assert copy(PARTS, **home) == "1"
    assert files(tmp_path / "home") == cached
    unwritable(tmp_path / "no-home")
    nowhere = {**home, "HOME": str(tmp_path / "no-home"), "XDG_CACHE_HOME": str(tmp_path / "no-home")}
    before = files(tmp_path)
    asked = PARTS + "    assert fastbp.show_config()['cache_writable'] is False\n"
    assert copy(asked, **nowhere).splitlines()[0] == "1"
    assert files(tmp_path) == before


@pytest.mark.slow
def test_two_processes_that_compile_at_once(copy, tmp_path):
    """Each of two signatures ends up with its own code, whoever writes last."""
    code = """if True:
        import sys, numpy, fastbp
        from fastbp.engine.compile import jit
        def f(x): return x.size * 1000 + x.itemsize
        f = jit.dispatcher(f)
        for dtype in sys.argv[1:]:
            print(f(numpy.zeros(7, dtype)))
    """
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    script = tmp_path / "both.py"
    script.write_text(code.replace("if True:", "", 1).replace("\n        ", "\n"))
    together = [
        subprocess.Popen([sys.executable, script, dtype], env=env, stdout=subprocess.PIPE, text=True)
        for dtype in ("float32", "float64", "int16", "int8")
    ]
    assert [p.communicate()[0].strip() for p in together] == ["7004", "7008", "7002", "7001"]
    written = files(tmp_path / "cache")
    assert len({path.name.split(".")[0] for path in written}) == 4
    assert python(script, "float32", "float64", "int16", "int8", **env).split() == [
        "7004",
        "7008",
        "7002",
        "7001",
    ]
    assert files(tmp_path / "cache") == written


# Loads a callback and a function for Python again and again, with their files damaged in between; the
# argument is their folder.
DAMAGED = """if True:
    import pathlib, random, shutil, sys
    import numpy, fastbp
    from fastbp.engine.compile import cache, jit
    from fastbp.engine.kernels import finite
    from numba.core.registry import cpu_target

    def double(x): return 2 * x.size

    def works():
        jit._compiled.clear()
        x = numpy.array([1, numpy.inf], "f4")
        finite_of = finite._all_finite_entry.__wrapped__()
        assert not finite_of(finite.not_finite("float32"), x.ctypes.data, x.size)
        assert jit.dispatcher(double)(x) == 4

    works()
    paths = sorted(pathlib.Path(sys.argv[1]).rglob("fastbp-*.nbc"))
    assert len(paths) == 3, paths
    loads = []
    original = cache.Cache.load_overload
    def counted(self, sig, target_context):
        loads.append(original(self, sig, target_context))
        return loads[-1]
    cache.Cache.load_overload = counted
    works()
    assert len(loads) == 3 and None not in loads
    rng, refused = random.Random(1), 0

    def flip(path, good):
        damaged = bytearray(good)
        damaged[at] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)

    def folder(path, good):
        path.unlink()
        path.mkdir()

    ways = {
        "cut short": lambda path, good: path.write_bytes(good[: at]),
        "empty": lambda path, good: path.write_bytes(b""),
        "too long": lambda path, good: path.write_bytes(good + b"x"),
        "another's": lambda path, good: shutil.copy(paths[paths.index(path) - 1], path),
        "of old": lambda path, good: path.write_bytes(b"\\x80\\x04" + good),
        "flipped": flip,
    }
    for path in paths:
        good = path.read_bytes()
        for way in [*ways, *["flipped"] * 10, "a folder"]:
            at = rng.randrange(len(good)) if way != "flipped" or rng.random() < 0.8 else rng.randrange(40)
            (folder if way == "a folder" else ways[way])(path, good)
            loads.clear()
            works()
            assert loads.count(None) == 1, (way, at)
            refused += 1
            loads.clear()
            works()  # from the file that was written instead
            assert way == "a folder" or None not in loads, (way, at)
        path.rmdir()
        path.write_bytes(good)
    print(refused)
"""


def test_a_damaged_file_is_written_again(copy, tmp_path):
    """A bit that flipped, a full disk: only what was written is loaded, else it is compiled again."""
    script = tmp_path / "damaged.py"
    script.write_text(DAMAGED.replace("if True:", "", 1).replace("\n    ", "\n"))
    assert (
        int(
            python(
                script,
                tmp_path / "cache",
                PYTHONPATH=str(tmp_path / "site"),
                NUMBA_CACHE_DIR=str(tmp_path / "cache"),
            )
        )
        > 50
    )


# Callbacks that one line makes: compiles or loads all that are named, and prints what each writes.
NAMED = """if True:
    import ctypes, sys, numpy
    from fastbp.engine.compile import jit
    from fastbp.engine.simd import emit
    from fastbp.engine.simd.vector import I64
    def writes(number):
        def code(b, args):
            b.store(I64(number), b.inttoptr(args[0], I64.as_pointer()))
        return emit.compile_block(f"test-writes-{number}", "float32", 1, code)
    numbers = [int(number) for number in sys.argv[1:]]
    jit.ahead(lambda: [writes(number) for number in numbers])  # all are there before one is asked for
    for number in numbers:
        found = numpy.zeros(1, "i8")
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(writes(number))(found.ctypes.data)
        print(found[0])
"""


@pytest.mark.parametrize("order", ["1 2", "2 1"])
def test_callbacks_that_other_processes_compiled_are_not_mixed_up(tmp_path, order):
    """What one line makes has one name in Numba but for a number, which each process counts for itself."""

    def run(*numbers):
        return python("-c", NAMED, *numbers, NUMBA_CACHE_DIR=str(tmp_path)).split()

    assert run("1") == ["1"] and run("2") == ["2"]
    assert run(*order.split()) == order.split()
