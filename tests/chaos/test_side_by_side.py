"""Workers of two releases take turns beside each other; `make side-by-side` is the real one."""

from pathlib import Path

import pytest

from tests.chaos.driver import Plan, run
from tests.keyspaces.copies import golden_copies
from tests.releases import TODAY, NoHistoryError, checked_out


@pytest.mark.processes
@pytest.mark.timeout(600)
async def test_two_releases_side_by_side_end_with_the_truth(tmp_path: Path) -> None:
    """The last one's worker and today's, on the same channels and Redis, with kills of both."""
    try:
        old = checked_out(golden_copies()[-1].made.commit, tmp_path / "old")
    except NoHistoryError as error:
        pytest.skip(str(error))
    plan = Plan(
        seed=3,
        kills=2,
        restarts=1,
        releases=[old, TODAY],
        young=0,
        seconds_between_bursts=2,
        pace=0.2,
    )

    report = await run(plan, tmp_path)

    assert report.is_exact, f"\n{report}"
    assert len(report.versions) == 2, f"\n{report}"
