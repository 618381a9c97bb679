"""The text of a function, as a tree."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType
from typing import Any

Place = tuple[int, str]  # the first line, decorators included, and the name


class NoText(Exception):
    """A function's text is not there, or is another one than it was when it was imported."""


@cache
def text_of(function: Callable[..., Any]) -> ast.FunctionDef:
    """The function's definition; NoText."""
    code = function.__code__
    texts, codes = _definitions(code.co_filename)
    place = code.co_firstlineno, code.co_name
    if codes.get(place) != code:
        raise NoText(f"{code.co_filename} has no text, or another one, of {code.co_name}")
    return texts[place]


@cache
def _definitions(path: str) -> tuple[dict[Place, ast.FunctionDef], dict[Place, CodeType]]:
    """The functions that a file defines, and their bytecode."""
    tree = ast.parse("".join(linecache.getlines(path)), path)
    texts = {
        (min(part.lineno for part in (node, *node.decorator_list)), node.name): node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    codes = _codes(compile(tree, path, "exec", dont_inherit=True))
    return texts, {(code.co_firstlineno, code.co_name): code for code in codes}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
