"""Mutants that do the same as the original, each with its reason: ``equivalents.toml``."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants.mutant import Mutant

FILE: Final = Path(__file__).with_name("equivalents.toml")


@dataclass(frozen=True, slots=True)
class Equivalent:
    """A change of a line that no test can notice, because nothing changes."""

    target: str
    before: str
    after: str
    """Empty: the line is deleted."""
    reason: str

    def explains(self, mutant: Mutant) -> bool:
        """Tell whether it is this mutant that the reason is about."""
        return (self.target, self.before, self.after) == (
            mutant.target,
            mutant.before,
            mutant.after,
        )


def known() -> list[Equivalent]:
    """Return all that are listed."""
    return [
        Equivalent(**entry)
        for entry in tomllib.loads(FILE.read_text(encoding="utf-8")).get("equivalent", [])
    ]


def idle(mutants: Iterable[Mutant]) -> list[Equivalent]:
    """Return the entries that are about none of these mutants."""
    mutants = list(mutants)
    return [entry for entry in known() if not any(map(entry.explains, mutants))]
