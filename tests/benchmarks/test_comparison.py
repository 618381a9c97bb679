"""tools/comparison.py: what the pages say of other libraries is what was measured."""

from __future__ import annotations

import copy
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from fastbp.cli import arguments

FOLDER = Path(__file__).parents[2] / "asv_benchmarks" / "tools"


@pytest.fixture
def comparison() -> Any:
    return importlib.import_module("comparison")


@pytest.fixture
def record(comparison: Any) -> dict[str, Any]:
    return json.loads(comparison.RECORD.read_text(encoding="utf-8"))


def test_the_pages_say_what_was_measured(comparison: Any, record: dict[str, Any]) -> None:
    for path, page in comparison.written(record).items():
        assert path.read_text(encoding="utf-8") == page, f"python asv_benchmarks/tools/comparison.py ({path})"
    assert comparison.PICTURE.is_file()
    words = record["command"].split()
    assert arguments.parse(words[1:]).command_line == words[1:]


def test_losses_and_gaps_are_shown(comparison: Any, record: dict[str, Any]) -> None:
    changed = copy.deepcopy(record)
    for way, cell in changed["results"]["tiny"].items():
        if way.startswith("torch"):
            cell["ratio"] = {"median": 0.8, "low": 0.75, "high": 0.9}
    block = comparison.block(changed)
    assert "**0.80 (0.75-0.90) !**" in block and "Bold, with !: fastbp is slower." in block
    assert "slower at tiny (0.80)" in block
    short = comparison.short_block(changed)
    of_tiny = next(line for line in short.splitlines() if line.startswith("| 32 x 8-16-1 |"))
    assert "fastbp is slower once" in short and of_tiny.split("|")[4] == " 0.8 "
    assert "fastbp is nowhere slower" in comparison.short_block(record)


def test_a_page_without_marks_is_refused(comparison: Any) -> None:
    text = f"before\n{comparison.BEGIN}\nold\n{comparison.END}\nafter\n"
    assert comparison.with_block(text, "new") == text.replace("old", "new")
    with pytest.raises(SystemExit, match="the page must have the lines"):
        comparison.with_block("no marks", "new")
