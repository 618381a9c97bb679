"""README.md: its Python runs, its commands exist, and what it names is there."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from fastbp.cli import main, options
from fastbp.cli.train.options import TRAIN

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
# Commands, and data, with which test_demo.py, test_cli.py and test_idx.py run.
TOO_LONG_TO_RUN = {"demo", "tutorial", "check", "bench", "/usr/share/datasets/fashion-mnist"}


def blocks(language):
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE):
        line = TEXT.count("\n", 0, match.start()) + 2
        yield pytest.param(match[1], id=f"line-{line}")


def commands(block):
    """Each command of a console block as a list of words; `a && b` is two, lines ending in \\ are one."""
    for line in block.replace("\\\n", "").splitlines():
        for part in line.split("#")[0].split("&&"):
            words = shlex.split(part)
            if words:
                yield words


def fastbp_commands():
    for block in blocks("console"):
        for words in commands(block.values[0]):
            if words[0] == "fastbp":
                yield words[1:]
            elif Path(words[0]).name == "python" and words[1:3] == ["-m", "fastbp"]:
                yield words[3:]


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_block_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_fastbp_commands_run_in_their_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    seen = set()
    for words in fastbp_commands():
        seen.add(words[0])
        if TOO_LONG_TO_RUN & set(words):
            main._parse(words)  # raises SystemExit for an option that does not exist
        else:
            assert main.main(words) == 0, capsys.readouterr().err
    assert {"demo", "train", "predict", "check", "bench"} <= seen


@pytest.mark.parametrize("text", list(blocks("toml")))
def test_settings_in_a_file_are_options(text, tmp_path):
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    options.gather(TRAIN, {}, str(path))


def test_the_first_screen_has_the_two_commands():
    first_screen = TEXT[:2000]
    assert (
        "python -m venv .venv && .venv/bin/pip install '.[plot]' && .venv/bin/python -m fastbp demo"
        in first_screen
    )
    assert (
        "python -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest"
        in first_screen
    )


def test_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"\.\[([\w,]+)\]", TEXT))
    assert {part for group in named for part in group.split(",")} <= set(extras)


def test_files_that_are_linked_exist():
    links = set(re.findall(r"\]\(((?!http)[^)#]+)", TEXT))
    assert "LICENSE" in links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_scripts_and_asv_commands_exist():
    """The commands of a block run one after another, in the folder to which `cd` has gone."""
    seen = set()
    for block in blocks("console"):
        folder = ROOT
        for words in commands(block.values[0]):
            if words[0] == "cd":
                folder /= words[1]
                assert folder.is_dir()
            elif words[0] == "python" and words[1] != "-m":
                assert (folder / words[1]).is_file()
                seen.add(words[1])
            elif words[0] == "asv":
                assert (folder / "asv.conf.json").is_file()
                seen.add(words[1])
    scripts = {"tools/dashboard.py", "asv_benchmarks/tools/regression.py", "asv_benchmarks/tools/roofline.py"}
    assert {"machine", "run", "compare", *scripts} == seen
