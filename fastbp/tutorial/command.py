"""`fastbp tutorial`: writes the page or the notebook."""

from __future__ import annotations

import time

from fastbp.storage.atomic import check_writable, write

ENDINGS = {"page": ".html", "notebook": ".ipynb"}


def run(language: str, out: str | None, *, notebook: bool) -> int:
    """Write it, say where, and return 0."""
    kind = "notebook" if notebook else "page"
    target = out or f"tutorial{ENDINGS[kind]}"
    if not target.lower().endswith(ENDINGS[kind]):
        raise ValueError(f"--out {target}: the name of the {kind} must end in {ENDINGS[kind]}")
    check_writable(target, "--out")
    started = time.perf_counter()
    if notebook:
        from fastbp.tutorial.notebook import build as build_notebook

        content = build_notebook(language)
    else:
        print("training, failing and measuring on this machine: half a minute or so", flush=True)
        from fastbp.tutorial.page import build, compute

        content = build(language, compute())
    write(target, content.encode())
    took = time.perf_counter() - started
    if notebook:
        print(f"wrote {target}: open it with Jupyter")
    else:
        print(f"wrote {target} ({len(content.encode()) / 1024:.0f} KB) in {took:.1f} s: open it in a browser")
    return 0
