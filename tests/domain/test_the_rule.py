"""The rule, row by row."""

import pytest

from tests.rule_table import ROWS
from worker.domain.entry import ABSENT, Outcome, apply


@pytest.mark.parametrize("row", ROWS)
def test_each_event_has_its_outcome(row: str) -> None:
    """The rule is a table; this is the table."""
    history, expected, end = ROWS[row]
    entry, outcomes = ABSENT, []

    for event in history:
        entry, outcome = apply(entry, event)
        outcomes.append(outcome)

    assert outcomes == expected
    assert entry == end


def test_outcomes_are_named_as_logs_and_journal_name_them() -> None:
    """Programs count them by these words."""
    names = "applied superseded duplicate late early unmatched expired"
    assert " ".join(Outcome) == names
