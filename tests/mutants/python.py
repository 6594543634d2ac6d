"""Mutants of a Python module, by its syntax tree. What is declared (annotations, decorators, docstrings) is let be."""

import ast
import re
from itertools import pairwise
from typing import Final

from tests.mutants.mutant import COMPARISONS, Edit, Mutant, changed_text, mutants_of

_INSTEAD: Final = {
    **{operator: others or ("!=",) for operator, others in COMPARISONS.items()},
    "!=": ("==",),
    "is": ("is not",),
    "is not": ("is",),
    "in": ("not in",),
    "not in": ("in",),
    "+": ("-",),
    "-": ("+",),
    "*": ("//",),
    "//": ("*",),
    "/": ("*",),
    "%": ("*",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "^": ("&",),
    "and": ("or",),
    "or": ("and",),
}
_OPERATOR: Final = re.compile(
    r"not\s+in\b|is\s+not\b|\b(?:in|is|and|or)\b|==|!=|<=|>=|<<|>>|//|[-<>+*/%&|^]"
)
_STATEMENTS: Final = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise, ast.Return, ast.Delete)


def mutants(target: str, source: str) -> list[Mutant]:
    """Return every module that has one operator, constant, condition or statement changed, and still is one."""
    edits, tree = _Edits(source), ast.parse(source)
    edits.visit(tree)
    return [
        mutant
        for mutant in mutants_of(target, source, edits.found)
        if _is_another(mutant.text, tree)
    ]


def _is_another(text: str, tree: ast.Module) -> bool:
    """Tell whether the text is a module, and more than a comment in it differs."""
    try:
        return _differ(ast.parse(text), tree)
    except SyntaxError:
        return False


def _differ(one: object, other: object) -> bool:
    """Tell whether two syntax trees, or parts of them, differ; their places in the text do not count."""
    if type(one) is not type(other):
        return True
    if isinstance(one, ast.AST):
        return any(
            _differ(getattr(one, name, None), getattr(other, name, None)) for name in one._fields
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) != len(other) or any(map(_differ, one, other))
    return one != other


def _other_constants(value: object) -> tuple[str, ...]:
    match value:
        case bool():
            return (str(not value),)
        case int():
            return str(value + 1), str(value - 1)
        case str():
            return (repr(changed_text(value)),)
        case _:
            return ()


class _Edits(ast.NodeVisitor):
    """Collects what may be changed."""

    def __init__(self, source: str) -> None:
        self.found: list[Edit] = []
        self._source = source
        self._lines = source.splitlines(keepends=True)
        self._depth = 0

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt):
            self._statement(node)
        elif isinstance(node, ast.expr):
            self._expression(node)
        elif isinstance(node, ast.comprehension):
            self._force(*node.ifs)
        super().generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._depth += 1
        for part in (*node.args.defaults, *node.args.kw_defaults, *node.body):
            if part is not None:
                self.visit(part)
        self._depth -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Let formatted text be: before Python 3.12 nothing in it knows its place."""

    def visit_Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):  # a docstring
            self.generic_visit(node)

    def _statement(self, node: ast.stmt) -> None:
        if self._depth and isinstance(node, _STATEMENTS):
            self._replace(node, "pass")
        match node:
            case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
                self._replace(value, "None")
            case ast.If(test=test) | ast.While(test=test):
                self._force(test)
            case ast.Break():
                self._replace(node, "continue")
            case ast.Continue():
                self._replace(node, "break")

    def _expression(self, node: ast.expr) -> None:
        match node:
            case ast.Constant():
                self._replace(node, *_other_constants(node.value))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._replace(node, f"({ast.unparse(operand)})")
            case ast.IfExp(test=test):
                self._force(test)
            case ast.BinOp(left=left, right=right):
                self._between(left, right)
            case ast.BoolOp(values=values):
                for left, right in pairwise(values):
                    self._between(left, right)
            case ast.Compare(left=left, comparators=others):
                for first, second in pairwise([left, *others]):
                    self._between(first, second)

    def _force(self, *tests: ast.expr) -> None:
        for test in tests:
            self._replace(test, "True", "False")

    def _between(self, left: ast.expr, right: ast.expr) -> None:
        begin, end = self._place(left)[1], self._place(right)[0]
        if operator := _OPERATOR.search(self._source, begin, end):
            for other in _INSTEAD[" ".join(operator[0].split())]:
                self.found.append((operator.start(), operator.end(), other))

    def _replace(self, node: ast.expr | ast.stmt, *others: str) -> None:
        self.found.extend((*self._place(node), other) for other in others)

    def _place(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(
            node.end_lineno, node.end_col_offset
        )

    def _offset(self, line: int, column: int) -> int:
        """Return the place in the text; the tree counts bytes."""
        within = self._lines[line - 1].encode()[:column].decode()
        return sum(map(len, self._lines[: line - 1])) + len(within)
