"""The code has air: one idea a line, short classes, few parameters."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = (ROOT / "worker", ROOT / "client" / "reaction_tally")
BRANCHES: Final = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While),
    *(ast.ExceptHandler, ast.Assert, ast.match_case),
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def texts(packages: Iterable[Path] = PACKAGES) -> list[str]:
    """Return the text of each module."""
    paths = [path for package in packages for path in sorted(package.rglob("*.py"))]
    return [path.read_text("utf-8") for path in paths]


def nodes() -> Iterator[ast.AST]:
    """Yield every node of every module."""
    for text in texts():
        yield from ast.walk(ast.parse(text))


def decisions(function: Function) -> int:
    """Return how often a function can go another way."""
    count = 0
    for node in ast.walk(function):
        if isinstance(node, BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def length(node: ast.stmt) -> int:
    """Return the number of lines."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_a_function_decides_seldom() -> None:
    """At most 1.5 decisions in ten lines of a function, over both packages together."""
    functions = [node for node in nodes() if isinstance(node, Function)]

    assert 10 * sum(map(decisions, functions)) / sum(map(length, functions)) <= 1.5


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_line_is_short(package: Path) -> None:
    """At most 36 characters in a code line, over the whole package."""
    stripped = [line.strip() for text in texts([package]) for line in text.splitlines()]
    code = [line for line in stripped if line and not line.startswith("#")]

    assert sum(map(len, code)) / len(code) <= 36


def test_a_class_is_read_in_one_sitting() -> None:
    """At most 160 lines, and six parameters of its constructor."""
    for node in nodes():
        if isinstance(node, ast.ClassDef):
            assert length(node) <= 160, node.name
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            assert len(parameters) - 1 <= 6, parameters
