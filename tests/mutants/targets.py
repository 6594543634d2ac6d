"""What is mutated, which tests must notice, and which mutants do the same as the original."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests.mutants.mutator import Mutant, mutants

ROOT: Final = Path(__file__).parents[2]
FILE: Final = Path(__file__).with_name("equivalents.toml")

_SCRIPT = (
    "tests/store/test_contract.py tests/store/test_retention.py tests/store/test_cursors.py "
    "tests/store/test_hints.py tests/store/test_who.py"
)
_WHO = "tests/store/test_who.py"

TARGETS: Final[dict[str, Sequence[str]]] = {
    "worker/domain/entry.py": ["tests/domain/test_the_rule.py tests/domain/test_properties.py"],
    "worker/domain/reconciliation.py": ["tests/domain/test_reconciliation.py"],
    "worker/domain/seen_set.py": ["tests/domain/test_seen_set.py"],
    "worker/store/lua/owe.lua": ["tests/store/test_pending_repairs.py"],
    "worker/store/lua/repay.lua": ["tests/store/test_pending_repairs.py"],
    "worker/store/lua/apply.lua": [f"{_SCRIPT} -k fakeredis", f"{_SCRIPT} -k 'not fakeredis'"],
    "worker/store/lua/rank.lua": [f"{_WHO} -k fakeredis", f"{_WHO} -k 'not fakeredis'"],
}
"""File → arguments of pytest, one run after the other, the quickest first, until one fails."""


@cache
def mutants_of(target: str) -> Sequence[Mutant]:
    """Return all mutants of a target, in the order of its lines."""
    return mutants(target, (ROOT / target).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalent:
    """A change of a line that no test can notice, because nothing changes."""

    target: str
    before: str
    after: str
    """Empty: the line is deleted."""
    reason: str

    def explains(self, mutant: Mutant) -> bool:
        """Tell whether the reason is about this mutant."""
        change = (mutant.target, mutant.before, mutant.after)
        return change == (self.target, self.before, self.after)


@cache
def equivalents() -> Sequence[Equivalent]:
    """Return the entries of ``equivalents.toml``."""
    entries = tomllib.loads(FILE.read_text(encoding="utf-8"))["equivalent"]
    return [Equivalent(**entry) for entry in entries]
