"""A few minutes' chaos in a few seconds; `make chaos` is the real one."""

from pathlib import Path

import pytest

from tests.chaos.driver import Plan, run


@pytest.mark.timeout(300)
async def test_a_little_chaos_ends_with_the_truth(tmp_path: Path) -> None:
    """Kills, restarts of Redis, losses, overflow: repaired and reconciled, every count is right."""
    plan = Plan(
        seed=1, kills=2, restarts=1, workers=1, back=1, seconds_between_bursts=0.5, pace=0.2
    )

    report = await run(plan, tmp_path)

    assert report.is_exact, f"\n{report}"
    assert report.kills.total() >= 2
    assert report.restarts.total() == 1
