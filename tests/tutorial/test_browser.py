"""The tutorial's page in a real browser: no request leaves, no script fails, it answers, and fits a phone."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import asked_of_other_sites, start

from fastbp.tutorial.page import build, compute
from fastbp.tutorial.texts import LANGUAGES

pytestmark = pytest.mark.slow

# Loads the page in a frame of some width, uses it as a reader would, and notes what it saw.
PROBE = """<!DOCTYPE html><body><iframe height="900"></iframe><script>
const [width, file] = location.hash.slice(1).split(",");
const frame = document.querySelector("iframe");
const seen = { errors: [], values: {}, panels: {} };
frame.width = width;
frame.onload = () => {
    const page = frame.contentDocument, view = frame.contentWindow;
    view.addEventListener("error", (event) => seen.errors.push(String(event.message)));
    page.addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.violatedDirective));
    const find = (part) => page.querySelector(`[data-part="${part}"]`);
    const value = (part) => find(part).querySelector(".value, .weight").textContent;
    const panel = () => page.getElementById("panel").textContent;
    const press = (selector) => page.querySelector(selector).click();
    const point = (part) => find(part).dispatchEvent(new view.PointerEvent("pointerenter"));
    seen.start = panel();
    for (const way of ["forward", "backward"]) {
        press(`button[data-direction="${way}"]`);
        for (const row of [0, 3]) {
            press(`button[data-row="${row}"]`);
            for (const part of ["h0", "y0", "W1-1-0"]) {
                point(part);
                seen.values[`${row}|${way}|${part}`] = value(part);
                seen.panels[`${row}|${way}|${part}`] = panel();
            }
        }
    }
    find("E").focus();
    seen.focused = panel();
    seen.marked = [...page.querySelectorAll(".r3")].filter(
        (row) => view.getComputedStyle(row).backgroundColor !== "rgba(0, 0, 0, 0)").length;
    const boxes = [...page.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect());
    seen.drawings = boxes.length;
    seen.flat = boxes.filter((box) => box.width < 20 || box.height < 20).length;
    const formulas = [...page.querySelectorAll("math")];
    seen.formulas = formulas.filter((math) => math.getBoundingClientRect().width > 20).length;
    seen.overflow = page.documentElement.scrollWidth - view.innerWidth;
    seen.paper = view.getComputedStyle(page.body).backgroundColor;
    seen.ink = view.getComputedStyle(page.body).color;
    document.body.dataset.seen = JSON.stringify(seen);
};
frame.src = file;
</script></body>"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages, and the probe."""
    folder = tmp_path_factory.mktemp("pages")
    runs = compute()
    for language in LANGUAGES:
        (folder / f"{language}.html").write_text(build(language, runs), encoding="utf-8")
    (folder / "probe.html").write_text(PROBE, encoding="utf-8")
    return folder


@pytest.fixture
def look(
    folder: Path, running: list[ThreadingHTTPServer], render: Callable[..., str]
) -> Callable[..., dict[str, Any]]:
    handler = functools.partial(Quiet, directory=str(folder))
    port = start(ThreadingHTTPServer(("127.0.0.1", 0), handler), running)

    def look(language: str, width: int, *options: str) -> dict[str, Any]:
        page = render(f"http://127.0.0.1:{port}/probe.html#{width},{language}.html", *options)
        (seen,) = re.findall(r'data-seen="([^"]*)"', page)
        return dict(json.loads(html.unescape(seen)))

    return look


def brightness(color: str) -> float:
    return sum(map(int, re.findall(r"\d+", color)[:3])) / 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_is_drawn_and_answers(language: str, look: Callable[..., dict[str, Any]]) -> None:
    seen = look(language, 1100)
    assert seen["errors"] == [] and asked_of_other_sites() == []
    assert seen["drawings"] > 50 and seen["flat"] == 0 and seen["formulas"] == 13
    assert "z1[1,1] = X[1,0]·W1[0,1]" in seen["start"]
    assert seen["values"]["3|forward|h0"] == "1.4"
    assert "z1[3,0] = X[3,0]·W1[0,0]" in seen["panels"]["3|forward|h0"]
    assert "dz1[0,0] = dz2[0,0]·W2[0,0]·[z1[0,0] > 0]" in seen["panels"]["0|backward|h0"]
    assert seen["values"]["0|backward|h0"] == "0"  # the ReLU is off
    assert "dW1[1,0] = Σr X[r,1]·dz1[r,0]" in seen["panels"]["3|backward|W1-1-0"]
    assert "∂E/∂y_pred" in seen["focused"]  # reached by the keyboard
    assert seen["marked"] > 10  # the matrices' row that was chosen
    assert brightness(seen["paper"]) > 200 > 100 > brightness(seen["ink"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_fits_a_phone(language: str, look: Callable[..., dict[str, Any]]) -> None:
    seen = look(language, 360)
    assert seen["errors"] == [] and seen["flat"] == 0
    assert seen["overflow"] <= 0


def test_it_is_dark_where_the_reader_likes_it_dark(look: Callable[..., dict[str, Any]]) -> None:
    seen = look("zh", 1100, "--blink-settings=preferredColorScheme=0")
    assert seen["errors"] == []
    assert brightness(seen["paper"]) < 60 and brightness(seen["ink"]) > 200


def test_it_opens_from_a_file_and_prints(folder: Path, render: Callable[..., str], tmp_path: Path) -> None:
    page = folder / "en.html"
    assert 'class="unit h chosen"' in render(page.as_uri())  # the script has run
    assert asked_of_other_sites() == []
    printed = tmp_path / "page.pdf"
    render(page.as_uri(), f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF") and printed.stat().st_size > 50_000
