"""What is mutated, and which tests must notice: one line adds a file."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.mutants import lua, python
from tests.mutants.mutant import Mutant

ROOT: Final = Path(__file__).parents[2]

_SCRIPT = "tests/store/test_contract.py tests/store/test_retention.py"

TARGETS: Final[dict[str, Sequence[str]]] = {
    "worker/domain/entry.py": ["tests/domain/test_the_rule.py tests/domain/test_properties.py"],
    "worker/domain/reconciliation.py": ["tests/domain/test_reconciliation.py"],
    "worker/domain/seen_set.py": ["tests/domain/test_seen_set.py"],
    "worker/store/lua/owe.lua": ["tests/store/test_pending_repairs.py"],
    "worker/store/lua/repay.lua": ["tests/store/test_pending_repairs.py"],
    "worker/store/lua/save_cursor.lua": ["tests/store/test_cursors.py"],
    "worker/store/lua/apply.lua": [f"{_SCRIPT} -k fakeredis", f"{_SCRIPT} -k 'not fakeredis'"],
}
"""File → what pytest is given, one run after the other, the quickest first, until one fails."""

_LANGUAGES: Final[dict[str, Callable[[str, str], list[Mutant]]]] = {
    ".lua": lua.mutants,
    ".py": python.mutants,
}


@cache
def mutants_of(target: str) -> Sequence[Mutant]:
    """Return all mutants of a target, in the order of its lines."""
    path = ROOT / target
    found = _LANGUAGES[path.suffix](target, path.read_text(encoding="utf-8"))
    return sorted(found, key=lambda mutant: mutant.line)
