"""The tutorial as one HTML file: style, script and pictures are in it, and no server is asked for more."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from fastbp.cli.bench.measuring import machine
from fastbp.tutorial import equations, sections
from fastbp.tutorial.markup import escape, inline
from fastbp.tutorial.runs import digits, failures, speed, xor
from fastbp.tutorial.runs.failures import Failure, MissingDerivative
from fastbp.tutorial.texts import load


@dataclass(frozen=True)
class Runs:
    """All that the page shows, computed on this machine."""

    xor: xor.Xor
    speed: list[tuple[speed.Size, list[speed.Timing]]]
    failed: list[Failure]
    missing: MissingDerivative
    refused: list[tuple[str, str]]
    digits: digits.Digits
    seconds: float


def compute() -> Runs:
    """Train, measure, fail: some seconds, and as many again where nothing was compiled yet."""
    started = time.perf_counter()
    of_speed = [(size, speed.run(size)) for size in speed.SIZES]
    return Runs(
        xor=xor.run(),
        speed=of_speed,
        failed=failures.run(),
        missing=failures.missing_derivative(),
        refused=failures.refused(),
        digits=digits.run(),
        seconds=time.perf_counter() - started,
    )


def build(language: str, runs: Runs) -> str:
    """The page in a language ("en" or "zh")."""
    text = load(language)
    parts = [
        ("layer", sections.layer(text)),
        ("network", sections.network(text, runs.xor)),
        ("forward", equations.forward(text, runs.xor)),
        ("loss", equations.loss(text, runs.xor)),
        ("backward", equations.backward(text, runs.xor)),
        ("update", equations.update(text, runs.xor)),
        ("fast", sections.fast(text, runs.speed)),
        ("failures", sections.failures(text, runs.failed, runs.missing)),
        ("refused", sections.refused(text, runs.refused)),
        ("digits", sections.digits(text, runs.digits)),
        ("next", sections.outlook(text)),
    ]
    entries = "".join(f'<li><a href="#{name}">{inline(text[f"{name}.title"])}</a></li>' for name, _ in parts)
    body = "".join(
        f'<section id="{name}"><h2><span class="count">{i}</span>{inline(text[f"{name}.title"])}</h2>'
        f"{html}</section>"
        for i, (name, html) in enumerate(parts, 1)
    )
    return _document(text, entries, body, runs.seconds)


def _document(text: Mapping[str, str], contents: str, body: str, seconds: float) -> str:
    here = files("fastbp.tutorial")
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    made = text["made"].format(
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        seconds=seconds,
        machine=machine(),
    )
    return f"""<!DOCTYPE html>
<html lang="{escape(text["lang"])}" data-row="1">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>{escape(text["title"])} · fastbp</title>
<style>
{style}</style>
</head>
<body>
<header>
<p class="brand">fastbp</p>
<h1>{inline(text["title"])}</h1>
<p class="lede">{inline(text["lede"])}</p>
<p class="other" lang="{"zh" if text["lang"] == "en" else "en"}">{inline(text["language.other"])}</p>
<nav aria-label="{escape(text["contents"])}"><ol>{contents}</ol></nav>
</header>
<main>
{body}
</main>
<footer><p>{escape(made)}</p></footer>
<script>
{script}</script>
</body>
</html>
"""
