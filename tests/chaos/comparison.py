"""The name by which ``tests/simulation`` still imports ``tests.comparison``."""

from tests.comparison import differences

__all__ = ["differences"]
