"""Mutants of a Lua script, token by token and line by line."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]  # fakeredis brings it, without types

from tests.mutants.mutant import COMPARISONS, Edit, Mutant, changed_text, mutants_of

_TOKEN: Final = re.compile(
    r"""(?P<comment>--\[\[.*?\]\]|--[^\n]*)|(?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")"""
    r"""|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<operator>==|~=|<=|>=|\.{2,3}|[^\s\w])""",
    re.DOTALL,
)
_INSTEAD: Final = {
    **{operator: others or ("~=",) for operator, others in COMPARISONS.items()},
    "~=": ("==",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "and": ("or",),
    "or": ("and",),
    "true": ("false",),
    "false": ("true",),
    "not": ("",),
}


class Token(NamedTuple):
    """A piece of a script."""

    kind: str
    text: str
    begin: int
    end: int


def mutants(target: str, source: str) -> list[Mutant]:
    """Return every script that has one token changed or one line deleted, and can still be loaded."""
    loads = LuaRuntime().eval("function(text) return loadstring(text) ~= nil end")
    tokens = [token for token in _tokens(source) if token.kind != "comment"]
    edits = [*_token_edits(tokens), *_condition_edits(tokens), *_line_edits(source, tokens)]
    return [mutant for mutant in mutants_of(target, source, edits) if loads(mutant.text)]


def _tokens(source: str) -> Iterator[Token]:
    return (
        Token(str(match.lastgroup), match[0], *match.span()) for match in _TOKEN.finditer(source)
    )


def _token_edits(tokens: list[Token]) -> Iterator[Edit]:
    for token in tokens:
        match token.kind:
            case "string":
                quote, text = token.text[0], token.text[1:-1]
                yield token.begin, token.end, f"{quote}{changed_text(text)}{quote}"
            case "number" if token.text.isdigit():
                yield from (
                    (token.begin, token.end, str(int(token.text) + step)) for step in (1, -1)
                )
            case _:
                yield from (
                    (token.begin, token.end, other) for other in _INSTEAD.get(token.text, ())
                )


def _condition_edits(tokens: list[Token]) -> Iterator[Edit]:
    for number, token in enumerate(tokens):
        if token.text in {"if", "elseif"}:
            then = next(later for later in tokens[number:] if later.text == "then")
            yield from ((token.end, then.begin, f" {always} ") for always in ("true", "false"))


def _line_edits(source: str, tokens: list[Token]) -> Iterator[Edit]:
    begin = 0
    for line in source.splitlines(keepends=True):
        end = begin + len(line)
        if any(begin <= token.begin < end for token in tokens):
            yield begin, end, ""
        begin = end
