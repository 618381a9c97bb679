"""What the tutorial says, one file for each language: `en.md` and `zh.md`.

A file is a list of parts: a line "# name", then the part's text in light Markdown (see `markup`). Numbers
from the runs stand in it as {name}. Both files have the same parts with the same numbers in them.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

LANGUAGES = ("en", "zh")


@cache
def load(language: str) -> dict[str, str]:
    """The parts of a language, by name."""
    source = (files(__name__) / f"{language}.md").read_text(encoding="utf-8")
    parts = re.split(r"^# (\S+)\n", source, flags=re.M)
    names, texts = parts[1::2], parts[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{language}.md has a part twice")
    return {name: text.strip() for name, text in zip(names, texts, strict=True)}
