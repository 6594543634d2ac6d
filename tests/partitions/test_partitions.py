"""A few partitions; ``python -m tests.partitions`` has as many as wanted."""

import sys
from pathlib import Path

import pytest

from tests.partitions.driver import Plan, run

pytestmark = pytest.mark.processes


@pytest.mark.timeout(600)
async def test_partitions_end_with_the_truth(tmp_path: Path) -> None:
    """Workers, PubNub and one Redis are parted and healed: every count is right, none is owed."""
    plan = Plan(seed=1, partitions=4, workers=1, longest_seconds=1)

    report = await run(plan, tmp_path, print)

    assert report.is_exact, str(report)
    assert report.ways.total() == plan.partitions


@pytest.mark.skipif(sys.platform != "linux", reason="loopback has one address here")
@pytest.mark.timeout(600)
async def test_partitions_of_a_cluster_end_with_the_truth(tmp_path: Path) -> None:
    """Three primaries and three replicas, parted from each other and from a worker."""
    plan = Plan(seed=1, partitions=4, workers=1, longest_seconds=2, is_cluster=True)

    report = await run(plan, tmp_path, print)

    assert report.is_exact, str(report)
