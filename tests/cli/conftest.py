"""The fixtures of this folder's tests."""

from tests.bench.fixtures import quick_waits

__all__ = ["quick_waits"]
