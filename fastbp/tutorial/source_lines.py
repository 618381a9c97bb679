"""The lines of `fastbp.reference` that the tutorial shows, read from the source, and what they compute.

A line is found by the function that it stands in and the name that it assigns; the numbers shown beside it
come from running that very line.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import fastbp.reference
from fastbp.activations import sigmoid

FILE = "fastbp/reference.py"


@dataclass(frozen=True)
class SourceLine:
    """A statement of the reference as it is written."""

    text: str  # without indentation, with its comment
    number: int  # in the file
    statement: ast.stmt

    @property
    def code(self) -> str:
        """Without the comment."""
        return ast.unparse(self.statement)

    def run(self, names: dict[str, Any]) -> None:
        """Execute the statement on these arrays; a `return` becomes the name "result"."""
        statement = self.statement
        if isinstance(statement, ast.Return) and statement.value is not None:
            target = ast.Name("result", ast.Store())
            statement = ast.copy_location(ast.Assign([target], statement.value), statement)
        module = ast.fix_missing_locations(ast.Module([statement], []))
        exec(compile(module, FILE, "exec"), {"np": np, "sigmoid": sigmoid}, names)

    def operands(self) -> list[str]:
        """The right side in reading order: expressions that are arrays, and what stands between them."""
        value = getattr(self.statement, "value", None)
        assert isinstance(value, ast.expr)
        return _operands(value)


@cache
def lines_of(function: str) -> dict[str, SourceLine]:
    """The statements of a function of `fastbp.reference`, by the name that each assigns or "return"."""
    source = inspect.getsource(fastbp.reference)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            break
    else:
        raise LookupError(f"fastbp.reference has no function {function}")
    found = {}
    for statement in ast.walk(node):
        name = _assigned(statement)
        if name is not None:
            assert isinstance(statement, ast.stmt)
            text = source.splitlines()[statement.lineno - 1].strip()
            found[name] = SourceLine(text, statement.lineno, statement)
    return found


def _assigned(node: ast.AST) -> str | None:
    if isinstance(node, ast.Return):
        return "return"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    return None


_SIGNS: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.MatMult: "@",
    ast.Div: "/",
}


def _operands(node: ast.expr, above: ast.operator | None = None) -> list[str]:
    if isinstance(node, ast.BinOp):
        parts = [*_operands(node.left, node.op), _SIGNS[type(node.op)], *_operands(node.right, node.op)]
        return ["(", *parts, ")"] if _needs_brackets(node.op, above) else parts
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) != "np":
            method = ast.unparse(node).removeprefix(ast.unparse(node.func.value))
            return [*_operands(node.func.value), method]
        parts = [f"{ast.unparse(node.func)}("]
        for i, argument in enumerate(node.args):
            parts += [","] * (i > 0) + _operands(argument)
        return [*parts, ")"]
    return [ast.unparse(node)]


def _needs_brackets(op: ast.operator, above: ast.operator | None) -> bool:
    """Whether they are needed, or make a product of matrices inside an elementwise product easier to read."""
    if isinstance(op, (ast.Add, ast.Sub)):
        return isinstance(above, (ast.Mult, ast.MatMult, ast.Div))
    return isinstance(op, ast.MatMult) and isinstance(above, ast.Mult)
