"""The fixtures of this folder's tests."""

import pytest

from tests.bench.bench import Bench
from tests.bench.comparison import ComparisonBench
from tests.bench.fixtures import bench, emulator, idle_seconds, quick_waits

__all__ = ["bench", "comparison", "emulator", "idle_seconds", "quick_waits"]


@pytest.fixture
def comparison(bench: Bench) -> ComparisonBench:
    """Return a bench to reconcile and to verify on."""
    return ComparisonBench(bench)
