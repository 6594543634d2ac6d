"""Long sequences in parts."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in parts of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
