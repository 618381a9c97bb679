"""`fastbp tutorial`: one page that is complete, in both languages, made from runs on this machine."""

from __future__ import annotations

import html.parser
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest

from fastbp.cli.main import main
from fastbp.tutorial.drawing import charts, flow
from fastbp.tutorial.drawing import network as network_drawing
from fastbp.tutorial.page import Runs, build, compute
from fastbp.tutorial.runs import failures, xor
from fastbp.tutorial.texts import LANGUAGES, load

SECTIONS = [
    "layer",
    "network",
    "forward",
    "loss",
    "backward",
    "update",
    "fast",
    "failures",
    "refused",
    "digits",
    "next",
]
MOST_BYTES, MOST_SECONDS = 2_000_000, 60
VOID = {"meta", "link", "br", "path", "circle", "rect"}


class Balanced(html.parser.HTMLParser):
    """Notes elements that are not closed, or closed where others are open, and addresses outside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data") and value:
                self.addresses.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def runs() -> Runs:
    started = time.process_time()  # of this process: others may be busy on the same cores
    made = compute()
    assert time.process_time() - started < MOST_SECONDS
    return made


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_whole(language: str, runs: Runs) -> None:
    page, text = build(language, runs), load(language)
    assert len(page.encode()) < MOST_BYTES
    read = parsed(page)
    assert read.wrong == [] and read.open == []
    assert len(set(read.ids)) == len(read.ids)
    assert [name for name in read.ids if name in SECTIONS] == SECTIONS
    # Every address is a place in the page itself, or no address at all.
    assert set(read.addresses) == {f"#{name}" for name in SECTIONS} | {"data:,"}
    assert not re.search(r"@import|url\((?!data:)|https?://|<(?:script|img|iframe|link)[^>]*\bsrc", page)
    assert f'<html lang="{language}"' in page and '<meta charset="utf-8">' in page
    visible = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    assert not re.search(r"\{\w+[:}]|\bnan\b|\binf\b", visible)
    for name in (*xor.FORWARD, *xor.BACKWARD, "loss", "param"):
        assert f'id="eq-{name}"' in page
        assert runs.xor.lines[name].text.partition("  # ")[0].replace(">", "&gt;") in page
    for name in (*(failure.name for failure in runs.failed), "derivative"):
        assert f'id="failure-{name}"' in page and text[f"failure.{name}.title"] in page


@pytest.mark.slow
def test_every_failure_fails_and_every_cure_cures(runs: Runs) -> None:
    by_name = {failure.name: failure for failure in runs.failed}
    assert set(by_name) == {"zero", "rate", "dead", "saturated", "vanishing", "unscaled"}
    for failure in runs.failed:
        assert failure.wrong.verdicts != failure.right.verdicts
        # Half of it where sigmoids begin saturated, more or less by how sums are rounded; else a tenth.
        assert failure.right.loss[-1] < 0.6 * failure.wrong.loss[-1]
        assert failure.right.loss[-1] < 0.5 * failure.right.loss[0]
    for name in ("zero", "rate", "dead", "vanishing"):
        wrong, right = by_name[name].wrong.accuracy, by_name[name].right.accuracy
        assert wrong is not None and right is not None and wrong < 0.2 and right > 0.8
    for name in ("zero", "rate", "dead", "saturated", "unscaled"):
        assert by_name[name].right.verdicts == ["fine: signals and gradients pass through every layer"]
    assert "vanish" not in "".join(by_name["vanishing"].right.verdicts)
    assert "all zero" in by_name["zero"].wrong.messages[0]
    assert "'sigmoid' only reaches 0 to 1" in by_name["unscaled"].wrong.messages[0]
    for name, says in {
        "zero": "symmetry",
        "rate": "saturated at the wrong value",
        "dead": "32 of 32 units are dead",
        "saturated": "units are saturated",
        "vanishing": "gradients vanish",
    }.items():
        assert says in "\n".join(by_name[name].wrong.verdicts)
    assert "derivative of the activation missing" in runs.missing.said
    assert 10 < runs.missing.angle < 80
    assert runs.missing.right[-1] < runs.missing.wrong[-1] < 0.2 * runs.missing.wrong[0]


@pytest.mark.slow
def test_digits_and_speed_are_worth_showing(runs: Runs) -> None:
    assert runs.digits.accuracy > 0.96 and 0 < len(runs.digits.mistakes) <= 12
    assert runs.digits.confusion.sum() == runs.digits.tested
    for _, timings in runs.speed:
        assert [t.what for t in timings] == ["forward", "backward", "sgd_update", "train_step", "MLP.fit"]
        assert all(t.numpy > 0 and t.fast > 0 and t.ratio > 0 for t in timings)


@pytest.mark.slow
def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "seite.html"
    assert main(["tutorial", "--lang", "zh", "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "tutorial.pdf"], "the name of the page must end in .html"),
        (["--notebook", "--out", "tutorial.html"], "the name of the notebook must end in .ipynb"),
        (["--out", "nowhere/tutorial.html"], "no such directory"),
        (["--lang", "fr"], "invalid choice"),
    ],
)
def test_a_wrong_option_is_one_line(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tutorial", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_dimensions_that_do_not_line_up_are_refused() -> None:
    said = failures.refused()
    assert len(said) == 5 and all(line.startswith("ValueError: ") for _, line in said[:4])
    hints = ("transposed?", "reshape(-1)", "sum(axis=0)", "makes a column of it")
    assert all(hint in line for hint, (_, line) in zip(hints, said[:4], strict=True))
    assert "db1: not summed over the batch: sum(axis=0)" in said[4][1]


# ---- drawings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_network_explains_every_part(language: str) -> None:
    run, text = xor.run(), load(language)
    drawn = network_drawing.draw(run, text)
    assert parsed(drawn).wrong == []
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', drawn, re.DOTALL)
    read = json.loads(data)
    parts = set(re.findall(r'data-part="([^"]+)"', drawn))
    assert len(parts) == 6 + 9 + 1
    for row in range(4):
        for way in ("forward", "backward"):
            assert set(read["values"][f"{row}|{way}"]) == parts
            for part in parts:
                panel = read["panels"][f"{row}|{way}|{part}"]
                assert "<h4>" in panel and 'class="calc"' in panel
    # The sums that are written out come to what stands behind them.
    for panel in read["panels"].values():
        for formula, result in re.findall(r'<p class="calc">= ([^<\[]*?) = <b>([^<]*)</b>', panel):
            written = formula.replace("−", "-").replace("×", "*").replace("½", "0.5").replace("²", "**2")
            assert eval(written) == pytest.approx(float(result.replace("−", "-")), abs=0.003), formula


def test_the_flow_in_the_repository_is_current() -> None:
    assert flow.FILE.read_text(encoding="utf-8") == flow.standalone()
    assert parsed(flow.standalone()).wrong == []


def test_a_curve_that_is_no_longer_finite_ends_with_a_mark() -> None:
    broken = charts.curves(
        [charts.Curve("a", [1, 2, np.inf, np.nan], "bad"), charts.Curve("b", [1, 1, 1, 1], "good")],
        title="t",
        x_label="x",
    )
    assert "l10 10m0 -10l-10 10" in broken and "nan" not in broken and "inf" not in broken
    whole = charts.curves([charts.Curve("a", [3, 2, 1], "good")], title="t", x_label="x", log=True)
    assert "l10 10m0" not in whole


def test_pixels_cover_the_picture_once() -> None:
    values = np.random.default_rng(0).standard_normal((8, 8))
    drawn = charts.pixels(values)
    covered = np.zeros((8, 8), int)
    for x, y, run in re.findall(r"M(\d+) (\d+)h(\d+)v1", drawn):
        covered[int(y), int(x) : int(x) + int(run)] += 1
    assert (covered == 1).all()
