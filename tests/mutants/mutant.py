"""One small change of one file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

Edit = tuple[int, int, str]
"""Begin and end of what is replaced, and what stands there then."""

COMPARISONS: Final = {
    "==": (),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
}
"""What is put in the place of a comparison; how to say unequal is the language's own."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A file with one change in it."""

    target: str
    line: int
    before: str
    """The lines that differ, without what surrounds them."""
    after: str
    text: str
    """The whole file."""

    def __str__(self) -> str:
        return f"{self.target}:{self.line}\n    - {self.before}\n    + {self.after or '(deleted)'}"


def mutants_of(target: str, source: str, edits: Iterable[Edit]) -> Iterator[Mutant]:
    """Yield a mutant for each edit; each text once."""
    seen = {source}
    for begin, end, replacement in edits:
        text = source[:begin] + replacement + source[end:]
        if text not in seen:
            seen.add(text)
            yield _mutant(target, source, text)


def _mutant(target: str, source: str, text: str) -> Mutant:
    old, new = source.splitlines(), text.splitlines()
    first = next(n for n, (left, right) in enumerate(zip_longest(old, new)) if left != right)
    tails = zip(reversed(old[first:]), reversed(new[first:]), strict=False)
    same = next(
        (n for n, (left, right) in enumerate(tails) if left != right),
        min(len(old), len(new)) - first,
    )
    before, after = (
        " ".join(line.strip() for line in lines[first : len(lines) - same]) for lines in (old, new)
    )
    return Mutant(target, first + 1, before, after, text)


def changed_text(text: str) -> str:
    """Return another text: another letter for a single one (outcomes are letters), else a longer one."""
    if len(text) == 1 and text.isalpha():
        return "d" if text != "d" else "a"
    return text + "!"
