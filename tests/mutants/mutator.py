"""Small changes of a Python module or a Lua script: a token, a condition or a line at a time.

Both languages share this code; there is no maintained tool that mutates Lua.
"""

import io
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

from lupa.lua51 import LuaRuntime  # type: ignore[import-untyped]  # fakeredis brings it, without types

Edit = tuple[int, int, str]
"""Begin and end of the text to replace, and the replacement."""

SWAPS: Final = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "!=": ("==",),
    "~=": ("==",),
    "+": ("-",),
    "-": ("+",),
    "and": ("or",),
    "or": ("and",),
    "not": ("",),
}
_LUA_TOKEN: Final = re.compile(
    r"""(?P<comment>--\[\[.*?\]\]|--[^\n]*)|(?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")"""
    r"""|(?P<number>\d+(?:\.\d+)?)|(?P<name>[A-Za-z_]\w*)"""
    r"""|(?P<operator>==|~=|<=|>=|\.{2,3}|[^\s\w])""",
    re.DOTALL,
)
_LOADS: Final = LuaRuntime().eval("function(text) return loadstring(text) ~= nil end")
_KINDS: Final = {
    tokenize.STRING: "string",
    tokenize.NUMBER: "number",
    tokenize.NAME: "name",
    tokenize.OP: "operator",
}


class Token(NamedTuple):
    """A piece of a program."""

    kind: str
    text: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Language:
    """What the mutator must know of a language."""

    tokens: Callable[[str], Iterator[Token]]
    is_valid: Callable[[str], bool]
    swaps: dict[str, tuple[str, ...]]
    true: str
    false: str
    empty: str
    """A statement that does nothing; "" where a line can just go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A file with one change in it."""

    target: str
    line: int
    before: str
    """The changed line, or the part of it from a condition to its end, without indentation."""
    after: str
    """What stands there instead; empty if the line is deleted."""
    text: str
    """The whole file."""

    def __str__(self) -> str:
        return f"{self.target}:{self.line}\n    - {self.before}\n    + {self.after or '(deleted)'}"


def mutants(target: str, source: str) -> list[Mutant]:
    """Return every valid program that differs by one edit, in the order of lines."""
    language = PYTHON if target.endswith(".py") else LUA
    found: dict[str, Mutant] = {}
    for edit in sorted(_edits(language, source)):
        mutant = _mutant(target, source, edit)
        if mutant.text != source and mutant.text not in found and language.is_valid(mutant.text):
            found[mutant.text] = mutant
    return list(found.values())


def _mutant(target: str, source: str, edit: Edit) -> Mutant:
    begin, end, replacement = edit
    start = source.rfind("\n", 0, begin) + 1
    stop = end if source[:end].endswith("\n") else source.find("\n", end)
    after = source[start:begin] + replacement + source[end:stop]
    return Mutant(
        target=target,
        line=source.count("\n", 0, begin) + 1,
        before=_joined(source[start:stop]),
        after=_joined(after),
        text=source[:start] + after + source[stop:],
    )


def _joined(text: str) -> str:
    return " ".join(line.strip() for line in text.strip().splitlines())


def _edits(language: Language, source: str) -> Iterator[Edit]:
    tokens = [token for token in language.tokens(source) if not _declares(source, token)]
    for token in tokens:
        for other in _others(language, token):
            yield token.begin, token.end, other
    yield from _condition_edits(language, tokens)
    yield from _line_edits(language, source, tokens)


def _declares(source: str, token: Token) -> bool:
    """Tell whether a token stands in a decorator, or in the head of a class or a function."""
    start = source.rfind("\n", 0, token.begin) + 1
    return source[start:].lstrip().startswith(("@", "class ", "def ", "async def "))


def _others(language: Language, token: Token) -> tuple[str, ...]:
    """Return what may stand in the place of a token."""
    if token.kind == "string":
        quote, text = token.text[0], token.text[1:-1]
        return (f"{quote}{_changed(text)}{quote}",) if quote in "'\"" else ()
    if token.kind == "number":
        digits = token.text.replace("_", "")
        return (str(int(digits) + 1), str(int(digits) - 1)) if digits.isdigit() else ()
    return language.swaps.get(token.text, ())


def _changed(text: str) -> str:
    """Return another letter for a single one (outcomes are letters), else a longer text."""
    if len(text) == 1 and text.isalpha():
        return "d" if text != "d" else "a"
    return text + "!"


def _condition_edits(language: Language, tokens: list[Token]) -> Iterator[Edit]:
    """Yield each condition as true and as false."""
    for number, token in enumerate(tokens):
        if token.kind == "name" and token.text in {"if", "elif", "elseif", "while"}:
            end = _end_of_condition(tokens[number + 1 :])
            for value in (language.true, language.false):
                yield token.end, end, f" {value}"


def _end_of_condition(tokens: list[Token]) -> int:
    """Return the end of the last token of a condition that begins with the first one."""
    depth, end = 0, tokens[0].begin
    for token in tokens:
        depth += (token.text in {"(", "[", "{"}) - (token.text in {")", "]", "}"})
        if depth < 0 or (not depth and token.text in {":", "then", "do", "else", "for", "if"}):
            break
        end = token.end
    return end


def _line_edits(language: Language, source: str, tokens: list[Token]) -> Iterator[Edit]:
    """Yield each line as empty; what a module or a class declares stays."""
    begins = {token.begin for token in tokens}
    lines = source.splitlines(keepends=True)
    outermost = ""
    for line, end in zip(lines, accumulate(map(len, lines)), strict=True):
        begin = end - len(line)
        indent = len(line) - len(line.lstrip())
        if not indent and line.strip():
            outermost = line
        is_declared = not indent or (indent == 4 and outermost.startswith("class "))
        if begins.isdisjoint(range(begin, end)) or (language.empty and is_declared):
            continue
        if language.empty:
            yield begin + indent, end - 1, language.empty
        else:
            yield begin, end, ""


def _lua_tokens(source: str) -> Iterator[Token]:
    for match in _LUA_TOKEN.finditer(source):
        if match.lastgroup != "comment":
            yield Token(str(match.lastgroup), match[0], *match.span())


def _python_tokens(source: str) -> Iterator[Token]:
    """Yield what may be changed: no comments, no docstrings."""
    lines = source.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    is_first = True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT):
            is_first = True
        elif token.type in _KINDS:
            begin, end = (starts[line - 1] + column for line, column in (token.start, token.end))
            if not (is_first and token.type == tokenize.STRING):  # a docstring
                yield Token(_KINDS[token.type], token.string, begin, end)
            is_first = False


def _is_python(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _is_lua(source: str) -> bool:
    return bool(_LOADS(source))


PYTHON: Final = Language(
    _python_tokens,
    _is_python,
    {
        **SWAPS,
        "==": ("!=",),
        "*": ("//",),
        "//": ("*",),
        "/": ("*",),
        "%": ("*",),
        "<<": (">>",),
        ">>": ("<<",),
        "&": ("|",),
        "|": ("&",),
        "^": ("&",),
        "is": ("is not",),
        "in": ("not in",),
        "True": ("False",),
        "False": ("True",),
        "break": ("continue",),
        "continue": ("break",),
    },
    "True",
    "False",
    "pass",
)
LUA: Final = Language(
    _lua_tokens,
    _is_lua,
    {
        **SWAPS,
        "==": ("~=",),
        "*": ("/",),
        "/": ("*",),
        "true": ("false",),
        "false": ("true",),
    },
    "true",
    "false",
    "",
)
