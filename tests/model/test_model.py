"""The model of the protocol holds, and needs each of its protections."""

import pytest

from tests.model.checker import Configuration, check, missing_programs
from tests.model.configurations import LIMITS, PROTECTIONS, SMALL

MISSING = missing_programs()
pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(bool(MISSING), reason=f"the model needs {' and '.join(MISSING)}"),
]
SECONDS = 60.0


@pytest.mark.parametrize("configuration", SMALL, ids=str)
def test_every_state_of_the_model_is_right(configuration: Configuration) -> None:
    """All states are visited, and no assertion fails."""
    verdict = check(configuration, seconds=SECONDS)

    assert not verdict.violation, str(verdict)
    assert verdict.is_exhausted


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_missing_protection_is_found(protection: str) -> None:
    """Without it some state is wrong, and a story leads there."""
    verdict = check(PROTECTIONS[protection].without(protection), seconds=SECONDS)

    assert verdict.violation
    assert verdict.story


@pytest.mark.parametrize("limit", LIMITS)
def test_a_known_limit_is_still_one(limit: str) -> None:
    """Without a later round or event something stays wrong: the documents say so."""
    verdict = check(LIMITS[limit], seconds=SECONDS)

    assert verdict.violation
