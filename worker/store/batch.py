"""Work in parts of a bounded size."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

MAX_BATCH: Final = 250
"""Events of one script call: it must not stall Redis."""

Item = TypeVar("Item")


def batched(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Yield the items in parts of at most ``size``."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
