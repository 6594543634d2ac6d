"""The fixtures of this folder's tests."""

from tests.bench.fixtures import quick

__all__ = ["quick"]
