"""The ``Dockerfile``, read: its stages and their instructions, and what its context holds."""

import fnmatch
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a stage; continued lines are joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments, as words or as a JSON list."""
        return json.loads(self.text) if self.text.startswith("[") else shlex.split(self.text)

    @property
    def pairs(self) -> dict[str, str]:
        """The arguments as name → value, of ENV, LABEL and ARG."""
        return dict(word.split("=", 1) for word in self.words if "=" in word)


@dataclass(frozen=True, slots=True)
class Stage:
    """From one FROM to the next."""

    source: str
    name: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions of that name, in order."""
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        """Return the last instruction of that name."""
        return self.all(name)[-1]


def stages(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    found: list[tuple[str, str, list[Instruction]]] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            source, _, name = instruction.text.partition(" AS ")
            found.append((source, name, []))
        elif found:  # what stands before the first is for all FROM lines
            found[-1][2].append(instruction)
    return [Stage(source, name, tuple(instructions)) for source, name, instructions in found]


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    for line in re.split(r"(?<!\\)\n", "\n".join(lines)):
        name, _, rest = line.replace("\\\n", "\n").partition(" ")
        yield Instruction(name, rest.strip())


def ignored(path: str, patterns: list[str]) -> bool:
    """Tell whether a context leaves this path out: the last pattern that matches decides."""
    left_out = False
    parts = path.split("/")
    above = ["/".join(parts[: end + 1]) for end in range(len(parts))]
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        if any(_matches(folder, wanted) for folder in above):
            left_out = not pattern.startswith("!")
    return left_out


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return _matches(path, pattern[3:]) or fnmatch.fnmatchcase(
            path.rpartition("/")[2], pattern[3:]
        )
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)


def ignore_patterns() -> list[str]:
    """Return the lines of ``.dockerignore``."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
