"""`fastbp tutorial --notebook`: a notebook in both languages that runs from top to bottom."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbp.cli.main import main
from fastbp.tutorial.texts import LANGUAGES


def notebook(language: str, folder: Path) -> dict[str, Any]:
    path = folder / "n.ipynb"
    assert main(["tutorial", "--notebook", "--lang", language, "--out", str(path)]) == 0
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def code_of(cells: list[dict[str, Any]]) -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_a_notebook(language: str, tmp_path: Path) -> None:
    read = notebook(language, tmp_path)
    assert (read["nbformat"], read["nbformat_minor"]) == (4, 4)
    assert read["metadata"]["kernelspec"]["language"] == "python"
    for cell in read["cells"]:
        assert set(cell) - {"execution_count", "outputs"} == {"cell_type", "metadata", "source"}
        assert all(line.endswith("\n") for line in cell["source"][:-1]) and "".join(cell["source"]).strip()
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    said = "".join("".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "markdown")
    assert not re.search(r"\{\w+[:}]", re.sub(r"\$\$.*?\$\$", "", said))  # no number was left out


def test_both_languages_run_the_same_code(tmp_path: Path) -> None:
    en, zh = (code_of(notebook(language, tmp_path)["cells"]) for language in LANGUAGES)
    assert en == zh and len(en) > 20


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    settings = np.get_printoptions()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for i, code in enumerate(code_of(notebook("en", tmp_path)["cells"])):
                exec(compile(code, f"cell {i}", "exec"), names)
    finally:
        np.set_printoptions(**settings)
        import matplotlib.pyplot

        matplotlib.pyplot.close("all")
    assert any("all zero" in str(w.message) for w in caught)
    said = capsys.readouterr().out
    for phrase in (
        "units are dead",
        "saturated",
        "gradients vanish",
        "derivative of the activation missing",
        "ValueError: ",
    ):
        assert phrase in said
    assert np.mean(names["predicted"] == names["data"].y_test) > 0.95
    assert names["dW1"].shape == (2, 3) and len(matplotlib.pyplot.get_fignums()) == 0
