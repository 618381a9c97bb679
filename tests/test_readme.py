"""README.md and the other pages: their Python runs, their commands exist, and what they name is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastbp.cli import arguments, main, options
from fastbp.cli.train.options import TRAIN

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted(path for name in ("fastbp", "asv_benchmarks") for path in (ROOT / name).rglob("*.md")),
]
# The tutorial's texts are no pages, but what its page is made of.
PAGES = [page for page in PAGES if "texts" not in page.parts and ".asv" not in page.parts]
TEXT = README.read_text(encoding="utf-8")
# Commands, and data, with which test_demo.py, test_cli.py and test_idx.py run.
TOO_LONG_TO_RUN = {"demo", "tutorial", "check", "bench", "sweep", "/usr/share/datasets/fashion-mnist"}
DEMO = "python -m venv .venv && .venv/bin/pip install '.[plot]' && .venv/bin/python -m fastbp demo"
TEST = "python -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """(line, text) of each block of code in that language."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield text.count("\n", 0, match.start()) + 2, match[1]


def each_block(language: str) -> list[object]:
    return [
        pytest.param(text, id=f"{name(page)}-{line}")
        for page in PAGES
        for line, text in blocks(page, language)
    ]


def commands(block: str) -> Iterator[list[str]]:
    """Each command of a console block as a list of words; `a && b` is two, lines ending in \\ are one."""
    for line in block.replace("\\\n", "").splitlines():
        words: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                words.append(word)
            elif words:
                yield words
                words = []


def fastbp_commands(page: Path) -> Iterator[list[str]]:
    for _, block in blocks(page, "console"):
        for words in commands(block):
            if Path(words[0]).name == "fastbp":
                yield words[1:]
            elif Path(words[0]).name == "python" and words[1:3] == ["-m", "fastbp"]:
                yield words[3:]


@pytest.mark.parametrize("code", each_block("python"))
def test_python_block_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "page", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fastbp_commands_run_in_their_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in fastbp_commands(page):
        if TOO_LONG_TO_RUN & set(words):
            arguments.parse(words)  # raises SystemExit for an option that does not exist
        else:
            assert main.main(words) == 0, capsys.readouterr().err


def test_all_commands_are_shown_somewhere() -> None:
    shown = {words[0] for page in PAGES for words in fastbp_commands(page)}
    assert {"demo", "train", "predict", "check", "bench", "data", "tutorial"} <= shown


@pytest.mark.parametrize("text", each_block("toml"))
def test_settings_in_a_file_are_options(text: str, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    options.gather(TRAIN, {}, str(path))


def test_the_first_screen_has_the_benefit_the_figures_and_the_two_commands() -> None:
    first_screen = "\n".join(TEXT.splitlines()[:60])
    assert DEMO in first_screen and TEST in first_screen
    assert "| **geometric mean** |" in first_screen and "Use it:\n\n```python" in first_screen
    assert len(TEXT.splitlines()) < 200


def test_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {group for page in PAGES for group in re.findall(r"\.\[([\w,]+)\]", page.read_text("utf-8"))}
    assert {"plot", "test", "bench", "dev"} <= named
    assert {part for group in named for part in group.split(",")} <= set(extras)


def links(page: Path) -> set[tuple[Path, str]]:
    """(file or folder, heading or "") of each link that does not lead to another site."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"\]\((?!\w+:)([^)#]*)#?([^)]*)\)", text)
    return {((page.parent / path).resolve() if path else page, heading) for path, heading in found}


def headings(page: Path) -> set[str]:
    """As GitHub makes them into addresses."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_linked_exists(page: Path) -> None:
    for path, heading in links(page):
        assert path.exists() and path.is_relative_to(ROOT), path
        assert not heading or heading in headings(path), f"{path}#{heading}"


def test_every_page_is_one_link_away_or_two() -> None:
    near = {path for path, _ in links(README)}
    behind = {path for page in near & {*PAGES} for path, _ in links(page)}
    assert {*PAGES} <= {README} | near | behind
    for page in ("CONTRIBUTING.md", "fastbp/README.md", "fastbp/cli/README.md", "asv_benchmarks/README.md"):
        assert ROOT / page in near, page


def scripts() -> set[tuple[Path, tuple[str, ...]]]:
    """(script, its words) of each command `python SCRIPT ...`, in the folder to which `cd` has gone."""
    found = set()
    for page in PAGES:
        for _, block in blocks(page, "console"):
            folder = ROOT
            for words in commands(block):
                if words[0] == "cd":
                    folder /= words[1]
                    assert folder.is_dir()
                elif words[0] == "asv":
                    assert (folder / "asv.conf.json").is_file()
                elif Path(words[0]).name == "python" and words[1].endswith(".py"):
                    found.add((folder / words[1], tuple(words[2:])))
    return found


def test_scripts_exist_and_know_the_options() -> None:
    tools = {path.name for path, _ in scripts() if path.parent.name == "tools"}
    assert {"dashboard.py", "regression.py", "roofline.py", "sweep.py", "comparison.py"} <= tools
    for path in sorted({path for path, _ in scripts()}):
        used = {word for script, words in scripts() if script == path for word in words if word[:2] == "--"}
        assert path.is_file(), path
        if used:
            command = [sys.executable, str(path), "--help"]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert used <= set(re.findall(r"--[\w-]+", said)), path


def test_paths_that_pytest_is_given_exist() -> None:
    for page in PAGES:
        for _, block in blocks(page, "console"):
            for words in commands(block):
                if "pytest" in words:
                    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
